"""Packages are judged by what they compute: a good one passes its gates, one with a planted error does not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speecht5_files import write_checkpoint

from jtts_export.exporters.coreml.build import build, build_int8, interface, packages
from jtts_export.exporters.coreml.convert import SPEC, WEIGHTS, About, assemble, coremltools
from jtts_export.exporters.coreml.stage import Stage
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.profiles.schema import load_profile
from jtts_export.quantize.coreml import quantize
from jtts_export.validate import coreml, predict
from jtts_export.validate.coreml_weights import farthest, known
from jtts_export.validate.measure import spread_of
from jtts_export.validate.parity import reference_taps
from jtts_export.validate.recorder import Call
from jtts_export.validate.subject import Findings, Packages, Subject

ABOUT = About("SpeechT5", "its authors", "MIT", "1")
TARGET = "iOS18"
CONFIG = {"max_speech_positions": 320, "hidden_size": 64}


class Made:
    """A tiny checkpoint's packages, and what they are judged by."""

    def __init__(self, folder: Path) -> None:
        write_checkpoint(folder / "checkpoint", 8, seeded=True, config=CONFIG)
        info = MODELS["speecht5"]
        model = info.load()
        loaded = model.load(locate(str(folder / "checkpoint"), info.files, info.companions))
        assert model.coreml is not None
        self.stages = {stage.name: stage for stage in model.coreml.stages(loaded, TARGET)}
        self.folder = folder / "coreml"
        self.folder.mkdir()
        self.told: list[str] = []
        build(model.coreml, list(self.stages.values()), TARGET, ABOUT, self.folder, self.told.append)
        profile = load_profile("parity")
        spread = spread_of(model, loaded, 1)
        self.subject = Subject("speecht5", model, loaded, {}, folder, replace_threads(profile), spread)
        cases = self.subject.cases("brief")
        expected = reference_taps(model.parity, model.reference(loaded, 1, 0, False), cases)
        self.calls, self.modules_db = coreml.record(
            model.coreml, list(self.stages.values()), loaded, model.parity, expected, cases
        )

    def judged(self, stage: str, package: Path) -> list[str]:
        """Gates of stages that a package does not pass."""
        row = coreml.stage_row(self.stages[stage], package, self.calls[stage], coreml.MODES)
        constants = known(self.stages[stage], package)
        metrics = coreml.stage_metrics([row]) | {
            "coreml_modules_snr_db": self.modules_db,
            "coreml_weights_equal_ratio": 1 - len(constants.unknown) / constants.total,
        }
        gates = [gate for gate in self.subject.gates("coreml") if gate.metric.startswith("coreml_")]
        return [gate["metric"] for gate in Findings(metrics).judged(gates)["gates"] if not gate["passed"]]

    def copy(self, stage: str, folder: Path) -> Path:
        return shutil.copytree(packages(self.folder, [stage])[stage], folder / f"{stage}.mlpackage")


def replace_threads(profile: Any) -> Any:
    return profile.model_copy(update={"threads": 1})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def test_modules_equal_the_reference(made: Made) -> None:
    assert made.modules_db > 80
    assert {call.function for call in made.calls["decoder"]} == set(made.stages["decoder"].functions)


@pytest.mark.parametrize("stage", ["encoder", "decoder", "vocoder"])
def test_good_packages_pass(made: Made, stage: str) -> None:
    assert made.judged(stage, packages(made.folder, [stage])[stage]) == []


def edited(package: Path, change: Callable[[Any], None]) -> Path:
    """A package whose spec has been changed."""
    spec = coremltools().proto.Model_pb2.Model()
    spec.ParseFromString((package / SPEC).read_bytes())
    change(spec)
    (package / SPEC).write_bytes(spec.SerializeToString())
    return package


def operations(spec: Any) -> list[Any]:
    return [
        operation
        for function in spec.mlProgram.functions.values()
        for block in function.block_specializations.values()
        for operation in block.operations
    ]


def test_another_slope_of_one_activation_is_caught(made: Made, tmp_path: Path) -> None:
    def change(spec: Any) -> None:
        named = {value.name: op for op in operations(spec) for value in op.outputs}
        relu = [op for op in operations(spec) if op.type == "leaky_relu"][-1]
        alpha = named[relu.inputs["alpha"].arguments[0].name].attributes["val"].immediateValue.tensor
        if alpha.bytes.values:
            alpha.bytes.values = np.float16(0.3).tobytes()
        else:
            alpha.floats.values[0] = 0.3

    assert "coreml_stage_snr_db" in made.judged("vocoder", edited(made.copy("vocoder", tmp_path), change))


def test_swapped_states_are_caught(made: Made, tmp_path: Path) -> None:
    other = {"key_0": "value_0", "value_0": "key_0"}

    def change(spec: Any) -> None:
        for operation in operations(spec):
            for argument in operation.inputs.values():
                for bound in argument.arguments:
                    bound.name = other.get(bound.name, bound.name)

    assert "coreml_stage_snr_db" in made.judged("decoder", edited(made.copy("decoder", tmp_path), change))


def test_a_block_of_weights_with_the_wrong_sign_is_caught(made: Made, tmp_path: Path) -> None:
    package = made.copy("encoder", tmp_path)
    (weights,) = (package / WEIGHTS).iterdir()
    content = bytearray(weights.read_bytes())
    middle = len(content) // 2 // 64 * 64
    for place in range(middle + 1, middle + 513, 2):  # high bytes of 256 fp16 values
        content[place] ^= 0x80
    weights.write_bytes(content)
    assert "coreml_weights_equal_ratio" in made.judged("encoder", package)


def test_a_weight_of_the_wrong_sign_in_8_bits_is_caught(made: Made, tmp_path: Path) -> None:
    parts = {"main": made.folder / "parts" / "decoder.main.mlpackage"}
    light = assemble(made.stages["decoder"], quantize(parts, "linear8", (), tmp_path), tmp_path / "light", ABOUT)
    full = packages(made.folder, ["decoder"])["decoder"]
    assert farthest(light, full)[0] < 0.01
    (weights,) = (light / WEIGHTS).iterdir()
    content = bytearray(weights.read_bytes())
    largest = [place for place, byte in enumerate(content) if byte == 127]  # of a channel each, most of them
    for place in largest[len(largest) // 2 :][:8]:
        content[place] = 256 - 127
    weights.write_bytes(content)
    change, where = farthest(light, full)
    assert change > 0.1
    assert where


def test_what_overflows_is_named(made: Made) -> None:
    stage = made.stages["vocoder"]
    loud = [
        replace(call, inputs={k: v * (1e5 if k == "spectrogram" else 1) for k, v in call.inputs.items()})
        for call in made.calls["vocoder"]
    ]
    row = coreml.stage_row(stage, packages(made.folder, ["vocoder"])["vocoder"], loud, coreml.MODES)
    assert row["overflow"]
    assert coreml.stage_metrics([row])["coreml_overflows"] == 1


def test_each_stage_takes_the_first_scheme_that_is_close_enough(made: Made, tmp_path: Path) -> None:
    stages = [replace(stage, schemes=("linear8", "palette8")) for stage in made.stages.values()]
    asked: list[str] = []

    def judge(stage: Stage, package: Path) -> float:
        asked.append(stage.name)
        assert package.is_dir()
        return {"encoder": 30.0, "decoder": 10.0 * asked.count("decoder"), "vocoder": 5.0}[stage.name]

    build_int8(stages, TARGET, ABOUT, made.folder, judge, 20.0, tmp_path, lambda _: None)
    sizes = {name: coreml.size_mb(path) for name, path in packages(tmp_path, made.stages).items()}
    full = {name: coreml.size_mb(path) for name, path in packages(made.folder, made.stages).items()}
    assert asked == ["encoder", "decoder", "decoder", "vocoder", "vocoder"]
    assert sizes["encoder"] < 0.8 * full["encoder"]
    assert sizes["decoder"] < 0.9 * full["decoder"]
    assert sizes["vocoder"] == full["vocoder"]  # neither was close enough: it stays
    chosen = (tmp_path / "schemes.json").read_text()
    assert '"palette8"' in chosen
    assert '"fp16"' in chosen


def test_whole_syntheses_are_judged_like_any_variant(made: Made) -> None:
    given = Packages(TARGET, {"coreml": packages(made.folder, made.stages)})
    told: list[str] = []
    found = coreml.measure(made.subject, given, told.append)["coreml"]
    assert found.judged(made.subject.gates("coreml"))["verdict"] == "pass"
    assert found.details["coreml"]["checked"] == "by interpretation, not on Apple hardware"
    assert "coreml: decoder" in told


def test_a_package_that_cannot_be_read_fails_with_the_reason(made: Made, tmp_path: Path) -> None:
    files = packages(made.folder, made.stages) | {"vocoder": made.copy("vocoder", tmp_path)}
    (files["vocoder"] / SPEC).write_bytes(b"\xff")
    found = coreml.measure(made.subject, Packages(TARGET, {"coreml": files}), lambda _: None)["coreml"]
    assert found.judged(made.subject.gates("coreml"))["verdict"] == "fail"
    assert "model.mlmodel" in found.error


def test_the_interface_is_json_of_what_the_stages_declare(made: Made) -> None:
    assert made.subject.model.coreml is not None
    said = interface(made.subject.model.coreml, list(made.stages.values()), TARGET)
    declared = made.stages["decoder"].functions["main"]
    assert [t["name"] for t in said["stages"]["decoder"]["functions"]["main"]["inputs"]] == [
        t.name for t in declared.inputs
    ]


CALLS = [
    Call("step", {"x": np.ones((2, 3), np.float32)}, {"past": np.zeros(4)}, {}, {}),
    Call("main", {"x": np.zeros(1, np.int32), "y": np.ones(2)}, {}, {}, {}),
]


def test_calls_survive_the_way_to_another_process() -> None:
    again = predict.unpacked(predict.packed(CALLS))
    assert [call.function for call in again] == ["step", "main"]
    for one, other in zip(CALLS, again, strict=True):
        for mine, theirs in ((one.inputs, other.inputs), (one.before, other.before)):
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.skipif(predict.is_possible(), reason="there is CoreML here")
def test_where_there_is_no_coreml_its_process_says_so(made: Made) -> None:
    package = packages(made.folder, ["vocoder"])["vocoder"]
    said = predict.predict(package, "CPU_ONLY", made.calls["vocoder"][:1])
    assert set(said) == {"error"}
    assert said["error"]


def test_a_process_that_takes_too_long_is_ended(made: Made) -> None:
    package = packages(made.folder, ["vocoder"])["vocoder"]
    said = predict.predict(package, "CPU_ONLY", made.calls["vocoder"][:1], limit_s=0.01)
    assert said == {"error": "took more than 0.01 s"}
