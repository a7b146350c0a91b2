"""The weights of a graph that schemes apply to, and the schemes that only store them smaller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from jtts_export.errors import JttsError
from jtts_export.surgery import add_constant, constant, insert

SMALLEST_WEIGHT = 1024  # elements; below, a scale and two nodes cost what they save
_OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "Gather": 0}
FP16_MAX = float(np.finfo(np.float16).max)


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
        if uses := value.uses():
            found[name] = Weight(value, uses[0].node, _scaled_axes(uses[0].node, uses[0].idx, array.ndim))
    return found


def _scaled_axes(node: ir.Node, index: int, ndim: int) -> tuple[int, ...]:
    if node.op_type == "LSTM":
        return (0, 1)  # direction and gate row
    if node.op_type == "Gemm":
        return (0,) if node.attributes.get_int("transB", 0) else (1,)
    return (_OUTPUT_AXIS.get(node.op_type, 0) % ndim,)


def store_int8(model: ir.Model, name: str, weight: Weight) -> None:
    """Hold as int8, unfolded by Cast and Mul: onnxruntime folds these at load, and not a DequantizeLinear."""
    array = weight.array
    others = tuple(a for a in range(array.ndim) if a not in weight.axes)
    scale = np.abs(array).max(axis=others, keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    stored = np.clip(np.round(array / scale), -127, 127).astype(np.int8)
    first = model.graph[0]
    cast = insert(
        first, "Cast", [add_constant(model.graph, f"{name}.int8", stored)], f"{name}/Cast", to=ir.DataType.FLOAT
    )
    scales = add_constant(model.graph, f"{name}.scale", scale)
    _replace(weight.value, insert(first, "Mul", [cast, scales], f"{name}/Mul"))


def store_fp16(model: ir.Model, name: str, weight: Weight) -> None:
    """Hold as fp16, unfolded by Cast. Raises JttsError where a value does not fit."""
    array = weight.array
    if np.abs(array).max() > FP16_MAX:
        raise JttsError(f"{name} has values beyond fp16's {FP16_MAX:.0f}")
    half = add_constant(model.graph, f"{name}.fp16", array.astype(np.float16))
    _replace(weight.value, insert(model.graph[0], "Cast", [half], f"{name}/Cast", to=ir.DataType.FLOAT))


def _replace(old: ir.Value, new: ir.Value) -> None:
    old.replace_all_uses_with(new)
    assert old.graph is not None
    del old.graph.initializers[old.name]
