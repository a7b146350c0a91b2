"""File names within a release, as transformers.js asks for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jtts_export.errors import OutsideError

COREML, COREML_INT8 = "coreml", "coreml-int8"  # variants that are packages, and the folders that they lie in
VARIANT_SUFFIX = {"fp32": "", "fp16": "_fp16", "int8": "_quantized", "int8-fast": "_fast", "int4": "_q4"}


def graph_file(graph: str, variant: str) -> str:
    """Graph and variant -> path in a release: onnx/model, int8 -> onnx/model_quantized.onnx."""
    return f"{graph}{VARIANT_SUFFIX[variant]}.onnx"


def data_file(graph: Path) -> Path:
    """Where weights lie that a graph's own file does not hold."""
    return graph.with_name(f"{graph.name}_data")


def stored(graph: Path) -> list[Path]:
    """The files that a graph is held in."""
    return [path for path in (graph, data_file(graph)) if path.is_file()]


def released(release: Path, graphs: Iterable[str], variant: str) -> dict[str, Path]:
    """Graph -> file of a variant. Raises OutsideError where a release has none."""
    if variant not in VARIANT_SUFFIX:
        raise OutsideError(f"there is no variant '{variant}'; variants: {', '.join(VARIANT_SUFFIX)}")
    files = {graph: release / graph_file(graph, variant) for graph in graphs}
    if not all(path.is_file() for path in files.values()):
        raise OutsideError(f"{release} has no {variant} variant")
    return files
