"""int8 matrix products, in onnxruntime's own operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from jtts_export.surgery import add_constant, insert, replace

from .weights import Weight

MICROSOFT = "com.microsoft"
BLOCK_ACCURACY = 4  # of MatMulNBits: activations in int8, a scale per block


def is_linear(weight: Weight) -> bool:
    """Whether the weight is a constant [in, out] behind a MatMul, and nothing else reads it."""
    uses = list(weight.value.uses())
    return weight.node.op_type == "MatMul" and weight.array.ndim == 2 and [use.idx for use in uses] == [1]


def dynamic(model: ir.Model, name: str, weight: Weight) -> None:
    """s8 weights with a scale per output; activations in u8, with one scale and zero point a product, chosen
    when they are there."""
    graph, node, array = model.graph, weight.node, weight.array
    scale = _steps(np.abs(array).max(axis=0))
    integers = np.clip(np.round(array / scale), -127, 127).astype(np.int8)
    stored = add_constant(graph, f"{name}.int8", integers)
    zero = add_constant(graph, f"{name}.zero", np.zeros(len(scale), np.int8))
    inputs = [node.inputs[0], stored, add_constant(graph, f"{name}.scale", scale), zero]
    _swap(model, node, insert(node, "DynamicQuantizeMatMul", inputs, f"{name}/int8", domain=MICROSOFT))


def blocked(model: ir.Model, name: str, weight: Weight, block: int, bits: int = 8) -> None:
    """Weights of 8 or 4 bits with a scale per output and `block` inputs; activations of 8 likewise, as they come."""
    graph, node, array = model.graph, weight.node, weight.array
    size, outputs = array.shape
    blocks = -(-size // block)
    rows = np.zeros((outputs, blocks * block), np.float32)
    rows[:, :size] = array.T
    rows = rows.reshape(outputs, blocks, block)
    scale, integers = _eight_bits(rows) if bits == 8 else _four_bits(rows)
    inputs = [
        node.inputs[0],
        add_constant(graph, f"{name}.int{bits}", integers),
        add_constant(graph, f"{name}.scale", scale),
    ]
    attributes = {"K": size, "N": outputs, "bits": bits, "block_size": block, "accuracy_level": BLOCK_ACCURACY}
    _swap(model, node, insert(node, "MatMulNBits", inputs, f"{name}/int{bits}", domain=MICROSOFT, **attributes))


def _eight_bits(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales [outputs, blocks] of rows [outputs, blocks, block], and u8 integers around 128."""
    scale = _steps(np.abs(rows).max(axis=2))
    integers = rows / scale[:, :, None]
    np.rint(integers, out=integers)
    return scale, (np.clip(integers, -127, 127, out=integers) + 128).astype(np.uint8)


def _four_bits(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same around 8, packed in pairs, the first in the lower half. The value that reaches farthest is the -8 of
    its block, whatever its sign: so all 16 levels are used."""
    farthest = np.take_along_axis(rows, np.abs(rows).argmax(axis=2)[:, :, None], 2)[:, :, 0]
    scale = (np.where(farthest == 0, 1e-20, farthest) / -8).astype(np.float32)
    integers = (np.clip(np.rint(rows / scale[:, :, None]), -8, 7) + 8).astype(np.uint8)
    return scale, integers[:, :, ::2] | integers[:, :, 1::2] << 4


def _steps(reach: np.ndarray) -> np.ndarray:
    # MatMulNBits adds up multiples of a step before it takes the zero point off: what is zero needs a tiny one.
    return (np.maximum(reach, 1e-20) / 127).astype(np.float32)


def _swap(model: ir.Model, node: ir.Node, output: ir.Value) -> None:
    model.opset_imports[MICROSOFT] = 1
    replace(node.outputs[0], output)
