"""The runtime of each model, by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """A variant's graphs, loaded: tensors in, audio (or tokens, of a model that makes those) out. Threads may share
    it."""

    def speak(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """One utterance, float32 [samples] or int64 [tokens]."""
        ...

    def stream(self, inputs: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
        """The same in pieces, as they are made."""
        ...


def engine(model: str, files: Mapping[str, Path], threads: int) -> Engine:
    """Load graphs (name -> file) of a model."""
    return import_module(f"jtts_export.runtime.{model}").Engine(files, threads)


def runtime(model: str) -> Any:
    """The class that speaks text with a release of a model."""
    return import_module(f"jtts_export.runtime.{model}").Runtime
