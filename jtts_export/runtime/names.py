"""File names within a release, as transformers.js asks for them."""

from __future__ import annotations

VARIANT_SUFFIX = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}


def graph_file(graph: str, variant: str) -> str:
    """Graph and variant -> path in a release: onnx/model_quantized.onnx."""
    return f"onnx/{graph}{VARIANT_SUFFIX[variant]}.onnx"
