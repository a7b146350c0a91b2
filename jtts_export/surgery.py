"""Small helpers over onnx_ir: what every graph rewrite needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The value of an initializer that no caller can override, else None."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.const_value is None:
        return None
    return value.const_value.numpy()


def release(*nodes: ir.Node) -> None:
    """Let go of the memory that constants of these nodes, held in files, took when they were read."""
    for value in (value for node in nodes for value in node.inputs):
        if value is not None and isinstance(value.const_value, ir.ExternalTensor):
            value.const_value.release()


def add_constant(graph: ir.Graph, name: str, array: np.ndarray | np.generic) -> ir.Value:
    """A new initializer. Its name must be free."""
    if name in graph.initializers:
        raise ValueError(f"initializer {name} exists")
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def set_constant(value: ir.Value, array: np.ndarray) -> None:
    """Replace an initializer's content; shape and dtype may change."""
    tensor = ir.tensor(np.asarray(array, order="C"), name=value.name)
    value.const_value, value.shape = tensor, ir.Shape(array.shape)
    value.type = ir.TensorType(tensor.dtype)


def insert(
    before: ir.Node, op: str, inputs: Sequence[ir.Value | None], name: str, domain: str = "", **attributes: Any
) -> ir.Value:
    """A new single-output node ahead of `before`; `name` names node and output. Returns the output."""
    node = ir.node(op, list(inputs), attributes or None, domain=domain, name=name)
    node.outputs[0].name = name
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return node.outputs[0]


def replace(old: ir.Value, new: ir.Value) -> None:
    """Put `new` in the place of `old`, under its name: `old` may be a tap or an output of the graph."""
    name = old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.type = old.type or new.type
    new.shape = new.shape if old.shape is None else old.shape
    old.name, new.name = f"{name}/replaced", name


def only_user(value: ir.Value) -> ir.Node | None:
    """The node that alone uses this value, in one of its inputs; None for an output or a shared value."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def producer(value: ir.Value | None, op: str) -> ir.Node | None:
    """The node that produces this value, if it is an `op`."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op else None


def own_linear(gemm: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight [out, in] and bias [out] of a Gemm that is x W' + b, both constants that nothing else uses."""
    attributes = gemm.attributes
    if len(gemm.inputs) != 3 or attributes.get_int("transA", 0) != 0 or attributes.get_int("transB", 0) != 1:
        return None
    if attributes.get_float("alpha", 1.0) != 1 or attributes.get_float("beta", 1.0) != 1:
        return None
    weight, bias = constant(gemm.inputs[1]), constant(gemm.inputs[2])
    if weight is None or bias is None or bias.shape != weight.shape[:1]:
        return None
    if any(v is None or only_user(v) is None for v in gemm.inputs[1:]):
        return None
    return weight, bias


def remove_unused(model: ir.Model) -> None:
    """Drop nodes and initializers that nothing depends on."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)
