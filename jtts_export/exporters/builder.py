"""Graphs written directly in onnxruntime's fused operators (domain com.microsoft), where tracing a module would
give many small ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor

from jtts_export.surgery import add_constant

MICROSOFT = "com.microsoft"
IR_VERSION = 10  # what onnxruntime 1.21, and so transformers.js, can read


class Builder:
    """Appends nodes to a graph; every node is named, and so is its first output."""

    def __init__(self, name: str, opset: int) -> None:
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset, MICROSOFT: 1}, name=name)

    def model(self) -> ir.Model:
        return ir.Model(self.graph, ir_version=IR_VERSION)

    def constant(self, name: str, array: np.ndarray | np.generic | Tensor) -> ir.Value:
        array = array.detach().numpy() if isinstance(array, Tensor) else array
        return add_constant(self.graph, name, array)

    def weight(self, name: str, shape: Sequence[int], make: Callable[[], Tensor]) -> ir.Value:
        """A float32 constant that is made when it is read, for graphs larger than should be held in memory."""
        made = ir.LazyTensor(
            lambda: ir.Tensor(np.ascontiguousarray(make().detach().numpy()), name=name),
            dtype=ir.DataType.FLOAT,
            shape=ir.Shape(shape),
            name=name,
        )
        value = ir.Value(name=name, const_value=made, type=ir.TensorType(made.dtype), shape=ir.Shape(shape))
        self.graph.register_initializer(value)
        return value

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.graph.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, shape: Sequence[int | str]) -> None:
        value.name, value.shape = name, ir.Shape(shape)
        value.type = ir.TensorType(ir.DataType.FLOAT)
        self.graph.outputs.append(value)

    def nodes(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        node = ir.node(op, list(inputs), attributes or None, domain=domain, num_outputs=outputs, name=name)
        for i, value in enumerate(node.outputs):
            value.name = name if i == 0 else f"{name}/{i}"
        self.graph.append(node)
        return node.outputs

    def node(
        self, op: str, inputs: Sequence[ir.Value | None], name: str, domain: str = "", **attributes: Any
    ) -> ir.Value:
        return self.nodes(op, inputs, name, domain=domain, **attributes)[0]

    def matmul(self, x: ir.Value, name: str, weight: Tensor) -> ir.Value:
        """x W^T, for a weight [out, in] as torch has it; held as [in, out] under `<name>.weight`."""
        return self.node("MatMul", [x, self.constant(f"{name}.weight", weight.T)], f"{name}/MatMul")

    def linear(self, x: ir.Value, name: str, weight: Tensor, bias: Tensor) -> ir.Value:
        return self.node("Add", [self.matmul(x, name, weight), self.constant(f"{name}.bias", bias)], f"{name}/Add")
