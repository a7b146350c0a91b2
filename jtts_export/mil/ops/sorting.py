"""Sorted and cumulative values. Of equal values the first comes first; MIL leaves their order open."""

from collections.abc import Callable
from typing import Any

import torch

Tensor = torch.Tensor


def topk(
    x: Tensor,
    k: Tensor | int = 1,
    axis: Tensor | int = -1,
    ascending: Tensor | bool = False,
    sort: Tensor | bool = True,
    return_indices: Tensor | bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, Tensor]:
    """The k largest (or smallest) values along an axis, and their indices; k = -1 takes all."""
    position = int(axis)
    values, indices = x.sort(dim=position, descending=not bool(ascending), stable=True)
    count = x.shape[position] if int(k) == -1 else int(k)
    best = values.narrow(position, 0, count)
    return (best, indices.narrow(position, 0, count)) if bool(return_indices) else best


def argsort(x: Tensor, axis: Tensor | int = -1, ascending: Tensor | bool = False) -> Tensor:
    """The indices that sort x along an axis, from the largest down by default."""
    return x.argsort(dim=int(axis), descending=not bool(ascending), stable=True)


def cumsum(
    x: Tensor, axis: Tensor | int = 0, exclusive: Tensor | bool = False, reverse: Tensor | bool = False
) -> Tensor:
    """Running sums along an axis; exclusive ones leave out the element itself, reverse ones start at the end."""
    position = int(axis)
    ordered = x.flip(position) if bool(reverse) else x
    sums = ordered.cumsum(position)
    if bool(exclusive):
        zeros = torch.zeros_like(sums.narrow(position, 0, 1))
        sums = torch.cat((zeros, sums.narrow(position, 0, sums.shape[position] - 1)), position)
    return sums.flip(position) if bool(reverse) else sums


OPS: dict[str, Callable[..., Any]] = {"argsort": argsort, "cumsum": cumsum, "topk": topk}
