"""onnxruntime sessions, made in one place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# From 1.29 on it reports to its maker and leaves an id in the user's cache; read once, when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

ort.set_default_logger_severity(3)  # a baked draw that can be overridden is warned about at every load


def session(
    model: Path | bytes, threads: int = 0, optimize: bool = True, among_others: bool = False, arena: bool = True
) -> ort.InferenceSession:
    """A CPU session on `threads` threads (0: one a core). Raises onnxruntime's own errors.

    among_others: one of several that run by turns. Idle threads of one would go on spinning while the next one
    needs the cores. (Not by session.intra_op.spin_duration_us: with it, onnxruntime 1.31 was seen to hang.)
    arena: keep what a run allocated for the next. It grows with every new length, and never shrinks.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    if among_others:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def open_graph(
    model: Path | onnx.ModelProto, threads: int, optimize: bool = True, arena: bool = True
) -> ort.InferenceSession:
    """A session on a file, or on a graph in memory."""
    return session(model if isinstance(model, Path) else model.SerializeToString(), threads, optimize, arena=arena)


def session_from_model(model: ir.Model, threads: int = 0) -> ort.InferenceSession:
    """A session on a graph that is still in memory."""
    import onnx_ir as ir

    return session(ir.to_proto(model).SerializeToString(), threads)
