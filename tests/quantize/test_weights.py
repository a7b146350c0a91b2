"""Weights that are only stored smaller: what they unpack to, and that onnxruntime unpacks them at load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, normal, ops_at_run_time, run

from jtts_export.quantize.apply import quantize
from jtts_export.quantize.schemes import Float32, Recipe, Rule, Scheme, StoredFp16, StoredInt
from jtts_export.quantize.weights import CLIP_FACTORS, SMALLEST_WEIGHT, find_weights

ROUNDING = 1e-6  # of a value: one float32 multiplication, and a division when the step was chosen

CONV = "(float[1,32,N] x) => (float[1,48,M] y) { y = Conv(x, w) }"
CONV_TRANSPOSE = "(float[1,32,N] x) => (float[1,48,M] y) { y = ConvTranspose<strides=[2]>(x, w) }"
MATMUL = "(float[1,N,32] x) => (float[1,N,48] y) { y = MatMul(x, w) }"
GEMM = "(float[N,32] x) => (float[N,48] y) { y = Gemm(x, w) }"
GEMM_T = "(float[N,32] x) => (float[N,48] y) { y = Gemm<transB=1>(x, w) }"
GATHER = "(int64[1,N] x) => (float[1,N,32] y) { y = Gather(w, x) }"
LSTM = '(float[N,1,32] x) => (float[N,2,1,16] y) { y = LSTM<hidden_size=16, direction="bidirectional">(x, w, r) }'
LSTM_R = {"r": normal(9, 2, 64, 16) / 4}

# graph, shape of w, the axes that share no step
KINDS = {
    "Conv": (CONV, (48, 32, 3), (0,)),
    "ConvTranspose": (CONV_TRANSPOSE, (32, 48, 4), (1,)),
    "MatMul": (MATMUL, (32, 48), (1,)),
    "Gemm": (GEMM, (32, 48), (1,)),
    "Gemm, transposed": (GEMM_T, (48, 32), (0,)),
    "Gather": (GATHER, (100, 32), (0,)),
    "LSTM": (LSTM, (2, 64, 32), (0, 1)),
}
kinds = pytest.mark.parametrize("kind", KINDS)
every_bits = pytest.mark.parametrize("bits", [4, 8])


def of_kind(kind: str, weight: np.ndarray) -> ir.Model:
    return graph(KINDS[kind][0], {"w": weight, **(LSTM_R if kind == "LSTM" else {})})


def an_input(kind: str) -> dict[str, np.ndarray]:
    shapes = {
        "Gather": (1, 7),
        "LSTM": (7, 1, 32),
        "MatMul": (1, 7, 32),
        "Gemm": (7, 32),
        "Gemm, transposed": (7, 32),
    }
    if kind == "Gather":
        return {"x": np.arange(7)[None]}
    return {"x": normal(1, *shapes.get(kind, (1, 32, 7)))}


def held(model: ir.Model, scheme: Scheme, names: str = "w") -> dict[str, str]:
    return quantize(model, Recipe(rules=(Rule(pattern=names, scheme=scheme),)), {})


def unpacked(weight: np.ndarray, scheme: Scheme, kind: str = "Conv") -> np.ndarray:
    """What the consumer of the weight reads."""
    model = of_kind(kind, weight)
    held(model, scheme)
    user = next(n for n in model.graph if n.op_type == kind.split(",")[0])
    read = next(v for v in user.inputs if v is not None and v.name == "w/value")
    read.type, read.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(weight.shape)
    model.graph.outputs.append(read)
    return run(model, an_input(kind))[-1]


def reach(weight: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The largest magnitude of each channel."""
    return np.abs(weight).max(axis=tuple(a for a in range(weight.ndim) if a not in axes), keepdims=True)


@kinds
@every_bits
def test_values_are_within_half_a_step(kind: str, bits: int) -> None:
    _, shape, axes = KINDS[kind]
    weight = normal(0, *shape)
    value = unpacked(weight, StoredInt(bits=bits), kind)
    assert (value.shape, value.dtype) == (shape, np.float32)
    largest = reach(weight, axes)
    step = largest / (2 ** (bits - 1) - 1)
    error = np.abs(value - weight)
    if bits == 4:
        # Clipped where that lowers the squared error: to no less than the lowest factor of the largest value.
        inside = np.abs(weight) <= min(CLIP_FACTORS) * largest
        assert (error[inside] <= (step / 2 * np.ones_like(weight))[inside] * (1 + ROUNDING)).all()
        assert (error <= (1 - min(CLIP_FACTORS)) * largest + step / 2).all()
        rounded = np.clip(np.round(weight / step), -8, 7) * step
        assert (error**2).sum() <= ((rounded - weight) ** 2).sum()
    else:
        assert (error <= step / 2 + ROUNDING * largest).all()
    assert len(np.unique(np.round(value / step))) > min(2 ** (bits - 1), weight.size / 2)  # no bit goes unused


@kinds
@every_bits
def test_the_graph_computes_with_the_unpacked_values(kind: str, bits: int) -> None:
    weight = normal(0, *KINDS[kind][1]) / 4
    model, plain = of_kind(kind, weight), of_kind(kind, unpacked(weight, StoredInt(bits=bits), kind))
    assert held(model, StoredInt(bits=bits)) == {"w": f"stored-int{bits}"} | (
        {"r": "float32"} if kind == "LSTM" else {}
    )
    np.testing.assert_array_equal(run(model, an_input(kind))[0], run(plain, an_input(kind))[0])


@kinds
@every_bits
def test_an_outlier_hurts_its_own_channel_only(kind: str, bits: int) -> None:
    _, shape, axes = KINDS[kind]
    weight = normal(0, *shape)
    one = tuple(slice(3, 4) if a in axes else slice(None) for a in range(weight.ndim))
    loud = weight.copy()
    loud[one] *= 1000
    without, with_it = (unpacked(w, StoredInt(bits=bits), kind) for w in (weight, loud))
    others = np.ones(shape, bool)
    others[one] = False
    np.testing.assert_array_equal(with_it[others], without[others])
    # The channel itself is rounded as before, a thousand times larger.
    np.testing.assert_allclose(with_it[one], 1000 * without[one], rtol=1e-5)


@every_bits
def test_a_channel_of_zeros_stays_zero(bits: int) -> None:
    weight = normal(0, 48, 32, 3)
    weight[5] = 0
    value = unpacked(weight, StoredInt(bits=bits))
    assert np.isfinite(value).all()
    assert not value[5].any()
    assert not unpacked(np.zeros((48, 32, 3), np.float32), StoredInt(bits=bits)).any()


@every_bits
def test_the_extremes_of_a_channel_are_kept_at_either_sign(bits: int) -> None:
    """Values that lie on the grid are exact: packing loses no bit, and no sign."""
    top = 2 ** (bits - 1) - 1
    weight = np.random.default_rng(0).integers(-top, top + 1, (48, 32, 3)).astype(np.float32)
    weight[:, 0, 0], weight[:, 0, 1] = top, -top
    np.testing.assert_array_equal(unpacked(weight, StoredInt(bits=bits)), weight)


@pytest.mark.parametrize("bits", [4])
def test_an_odd_number_of_values_cannot_be_paired_and_gets_8_bits(bits: int) -> None:
    weight = normal(0, 33, 11, 3)
    text = "(float[1,11,N] x) => (float[1,33,M] y) { y = Conv(x, w) }"
    feed = {"x": normal(1, 1, 11, 9)}
    models = [graph(text, {"w": weight}) for _ in range(2)]
    assert held(models[0], StoredInt(bits=bits)) == {"w": "stored-int8"}
    held(models[1], StoredInt(bits=8))
    np.testing.assert_array_equal(*(run(m, feed)[0] for m in models))


@kinds
def test_fp16_rounds_to_half_precision(kind: str) -> None:
    weight = normal(0, *KINDS[kind][1]) / 4
    model, plain = of_kind(kind, weight), of_kind(kind, weight.astype(np.float16).astype(np.float32))
    assert held(model, StoredFp16())["w"] == "stored-fp16"
    np.testing.assert_array_equal(run(model, an_input(kind))[0], run(plain, an_input(kind))[0])


@pytest.mark.parametrize("bad", [65_520.0, -1e6, np.inf, np.nan])
def test_a_weight_beyond_fp16_stays_fp32(bad: float) -> None:
    weight = normal(0, 48, 32, 3)
    weight[7, 7, 1] = bad
    model = graph(CONV, {"w": weight})
    assert held(model, StoredFp16()) == {"w": "float32"}
    assert set(model.graph.initializers) == {"w"}


def test_the_largest_fp16_is_held_as_such() -> None:
    weight = normal(0, 48, 32, 3)
    weight[7, 7, 1] = 65_504
    assert held(graph(CONV, {"w": weight}), StoredFp16()) == {"w": "stored-fp16"}


@kinds
@pytest.mark.parametrize("scheme", [StoredInt(bits=4), StoredInt(bits=8), StoredFp16()], ids=str)
def test_onnxruntime_unpacks_at_load(kind: str, scheme: Scheme, tmp_path: Path) -> None:
    """Nothing is left but the one operation, as without any packing."""
    weight = normal(0, *KINDS[kind][1])
    packed, plain = of_kind(kind, weight), of_kind(kind, weight)
    held(packed, scheme)
    before = ops_at_run_time(plain, tmp_path)
    assert ops_at_run_time(packed, tmp_path) == before
    assert before.total() == 1


@pytest.mark.parametrize(
    ("scheme", "bytes_each"),
    [(Float32(), 4), (StoredFp16(), 2), (StoredInt(bits=8), 1), (StoredInt(bits=4), 0.5)],
    ids=str,
)
def test_a_file_shrinks_as_its_weights_do(scheme: Scheme, bytes_each: float) -> None:
    shape = (128, 128, 5)
    model = graph("(float[1,128,N] x) => (float[1,128,M] y) { y = Conv(x, w) }", {"w": normal(0, *shape)})
    held(model, scheme)
    size = len(ir.to_proto(model).SerializeToString())
    scales = 4 * shape[0]
    graph_itself = 2500  # a dozen nodes, with their names
    assert 0 <= size - bytes_each * np.prod(shape) <= scales + graph_itself


def test_only_constant_matrices_of_some_size_are_weights() -> None:
    small = normal(0, SMALLEST_WEIGHT - 1)
    constants = {"w": normal(0, 48, 32, 3), "k": small[:48].reshape(1, 48, 1), "d": normal(1, 48, 32, 3)}
    model = graph(
        "(float[1,32,N] x, float[48,32,3] d) => (float[1,48,M] y)"
        "{ a = Conv(x, w) b = Conv(x, d) c = Mul(a, k) y = Add(b, c) }",
        constants,
    )
    assert list(find_weights(model)) == ["w"]


def test_a_weight_that_two_nodes_share_is_unpacked_for_both() -> None:
    text = "(float[1,32,N] x) => (float[1,32,M] y) { a = Conv(x, w) y = Conv(a, w) }"
    weight, feed = normal(0, 32, 32, 3) / 10, {"x": normal(1, 1, 32, 9)}
    model = graph(text, {"w": weight})
    held(model, StoredFp16())
    plain = graph(text, {"w": weight.astype(np.float16).astype(np.float32)})
    assert "w" not in model.graph.initializers
    np.testing.assert_array_equal(run(model, feed)[0], run(plain, feed)[0])
