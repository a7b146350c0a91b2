"""The one interface through which validation sees a backend: PyTorch, ONNX, and what comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Arrays = Mapping[str, np.ndarray]


class Runner(Protocol):
    """Runs a model and returns named intermediate tensors; a tap in `forced` takes the value given."""

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        """The tensors named in `wanted`, of one synthesis from `inputs`."""
        ...


@dataclass(frozen=True)
class Case:
    """One utterance: the graph's inputs, under a name that reports can show, and the text that it says."""

    name: str
    inputs: Arrays
    text: str = ""
