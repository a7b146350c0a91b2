"""How a variant holds its weights, read off its graph: their scheme and scales, and how far they lie from fp32's.

Rounding leaves every weight within half a step of what it was, clipping aside. A sign, a channel or a scale that is
wrong leaves one many steps away, whatever the activations are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from jtts_export.surgery import constant, only_user

UNKNOWN = 1e-30  # a scale that weights do not tell, for all of them are nothing in its steps
NEAR = 0.75  # steps: what lies within counts when a scale is recovered, for half a step is rounding
PIECE = 1 << 14
SILENT = 1e-5  # of the largest weight: what is smaller adds nothing that rounding of the output would leave
_WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "MatMul": (0, 1), "Gemm": (1,), "LSTM": (1, 2), "Gather": (0,)}

Nodes = Mapping[str, ir.Node]  # of the fp32 graph, by the name of their first output


@dataclass(frozen=True)
class Held:
    """A weight in the layout of fp32's, as integers * step, which go from `low` to `high`. Floats are integers, too,
    of the distance to the next float, and have no end."""

    scheme: str
    integers: np.ndarray
    step: np.ndarray
    low: float = -np.inf
    high: float = np.inf

    def deviation(self, exact: np.ndarray) -> Deviation:
        """From fp32's weight, clipping aside."""
        order: Literal["C", "F"] = "C" if self.integers.flags.c_contiguous else "F"
        exact = np.asarray(exact, order=order)  # which the transposed ones are worth a copy for
        wanted = exact / self.step
        np.clip(wanted, self.low, self.high, out=wanted)
        power = _product(wanted, wanted, order)
        gain = _product(self.integers, wanted, order) / power if power else 1.0
        wanted -= self.integers
        off = np.abs(wanted, out=wanted)
        if off.max() > 1:  # it matters where the weight does: the step of a silent channel may be its bias's
            reach = np.maximum(np.abs(exact), np.abs(self.integers * self.step))
            off[reach < SILENT * np.abs(exact).max()] = 0
        return Deviation(_finite(float(off.max())), _finite(abs(gain - 1)))


@dataclass(frozen=True)
class Deviation:
    """Of a weight from fp32's: the largest of an element, in steps of its rounding; and how far the level of the
    whole is off, |<held, exact> / <exact, exact> - 1|, both in steps. Infinite where something is not a number."""

    steps: float
    gain_error: float


@dataclass(frozen=True)
class Units:
    """What the values of a variant's tensor stand for, channel by channel: real = value * gain + offset."""

    gain: np.ndarray
    offset: np.ndarray


def exact_weights(node: ir.Node) -> dict[int, np.ndarray]:
    """Inputs of a node of an fp32 graph that are weights: float constants of two axes or more."""
    found = {}
    for index in _WEIGHTS.get(node.op_type, ()) if node.domain == "" else ():
        array = constant(node.inputs[index]) if index < len(node.inputs) else None
        if array is not None and array.dtype == np.float32 and array.ndim > 1:
            found[index] = array
    return found


def units_of(output: ir.Value, nodes: Nodes) -> Units | None:
    """Of a variant's tensor that keeps the name of fp32's but not its meaning, else None: what leads to an int8
    convolution through a leaky ReLU is in that convolution's steps, what leads to a table is its index."""
    if (table := _table_line(output)) is not None:
        low, step = np.moveaxis(table[0], -1, 0)
        # A Cast truncates: the norm's bias holds half a step more.
        return Units(np.concatenate([step, step]), np.concatenate([0 * low, low - step / 2]))
    if _led(output) is not None:
        gain = _steps_behind(output, nodes)
        return Units(gain, np.zeros_like(gain))
    return None


def held(node: ir.Node, output: ir.Value, nodes: Nodes) -> list[Held]:
    """Each of exact_weights(node), as the variant whose tensor `output` is holds it. Empty where none of the known
    ways is found there."""
    made = output.producer()
    if made is None:
        return []
    if made.op_type == node.op_type:
        found = [_stored(made.inputs[index]) for index in exact_weights(node)]
        return [f for f in found if f is not None] if None not in found else []
    if made.op_type == "MatMulNBits":
        return _blocked(made)
    if made.op_type == "DynamicQuantizeMatMul":
        integers, scale, zero = (_of(made.inputs[i]) for i in (1, 2, 3))
        return [Held("dynamic-matmul", integers - zero.astype(np.float32), scale, -127, 127)]
    conv = ahead(output, "DequantizeLinear", "QuantizeLinear", "Conv")
    return [_static(output, conv, nodes)] if conv is not None else []


def deviation(node: ir.Node, holding: list[Held], units: Units | None) -> Deviation:
    """Of a variant's weights from those of fp32's `node`; infinite where they are not held in any known way."""
    exact = list(exact_weights(node).values())
    if units is not None and node.op_type == "Gemm":
        exact = [weight / units.gain[:, None] for weight in exact]
    if [h.integers.shape for h in holding] != [weight.shape for weight in exact]:
        return Deviation(float("inf"), float("inf"))
    found = [h.deviation(weight) for h, weight in zip(holding, exact, strict=True)]
    return Deviation(max(d.steps for d in found), max(d.gain_error for d in found))


def _product(a: np.ndarray, b: np.ndarray, order: Literal["C", "F"]) -> float:
    """Sum of products, by pieces that float32 can add up; not by a BLAS whose threads would wait for each
    other."""
    a, b = a.ravel(order), b.ravel(order)
    return sum(float(np.einsum("i,i", a[i : i + PIECE], b[i : i + PIECE])) for i in range(0, a.size, PIECE))


def _finite(value: float) -> float:
    return value if np.isfinite(value) else float("inf")


def ahead(value: ir.Value | None, *ops: str) -> ir.Node | None:
    """The last of the nodes that make `value`, from it backwards along first inputs, if they are these."""
    node = None
    for op in ops:
        node = value.producer() if value is not None else None
        if node is None or node.op_type != op:
            return None
        value = node.inputs[0]
    return node


def _behind(value: ir.Value, *ops: str) -> ir.Node | None:
    """The last of the nodes that alone use `value`, and then first outputs, if they are these."""
    node = None
    for op in ops:
        node = only_user(value)
        if node is None or node.op_type != op:
            return None
        value = node.outputs[0]
    return node


def _of(value: ir.Value | None) -> np.ndarray:
    array = constant(value)
    return np.zeros(0, np.float32) if array is None else array


def _stored(value: ir.Value | None) -> Held | None:
    """A weight that is only stored otherwise: see quantize/weights.py."""
    array = constant(value)
    if array is not None:
        return _floats("float32", array, 24, -149)
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Cast":
        half = constant(node.inputs[0])
        return None if half is None or half.dtype != np.float16 else _floats("stored-fp16", half, 11, -24)
    if node is not None and node.op_type == "Mul" and (cast := ahead(node.inputs[0], "Cast")):
        return Held("stored-int8", _of(cast.inputs[0]), _of(node.inputs[1]), -128, 127)
    if node is not None and (shape := ahead(node.inputs[0], "Mul", "Cast", "Reshape")):
        pairs = ahead(shape.inputs[0], "Concat", "BitShift")
        scale = _of(node.inputs[0].producer().inputs[1])  # type: ignore[union-attr]
        if pairs is not None:
            both = _of(pairs.inputs[0])
            nibbles = np.concatenate([both >> 4, both & 15]).reshape(_of(shape.inputs[1])).astype(np.float32)
            return Held("stored-int4", nibbles + _of(node.inputs[1]) / scale, scale, -8, 7)
    return None


def _floats(scheme: str, array: np.ndarray, bits: int, smallest: int) -> Held:
    """Floats of so many bits of mantissa, in steps to the next one, of 2 ** smallest at least."""
    _, exponent = np.frexp(array.astype(np.float32))
    step = np.ldexp(np.float64(1), np.maximum(exponent - bits, smallest))
    return Held(scheme, array / step, step)


def _blocked(node: ir.Node) -> list[Held]:
    inputs, outputs, bits, block = (node.attributes.get_int(n) for n in ("K", "N", "bits", "block_size"))
    if len(node.inputs) > 3 or bits not in (4, 8):
        return []
    stored, scale = _of(node.inputs[1]), _of(node.inputs[2]).reshape(outputs, -1)
    if bits == 4:
        stored = np.stack([stored & 15, stored >> 4], axis=-1)
    integers = stored.reshape(outputs, -1)[:, :inputs].astype(np.float32) - 2 ** (bits - 1)
    step = np.repeat(scale, block, axis=1)[:, :inputs]
    label = f"block-matmul{block}" + ("-int4" if bits == 4 else "")
    return [Held(label, integers.T, step.T, -(2 ** (bits - 1)) + (bits == 8), 2 ** (bits - 1) - 1)]


def _static(output: ir.Value, conv: ir.Node, nodes: Nodes) -> Held:
    """An int8 convolution's weight with the scales of its input and output, which lie around it."""
    integers, step = _rows(output, conv, nodes)
    scale = _given_scale(conv)
    if scale is None:
        scale = _recovered(integers, _exact(output, nodes) / step)
    return Held("static-conv", integers, step / _columns(scale, integers.ndim), -127, 127)


def _rows(output: ir.Value, conv: ir.Node, nodes: Nodes) -> tuple[np.ndarray, np.ndarray]:
    """Integers of an int8 convolution, and their steps but for the scale of its input, [out, 1, ...]."""
    weight, last = conv.inputs[1].producer(), output.producer()  # type: ignore[union-attr]
    assert weight is not None and last is not None
    integers = _of(weight.inputs[0]).astype(np.float32)
    scale = _of(weight.inputs[1]) * _of(last.inputs[1])
    if _led(output) is not None:
        scale = scale * _steps_behind(output, nodes)
    return integers, scale.reshape(-1, *[1] * (integers.ndim - 1))


def _steps_behind(output: ir.Value, nodes: Nodes) -> np.ndarray:
    """Real units of the steps that the output of an int8 convolution has for the one behind it: as that one's weights
    tell, and where they are all nothing, its own."""
    led, conv = _led(output), ahead(output, "DequantizeLinear", "QuantizeLinear", "Conv")
    assert led is not None and conv is not None
    scale = _input_scale(led, nodes)
    for channel in np.flatnonzero(scale == np.float32(UNKNOWN)):
        held_as = _of(conv.inputs[1].producer().inputs[0])[channel].astype(np.float64)  # type: ignore[union-attr]
        held_as *= _of(conv.inputs[1].producer().inputs[1])[channel] * _of(output.producer().inputs[1])  # type: ignore[union-attr]
        if power := (held_as**2).sum():
            scale[channel] = max(UNKNOWN, (held_as * _exact(output, nodes)[channel]).sum() / power)
    return scale


def _columns(scale: np.ndarray, ndim: int) -> np.ndarray:
    return scale.reshape(1, -1, *[1] * (ndim - 2))


def _exact(output: ir.Value, nodes: Nodes) -> np.ndarray:
    return next(iter(exact_weights(nodes[output.name or ""]).values()))


def _input_scale(output: ir.Value, nodes: Nodes) -> np.ndarray:
    """Real units of a step of each input channel of the int8 convolution that makes `output`."""
    conv = ahead(output, "DequantizeLinear", "QuantizeLinear", "Conv")
    assert conv is not None
    given = _given_scale(conv)
    if given is not None:
        return given
    integers, step = _rows(output, conv, nodes)
    return _recovered(integers, _exact(output, nodes) / step)


def _given_scale(conv: ir.Node) -> np.ndarray | None:
    """The same where the graph says it: at the quantization, in a factor or a table ahead of it."""
    quantize = ahead(conv.inputs[0], "DequantizeLinear", "QuantizeLinear")
    table = ahead(conv.inputs[0], "DequantizeLinear", "GatherElements", "QuantizeLinear")
    node = quantize or table
    if node is None:
        return None
    scale = _of(node.inputs[1])
    if scale.ndim:
        return scale
    factor = ahead(node.inputs[0], "Mul")
    return scale / _of(factor.inputs[1]).reshape(-1) if factor else None


def _led(output: ir.Value) -> ir.Value | None:
    """The output of the int8 convolution that takes this one in its own steps, through a leaky ReLU."""
    quantize = _behind(output, "LeakyRelu", "QuantizeLinear")
    if quantize is None or _of(quantize.inputs[1]).ndim or ahead(output, "DequantizeLinear") is None:
        return None
    last = _behind(quantize.outputs[0], "DequantizeLinear", "Conv", "QuantizeLinear", "DequantizeLinear")
    return last.outputs[0] if last is not None else None


def _recovered(integers: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """The scale [in] by which weights [out, in, ...] became integers: the graph holds it nowhere else. By least
    squares over the weights that agree on it, so that one that is wrong shows, and does not tell. UNKNOWN where all
    are zero."""
    count = integers.shape[1]
    q, x = (np.moveaxis(a, 1, 0).reshape(count, -1).astype(np.float64) for a in (integers, exact))
    telling = np.where(np.abs(q) >= np.abs(q).max(axis=1, keepdims=True) / 4, x, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(telling == 0, np.nan, q / telling)
    scale = np.array([np.nanmedian(row) if np.isfinite(row).any() else UNKNOWN for row in ratio])
    for _ in range(2):
        near = np.abs(q - np.clip(x * scale[:, None], -127, 127)) <= NEAR
        near &= np.abs(q) < 127  # clipped ones say little
        power = (x * x * near).sum(axis=1)
        scale = np.where(power > 0, (q * x * near).sum(axis=1) / np.where(power > 0, power, 1), scale)
    return np.maximum(scale, UNKNOWN).astype(np.float32)


def _table_line(output: ir.Value) -> np.ndarray | None:
    """Of a Gemm whose norm's output is the index of a table: where that begins and its steps, [1, channels, 2]."""
    lookup = _behind(output, "Reshape", "Split", "InstanceNormalization", "Clip", "Cast", "GatherElements")
    line = ahead(lookup.inputs[0], "QuantizeLinear", "Add", "MatMul") if lookup is not None else None
    return constant(line.inputs[0]) if line is not None else None
