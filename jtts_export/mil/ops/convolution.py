"""Convolutions of one, two and three dimensions."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from jtts_export.mil.errors import UnknownParameter
from jtts_export.mil.ops.arguments import ints
from jtts_export.mil.ops.padding import flat_padding, spatial_padding

Tensor = torch.Tensor
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | int = 1,
) -> Tensor:
    """x `[batch, in, *sizes]`, weight `[out, in / groups, *kernel]` -> `[batch, out, *sizes]`."""
    rank = x.ndim - 2
    steps, spread = ints(strides, [1] * rank), ints(dilations, [1] * rank)
    kernels = _dilated(weight, spread)
    amounts = spatial_padding(pad_type, pad, list(x.shape[2:]), kernels, steps)
    if all(before == after for before, after in amounts):
        sides = [before for before, _ in amounts]
        return _CONV[rank](x, weight, bias, steps, sides, spread, int(groups))
    return _CONV[rank](F.pad(x, flat_padding(amounts)), weight, bias, steps, 0, spread, int(groups))


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | int = 1,
) -> Tensor:
    """x `[batch, in, *sizes]`, weight `[in, out / groups, *kernel]` -> `[batch, out, *sizes]`.

    The full result is cut by `pad`; `output_shape` sets the sizes, with nothing but bias past the full result.
    """
    rank = x.ndim - 2
    steps, spread = ints(strides, [1] * rank), ints(dilations, [1] * rank)
    full = _TRANSPOSE[rank](x, weight, None, steps, 0, 0, int(groups), spread)
    amounts = _cuts(pad_type, pad, list(x.shape[2:]), list(full.shape[2:]), steps)
    if output_shape is not None:
        sizes = zip(ints(output_shape)[2:], full.shape[2:], amounts, strict=True)
        amounts = [(before, total - before - wanted) for wanted, total, (before, _) in sizes]
    cut = F.pad(full, [-number for number in flat_padding(amounts)])
    return cut if bias is None else cut + bias.reshape(1, -1, *[1] * rank)


def _dilated(weight: Tensor, dilations: list[int]) -> list[int]:
    return [(size - 1) * spread + 1 for size, spread in zip(weight.shape[2:], dilations, strict=True)]


def _cuts(
    pad_type: str, pad: Tensor | None, sizes: list[int], full: list[int], strides: list[int]
) -> list[tuple[int, int]]:
    if pad_type != "same":
        if pad_type == "same_lower":
            raise UnknownParameter("pad_type = 'same_lower' is not defined for transposed convolutions")
        return spatial_padding(pad_type, pad, sizes, full, strides)
    totals = [size - step * count for size, step, count in zip(full, strides, sizes, strict=True)]
    return [(max(total, 0) // 2, total - max(total, 0) // 2) for total in totals]


OPS: dict[str, Callable[..., Any]] = {"conv": conv, "conv_transpose": conv_transpose}
