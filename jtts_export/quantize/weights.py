"""The weights of a graph that schemes apply to, and the schemes that only store them smaller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jtts_export.surgery import add_constant, constant, insert

SMALLEST_WEIGHT = 1024  # elements; below, a scale and two nodes cost what they save
CLIP_FACTORS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)  # few bits gain by clipping the largest values
_OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gather": 0}


@dataclass(frozen=True)
class Weight:
    """A constant matrix, its first user, and the axes along which it is scaled separately."""

    value: ir.Value
    node: ir.Node
    axes: tuple[int, ...]

    @property
    def array(self) -> np.ndarray:
        array = constant(self.value)
        assert array is not None
        return array


def find_weights(model: ir.Model) -> dict[str, Weight]:
    """Every fp32 constant of at least two axes and SMALLEST_WEIGHT elements, by name."""
    found = {}
    for name, value in model.graph.initializers.items():
        array = constant(value)
        if array is None or array.dtype != np.float32 or array.ndim < 2 or array.size < SMALLEST_WEIGHT:
            continue
        if uses := list(value.uses()):
            found[name] = Weight(value, uses[0].node, _scaled_axes(uses[0].node, uses[0].idx, array.ndim))
    return found


def _scaled_axes(node: ir.Node, index: int, ndim: int) -> tuple[int, ...]:
    if node.op_type == "LSTM":
        return (0, 1)  # direction and gate row
    if node.op_type == "Gemm":
        return (0,) if node.attributes.get_int("transB", 0) else (1,)
    return (_OUTPUT_AXIS.get(node.op_type, 0) % ndim,)


def store_int(model: ir.Model, name: str, weight: Weight, bits: int) -> None:
    """Hold as integers, unfolded by arithmetic that onnxruntime folds at load (it leaves a DequantizeLinear).

    8 bits are an int8 tensor; 4 bits are packed in pairs, first half of the elements in the upper nibbles.
    Every float step of the unfolding is a copy of the weight while a graph is loaded, so there are few.
    """
    array, graph, first = weight.array, model.graph, model.graph[0]
    top = 2 ** (bits - 1) - 1
    steps = _steps(array, weight.axes, top)
    integers = np.clip(np.round(array / steps), -top - 1, top).astype(np.int8)
    scale = add_constant(graph, f"{name}.scale", steps)
    if bits == 8:
        stored = add_constant(graph, f"{name}.int8", integers)
        value = insert(first, "Cast", [stored], f"{name}/Cast", to=ir.DataType.FLOAT)
        _replace(weight.value, insert(first, "Mul", [value, scale], f"{name}/value"))
        return
    upper, lower = np.split((integers + 8).reshape(-1).astype(np.uint8), 2)
    pairs = add_constant(graph, f"{name}.pairs", upper * 16 + lower)
    shape = add_constant(graph, f"{name}.shape", np.array(array.shape, np.int64))
    zero = add_constant(graph, f"{name}.zero", -8 * steps)
    four = graph.initializers.get("four_bits") or add_constant(graph, "four_bits", np.uint8(4))
    high = insert(first, "BitShift", [pairs, four], f"{name}/high", direction="RIGHT")
    top_less = insert(first, "BitShift", [pairs, four], f"{name}/left", direction="LEFT")
    low = insert(first, "BitShift", [top_less, four], f"{name}/low", direction="RIGHT")
    flat = insert(first, "Concat", [high, low], f"{name}/flat", axis=0)
    nibbles = insert(first, "Reshape", [flat, shape], f"{name}/nibbles")
    value = insert(first, "Cast", [nibbles], f"{name}/Cast", to=ir.DataType.FLOAT)
    scaled = insert(first, "Mul", [value, scale], f"{name}/scaled")
    _replace(weight.value, insert(first, "Add", [scaled, zero], f"{name}/value"))


def _steps(array: np.ndarray, axes: tuple[int, ...], top: int) -> np.ndarray:
    """Per channel, the step with the least squared error of rounding and clipping."""
    others = tuple(a for a in range(array.ndim) if a not in axes)
    reach = np.abs(array).max(axis=others, keepdims=True) / top
    reach = np.where(reach > 0, reach, 1).astype(np.float32)
    best, best_error = reach, np.full(reach.shape, np.inf)
    for factor in CLIP_FACTORS if top < 127 else (1.0,):
        step = reach * np.float32(factor)
        error = ((np.clip(np.round(array / step), -top - 1, top) * step - array) ** 2).sum(axis=others, keepdims=True)
        best = np.where(error < best_error, step, best)
        best_error = np.minimum(error, best_error)
    return best.astype(np.float32)


def fits_fp16(weight: Weight) -> bool:
    """Whether no value overflows."""
    return bool(np.abs(weight.array).max() <= np.finfo(np.float16).max)


def store_fp16(model: ir.Model, name: str, weight: Weight) -> None:
    """Hold as fp16, unfolded by Cast."""
    half = add_constant(model.graph, f"{name}.fp16", weight.array.astype(np.float16))
    _replace(weight.value, insert(model.graph[0], "Cast", [half], f"{name}/Cast", to=ir.DataType.FLOAT))


def _replace(old: ir.Value, new: ir.Value) -> None:
    old.replace_all_uses_with(new)
    assert old.graph is not None and old.name is not None
    del old.graph.initializers[old.name]
