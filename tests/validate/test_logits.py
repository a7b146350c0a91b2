"""Distances between distributions over tokens, against what their formulas say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jtts_export.validate.logits import compare, overall

NAMES = ("p_kl", "p_top1_ratio", "p_max_abs", "p_tokens")
WRONG = {"p_kl": math.inf, "p_top1_ratio": 0.0, "p_max_abs": math.inf}


def logits(seed: int, tokens: int = 7, vocabulary: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, vocabulary), np.float32) * 3


def test_logits_compared_with_themselves_are_perfect() -> None:
    exact = logits(0)
    assert compare(exact.copy(), exact, "p") == {"p_kl": 0, "p_top1_ratio": 1, "p_max_abs": 0, "p_tokens": 7}


def test_the_divergence_is_that_of_the_textbook() -> None:
    measured, reference = logits(0), logits(1)
    expected = []
    for made, exact in zip(measured.astype(float), reference.astype(float), strict=True):
        q, p = (np.exp(x) / np.exp(x).sum() for x in (made, exact))
        expected.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    result = compare(measured, reference, "p")
    assert tuple(result) == NAMES
    assert result["p_kl"] == pytest.approx(np.mean(expected), rel=1e-9)
    assert result["p_kl"] != pytest.approx(compare(reference, measured, "p")["p_kl"], rel=0.01)  # it has a direction
    assert result["p_max_abs"] == np.abs(measured.astype(float) - reference).max()
    assert result["p_top1_ratio"] == np.mean(measured.argmax(1) == reference.argmax(1))


def test_a_known_divergence() -> None:
    """Of a coin from a fair one: -log(4 p (1 - p)) / 2."""
    reference, measured = np.zeros((1, 2), np.float32), np.array([[math.log(3), 0]], np.float32)
    assert compare(measured, reference, "p")["p_kl"] == pytest.approx(-math.log(4 * 3 / 16) / 2, rel=1e-6)
    # And of a fair one from that coin: log 2 less its entropy.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert compare(reference, measured, "p")["p_kl"] == pytest.approx(math.log(2) - entropy, rel=1e-6)


def test_a_shift_of_all_logits_is_no_divergence() -> None:
    exact = logits(0)
    result = compare(exact + np.float32(4), exact, "p")
    assert 0 <= result["p_kl"] < 1e-9
    assert result["p_top1_ratio"] == 1
    assert result["p_max_abs"] == pytest.approx(4, abs=1e-5)


def test_small_divergences_are_not_lost_in_rounding() -> None:
    """Of a small step d in one logit of probability p: p (1 - p) d^2 / 2."""
    reference = np.zeros((1, 4), np.float64)
    for step in (1e-3, 1e-5):
        measured = reference.copy()
        measured[0, 2] = step
        assert compare(measured, reference, "p")["p_kl"] == pytest.approx(0.25 * 0.75 * step**2 / 2, rel=1e-3)


def test_the_share_of_tokens_that_both_hold_likeliest() -> None:
    reference = np.eye(4, 9, dtype=np.float32)
    measured = reference.copy()
    measured[1, 8] = 2
    assert compare(measured, reference, "p")["p_top1_ratio"] == 0.75
    measured[[0, 2, 3], 8] = 2
    assert compare(measured, reference, "p")["p_top1_ratio"] == 0


@pytest.mark.parametrize("shape", [(6, 50), (8, 50), (7, 49), (7,), (1, 7, 50), (0, 50)])
def test_another_shape_is_as_wrong_as_can_be(shape: tuple[int, ...]) -> None:
    assert compare(np.zeros(shape, np.float32), logits(0), "p") == WRONG | {"p_tokens": 7}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_as_wrong_as_can_be(value: float) -> None:
    wrong = logits(0)
    wrong[3, 4] = value
    assert compare(wrong, logits(0), "p") == WRONG | {"p_tokens": 7}
    assert compare(logits(0), wrong, "p") == WRONG | {"p_tokens": 7}
    assert compare(wrong, wrong, "p") == WRONG | {"p_tokens": 7}


def test_tokens_that_neither_allows_add_nothing() -> None:
    """The stop token, held back with minus infinity."""
    measured, reference = logits(0), logits(1)
    shorter = compare(measured[:, :-1], reference[:, :-1], "p")
    measured[:, -1] = reference[:, -1] = -np.inf
    assert compare(measured, reference, "p") == pytest.approx(shorter)


def test_a_token_that_only_the_reference_allows_is_infinitely_far() -> None:
    measured, reference = logits(0), logits(0)
    measured[2, 5] = -np.inf
    result = compare(measured, reference, "p")
    assert (result["p_kl"], result["p_max_abs"]) == (math.inf, math.inf)


def test_a_token_that_only_the_measured_allows_is_at_a_distance_alone() -> None:
    measured, reference = np.zeros((1, 3), np.float32), np.array([[0, 0, -np.inf]], np.float32)
    result = compare(measured, reference, "p")
    assert result["p_kl"] == pytest.approx(math.log(3 / 2))
    assert result["p_max_abs"] == math.inf


def test_large_logits_do_not_overflow() -> None:
    exact = logits(0) + np.float32(1e4)
    measured = exact.copy()
    measured[:, 0] += 1
    result = compare(measured, exact, "p")
    assert all(math.isfinite(value) for value in result.values())
    assert result["p_kl"] > 0


def test_the_prefix_is_in_every_name() -> None:
    assert all(name.startswith("parity_logits_") for name in compare(logits(0), logits(1), "parity_logits"))


def test_over_utterances_every_token_counts_alike() -> None:
    whole = compare(logits(0, 12), logits(1, 12), "p")
    parts = [compare(logits(0, 12)[p], logits(1, 12)[p], "p") for p in (slice(0, 2), slice(2, 12))]
    together = overall(parts, "p")
    assert together == pytest.approx({name: whole[name] for name in NAMES[:3]})
    assert parts[0]["p_kl"] != pytest.approx(parts[1]["p_kl"], rel=0.01)


def test_an_utterance_that_is_as_wrong_as_can_be_prevails() -> None:
    rows = [compare(logits(0), logits(0), "p"), compare(logits(0, 6), logits(0), "p")]
    assert overall(rows, "p") == {"p_kl": math.inf, "p_top1_ratio": 0.5, "p_max_abs": math.inf}
