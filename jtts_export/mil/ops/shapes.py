"""Reordering of elements: reshapes, transpositions, concatenations, paddings."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from jtts_export.mil.errors import BadIndex, UnknownParameter
from jtts_export.mil.ops.arguments import choose, ints

Tensor = torch.Tensor


def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """x in another shape; 0 keeps the size of x's dimension counted from the right (1 past its rank)."""
    sizes = ints(shape)
    for back in range(1, len(sizes) + 1):
        if sizes[-back] == 0:
            sizes[-back] = x.shape[-back] if back <= x.ndim else 1
    return x.reshape(sizes)


def reshape_like(
    x: Tensor,
    ref_tensors: tuple[Tensor, ...],
    begins: tuple[Tensor, ...],
    ends: tuple[Tensor, ...],
    end_masks: tuple[Tensor, ...],
) -> Tensor:
    """x in the shape made of parts of the shapes of other tensors."""
    sizes: list[int] = []
    for reference, begin, end, open_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += reference.shape[int(begin) : None if bool(open_end) else int(end)]
    return x.reshape(sizes)


def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """x with dimensions of 1 at `axes` of the result."""
    rank = x.ndim + axes.numel()
    for axis in sorted(axis % rank for axis in ints(axes)):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """x without the dimensions of 1 among `axes` (all by default)."""
    return x.squeeze(ints(axes, list(range(x.ndim))))


def concat(values: tuple[Tensor, ...], axis: Tensor, interleave: Tensor | bool = False) -> Tensor:
    """Tensors one after another along an axis, or their slices in turn; scalars make a vector."""
    tensors = [value.reshape(1) if value.ndim == 0 else value for value in values]
    position = int(axis) % tensors[0].ndim
    if not bool(interleave):
        return torch.cat(tensors, position)
    return torch.stack(tensors, position + 1).flatten(position, position + 1)


def split(
    x: Tensor, axis: Tensor, num_splits: Tensor | None = None, split_sizes: Tensor | None = None
) -> tuple[Tensor, ...]:
    """x in parts along an axis: of given sizes, or in a number of equal ones."""
    position = int(axis)
    if split_sizes is not None:
        return torch.split(x, ints(split_sizes), position)
    if num_splits is None:
        raise UnknownParameter("neither sizes nor a number of parts")
    return torch.split(x, x.shape[position] // int(num_splits), position)


def pad(x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | float = 0.0) -> Tensor:
    """x with elements before and after its last dimensions; `pad` is in the order of the dimensions."""
    flat = ints(pad)
    amounts = list(zip(flat[::2], flat[1::2], strict=True))
    numpy_mode = choose("mode", mode, {"constant": "", "reflect": "reflect", "replicate": "edge"})
    if not numpy_mode:
        order = [number for pair in reversed(amounts) for number in pair]
        return F.pad(x, order, value=float(constant_val))
    for axis, (before, after) in enumerate(amounts, x.ndim - len(amounts)):
        size = x.shape[axis]
        if mode == "reflect" and max(before, after) >= size:
            raise BadIndex(f"a reflection of {max(before, after)} elements of a dimension of {size}")
        if before or after:
            positions = np.pad(np.arange(size), (before, after), numpy_mode)  # type: ignore[call-overload]
            x = x.index_select(axis, torch.from_numpy(positions))
    return x


def reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: Tensor | int = 0, batch_axis: Tensor | int = 0) -> Tensor:
    """x with the first `lengths[i]` elements of item i along `seq_axis` in reverse order."""
    sequence, batch = int(seq_axis) % x.ndim, int(batch_axis) % x.ndim
    items = []
    for item, length in zip(x.split(1, batch), ints(lengths), strict=True):
        head, tail = item.split([length, item.shape[sequence] - length], sequence)
        items.append(torch.cat((head.flip(sequence), tail), sequence))
    return torch.cat(items, batch)


def flatten2d(x: Tensor, axis: Tensor | int = 1) -> Tensor:
    """x as a matrix: the dimensions before `axis` times those from it on."""
    return x.reshape(math.prod(x.shape[: int(axis)]), math.prod(x.shape[int(axis) :]))


def depth_to_space(x: Tensor, block_size: Tensor) -> Tensor:
    """x `[n, c, h, w]` -> `[n, c / b², h b, w b]`; blocks vary slower than channels, as in TensorFlow."""
    n, c, h, w = x.shape
    b = int(block_size)
    return x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(x: Tensor, block_size: Tensor) -> Tensor:
    """x `[n, c, h, w]` -> `[n, c b², h / b, w / b]`; the inverse of `depth_to_space`."""
    n, c, h, w = x.shape
    b = int(block_size)
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def sliding_windows(x: Tensor, axis: Tensor, size: Tensor, stride: Tensor | int = 1) -> Tensor:
    """Windows of `size` elements along `axis`; the elements are the axis after it."""
    position = int(axis) % x.ndim
    return x.unfold(position, int(size), int(stride)).movedim(-1, position + 1)


def reverse(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """x in reverse order along `axes` (all by default)."""
    return x.flip(ints(axes, list(range(x.ndim))))


OPS: dict[str, Callable[..., Any]] = {
    "concat": concat,
    "depth_to_space": depth_to_space,
    "expand_dims": expand_dims,
    "flatten2d": flatten2d,
    "pad": pad,
    "pixel_shuffle": lambda x, upscale_factor: F.pixel_shuffle(x, int(upscale_factor)),
    "pixel_unshuffle": lambda x, downscale_factor: F.pixel_unshuffle(x, int(downscale_factor)),
    "reshape": reshape,
    "reshape_like": reshape_like,
    "reverse": reverse,
    "reverse_sequence": reverse_sequence,
    "sliding_windows": sliding_windows,
    "space_to_depth": space_to_depth,
    "split": split,
    "squeeze": squeeze,
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "tile": lambda x, reps: x.tile(ints(reps)),
    "transpose": lambda x, perm: x.permute(ints(perm)),
}
