"""Sums that no machine adds up otherwise, and that are right."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from jtts_export.models import exact
from jtts_export.models.exact import product, rounded, row_sums, weight_norm


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Of magnitudes from 1e-3 to 1e3."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 10 ** (6 * torch.rand(shape, generator=generator) - 3)


def test_a_product_is_the_same_in_any_order_of_its_terms() -> None:
    left, right = drawn(7, 500), drawn(500, 5, seed=1)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(2))
    expected = product(left, right)
    assert torch.equal(product(left[:, order], right[order]), expected)
    shuffled = left[:, order].double() @ right[order].double()
    assert not torch.equal(shuffled, left.double() @ right.double())  # as BLAS does it, it is not


def test_a_product_is_right_to_42_bits_of_its_largest_terms() -> None:
    left, right = drawn(3, 40), drawn(40, 2, seed=1)
    made = product(left, right)
    for i in range(3):
        for j in range(2):
            terms = [Fraction(float(a)) * Fraction(float(b)) for a, b in zip(left[i], right[:, j], strict=True)]
            largest = float(left[i].abs().max() * right[:, j].abs().max())
            assert abs(float(made[i, j]) - float(sum(terms))) < 40 * 2.0**-41 * largest


def test_a_long_product_is_cut_where_sums_would_round(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = drawn(3, 50), drawn(50, 4, seed=1)
    whole = product(left, right)
    monkeypatch.setattr(exact, "LONGEST_SUM", 16)
    assert torch.allclose(product(left, right), whole, rtol=0, atol=1e-6)


def test_a_product_with_rows_of_zeros_is_zero_there() -> None:
    left = torch.zeros(2, 3)
    left[1] = 1
    assert product(left, torch.ones(3, 1)).tolist() == [[0.0], [3.0]]


def test_row_sums_add_one_by_one() -> None:
    """1 is lost beside 2^53, and 2^53 leaves again."""
    big = 2.0**53
    assert row_sums(torch.tensor([[big, 1, -big, 1], [1, 1, big, -big]], dtype=torch.float64)).tolist() == [1.0, 2.0]


def test_weight_norm_is_torchs_but_rounded_once() -> None:
    direction, magnitude = drawn(6, 5, 3), drawn(6, 1, 1, seed=1).abs()
    made = weight_norm(direction, magnitude)
    torch.testing.assert_close(made, torch._weight_norm(direction, magnitude, 0), rtol=3e-7, atol=0)
    wide = direction.double()
    exact_norm = wide.square().sum((1, 2), keepdim=True).sqrt()
    assert torch.equal(made, (magnitude.double() * wide / exact_norm).float())
    assert made.dtype == torch.float32


def test_a_direction_without_length_is_not_a_number() -> None:
    assert weight_norm(torch.zeros(2, 3), torch.ones(2, 1)).isnan().all()


def test_rounded_keeps_so_many_digits() -> None:
    given = np.array([1.2345678, -3e-20, 0.0, 7e30])
    made = rounded(given, 10)
    assert made.astype(np.float32).astype(np.float64).tolist() == made.tolist()
    assert np.all(np.abs(made - given) <= np.abs(given) * 2.0**-10)
    assert rounded(made * (1 + 1e-12), 10).tolist() == made.tolist()
    assert rounded(np.array([1 + 2.0**-9]), 10).tolist() == [1 + 2.0**-9]
