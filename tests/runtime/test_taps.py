"""Graphs cut at their taps compute what they compute whole."""

from __future__ import annotations

from pathlib import Path

import kokoro_graph
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, normal, run

from jtts_export.exporters import kokoro
from jtts_export.runtime.session import session
from jtts_export.runtime.taps import OnnxRunner, cut
from jtts_export.validate.audio import snr_db

TAPS = kokoro.PARITY.taps
# onnxruntime fuses and orders sums by the graph it is given; the decoder alone, from what is given, does no more.
SAME_DB = 100


@pytest.fixture(scope="module")
def proto() -> onnx.ModelProto:
    return ir.to_proto(kokoro_graph.optimized())


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    return dict(kokoro_graph.cases("brief")[0].inputs)


@pytest.fixture(scope="module")
def whole(proto: onnx.ModelProto, inputs: dict) -> dict[str, np.ndarray]:
    """Every tap of one run of the whole graph."""
    model = onnx.ModelProto.FromString(proto.SerializeToString())
    outputs = {o.name for o in model.graph.output}
    model.graph.output.extend(v for v in model.graph.value_info if v.name in set(TAPS) - outputs)
    opened = session(model.SerializeToString(), 1)
    return dict(zip(TAPS, opened.run(list(TAPS), inputs), strict=True))


def assert_same(measured: np.ndarray, expected: np.ndarray) -> None:
    if expected.dtype == np.int64:
        np.testing.assert_array_equal(measured, expected)
    else:
        assert snr_db(measured, expected) >= SAME_DB


@pytest.mark.parametrize("tap", TAPS)
def test_a_tap_is_what_the_whole_graph_computes(
    proto: onnx.ModelProto, inputs: dict, whole: dict[str, np.ndarray], tap: str
) -> None:
    assert_same(kokoro_graph.runner(proto).taps(inputs, [tap])[tap], whole[tap])


@pytest.mark.parametrize("stage", kokoro.PARITY.stages, ids=lambda s: s.name)
def test_a_stage_given_what_it_would_compute_computes_the_same(
    proto: onnx.ModelProto, inputs: dict, whole: dict[str, np.ndarray], stage
) -> None:
    forced = {name: whole[name] for name in stage.forced}
    assert_same(kokoro_graph.runner(proto).taps(inputs, [stage.tap], forced)[stage.tap], whole[stage.tap])


def test_a_forced_tap_takes_the_value_given(
    proto: onnx.ModelProto, inputs: dict, whole: dict[str, np.ndarray]
) -> None:
    longer = whole["duration"] + 1
    f0 = kokoro_graph.runner(proto).taps(inputs, ["f0"], {"duration": longer})["f0"]
    assert f0.shape == (1, 2 * longer.sum())


def test_a_part_holds_only_what_it_needs(proto: onnx.ModelProto) -> None:
    part = cut(proto, ["input_ids", "style", "speed", "duration", "f0", "n", "har"], ["waveform"])
    onnx.checker.check_model(part, full_check=True)
    assert [i.name for i in part.graph.input] == ["input_ids", "style", "duration", "f0", "n", "har"]  # no speed
    matrices = {t.name for t in part.graph.initializer if len(t.dims) > 1}
    assert any(n.startswith("text_encoder.") for n in matrices)
    assert not any(n.startswith(("predictor.", "bert.")) for n in matrices)
    assert "source_noise" not in matrices  # ahead of har
    assert len(part.SerializeToString()) < len(proto.SerializeToString())


def test_a_runner_says_which_part_a_tap_needs(proto: onnx.ModelProto, inputs: dict, whole: dict) -> None:
    """Under the graph's name, and it is what is run: given to a runner of its own, it computes the same."""
    forced = {name: whole[name] for name in ("duration", "f0", "n", "har")}
    parts = kokoro_graph.runner(proto).parts(inputs, "waveform", forced)
    assert list(parts) == [kokoro.GRAPH.name]
    part = parts[kokoro.GRAPH.name]
    expected = cut(proto, [*inputs, *forced], ["waveform"])
    assert part.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    measured = kokoro.runner(parts, 1, True).taps(inputs, ["waveform"], forced)["waveform"]
    np.testing.assert_array_equal(measured, kokoro_graph.runner(proto).taps(inputs, ["waveform"], forced)["waveform"])


def test_a_part_without_anything_forced_leads_from_the_inputs(proto: onnx.ModelProto, inputs: dict) -> None:
    (part,) = kokoro_graph.runner(proto).parts(inputs, "frames", []).values()
    assert [o.name for o in part.graph.output] == ["frames"]
    names = {t.name for t in part.graph.initializer}
    assert any(n.startswith("bert.") for n in names)
    assert not any(n.startswith("decoder.") for n in names)


def test_a_runner_is_of_the_graph_it_is_named_for(proto: onnx.ModelProto, inputs: dict) -> None:
    assert list(OnnxRunner("onnx/other", proto, 1).parts(inputs, "frames", [])) == ["onnx/other"]


def test_cutting_leaves_the_graph_alone(proto: onnx.ModelProto) -> None:
    before = proto.SerializeToString(deterministic=True)
    cut(proto, ["input_ids", "duration"], ["f0", "n"])
    assert proto.SerializeToString(deterministic=True) == before


def test_a_draw_can_be_given_and_is_the_baked_one_otherwise(proto: onnx.ModelProto, inputs: dict) -> None:
    baked = kokoro.GRAPH.draws["source_noise"]
    runner = kokoro_graph.runner(proto)
    default = runner.taps(inputs, ["har"])["har"]
    np.testing.assert_array_equal(runner.taps({**inputs, "source_noise": baked}, ["har"])["har"], default)
    other = runner.taps({**inputs, "source_noise": baked[::-1].copy()}, ["har"])["har"]
    assert not np.array_equal(other, default)


@pytest.mark.parametrize(("stop", "wanted", "lacking"), [("x", "z", "z"), ("q", "y", "q")])
def test_a_tensor_that_the_graph_lacks_is_named(stop: str, wanted: str, lacking: str) -> None:
    model = ir.to_proto(graph("(float[N] x) => (float[N] y) { a = Abs(x) y = Mul(a, k) }", {"k": np.float32([2])}))
    with pytest.raises(KeyError, match=f"no tensor named {lacking}"):
        cut(model, [stop], [wanted])


def test_any_tensor_can_be_asked_for() -> None:
    """Types are known of declared tensors only; onnxruntime infers the rest."""
    model = graph("(float[N] x) => (float[N] y) { a = Abs(x) b = Mul(a, k) y = Sqrt(b) }", {"k": np.float32([4])})
    x = {"x": normal(0, 9)}
    taps = OnnxRunner("toy", ir.to_proto(model), 1).taps(x, ["y", "b", "a"])
    np.testing.assert_array_equal(taps["y"], run(model, x)[0])
    np.testing.assert_array_equal(taps["b"], 4 * taps["a"])
    np.testing.assert_array_equal(taps["a"], np.abs(x["x"]))


def test_a_file_and_a_model_in_memory_run_alike(tmp_path: Path, proto: onnx.ModelProto, inputs: dict) -> None:
    onnx.save(proto, tmp_path / "model.onnx")
    one, two = (OnnxRunner("onnx/model", m, 1).taps(inputs, ["waveform"]) for m in (proto, tmp_path / "model.onnx"))
    np.testing.assert_array_equal(one["waveform"], two["waveform"])


def test_without_optimization_a_part_computes_the_same(proto: onnx.ModelProto, inputs: dict, whole: dict) -> None:
    assert_same(kokoro_graph.runner(proto, optimize=False).taps(inputs, ["n"])["n"], whole["n"])
