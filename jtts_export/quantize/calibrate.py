"""What goes through a graph's convolutions, sampled on real inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from jtts_export.runtime.session import session_from_model
from jtts_export.surgery import add_constant

from .weights import Weight

SAMPLES_PER_RUN = 512
THREADS = 2  # fixed: partial sums, and so the last bits of scales, depend on it


def sample(
    model: ir.Model, weights: Mapping[str, Weight], feeds: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs [in, samples] and outputs [out, samples] of each weight's Conv, at random times of each feed.

    Sampled inside the graph, so that no activation is held whole.
    """
    probed = model.clone()
    graph = probed.graph
    fraction = ir.Value(
        name="sample_fraction", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([SAMPLES_PER_RUN])
    )
    graph.inputs.append(fraction)
    last_axis = add_constant(graph, "sample_axis", np.array([-1], np.int64))
    convs = {n.name: n for n in graph}
    nodes = {name: convs[w.node.name] for name, w in weights.items()}
    wanted: dict[int, ir.Value] = {}
    for node in nodes.values():
        for value in (node.inputs[0], node.outputs[0]):
            if value is not None and id(value) not in wanted:
                wanted[id(value)] = _at_random_times(graph, value, fraction, last_axis, len(wanted))
    graph.outputs.extend(wanted.values())
    graph.sort()
    session = session_from_model(probed, THREADS)
    names = [v.name for v in wanted.values()]
    index = {key: i for i, key in enumerate(wanted)}
    rng = np.random.default_rng(0)
    runs: list[Sequence[np.ndarray]] = []
    for feed in feeds:
        at = rng.random(SAMPLES_PER_RUN, dtype=np.float32)
        runs.append([y.reshape(y.shape[1], -1) for y in session.run(names, {**feed, "sample_fraction": at})])
    joined = {key: np.concatenate([run[i] for run in runs], axis=1) for key, i in index.items()}
    return {name: (joined[id(node.inputs[0])], joined[id(node.outputs[0])]) for name, node in nodes.items()}


def _at_random_times(graph: ir.Graph, value: ir.Value, fraction: ir.Value, axis: ir.Value, number: int) -> ir.Value:
    def node(op: str, inputs: Sequence[ir.Value], name: str, **attributes: object) -> ir.Value:
        new = ir.node(op, inputs, attributes or None, name=f"sample/{number}/{name}")  # type: ignore[arg-type]
        new.outputs[0].name = f"sample/{number}/{name}"
        graph.append(new)
        return new.outputs[0]

    shape = node("Shape", [value], "shape")
    length = node("Cast", [node("Gather", [shape, axis], "length")], "float", to=ir.DataType.FLOAT)
    index = node("Cast", [node("Mul", [fraction, length], "at")], "index", to=ir.DataType.INT64)
    return node("Gather", [value, index], "values", axis=-1)
