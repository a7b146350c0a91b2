"""What a graph is: a network's inputs, outputs and inner tensors, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

OPSETS = (17, 20)  # LayerNormalization came with 17; torch's tracing exporter ends at 20
DEFAULT_OPSET = 17

Axes = Mapping[int, str]  # dynamic axis -> symbol


@dataclass(frozen=True)
class Graph:
    """Declares one exported network. `name` is its path in a release, without suffix.

    `inputs` and `outputs` give each tensor's dynamic axes, in order. `taps` are inner tensors that keep
    their names, so that a graph can be cut there (runtime/taps.py) and judged stage by stage. `draws` are
    random draws baked in as initializers that a caller may override.
    """

    name: str
    inputs: Mapping[str, Axes]
    outputs: Mapping[str, Axes]
    taps: Mapping[str, Axes] = field(default_factory=dict)
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)
