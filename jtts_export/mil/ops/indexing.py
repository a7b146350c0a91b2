"""Gathers and scatters.

Up to iOS 16 (opset 6) a negative index counts from the end; from iOS 17 on it is out of range like an index past
the end, and what Core ML makes of it is undefined, so that here it is `BadIndex` whatever `validate_indices` says.
"""

from collections.abc import Callable
from typing import Any

import torch

from jtts_export.mil.errors import BadIndex, UnknownParameter
from jtts_export.mil.ops.arguments import choose

Tensor = torch.Tensor
_FIRST_WITHOUT_NEGATIVE = 7
_REDUCTIONS = {"update": "", "add": "sum", "sub": "sum", "mul": "prod", "div": "prod", "max": "amax", "min": "amin"}


def gather(
    x: Tensor,
    indices: Tensor,
    opset: int,
    axis: Tensor | int = 0,
    batch_dims: Tensor | int = 0,
    validate_indices: Tensor | bool = False,
) -> Tensor:
    """x[:axis] + indices[batch_dims:] + x[axis + 1:], the slices of x along an axis."""
    position, batch = int(axis) % x.ndim, int(batch_dims)
    chosen = _positions(indices, x.shape[position], opset)
    if batch == 0:
        taken = x.index_select(position, chosen.reshape(-1))
        return taken.reshape((*x.shape[:position], *chosen.shape, *x.shape[position + 1 :]))
    rows = x.flatten(0, batch - 1)
    picked = [
        row.index_select(position - batch, row_indices.reshape(-1))
        for row, row_indices in zip(rows, chosen.flatten(0, batch - 1), strict=True)
    ]
    return torch.stack(picked).reshape((*x.shape[:position], *chosen.shape[batch:], *x.shape[position + 1 :]))


def gather_along_axis(
    x: Tensor, indices: Tensor, opset: int, axis: Tensor | int = 0, validate_indices: Tensor | bool = False
) -> Tensor:
    """One element of x along an axis for every index; the result has the shape of `indices`."""
    position = int(axis)
    return x.gather(position, _positions(indices, x.shape[position], opset))


def gather_nd(
    x: Tensor,
    indices: Tensor,
    opset: int,
    batch_dims: Tensor | int = 0,
    validate_indices: Tensor | bool = False,
) -> Tensor:
    """The slices of x at the index vectors in the last axis of `indices`."""
    batch = int(batch_dims)
    flat, chosen, rest = _flat_positions(x, indices, batch, opset)
    return flat.index_select(0, chosen.reshape(-1)).reshape((*indices.shape[:-1], *rest))


def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: str,
    opset: int,
    axis: Tensor | int = 0,
    validate_indices: Tensor | bool = False,
) -> Tensor:
    """data with slices along an axis combined with `updates`; MIL's texts disagree on the default mode."""
    position = int(axis) % data.ndim
    chosen = _positions(indices, data.shape[position], opset)
    shape = [1] * data.ndim
    shape[position] = -1
    return _combine(data, position, chosen.reshape(shape).expand_as(updates), updates, mode)


def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    opset: int,
    axis: Tensor | int = 0,
    mode: str = "add",
    validate_indices: Tensor | bool = False,
) -> Tensor:
    """data with one element along an axis combined with each element of `updates`."""
    position = int(axis) % data.ndim
    return _combine(data, position, _positions(indices, data.shape[position], opset), updates, mode)


def scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    opset: int,
    mode: str = "add",
    validate_indices: Tensor | bool = False,
) -> Tensor:
    """data with the slices at the index vectors of `indices` combined with `updates`."""
    flat, chosen, rest = _flat_positions(data, indices, 0, opset)
    rows = updates.reshape(-1, *rest)
    spread = chosen.reshape(-1, *[1] * len(rest)).expand_as(rows)
    return _combine(flat, 0, spread, rows, mode).reshape(data.shape)


def _positions(indices: Tensor, size: int, opset: int) -> Tensor:
    wide = indices.to(torch.int64)
    lowest = 0 if opset >= _FIRST_WITHOUT_NEGATIVE else -size
    if wide.numel() and not (lowest <= int(wide.min()) and int(wide.max()) < size):
        raise BadIndex(f"indices from {int(wide.min())} to {int(wide.max())} of a dimension of {size}")
    return torch.where(wide < 0, wide + size, wide)


def _flat_positions(x: Tensor, indices: Tensor, batch: int, opset: int) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """x with its batch and indexed dimensions as one, the positions in it, and the dimensions of a slice."""
    depth = indices.shape[-1]
    chosen = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for axis in range(batch):
        shape = [1] * chosen.ndim
        shape[axis] = -1
        chosen = chosen * x.shape[axis] + torch.arange(x.shape[axis]).reshape(shape)
    for axis in range(depth):
        size = x.shape[batch + axis]
        chosen = chosen * size + _positions(indices[..., axis], size, opset)
    rest = tuple(x.shape[batch + depth :])
    return x.reshape(-1, *rest), chosen, rest


def _combine(data: Tensor, axis: int, index: Tensor, updates: Tensor, mode: str) -> Tensor:
    reduction = choose("mode", mode, _REDUCTIONS)
    if not reduction:
        return data.scatter(axis, index, updates)
    if mode == "div":
        if not data.is_floating_point():
            raise UnknownParameter("mode = 'div' is not defined for integers")
        return data / torch.ones_like(data).scatter_reduce(axis, index, updates, "prod")
    return data.scatter_reduce(axis, index, -updates if mode == "sub" else updates, reduction)


OPS: dict[str, Callable[..., Any]] = {
    "gather": gather,
    "gather_along_axis": gather_along_axis,
    "gather_nd": gather_nd,
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
}
