"""What a CoreML stage is: a module that becomes a package, and the protocol by which one is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from jtts_export.exporters.model import Config, Loaded
    from jtts_export.validate.runner import Runner

Dtype = Literal["fp32", "fp16", "int32"]
Units = Literal["CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE", "ALL"]
Target = Literal["iOS17", "iOS18", "macOS15"]
TARGETS: tuple[Target, ...] = ("iOS17", "iOS18", "macOS15")
DEFAULT_TARGET: Target = "iOS18"
MAIN = "main"

State = dict[str, "np.ndarray"]


@dataclass(frozen=True)
class Length:
    """A flexible dimension, both ends included."""

    least: int
    most: int
    example: int


@dataclass(frozen=True)
class Tensor:
    """An input, output or state of a function. Shapes of outputs are for people, and may name an axis."""

    name: str
    shape: tuple[int | Length | str, ...]
    description: str
    dtype: Dtype = "fp32"


@dataclass(frozen=True)
class Function:
    """One computation of a package. The module takes `inputs` in their order, all of them tensors of the dtypes given
    (fp16 ones as fp32), and returns `outputs` in theirs; `states` are buffers of the module, by their names."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    states: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A package: coreml/<name>.mlpackage. Functions of one package share their weights, and its first is the default.

    precision: what it computes in. units: where it runs best. schemes: how its weights may be held in an int8 set,
    the smallest first; none for a stage that stays as it is. skip: parts of names of weights that stay as they are.
    """

    name: str
    description: str
    functions: Mapping[str, Function]
    precision: Literal["fp16", "fp32"] = "fp16"
    units: Units = "CPU_AND_NE"
    schemes: tuple[str, ...] = ("linear8",)
    skip: tuple[str, ...] = ()


class Network(Protocol):
    """A stage that runs: a package interpreted, one that CoreML predicts, or the module it was converted from."""

    def run(
        self, inputs: Mapping[str, np.ndarray], function: str = MAIN, state: State | None = None
    ) -> dict[str, np.ndarray]:
        """Outputs by name; `state` is changed in place."""
        ...

    def new_state(self, function: str = MAIN) -> State:
        """Zeros for every state of a function."""
        ...


Networks = Mapping[str, Network]


def has(network: Network, function: str) -> bool:
    """Whether a stage was made with a function: packages for iOS 17 have one."""
    try:
        network.new_state(function)
    except KeyError:
        return False
    return True


def cache_names(layers: int) -> list[tuple[str, str]]:
    """Of keys and values, layer by layer."""
    return [(f"key_{number}", f"value_{number}") for number in range(layers)]


@dataclass(frozen=True)
class Export:
    """How a model comes to CoreML.

    stages: of a checkpoint, for a target. runner: chains them as an app would, given networks by stage and the
    checkpoint's config; its taps are those of the model's parity. chain: steps of that, for people, in Markdown.
    lengths: stage -> function by the length it takes, of stages made in buckets.
    """

    stages: Callable[[Loaded, Target], Sequence[Stage]]
    runner: Callable[[Networks, Config], Runner]
    chain: str
    lengths: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
