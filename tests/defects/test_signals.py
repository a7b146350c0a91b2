"""What is planted behind a waveform is what its name says; and only the file it is planted in changes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.defects import signals, weights
from bench.defects.defect import linked
from bench.defects.graph_file import GraphFile, Step, damaging

RATE_HZ = 16_000
TONE = (0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE_HZ) / RATE_HZ)).astype(np.float32)


def write(path: Path, shape: list, **constants: np.ndarray) -> Path:
    """A graph that hands its input on as `waveform`."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "waveform")]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["waveform"])], "g", value[:1], value[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def heard(folder: Path, steps: list[Step], shape: list) -> np.ndarray:
    path = write(folder / "graph.onnx", shape)
    with damaging(path) as graph:
        signals.behind(graph, steps)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (made,) = session.run(["waveform"], {"x": TONE.reshape([1] * (len(shape) - 1) + [-1])})
    assert made.ndim == len(shape)
    return made.reshape(-1)


@pytest.mark.parametrize("shape", [["n"], [1, "n"]])
def test_audio_is_damaged_as_named(tmp_path: Path, shape: list) -> None:
    def damaged(steps: list[Step]) -> np.ndarray:
        return heard(tmp_path, steps, shape)

    np.testing.assert_array_equal(damaged(signals.invert()), -TONE)
    np.testing.assert_array_equal(damaged(signals.truncate(320)), TONE[:-320])
    np.testing.assert_array_equal(damaged(signals.truncate_share(5)), TONE[: RATE_HZ * 95 // 100])
    half = RATE_HZ // 2
    np.testing.assert_array_equal(damaged(signals.repeat(99)), np.concatenate([TONE[: half + 99], TONE[half:]]))
    np.testing.assert_array_equal(damaged(signals.drop(99)), np.concatenate([TONE[:half], TONE[half + 99 :]]))
    np.testing.assert_allclose(damaged(signals.offset(0.01)) - TONE, 0.01, atol=1e-7)
    np.testing.assert_allclose(damaged(signals.gain(1.5)), TONE * 10 ** (1.5 / 20), rtol=1e-6)
    clipped = damaged(signals.clip(0.7))
    np.testing.assert_allclose(clipped, np.clip(TONE, -0.35, 0.35), atol=1e-6)
    noise = damaged(signals.noise(0.01)) - TONE
    assert noise.std() == pytest.approx(0.01, rel=0.05)  # of 16,000 samples it varies by 0.6 %
    longer = damaged(signals.resample(1.01))
    assert len(longer) == pytest.approx(1.01 * RATE_HZ, abs=1)
    assert np.abs(np.fft.rfft(longer, 4 * RATE_HZ)).argmax() / 4 == pytest.approx(200 / 1.01, abs=0.5)


def test_a_sign_is_flipped_in_every_form_that_weights_have(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    forms = {
        "w.weight": random.standard_normal((4, 6)).astype(np.float32),
        "w.fp16": random.standard_normal((4, 6)).astype(np.float16),
        "w.int8": random.integers(-127, 128, (4, 6), np.int8),
        "blocks.int8": random.integers(1, 256, (4, 2, 6), np.uint8),
    }
    path = write(tmp_path / "graph.onnx", ["n"], **forms)
    for name, before in forms.items():
        with damaging(path) as graph:
            weights.flip_sign(name)(graph)
        zero = 128 if before.dtype == np.uint8 else 0
        a, b = (x.astype(np.float64) - zero for x in (before, GraphFile(path).array(name)))
        (at,) = np.argwhere(a != b)
        assert b[tuple(at)] == -a[tuple(at)]
        assert 0.5 < abs(a[tuple(at)]) / np.sqrt((a**2).mean()) < 1.5  # none that hardly matters


def test_a_nibble_is_flipped_and_its_neighbour_is_not(tmp_path: Path) -> None:
    packed = np.random.default_rng(0).integers(0, 256, 64, np.uint8)
    path = write(tmp_path / "graph.onnx", ["n"], **{"w.pairs": packed, "w.nibbles": packed})
    with damaging(path) as graph:
        weights.flip_sign("w.pairs")(graph)
        weights.flip_nibble("w.nibbles")(graph)
    for name, shift in (("w.pairs", 4), ("w.nibbles", 0)):
        after = GraphFile(path).array(name)
        (at,) = np.flatnonzero(after != packed)
        old, new = ((int(x[at]) >> shift & 15) - 8 for x in (packed, after))
        assert new == -old
        assert int(after[at]) >> (4 - shift) & 15 == int(packed[at]) >> (4 - shift) & 15


def test_only_the_copy_is_damaged(tmp_path: Path) -> None:
    good = write(tmp_path / "good.onnx", ["n"], w=np.ones((2, 2), np.float32))
    before = good.read_bytes()
    copy = linked(good, tmp_path / "copy" / "good.onnx")
    assert os.stat(copy).st_nlink == 2  # noqa: PTH116
    with damaging(copy) as graph:
        weights.multiply(2, "w")(graph)
    assert good.read_bytes() == before
    assert GraphFile(copy).array("w")[0, 0] == 2


def test_a_defect_that_changes_nothing_or_finds_no_weight_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "graph.onnx", ["n"], w=np.zeros((2, 2), np.float32))
    graph = GraphFile(path)
    with pytest.raises(AssertionError, match="would stay as it is"):
        weights.clear("w")(graph)
    with pytest.raises(LookupError, match="no weight like nothing"):
        weights.clear("nothing*")(graph)
