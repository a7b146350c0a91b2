"""File names within a release, as transformers.js asks for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from jtts_export.errors import OutsideError

VARIANT_SUFFIX = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}


def graph_file(graph: str, variant: str) -> str:
    """Graph and variant -> path in a release: onnx/model, int8 -> onnx/model_quantized.onnx."""
    return f"{graph}{VARIANT_SUFFIX[variant]}.onnx"


def released(release: Path, graphs: Iterable[str], variant: str) -> dict[str, Path]:
    """Graph -> file of a variant. Raises OutsideError where a release has none."""
    if variant not in VARIANT_SUFFIX:
        raise OutsideError(f"there is no variant '{variant}'; variants: {', '.join(VARIANT_SUFFIX)}")
    files = {graph: release / graph_file(graph, variant) for graph in graphs}
    if not all(path.is_file() for path in files.values()):
        raise OutsideError(f"{release} has no {variant} variant")
    return files
