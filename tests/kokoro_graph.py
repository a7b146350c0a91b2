"""A small Kokoro as a graph: exported once for all tests of a process, for reading only."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import onnx
import onnx_ir as ir
from kokoro_files import tiny_config

from jtts_export.exporters import kokoro
from jtts_export.exporters.graph import DEFAULT_OPSET
from jtts_export.exporters.model import Loaded
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.random import random_model, random_voices
from jtts_export.optimize import optimize
from jtts_export.runtime.taps import OnnxRunner
from jtts_export.validate.runner import Case


@cache
def loaded() -> Loaded:
    """The checkpoint in memory."""
    cfg = KokoroConfig.model_validate(tiny_config())
    voices = {name: voice.numpy() for name, voice in random_voices(0, cfg).items()}
    return Loaded(tiny_config(), random_model(0, cfg), voices)


@cache
def exported(opset: int = DEFAULT_OPSET) -> bytes:
    """The file that export writes."""
    return export(loaded(), opset).SerializeToString(deterministic=True)


def export(checkpoint: Loaded, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """The same of another checkpoint, not remembered."""
    with tempfile.TemporaryDirectory() as folder:
        kokoro.export(checkpoint, Path(folder), opset)
        return onnx.load(Path(folder) / f"{kokoro.GRAPH.name}.onnx")


def traced() -> ir.Model:
    """The exported graph, for changing."""
    return ir.from_proto(onnx.ModelProto.FromString(exported()))


def optimized() -> ir.Model:
    """The exported graph after every rewrite, for changing."""
    model = traced()
    optimize(model)
    return model


def runner(model: ir.Model | onnx.ModelProto, optimize: bool = True) -> OnnxRunner:
    """A graph, cut at its taps, on one thread."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    return kokoro.runner({kokoro.GRAPH.name: proto}, 1, optimize)


def cases(purpose: str) -> list[Case]:
    """The built-in utterances."""
    return kokoro.cases(loaded().config, loaded().voices, purpose)
