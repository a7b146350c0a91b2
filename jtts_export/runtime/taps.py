"""Taps of an ONNX graph: the released file, cut at named tensors and run in parts. Needs onnx, not torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx

from .session import open_graph

if TYPE_CHECKING:
    import onnxruntime as ort

Arrays = Mapping[str, np.ndarray]
Graphs = Mapping[str, Path | onnx.ModelProto]


class PartRunner(Protocol):
    """A runner of several graphs, that can say which parts of them a tap needs."""

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        """The tensors named in `wanted`, of one synthesis; a tap in `forced` takes the value given."""
        ...

    def parts(self, inputs: Iterable[str], wanted: str, forced: Iterable[str]) -> dict[str, onnx.ModelProto]:
        """Graph -> the least of it that leads from `inputs` and `forced` to `wanted`."""
        ...


class OnnxRunner:
    """Cuts a graph at its taps. What is run is derived from the file's own bytes, whatever wrote them."""

    def __init__(self, name: str, model: Path | onnx.ModelProto, threads: int, optimize: bool = True) -> None:
        """optimize: let onnxruntime optimize each part; without it a part loads faster and runs slower."""
        graph = loaded(model).graph  # and not kept: a graph's weights are many, and its file is at hand
        self._inputs, self._outputs = {i.name for i in graph.input}, {o.name for o in graph.output}
        self._name, self._source, self._threads, self._optimize = name, model, threads, optimize
        # The last part alone is kept loaded: each holds its weights and the memory of its largest activations.
        self._part: tuple[object, ort.InferenceSession] | None = None

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        forced = forced or {}
        inputs = {name: value for name, value in inputs.items() if name in self._inputs}
        key = (tuple(sorted(forced)), tuple(wanted))
        if self._part is None or self._part[0] != key:
            self._part = None
            self._part = key, self._open([*inputs, *forced], wanted, whole=not forced and self._outputs >= {*wanted})
        running = self._part[1]
        takes = {i.name for i in [*running.get_inputs(), *running.get_overridable_initializers()]}
        feed = {k: v for k, v in {**inputs, **forced}.items() if k in takes}
        return dict(zip(wanted, running.run(list(wanted), feed), strict=True))

    def parts(self, inputs: Iterable[str], wanted: str, forced: Iterable[str]) -> dict[str, onnx.ModelProto]:
        return {self._name: cut(loaded(self._source), [*inputs, *forced], [wanted])}

    def _open(self, inputs: Sequence[str], wanted: Sequence[str], whole: bool) -> ort.InferenceSession:
        if whole:
            return open_graph(self._source, self._threads, self._optimize)
        return open_graph(cut(loaded(self._source), inputs, wanted), self._threads, self._optimize)


def loaded(model: Path | onnx.ModelProto) -> onnx.ModelProto:
    """A graph in memory."""
    return onnx.load(model) if isinstance(model, Path) else model


def cut(model: onnx.ModelProto, inputs: Iterable[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph that leads from `inputs`, any of its tensors, to `outputs`.

    Inputs that `outputs` do not depend on are left out. Raises KeyError for a tensor that the graph lacks.
    """
    graph, stops = model.graph, list(inputs)
    made = {name for node in graph.node for name in node.output}
    known = {v.name: v for v in [*graph.value_info, *graph.input, *graph.output]}
    for name in [*stops, *outputs]:
        if name not in made and name not in known:
            raise KeyError(f"the graph has no tensor named {name}")
    needed = _reached(model, set(stops), outputs)
    part = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    part.graph.name = graph.name
    part.graph.node.extend(n for n in graph.node if needed.intersection(n.output) - set(stops))
    part.graph.initializer.extend(t for t in graph.initializer if t.name in needed)
    draws = [v.name for v in graph.input if v.name not in stops]
    part.graph.input.extend(known[n] for n in [*stops, *draws] if n in needed)
    part.graph.output.extend(known.get(n) or onnx.ValueInfoProto(name=n) for n in outputs)
    return part


def _reached(model: onnx.ModelProto, stops: set[str], outputs: Sequence[str]) -> set[str]:
    """Tensors that `outputs` depend on, not looking behind `stops`."""
    makers = {name: node for node in model.graph.node for name in node.output}
    seen: set[str] = set()
    todo = list(outputs)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in makers and name not in stops:
            todo.extend(makers[name].input)
    return seen
