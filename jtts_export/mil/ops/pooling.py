"""Pools over windows of one, two and three dimensions."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from jtts_export.mil.ops.arguments import ints
from jtts_export.mil.ops.padding import flat_padding, spatial_padding

Tensor = torch.Tensor
_AVG: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    exclude_padding_from_average: Tensor | bool = False,
    ceil_mode: Tensor | bool = False,
) -> Tensor:
    """Means of windows of x `[batch, channels, *sizes]`; padding counts as zeros unless excluded."""
    rank = x.ndim - 2
    kernels, steps = ints(kernel_sizes), ints(strides, [1] * rank)
    amounts = spatial_padding(pad_type, pad, list(x.shape[2:]), kernels, steps)
    counts_padding = not bool(exclude_padding_from_average)
    if bool(ceil_mode):
        sides = [before for before, _ in amounts]
        return _AVG[rank](x, kernels, steps, sides, True, counts_padding)
    padded = _AVG[rank](F.pad(x, flat_padding(amounts)), kernels, steps)
    if counts_padding:
        return padded
    return padded / _AVG[rank](F.pad(torch.ones_like(x), flat_padding(amounts)), kernels, steps)


def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    ceil_mode: Tensor | bool = False,
) -> Tensor:
    """Maxima of windows of x `[batch, channels, *sizes]`; padding is never the maximum."""
    rank = x.ndim - 2
    kernels, steps = ints(kernel_sizes), ints(strides, [1] * rank)
    amounts = spatial_padding(pad_type, pad, list(x.shape[2:]), kernels, steps)
    if bool(ceil_mode):
        return _MAX[rank](x, kernels, steps, [before for before, _ in amounts], ceil_mode=True)
    return _MAX[rank](F.pad(x, flat_padding(amounts), value=-math.inf), kernels, steps)


OPS: dict[str, Callable[..., Any]] = {"avg_pool": avg_pool, "max_pool": max_pool}
