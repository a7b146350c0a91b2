"""int8 convolutions: how near they come to what 8 bits allow, and how onnxruntime runs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, normal, ops, ops_at_run_time, run

from jtts_export.exporters.onnx import save
from jtts_export.quantize import static_conv
from jtts_export.quantize.apply import fit_convs, integers, quantize
from jtts_export.quantize.calibrate import sample
from jtts_export.quantize.schemes import Recipe, Rule, StaticConv, StoredFp16, StoredInt
from jtts_export.quantize.static_conv import LEAD_ZEROS, LEVELS, Parameters, Steps, fit, fit_lead, invert_snake
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
    return integers(model, fit_convs(model, sample(model, weights, feeds)))


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
    weight = np.zeros((OUT, IN, 3))
    p = static_conv.integers(weight, fit(weight, np.zeros((IN, 50)), np.zeros((OUT, 50))))
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


# Two dimensions: a vocoder's convolutions over [1, channels, 1, time]

FLAT = "<pads=[0,1,0,1]>"


def flat(attributes: str = FLAT, rows: int = 1, **constants: np.ndarray) -> ir.Model:
    text = f"(float[1,{IN},{rows},N] x) => (float[1,{OUT},K,M] y) {{ y = Conv{attributes}(x, w, b) }}"
    return graph(text, {"w": normal(0, OUT, IN, 1, 3) / 7, "b": normal(1, OUT)} | constants)


@pytest.mark.parametrize(
    "attributes", ["", FLAT, "<dilations=[1,5], pads=[0,5,0,5]>", "<strides=[1,2], pads=[0,2,0,1]>"]
)
def test_a_convolution_over_one_row_is_that_over_a_line(attributes: str, tmp_path: Path) -> None:
    """The same integers, but for the last bits of fp32 sums that calibration sees."""
    line = attributes.replace("[0,1,0,1]", "[1,1]").replace("[1,5]", "[5]").replace("[0,5,0,5]", "[5,5]")
    line = line.replace("[1,2]", "[2]").replace("[0,2,0,1]", "[2,1]")
    x, unseen = normal(2, 1, IN, TIME), normal(3, 1, IN, TIME)
    wide, plain = quantized(flat(attributes), x[:, :, None]), quantized(conv(line), x)
    save(wide, tmp_path / "wide.onnx")  # checks it
    y, expected = run(wide, {"x": unseen[:, :, None]})[0][:, :, 0], run(plain, {"x": unseen})[0]
    assert np.mean(np.abs(y - expected) > 1e-5) < 0.01
    assert snr_db(y, expected) > EIGHT_BITS_DB + 15
    left = ops_at_run_time(wide, tmp_path)
    assert (left["QLinearConv"], left["Conv"]) == (1, 0)


def test_a_convolution_over_many_rows_is_calibrated_on_all_of_them(tmp_path: Path) -> None:
    model = flat("<pads=[1,1,1,1]>", rows=7, w=normal(0, OUT, IN, 3, 3) / 12)
    loud_below = np.array([1, 1, 1, 2, 3, 4, 5], np.float32)[:, None]
    int8 = quantized(model, normal(2, 1, IN, 7, TIME // 7) * loud_below)
    unseen = {"x": normal(3, 1, IN, 7, TIME // 7) * loud_below}
    exact, measured = (run(m, unseen)[0] for m in (model, int8))
    for row in range(7):  # the scale suits the loudest: 14 dB less for the quietest
        assert snr_db(measured[:, :, row], exact[:, :, row]) > EIGHT_BITS_DB - 14
    assert snr_db(measured, exact) > EIGHT_BITS_DB - 2


# One scale for all outputs

EVEN = Recipe(rules=(Rule(pattern="w", scheme=StaticConv(channels=False)),))


def evenly_quantized(model: ir.Model, x: np.ndarray) -> ir.Model:
    copy = model.clone()
    quantize(copy, EVEN, fitted(model, x))
    return copy


def real_outputs(p: Parameters, products: np.ndarray) -> np.ndarray:
    """What a convolution in integers stands for, before it is rounded to a u8. products: [out, samples]."""
    q = (products + p.bias[:, None].astype(np.float64)) * p.weight_scale[:, None]
    return (q - p.out_zero[:, None]) * p.out_scale[:, None].astype(np.float64)


def half_a_bias(p: Parameters) -> np.ndarray:
    """[out, 1]: what rounding the bias may shift, and scales that are float32."""
    return (0.51 * p.weight_scale * p.out_scale + 1e-5 * p.out_scale)[:, None]


def test_other_steps_of_the_output_keep_the_function() -> None:
    """Scales, zero point and bias change together: every product means what it meant."""
    gains = np.geomspace(0.01, 10, OUT).astype(np.float32)
    model = conv(w=normal(0, OUT, IN, 3) / 7 * gains[:, None, None], b=5 * normal(1, OUT) * gains)
    p = fitted(model, normal(2, 1, IN, TIME))["w"]
    rng = np.random.default_rng(0)
    inputs = rng.integers(-p.zero, LEVELS - p.zero, (3 * IN, 100))
    products = p.weight.astype(np.int64).transpose(0, 2, 1).reshape(OUT, -1) @ inputs
    exact = real_outputs(p, products)

    even = p.evenly()
    assert np.unique(even.out_scale).size == np.unique(even.out_zero).size == 1
    assert (np.abs(real_outputs(even, products) - exact) <= half_a_bias(even) + half_a_bias(p)).all()

    steps = np.geomspace(0.02, 5, OUT).astype(np.float32)
    follower = replace(p, scale=steps, lead=Steps(gain=0.7, zero=48))
    leading = p.leading_to(follower)
    np.testing.assert_allclose(leading.out_scale, 0.7 * steps, rtol=1e-6)
    assert set(leading.out_zero) == {48}
    assert (np.abs(real_outputs(leading, products) - exact) <= half_a_bias(leading) + half_a_bias(p)).all()
    for other in (even, leading):  # and the convolution itself is the same
        assert other.weight is p.weight
        assert (other.scale is p.scale, other.zero) == (True, p.zero)


def test_the_steps_all_channels_share_hold_all_of_them() -> None:
    gains = np.geomspace(0.1, 10, OUT).astype(np.float32)
    model, x = conv(w=normal(0, OUT, IN, 3) / 7 * gains[:, None, None], b=10 * gains), normal(2, 1, IN, TIME)
    common = fitted(model, x)["w"].common
    y = run(model, {"x": x})[0]
    held = (np.clip(np.round(y / common.gain + common.zero), 0, LEVELS) - common.zero) * common.gain
    # Seen whole, 24 channels of which the loudest make nearly all: fewer levels for them than on their own.
    assert snr_db(held, y) > EIGHT_BITS_DB
    assert common.gain == pytest.approx((y.max() - y.min()) / LEVELS, rel=0.5)


def test_one_scale_is_as_near_where_channels_are_alike(tmp_path: Path) -> None:
    model = conv(b=np.zeros(OUT, np.float32))
    int8 = evenly_quantized(model, normal(2, 1, IN, TIME))
    save(int8, tmp_path / "int8.onnx")
    unseen = {"x": normal(3, 1, IN, TIME)}
    assert_near(run(int8, unseen)[0], run(model, unseen)[0])
    (last,) = (n for n in int8.graph if n.outputs[0].name == "y")
    assert (last.op_type, last.inputs[1].const_value.shape) == ("DequantizeLinear", ir.Shape([]))
    assert ops_at_run_time(int8, tmp_path)["QLinearConv"] == 1


def test_one_scale_costs_quiet_channels_theirs() -> None:
    """What `channels` is for, and that it does what it says."""
    gains = np.geomspace(1, 1000, OUT).astype(np.float32)
    model = conv(w=normal(0, OUT, IN, 3) / 7 * gains[:, None, None], b=np.zeros(OUT, np.float32))
    x, unseen = normal(2, 1, IN, TIME), {"x": normal(3, 1, IN, TIME)}
    exact = run(model, unseen)[0]
    each, even = (run(m, unseen)[0] for m in (quantized(model, x), evenly_quantized(model, x)))
    assert snr_db(even[:, -1], exact[:, -1]) > EIGHT_BITS_DB
    assert snr_db(even[:, 0], exact[:, 0]) < 10 < EIGHT_BITS_DB < snr_db(each[:, 0], exact[:, 0])


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_a_silent_output_stays_silent_among_loud_ones(bias: float) -> None:
    """Its weights are zeros, or nearly: in the steps of the others, a zero point is a large bias for them."""
    weight, biases = 100 * normal(0, OUT, IN, 3), 100 * normal(1, OUT)
    weight[5], weight[6] = 0, 1e-9 * normal(7, IN, 3)
    biases[[5, 6]] = bias
    model, x = conv(w=weight, b=biases), normal(2, 1, IN, TIME)
    p = fitted(model, x)["w"]
    exact, measured = run(model, {"x": x})[0], run(evenly_quantized(model, x), {"x": x})[0]
    assert np.abs(measured - exact)[:, [5, 6]].max() <= p.common.gain
    others = [i for i in range(OUT) if i not in (5, 6)]
    assert snr_db(measured[:, others], exact[:, others]) > EIGHT_BITS_DB


# Leaky ReLUs between two convolutions

SLOPE = 0.1
RELU = f"r = LeakyRelu<alpha={SLOPE}>(h)"
BOTH = Recipe(rules=(Rule(pattern="w*", scheme=StaticConv(table_levels=0)),))
CHAIN_DB = EIGHT_BITS_DB - 6  # two convolutions, and the levels between them twice


def chain(body: str = "", outputs: str = "", **constants: np.ndarray) -> ir.Model:
    """Conv, leaky ReLU, Conv, as a residual block of HiFi-GAN has them."""
    body = body or f"h = Conv{FLAT}(x, w, b) {RELU} y = Conv{FLAT}(r, w2, b2)"
    known = {
        **{"w": normal(0, OUT, IN, 1, 3) / 7, "b": normal(1, OUT) / 2},
        **{"w2": normal(8, OUT, OUT, 1, 3) / 6, "b2": normal(9, OUT)},
        **{"w3": normal(10, OUT, OUT, 1, 3) / 6, "b3": normal(11, OUT)},
        **constants,
    }
    used = {n: a for n, a in known.items() if f" {n}," in body or f" {n})" in body}
    return graph(f"(float[1,{IN},1,N] x) => (float[1,{OUT},1,M] y{outputs}) {{ {body} }}", used)


def line(seed: int) -> np.ndarray:
    return normal(seed, 1, IN, 1, TIME)


def parameters(model: ir.Model, *names: str) -> dict[str, Parameters]:
    weights = {n: w for n, w in find_weights(model).items() if n in names}
    return integers(
        model, fit_convs(model, sample(model, weights, [{"x": line(20 + n)} for n in range(CALIBRATION_RUNS)]))
    )


def test_a_leaky_relu_between_two_convolutions_becomes_a_table(tmp_path: Path) -> None:
    model = chain()
    int8 = model.clone()
    assert set(quantize(int8, BOTH, parameters(model, "w", "w2")).values()) == {"static-conv"}
    save(int8, tmp_path / "int8.onnx")
    left = ops_at_run_time(int8, tmp_path)
    del left["Transpose"]
    # Nothing is a float between the first QuantizeLinear and the last DequantizeLinear.
    assert left == {"QuantizeLinear": 1, "QLinearConv": 2, "QLinearLeakyRelu": 1, "DequantizeLinear": 1}
    exact, measured = (run(m, {"x": line(99)})[0][:, :, 0] for m in (model, int8))
    each = [snr_db(m - e.mean(), e - e.mean()) for m, e in zip(measured[0], exact[0], strict=True)]
    assert np.median(each) > CHAIN_DB


def test_a_chain_of_three_is_integers_throughout(tmp_path: Path) -> None:
    again = f"k = Conv{FLAT}(r, w2, b2) s = LeakyRelu<alpha=0.3>(k) y = Conv{FLAT}(s, w3, b3)"
    model = chain(f"h = Conv{FLAT}(x, w, b) {RELU} {again}")
    int8 = model.clone()
    quantize(int8, BOTH, parameters(model, "w", "w2", "w3"))
    left = ops_at_run_time(int8, tmp_path)
    del left["Transpose"]
    assert left == {"QuantizeLinear": 1, "QLinearConv": 3, "QLinearLeakyRelu": 2, "DequantizeLinear": 1}
    exact, measured = (run(m, {"x": line(99)})[0] for m in (model, int8))
    assert snr_db(measured, exact) > CHAIN_DB


@pytest.mark.parametrize("slope", ["", "<alpha=0.1>", "<alpha=0.5>"])
def test_the_table_has_the_slope_of_the_relu(slope: str) -> None:
    """Half of the channels are nearly always negative: they go through at the slope, or are lost."""
    model = chain(
        f"h = Conv{FLAT}(x, w, b) r = LeakyRelu{slope}(h) y = Conv{FLAT}(r, w2, b2)",
        b=np.float32([-4, 4] * (OUT // 2)),
    )
    int8 = model.clone()
    quantize(int8, BOTH, parameters(model, "w", "w2"))
    exact, measured = (run(m, {"x": line(99)})[0] for m in (model, int8))
    assert snr_db(measured, exact) > CHAIN_DB


def test_channels_a_thousandfold_apart_between_the_two_all_count() -> None:
    """The follower's steps are the channels' own, so that one scale of levels fits all of them."""
    gains = np.geomspace(1, 1000, OUT).astype(np.float32)[:, None, None, None]
    weights = {"w": normal(0, OUT, IN, 1, 3) / 7 * gains, "b": normal(1, OUT) * gains.reshape(-1)}
    model = chain(**weights, w2=normal(8, OUT, OUT, 1, 3) / 6 / gains.reshape(1, -1, 1, 1))
    int8 = model.clone()
    quantize(int8, BOTH, parameters(model, "w", "w2"))
    exact, measured = (run(m, {"x": line(99)})[0] for m in (model, int8))
    assert snr_db(measured, exact) > CHAIN_DB


def test_the_steps_of_a_lead_are_in_units_of_the_channels_own() -> None:
    p = parameters(chain(), "w", "w2")["w2"]
    inputs = normal(30, OUT, 2000) + 0.5
    gains = np.float32(2) ** np.arange(-12, 12)
    louder = fit_lead(replace(p, scale=p.scale * gains), inputs * gains[:, None], SLOPE)
    assert louder == fit_lead(p, inputs, SLOPE)


def test_a_lead_spends_levels_on_what_is_negative_as_far_as_it_counts() -> None:
    p = parameters(chain(), "w", "w2")["w2"]
    inputs = normal(30, OUT, 2000)
    assert fit_lead(p, inputs, 0.001).zero < fit_lead(p, inputs, SLOPE).zero
    assert fit_lead(p, np.abs(inputs), SLOPE).zero == min(LEAD_ZEROS)


@pytest.mark.parametrize("channels", [True, False])
def test_one_scale_for_outputs_does_not_break_a_chain(channels: bool, tmp_path: Path) -> None:
    model = chain()
    convs = parameters(model, "w", "w2")
    recipe = Recipe(rules=(Rule(pattern="w*", scheme=StaticConv(table_levels=0, channels=channels)),))
    int8, both = model.clone(), model.clone()
    quantize(int8, recipe, convs)
    quantize(both, BOTH, convs)
    assert ops_at_run_time(int8, tmp_path)["QLinearLeakyRelu"] == 1
    exact = run(model, {"x": line(99)})[0]
    assert snr_db(run(int8, {"x": line(99)})[0], exact) > CHAIN_DB
    # Only the last convolution's output is in other steps.
    assert np.array_equal(run(int8, {"x": line(99)})[0], run(both, {"x": line(99)})[0]) == channels


APART = {
    "another user of the first": (f"{RELU} y1 = Conv{FLAT}(r, w2, b2) p = ReduceMean(h) y = Add(y1, p)", ""),
    "another user of the ReLU": (f"{RELU} y1 = Conv{FLAT}(r, w2, b2) p = ReduceMean(r) y = Add(y1, p)", ""),
    "an output between": (f"{RELU} y = Conv{FLAT}(r, w2, b2)", f", float[1,{OUT},1,N] h"),
    "an output behind the ReLU": (f"{RELU} y = Conv{FLAT}(r, w2, b2)", f", float[1,{OUT},1,N] r"),
    "another activation": (f"r = Elu(h) y = Conv{FLAT}(r, w2, b2)", ""),
    "no activation": (f"y = Conv{FLAT}(h, w2, b2)", ""),
    "no convolution behind": (f"{RELU} y = ConvTranspose{FLAT}(r, w2)", ""),
}


@pytest.mark.parametrize("kind", APART)
def test_what_is_read_elsewhere_or_is_no_chain_stays_in_float(kind: str, tmp_path: Path) -> None:
    tail, outputs = APART[kind]
    model = chain(f"h = Conv{FLAT}(x, w, b) {tail}", outputs)
    names = ("w",) if "Transpose" in tail else ("w", "w2")
    convs = parameters(model, *names)
    assert [convs[n].lead for n in names] == [None] * len(names)
    int8 = model.clone()
    quantize(int8, Recipe(rules=tuple(Rule(pattern=n, scheme=StaticConv(table_levels=0)) for n in names)), convs)
    left = ops_at_run_time(int8, tmp_path)
    assert (left["QLinearConv"], left["QLinearLeakyRelu"]) == (len(names), 0)
    for exact, measured in zip(run(model, {"x": line(99)}), run(int8, {"x": line(99)}), strict=True):
        assert snr_db(measured, exact) > CHAIN_DB


@pytest.mark.parametrize("static", ["w", "w2"])
def test_one_static_convolution_of_two_is_no_chain(static: str, tmp_path: Path) -> None:
    """The ladder may lift either one; both were calibrated."""
    model = chain()
    convs = parameters(model, "w", "w2")
    assert convs["w2"].lead is not None
    alone = model.clone()
    quantize(alone, Recipe(rules=(Rule(pattern=static, scheme=StaticConv()),)), convs)
    left = ops_at_run_time(alone, tmp_path)
    assert (left["QLinearConv"], left["Conv"] + left["FusedConv"], left["QLinearLeakyRelu"]) == (1, 1, 0)
    exact, measured = (run(m, {"x": line(99)})[0] for m in (model, alone))
    assert snr_db(measured, exact) > CHAIN_DB + 3


def test_a_silent_channel_between_two_convolutions_does_no_harm() -> None:
    weight, bias = 100 * normal(0, OUT, IN, 1, 3), 50 * normal(1, OUT)
    weight[[3, 4]], bias[[3, 4]] = 0, (0, 2)
    model = chain(w=weight, b=bias)
    int8 = model.clone()
    quantize(int8, BOTH, parameters(model, "w", "w2"))
    exact, measured = (run(m, {"x": line(99)})[0] for m in (model, int8))
    assert snr_db(measured, exact) > CHAIN_DB


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
