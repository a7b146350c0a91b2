"""Reading of parameters that MIL passes as constants."""

from collections.abc import Mapping
from typing import TypeVar

import torch

from jtts_export.mil.errors import UnknownParameter

Choice = TypeVar("Choice")


def ints(tensor: torch.Tensor | None, default: list[int] | None = None) -> list[int]:
    """The numbers of an integer tensor of rank 0 or 1; `default` (or []) where the parameter is left out."""
    if tensor is None:
        return list(default or [])
    return [int(number) for number in tensor.reshape(-1).tolist()]


def bools(tensor: torch.Tensor | None, count: int) -> list[bool]:
    """The flags of a bool tensor; all False where the parameter is left out."""
    return [False] * count if tensor is None else [bool(flag) for flag in tensor.reshape(-1).tolist()]


def choose(parameter: str, value: str, choices: Mapping[str, Choice]) -> Choice:
    """The choice named `value`. Raises `UnknownParameter` for any other name."""
    if value not in choices:
        raise UnknownParameter(f"{parameter} = {value!r} is not one of {', '.join(choices)}")
    return choices[value]


def along(vector: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    """A vector as a tensor of `rank` dimensions, all 1 but `axis`; scalars stay scalars."""
    if vector.ndim == 0:
        return vector
    shape = [1] * rank
    shape[axis] = -1
    return vector.reshape(shape)
