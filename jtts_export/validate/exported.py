"""fp32's graphs against a new export, node by node and weight by weight.

What fp32 says is compared with the reference, but in a trained network there are weights of which no utterance hangs
by much; and fp32 is what the other variants are compared with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from jtts_export.exporters.onnx import save
from jtts_export.optimize import optimize

if TYPE_CHECKING:
    from jtts_export.exporters.model import Loaded, Model


class NewExport:
    """One checkpoint's graphs, made again when they are first asked for, and kept."""

    def __init__(self) -> None:
        self._folders: dict[int, tempfile.TemporaryDirectory[str]] = {}  # by opset

    def like(self, files: Mapping[str, Path], model: Model, loaded: Loaded) -> dict[str, Path]:
        """Graph -> file, in the opset of these."""
        opset = ir.load(files[model.graphs[0]]).opset_imports[""]
        if opset not in self._folders:
            folder = tempfile.TemporaryDirectory(prefix="jtts-export-")
            _make(Path(folder.name), model, loaded, opset)
            self._folders[opset] = folder
        return {graph: Path(self._folders[opset].name, f"{graph}.onnx") for graph in model.graphs}


def _make(folder: Path, model: Model, loaded: Loaded, opset: int) -> None:
    with tempfile.TemporaryDirectory(prefix="jtts-export-") as traced:
        model.export(loaded, Path(traced), opset)
        for name in model.graphs:
            graph = ir.load(Path(traced, f"{name}.onnx"))
            optimize(graph)
            save(graph, folder / f"{name}.onnx", name in model.external)


def weight_error(expected: Path, given: Path) -> float:
    """Largest difference of two graphs' constants of one name, relative to the largest value of that constant;
    infinite where one has none of a name, or other integers, another form or what is not finite."""
    there, here = (ir.load(path).graph.initializers for path in (expected, given))
    if set(there) != set(here):
        return float("inf")
    return max((_error(_array(there[name]), _array(here[name])) for name in there), default=0.0)


def _array(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def _error(expected: np.ndarray, given: np.ndarray) -> float:
    if expected.dtype != given.dtype or expected.shape != given.shape:
        return float("inf")
    if np.array_equal(expected, given):
        return 0.0
    if expected.dtype.kind != "f":
        return float("inf")
    error = float(np.abs(expected - given).max() / np.abs(expected).max())
    return error if np.isfinite(error) else float("inf")
