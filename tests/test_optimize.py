"""Graph rewrites: each applies where it should, nowhere else, and changes nothing but rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import kokoro_graph
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, normal, ops, run

from jtts_export import optimize as rewrites
from jtts_export.exporters import kokoro
from jtts_export.exporters.graph import DEFAULT_OPSET, OPSETS
from jtts_export.exporters.onnx import save
from jtts_export.optimize import optimize, tidy
from jtts_export.runtime.session import session
from jtts_export.runtime.taps import OnnxRunner
from jtts_export.validate.audio import snr_db
from jtts_export.validate.parity import compare, reference_taps

# A rewrite may only round differently: half a unit in the last place of float32 is 150 dB below a value, and
# a chain of a few operations, some of which cancel, loses less than 50 of them.
SAME_DB = 100

AN_X = {"x": normal(0, 1, 4, 50)}
CHANNELS = "float[1,4,N] x"


def applies(model: ir.Model, rewrite: Callable[[ir.Model], int], feed: dict[str, np.ndarray]) -> int:
    """How often the rewrite applies, having checked that every output is as before, under the same name."""
    names = [v.name for v in model.graph.outputs]
    before = run(model, feed)
    count = optimize(model, (rewrite,))[rewrite.__name__]
    assert [v.name for v in model.graph.outputs] == names
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for was, now in zip(before, run(model, feed), strict=True):
        assert snr_db(now, was) >= SAME_DB
    return count


# On a Kokoro. Two snakes for each dilation of a residual block, three blocks for each upsampling and one for
# its noise; three dilations, two upsamplings. A style enters 70 instance norms and one layer norm.
SNAKES = 2 * 3 * (3 + 1) * 2
STYLES = 70 + 1
APPLIED = {
    "default_lstm_states": 4 * 2,  # LSTMs, states
    "scale_before_snake": SNAKES,
    "fold_scale_into_norm": SNAKES,
    "fold_scale_into_conv": SNAKES,
    "fold_affine_into_gemm": STYLES + 2 * SNAKES,  # 1 + gamma; the snake's scale of both halves
}


@pytest.fixture(scope="module")
def kokoro_case() -> tuple:
    case = kokoro_graph.cases("search")[0]
    runner = kokoro_graph.runner(kokoro_graph.traced())
    return case, reference_taps(kokoro.PARITY, runner, [case])


@pytest.mark.parametrize("last", range(1, len(rewrites.REWRITES) + 1))
def test_each_rewrite_of_a_kokoro_applies_everywhere_and_changes_only_rounding(last: int, kokoro_case: tuple) -> None:
    """Each builds on those before it, so they are added one by one."""
    case, expected = kokoro_case
    chosen = rewrites.REWRITES[:last]
    model = kokoro_graph.traced()
    counts = optimize(model, chosen)
    assert {r.__name__: counts[r.__name__] for r in chosen} == dict(list(APPLIED.items())[:last])
    metrics, _ = compare(kokoro.PARITY, expected, kokoro_graph.runner(model), [case])
    assert metrics["durations_equal_ratio"] == 1
    assert min(v for k, v in metrics.items() if k.endswith("_snr_db")) >= SAME_DB


def test_rewrites_leave_fewer_nodes_and_no_division_by_alpha() -> None:
    model = kokoro_graph.traced()
    counts = optimize(model)
    assert counts["nodes_after"] == model.graph.num_nodes() < counts["nodes_before"] - 4 * SNAKES
    assert ops(model)["Reciprocal"] == 0


def test_weights_keep_their_names() -> None:
    """Recipes match them; only what a rewrite folds away (a snake's alpha, say) may go."""
    before, after = (
        {v.name for v in m.graph.initializers.values() if str(v.name).endswith((".weight", ".bias", ".W", ".R"))}
        for m in (kokoro_graph.traced(), kokoro_graph.optimized())
    )
    assert before == after


def test_taps_and_draw_survive_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(kokoro_graph.optimized(), path)
    proto = onnx.load(path)
    assert {"frames", "duration", "f0", "n", "har", "waveform"} <= {
        n for node in proto.graph.node for n in node.output
    }
    assert [o.name for o in proto.graph.output] == ["waveform", "duration"]

    opened = session(path, 1)
    assert [i.name for i in opened.get_inputs()] == ["input_ids", "style", "speed"]
    assert [i.name for i in opened.get_overridable_initializers()] == ["source_noise"]
    feed = dict(kokoro_graph.cases("search")[0].inputs)
    baked = kokoro.GRAPH.draws["source_noise"]
    default = opened.run(["waveform"], feed)[0]
    same = opened.run(["waveform"], {**feed, "source_noise": baked})[0]
    other = opened.run(["waveform"], {**feed, "source_noise": baked[::-1].copy()})[0]
    np.testing.assert_array_equal(default, same)
    assert snr_db(other, default) < SAME_DB


def test_tidying_twice_changes_nothing_more() -> None:
    model = kokoro_graph.traced()
    tidy(model)
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    tidy(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == once


def test_exporting_and_optimizing_again_writes_the_same_bytes(tmp_path: Path) -> None:
    again, first = tmp_path / f"{kokoro.GRAPH.name}.onnx", tmp_path / "first.onnx"
    kokoro.export(kokoro_graph.loaded(), tmp_path, DEFAULT_OPSET)
    assert again.read_bytes() == kokoro_graph.exported()
    for path in (again, first):
        model = kokoro_graph.traced()
        optimize(model)
        save(model, path)
    assert again.read_bytes() == first.read_bytes()


def test_rewrites_apply_at_the_newest_opset() -> None:
    """Split and the reductions changed at 18."""
    opset = OPSETS[-1]
    model = ir.from_proto(onnx.ModelProto.FromString(kokoro_graph.exported(opset)))
    assert model.opset_imports[""] == opset
    counts = optimize(model)
    assert {name: counts[name] for name in APPLIED} == APPLIED


# LSTM states

LSTM = {"w": normal(1, 1, 16, 3), "r": normal(2, 1, 16, 4), "b": normal(3, 1, 32)}
LSTM_X = {"x": normal(4, 6, 1, 3)}


def lstm(states: str, inputs: str = "", **constants: np.ndarray) -> ir.Model:
    return graph(
        f"(float[N,1,3] x{inputs}) => (float[N,1,1,4] y) {{ {states} y = LSTM<hidden_size=4>(x, w, r, b, , h, c) }}",
        {**LSTM, **constants},
    )


ZEROS = np.zeros((1, 1, 4), np.float32)


def test_lstm_states_of_zeros_are_left_out() -> None:
    model = lstm("", h=ZEROS, c=ZEROS)
    assert applies(model, rewrites.default_lstm_states, LSTM_X) == 2
    assert set(model.graph.initializers) == set(LSTM)


def test_lstm_states_computed_as_zeros_are_left_out() -> None:
    shape = np.array([1, 1, 4], np.int64)
    made = "z = ConstantOfShape(size) h = Expand(z, size) c = Concat<axis=2>(part, part)"
    model = lstm(made, size=shape, part=ZEROS[..., :2])
    assert applies(model, rewrites.default_lstm_states, LSTM_X) == 2
    assert ops(model) == {"LSTM": 1}


def test_lstm_states_that_are_not_zeros_stay() -> None:
    ones = "c = ConstantOfShape<value = float[1] {1.0}>(size)"
    model = lstm(ones, size=np.array([1, 1, 4], np.int64), h=normal(5, 1, 1, 4))
    assert applies(model, rewrites.default_lstm_states, LSTM_X) == 0


def test_lstm_states_that_a_caller_may_set_stay() -> None:
    model = lstm("", ", float[1,1,4] h, float[1,1,4] c", h=ZEROS, c=ZEROS)
    assert applies(model, rewrites.default_lstm_states, LSTM_X) == 0


# Snakes

ALPHA = np.exp(0.3 * normal(6, 1, 4, 1))
SNAKE = """r = Reciprocal(alpha) u = Mul(alpha, x) s = Sin(u) q = Mul(s, s) p = Mul(r, q) y = Add(x, p)"""


def test_a_snake_is_scaled_before_and_after() -> None:
    model = graph(f"({CHANNELS}) => (float[1,4,N] y) {{ {SNAKE} }}", {"alpha": ALPHA})
    assert applies(model, rewrites.scale_before_snake, AN_X) == 1
    assert ops(model) == {"Mul": 3, "Sin": 1, "Add": 1}


def test_a_snake_is_scaled_whatever_else_reads_its_parts() -> None:
    model = graph(f"({CHANNELS}) => (float[1,4,N] y, float[1,4,N] q, float[1,4,N] u) {{ {SNAKE} }}", {"alpha": ALPHA})
    assert applies(model, rewrites.scale_before_snake, AN_X) == 1


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("y = Add(x, p)", "y = Sub(x, p)"),
        ("y = Add(x, p)", "y = Add(u, p)"),  # another value than the sine's
        ("q = Mul(s, s)", "q = Mul(s, x)"),  # not a square
        ("s = Sin(u)", "s = Cos(u)"),
        ("u = Mul(alpha, x)", "u = Mul(other, x)"),  # another alpha inside than outside
    ],
)
def test_what_is_almost_a_snake_stays(was: str, becomes: str) -> None:
    constants = {"alpha": ALPHA, "other": ALPHA + 1} if "other" in becomes else {"alpha": ALPHA}
    body = SNAKE.replace(was, becomes)
    model = graph(f"({CHANNELS}) => (float[1,4,N] y) {{ {body} }}", constants)
    assert applies(model, rewrites.scale_before_snake, AN_X) == 0


@pytest.mark.parametrize("default", [{}, {"alpha": ALPHA}], ids=["input", "overridable"])
def test_a_snake_whose_alpha_a_caller_gives_stays(default: dict[str, np.ndarray]) -> None:
    model = graph(f"({CHANNELS}, float[1,4,1] alpha) => (float[1,4,N] y) {{ {SNAKE} }}", default)
    assert applies(model, rewrites.scale_before_snake, {**AN_X, "alpha": ALPHA}) == 0


# Scales behind a norm

NORM = {"scale": normal(7, 4), "bias": normal(8, 4), "k": ALPHA}
NORM_BODY = "n = InstanceNormalization(x, scale, bias)"


@pytest.mark.parametrize("product", ["Mul(n, k)", "Mul(k, n)"])
def test_a_norms_scale_takes_a_channel_scale_behind_it(product: str) -> None:
    model = graph(f"({CHANNELS}) => (float[1,4,N] y) {{ {NORM_BODY} m = {product} y = Abs(m) }}", NORM)
    assert applies(model, rewrites.fold_scale_into_norm, AN_X) == 1
    nodes = {n.op_type: n for n in model.graph}
    assert nodes["Abs"].inputs[0].producer() is nodes["InstanceNormalization"]


def test_a_scaled_norm_that_is_an_output_keeps_its_name() -> None:
    model = graph(f"({CHANNELS}) => (float[1,4,N] y) {{ {NORM_BODY} y = Mul(n, k) }}", NORM)
    assert applies(model, rewrites.fold_scale_into_norm, AN_X) == 1


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (f"({CHANNELS}) => (float[1,4,N] y)", "m = Mul(n, k) y = Add(m, n)"),  # n is read elsewhere
        (f"({CHANNELS}) => (float[1,4,N] y, float[1,4,N] n)", "y = Mul(n, k)"),
        (f"({CHANNELS}, float[1,4,1] k) => (float[1,4,N] y)", "y = Mul(n, k)"),  # overridable
        (f"({CHANNELS}) => (float[1,4,N] y)", "t = Abs(k) y = Mul(n, x)"),  # not a constant
    ],
)
def test_a_norm_that_may_not_be_scaled_stays(signature: str, body: str) -> None:
    model = graph(f"{signature} {{ {NORM_BODY} {body} }}", NORM)
    assert applies(model, rewrites.fold_scale_into_norm, AN_X) == 0


def test_a_scale_along_time_stays_behind_its_norm() -> None:
    model = graph(
        f"(float[1,4,50] x) => (float[1,4,50] y) {{ {NORM_BODY} y = Mul(n, k) }}", NORM | {"k": normal(9, 1, 1, 50)}
    )
    assert applies(model, rewrites.fold_scale_into_norm, AN_X) == 0


def test_a_scale_that_meets_an_images_rows_stays_behind_its_norm() -> None:
    """[1, 4, 1] against [1, 4, 4, 5] is a scale along the third axis, not the channels."""
    model = graph(f"(float[1,4,4,5] x) => (float[1,4,4,5] y) {{ {NORM_BODY} y = Mul(n, k) }}", NORM)
    next(n for n in model.graph if n.op_type == "InstanceNormalization").outputs[0].shape = ir.Shape([1, 4, 4, 5])
    assert applies(model, rewrites.fold_scale_into_norm, {"x": normal(0, 1, 4, 4, 5)}) == 0


# Scales ahead of a Conv

CONV = {"w": normal(10, 6, 4, 3), "b": normal(11, 6), "k": ALPHA}
CONV_OUT = "float[1,6,M] y"
CONV_BODY = "m = Mul(x, k) y = Conv<pads=[1,1]>(m, w, b)"


@pytest.mark.parametrize("product", ["Mul(x, k)", "Mul(k, x)"])
def test_a_convs_weights_take_a_channel_scale_ahead_of_it(product: str) -> None:
    model = graph(f"({CHANNELS}) => ({CONV_OUT}) {{ m = {product} y = Conv<pads=[1,1]>(m, w, b) }}", CONV)
    assert applies(model, rewrites.fold_scale_into_conv, AN_X) == 1
    assert ops(model) == {"Conv": 1}


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (f"({CHANNELS}) => ({CONV_OUT}, float[1,4,N] m)", CONV_BODY),  # the product is read elsewhere
        (f"({CHANNELS}) => ({CONV_OUT}, float[1,6,K] z)", CONV_BODY + " z = Conv(x, w)"),  # so are the weights
        (f"({CHANNELS}, float[1,4,1] k) => ({CONV_OUT})", CONV_BODY),  # overridable
        (f"({CHANNELS}, float[6,4,3] w) => ({CONV_OUT})", CONV_BODY),
        (f"({CHANNELS}) => (float[1,6,M] y)", "t = Abs(k) m = Mul(x, t) y = Conv(m, w, b)"),  # not a constant
    ],
)
def test_a_conv_that_may_not_be_scaled_stays(signature: str, body: str) -> None:
    model = graph(f"{signature} {{ {body} }}", CONV)
    assert applies(model, rewrites.fold_scale_into_conv, AN_X) == 0


def test_a_grouped_conv_stays() -> None:
    model = graph(
        f"({CHANNELS}) => ({CONV_OUT}) {{ m = Mul(x, k) y = Conv<group=2>(m, w) }}",
        {"w": normal(12, 6, 2, 3), "k": ALPHA},
    )
    assert applies(model, rewrites.fold_scale_into_conv, AN_X) == 0


def test_a_conv_over_an_image_stays() -> None:
    constants = {"w": normal(13, 6, 4, 3, 3), "k": ALPHA}
    model = graph("(float[1,4,4,5] x) => (float[1,6,2,3] y) { m = Mul(x, k) y = Conv(m, w) }", constants)
    assert applies(model, rewrites.fold_scale_into_conv, {"x": normal(0, 1, 4, 4, 5)}) == 0


# Affine functions of a style

STYLE = {"w": normal(14, 10, 3), "b": normal(15, 10), "flat": np.array([-1]), "sizes": np.array([6, 4])}
STYLE |= {"one": np.float32(1), "k": normal(16, 6), "c": normal(17, 4)}
STYLE_X = {"x": normal(18, 1, 3)}
GEMM = "g = Gemm<transB=1>(x, w, b) f = Reshape(g, flat)"
HALVES = f"{GEMM} u, v = Split<axis=0>(f, sizes)"
OUT = "(float[1,3] x) => (float[6] y, float[4] z)"


def style_graph(body: str, signature: str = OUT, **constants: np.ndarray) -> ir.Model:
    used = {
        n: a
        for n, a in {**STYLE, **constants}.items()
        if n in body.replace("(", " ").replace(",", " ").replace(")", " ").split()
    }
    return graph(f"{signature} {{ {body} }}", used)


def test_a_gemm_takes_every_scale_and_shift_of_its_parts() -> None:
    model = style_graph(f"{HALVES} u1 = Add(one, u) u2 = Mul(u1, k) y = Mul(u2, one) z = Add(v, c)")
    assert applies(model, rewrites.fold_affine_into_gemm, STYLE_X) == 4
    assert ops(model) == {"Gemm": 1, "Reshape": 1, "Split": 1}


@pytest.mark.parametrize(
    "body",
    [
        f"{HALVES} y1 = Add(u, one) y = Mul(u, y1) z = Abs(v)",  # u is read twice
        f"{HALVES} y = Mul(u, u) z = Abs(v)",
        f"{HALVES} y = Sub(u, one) z = Abs(v)",
        f"{HALVES} t = Abs(k) y = Mul(u, t) z = Abs(v)",  # not a constant
        f"{HALVES} y = Mul(u, k) z = Abs(v)".replace("transB=1", "transB=1, beta=0.5"),
        f"{HALVES} y = Mul(u, k) z = Abs(v)".replace("transB=1", "transB=1, alpha=2.0"),
        f"{HALVES} y = Mul(u, k) z = Abs(v)".replace("x, w, b", "x, w"),  # no bias to shift
        f"{HALVES} y = Mul(u, k) z1 = ReduceMean<keepdims=0>(g) z = Add(v, z1)",  # g is read elsewhere
    ],
)
def test_a_part_that_may_not_be_folded_stays(body: str) -> None:
    assert applies(style_graph(body), rewrites.fold_affine_into_gemm, STYLE_X) == 0


def test_a_gemm_that_is_not_transposed_stays() -> None:
    body = f"{HALVES} y = Mul(u, k) z = Abs(v)".replace("Gemm<transB=1>", "Gemm")
    assert applies(style_graph(body, w=normal(14, 3, 10)), rewrites.fold_affine_into_gemm, STYLE_X) == 0


@pytest.mark.parametrize("name", ["w", "b", "k"])
def test_an_affine_function_that_a_caller_may_change_stays(name: str) -> None:
    shape = ",".join(map(str, STYLE[name].shape))
    model = style_graph(f"{HALVES} y = Mul(u, k) z = Abs(v)", OUT.replace(" x)", f" x, float[{shape}] {name})"))
    assert applies(model, rewrites.fold_affine_into_gemm, STYLE_X) == 0


def test_a_split_of_rows_stays() -> None:
    """Parts of a matrix are not parts of the Gemm's output channels."""
    body = f"{GEMM} u, v = Split<axis=0>(f, sizes) y = Mul(u, one) z = Abs(v)"
    model = style_graph(
        body,
        "(float[1,3] x) => (float[1,5] y, float[1,5] z)",
        flat=np.array([2, 5]),
        sizes=np.array([1, 1]),
        one=np.float32(3),
    )
    assert applies(model, rewrites.fold_affine_into_gemm, STYLE_X) == 0


def test_a_scale_of_a_parts_rows_stays() -> None:
    model = style_graph(
        f"{HALVES} y = Mul(u, k) z = Abs(v)", OUT.replace("float[6] y", "float[6,6] y"), k=normal(16, 6, 1)
    )
    assert applies(model, rewrites.fold_affine_into_gemm, STYLE_X) == 0


@pytest.mark.parametrize("shared", ["w", "b"])
def test_gemms_that_share_a_constant_stay(shared: str) -> None:
    """As two layers do after tidying, where both biases are zeros."""
    second = "h = Gemm<transB=1>(x, w2, b2) e = Reshape(h, flat) s, t = Split<axis=0>(e, sizes)"
    body = f"{HALVES} y = Add(u, one) {second} z1 = Mul(t, c) z = Add(z1, v) o = Add(s, one)"
    twin = {"w2": normal(19, 10, 3), "b2": normal(20, 10), f"{shared}2": STYLE[shared]}
    model = style_graph(body, OUT.replace("float[6] y", "float[6] y, float[6] o"), **twin)
    assert applies(model, rewrites.fold_affine_into_gemm, STYLE_X) == 0


def test_shared_constants_are_merged_by_value() -> None:
    twins = {"a": normal(21, 4, 1), "b": normal(21, 4, 1)}
    model = graph(f"({CHANNELS}) => (float[1,4,N] y) {{ s = Add(x, a) i = Identity(s) y = Add(i, b) }}", twins)
    before = run(model, AN_X)[0]
    tidy(model)
    assert (len(model.graph.initializers), ops(model)) == (1, {"Add": 2})
    np.testing.assert_array_equal(run(model, AN_X)[0], before)


def test_a_rewritten_graph_can_still_be_cut_at_its_taps() -> None:
    """A tap between two folded operations takes its name along."""
    model = graph(f"({CHANNELS}) => (float[1,4,N] y) {{ {NORM_BODY} tap = Mul(n, k) y = Abs(tap) }}", NORM)
    tap = next(n for n in model.graph if n.op_type == "Mul").outputs[0]
    tap.type, tap.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1, 4, "N"])
    before = OnnxRunner("toy", ir.to_proto(model), 1).taps(AN_X, ["tap"])["tap"]
    optimize(model, (rewrites.fold_scale_into_norm,))
    after = OnnxRunner("toy", ir.to_proto(model), 1).taps(AN_X, ["tap"])["tap"]
    assert snr_db(after, before) >= SAME_DB
