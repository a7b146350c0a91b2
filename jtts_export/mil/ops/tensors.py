"""Tensors made of shapes, ranges and conditions."""

from collections.abc import Callable
from typing import Any

import torch

from jtts_export.mil.ops.arguments import ints

Tensor = torch.Tensor


def band_part(x: Tensor, lower: Tensor | int = -1, upper: Tensor | int = -1) -> Tensor:
    """x with zeros outside a band of its last two dimensions; a negative width keeps that side."""
    rows, columns = x.shape[-2:]
    offset = torch.arange(rows)[:, None] - torch.arange(columns)
    inside = torch.ones_like(offset, dtype=torch.bool)
    if int(lower) >= 0:
        inside &= offset <= int(lower)
    if int(upper) >= 0:
        inside &= -offset <= int(upper)
    return torch.where(inside, x, torch.zeros((), dtype=x.dtype))


def one_hot(
    indices: Tensor,
    one_hot_vector_size: Tensor,
    axis: Tensor | int = -1,
    on_value: Tensor | int = 1,
    off_value: Tensor | int = 0,
) -> Tensor:
    """`on_value` at each index along a new axis, `off_value` elsewhere and everywhere for an index out of range."""
    on, off = torch.as_tensor(on_value), torch.as_tensor(off_value)
    hot = indices[..., None] == torch.arange(int(one_hot_vector_size))
    return torch.where(hot, on, off).movedim(-1, int(axis))


def range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    """Numbers from `start` to before `end`."""
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def fill(shape: Tensor, value: Tensor | float = 0.0) -> Tensor:
    """A tensor of one value."""
    return torch.as_tensor(value).expand(ints(shape))


def fill_like(ref_tensor: Tensor, value: Tensor | float = 0.0) -> Tensor:
    """A tensor of one value in the shape of another."""
    return torch.as_tensor(value).expand(ref_tensor.shape)


OPS: dict[str, Callable[..., Any]] = {
    "band_part": band_part,
    "fill": fill,
    "fill_like": fill_like,
    "non_zero": lambda x: x.nonzero(),
    "one_hot": one_hot,
    "range_1d": range_1d,
    "select": lambda cond, a, b: torch.where(cond, a, b),
    "shape": lambda x: torch.tensor(x.shape, dtype=torch.int32),
}
