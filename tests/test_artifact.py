"""The release folder: every file in the manifest, every graph the one that was measured, nothing from outside."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command import contents, sha256

from jtts_export import artifact
from jtts_export.artifact import MANIFEST, VALIDATION, is_current, read, release_path, sealed, verify, write
from jtts_export.errors import BadInput, GateFailed, OutsideError

# Two graphs and one that is derived from the second; the variants fp32 and int8 of each.
GRAPHS = ("onnx/encoder.onnx", "onnx/decoder.onnx", "onnx/decoder_merged.onnx")
QUANTIZED = ("onnx/encoder_quantized.onnx", "onnx/decoder_quantized.onnx", "onnx/decoder_merged_quantized.onnx")
DERIVED = QUANTIZED[2]


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    """Path in the release -> a file of the cache."""
    made = {}
    for number, name in enumerate((*GRAPHS, *QUANTIZED, "config.json")):
        made[name] = tmp_path / "cache" / f"{number}"
        made[name].parent.mkdir(exist_ok=True)
        made[name].write_bytes(f"the bytes of {name}".encode())
    return made


def validation_of(parts: dict[str, Path], **more: Any) -> dict[str, Any]:
    variants = {"fp32": GRAPHS, "int8": QUANTIZED}
    return {
        "verdict": "pass",
        "variants": {v: {"files": {n: sha256(parts[n]) for n in names}} for v, names in variants.items()},
    } | more


def manifest(**more: Any) -> dict[str, Any]:
    return {
        **{"schema_version": artifact.SCHEMA_VERSION, "tool_version": "1", "model": "toy", "licence": "MIT"},
        **{"checkpoint": {"source": "random:0"}, "opset": 17, "profile": {}, "verdict": "pass"},
        **{"variants": {}, "versions": {}, "machine": {}},
        **more,
    }


def written(out: Path, parts: dict[str, Path], validation: dict[str, Any] | None = None) -> Path:
    text = json.dumps(validation_of(parts) if validation is None else validation)
    return write(out, parts, {VALIDATION: text, "README.md": "card"}, manifest())


@pytest.fixture
def release(tmp_path: Path, parts: dict[str, Path]) -> Path:
    return written(tmp_path / "out", parts)


def test_a_release_holds_every_part_and_verifies(release: Path, parts: dict[str, Path], tmp_path: Path) -> None:
    assert release == tmp_path / "out" / "toy" == release_path(tmp_path / "out", "toy", "pass")
    files = {name: value for name, value in contents(release).items() if not name.endswith("/")}
    assert set(files) == {*parts, MANIFEST, VALIDATION, "README.md"}
    whole, validation = verify(release)
    assert {name: entry.sha256 for name, entry in whole.files.items()} == {
        name: value for name, value in files.items() if name != MANIFEST
    }
    assert validation == validation_of(parts)
    assert is_current(release, (release / VALIDATION).read_text())
    assert not is_current(release, "{}")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["toy"]


@pytest.mark.parametrize("name", [*GRAPHS, *QUANTIZED])
def test_a_graph_that_is_not_the_measured_one_is_never_packaged(
    tmp_path: Path, parts: dict[str, Path], name: str
) -> None:
    """The encoder, the decoder, and what is derived for a client alike."""
    validation = validation_of(parts)
    parts[name].write_bytes(b"another network")
    with pytest.raises(GateFailed, match=f"^{name} is not the file that was measured"):
        written(tmp_path / "out", parts, validation)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", [*GRAPHS, *QUANTIZED])
def test_a_graph_that_was_measured_must_be_there(tmp_path: Path, parts: dict[str, Path], name: str) -> None:
    validation = validation_of(parts)
    del parts[name]
    with pytest.raises(GateFailed, match=f"^{name} is not the file that was measured"):
        written(tmp_path / "out", parts, validation)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_graph_that_nobody_measured_is_never_packaged(tmp_path: Path, parts: dict[str, Path]) -> None:
    """Derived for some client, say, and forgotten where graphs are judged."""
    validation = validation_of(parts)
    del validation["variants"]["int8"]["files"][DERIVED]
    with pytest.raises(GateFailed, match=f"^{DERIVED} was never measured"):
        written(tmp_path / "out", parts, validation)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_graph_added_to_release_and_manifest_was_still_not_measured(release: Path) -> None:
    (release / "onnx/model_q4.onnx").write_bytes(b"never measured")
    with pytest.raises(GateFailed, match=rf"onnx/model_q4\.onnx is not in {MANIFEST}"):
        verify(release)
    enter(release, "onnx/model_q4.onnx")
    with pytest.raises(GateFailed, match=r"onnx/model_q4\.onnx was never measured"):
        verify(release)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """As one would who knows about the seal."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(sealed(content) if path.name == MANIFEST else json.dumps(content))


def enter(release: Path, name: str) -> None:
    """Make the manifest say that a file is as it is."""
    data = {"sha256": sha256(release / name), "size": (release / name).stat().st_size}
    edit(release / MANIFEST, lambda content: content["files"].update({name: data}))


@pytest.mark.parametrize("name", [DERIVED, "onnx/encoder.onnx"])
def test_a_graph_swapped_in_file_and_manifest_is_still_not_the_measured_one(release: Path, name: str) -> None:
    (release / name).write_bytes((release / "onnx/decoder.onnx").read_bytes())
    with pytest.raises(GateFailed, match=f"{name} is not the file that was validated"):
        verify(release)
    enter(release, name)
    with pytest.raises(GateFailed, match=f"{name} is not the file that was measured"):
        verify(release)
    assert not is_current(release, (release / VALIDATION).read_text())


@pytest.mark.parametrize("outside", ["../model.onnx", "onnx/../../model.onnx", "onnx/../onnx/encoder.onnx"])
def test_a_validation_that_names_a_file_outside_is_refused(
    tmp_path: Path, parts: dict[str, Path], outside: str
) -> None:
    """Even where such a file exists, and has the very bytes."""
    (tmp_path / "out").mkdir()
    for folder in (tmp_path, tmp_path / "out"):
        (folder / "model.onnx").write_bytes(parts["onnx/encoder.onnx"].read_bytes())
    validation = validation_of(parts)
    validation["variants"]["fp32"]["files"][outside] = sha256(parts["onnx/encoder.onnx"])
    with pytest.raises(GateFailed, match="is not the file that was measured"):
        written(tmp_path / "out", parts, validation)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]

    release = written(tmp_path / "out", parts)
    (release / VALIDATION).write_text(json.dumps(validation))
    enter(release, VALIDATION)
    with pytest.raises(GateFailed, match="is not the file that was measured"):
        verify(release)


def test_an_absolute_path_in_a_validation_is_refused(tmp_path: Path, parts: dict[str, Path]) -> None:
    validation = validation_of(parts)
    validation["variants"]["fp32"]["files"][str(parts["onnx/encoder.onnx"])] = sha256(parts["onnx/encoder.onnx"])
    with pytest.raises(GateFailed, match="is not the file that was measured"):
        written(tmp_path / "out", parts, validation)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../escape",
            "onnx/../../escape",
            "/etc/passwd",
            "onnx\\..\\escape",
            "onnx//model.onnx",
            "./model.onnx",
            "",
        ),
        *("onnx/", ".", "a\nb", "a\x1b[2Kb", "a\x00b", "a\u2028b", "onnx/\x7f"),
    ],
)
def test_a_manifest_that_names_a_file_outside_is_refused(release: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "size": 1}
    edit(release / MANIFEST, lambda content: content["files"].update({name: entry}))
    for reading in (read, verify):
        with pytest.raises(OutsideError, match="names a file outside the release"):
            reading(release)


def test_a_changed_byte_of_any_file_is_refused_by_its_name(release: Path) -> None:
    """Every byte of the manifest, and the ends and the middle of every other file."""
    for name in (n for n in contents(release) if not n.endswith("/")):
        data = (release / name).read_bytes()
        places = range(len(data)) if name == MANIFEST else {0, len(data) // 2, len(data) - 1}
        for place in places:
            for bit in (1, 32):
                changed = bytearray(data)
                changed[place] ^= bit
                (release / name).write_bytes(changed)
                with pytest.raises((GateFailed, OutsideError), match=re.escape(name)):
                    verify(release)
        (release / name).write_bytes(data)
    verify(release)


def test_a_manifest_without_its_seal_is_refused(release: Path) -> None:
    content = json.loads((release / MANIFEST).read_text())
    del content["seal"]
    (release / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(GateFailed, match=f"{MANIFEST} is not what was written: it has no seal"):
        verify(release)


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_what_did_not_pass_never_lies_where_a_release_lies(tmp_path: Path, verdict: str) -> None:
    assert release_path(tmp_path, "toy", verdict).name == {"fail": "toy.failed"}.get(verdict, f"toy.{verdict}")


@pytest.mark.parametrize("version", [1, artifact.SCHEMA_VERSION + 1])
def test_a_release_of_another_form_is_said_to_be_so(release: Path, version: int) -> None:
    edit(release / MANIFEST, lambda content: content.update(schema_version=version, tool_version="0.0.1"))
    with pytest.raises(OutsideError, match=r"written by jtts-export 0\.0\.1, in a form unknown here"):
        verify(release)
    assert not is_current(release, (release / VALIDATION).read_text())


def test_a_release_that_fails_lies_aside_and_the_one_that_passed_stays(
    release: Path, parts: dict[str, Path], tmp_path: Path
) -> None:
    before = contents(release)
    text = json.dumps(validation_of(parts, verdict="fail"))
    aside = write(tmp_path / "out", parts, {VALIDATION: text}, manifest(verdict="fail"))
    assert aside == tmp_path / "out" / "toy.failed"
    verify(aside)
    assert contents(release) == before


# --- what lies beside a release, and what may not be read or written ---------------------------------------------


@pytest.mark.parametrize("name", [".DS_Store", "onnx/.DS_Store", ".git/config", "onnx/.cache/model.onnx"])
def test_what_begins_with_a_dot_is_no_part_of_a_release(release: Path, name: str) -> None:
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_bytes(b"somebody's bookkeeping")
    verify(release)
    assert is_current(release, (release / VALIDATION).read_text())


def test_what_begins_with_a_dot_is_looked_at_where_the_manifest_names_it(release: Path) -> None:
    (release / "onnx/.notes").write_bytes(b"notes")
    enter(release, "onnx/.notes")
    verify(release)
    (release / "onnx/.notes").write_bytes(b"other")
    with pytest.raises(GateFailed, match=r"onnx/\.notes is not the file that was validated"):
        verify(release)
    (release / "onnx/.notes").unlink()
    with pytest.raises(GateFailed, match=r"onnx/\.notes is missing"):
        verify(release)


@pytest.mark.parametrize("name", ["onnx/.model.onnx", "onnx/.cache/model.onnx_data", ".model.onnx"])
def test_a_graph_in_the_manifest_must_have_been_measured_whatever_its_name(release: Path, name: str) -> None:
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_bytes(b"never measured")
    enter(release, name)
    with pytest.raises(GateFailed, match=f"{re.escape(name)} (was never measured|is missing)"):
        verify(release)


@pytest.mark.parametrize("target", ["onnx/decoder.onnx", "../elsewhere", "nothing", ".", "../blobs/x"])
def test_a_link_is_no_file_of_a_release(release: Path, tmp_path: Path, target: str) -> None:
    """In the place of a file with the very bytes, and beside the files alike."""
    (tmp_path / "out/elsewhere").write_bytes(b"somebody's")
    (tmp_path / "out/blobs").mkdir()
    (tmp_path / "out/blobs/x").write_bytes(b"x")
    (release / "onnx/new.onnx").symlink_to(release / target)
    with pytest.raises(GateFailed, match=r"onnx/new\.onnx is a link"):
        verify(release)
    (release / "onnx/new.onnx").unlink()
    (release / "config.json").rename(tmp_path / "config.json")
    (release / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(GateFailed, match=r"config\.json is a link"):
        verify(release)


def test_the_hubs_cache_holds_a_release_as_links(release: Path, tmp_path: Path) -> None:
    """And no other file is one there."""
    repository = tmp_path / "hub/models--org--toy"
    snapshot = repository / "snapshots" / ("0" * 40)
    for name, digest in contents(release).items():
        if digest:
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (repository / "blobs").mkdir(exist_ok=True)
            (repository / "blobs" / digest).write_bytes((release / name).read_bytes())
            (snapshot / name).symlink_to(os.path.relpath(repository / "blobs" / digest, (snapshot / name).parent))
    verify(snapshot)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(release / "config.json")
    with pytest.raises(GateFailed, match=r"config\.json is a link"):
        verify(snapshot)


@contextmanager
def nobody() -> Iterator[None]:
    """As a user who may not do everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_name_that_no_folder_can_have_is_no_bug(tmp_path: Path) -> None:
    for reading in (read, verify):
        with pytest.raises(OutsideError, match=r"cannot read .*File name too long"):
            reading(tmp_path / ("x" * 300))


def test_a_release_that_may_not_be_read_is_said_to_be_so(release: Path) -> None:
    for folder in (release / "onnx", release):
        folder.chmod(0)
        try:
            with nobody(), pytest.raises(OutsideError, match=f"cannot read {release}.*: Permission denied"):
                verify(release)
        finally:
            folder.chmod(0o755)


def test_a_place_inside_a_release_is_refused(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(release)
    (tmp_path / "link").symlink_to(release / "onnx")
    for place in (release, release / "new", Path("new.wav"), tmp_path / "link" / "new", tmp_path / ".." / release):
        for given in (release, Path()):
            with pytest.raises(BadInput) as caught:
                artifact.outside(place, given)
            assert str(caught.value) == f"{place} lies inside the release {given}"


def test_a_place_beside_a_release_is_not(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(release)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    beside = release.with_name(f"{release.name}.wav"), Path("../new.wav"), tmp_path / "loop", Path("/dev/full")
    for place in (*beside, release.parent, tmp_path / ("x" * 300)):
        artifact.outside(place, release)
        artifact.outside(place, Path())
