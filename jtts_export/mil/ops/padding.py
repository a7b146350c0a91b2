"""Padding amounts of convolutions and pools."""

import torch

from jtts_export.mil.errors import UnknownParameter
from jtts_export.mil.ops.arguments import ints

Amounts = list[tuple[int, int]]


def spatial_padding(
    pad_type: str, pad: torch.Tensor | None, sizes: list[int], kernels: list[int], strides: list[int]
) -> Amounts:
    """Elements before and after each spatial dimension.

    `kernels` are the sizes with dilation. "same" makes ceil(size / stride) outputs and puts the odd element
    after, "same_lower" before.
    """
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        flat = ints(pad, [0] * 2 * len(sizes))
        return list(zip(flat[::2], flat[1::2], strict=True))
    if pad_type not in ("same", "same_lower"):
        raise UnknownParameter(f"pad_type = {pad_type!r} is not one of valid, custom, same, same_lower")
    amounts = []
    for size, kernel, stride in zip(sizes, kernels, strides, strict=True):
        total = max(0, stride * (-(-size // stride) - 1) + kernel - size)
        less, more = total // 2, total - total // 2
        amounts.append((less, more) if pad_type == "same" else (more, less))
    return amounts


def flat_padding(amounts: Amounts) -> list[int]:
    """`amounts` in the order of torch's `F.pad`: last dimension first."""
    return [number for pair in reversed(amounts) for number in pair]
