"""What is never sent: the hub hears nothing at all of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import call, flip_a_byte, reseal
from hub.server import Hub
from publish.releases import FILES, GATES, GRAPHS, REPO, TOKEN, profile, validation_of, write

from jtts_export.artifact import MANIFEST, VALIDATION, read, sealed
from jtts_export.errors import BadInput, GateFailed, OutsideError
from jtts_export.publish import publish
from jtts_export.publish.local import check

Change = Callable[[dict[str, Any]], object]


def assert_refused(hub: Hub, release: Path, says: str, profile: str | None = None) -> None:
    for dry_run in (False, True):
        with pytest.raises(GateFailed, match=says) as caught:
            publish(release, REPO, profile=profile, dry_run=dry_run)
        assert "\n" not in str(caught.value)
    assert hub.requests == []
    assert hub.repositories == {}


def enter(release: Path, name: str) -> None:
    """Make the manifest say that a file is as it is."""
    data = (release / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    reseal(release, lambda manifest: manifest["files"].update({name: entry}))


# --- bytes ----------------------------------------------------------------------------------------------------------


def test_one_edited_byte_of_any_file(hub: Hub, release: Path) -> None:
    for path in [p for p in release.rglob("*") if p.is_file()]:
        data = path.read_bytes()
        flip_a_byte(path)
        assert_refused(hub, release, path.name)
        path.write_bytes(data)
    check(release, None)


def test_a_missing_file_and_one_too_many(hub: Hub, release: Path) -> None:
    (release / "config.json").unlink()
    assert_refused(hub, release, r"config\.json is missing")
    shutil.copy(release / "README.md", release / "config.json")
    assert_refused(hub, release, r"config\.json is not the file")
    enter(release, "config.json")
    (release / "onnx/more.txt").write_text("more")
    assert_refused(hub, release, r"onnx/more\.txt is not in")


def test_a_graph_that_was_never_measured(hub: Hub, release: Path) -> None:
    (release / "onnx/model_q4.onnx").write_bytes(b"never measured")
    enter(release, "onnx/model_q4.onnx")
    assert_refused(hub, release, r"onnx/model_q4\.onnx was never measured")


def test_a_validation_that_changes_between_two_readings(
    hub: Hub, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is sent must be of the graphs that are sent."""
    monkeypatch.setattr("jtts_export.publish.local.verify", read)
    content = json.loads((release / VALIDATION).read_text())
    content["variants"]["int8"]["files"] = {GRAPHS["int8"]: "0" * 64}
    (release / VALIDATION).write_text(json.dumps(content))
    enter(release, VALIDATION)
    assert_refused(hub, release, f"{GRAPHS['int8']} changed while it was being published")


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["config.json", "more.json", "onnx", "folder"])
def test_a_link_wherever_it_leads(hub: Hub, release: Path, tmp_path: Path, name: str, inside: bool) -> None:
    """In the place of a file or a folder with the very bytes, and beside them."""
    where = release / ".kept" if inside else tmp_path / "elsewhere"
    where.mkdir()
    if (release / name).exists():
        (release / name).rename(where / name)
    else:
        (where / name).write_bytes(b"{}")
    (release / name).symlink_to(os.path.relpath(where / name, release))
    assert_refused(hub, release, f"{name} is a link")


def test_a_snapshot_in_the_hubs_cache_is_links(hub: Hub, release: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "cache/models--org--tiny/snapshots/0"
    (tmp_path / "cache/models--org--tiny/blobs").mkdir(parents=True)
    for path in [p for p in release.rglob("*") if p.is_file()]:
        blob = tmp_path / "cache/models--org--tiny/blobs" / path.name
        shutil.copy(path, blob)
        (snapshot / path.relative_to(release)).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path.relative_to(release)).symlink_to(blob)
    assert_refused(hub, snapshot, "is a link; publish a folder of files")


@pytest.mark.parametrize(
    "name",
    [
        "../escape",
        "onnx/../../escape",
        "/etc/passwd",
        "onnx\\escape",
        "a\nb",
        "a\x1b[2K",
        "a\x00b",
        "a\u202eb",
        "./x",
        "",
    ],
)
def test_a_name_that_leads_elsewhere_or_hides(hub: Hub, release: Path, name: str) -> None:
    reseal(release, lambda manifest: manifest["files"].update({name: {"sha256": "0" * 64, "size": 1}}))
    assert_refused(hub, release, "names a file outside the release")


@pytest.mark.parametrize("name", [".gitattributes", "onnx/.hidden", ".git/hooks/x"])
def test_a_name_of_somebodys_bookkeeping(hub: Hub, release: Path, name: str) -> None:
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_text("x")
    enter(release, name)
    assert_refused(hub, release, "bookkeeping|is missing")


def test_another_form_and_no_form(hub: Hub, release: Path) -> None:
    reseal(release, lambda manifest: manifest.update(schema_version=manifest["schema_version"] - 1))
    assert_refused(hub, release, "in a form unknown here")
    (release / MANIFEST).write_text("{}")
    assert_refused(hub, release, r"manifest\.json is damaged: schema_version: Field required")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"variants": []}',
        '{"variants": {"fp32": {}}}',
        '{"variants": {"fp32": {"files": 1}}}',
        "[" * 10**5,
    ],
)
def test_a_validation_of_no_form(hub: Hub, release: Path, text: str) -> None:
    (release / VALIDATION).write_text(text)
    enter(release, VALIDATION)
    assert_refused(hub, release, r"validation\.json is damaged")


def test_no_release_at_all(hub: Hub, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(OutsideError, match=r"is not a release: it has no manifest\.json"):
            publish(folder, REPO)
    assert hub.requests == []


# --- the verdict ----------------------------------------------------------------------------------------------------


def rows(validation: dict[str, Any], variant: str = "int8") -> list[dict[str, Any]]:
    return validation["variants"][variant]["gates"]


def lower(validation: dict[str, Any]) -> None:
    """As measured on a worse artifact, with everything else as it was."""
    validation["variants"]["int8"]["metrics"]["parity_decoder_snr_db"] = 3.0
    rows(validation)[1]["value"] = 3.0


def drop_gate(validation: dict[str, Any]) -> None:
    del rows(validation)[1]


CHANGES: dict[str, tuple[Change, str]] = {
    "failed": (lambda v: v.update(verdict="fail"), "verdict is 'fail'"),
    "inconclusive": (lambda v: v.update(verdict="inconclusive"), "verdict is 'inconclusive'"),
    "variant failed": (lambda v: v["variants"]["int8"].update(verdict="fail"), "int8 was not judged to pass"),
    "gate failed": (lambda v: rows(v)[0].update(outcome="fail", passed=False), "int8 was not judged to pass: dur"),
    "gate open": (lambda v: rows(v)[0].update(outcome="inconclusive"), "int8 was not judged to pass: durations"),
    "figure that fails": (lower, r"int8 does not pass: parity_decoder_snr_db >= 20 \(measured 3\.0\)"),
    "figure only in its row": (lambda v: rows(v)[1].update(value=99.0), "gates of int8 .* parity_decoder_snr_db"),
    "figure not a number": (lambda v: v["variants"]["int8"]["metrics"].update(parity_decoder_snr_db="nan"), "gates"),
    "figure missing": (lambda v: v["variants"]["int8"]["metrics"].clear(), "gates of int8"),
    "gate missing": (drop_gate, "gates of int8 .* parity_decoder_snr_db"),
    "no gates": (lambda v: rows(v).clear(), "gates of int8"),
    "lower limit": (lambda v: rows(v)[1].update(limit=1.0), "gates of int8 .* parity_decoder_snr_db"),
    "other operator": (lambda v: rows(v)[1].update(op="<="), "gates of int8 .* parity_decoder_snr_db"),
    "open interval": (lambda v: rows(v)[1].update(interval=[19.0, 40.0]), "int8 does not pass"),
    "does not run": (lambda v: v["variants"]["int8"].update(error="RuntimeError"), "int8 does not run"),
    "of another model": (lambda v: v.update(model="t3"), "of another model"),
    "of another checkpoint": (lambda v: v["checkpoint"].update(sha256="cd" * 32), "of another checkpoint"),
    "of another source": (lambda v: v["checkpoint"].update(source="hub:org/other"), "of another checkpoint"),
    "of another profile": (lambda v: v["profile"].update(threads=9), "of another profile"),
    "of another form": (lambda v: v.update(schema_version=1), "of another schema_version"),
    "no metrics": (lambda v: v["variants"]["int8"].pop("metrics"), "not of the form"),
    "a limit that no float holds": (lambda v: rows(v)[1].update(limit=10**400), "not of the form"),
    "a row that is hidden": (lambda v: rows(v)[1].update(metric="\x1b[2K"), "gates of int8 .*: \ufffd.2K, parity"),
    "rows of nothing": (lambda v: v["variants"]["int8"].update(gates=[None]), "not of the form"),
    "interval of nothing": (lambda v: rows(v)[1].update(interval=["x"]), "not of the form"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_verdict_that_its_own_figures_do_not_bear_out(hub: Hub, tmp_path: Path, name: str) -> None:
    """With every checksum and seal right, as somebody would who knows how they are made."""
    change, says = CHANGES[name]
    assert_refused(hub, write(tmp_path / "out", change=change), says)


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_folder_aside_and_one_that_was_renamed(hub: Hub, tmp_path: Path, verdict: str) -> None:
    aside = write(tmp_path / "out", change=lower, alter=lambda manifest: manifest.update(verdict=verdict))
    assert aside.name == {"fail": "kokoro.failed"}.get(verdict, f"kokoro.{verdict}")
    assert_refused(hub, aside, f"verdict is '{verdict}'")
    aside.rename(tmp_path / "kokoro")
    assert_refused(hub, tmp_path / "kokoro", f"verdict is '{verdict}'")


def test_a_validation_that_judges_other_variants(hub: Hub, tmp_path: Path) -> None:
    def more(manifest: dict[str, Any]) -> None:
        manifest["variants"]["int4"] = {"files": []}

    assert_refused(hub, write(tmp_path / "out", alter=more), "judges fp32, int8, and the manifest has fp32, int4")


def test_a_validation_of_other_bytes_than_the_manifests(hub: Hub, release: Path) -> None:
    content = json.loads((release / VALIDATION).read_text())
    (release / VALIDATION).write_text(json.dumps(content, indent=1))
    assert_refused(hub, release, r"validation\.json is not the file that was validated")


# --- the profile ----------------------------------------------------------------------------------------------------


def of_profile(tmp_path: Path, name: str, gates: dict[str, Any]) -> Path:
    other = profile(gates, name)
    judged = validation_of(FILES, other)
    return write(
        tmp_path / "out",
        change=lambda v: v.update(profile=other, variants=judged["variants"]),
        alter=lambda m: m.update(profile=other),
    )


def toml(tmp_path: Path, name: str = "tiny", limit: str = ">= 20") -> str:
    path = tmp_path / f"{name}-{limit[3:]}.toml"
    path.write_text(
        f'name = "{name}"\ndescription = "asked for"\nthreads = 1\n'
        '[gates.kokoro.all]\ndurations_equal_ratio = ">= 0.9"\n'
        '[gates.kokoro.fp32]\nparity_decoder_snr_db = ">= 80"\n'
        f'[gates.kokoro.int8]\nparity_decoder_snr_db = "{limit}"\nsize_ratio_vs_fp32 = "<= 0.5"\n'
    )
    return str(path)


def test_the_profile_that_is_asked_for(made: Path, tmp_path: Path) -> None:
    check(made, toml(tmp_path))  # whatever its description


def test_another_profile_than_asked_for(hub: Hub, made: Path, tmp_path: Path) -> None:
    assert_refused(hub, made, "judged for profile tiny, not for cpu", "cpu")
    assert_refused(hub, made, "judged for profile tiny, not for other", toml(tmp_path, "other"))
    says = r"another profile of the name tiny .*int8 parity_decoder_snr_db >= 20, int8 parity_decoder_snr_db >= 25"
    assert_refused(hub, made, says, toml(tmp_path, limit=">= 25"))
    with pytest.raises(BadInput, match="no profile 'nothing'"):
        publish(made, REPO, profile="nothing")
    assert hub.requests == []


def test_gates_that_are_laxer_than_those_of_the_built_in_profile_of_that_name(hub: Hub, tmp_path: Path) -> None:
    assert_refused(hub, of_profile(tmp_path, "cpu", GATES), "another profile of the name cpu than is known here")


def test_a_profile_without_gates(hub: Hub, tmp_path: Path) -> None:
    assert_refused(hub, of_profile(tmp_path, "tiny", {}), "int8 does not pass: no gate|fp32 does not pass: no gate")


# --- what cannot be asked for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "repo",
    [
        *("tiny", "org/tiny/more", "org/", "/tiny", "org/ti ny", "../tiny", "org/a--b", "org/..", "org/x.git", ""),
        *("org/tiny.", "org/tiny-", "org./tiny", "org/tin\xfd"),
    ],
)
def test_names_that_no_repository_has(hub: Hub, made: Path, repo: str) -> None:
    with pytest.raises(BadInput, match="is not the name of a repository"):
        publish(made, repo)
    assert hub.requests == []


@pytest.mark.parametrize("branch", ["refs/pr/1", "a..b", "", "-x", "a b", "a/", "a//b", "a.", "a/.b"])
def test_names_that_no_branch_has(hub: Hub, made: Path, branch: str) -> None:
    with pytest.raises(BadInput, match="is not the name of a branch"):
        publish(made, REPO, revision=branch)
    assert hub.requests == []


def test_the_command_says_so_in_one_line(hub: Hub, release: Path, tmp_path: Path) -> None:
    flip_a_byte(release / "config.json")
    done = call(tmp_path, "publish", release, "--repo", REPO)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[-1].startswith(f"jtts-export: {release}: config.json is not the file")
    assert TOKEN not in done.stderr
    assert call(tmp_path, "publish", tmp_path, "--repo", REPO).returncode == 4
    assert call(tmp_path, "publish", release, "--repo", "tiny").returncode == 2
    assert hub.requests == []


def test_a_file_that_is_named_to_rewrite_the_terminal(hub: Hub, release: Path, tmp_path: Path) -> None:
    (release / "a\b\x07\u202eb\nc").write_text("x")
    done = call(tmp_path, "publish", release, "--repo", REPO)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].endswith(": a\ufffd\ufffd\ufffdb c is not in manifest.json")


def test_a_manifest_without_its_seal(hub: Hub, release: Path) -> None:
    content = json.loads((release / MANIFEST).read_text())
    assert sealed(content) == (release / MANIFEST).read_text()
    (release / MANIFEST).write_text(json.dumps({**content, "seal": ""}))
    assert_refused(hub, release, "has no seal")
