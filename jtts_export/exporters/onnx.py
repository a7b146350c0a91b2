"""PyTorch module -> ONNX, with the names a Graph declares."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

import jtts_export
from jtts_export.optimize import tidy
from jtts_export.runtime.names import data_file

from .graph import DEFAULT_OPSET, Graph

EXTERNAL_BYTES = 1 << 14  # of the smallest weight in a file beside the graph's
PAGE = 4096  # where such weights begin, so that they can be mapped into memory
_LSTM_WEIGHTS = {1: "W", 2: "R", 3: "B"}


def export(
    graph: Graph,
    module: nn.Module,
    example: Mapping[str, Tensor],
    folder: Path,
    opset: int = DEFAULT_OPSET,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Trace `module` and save it as `<graph>.onnx` below a folder.

    module: takes the graph's inputs, then its draws, and returns its outputs, then its taps, as a tuple.
    example: a value of every input; sizes on dynamic axes are arbitrary.
    """
    path = folder / f"{graph.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [*graph.inputs, *graph.draws]
    tensors = [*(example[n] for n in graph.inputs), *map(torch.from_numpy, graph.draws.values())]
    produced = {**graph.outputs, **graph.taps}
    axes = {n: dict(a) for n, a in {**graph.inputs, **produced}.items() if a}
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            module.eval(),
            tuple(tensors),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=names,
            output_names=list(produced),
            dynamic_axes=axes,
        )
    model = ir.load(path)
    _bake(model, graph)
    tidy(model)
    name_weights(model)
    model.metadata_props.update(metadata or {})
    save(model, path)


def save(model: ir.Model, path: Path, external: bool = False) -> None:
    """Write in one file, checked. `external`: weights one by one into data_file(path), where `model` reads them
    from then on; a graph of more than 2 GB cannot be saved otherwise."""
    model.producer_name, model.producer_version = "jtts-export", jtts_export.__version__
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        data, large = data_file(path).name, EXTERNAL_BYTES
        ir.external_data.unload_from_model(model, path.parent, data, size_threshold_bytes=large,
                                              alignment=PAGE, align_threshold=0)  # fmt: skip
    proto = ir.to_proto(model)
    # An initializer says its own type and shape; saying it twice breaks tools that reshape weights.
    stored = {tensor.name for tensor in proto.graph.initializer}
    inner = [value for value in proto.graph.value_info if value.name not in stored]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(inner)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)


class Scoped(nn.Module):
    """A network whose weights get the prefix that recipes know them by: Scoped(encoder=...)."""

    def __init__(self, **networks: nn.Module) -> None:
        super().__init__()
        ((self._name, network),) = networks.items()
        self.add_module(self._name, network)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return getattr(self, self._name)(*inputs)


def _bake(model: ir.Model, graph: Graph) -> None:
    """Taps are no outputs; draws are initializers, still listed as inputs so that they can be overridden."""
    outputs = model.graph.outputs
    for value in [v for v in outputs if v.name in graph.taps]:
        outputs.remove(value)
    for value in model.graph.inputs:
        if value.name is not None and value.name in graph.draws:
            value.const_value = ir.tensor(graph.draws[value.name], name=value.name)
            model.graph.register_initializer(value)


def name_weights(model: ir.Model) -> None:
    """Give every weight the parameter name that recipes match: `decoder.encode.conv1.weight`.

    The tracer renames what it transposes (`onnx::MatMul_812`); the node that uses it still knows its scope.
    """
    taken = {v.name for v in model.graph.initializers.values()}
    for node in model.graph:
        scope = re.sub(r"/[^/]*$", "", node.name or "").strip("/").replace("/", ".")
        for index, value in enumerate(node.inputs):
            if value is None or not value.is_initializer() or "::" not in (value.name or ""):
                continue
            suffix = _LSTM_WEIGHTS.get(index, str(index)) if node.op_type == "LSTM" else "weight"
            name, n = f"{scope}.{suffix}", 1
            while name in taken:
                name, n = f"{scope}.{suffix}.{n}", n + 1
            taken.add(name)
            _rename(model.graph, value, name)
    for value in list(model.graph.initializers.values()):
        if (value.name or "").startswith("model."):
            _rename(model.graph, value, (value.name or "").removeprefix("model."))


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    assert value.name is not None
    del graph.initializers[value.name]
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    graph.initializers[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """The tracing exporter warns about its own age and about shapes that are constant on purpose."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
