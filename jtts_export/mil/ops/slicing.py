"""Slices and updates of slices."""

from collections.abc import Callable
from typing import Any

import torch

from jtts_export.mil.errors import BadIndex
from jtts_export.mil.ops.arguments import bools, ints

Tensor = torch.Tensor


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """x[begin:end:stride] in every dimension, with Python's rules; see `_ranges` for the masks."""
    ranges = _ranges(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    for axis, chosen in enumerate(ranges):
        x = _take(x, axis, chosen)
    squeezed = bools(squeeze_mask, x.ndim)
    return x.squeeze([axis for axis, flag in enumerate(squeezed) if flag]) if any(squeezed) else x


def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """`size` elements from `begin` on in every dimension; -1 takes the rest."""
    for axis, (first, count) in enumerate(zip(ints(begin), ints(size), strict=True)):
        start = first + x.shape[axis] if first < 0 else first
        length = x.shape[axis] - start if count == -1 else count
        if start < 0 or length < 0 or start + length > x.shape[axis]:
            raise BadIndex(f"{length} elements from {start} of a dimension of {x.shape[axis]}")
        x = x.narrow(axis, start, length)
    return x


def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """A copy of x with `update` in the place of the slice; the parameters are those of `slice_by_index`."""
    ranges = _ranges(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    result = x.clone()
    target = result
    for axis, chosen in enumerate(ranges):
        # Written last element first, a slice of negative stride is one of positive stride.
        target = _take(target, axis, chosen if chosen.step > 0 else chosen[::-1])
    flips = [axis for axis, chosen in enumerate(ranges) if chosen.step < 0]
    target.copy_(update.reshape([len(chosen) for chosen in ranges]).flip(flips))
    return result


def _ranges(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> list[range]:
    """The positions taken of each dimension.

    A mask of `begin` or `end` makes that side open; a squeezed dimension takes the one element at `begin`.
    """
    sides = zip(
        x.shape,
        ints(begin),
        ints(end),
        ints(stride, [1] * x.ndim),
        bools(begin_mask, x.ndim),
        bools(end_mask, x.ndim),
        bools(squeeze_mask, x.ndim),
        strict=True,
    )
    ranges = []
    for size, first, last, step, open_begin, open_end, squeezed in sides:
        if squeezed:
            position = 0 if open_begin else first + size if first < 0 else first
            if not 0 <= position < size:
                raise BadIndex(f"element {first} of a dimension of {size}")
            ranges.append(range(position, position + 1))
            continue
        chosen = slice(None if open_begin else first, None if open_end else last, step)
        ranges.append(range(*chosen.indices(size)))
    return ranges


def _take(x: Tensor, axis: int, chosen: range) -> Tensor:
    if chosen.step < 0:
        return x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))
    index: list[slice] = [slice(None)] * axis
    return x[(*index, slice(chosen.start, max(chosen.start, chosen.stop), chosen.step))]


OPS: dict[str, Callable[..., Any]] = {
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "slice_update": slice_update,
}
