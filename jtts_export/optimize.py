"""Graph rewrites that pay, and change nothing but rounding.

Only what onnxruntime does not do by itself when it loads a graph. bench/ times each rewrite; the optimize
stage compares the graph's taps before and after, and fails the build where they differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from .surgery import (
    add_constant,
    constant,
    insert,
    only_user,
    own_linear,
    producer,
    remove_unused,
    replace,
    set_constant,
)

TIDY = (
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.IdentityEliminationPass(),
    common.DeduplicateInitializersPass(size_limit=1 << 40),
    common.CommonSubexpressionEliminationPass(),
    common.RemoveUnusedNodesPass(),
    common.ClearMetadataAndDocStringPass(),
)


def optimize(model: ir.Model, rewrites: tuple[Callable[[ir.Model], int], ...] | None = None) -> dict[str, int]:
    """Tidy and rewrite `model` in place. Returns how often each rewrite applied, and the node counts."""
    counts = {"nodes_before": model.graph.num_nodes()}
    tidy(model)
    for rewrite in REWRITES if rewrites is None else rewrites:
        counts[rewrite.__name__] = rewrite(model)
        remove_unused(model)
    tidy(model)
    counts["nodes_after"] = model.graph.num_nodes()
    return counts


def tidy(model: ir.Model) -> None:
    """Remove what computes nothing: identities, duplicates, dead nodes, the tracer's annotations."""
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it reports every draw that it leaves alone
    for step in TIDY:
        step(model)


def default_lstm_states(model: ir.Model) -> int:
    """Initial states of zeros are an LSTM's default; the tracer computes them from shapes."""
    count = 0
    for node in model.graph:
        if node.op_type != "LSTM":
            continue
        for index in (5, 6):
            if index < len(node.inputs) and _is_zeros(node.inputs[index]):
                node.replace_input_with(index, None)
                count += 1
    return count


def scale_before_snake(model: ir.Model) -> int:
    """y + sin(a y)^2 / a, as (u + sin(u)^2) / a with u = a y: the scales move next to foldable neighbours."""
    count = 0
    for add in list(model.graph):
        match = _match_snake(add)
        if match is None:
            continue
        _y, alpha, scaled, square = match
        total = insert(add, "Add", [scaled, square], f"{add.name}/u")
        inverse = add_constant(model.graph, f"{add.name}/inverse_alpha", 1 / alpha)
        out = insert(add, "Mul", [total, inverse], f"{add.name}/snake")
        replace(add.outputs[0], out)
        count += 1
    return count


def fold_scale_into_norm(model: ir.Model) -> int:
    """InstanceNormalization then a constant scale per channel: scale its scale and bias instead."""
    count = 0
    for norm in list(model.graph):
        if norm.op_type != "InstanceNormalization":
            continue
        mul = only_user(norm.outputs[0])
        factor = _channel_constant(mul) if mul is not None and mul.op_type == "Mul" else None
        if mul is None or factor is None:
            continue
        name = f"{norm.name}/channel_scale"
        flat = add_constant(model.graph, name, factor.reshape(-1))
        for index, part in ((1, "scale"), (2, "bias")):
            norm.replace_input_with(index, insert(norm, "Mul", [norm.inputs[index], flat], f"{name}/{part}"))
        replace(mul.outputs[0], norm.outputs[0])
        count += 1
    return count


def fold_scale_into_conv(model: ir.Model) -> int:
    """A constant scale per channel, then a Conv: scale the weights of its input channels instead."""
    count = 0
    for mul in list(model.graph):
        if mul.op_type != "Mul":
            continue
        conv, factor = only_user(mul.outputs[0]), _channel_constant(mul)
        if conv is None or conv.op_type != "Conv" or factor is None or mul.inputs[0] is None:
            continue
        weight = constant(conv.inputs[1])
        if weight is None or only_user(conv.inputs[1]) is None:  # type: ignore[arg-type]
            continue
        if weight.ndim != 3 or weight.shape[1] != factor.size:  # another rank, or groups
            continue
        set_constant(conv.inputs[1], weight * factor.reshape(1, -1, 1))  # type: ignore[arg-type]
        conv.replace_input_with(0, mul.inputs[0])
        count += 1
    return count


def fold_affine_into_gemm(model: ir.Model) -> int:
    """Gemm of one row, split in parts, each scaled or shifted by constants: fold those into the Gemm.

    This is how a style becomes the scales and biases of an AdaIN layer.
    """
    count = 0
    for gemm in list(model.graph):
        linear = own_linear(gemm) if gemm.op_type == "Gemm" else None
        parts = _split_parts(gemm, len(linear[1])) if linear is not None else None
        if linear is None or parts is None:
            continue
        weight, bias, start = linear[0].copy(), linear[1].copy(), 0
        for part, size in parts:
            rows = slice(start, start + size)
            start += size
            while (user := only_user(part)) is not None and user.op_type in ("Add", "Mul"):
                other = constant(user.inputs[1] if user.inputs[0] is part else user.inputs[0])
                if other is None or other.size not in (1, size) or other.ndim > 1:
                    break
                if user.op_type == "Mul":
                    weight[rows] *= other.reshape(-1, 1)
                    bias[rows] *= other
                else:
                    bias[rows] += other
                replace(user.outputs[0], part)
                for index in range(2):
                    user.replace_input_with(index, None)
                count += 1
        set_constant(gemm.inputs[1], weight)  # type: ignore[arg-type]
        set_constant(gemm.inputs[2], bias)  # type: ignore[arg-type]
    return count


REWRITES = (
    default_lstm_states,
    scale_before_snake,
    fold_scale_into_norm,
    fold_scale_into_conv,
    fold_affine_into_gemm,
)


def _is_zeros(value: ir.Value | None) -> bool:
    known = constant(value)
    if known is not None:
        return not known.any()
    node = value.producer() if value is not None else None
    if node is None:
        return False
    if node.op_type in ("Expand", "Slice", "Transpose", "Concat", "Reshape"):
        data = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        return all(_is_zeros(v) for v in data)
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or not fill.as_tensor().numpy().any()
    return False


def _match_snake(add: ir.Node) -> tuple[ir.Value, np.ndarray, ir.Value, ir.Value] | None:
    """add = y + (1 / alpha) * s * s, s = Sin(alpha * y) -> y, alpha, alpha * y, s * s."""
    if add.op_type != "Add":
        return None
    y, product = add.inputs
    outer = producer(product, "Mul")
    if outer is None:
        return None
    reciprocal, square = producer(outer.inputs[0], "Reciprocal"), producer(outer.inputs[1], "Mul")
    if reciprocal is None or square is None or square.inputs[0] is not square.inputs[1]:
        return None
    sine = producer(square.inputs[0], "Sin")
    scaled = producer(sine.inputs[0], "Mul") if sine is not None else None
    alpha = constant(reciprocal.inputs[0])
    if scaled is None or alpha is None or y is None or {y, reciprocal.inputs[0]} != set(scaled.inputs):
        return None
    return y, alpha, scaled.outputs[0], square.outputs[0]


def _channel_constant(mul: ir.Node | None) -> np.ndarray | None:
    """The constant [1, channels, 1] of a Mul, put second. Its data, where their shape is known, have three axes."""
    if mul is None:
        return None
    for index in (0, 1):
        factor, data = constant(mul.inputs[index]), mul.inputs[1 - index]
        if data is not None and data.shape is not None and len(data.shape) != 3:
            continue
        if factor is not None and factor.ndim == 3 and factor.shape[0] == factor.shape[2] == 1:
            mul.replace_input_with(1, mul.inputs[index])
            mul.replace_input_with(0, data)
            return factor
    return None


def _split_parts(gemm: ir.Node, size: int) -> list[tuple[ir.Value, int]] | None:
    """Gemm [1, size] -> Reshape to [size] -> Split: the split's outputs and their sizes."""
    reshape = only_user(gemm.outputs[0])
    split = only_user(reshape.outputs[0]) if reshape is not None and reshape.op_type == "Reshape" else None
    if split is None or split.op_type != "Split":
        return None
    shape = constant(reshape.inputs[1]) if reshape is not None else None
    sizes = constant(split.inputs[1]) if len(split.inputs) > 1 else None
    if shape is None or shape.size != 1 or sizes is None or sizes.sum() != size:
        return None
    return list(zip(split.outputs, map(int, sizes), strict=True))
