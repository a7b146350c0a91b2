"""Sums that are the same on every machine.

A library adds in the order that suits a processor, and the last bits of what it adds up depend on that; its sines and
logarithms may differ in theirs. What goes into an artifact is computed here in float64, sums in a fixed order or
without any rounding, and rounded once: two machines make the same bytes of a checkpoint.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SLICE_BITS = 21  # products of two such integers add up exactly in float64, 2^(53 - 42) of them
LONGEST_SUM = 1 << (53 - 2 * SLICE_BITS)


def row_sums(x: Tensor) -> Tensor:
    """Sums over all axes but the first, float64 [len(x)]: one by one, in the order of the elements."""
    rows = x.detach().reshape(len(x), -1).double().numpy()
    return torch.from_numpy(np.array([np.add.accumulate(row)[-1] for row in rows]))


def squares(x: Tensor) -> Tensor:
    """row_sums() of the squares."""
    return row_sums(x.detach().double().square())


def weight_norm(direction: Tensor, magnitude: Tensor) -> Tensor:
    """magnitude * direction / |direction|, norms over all axes but the first (torch's weight_norm with dim=0);
    NaN where a direction has no length."""
    norm = torch.from_numpy(np.sqrt(squares(direction).numpy())).reshape(magnitude.shape)
    return (magnitude.double() * direction.double() / norm).to(direction.dtype)


@torch.no_grad()
def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right in float64, of [rows, n] and [n, columns], to 42 bits of the largest terms: each factor is cut
    into two slices of integers, whose products no order of adding can round (Ozaki et al. 2012,
    doi:10.1007/s11075-011-9478-1)."""
    total = torch.zeros(left.shape[0], right.shape[1], dtype=torch.float64)
    for start in range(0, left.shape[1], LONGEST_SUM):
        end = start + LONGEST_SUM
        (high, low, scale), (high_t, low_t, scale_t) = _slices(left[:, start:end]), _slices(right[start:end].T)
        mixed = high @ low_t.T + low @ high_t.T
        whole = high @ high_t.T + mixed * 2.0**-SLICE_BITS + (low @ low_t.T) * 2.0 ** (-2 * SLICE_BITS)
        total += torch.from_numpy(whole / scale / scale_t.T)
    return total


def _slices(x: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers `high` and `low`, and powers of two `scale` for each row: x is (high + low * 2^-SLICE_BITS) / scale,
    but for what is 2^-42 of the row's largest value."""
    values = x.detach().double().numpy()
    _, exponents = np.frexp(np.abs(values).max(axis=1, keepdims=True))
    scale = np.ldexp(1.0, SLICE_BITS - exponents)
    scaled = values * scale
    high = np.rint(scaled)
    return high, np.rint((scaled - high) * 2.0**SLICE_BITS), scale


def exp(x: Tensor) -> Tensor:
    """Exponentials in float32, rounded from float64."""
    return x.double().exp().float()


def rounded(x: np.ndarray | float, bits: int) -> np.ndarray:
    """To `bits` significant binary digits, float64: of what may be any number nearby, so that its last digits need
    not be known."""
    fraction, exponents = np.frexp(np.asarray(x, np.float64))
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponents - bits)
