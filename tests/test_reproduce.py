"""A release made again from its manifest: the same bytes, and what is said where they are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command import Built, assert_refused, call, contents, flip_a_byte, reseal, run, sha256
from t3_files import write_checkpoint

from jtts_export import artifact
from jtts_export.artifact import VALIDATION, verify
from jtts_export.exporters import t3
from jtts_export.exporters.coreml.build import SCHEMES
from jtts_export.exporters.coreml.stage import Stage, Target
from jtts_export.exporters.model import Loaded
from jtts_export.models import MODELS
from jtts_export.models.source import locate, sha256_of_all
from jtts_export.profiles.schema import load_profile
from jtts_export.quantize import build
from jtts_export.quantize.calibration import read, write
from jtts_export.runtime.names import COREML, COREML_INT8
from jtts_export.stages import Stages, release_parts

PASSED, USAGE, REFUSED, OUTSIDE = 0, 2, 3, 4
GRAPH, INT8, CALIBRATION = "onnx/model.onnx", "onnx/model_quantized.onnx", "calibration/int8.safetensors"
# Without the vector units and the threads that a build would use here. onnxruntime looks for itself what a processor
# has; what it makes otherwise is another test's.
OTHER = {
    **{"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    **{"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX", "OPENBLAS_CORETYPE": "Nehalem"},
    **{"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"},
}


@pytest.fixture
def copy(built: Built, tmp_path: Path) -> Path:
    """A Kokoro release to change."""
    return Path(shutil.copytree(built.release, tmp_path / "kokoro"))


def reproduced(home: Path, release: Path, *more: str | Path, code: int = PASSED) -> dict[str, tuple[str, str]]:
    """File -> result and where, as the command prints them as JSON."""
    done = call(home, "reproduce", release, "--json", *more)
    assert done.returncode == code, (done.stdout, done.stderr)
    made = json.loads(done.stdout)
    assert made["same"] is (code == PASSED)
    return {file["name"]: (file["result"], file["detail"]) for file in made["files"]}


def assert_same(found: Mapping[str, tuple[str, str]], release: Path) -> None:
    """Everything is, but for what was measured."""
    measured = {n for n in contents(release) if n in ("README.md", VALIDATION) or n.startswith("report/")}
    made = set(verify(release)[0].files) - {n for n in found if n.startswith("calibration/")} - measured
    assert {name for name, (result, _) in found.items() if result == "same"} == made
    assert {name for name, (result, _) in found.items() if result == "not compared"} == {
        name for name in measured if not name.endswith("/")
    }


def test_a_manifest_names_every_file_of_the_checkpoint_what_was_found_and_the_tool(built: Built) -> None:
    manifest = verify(built.release)[0]
    entries = {name: (entry.sha256, entry.size) for name, entry in manifest.checkpoint_files.items()}
    given = {name: built.checkpoint / name for name in contents(built.checkpoint) if not name.endswith("/")}
    assert entries == {name: (sha256(path), path.stat().st_size) for name, path in given.items()}
    assert manifest.checkpoint["sha256"] == sha256_of_all({name: value for name, (value, _) in entries.items()})
    assert manifest.checkpoint["seeded_sha256"] is None
    assert manifest.licence == "NOASSERTION"  # there is no README beside it
    assert manifest.variants["int8"]["calibration"] == CALIBRATION
    assert "calibration" not in manifest.variants["fp16"]
    assert set(manifest.tool) == {"version", "code", "commit", "dirty"}
    assert len(manifest.tool["code"]) == 64


def test_speecht5_comes_out_the_same(speecht5_built: Built, tmp_path: Path) -> None:
    found = reproduced(tmp_path, speecht5_built.release)
    assert_same(found, speecht5_built.release)
    assert found[CALIBRATION][0] == "near"


def test_t3_comes_out_the_same_and_may_be_kept(t3_built: Built, tmp_path: Path) -> None:
    found = reproduced(tmp_path, t3_built.release, "--keep", tmp_path / "kept")
    assert_same(found, t3_built.release)
    assert found["calibration/int8-fast.safetensors"][0] == "near"  # of keys and values
    kept = {n: value for n, value in contents(tmp_path / "kept").items() if not n.endswith("/")}
    assert kept == {n: sha256(t3_built.release / n) for n in kept}
    assert {n for n, (result, _) in found.items() if result == "same"} == set(kept)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


def test_scales_measured_by_other_arithmetic_are_near_and_the_recorded_ones_are_applied(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another processor, where sums, and what a model makes of them, come out otherwise."""
    honest, noise = build.sample, np.random.default_rng(0)

    def sampled(*args: Any) -> dict[str, tuple[np.ndarray, ...]]:
        found = honest(*args)
        off = {name: [x * (1 + 1e-3 * noise.standard_normal(x.shape)) for x in pair] for name, pair in found.items()}
        return {name: tuple(x.astype(np.float32) for x in pair) for name, pair in off.items()}

    monkeypatch.setattr(build, "sample", sampled)
    found = reproduced(tmp_path, built.release)
    assert_same(found, built.release)
    result, where = found[CALIBRATION]
    assert result == "near"
    assert "applied as recorded" in where
    assert "within 0 dB" not in where


def test_other_vector_units_threads_and_hash_seeds_change_nothing(built: Built, tmp_path: Path) -> None:
    done = run(tmp_path, "reproduce", str(built.release), env=OTHER)
    assert done.returncode == PASSED, (done.stdout, done.stderr)
    assert f"the same: {built.release}" in done.stdout
    for name in (GRAPH, INT8, "voices/random_a.bin"):
        assert table(done.stdout)[name] == f"{name} same"


def test_another_checkpoint_is_refused_by_the_file_that_differs(built: Built, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(built.checkpoint, tmp_path / "moved"))
    flip_a_byte(moved / "kokoro-v1_0.pth")
    done = call(tmp_path, "reproduce", built.release, "--checkpoint", moved)
    assert_refused(done, OUTSIDE, str(moved), "is not the checkpoint", "kokoro-v1_0.pth is not the same")


def test_a_release_that_is_not_what_its_manifest_says_is_refused(copy: Path, tmp_path: Path) -> None:
    flip_a_byte(copy / GRAPH)
    assert_refused(call(tmp_path, "reproduce", copy), REFUSED, GRAPH, "not the file that was validated")


def test_what_a_release_holds_that_its_manifest_does_not_make_is_found(copy: Path, tmp_path: Path) -> None:
    """Sealed anew, as by somebody who knows how: a weight, scales, a voice, a file, and the tool that made it."""
    graph = onnx.load(copy / GRAPH)
    weight = next(t for t in graph.graph.initializer if t.name == "text_encoder.cnn.0.0.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[1, 2, 3] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    (copy / GRAPH).write_bytes(graph.SerializeToString(deterministic=True))
    recorded = read(copy / CALIBRATION)
    first = next(iter(recorded.convs))
    halved = replace(recorded.convs[first], scale=recorded.convs[first].scale / 2)
    write(replace(recorded, convs={**recorded.convs, first: halved}), copy / CALIBRATION)
    flip_a_byte(copy / "voices/random_a.bin")
    (copy / "notes.txt").write_text("of nobody")
    measured_anew(copy)
    reseal(copy, lambda manifest: manifest["tool"].update(commit="0" * 40))

    done = call(tmp_path, "reproduce", copy)
    assert done.returncode == REFUSED, (done.stdout, done.stderr)
    assert f"jtts-export's commit was {'0' * 40}" in done.stderr
    rows = table(done.stdout)
    assert "differs" in rows[GRAPH]
    assert "text_encoder.cnn.0.0.weight" in rows[GRAPH]
    assert "1 of" in rows[GRAPH]
    assert "far" in rows[CALIBRATION]
    assert first in rows[CALIBRATION]
    assert "differs" in rows[INT8]  # as the scales that it was not made with
    assert "differs from byte" in rows["voices/random_a.bin"]
    assert "missing" in rows["notes.txt"]
    assert rows["config.json"] == "config.json same"
    assert done.stdout.splitlines()[-1] == f"NOT the same: {copy}"
    assert set(list(rows)[1:6]) == {GRAPH, INT8, CALIBRATION, "voices/random_a.bin", "notes.txt"}


def table(stdout: str) -> dict[str, str]:
    """First word of a row -> the row, whose prose may go over several lines."""
    rows: list[str] = []
    for line in stdout.splitlines():
        if line.startswith(" "):
            rows[-1] += line
        else:
            rows.append(line)
    return {row.split()[0]: " ".join(row.split()) for row in rows}


def measured_anew(release: Path) -> None:
    """Make manifest and validation say that files are as they are."""
    validation = json.loads((release / VALIDATION).read_text())
    for variant in validation["variants"].values():
        variant["files"] = {name: sha256(release / name) for name in variant["files"]}
    (release / VALIDATION).write_text(json.dumps(validation))
    there = {n for n in contents(release) if not n.endswith("/")} - {"manifest.json"}
    entries = {n: {"sha256": sha256(release / n), "size": (release / n).stat().st_size} for n in there}
    reseal(release, lambda manifest: manifest.update(files=entries))


def test_scales_of_another_graph_are_not_applied(copy: Path, tmp_path: Path) -> None:
    recorded = read(copy / CALIBRATION)
    fewer = dict(list(recorded.convs.items())[1:])
    write(replace(recorded, convs=fewer), copy / CALIBRATION)
    measured_anew(copy)
    found = reproduced(tmp_path, copy, code=REFUSED)
    assert found[CALIBRATION] == ("far", "is not of this recipe and these graphs")
    assert found[INT8][0] == "missing"
    assert found[GRAPH][0] == "same"


def test_a_seed_that_gives_other_weights_is_said_to(copy: Path, tmp_path: Path) -> None:
    reseal(copy, lambda manifest: manifest["checkpoint"].update(seeded_sha256="0" * 64))
    done = call(tmp_path, "reproduce", copy)
    assert_refused(done, OUTSIDE, "gives other weights here", "a seed's numbers depend on the processor")


@pytest.mark.parametrize("keep", ["inside", "a file", "not empty"])
def test_a_place_to_keep_files_in_is_empty_and_outside(built: Built, tmp_path: Path, keep: str) -> None:
    places = {"inside": built.release / "kept", "a file": tmp_path / "file", "not empty": tmp_path / "folder"}
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file", tmp_path / "folder" / "file"):
        path.write_text("mine")
    done = call(tmp_path, "reproduce", built.release, "--keep", places[keep])
    assert_refused(done, USAGE, str(places[keep]))
    assert not (built.release / "kept").exists()


def test_what_is_no_release_is_refused(tmp_path: Path) -> None:
    assert_refused(call(tmp_path, "reproduce", tmp_path / "nothing"), OUTSIDE, "is not a release")


# CoreML

HELD = {"conditioning": "linear8", "embed": "fp16"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of T3's stages those that are converted in a second each."""
    coreml = t3.MODEL.coreml
    assert coreml is not None

    def stages(loaded: Loaded, target: Target) -> list[Stage]:
        return [stage for stage in coreml.stages(loaded, target) if stage.name in HELD]

    monkeypatch.setattr(t3, "MODEL", replace(t3.MODEL, coreml=replace(coreml, stages=stages)))


@pytest.fixture
def packages(small: None, tmp_path: Path) -> Path:
    """A release of T3's packages, written as the pipeline writes one but for what it measures."""
    pytest.importorskip("coremltools")
    home = tmp_path / "packages"
    write_checkpoint(home / "checkpoint")
    info = MODELS["t3"]
    source = locate(str(home / "checkpoint"), info.files, info.companions)
    profile = load_profile("parity")
    stages = Stages("t3", source, profile, 17, (), lambda text: None)
    export, optimized, plain, light = folders = [home / name for name in ("export", "optimize", COREML, COREML_INT8)]
    for folder in folders:
        folder.mkdir()
    stages.export(export)
    stages.optimize(export, optimized)
    stages.coreml("iOS18", plain)
    stages.coreml_requantize("iOS18", HELD, plain, light)
    (light / SCHEMES).write_text(json.dumps({stage: {"scheme": scheme} for stage, scheme in HELD.items()}))
    packed = {COREML: plain, COREML_INT8: light}
    parts = release_parts(export, {"fp32": optimized}, packed)
    of = {"fp32": "onnx/", COREML: f"{COREML}/", COREML_INT8: f"{COREML_INT8}/"}
    files = {v: {n: sha256(path) for n, path in parts.items() if n.startswith(start)} for v, start in of.items()}
    validation = {"verdict": "pass", "variants": {variant: {"files": made} for variant, made in files.items()}}
    manifest = stages.manifest(export, {"fp32": optimized}, packed, validation)
    texts = {VALIDATION: json.dumps(validation), f"{COREML}/README.md": stages.page(packed)}
    return artifact.write(home / "out", parts, texts, manifest)


def test_packages_come_out_the_same_but_for_a_weight_that_is_named(packages: Path, tmp_path: Path) -> None:
    name = f"{COREML}/conditioning.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    changed(packages / name, lambda data: data.__setitem__(-3, data[-3] ^ 4))
    measured_anew(packages)
    found = reproduced(tmp_path, packages, code=REFUSED)
    result, where = found.pop(name)
    assert result == "differs"
    assert where.startswith("function main: tensor '")
    others = {n for n in verify(packages)[0].files if n not in (name, VALIDATION)}
    assert any(n.startswith(f"{COREML_INT8}/") for n in others)
    assert found == {**dict.fromkeys(others, ("same", "")), VALIDATION: ("not compared", "what was measured")}


def changed(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
