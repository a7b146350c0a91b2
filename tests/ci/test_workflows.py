"""The action, the workflow and the GitLab job: as their services read them, and their scripts as these run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import PROFILE, brief

REPOSITORY = Path(__file__).parents[2]
ACTION, WORKFLOW = REPOSITORY / "action.yml", REPOSITORY / ".github/workflows/build-models.yml"
PLAN = REPOSITORY / "plans/official.toml"
EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _gitlab_job() -> str:
    """The last YAML of docs/ci.md."""
    return re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs/ci.md").read_text(encoding="utf-8"), re.S)[-1]


@pytest.mark.parametrize("schema", ["github-actions", "github-workflows", "gitlab-ci"])
def test_is_of_the_form_that_the_service_asks_for(schema: str, tmp_path: Path) -> None:
    job = tmp_path / "gitlab.yml"
    job.write_text(_gitlab_job(), encoding="utf-8")
    file = {"github-actions": ACTION, "github-workflows": WORKFLOW, "gitlab-ci": job}[schema]
    transform = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *transform, str(file)],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_no_script_holds_an_expression() -> None:
    """What a branch or an input is called would be run as a command."""
    steps = [*_yaml(ACTION)["runs"]["steps"], *_yaml(WORKFLOW)["jobs"]["build"]["steps"]]
    assert not [step["run"] for step in steps if EXPRESSION.search(step.get("run", ""))]


def test_every_input_is_used_and_every_one_used_is_there() -> None:
    action = _yaml(ACTION)
    used = set(re.findall(r"inputs\.([\w-]+)", ACTION.read_text(encoding="utf-8")))
    assert used == set(action["inputs"])
    given = next(step["with"] for step in _yaml(WORKFLOW)["jobs"]["build"]["steps"] if step.get("uses") == "./")
    assert set(given) <= set(action["inputs"])
    documented = set(re.findall(r"^\| `.*\|", (REPOSITORY / "docs/ci.md").read_text(encoding="utf-8"), re.M))
    assert all(any(f"`{name}`" in line.split("|")[1] for line in documented) for name in action["inputs"])


def test_the_matrix_is_the_plans_builds() -> None:
    names = [build["name"] for build in tomllib.loads(PLAN.read_text(encoding="utf-8"))["build"]]
    assert _yaml(WORKFLOW)["jobs"]["build"]["strategy"]["matrix"]["build"] == names
    assert yaml.safe_load(_gitlab_job())["build-models"]["parallel"]["matrix"] == [{"BUILD": names}]


def test_the_token_is_for_publication_alone() -> None:
    text = WORKFLOW.read_text(encoding="utf-8")
    assert re.findall(r"\$\{\{.*secrets.*\}\}", text) == ["${{ env.PUBLISH == 'true' && secrets.HF_TOKEN || '' }}"]
    assert _yaml(WORKFLOW)["permissions"] == {"contents": "read"}


def _build(home: Path, **inputs: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Path]]:
    """The action's step, in a job's environment, with inputs as a workflow gives them."""
    action = _yaml(ACTION)
    step = next(s for s in action["runs"]["steps"] if s.get("id") == "build")
    values = {name: entry.get("default", "") for name, entry in action["inputs"].items()} | inputs
    env = {
        k: EXPRESSION.sub(lambda m: values[m[1].strip().removeprefix("inputs.")], v) for k, v in step["env"].items()
    }
    files = {name: home / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = {**os.environ, **env, **{k: str(v) for k, v in files.items()}, "PATH": path}
    given |= {"GITHUB_ACTION_PATH": str(REPOSITORY), "JTTS_EXPORT_CACHE": str(home / "cache")}
    done = subprocess.run(
        ["bash", "-c", step["run"]], cwd=home, env=given, capture_output=True, text=True, timeout=240
    )
    return done, files


def test_a_job_builds_its_plan_and_shows_the_report_whatever_became_of_it(
    kokoro_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "good.toml").write_text(PROFILE)
    (tmp_path / "bad.toml").write_text(PROFILE.replace(">= 80", ">= 800"))
    (tmp_path / "plan.toml").write_text(
        f"""
        [defaults]
        model = "kokoro"
        checkpoint = "{kokoro_folder}"
        sentences = "{brief(tmp_path)[-1]}"

        [[build]]
        name = "good"
        profile = "good.toml"

        [[build]]
        name = "bad"
        profile = "bad.toml"
        """
    )
    done, files = _build(tmp_path, plan="plan.toml")
    assert done.returncode == 3, done.stderr
    summary = files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
    assert "1 of 2 builds passed" in summary and "parity\\_decoder\\_snr\\_db | 1" in summary
    assert files["GITHUB_OUTPUT"].read_text() == "exit-code=3\n"
    assert {"report.md", "junit.xml", "log.jsonl"} <= {path.name for path in (tmp_path / "report").iterdir()}

    done, files = _build(tmp_path, plan="plan.toml", only="good")
    assert done.returncode == 0, done.stderr
    assert files["GITHUB_OUTPUT"].read_text().endswith("exit-code=0\n")


def test_a_plan_that_is_not_there_ends_a_job_and_says_so(tmp_path: Path) -> None:
    done, files = _build(tmp_path, plan="nowhere.toml")
    assert done.returncode in (2, 4) and "nowhere.toml" in done.stderr
    assert files["GITHUB_OUTPUT"].read_text() == f"exit-code={done.returncode}\n"
