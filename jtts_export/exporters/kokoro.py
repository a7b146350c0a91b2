"""Kokoro's graph: one network, phoneme tokens to waveform, that three public clients can load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jtts_export.models.kokoro.model import TAPS, Kokoro
from jtts_export.runtime.draws import NOISE_SCALE, source_noise

from . import onnx
from .graph import Graph
from .kokoro_clients import graph_metadata

GRAPH = Graph(
    name="model",
    inputs={"input_ids": {1: "tokens"}, "style": {}, "speed": {}},
    outputs={"waveform": {1: "samples"}, "duration": {1: "tokens"}},
    taps={"f0": {1: "curve"}, "n": {1: "curve"}, "har": {2: "spectra"}},
    draws={"source_noise": source_noise()},
)
assert {*GRAPH.outputs, *GRAPH.taps} == {*TAPS}
EXAMPLE_TOKENS = 20


class _Positional(nn.Module):
    """Tensors in, tensors out, as tracing wants them."""

    def __init__(self, model: Kokoro) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, style: Tensor, speed: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        taps = self.model(input_ids, style, speed, noise.float() * NOISE_SCALE)
        return tuple(taps[name] for name in (*GRAPH.outputs, *GRAPH.taps))


def export(
    model: Kokoro, raw_config: Mapping, voices: Mapping[str, np.ndarray], path: Path, opset: int
) -> None:
    """fp32 ONNX with dynamic length, float `speed`, baked noise, and the metadata clients read."""
    cfg = model.cfg
    ids = torch.arange(EXAMPLE_TOKENS) % (cfg.n_token - 1) + 1
    example = {
        "input_ids": torch.nn.functional.pad(ids, (1, 1))[None],
        "style": torch.zeros(1, 2 * cfg.style_dim),
        "speed": torch.ones(1),
    }
    onnx.export(GRAPH, _Positional(model), example, path, opset, graph_metadata(raw_config, voices))
