"""What a model must provide so that the pipeline can take it through every stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jtts_export.models.source import Source
from jtts_export.quantize.schemes import Recipe
from jtts_export.validate.parity import Parity
from jtts_export.validate.runner import Case, Runner

Config = Mapping[str, Any]
Voices = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory: the authors' config, the PyTorch module, and its voices or speakers."""

    config: Config
    module: Any
    voices: Voices


@dataclass(frozen=True)
class Model:
    """A family of checkpoints that can be exported. Functions, so that adding a model is one file.

    load: reads a checkpoint.
    export: writes fp32 ONNX to a path, with an opset.
    reference: the PyTorch runner, on a number of threads, with a seed of its noise, in float64 or not.
    client_files: writes what clients need beside the graphs into a folder; assets reads config and voices
    back from there.
    cases: utterances to "calibration", "search" or "validation" ends, which share none; "timed" ones, shortest
    first; a "brief" one.
    speaker: a runtime on one graph file; calling it speaks the built-in text up to the first audio.
    """

    graph: str
    load: Callable[[Source], Loaded]
    export: Callable[[Loaded, Path, int], None]
    reference: Callable[[Loaded, int, int, bool], Runner]
    client_files: Callable[[Path, Config, Voices], object]
    assets: Callable[[Path], tuple[Config, Voices]]
    cases: Callable[[Config, Voices, str], Sequence[Case]]
    speaker: Callable[[Path, Config, Voices, int], Callable[[], object]]
    parity: Parity
    recipes: Mapping[str, Recipe]
