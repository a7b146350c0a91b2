"""The runtime of each model, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """A variant's graphs, loaded: tensors in, audio out."""

    def speak(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """One utterance, float32 [samples]."""
        ...


def engine(model: str, files: Mapping[str, Path], threads: int) -> Engine:
    """Load graphs (name -> file) of a model."""
    return import_module(f"jtts_export.runtime.{model}").Engine(files, threads)


def runtime(model: str) -> Any:
    """The class that speaks text with a release of a model."""
    return import_module(f"jtts_export.runtime.{model}").Runtime
