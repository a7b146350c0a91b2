"""int8 convolutions from calibration.

Scales per channel cost nothing here, on either side: the QuantizeLinear ahead of a Conv and the
DequantizeLinear behind it run over floats anyway, so they carry a scale per channel, while the Conv between
them sees one scale. Input scales are inverted into the weights (SmoothQuant, Xiao et al. 2022,
arXiv:2211.10438), output scales and zero points into the weights' scales and the bias.

A snake activation ahead of the Conv (u + sin(u)^2, u from an InstanceNormalization) only ever produces the
Conv's 256 levels, so it becomes a table per channel, read by index: onnxruntime's Sin runs on one thread,
and takes longer than the convolution.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jtts_export.surgery import add_constant, insert, only_user, own_linear, producer, replace, set_constant

from .weights import Weight

LEVELS = 255
CLIP_FACTORS = np.linspace(1.0, 0.4, 13)
WEIGHT_CLIP_FACTORS = np.linspace(1.0, 0.7, 7)
BALANCES = np.linspace(0.2, 1.0, 9)
BIAS_LIMIT = 2**30  # leaves as much of an int32 accumulator to the products
LEAD_ZEROS = (24, 48, 72, 96, 128)
TABLE_MARGIN = 0.02  # of the range: table ends beyond which the quantized output no longer changes


@dataclass(frozen=True)
class Ranges:
    """What calibration finds for a convolution; with its weights it gives Parameters, the same on every machine.

    Real input = (q - zero) * scale; weights times `scale` are whole numbers of `step`; rounding them adds `shift` to
    the output; real output = (q - out_zero) * out_scale.
    """

    scale: np.ndarray  # f32 [in]
    zero: int
    step: np.ndarray  # f32 [out]
    shift: np.ndarray  # f32 [out]
    out_scale: np.ndarray  # f32 [out]
    out_zero: np.ndarray  # u8 [out]
    common: Steps  # of the output, where all channels share one
    lead: Steps | None = None  # of what a leaky ReLU ahead takes, in units of `scale`


@dataclass(frozen=True)
class Parameters:
    """A convolution in integers. Real input = (q - zero) * scale; real output = (q - out_zero) * out_scale."""

    scale: np.ndarray  # f32 [in]
    zero: int
    weight: np.ndarray  # s8 [out, in, *taps]
    weight_scale: np.ndarray  # f32 [out]
    bias: np.ndarray  # s32 [out], in units of weight_scale
    out_scale: np.ndarray  # f32 [out]
    out_zero: np.ndarray  # u8 [out]
    common: Steps  # of the output, where all channels share one
    lead: Steps | None = None  # of what a leaky ReLU ahead takes, in units of `scale`

    def evenly(self) -> Parameters:
        """With the common steps for every output channel."""
        return self._stepping(np.full(len(self.out_scale), self.common.gain), self.common.zero)

    def leading_to(self, follower: Parameters) -> Parameters:
        """With the output in the steps of the leaky ReLU ahead of `follower`."""
        assert follower.lead is not None
        return self._stepping(follower.lead.gain * follower.scale, follower.lead.zero)

    def _stepping(self, out_scale: np.ndarray, zero: int) -> Parameters:
        out_scale = out_scale.astype(np.float32)
        ratio = self.out_scale / out_scale
        offset = (self.bias * self.weight_scale.astype(np.float64) - self.out_zero) * ratio + zero
        # Where weights are silent in these steps, the zero point is a bias that sets the scale, as in fit().
        weight_scale = np.maximum(self.weight_scale * ratio, np.abs(offset) / BIAS_LIMIT).astype(np.float32)
        return dataclasses.replace(
            self,
            weight_scale=weight_scale,
            bias=_whole(offset / weight_scale),
            out_scale=out_scale,
            out_zero=np.full(len(out_scale), zero, np.uint8),
        )


@dataclass(frozen=True)
class Steps:
    """u8 levels that all channels share: real = (q - zero) * gain."""

    gain: float
    zero: int


def fit_lead(p: Parameters, inputs: np.ndarray, slope: float) -> Steps:
    """The best leaky ReLU from u8 to u8 ahead of `p`. inputs: f32 [in, samples], what the ReLU takes.

    What is negative reaches the convolution `slope` times smaller: it needs few of the levels.
    """
    steps = inputs / p.scale[:, None]
    wanted = np.where(steps > 0, steps, slope * steps)
    weight = (p.weight.reshape(*p.weight.shape[:2], -1).astype(np.float32) ** 2).sum((0, 2))[:, None]

    def error(lead: Steps) -> float:
        q = np.clip(np.round(steps / lead.gain), -lead.zero, LEVELS - lead.zero) * lead.gain
        made = np.clip(np.round(np.where(q > 0, q, slope * q)), -p.zero, LEVELS - p.zero)
        return float((weight * (made - wanted) ** 2).sum())

    tops = (LEVELS - p.zero) * CLIP_FACTORS[:6]
    candidates = (Steps(float(np.float32(top / (LEVELS - z))), z) for z in LEAD_ZEROS for top in tops)
    return min(candidates, key=error)


def _whole(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), -(2**31) + 1, 2**31 - 1).astype(np.int32)


def fit(weight: np.ndarray, inputs: np.ndarray, outputs: np.ndarray, bias: np.ndarray | None = None) -> Ranges:
    """Choose every scale by mean squared error over calibration samples.

    weight: f32 [out, in, *taps]; bias: f32 [out]; inputs: f32 [in, samples]; outputs: f32 [out, samples].
    """
    weight = weight.reshape(*weight.shape[:2], -1)
    zero = _common_zero(inputs)
    ideal = _input_scales(inputs, zero)
    spread = outputs.std(axis=1)
    importance = 1 / np.where(spread > 0, spread, np.inf) ** 2
    power = (inputs**2).mean(axis=1)
    scale = min(
        (_balanced(ideal, weight, alpha) for alpha in BALANCES),
        key=lambda s: _expected_error(s, ideal, weight, importance, power),
    )
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    out_scale, out_zero = _output_scales(outputs)
    (gain,), (middle,) = _output_scales(outputs.reshape(1, -1))
    # Where weights are tiny beside the bias (a channel that training has silenced), the bias sets the step.
    beside = LEVELS * out_scale if bias is None else np.abs(bias) + LEVELS * out_scale
    step = _weight_steps(weight * scale[None, :, None], power / scale**2)
    step = np.maximum(step, beside / BIAS_LIMIT).astype(np.float32)
    # Rounding shifts each output by a constant, wherever the input's mean is not zero: take it out again.
    rounded = _integers(weight, scale, step) * step[:, None, None] / scale[None, :, None]
    shift = np.einsum("oik,i->o", rounded - weight, inputs.mean(1)).astype(np.float32)
    return Ranges(scale, zero, step, shift, out_scale, out_zero, Steps(float(gain), int(middle)))


def integers(weight: np.ndarray, ranges: Ranges, bias: np.ndarray | None = None) -> Parameters:
    """The convolution in integers, of the weight and bias that `ranges` were fitted for. No sums, and so no rounding
    that depends on their order."""
    whole = _integers(weight.reshape(*weight.shape[:2], -1), ranges.scale, ranges.step)
    out_scale = ranges.out_scale.astype(np.float64)
    weight_scale = (ranges.step / out_scale).astype(np.float32)
    constant = (0 if bias is None else bias.astype(np.float64)) - ranges.shift.astype(np.float64)
    return Parameters(
        scale=ranges.scale,
        zero=ranges.zero,
        weight=whole.astype(np.int8).reshape(weight.shape),
        weight_scale=weight_scale,
        bias=_whole((constant / out_scale + ranges.out_zero) / weight_scale.astype(np.float64)),
        out_scale=ranges.out_scale,
        out_zero=ranges.out_zero,
        common=ranges.common,
        lead=ranges.lead,
    )


def _integers(weight: np.ndarray, scale: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Weights [out, in, taps] times scales of inputs, in steps of outputs: float64 whole numbers."""
    scaled = weight.astype(np.float64) * scale.astype(np.float64)[None, :, None]
    return np.clip(np.rint(scaled / step.astype(np.float64)[:, None, None]), -127, 127)


def _common_zero(inputs: np.ndarray) -> int:
    """One zero point for all channels, from how lopsided they are on average. Zero stays exact: it pads."""
    low, high = np.quantile(inputs, [0.001, 0.999], axis=1)
    width = np.maximum(high - low, 1e-12)
    share = float(np.mean(np.clip(-low / width, 0, 1)))
    return int(np.clip(round(LEVELS * share), 0, LEVELS - 16))


def _input_scales(inputs: np.ndarray, zero: int) -> np.ndarray:
    """Per channel, the step with the least squared error over rounding and clipping."""
    reach = inputs.max(axis=1) / (LEVELS - zero)
    if zero:
        reach = np.maximum(reach, -inputs.min(axis=1) / zero)
    reach = np.where(reach > 0, reach, 1e-8)
    return _least_error(
        reach, lambda s: np.clip(np.round(inputs / s[:, None]), -zero, LEVELS - zero) * s[:, None] - inputs
    )


def _least_error(reach: np.ndarray, error_at: object) -> np.ndarray:
    best, best_error = reach, np.full(len(reach), np.inf)
    for factor in CLIP_FACTORS:
        error = (error_at(reach * factor) ** 2).mean(axis=1)  # type: ignore[operator]
        best = np.where(error < best_error, reach * factor, best)
        best_error = np.minimum(error, best_error)
    return best


def _balanced(ideal: np.ndarray, weight: np.ndarray, alpha: float) -> np.ndarray:
    """Between scales that suit the activations (alpha 1) and scales that level the weights (alpha 0)."""
    reach = np.maximum(np.abs(weight).max(axis=(0, 2)), 1e-8)
    scale = ideal**alpha * reach ** (alpha - 1)
    return scale * np.max(ideal / scale)


def _expected_error(
    scale: np.ndarray, ideal: np.ndarray, weight: np.ndarray, importance: np.ndarray, power: np.ndarray
) -> float:
    """Rounding noise at the output, from activations and weights, each output relative to its own spread."""
    activations = (scale**2) @ np.einsum("oik,o->i", weight**2, importance)
    steps = np.abs(weight * scale[None, :, None]).max(axis=(1, 2)) / 127
    weights = (steps**2) @ importance * weight.shape[2] * (power / scale**2).sum()
    return float(activations + weights)


def _weight_steps(scaled: np.ndarray, power: np.ndarray) -> np.ndarray:
    reach = np.maximum(np.abs(scaled).max(axis=(1, 2)), 1e-12) / 127
    best, best_error = reach, np.full(len(reach), np.inf)
    for factor in WEIGHT_CLIP_FACTORS:
        step = (reach * factor)[:, None, None]
        rounded = np.clip(np.round(scaled / step), -127, 127) * step
        error = np.einsum("oik,i->o", (rounded - scaled) ** 2, power)
        best = np.where(error < best_error, reach * factor, best)
        best_error = np.minimum(error, best_error)
    return best


def _output_scales(outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per channel, step and zero point around the channel's own middle."""
    low, high = outputs.min(axis=1), outputs.max(axis=1)
    middle = (low + high) / 2
    reach = np.maximum((high - low) / LEVELS, 1e-8)

    def error_at(step: np.ndarray) -> np.ndarray:
        zero = np.round(LEVELS / 2 - middle / step)[:, None]
        q = np.clip(np.round(outputs / step[:, None] + zero), 0, LEVELS)
        return (q - zero) * step[:, None] - outputs

    step = _least_error(reach, error_at)
    # A DequantizeLinear's zero point is a u8: a channel far off zero needs steps large enough to reach it.
    step = np.maximum(step, np.maximum(high, -low) / LEVELS).astype(np.float32)
    return step, np.clip(np.round(LEVELS / 2 - middle / step), 0, LEVELS).astype(np.uint8)


def apply(
    model: ir.Model,
    name: str,
    weight: Weight,
    p: Parameters,
    table_levels: int,
    led: bool,
    behind: bool,
    out: Steps | None,
) -> None:
    """Rewrite the weight's Conv: quantized input (through a table after a snake), Conv in Q/DQ, float output.

    led: the leaky ReLU ahead of the Conv takes and gives u8, so that onnxruntime makes a table of it; behind: one
    leads from another such Conv, but stays in float (between Q/DQ with a scale per channel, onnxruntime would make
    a table of it all the same, and refuse the graph); out: the steps of the output, where all channels share them.
    """
    graph, conv = model.graph, weight.node
    base = conv.name or name

    def const(suffix: str, array: np.ndarray | np.generic) -> ir.Value:
        return add_constant(graph, f"{base}/{suffix}", array)

    one, zero = const("one", np.float32(1)), const("zero", np.uint8(p.zero))
    norm = _snake_norm(conv) if table_levels else None
    if led:
        quantized = insert(conv, "QuantizeLinear", [conv.inputs[0], one, zero], f"{base}/quantize")
    elif norm is not None:
        quantized = _tabulate(conv, norm, p, table_levels)
    elif behind:
        inverse = (1 / p.scale).reshape(-1, *[1] * (p.weight.ndim - 2))
        scaled = insert(conv, "Mul", [conv.inputs[0], const("in_gain", inverse)], f"{base}/scaled")
        quantized = insert(conv, "QuantizeLinear", [scaled, one, zero], f"{base}/quantize")
    else:
        zeros = const("in_zero", np.full(len(p.scale), p.zero, np.uint8))
        scales = const("in_scale", p.scale)
        quantized = insert(conv, "QuantizeLinear", [conv.inputs[0], scales, zeros], f"{base}/quantize", axis=1)
    x = insert(conv, "DequantizeLinear", [quantized, one, zero], f"{base}/x")
    weight_scale = const("w_scale", p.weight_scale)
    w = insert(conv, "DequantizeLinear", [const("w_int8", p.weight), weight_scale], f"{base}/w", axis=0)
    b = insert(conv, "DequantizeLinear", [const("b_int32", p.bias), weight_scale], f"{base}/b", axis=0)
    attributes = {k: v.value for k, v in conv.attributes.items()}
    y = insert(conv, "Conv", [x, w, b], f"{base}/int8", **attributes)
    q = insert(conv, "QuantizeLinear", [y, one, const("q_zero", np.uint8(0))], f"{base}/q")
    if out:
        gain, middle = const("out_gain", np.float32(out.gain)), const("out_zero", np.uint8(out.zero))
        real = insert(conv, "DequantizeLinear", [q, gain, middle], f"{base}/dequantize")
    else:
        scales, zeros = const("out_scale", p.out_scale), const("out_zero", p.out_zero)
        real = insert(conv, "DequantizeLinear", [q, scales, zeros], f"{base}/dequantize", axis=1)
    replace(conv.outputs[0], real)


def leader(conv: ir.Node) -> ir.Node | None:
    """What a leaky ReLU ahead of this Conv takes its input from."""
    relu = producer(conv.inputs[0], "LeakyRelu")
    return relu.inputs[0].producer() if relu is not None and relu.inputs[0] is not None else None


def follower(conv: ir.Node) -> ir.Node | None:
    """The Conv that takes this one's output through a leaky ReLU, and nothing else does."""
    relu = only_user(conv.outputs[0])
    if relu is None or relu.op_type != "LeakyRelu":
        return None
    user = only_user(relu.outputs[0])
    return user if user is not None and user.op_type == "Conv" and user.inputs[0] is relu.outputs[0] else None


def _snake_norm(conv: ir.Node) -> ir.Node | None:
    """The InstanceNormalization of Conv(u + sin(u)^2), u its output, scaled through a foldable Gemm."""
    add = producer(conv.inputs[0], "Add")
    norm = producer(add.inputs[0], "InstanceNormalization") if add is not None else None
    square = producer(add.inputs[1], "Mul") if add is not None else None
    if norm is None or square is None or square.inputs[0] is not square.inputs[1]:
        return None
    sine = producer(square.inputs[0], "Sin")
    if sine is None or sine.inputs[0] is not norm.outputs[0]:
        return None
    # The norm's output becomes an index: nothing else may read it, or what is computed from it.
    if only_user(add.outputs[0]) is not conv or only_user(square.outputs[0]) is not add:  # type: ignore[union-attr]
        return None
    if any(len(v.uses()) != 2 or v.is_graph_output() for v in (norm.outputs[0], sine.outputs[0])):
        return None
    return norm if _style_gemm(norm) is not None else None


def _style_gemm(norm: ir.Node) -> ir.Node | None:
    """The Gemm whose two halves are, and are only, this norm's scale and bias."""
    split = producer(norm.inputs[1], "Split")
    if split is None or producer(norm.inputs[2], "Split") is not split:
        return None
    if [only_user(v) for v in split.outputs] != [norm, norm] or norm.inputs[1] is not split.outputs[0]:
        return None
    reshape = producer(split.inputs[0], "Reshape")
    gemm = producer(reshape.inputs[0], "Gemm") if reshape is not None else None
    if gemm is None or only_user(gemm.outputs[0]) is not reshape or only_user(split.inputs[0]) is not split:  # type: ignore[arg-type]
        return None
    return gemm if own_linear(gemm) is not None else None


def _tabulate(conv: ir.Node, norm: ir.Node, p: Parameters, levels: int) -> ir.Value:
    """Rescale the norm so that its output is a table index; look the quantized snake up there.

    The table is computed in the graph from two numbers a channel, and folded by onnxruntime at load.
    """
    graph, base = conv.graph, conv.name
    assert graph is not None
    gemm = _style_gemm(norm)
    assert gemm is not None
    linear = own_linear(gemm)
    assert linear is not None
    low = invert_snake(-(p.zero + TABLE_MARGIN * LEVELS) * p.scale)
    high = invert_snake((LEVELS - p.zero + TABLE_MARGIN * LEVELS) * p.scale)
    step = ((high - low) / (levels - 1)).astype(np.float32)
    low = low.astype(np.float32)

    both = np.concatenate([step, step])
    shift = np.concatenate([np.zeros_like(low), low / step - 0.5])  # a Cast truncates: + 0.5 rounds
    set_constant(gemm.inputs[1], linear[0] / both[:, None])  # type: ignore[arg-type]
    set_constant(gemm.inputs[2], linear[1] / both - shift)  # type: ignore[arg-type]

    def shared(name: str, array: np.ndarray | np.generic) -> ir.Value:
        return graph.initializers.get(name) or add_constant(graph, name, array)

    line = np.stack([np.ones(levels, np.float32), np.arange(levels, dtype=np.float32)])
    grid = shared(f"table/{levels}", line[None])
    ends = add_constant(graph, f"{base}/table_line", np.stack([low, step], axis=1)[None])
    u = insert(conv, "MatMul", [ends, grid], f"{base}/table/u")
    sine = insert(conv, "Sin", [u], f"{base}/table/sin")
    square = insert(conv, "Mul", [sine, sine], f"{base}/table/square")
    v = insert(conv, "Add", [u, square], f"{base}/table/v")
    scales = add_constant(graph, f"{base}/in_scale", p.scale)
    zeros = add_constant(graph, f"{base}/in_zero", np.full(len(p.scale), p.zero, np.uint8))
    table = insert(conv, "QuantizeLinear", [v, scales, zeros], f"{base}/table", axis=1)

    first, last = shared("table/first", np.float32(0)), shared(f"table/{levels}/last", np.float32(levels - 1))
    inside = insert(conv, "Clip", [norm.outputs[0], first, last], f"{base}/clip")
    index = insert(conv, "Cast", [inside], f"{base}/index", to=ir.DataType.INT32)
    return insert(conv, "GatherElements", [table, index], f"{base}/lookup", axis=2)


def invert_snake(v: np.ndarray) -> np.ndarray:
    """u with u + sin(u)^2 = v, by bisection: the left side never decreases, and exceeds u by 0 to 1."""
    low, high = v - 1.0, v.astype(np.float64)
    for _ in range(60):
        middle = (low + high) / 2
        below = middle + np.sin(middle) ** 2 < v
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
