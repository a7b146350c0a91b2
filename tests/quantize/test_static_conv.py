"""int8 convolutions: how near they come to what 8 bits allow, and how onnxruntime runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, normal, ops, ops_at_run_time, run

from jtts_export.exporters.onnx import save
from jtts_export.quantize.apply import fit_convs, quantize
from jtts_export.quantize.calibrate import sample
from jtts_export.quantize.schemes import Recipe, Rule, StaticConv, StoredFp16, StoredInt
from jtts_export.quantize.static_conv import LEVELS, Parameters, fit, invert_snake
from jtts_export.quantize.weights import find_weights
from jtts_export.validate.audio import snr_db

# A channel of unit normal samples, some thousands of them, spans about 8 standard deviations: 256 levels over
# it have steps of 1/32, and rounding adds 1/12 of a step squared: 41 dB below the signal. Inputs and outputs
# are rounded so, and weights once more with 127 levels over 3 to 4 deviations (the same step); three equal
# noises are 5 dB more: 36. Scales are chosen for 16 channels at once, which costs a little; and on other
# samples, of which a few lie beyond what was calibrated: one such value of a deviation too many in 3000 is 35 dB
# below the signal, and so a single channel may be 5 dB worse.
EIGHT_BITS_DB = 33
UNLUCKY_CHANNEL_DB = 28
CALIBRATION_RUNS = 8  # of 512 samples each, as many as there are built-in sentences
IN, OUT, TIME = 16, 24, 3000

INT8 = Recipe(rules=(Rule(pattern="w", scheme=StaticConv()),))


def conv(attributes: str = "", bias: bool = True, **constants: np.ndarray) -> ir.Model:
    text = f"(float[1,{IN},N] x) => (float[1,{OUT},M] y) {{ y = Conv{attributes}(x, w{', b' if bias else ''}) }}"
    weights = {"w": normal(0, OUT, IN, 3) / 7, "b": normal(1, OUT)} | constants
    return graph(text, weights if bias else {"w": weights["w"]})


def calibrated(model: ir.Model, *feeds: dict[str, np.ndarray]) -> dict[str, Parameters]:
    weights = {n: w for n, w in find_weights(model).items() if n in ("w", "w2")}
    return fit_convs(model, sample(model, weights, feeds))


def fitted(model: ir.Model, x: np.ndarray) -> dict[str, Parameters]:
    return calibrated(model, *[{"x": x}] * CALIBRATION_RUNS)


def quantized(model: ir.Model, x: np.ndarray) -> ir.Model:
    """A copy in int8, calibrated on `x`."""
    convs = fitted(model, x)
    copy = model.clone()
    quantize(copy, INT8, convs)
    return copy


def assert_near(measured: np.ndarray, exact: np.ndarray) -> None:
    """Each channel's own SNR, of its variation: a constant is easy to hold."""
    assert measured.shape == exact.shape
    each = [snr_db(m - e.mean(), e - e.mean()) for m, e in zip(measured[0], exact[0], strict=True)]
    assert np.median(each) > EIGHT_BITS_DB
    assert min(each) > UNLUCKY_CHANNEL_DB


@pytest.mark.parametrize(
    "attributes",
    ["", "<pads=[1,1]>", "<dilations=[5], pads=[5,5]>", "<strides=[2], pads=[2,1]>", '<auto_pad="SAME_UPPER">'],
)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_outputs_are_as_near_as_eight_bits_allow(attributes: str, bias: bool, tmp_path: Path) -> None:
    model, x = conv(attributes, bias), normal(2, 1, IN, TIME)
    int8 = quantized(model, x)
    save(int8, tmp_path / "int8.onnx")  # checks it
    unseen = {"x": normal(3, 1, IN, TIME)}
    assert_near(run(int8, unseen)[0], run(model, unseen)[0])


def test_the_convolution_runs_in_integers(tmp_path: Path) -> None:
    int8 = quantized(conv("<pads=[1,1]>"), normal(2, 1, IN, TIME))
    left = ops_at_run_time(int8, tmp_path)
    del left["Transpose"]  # to and from channels last, where the processor prefers those
    assert left == {"QuantizeLinear": 1, "QLinearConv": 1, "DequantizeLinear": 1}


def test_input_channels_a_thousandfold_apart_all_count() -> None:
    """Loud channels have small weights, so that each adds as much to the output: one step for all would drown
    the quiet ones."""
    gains = np.geomspace(1, 1000, IN, dtype=np.float32)[None, :, None]
    model = conv(w=normal(0, OUT, IN, 3) / 7 / gains)
    int8 = quantized(model, normal(2, 1, IN, TIME) * gains)
    for channel in (0, IN // 2, IN - 1):
        alone = np.zeros((1, IN, TIME), np.float32)
        alone[:, channel] = normal(3, TIME)
        feed = {"x": alone * gains}
        exact, measured = run(model, feed)[0], run(int8, feed)[0]
        # One channel of sixteen is 12 dB less of a signal before the same rounding of the output.
        assert (
            snr_db(measured - exact.mean(2, keepdims=True), exact - exact.mean(2, keepdims=True)) > EIGHT_BITS_DB - 12
        )


def test_output_channels_a_thousandfold_apart_keep_their_precision() -> None:
    gains = np.geomspace(1, 1000, OUT, dtype=np.float32)
    model = conv(w=normal(0, OUT, IN, 3) / 7 * gains[:, None, None], b=normal(1, OUT) * gains)
    int8 = quantized(model, normal(2, 1, IN, TIME))
    unseen = {"x": normal(3, 1, IN, TIME)}
    assert_near(run(int8, unseen)[0], run(model, unseen)[0])


def test_inputs_that_are_never_negative_use_every_level() -> None:
    x = np.abs(normal(2, 1, IN, TIME))
    model = conv("<pads=[1,1]>")
    assert fitted(model, x)["w"].zero == 0
    unseen = {"x": np.abs(normal(3, 1, IN, TIME))}
    assert_near(run(quantized(model, x), unseen)[0], run(model, unseen)[0])


def test_inputs_that_are_never_positive_work_as_well() -> None:
    x = -np.abs(normal(2, 1, IN, TIME))
    model = conv("<pads=[1,1]>")
    unseen = {"x": -np.abs(normal(3, 1, IN, TIME))}
    assert_near(run(quantized(model, x), unseen)[0], run(model, unseen)[0])


@pytest.mark.parametrize("offset", [0.0, 3.0, -3.0])
def test_padding_is_exactly_zero(offset: float) -> None:
    """Silence far beyond what was calibrated, then padding: both are the same zero, so every output is equal."""
    model = conv("<pads=[2,2]>")
    int8 = quantized(model, normal(2, 1, IN, TIME) + np.float32(offset))
    y = run(int8, {"x": np.zeros((1, IN, 20), np.float32)})[0]
    np.testing.assert_array_equal(y, np.broadcast_to(y[..., :1], y.shape))


def test_zero_is_a_level_of_every_channel() -> None:
    p = fitted(conv(), normal(2, 1, IN, TIME) + 3)["w"]
    assert 0 <= p.zero < LEVELS
    assert (p.scale > 0).all()


def test_inputs_and_outputs_beyond_calibration_saturate() -> None:
    model, x = conv(), normal(2, 1, IN, TIME)
    int8 = quantized(model, x)
    top = run(int8, {"x": 1e30 * np.sign(x)})[0]
    y = run(model, {"x": x})[0]
    assert np.isfinite(top).all()
    span = y.max() - y.min()
    assert np.abs(top).max() <= np.abs(y).max() + span


def test_silent_channels_on_either_side_do_no_harm() -> None:
    x, w = normal(2, 1, IN, TIME), normal(0, OUT, IN, 3) / 7
    x[:, 3] = 0
    w[5] = 0  # an output that is its bias
    model = conv(w=w)
    exact, measured = run(model, {"x": x})[0], run(quantized(model, x), {"x": x})[0]
    others = [i for i in range(OUT) if i != 5]
    assert_near(measured[:, others], exact[:, others])
    # A constant is one of 255 levels from zero to itself; its own is exact but for the rounding of its scale.
    np.testing.assert_allclose(measured[:, 5], exact[:, 5], rtol=1e-5)


def test_a_conv_of_nothing_but_zeros_is_fitted() -> None:
    p = fit(np.zeros((OUT, IN, 3)), np.zeros(OUT), np.zeros((IN, 50)), np.zeros((OUT, 50)))
    for part in (p.scale, p.weight_scale, p.out_scale):
        assert np.isfinite(part).all()
        assert (part > 0).all()


def test_a_conv_that_is_an_output_keeps_its_name() -> None:
    int8 = quantized(conv(), normal(2, 1, IN, TIME))
    assert [v.name for v in int8.graph.outputs] == ["y"]


def test_fitting_is_deterministic() -> None:
    one, two = (fitted(conv(), normal(2, 1, IN, TIME))["w"] for _ in range(2))
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


# Tables

STYLE = 8
GEMM = "g = Gemm<transB=1>(style, fc_w, fc_b) f = Reshape(g, flat) k, d = Split<axis=0>(f, halves)"
SNAKE = "u = InstanceNormalization(x, k, d) s = Sin(u) q = Mul(s, s) v = Add(u, q)"
OUTPUT = "y = Conv<pads=[1,1]>(v, w, b)"
SIGNATURE = f"(float[1,{IN},N] x, float[1,{STYLE}] style) => (float[1,{OUT},M] y)"


def snake(body: str = f"{GEMM} {SNAKE} {OUTPUT}", signature: str = SIGNATURE, **constants: np.ndarray) -> ir.Model:
    known = {
        "fc_w": normal(4, 2 * IN, STYLE) / 3,
        "fc_b": normal(5, 2 * IN) + 1,
        "flat": np.array([-1]),
        "halves": np.array([IN, IN]),
        "w": normal(0, OUT, IN, 3) / 7,
        "b": normal(1, OUT),
        **constants,
    }
    return graph(f"{signature} {{ {body} }}", known)


def feed(seed: int, gain: float = 1) -> dict[str, np.ndarray]:
    return {"x": np.cumsum(normal(seed, 1, IN, TIME), axis=2), "style": gain * normal(seed + 1, 1, STYLE)}


CALIBRATION = [feed(10 * n) for n in range(1, CALIBRATION_RUNS + 1)]


def both(model: ir.Model, levels: int = 2048) -> tuple[ir.Model, ir.Model]:
    """The graph in int8, with a table and without."""
    convs = calibrated(model, *CALIBRATION)
    copies = model.clone(), model.clone()
    for copy, table_levels in zip(copies, (levels, 0), strict=True):
        quantize(copy, Recipe(rules=(Rule(pattern="w", scheme=StaticConv(table_levels=table_levels)),)), convs)
    return copies


def has_table(model: ir.Model) -> bool:
    return "GatherElements" in ops(model)


def test_a_snake_ahead_of_a_conv_becomes_a_table(tmp_path: Path) -> None:
    table, plain = both(snake())
    save(table, tmp_path / "table.onnx")
    at_run_time = ops_at_run_time(table, tmp_path)
    assert at_run_time["GatherElements"] == at_run_time["QLinearConv"] == 1
    assert at_run_time["Sin"] == at_run_time["QuantizeLinear"] == 0  # in the table, which is folded
    assert ops_at_run_time(plain, tmp_path)["Sin"] == 1


def test_a_table_computes_what_the_snake_would() -> None:
    """Both round to the same 256 levels; 2048 entries place u within half a 2048th of its range, so one value
    in some eight falls on the other side of a boundary, by one level."""
    model = snake()
    table, plain = both(model)
    quantized_v = [
        next(v for v in m.graph if v.op_type == op).outputs[0]
        for m, op in ((table, "GatherElements"), (plain, "QuantizeLinear"))
    ]
    for m, v in zip((table, plain), quantized_v, strict=True):
        v.type = ir.TensorType(ir.DataType.UINT8)
        m.graph.outputs.append(v)
    (y, levels), (plain_y, plain_levels) = (run(m, feed(99)) for m in (table, plain))
    apart = np.abs(levels.astype(int) - plain_levels.astype(int))
    assert apart.max() <= 1
    assert apart.mean() < 1 / 6
    exact = run(model, feed(99))[0]
    # An error of 2 * (256 / 2048) of a step, uniform (the slope of u + sin(u)^2 is at most 2), adds 0.3 dB.
    assert snr_db(y, exact) > snr_db(plain_y, exact) - 0.5


def test_few_levels_are_coarser_and_still_right() -> None:
    model = snake()
    exact = run(model, feed(99))[0]
    fine, coarse = (snr_db(run(both(model, n)[0], feed(99))[0], exact) for n in (2048, 256))
    assert 15 < coarse < fine


def test_snakes_beyond_calibration_saturate() -> None:
    table, plain = both(snake())
    loud = feed(99, gain=1000)
    y, plain_y = run(table, loud)[0], run(plain, loud)[0]
    assert np.isfinite(y).all()
    # Saturated alike: nearly every input is one of the two extremes.
    assert snr_db(y, plain_y) > EIGHT_BITS_DB


def test_a_style_gemm_may_be_stored_smaller_behind_its_table() -> None:
    """Dividing by a table's step makes the Gemm's rows large: too large for fp16 where a channel is nearly silent."""
    weight = normal(4, 2 * IN, STYLE * 4) / 3
    weight[[3, IN + 3]] *= 1e-6
    bias = normal(5, 2 * IN) + 1
    bias[[3, IN + 3]] *= 1e-6
    weight[[5, IN + 5]] *= 1e3
    bias[[5, IN + 5]] *= 1e3
    model = snake(signature=SIGNATURE.replace(f"[1,{STYLE}]", f"[1,{4 * STYLE}]"), fc_w=weight, fc_b=bias)
    x = {"x": feed(10)["x"], "style": normal(11, 1, STYLE * 4)}
    convs = calibrated(model, *[x] * CALIBRATION_RUNS)
    exact = run(model, x)[0]
    for scheme in (StoredFp16(), StoredInt(bits=8)):
        copy = model.clone()
        rules = (*INT8.rules, Rule(pattern="fc_w", scheme=scheme))
        quantize(copy, Recipe(rules=rules), convs)
        y = run(copy, x)[0]
        assert has_table(copy)
        assert snr_db(y, exact) > EIGHT_BITS_DB


SHIFTED = "(float[1,16,N] x, float[1,8] style, float[16] k, float[16] d) => (float[1,24,M] y)"


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        (SIGNATURE, f"{GEMM} {SNAKE} {OUTPUT}".replace("Mul(s, s)", "Mul(s, u)")),  # not a square
        (SIGNATURE, f"{GEMM} {SNAKE} {OUTPUT}".replace("Add(u, q)", "Sub(u, q)")),
        (SIGNATURE, f"{GEMM} {SNAKE} {OUTPUT}".replace("Sin(u)", "Cos(u)")),
        (SIGNATURE, f"{GEMM} {SNAKE} {OUTPUT}".replace("Sin(u)", "Sin(x)")),
        (SIGNATURE, f"{GEMM} {SNAKE} {OUTPUT}".replace("(v, w, b)", "(u, w, b)")),  # no snake ahead
        (SIGNATURE, f"{GEMM} {SNAKE} {OUTPUT}".replace("transB=1", "transB=1, beta=2.0")),
        (SIGNATURE, f"{GEMM} {SNAKE} {OUTPUT}".replace("x, k, d", "x, d, k")),
        (SIGNATURE, f"{GEMM} k1 = Abs(k) {SNAKE} {OUTPUT}".replace("x, k, d", "x, k1, d")),
        (SHIFTED, f"{SNAKE} {OUTPUT}"),  # scale and bias are inputs
        # What would be rescaled is read elsewhere as well.
        (SIGNATURE, f"{GEMM} {SNAKE} y1 = Conv<pads=[1,1]>(v, w, b) p = ReduceMean(v) y = Add(y1, p)"),
        (SIGNATURE, f"{GEMM} {SNAKE} y1 = Conv<pads=[1,1]>(v, w, b) p = ReduceMean(u) y = Add(y1, p)"),
        (SIGNATURE, f"{GEMM} {SNAKE} y1 = Conv<pads=[1,1]>(v, w, b) p = ReduceMean(s) y = Add(y1, p)"),
        (SIGNATURE, f"{GEMM} {SNAKE} y1 = Conv<pads=[1,1]>(v, w, b) p = ReduceMean(q) y = Add(y1, p)"),
        (SIGNATURE, f"{GEMM} {SNAKE} y1 = Conv<pads=[1,1]>(v, w, b) p = ReduceMean(k) y = Add(y1, p)"),
        (SIGNATURE, f"{GEMM} {SNAKE} y1 = Conv<pads=[1,1]>(v, w, b) p = ReduceMean(f) y = Add(y1, p)"),
        (SIGNATURE, f"{GEMM} {SNAKE} y1 = Conv<pads=[1,1]>(v, w, b) p = ReduceMean(g) y = Add(y1, p)"),
        (SIGNATURE, f"{GEMM} {SNAKE} y1 = Conv<pads=[1,1]>(v, w, b) p = ReduceMean(fc_b) y = Add(y1, p)"),
        (SIGNATURE.replace(" y)", f" y, float[1,{IN},N] u)"), f"{GEMM} {SNAKE} {OUTPUT}"),
        (SIGNATURE.replace(" y)", f" y, float[1,{IN},N] v)"), f"{GEMM} {SNAKE} {OUTPUT}"),
        (SIGNATURE.replace("style)", f"style, float[{2 * IN}] fc_b)"), f"{GEMM} {SNAKE} {OUTPUT}"),  # overridable
    ],
)
def test_another_pattern_gets_no_table_and_is_quantized_all_the_same(signature: str, body: str) -> None:
    model = snake(body, signature)
    inputs = feed(10)
    if signature is SHIFTED:
        inputs |= {"k": normal(6, IN), "d": normal(7, IN)}
    convs = calibrated(model, *[inputs] * CALIBRATION_RUNS)
    before = run(model, inputs)
    quantize(model, INT8, convs)
    assert not has_table(model)
    for was, now in zip(before, run(model, inputs), strict=True):
        assert snr_db(now, was) > EIGHT_BITS_DB


def test_zero_levels_mean_no_table() -> None:
    assert not has_table(both(snake())[1])


def test_convs_behind_tables_of_their_own_share_what_they_can() -> None:
    """Two snakes in a row, as in a residual block."""
    second = (
        "t = Add(y0, x) g2 = Gemm<transB=1>(style, fc2_w, fc2_b) f2 = Reshape(g2, flat) "
        "k2, d2 = Split<axis=0>(f2, halves) u2 = InstanceNormalization(t, k2, d2) s2 = Sin(u2) q2 = Mul(s2, s2) "
        "v2 = Add(u2, q2) y = Conv<pads=[1,1]>(v2, w2, b)"
    )
    model = snake(
        f"{GEMM} {SNAKE} y0 = Conv<pads=[2,2]>(v, w) {second}",
        w=normal(0, IN, IN, 5) / 9,
        w2=normal(3, OUT, IN, 3) / 7,
        fc2_w=normal(8, 2 * IN, STYLE) / 3,
        fc2_b=normal(9, 2 * IN) + 1,
    )
    convs = calibrated(model, *CALIBRATION)
    exact = run(model, feed(99))[0]
    quantize(model, Recipe(rules=(Rule(pattern="w*", scheme=StaticConv()),)), convs)
    assert ops(model)["GatherElements"] == len(convs) == 2
    assert sum(str(n).startswith("table/") for n in model.graph.initializers) == 3  # grid, first and last index
    assert snr_db(run(model, feed(99))[0], exact) > EIGHT_BITS_DB - 6  # two convolutions in a row


def test_invert_snake_inverts() -> None:
    u = np.linspace(-50, 50, 100_001)
    v = u + np.sin(u) ** 2
    again = invert_snake(v)
    # Where sin(2u) is -1 the slope is 0, and a whole neighbourhood of u has one v in float64.
    np.testing.assert_allclose(again + np.sin(again) ** 2, v, rtol=0, atol=1e-12)
    steep = 1 + np.sin(2 * u) > 0.01
    np.testing.assert_allclose(again[steep], u[steep], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_invert_snake_takes_float32_and_large_values(dtype: type) -> None:
    v = np.array([-1e6, -1.0, 0.0, 1e-8, 1.0, 1e6], dtype)
    u = invert_snake(v)
    np.testing.assert_allclose(u + np.sin(u) ** 2, v, rtol=1e-7, atol=1e-12)
