"""Resizing of the last two dimensions.

Linear modes follow the formulas of the sampling modes in MIL's documentation of `resize_bilinear`. Nearest
neighbours have no formula there: only whole factors, where every convention agrees, are defined here.
"""

from collections.abc import Callable
from typing import Any

import torch

from jtts_export.mil.errors import UnknownParameter
from jtts_export.mil.ops.arguments import choose, ints

Tensor = torch.Tensor


def _strict_align_corners(size: int, count: int) -> Tensor:
    return torch.arange(count) * ((size - 1) / (count - 1) if count > 1 else 0.0)


def _align_corners(size: int, count: int) -> Tensor:
    return torch.tensor([(size - 1) / 2]) if count == 1 else _strict_align_corners(size, count)


def _default(size: int, count: int) -> Tensor:
    return torch.arange(count) * (size / count)


def _offset_corners(size: int, count: int) -> Tensor:
    delta = max(1, size - 1) / count
    return (torch.arange(count) + 0.5) * delta


def _unalign_corners(size: int, count: int) -> Tensor:
    return (torch.arange(count) + 0.5) * (size / count) - 0.5


_GRIDS: dict[str, Callable[[int, int], Tensor]] = {
    "ALIGN_CORNERS": _align_corners,
    "DEFAULT": _default,
    "OFFSET_CORNERS": _offset_corners,
    "STRICT_ALIGN_CORNERS": _strict_align_corners,
    "UNALIGN_CORNERS": _unalign_corners,
}


def resize_bilinear(
    x: Tensor,
    target_size_height: Tensor | int = 1,
    target_size_width: Tensor | int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """x `[..., h, w]` at other sizes, by linear interpolation."""
    return _linear(x, [int(target_size_height), int(target_size_width)], sampling_mode)


def resize_nearest_neighbor(x: Tensor, target_size_height: Tensor, target_size_width: Tensor) -> Tensor:
    """x `[..., h, w]` with every element repeated a whole number of times."""
    return _repeat(x, [int(target_size_height), int(target_size_width)])


def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: Tensor | float = 1, scale_factor_width: Tensor | float = 1
) -> Tensor:
    """x `[..., h, w]` with every element repeated a whole number of times."""
    return _repeat(x, _scaled(x, float(scale_factor_height), float(scale_factor_width)))


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor | float = 1,
    scale_factor_width: Tensor | float = 1,
    align_corners: Tensor | bool = True,
    half_pixel_centers: Tensor | None = None,
) -> Tensor:
    """x `[..., h, w]` scaled by linear interpolation; pixels have half centres unless corners are aligned."""
    aligned = bool(align_corners)
    half = not aligned if half_pixel_centers is None else bool(half_pixel_centers)
    if aligned and half:
        raise UnknownParameter("align_corners = half_pixel_centers = True is not defined here")
    mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS" if half else "DEFAULT"
    return _linear(x, _scaled(x, float(scale_factor_height), float(scale_factor_width)), mode)


def resize(
    x: Tensor,
    shape: Tensor,
    resized_dims: Tensor,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """The last `resized_dims` dimensions of x at the last sizes of `shape`; 0 keeps a size."""
    count = int(resized_dims)
    pairs = zip(ints(shape)[-count:], x.shape[-count:], strict=True)
    sizes = [wanted or size for wanted, size in pairs]
    choose("sampling_mode", sampling_mode, _GRIDS)
    how = choose("interpolation_mode", interpolation_mode, {"LINEAR": True, "NEAREST_NEIGHBOR": False})
    if not how and sampling_mode != "DEFAULT":
        raise UnknownParameter(f"nearest neighbours with sampling_mode = {sampling_mode!r} are not defined here")
    return _linear(x, sizes, sampling_mode) if how else _repeat(x, sizes)


def _scaled(x: Tensor, height: float, width: float) -> list[int]:
    return [int(x.shape[-2] * height), int(x.shape[-1] * width)]


def _repeat(x: Tensor, sizes: list[int]) -> Tensor:
    for axis, wanted in enumerate(sizes, x.ndim - len(sizes)):
        size = x.shape[axis]
        if wanted % size:
            raise UnknownParameter(f"nearest neighbours from {size} to {wanted} elements are not defined here")
        if wanted != size:
            x = x.repeat_interleave(wanted // size, axis)
    return x


def _linear(x: Tensor, sizes: list[int], sampling_mode: str) -> Tensor:
    grid = choose("sampling_mode", sampling_mode, _GRIDS)
    for axis, wanted in enumerate(sizes, x.ndim - len(sizes)):
        size = x.shape[axis]
        points = grid(size, wanted).clamp(0, size - 1)
        low = points.floor().to(torch.int64)
        high = (low + 1).clamp(max=size - 1)
        part = (points - low).reshape(-1, *[1] * (x.ndim - axis - 1))
        x = x.index_select(axis, low) * (1 - part) + x.index_select(axis, high) * part
    return x


OPS: dict[str, Callable[..., Any]] = {
    "resize": resize,
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
