"""Small graphs, written in onnx's text form, and how to run them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

from jtts_export.runtime.session import session_from_model

OPSET, IR_VERSION = 17, 8


def graph(text: str, constants: Mapping[str, np.ndarray] | None = None) -> ir.Model:
    """`(float[1,4,N] x) => (float[1,4,N] y) { y = Add(x, bias) }` with the initializers `bias`: ..."""
    parsed = onnx.parser.parse_graph(f"test {text}")
    for number, node in enumerate(parsed.node):
        node.name = f"{node.op_type}_{number}"
    parsed.initializer.extend(numpy_helper.from_array(a, n) for n, a in (constants or {}).items())
    model = onnx.helper.make_model(parsed, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return ir.from_proto(model)


def run(model: ir.Model, feed: Mapping[str, np.ndarray], wanted: Sequence[str] | None = None) -> list[np.ndarray]:
    """The outputs, on one thread."""
    return session_from_model(model, 1).run(wanted, dict(feed))


def ops(model: ir.Model) -> Counter[str]:
    """How many nodes of each kind."""
    return Counter(node.op_type for node in model.graph)


def ops_at_run_time(model: ir.Model, folder: Path) -> Counter[str]:
    """How many nodes of each kind remain once onnxruntime has folded and fused what it can."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4  # it warns that a saved graph may suit this machine only
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


def normal(seed: int, *shape: int) -> np.ndarray:
    """Unit normal float32."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
