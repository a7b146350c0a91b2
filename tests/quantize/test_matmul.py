"""int8 matrix products: how near they come to what 8 bits allow, and what is none and so is only stored smaller."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, normal, ops, ops_at_run_time, run

from jtts_export.exporters.onnx import save
from jtts_export.quantize.apply import quantize
from jtts_export.quantize.schemes import (
    BlockMatMul,
    DynamicMatMul,
    Float32,
    Recipe,
    Rule,
    Scheme,
    StoredFp16,
    StoredInt,
    label,
    promoted,
)
from jtts_export.runtime.taps import OnnxRunner
from jtts_export.validate.audio import snr_db

# Some thousands of unit normal activations span 8 standard deviations: 256 levels over them are steps of 1/32,
# 41 dB below the signal. A column of some hundred weights spans 5 to 6, with 255 levels: 43 dB. Together 39.
# The largest of 32 values lies some 2.4 deviations off zero, of 256 some 3.2: with 127 levels up to there, either
# factor is 45 or 43 dB, and both together 42 or 40.
DYNAMIC_DB = 37
BLOCK_DB = 39
NOTHING = 1e-12  # MatMulNBits adds up multiples of a step before it takes the zero point off
ROWS, IN, OUT = 40, 192, 48

BLOCKS = (16, 32, 64, 128, 256)
PRODUCTS: list[Scheme] = [DynamicMatMul(), *(BlockMatMul(block=b) for b in BLOCKS)]  # type: ignore[arg-type]
NODE = {"dynamic-matmul": "DynamicQuantizeMatMul", "block-matmul": "MatMulNBits"}
every_product = pytest.mark.parametrize("scheme", PRODUCTS, ids=label)


def least_db(scheme: Scheme) -> float:
    return DYNAMIC_DB if isinstance(scheme, DynamicMatMul) else BLOCK_DB


def linear(weight: np.ndarray) -> ir.Model:
    rows, columns = weight.shape
    return graph(f"(float[1,N,{rows}] x) => (float[1,N,{columns}] y) {{ y = MatMul(x, w) }}", {"w": weight})


def held(model: ir.Model, scheme: Scheme, names: str = "*") -> dict[str, str]:
    return quantize(model, Recipe(rules=(Rule(pattern=names, scheme=scheme),)), {})


def product(weight: np.ndarray, scheme: Scheme, x: np.ndarray) -> np.ndarray:
    model = linear(weight)
    assert held(model, scheme) == {"w": label(scheme)}
    return run(model, {"x": x})[0]


@every_product
@pytest.mark.parametrize("size", [IN, 32, 200, 33, 301], ids=lambda n: f"{n} inputs")
def test_products_are_as_near_as_eight_bits_allow(scheme: Scheme, size: int) -> None:
    """Whether or not a block divides the inputs, or is longer than all of them."""
    weight, x = normal(0, size, OUT) / 8, normal(1, 1, ROWS, size)
    assert snr_db(product(weight, scheme, x), x @ weight) > least_db(scheme)


@every_product
def test_a_file_holds_the_integers_alone(scheme: Scheme, tmp_path: Path) -> None:
    weight = normal(0, 512, 512)
    model = linear(weight)
    held(model, scheme)
    save(model, tmp_path / "int8.onnx")  # checks it
    (node,) = ir.load(tmp_path / "int8.onnx").graph
    assert (node.op_type, node.domain) == (NODE[scheme.kind], "com.microsoft")
    # Without it, MatMulNBits unfolds the weights and computes in floats.
    assert node.attributes.get_int("accuracy_level", 0) == (4 if isinstance(scheme, BlockMatMul) else 0)
    scales = 4 * weight.size / scheme.block if isinstance(scheme, BlockMatMul) else 5 * 512
    assert 0 < (tmp_path / "int8.onnx").stat().st_size - weight.size - scales < 2000
    assert "w" not in model.graph.initializers


@every_product
def test_the_product_runs_in_integers(scheme: Scheme, tmp_path: Path) -> None:
    model = linear(normal(0, IN, OUT))
    held(model, scheme)
    assert ops_at_run_time(model, tmp_path) == {NODE[scheme.kind]: 1}


@every_product
def test_values_on_the_grid_are_exact(scheme: Scheme) -> None:
    """Weights of whole steps, activations of whole steps: nothing is rounded, so nothing may be off, not by one
    zero point, not by one transposition."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (256, OUT)).astype(np.float32)
    x = rng.integers(-127, 128, (1, ROWS, 256)).astype(np.float32)
    blocks = range(0, 256, 16)
    weight[blocks] = 127  # of every block, whatever its size
    x[:, :, blocks] = 127
    x[:, 0, 1], x[:, 0, 2] = -128, 127  # steps of one, for dynamic's 256 levels
    if isinstance(scheme, BlockMatMul):
        x[:, 0, 1] = -127
    np.testing.assert_allclose(product(weight, scheme, x), x @ weight, rtol=1e-5, atol=1)


@every_product
def test_an_outlying_column_hurts_no_other(scheme: Scheme) -> None:
    weight, x = normal(0, IN, OUT) / 8, normal(1, 1, ROWS, IN)
    loud = weight.copy()
    loud[:, 7] *= 1000
    without, with_it = (product(w, scheme, x) for w in (weight, loud))
    others = np.arange(OUT) != 7
    np.testing.assert_allclose(with_it[..., others], without[..., others], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(with_it[..., 7], 1000 * without[..., 7], rtol=1e-4, atol=1e-1)


@pytest.mark.parametrize("block", [16, 32, 64])
def test_outlying_weights_hurt_no_other_block(block: int) -> None:
    weight, x = normal(0, IN, OUT) / 8, normal(1, 1, ROWS, IN)
    weight[:block] *= 1000
    x[..., :block] = 0
    assert snr_db(product(weight, BlockMatMul(block=block), x), x @ weight) > BLOCK_DB  # type: ignore[arg-type]
    assert snr_db(product(weight, BlockMatMul(block=256), x), x @ weight) < 1  # all rounded to zero


@every_product
def test_columns_of_zeros_stay_zero(scheme: Scheme) -> None:
    weight, x = normal(0, IN, OUT) / 8, normal(1, 1, ROWS, IN)
    weight[:, 5] = 0
    weight[:64, 6] = 0  # blocks of zeros in a column that has others
    y = product(weight, scheme, x)
    assert np.abs(y[..., 5]).max() < NOTHING
    assert snr_db(y, x @ weight) > least_db(scheme)
    assert np.abs(product(np.zeros_like(weight), scheme, x)).max() < NOTHING


@pytest.mark.parametrize("size", [200, 33])
def test_silence_stays_silent(size: int) -> None:
    for scheme in PRODUCTS:
        assert not product(normal(0, size, OUT), scheme, np.zeros((1, 3, size), np.float32)).any()


def test_an_outlying_activation_costs_a_dynamic_product_its_precision_and_a_block_only_its_own() -> None:
    """Why the ladder leads from one to the other."""
    weight, x = normal(0, IN, OUT) / 8, normal(1, 1, ROWS, IN)
    x[0, 3, 11] = 1000
    quiet = np.arange(ROWS) != 3
    exact = (x @ weight)[:, quiet]
    dynamic, block = (product(weight, s, x)[:, quiet] for s in (DynamicMatMul(), BlockMatMul(block=32)))
    assert snr_db(dynamic, exact) < 5  # one step is four standard deviations of the rest
    assert snr_db(block, exact) > BLOCK_DB


def test_smaller_blocks_are_nearer() -> None:
    weight, x = normal(0, 512, OUT) / 8, normal(1, 1, ROWS, 512)
    each = [snr_db(product(weight, BlockMatMul(block=b), x), x @ weight) for b in BLOCKS]  # type: ignore[arg-type]
    assert each == sorted(each, reverse=True)


@every_product
def test_names_are_kept(scheme: Scheme) -> None:
    """Of an output, and of a tensor within that may be a tap."""
    text = f"(float[1,N,{IN}] x) => (float[1,N,{OUT}] y) {{ h = MatMul(x, w) y = Abs(h) }}"
    weight, x = normal(0, IN, OUT) / 8, normal(1, 1, ROWS, IN)
    inner, outer = graph(text, {"w": weight}), linear(weight)
    exact = x @ weight
    for model in (inner, outer):
        held(model, scheme)
    assert [v.name for v in outer.graph.outputs] == ["y"]
    taps = OnnxRunner("toy", ir.to_proto(inner), 1).taps({"x": x}, ["h", "y"])
    assert snr_db(taps["h"], exact) > least_db(scheme)
    np.testing.assert_array_equal(taps["y"], np.abs(taps["h"]))


@every_product
def test_two_products_of_one_graph_are_told_apart(scheme: Scheme) -> None:
    text = f"(float[1,N,{IN}] x) => (float[1,N,{IN}] y) {{ h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }}"
    weights, x = {"a": normal(0, IN, OUT) / 14, "b": normal(2, OUT, IN) / 7}, normal(1, 1, ROWS, IN)
    model = graph(text, weights)
    exact = run(model, {"x": x})[0]
    assert held(model, scheme) == dict.fromkeys(weights, label(scheme))
    assert ops(model)[NODE[scheme.kind]] == 2
    assert snr_db(run(model, {"x": x})[0], exact) > least_db(scheme) - 6


# What is no plain product of activations with a constant

TWICE = f"(float[1,N,{OUT}] x) => (float[1,N,{OUT}] y) {{ h = MatMul(x, w) y = MatMul(h, w) }}"
BOTH_SIDES = f"(float[1,{OUT},{OUT}] x) => (float[1,{OUT},{OUT}] y) {{ h = MatMul(x, w) y = MatMul(w, h) }}"
READ_BESIDE = f"(float[1,N,{OUT}] x) => (float[1,N,{OUT}] y) {{ h = MatMul(x, w) s = ReduceSum(w) y = Add(h, s) }}"
FIRST = f"(float[1,{OUT},N] x) => (float[1,{OUT},N] y) {{ y = MatMul(w, x) }}"
BATCHED = f"(float[3,N,{OUT}] x) => (float[3,N,{OUT}] y) {{ y = MatMul(x, w) }}"
GEMM = f"(float[N,{OUT}] x) => (float[N,{OUT}] y) {{ y = Gemm(x, w) }}"
GATHER = f"(int64[1,N] x) => (float[1,N,{OUT}] y) {{ y = Gather(w, x) }}"

NO_PRODUCTS = {
    "shared by two": (TWICE, (OUT, OUT), (1, 5, OUT)),
    "on either side": (BOTH_SIDES, (OUT, OUT), (1, OUT, OUT)),
    "read beside": (READ_BESIDE, (OUT, OUT), (1, 5, OUT)),
    "first operand": (FIRST, (OUT, OUT), (1, OUT, 5)),
    "three axes": (BATCHED, (3, OUT, OUT), (3, 5, OUT)),
    "Gemm": (GEMM, (OUT, OUT), (5, OUT)),
    "Gather": (GATHER, (100, OUT), None),
}


@pytest.mark.parametrize("kind", NO_PRODUCTS)
@pytest.mark.parametrize("scheme", [DynamicMatMul(), BlockMatMul()], ids=label)
def test_what_is_no_plain_product_is_stored_in_8_bits(kind: str, scheme: Scheme) -> None:
    text, shape, fed = NO_PRODUCTS[kind]
    x = {"x": np.arange(7)[None] if fed is None else normal(1, *fed)}
    weight = normal(0, *shape) / 7
    model, stored = (graph(text, {"w": weight}) for _ in range(2))
    assert held(model, scheme) == {"w": "stored-int8"}
    assert held(stored, StoredInt(bits=8)) == {"w": "stored-int8"}
    assert not set(NODE.values()) & set(ops(model))
    np.testing.assert_array_equal(run(model, x)[0], run(stored, x)[0])


# Schemes


@pytest.mark.parametrize(
    ("scheme", "steps"),
    [
        (DynamicMatMul(), ["block-matmul32", "stored-fp16", "float32", "float32"]),
        (BlockMatMul(block=256), ["block-matmul32", "stored-fp16", "float32"]),
        (BlockMatMul(block=64), ["block-matmul32", "stored-fp16", "float32"]),
        (BlockMatMul(block=32), ["stored-fp16", "float32"]),
        (BlockMatMul(block=16), ["stored-fp16", "float32"]),
    ],
    ids=str,
)
def test_the_ladder_leads_over_small_blocks_to_fp32(scheme: Scheme, steps: list[str]) -> None:
    for expected in steps:
        scheme = promoted(scheme)
        assert label(scheme) == expected


def test_each_step_of_the_ladder_is_nearer_than_the_one_before() -> None:
    """A few activations are larger than the rest, as a trained network's are."""
    weight, x = normal(0, IN, OUT) / 8, normal(1, 1, ROWS, IN)
    x[..., [3, 100]] *= 20
    scheme: Scheme = DynamicMatMul()
    each = [snr_db(product(weight, scheme, x), x @ weight)]
    while not isinstance(scheme, Float32):
        scheme = promoted(scheme)
        each.append(snr_db(product(weight, scheme, x), x @ weight))
    assert len(each) == 4
    assert all(after > before + 3 for before, after in itertools.pairwise(each))


def test_labels_tell_schemes_apart() -> None:
    assert [label(s) for s in PRODUCTS] == ["dynamic-matmul", *(f"block-matmul{b}" for b in BLOCKS)]


@every_product
def test_a_recipe_of_products_survives_json(scheme: Scheme) -> None:
    recipe = Recipe(rules=(Rule(pattern="encoder.*", scheme=scheme), Rule(pattern="*", scheme=StoredFp16())))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump()))) == recipe
    assert label(recipe.scheme_of("encoder.w")) == label(scheme)


def test_a_promoted_recipe_survives_json() -> None:
    recipe = Recipe(rules=(Rule(pattern="*", scheme=DynamicMatMul()),)).with_promoted(["a", "b"]).with_promoted(["b"])
    again = Recipe.model_validate_json(recipe.model_dump_json())
    held_as = {n: label(again.scheme_of(n)) for n in "abc"}
    assert held_as == {"a": "block-matmul32", "b": "stored-fp16", "c": "dynamic-matmul"}


@pytest.mark.parametrize("block", [0, 8, 48, 512, "32"])
def test_a_block_that_onnxruntime_does_not_know_is_rejected(block: object) -> None:
    with pytest.raises(ValueError, match="block"):
        Rule.model_validate({"pattern": "*", "scheme": {"kind": "block-matmul", "block": block}})


# 4 bits. Of 32 values the largest lies some 2.4 deviations off zero and is 8 steps: steps of 0.3, 21 dB below the
# signal; what reaches as far on the other side loses a step. Of 256, 3.2 deviations: 18 dB.

FOUR_BITS = [BlockMatMul(block=b, bits=4) for b in BLOCKS]  # type: ignore[arg-type]
FOUR_BIT_DB = {16: 21, 32: 19, 64: 18, 128: 17, 256: 16}
every_four_bits = pytest.mark.parametrize("scheme", FOUR_BITS, ids=label)


@every_four_bits
@pytest.mark.parametrize("size", [IN, 32, 200, 33, 301], ids=lambda n: f"{n} inputs")
def test_products_are_as_near_as_four_bits_allow(scheme: BlockMatMul, size: int) -> None:
    weight, x = normal(0, size, OUT) / 8, normal(1, 1, ROWS, size)
    assert snr_db(product(weight, scheme, x), x @ weight) > FOUR_BIT_DB[scheme.block]


@every_four_bits
def test_four_bit_values_on_the_grid_are_exact(scheme: BlockMatMul) -> None:
    """Whichever sign reaches farthest: all 16 levels are used, in their places."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-7, 8, (512, OUT)).astype(np.float32)
    signs = rng.choice([-1, 1], (512 // scheme.block, OUT))
    weight[:: scheme.block] = 8 * signs
    x = rng.integers(-127, 128, (1, ROWS, 512)).astype(np.float32)
    x[:, :, :: scheme.block] = 127
    assert {-1, 1} == set(signs.ravel())
    np.testing.assert_allclose(product(weight, scheme, x), x @ weight, rtol=1e-5, atol=1)


@every_four_bits
def test_all_that_four_bits_lose_is_lost_in_weights(scheme: BlockMatMul) -> None:
    """Unpacked by hand, they give the product to the precision of 8-bit activations."""
    weight, x = normal(0, 301, OUT) / 8, normal(1, 1, ROWS, 301)
    model = linear(weight)
    held(model, scheme)
    made = run(model, {"x": x})[0]
    packed, scale = (model.graph.initializers[f"w.{n}"].const_value.numpy() for n in ("int4", "scale"))
    assert packed.dtype == np.uint8
    assert packed.shape == (OUT, -(-301 // scheme.block), scheme.block // 2)
    levels = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], scheme.block).astype(np.float32) - 8
    unpacked = (levels * scale.reshape(*packed.shape[:2], 1)).reshape(OUT, -1).T
    assert not unpacked[301:].any()
    assert snr_db(made, x @ unpacked[:301]) > BLOCK_DB + 2
    assert snr_db(unpacked[:301], weight) > FOUR_BIT_DB[scheme.block]
    steps = np.repeat(np.abs(scale.reshape(OUT, -1)), scheme.block, 1).T[:301]
    error = np.abs(unpacked[:301] - weight) / steps
    assert error.max() <= 1.001  # at most the step that is missing on one side
    assert np.mean(error <= 0.501) > 0.97


@pytest.mark.parametrize("block", [16, 32, 128])
def test_a_file_of_four_bits_holds_half_a_byte_a_weight(block: int, tmp_path: Path) -> None:
    weight, scheme = normal(0, 512, 512), BlockMatMul(block=block, bits=4)  # type: ignore[arg-type]
    model = linear(weight)
    held(model, scheme)
    save(model, tmp_path / "int4.onnx")  # checks it
    (node,) = ir.load(tmp_path / "int4.onnx").graph
    attributes = {
        name: node.attributes.get_int(name, -1) for name in ("bits", "block_size", "accuracy_level", "K", "N")
    }
    assert attributes == {"bits": 4, "block_size": block, "accuracy_level": 4, "K": 512, "N": 512}
    assert 0 < (tmp_path / "int4.onnx").stat().st_size - weight.size // 2 - 4 * weight.size // block < 2000
    assert ops_at_run_time(model, tmp_path) == {"MatMulNBits": 1}


@every_four_bits
def test_zeros_stay_zero_in_four_bits(scheme: BlockMatMul) -> None:
    weight, x = normal(0, 300, OUT) / 8, normal(1, 1, ROWS, 300)
    weight[:, 5] = 0
    weight[:64, 6] = 0
    y = product(weight, scheme, x)
    assert np.abs(y[..., 5]).max() < NOTHING
    assert np.isfinite(y).all()
    assert snr_db(y, x @ weight) > FOUR_BIT_DB[scheme.block]
    assert np.abs(product(np.zeros_like(weight), scheme, x)).max() < NOTHING
    assert not product(weight, scheme, np.zeros_like(x)).any()


def test_four_bits_of_small_blocks_are_nearer_and_of_any_block_farther_than_eight() -> None:
    weight, x = normal(0, 512, OUT) / 8, normal(1, 1, ROWS, 512)
    each = [snr_db(product(weight, scheme, x), x @ weight) for scheme in FOUR_BITS]
    assert each == sorted(each, reverse=True)
    eight = snr_db(product(weight, BlockMatMul(block=256), x), x @ weight)
    assert eight > each[0] + 12


def test_outlying_weights_hurt_no_other_block_of_four_bits() -> None:
    weight, x = normal(0, IN, OUT) / 8, normal(1, 1, ROWS, IN)
    weight[:32] *= 1000
    x[..., :32] = 0
    assert snr_db(product(weight, BlockMatMul(block=32, bits=4), x), x @ weight) > FOUR_BIT_DB[32]
    assert snr_db(product(weight, BlockMatMul(block=256, bits=4), x), x @ weight) < 1


@pytest.mark.parametrize("kind", NO_PRODUCTS)
def test_what_is_no_plain_product_is_stored_in_8_bits_instead_of_4(kind: str) -> None:
    text, shape, _ = NO_PRODUCTS[kind]
    assert held(graph(text, {"w": normal(0, *shape)}), BlockMatMul(bits=4)) == {"w": "stored-int8"}


def test_four_bits_have_labels_and_a_ladder_of_their_own() -> None:
    assert [label(s) for s in FOUR_BITS] == [f"block-matmul{b}-int4" for b in BLOCKS]
    scheme: Scheme = BlockMatMul(block=64, bits=4)
    for expected in ("block-matmul64", "block-matmul32", "stored-fp16", "float32", "float32"):
        scheme = promoted(scheme)
        assert label(scheme) == expected
    recipe = Recipe(rules=(Rule(pattern="*", scheme=BlockMatMul(block=64, bits=4)),)).with_promoted(["a"])
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert [label(again.scheme_of(name)) for name in "ab"] == ["block-matmul64", "block-matmul64-int4"]


@pytest.mark.parametrize("bits", [0, 2, 3, 5, 16, "4"])
def test_bits_that_onnxruntime_does_not_know_are_rejected(bits: object) -> None:
    with pytest.raises(ValueError, match="bits"):
        Rule.model_validate({"pattern": "*", "scheme": {"kind": "block-matmul", "bits": bits}})
