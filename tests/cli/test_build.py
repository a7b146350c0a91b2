"""`jtts-export kokoro`, from a checkpoint to a release."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from command import (
    COMMAND,
    PROFILE,
    REPORT,
    Built,
    brief,
    contents,
    environment,
    graphs,
    run,
    samples,
    sha256,
    stages,
)
from measured import metrics_of
from t3_command import again

from jtts_export.models import MODELS
from jtts_export.models.kokoro.random import VOICES
from jtts_export.runtime.session import session

SAID = 8  # utterances to validate on, of every token three: its positions end before them
CALIBRATION = "calibration/int8.safetensors"
FILES = {
    *REPORT,
    *samples(SAID, "fp32", "fp16", "int8"),
    *("README.md", "manifest.json", "validation.json", "config.json", "tokenizer.json", "tokenizer_config.json"),
    *("onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_quantized.onnx"),
    *(f"voices/{name}.bin" for name in VOICES),
    CALIBRATION,
    *("clients/kokoro-onnx/voices.npz", "clients/sherpa-onnx/voices.bin", "clients/sherpa-onnx/tokens.txt"),
}
VARIANTS = {"fp32": "onnx/model.onnx", "fp16": "onnx/model_fp16.onnx", "int8": "onnx/model_quantized.onnx"}
STAGES = ("export", "spread", "optimize", "quantize-fp16", "quantize-int8", "validate", "report")


def read(release: Path, name: str) -> dict[str, Any]:
    return json.loads((release / name).read_text(encoding="utf-8"))


def files_of(release: Path) -> set[str]:
    return {name for name in contents(release) if not name.endswith("/")}


def test_a_build_that_passes_gives_the_release_layout(built: Built) -> None:
    assert files_of(built.release) == FILES
    assert [path.name for path in built.release.parent.iterdir()] == ["kokoro"]
    assert stages(built.stderr) == dict.fromkeys(STAGES, "done")
    assert f"passed: {built.release}" in built.stdout


def test_fp32_is_always_there_and_the_others_on_request(alone: Built) -> None:
    others = {VARIANTS["fp16"], VARIANTS["int8"], CALIBRATION} | samples(SAID, "fp16", "int8") - samples(SAID)
    assert files_of(alone.release) == FILES - others
    # A variant's measurements depend on which others it is timed beside, so this measures anew.
    cached = dict.fromkeys(("export", "spread", "optimize"), "cached")
    assert stages(alone.stderr) == {**cached, "validate": "done", "report": "done"}


def test_validation_json_measures_every_metric_of_every_variant(built: Built) -> None:
    validation, wanted = read(built.release, "validation.json"), metrics_of(MODELS["kokoro"].load())
    assert validation["verdict"] == "pass"
    assert set(validation["variants"]) == set(VARIANTS)
    for name, variant in validation["variants"].items():
        assert variant["verdict"] == "pass"
        assert list(variant["files"]) == [VARIANTS[name]]
        assert wanted <= set(variant["metrics"])
        assert all(not math.isnan(float(value)) for value in variant["metrics"].values()), variant["metrics"]
        for gate in variant["gates"]:
            assert set(gate) == {"metric", "op", "limit", "value", "outcome", "passed"}
            assert gate["outcome"] == "pass"
            assert gate["passed"] is True
            assert gate["value"] == variant["metrics"][gate["metric"]]


def test_every_file_of_the_release_is_the_one_in_the_manifest(built: Built) -> None:
    manifest = read(built.release, "manifest.json")
    assert set(manifest["files"]) == FILES - {"manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"sha256": sha256(built.release / name), "size": (built.release / name).stat().st_size}
    assert {v: made["files"] for v, made in manifest["variants"].items()} == {v: [f] for v, f in VARIANTS.items()}
    assert manifest["variants"]["int8"]["recipe"]["rules"]


def test_what_was_measured_is_what_is_released(built: Built) -> None:
    for variant in read(built.release, "validation.json")["variants"].values():
        assert variant["files"] == {name: sha256(built.release / name) for name in variant["files"]}
        size = sum((built.release / name).stat().st_size for name in variant["files"])
        assert variant["metrics"]["size_mb"] == pytest.approx(size / 1e6)


def test_two_builds_from_scratch_give_the_same_bytes_even_side_by_side(built: Built, tmp_path: Path) -> None:
    # Two more at once, on one new cache and one output folder: nor may they get in each other's way.
    where = [
        "--checkpoint",
        str(built.checkpoint),
        "--out",
        str(tmp_path / "out"),
        "--cache",
        str(tmp_path / "cache"),
    ]
    command = [*COMMAND, "kokoro", "--int8", "--profile", str(built.profile), *where, *brief(tmp_path)]
    env = environment(tmp_path, PYTHONHASHSEED="7")
    both = [
        subprocess.Popen(command, env=env, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=240)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    expected = {name: value for name, value in graphs(built.release).items() if name != "model_fp16.onnx"}
    assert graphs(tmp_path / "out" / "kokoro") == expected
    assert run(tmp_path, "inspect", str(tmp_path / "out" / "kokoro")).returncode == 0
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith("tmp-")]


def test_an_unchanged_build_does_nothing_and_imports_nothing_heavy(built: Built) -> None:
    before = contents(built.release), (built.release / "manifest.json").stat().st_mtime_ns
    command = [
        sys.executable,
        "-X",
        "importtime",
        *COMMAND[1:],
        *built.again(built.release.parent, "--int8", "--fp16"),
    ]
    env = environment(built.release.parents[1])
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "pydantic" in imported
    assert not imported & {"torch", "onnx", "onnx_ir", "onnxruntime", "numpy", "scipy", "transformers"}
    assert stages(done.stderr) == dict.fromkeys(STAGES, "cached")
    assert (contents(built.release), (built.release / "manifest.json").stat().st_mtime_ns) == before


def test_force_builds_again(t3_warm: Built, tmp_path: Path) -> None:
    done = run(tmp_path, *again(t3_warm, tmp_path / "out", "--force"))
    assert done.returncode == 0, done.stderr
    assert set(stages(done.stderr).values()) == {"done"}
    made = graphs(tmp_path / "out" / "t3")
    assert made == {name: value for name, value in graphs(t3_warm.release).items() if name in made}


def test_a_gate_that_cannot_be_met_keeps_the_release_aside(t3_warm: Built, tmp_path: Path) -> None:
    profile = tmp_path / "impossible.toml"
    gates = t3_warm.profile.read_text()
    profile.write_text(gates.replace("[gates.t3.int8]", '[gates.t3.int8]\nsize_ratio_vs_fp32 = "<= 0.01"'))
    shutil.copytree(t3_warm.release, tmp_path / "out" / "t3")
    command = again(t3_warm, tmp_path / "out", "--profile", str(profile), "--int8", "--fp16")
    done = run(tmp_path, *command)
    assert done.returncode == 3, (done.stdout, done.stderr)
    # Only int8's gates changed, so only it and what measures it ran again.
    ran = {name for name, how in stages(done.stderr).items() if how == "done"}
    assert ran == {"quantize-int8", "validate", "report"}
    first = done.stdout.splitlines()[1].split()
    assert (first[0], first[1], first[-1]) == ("int8", "size_ratio_vs_fp32", "FAIL")
    assert f"FAILED: {tmp_path / 'out' / 't3.failed'}" in done.stdout
    assert contents(tmp_path / "out" / "t3") == contents(t3_warm.release)
    aside = tmp_path / "out" / "t3.failed"
    others = {n for n in files_of(t3_warm.release) if "fast" in n or "_q4.onnx" in n}
    assert files_of(aside) == files_of(t3_warm.release) - others
    assert read(aside, "manifest.json")["verdict"] == "fail"
    verdicts = {name: v["verdict"] for name, v in read(aside, "validation.json")["variants"].items()}
    assert verdicts == {"fp32": "pass", "fp16": "pass", "int8": "fail"}

    done = run(tmp_path, *command, "--json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["verdict"] == "fail"
    assert set(stages(done.stderr).values()) == {"cached"}  # a failure is a result


def test_a_variant_without_a_gate_does_not_pass(t3_warm: Built, tmp_path: Path) -> None:
    profile = tmp_path / "few.toml"
    profile.write_text(PROFILE[: PROFILE.index("[gates")] + '[gates.t3.int8]\nsize_mb = "<= 1000"\n')
    done = run(tmp_path, *again(t3_warm, tmp_path / "out", "--profile", str(profile)))
    assert done.returncode == 3
    assert "no gate in the profile" in done.stdout.splitlines()[1]


def test_json_is_the_only_thing_on_stdout(built: Built) -> None:
    done = run(built.release.parents[1], *built.again(built.release.parent, "--int8", "--fp16", "--json"))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("release") == str(built.release)
    assert said == read(built.release, "validation.json")


def test_a_checkpoint_that_moved_is_recorded_where_it_is(alone: Built) -> None:
    assert stages(alone.stderr)["export"] == "cached"
    for name in ("manifest.json", "validation.json"):
        assert read(alone.release, name)["checkpoint"]["source"] == str(alone.checkpoint.resolve())


def test_every_opset_builds_passes_and_loads(warm: Built, tmp_path: Path) -> None:
    opsets = (18, 19, 20)
    running = {}
    for opset in opsets:  # at once: they share a cache and no stage
        given = ["--int8", "--opset", str(opset), *brief(tmp_path)]
        command = [*COMMAND, *warm.again(tmp_path / str(opset), *given)]
        running[opset] = subprocess.Popen(
            command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path
        )
    for opset, process in running.items():
        said = process.communicate(timeout=240)[0].decode()
        assert process.returncode == 0, (opset, said)
    for opset, release in {17: warm.release, **{o: tmp_path / str(o) / "kokoro" for o in opsets}}.items():
        assert read(release, "manifest.json")["opset"] == opset
        for path in sorted((release / "onnx").iterdir()):
            used = {imported.domain: imported.version for imported in onnx.load(path).opset_import}
            assert used[""] == opset
            names = {value.name for value in session(path, 1).get_inputs()}
            assert {"input_ids", "style", "speed"} <= names
