"""What the stages of a CoreML export are given, and make, while a whole synthesis runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from jtts_export.exporters.coreml.stage import MAIN, Network, State

CALLS = 2  # of each function that are kept


@dataclass(frozen=True)
class Call:
    """What a function was given and what it made. before, after: the state, in fp16, as packages hold it."""

    function: str
    inputs: Mapping[str, np.ndarray]
    before: State
    outputs: Mapping[str, np.ndarray]
    after: State


@dataclass
class Recorder:
    """Passes on to a network, and keeps the first CALLS of each function."""

    network: Network
    calls: list[Call] = field(default_factory=list)

    def run(
        self, inputs: Mapping[str, np.ndarray], function: str = MAIN, state: State | None = None
    ) -> dict[str, np.ndarray]:
        if sum(call.function == function for call in self.calls) >= CALLS:
            return self.network.run(inputs, function, state)
        before = copied(state, np.float16)
        outputs = self.network.run(inputs, function, state)
        self.calls.append(Call(function, copied(inputs), before, copied(outputs), copied(state, np.float16)))
        return outputs

    def new_state(self, function: str = MAIN) -> State:
        return self.network.new_state(function)


@dataclass(frozen=True)
class Only:
    """A network of which some functions alone are there; others are a KeyError."""

    network: Network
    functions: frozenset[str]

    def run(
        self, inputs: Mapping[str, np.ndarray], function: str = MAIN, state: State | None = None
    ) -> dict[str, np.ndarray]:
        return self.network.run(inputs, self._known(function), state)

    def new_state(self, function: str = MAIN) -> State:
        return self.network.new_state(self._known(function))

    def _known(self, function: str) -> str:
        if function not in self.functions:
            raise KeyError(function)
        return function


def copied(arrays: Mapping[str, np.ndarray] | None, dtype: DTypeLike = None) -> dict[str, np.ndarray]:
    """dtype: None leaves them in theirs."""
    return {name: np.array(value, dtype) for name, value in (arrays or {}).items()}
