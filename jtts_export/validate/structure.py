"""What of a variant is given: attributes of nodes and constants, which quantization leaves as they are; random draws;
and graphs that are derived from its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from jtts_export.surgery import constant, release

from .layer_weights import exact_weights, units_of

if TYPE_CHECKING:
    from jtts_export.exporters.model import Loaded, Model


def structure_equal_ratio(exact: Path, variant: Path) -> float:
    """Share of the nodes that a variant's graph has from fp32's, and that still have its attributes, its number of
    inputs and its constants; 0 where it has none of them. Where a node was rescaled into the units of what follows,
    constants do not count."""
    graph = ir.load(exact)
    made = {node.name: node for node in ir.load(variant).graph}
    layers = {node.outputs[0].name or "": node for node in graph.graph if exact_weights(node)}
    kept = [
        (node, made[node.name])
        for node in graph.graph
        if node.name in made and made[node.name].op_identifier() == node.op_identifier()
    ]
    same = 0
    for node, twin in kept:
        same += _is_same(node, twin, units_of(twin.outputs[0], layers) is not None)
        release(node, twin)
    return same / len(kept) if kept else 0.0


def derived_equal_ratio(model: Model, files: Mapping[str, Path]) -> float:
    """Share of a variant's derived graphs whose nodes and weights are what comes of its own graphs now."""
    derived = model.derive({graph: ir.load(files[graph]) for graph in model.graphs})
    same = [_content(ir.to_proto(graph)) == _content(onnx.load(files[name])) for name, graph in derived.items()]
    return sum(same) / len(same)


def draws_equal_ratio(model: Model, loaded: Loaded, files: Mapping[str, Path]) -> float:
    """Share of the random draws baked into a variant's graphs that are those of the reference."""
    same = []
    for name, wanted in model.draws(loaded).items():
        there = ir.load(files[name]).graph.initializers
        for draw, array in wanted.items():
            held = there[draw].const_value if draw in there else None
            same.append(held is not None and np.array_equal(held.numpy(), array))
    return sum(same) / len(same)


def _content(model: onnx.ModelProto) -> tuple[list[bytes], dict[str, bytes]]:
    weights = {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}
    return [node.SerializeToString() for node in model.graph.node], weights


def _is_same(node: ir.Node, twin: ir.Node, rescaled: bool) -> bool:
    if len(node.inputs) != len(twin.inputs) or _attributes(node) != _attributes(twin):
        return False
    return rescaled or all(
        one is None or other is None or one.name != other.name or _is_equal(one, other)
        for one, other in zip(node.inputs, twin.inputs, strict=True)
    )


def _attributes(node: ir.Node) -> dict[str, bytes]:
    return {name: ir.to_proto(attribute).SerializeToString() for name, attribute in node.attributes.items()}


def _is_equal(one: ir.Value, other: ir.Value) -> bool:
    """Of two constants, or two values of one name that are none."""
    first, second = constant(one), constant(other)
    if first is None or second is None:
        return first is second
    return first.dtype == second.dtype and np.array_equal(first, second)
