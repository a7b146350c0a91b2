"""`jtts-export build` on this machine: what is shared, what fails alone, what a rerun does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from command import (
    COMMAND,
    LIMIT_S,
    PROFILE,
    Built,
    assert_refused,
    brief,
    contents,
    environment,
    graphs,
    run,
    start,
)
from hub.server import Fault, Hub, serve
from plan_files import POISON, build_table, events, on_path, poison

from jtts_export.locks import exclusive
from jtts_export.store import Store

TIMED = PROFILE.replace("[gates.kokoro.int8]", '[gates.kokoro.int8]\nrtf_warm_p50 = "<= 1e9"')
TOKEN = "hf_" + "PlanToken" * 3
SHARED = {"export", "spread", "optimize"}


def write_plan(folder: Path, *tables: str, sentences: bool = True) -> str:
    said = f'[defaults]\nsentences = "{brief(folder)[-1]}"\n\n' if sentences else ""
    (folder / "plan.toml").write_text(said + "\n".join(tables))
    return "plan.toml"


def build(folder: Path, plan: str, *more: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return run(folder, "build", plan, "--cache", "cache", "--log", "log.jsonl", *more, **options)


def found(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(done.stdout)["builds"]}


def made(log: list[dict[str, Any]], stage: str) -> list[dict[str, Any]]:
    return [e for e in log if e["event"] == "stage_done" and e["stage"] == stage and not e["cached"]]


@pytest.fixture(scope="module")
def home(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a plan was built: two variants of a checkpoint, a gate that cannot hold, a checkpoint that is not there,
    and one whose process crashes."""
    folder = tmp_path_factory.mktemp("plan")
    impossible = folder / "impossible.toml"
    impossible.write_text(TIMED.replace(">= 20", ">= 2000").replace('"tiny"', '"impossible"'))
    (folder / POISON).symlink_to(built.checkpoint)
    plan = write_plan(
        folder,
        build_table("int8", built, ["int8"]),
        build_table("impossible", replace(built, profile=impossible), ["int8"]),
        build_table("none", built, ["int8"], folder / "none"),
        build_table("crash", built, ["int8"], folder / POISON),
    )
    site = poison(folder / "site", "print('oh', file=sys.stderr, flush=True) or os.kill(os.getpid(), signal.SIGSEGV)")
    done = build(folder, plan, "--jobs", "2", "--report", "report", "--json", env=on_path(site))
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    assert done.returncode == 4, (done.stdout, done.stderr)
    return folder


def test_what_fails_fails_alone(home: Path) -> None:
    builds = {one["name"]: one for one in json.loads((home / "stdout").read_text())["builds"]}
    assert {name: (one["verdict"], one["code"]) for name, one in builds.items()} == {
        "int8": ("pass", 0),
        "impossible": ("fail", 3),
        "none": ("error", 4),
        "crash": ("error", 4),
    }
    assert builds["none"]["error"].startswith(f"no checkpoint at '{home / 'none'}'")
    assert builds["crash"]["error"] == "its process was killed by SIGSEGV; it said last: oh"
    assert "Traceback" not in (home / "stderr").read_text()
    assert sorted(p.relative_to(home / "release").as_posix() for p in (home / "release").glob("*/*")) == [
        "impossible/kokoro.failed",
        "int8/kokoro",
    ]


def test_it_has_the_bytes_of_a_build_of_its_own(home: Path, built: Built) -> None:
    whole = graphs(built.release)
    assert graphs(home / "release" / "int8" / "kokoro") == {n: whole[n] for n in whole if "_fp16" not in n}
    assert run(home, "inspect", "release/int8/kokoro").returncode == 0


def test_shared_stages_are_made_once(home: Path) -> None:
    log = events(home / "log.jsonl")
    for stage in SHARED:
        assert [e["builds"] for e in made(log, stage)] == [["int8", "impossible"]]
    assert {e["build"] for e in made(log, "quantize-int8")} == {"int8", "impossible"}  # by other gates


def test_what_is_timed_runs_alone(home: Path) -> None:
    """By the log: between begin and end of the timed validation, no other stage ran."""
    at_work: set[tuple[str, str]] = set()
    together = []
    for event in events(home / "log.jsonl"):
        if event["event"] not in {"stage_started", "stage_done", "stage_failed"} or event.get("cached"):
            continue
        stage = str(event.get("build") or event.get("builds")), event["stage"]
        if event["event"] == "stage_started":
            at_work.add(stage)
            together.append(set(at_work))
        else:
            at_work.discard(stage)
    timed = [stages for stages in together if ("impossible", "validate") in stages]
    assert timed == [{("impossible", "validate")}]


def test_a_report_for_ci(home: Path) -> None:
    text = (home / "report" / "report.md").read_text(encoding="utf-8")
    assert text.startswith("## ❌ plan: 1 of 4 builds passed\n")
    assert "| impossible | fp32 | ✅ pass |" in text
    assert "❌ fail" in text
    assert "parity\\_decoder\\_snr\\_db" in text
    assert "killed by SIGSEGV" in text
    assert str(home) not in text.replace(f"'{home / 'none'}'", "")
    suites = ET.parse(home / "report" / "junit.xml").getroot()  # noqa: S314 - we wrote it
    cases = {suite.get("name"): [case.get("name") for case in suite] for suite in suites}
    assert cases["none"] == cases["crash"] == ["build"]
    assert "int8.parity_decoder_snr_db ≥ 20 dB" in cases["int8"]
    assert (suites.get("failures"), suites.get("errors")) == ("1", "2")


def test_every_line_of_the_log_is_an_event(home: Path) -> None:
    log = events(home / "log.jsonl")
    assert log[0]["event"] == "plan_started"
    assert log[-1] == {**log[-1], "event": "plan_done", "exit_code": 4}
    assert all(isinstance(event["time"], float) for event in log)
    (failed,) = [e for e in log if e["event"] == "build_failed" and e["build"] == "none"]
    assert failed["code"] == 4
    ended = [e for e in log if e["event"] == "stage_done"]
    assert all(e["seconds"] >= 0 and isinstance(e["cached"], bool) for e in ended)


def test_a_rerun_of_what_is_finished_does_nothing_and_imports_nothing_heavy(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.glob("release/**/*")}
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], "build", "plan.toml", "--cache", "cache"]
    command += ["--only", "int8", "--only", "impossible", "--json"]
    done = subprocess.run(
        command, cwd=home, env=environment(home), capture_output=True, encoding="utf-8", timeout=LIMIT_S, check=False
    )
    assert done.returncode == 3, done.stderr
    assert all(one["unchanged"] for one in found(done).values())
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "jtts_export.plan.run" in imported
    assert not imported & {"torch", "numpy", "onnx", "onnxruntime", "distributed", "fsspec", "huggingface_hub"}
    assert {path: path.stat().st_mtime_ns for path in home.glob("release/**/*")} == before


def test_a_changed_file_of_a_release_is_put_right_from_the_cache(home: Path) -> None:
    graph = home / "release" / "int8" / "kokoro" / "onnx" / "model.onnx"
    whole, before = graph.read_bytes(), contents(home / "release" / "int8")
    graph.write_bytes(whole[:-1] + b"x")
    done = build(home, "plan.toml", "--only", "int8", "--json")
    assert done.returncode == 0, done.stderr
    assert not found(done)["int8"]["unchanged"]
    assert contents(home / "release" / "int8") == before
    assert "validate" not in {e["stage"] for e in events(home / "log.jsonl")[-4:] if e["event"] == "stage_started"}


def test_a_machine_without_a_cache_takes_all_from_a_store(home: Path, tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    sent = build(home, "plan.toml", "--only", "int8", "--store", store, "--out", "other")
    assert sent.returncode == 0, sent.stderr
    log = tmp_path / "log.jsonl"
    more = ["--cache", str(tmp_path / "cache"), "--store", store, "--log", str(log), "--out", str(tmp_path / "out")]
    done = run(home, "build", "plan.toml", "--only", "int8", *more)
    assert done.returncode == 0, done.stderr
    assert [e["stage"] for e in events(log) if e["event"] == "stage_started"] == []
    assert contents(tmp_path / "out" / "int8") == contents(home / "release" / "int8")


def test_a_killed_plan_takes_its_processes_along_and_leaves_the_stage_to_the_next(
    built: Built, tmp_path: Path
) -> None:
    plan = write_plan(tmp_path, build_table("fp16", built, ["fp16"]))
    process = start(tmp_path, "build", plan, "--cache", "cache")
    assert process.stderr is not None
    assert any("export           loading" in line for line in process.stderr)
    (work,) = (tmp_path / "cache").glob("tmp-*")
    pid = int(work.name.split("-")[1])
    assert pid != process.pid
    process.kill()
    process.communicate()
    (lock,) = (tmp_path / "cache").glob(".export-*.lock")
    with exclusive(lock):  # it can be had once the task's process is gone, or nearly so
        until = time.monotonic() + LIMIT_S
        while list((tmp_path / "cache").glob("tmp-*")) and time.monotonic() < until:
            Store(tmp_path / "cache")
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {"hashes"}


def test_fail_fast_stops_the_others(built: Built, tmp_path: Path) -> None:
    plan = write_plan(
        tmp_path,
        build_table("none", built, ["int8"], tmp_path / "none"),
        build_table("later", built, ["int8"]),
    )
    done = build(tmp_path, plan, "--fail-fast", "--json")
    assert done.returncode == 4
    assert {n: one["verdict"] for n, one in found(done).items()} == {"none": "error", "later": "not run"}
    assert [e for e in events(tmp_path / "log.jsonl") if e["event"] == "stage_started"] == []


def test_the_table_says_why(built: Built, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, build_table("none", built, ["int8"], tmp_path / "none"))
    done = build(tmp_path, plan)
    header, row = done.stdout.splitlines()[:2]
    assert re.split(r"  +", header)[:3] == ["build", "variant", "verdict"]
    assert row.startswith("none")
    assert "error" in row
    assert "no checkpoint at" in row


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--scheduler", "tcp://127.0.0.1:1"], "--scheduler needs a --store"),
        (["--only", "x"], "unknown build 'x'; builds: none"),
        (["--publish"], "no build has a repo"),
        (["--store", "folder"], "store 'folder' is no URL"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(built: Built, tmp_path: Path, more: list[str], named: str) -> None:
    plan = write_plan(tmp_path, build_table("none", built, ["int8"], tmp_path / "none"))
    assert_refused(build(tmp_path, plan, *more), 2, named)


def test_what_passed_and_has_a_repo_is_published_and_nothing_else(home: Path, built: Built, tmp_path: Path) -> None:
    tables = [
        build_table("int8", built, ["int8"]) + 'repo = "me/{name}-{model}"\n',
        build_table("impossible", replace(built, profile=home / "impossible.toml"), ["int8"])
        + 'repo = "me/failed"\n',
    ]
    (home / "publish.toml").write_text(f'[defaults]\nsentences = "{brief(home)[-1]}"\n\n' + "\n".join(tables))
    with serve(Hub(tmp_path / "hub", writers=(TOKEN,))) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
        log = tmp_path / "log.jsonl"
        done = build(home, "publish.toml", "--publish", "--json", "--log", str(log), env=env)
        assert done.returncode == 3, done.stderr
        assert list(hub.repositories) == ["me/int8-kokoro"]
        there = {name: blob.read() for name, blob in hub.repositories["me/int8-kokoro"].head.tree.items()}
        release = home / "release" / "int8" / "kokoro"
        files = {p.relative_to(release).as_posix(): p.read_bytes() for p in release.rglob("*") if p.is_file()}
        assert {name: there[name] for name in files} == files
        assert found(done)["int8"]["published"].startswith("published: me/int8-kokoro@main, commit ")
        assert found(done)["impossible"]["published"] is None
        hub.fault = lambda request: Fault("status", 403)
        again = build(home, "publish.toml", "--publish", "--json", "--only", "int8", "--log", str(log), env=env)
        assert again.returncode == 4, again.stderr
        assert found(again)["int8"]["verdict"] == "pass"
        assert found(again)["int8"]["published"].startswith("not published: ")
    assert [e["event"] for e in events(log) if "publish" in e["event"]] == ["published", "publish_failed"]
    assert not any(TOKEN in text for text in (done.stdout, done.stderr, again.stdout, again.stderr, log.read_text()))
