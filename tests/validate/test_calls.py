"""Slopes over calls: known answers, and what is taken for growth and what is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress, t

from jtts_export.validate.calls import CONFIDENCE, WARM, Slope, call_metrics, repeat_metrics, slope

CALLS = 20


def lengths(seed: int, count: int = CALLS) -> np.ndarray:
    return np.random.default_rng(seed).integers(15, 60, count).astype(float)


@pytest.mark.parametrize("rise", [0.0, 0.25, -3.0])
def test_a_straight_line_has_its_slope_and_no_margin(rise: float) -> None:
    found = slope([2 + rise * n for n in range(10)])
    assert found.value == pytest.approx(rise, abs=1e-12)
    assert found.margin == pytest.approx(0, abs=1e-9)
    assert found.least == pytest.approx(rise, abs=1e-9)


def test_a_slope_and_its_margin_are_those_of_a_regression() -> None:
    values = np.random.default_rng(0).standard_normal(12) + 0.3 * np.arange(12)
    found, expected = slope(values), linregress(np.arange(12), values)
    assert found.value == pytest.approx(expected.slope)
    assert found.margin == pytest.approx(t.ppf((1 + CONFIDENCE) / 2, 10) * expected.stderr)


def test_what_longer_speech_costs_is_no_growth() -> None:
    """Even where calls get longer on the whole."""
    spoken = lengths(0) + 3 * np.arange(CALLS)
    seconds = 0.1 + 0.02 * spoken
    assert slope(seconds).least > 0.01
    found = slope(seconds, spoken)
    assert found.value == pytest.approx(0, abs=1e-9)
    grown = slope(seconds + 0.005 * np.arange(CALLS), spoken)
    assert grown.value == pytest.approx(0.005, abs=1e-9)
    assert grown.margin == pytest.approx(0, abs=1e-9)


def test_lengths_that_are_all_the_same_explain_nothing() -> None:
    values = np.random.default_rng(1).standard_normal(CALLS) + np.arange(CALLS)
    alike = slope(values, [30.0] * CALLS)
    assert alike.value == pytest.approx(slope(values).value)
    assert np.isfinite(alike.margin)


@pytest.mark.parametrize(
    ("value", "margin", "least"),
    [(3, 1, 2), (-3, 1, -2), (1, 3, 0), (-1, 3, 0), (0, 0, 0), (2, 2, 0), (2, 0, 2)],
)
def test_the_least_is_the_end_of_the_interval_nearer_to_zero(value: float, margin: float, least: float) -> None:
    assert Slope(value, margin).least == least


def test_the_interval_holds_the_true_slope_as_often_as_it_says() -> None:
    random, held, tries = np.random.default_rng(0), 0, 600
    for _ in range(tries):
        spoken = random.uniform(15, 60, CALLS)
        noise = random.standard_normal(CALLS)
        found = slope(0.2 * np.arange(CALLS) + 0.5 * spoken + noise, spoken)
        held += abs(found.value - 0.2) <= found.margin
    assert held / tries == pytest.approx(CONFIDENCE, abs=0.03)


def test_metrics_of_calls_that_all_cost_the_same() -> None:
    spoken = lengths(3)
    seconds = 0.02 * spoken
    metrics = call_metrics([5.0, *seconds[1:]], [100.0, *[150.0] * (CALLS - 1)], spoken)
    assert metrics["call_mean_ms"] == pytest.approx(1e3 * seconds[1:].mean())
    for name in ("call_slope_ms", "call_growth_ratio", "rss_slope_mb", "rss_growth_mb"):
        assert metrics[name] == pytest.approx(0, abs=1e-9), name


def test_a_leak_and_growing_times_are_caught() -> None:
    spoken, calls, noise = lengths(4), np.arange(CALLS), np.random.default_rng(4).standard_normal((2, CALLS))
    seconds = 0.02 * spoken + 0.02 * calls + 0.01 * noise[0]
    memory = 500 + 8 * calls + 2 * noise[1]
    metrics = call_metrics(seconds, memory, spoken)
    assert metrics["call_slope_ms"] == pytest.approx(20, abs=2)
    # What is certain of it: the slope less its margin, over all calls but the first, in shares of one of them.
    least = metrics["call_slope_ms"] - metrics["call_slope_margin_ms"]
    assert metrics["call_growth_ratio"] == pytest.approx(least * (CALLS - 1) / metrics["call_mean_ms"])
    assert 0.2 < metrics["call_growth_ratio"] < 0.02 * CALLS / np.mean(seconds)
    assert metrics["rss_slope_mb"] == pytest.approx(8, abs=0.5)
    assert metrics["rss_growth_mb"] == pytest.approx(
        (metrics["rss_slope_mb"] - metrics["rss_slope_margin_mb"]) * (CALLS - 1)
    )
    assert metrics["rss_growth_mb"] > 100


def test_a_small_leak_is_caught_in_little_noise_and_not_in_much() -> None:
    spoken, calls = lengths(5), np.arange(CALLS)
    noise = np.random.default_rng(5).standard_normal(CALLS)
    quiet, loud = (call_metrics(0.02 * spoken, 500 + calls + k * noise, spoken) for k in (0.5, 50))
    assert quiet["rss_growth_mb"] > 10
    assert loud["rss_growth_mb"] == 0


def test_noise_is_not_taken_for_growth() -> None:
    """Or in one of forty tries, by the confidence, and then hardly."""
    caught = []
    for seed in range(100):
        spoken, random = lengths(seed), np.random.default_rng(seed)
        seconds = 0.02 * spoken * (1 + 0.05 * random.standard_normal(CALLS))
        metrics = call_metrics(seconds, 500 + 5 * random.standard_normal(CALLS), spoken)
        caught += [metrics["call_growth_ratio"]] * (metrics["call_growth_ratio"] > 0)
    assert len(caught) <= 8
    assert max(caught, default=0) < 0.05


def test_what_gets_faster_has_negative_growth() -> None:
    spoken = lengths(6)
    metrics = call_metrics(2 - 0.01 * np.arange(CALLS) + 0.02 * spoken, [500.0] * CALLS, spoken)
    assert metrics["call_growth_ratio"] < -0.05
    assert metrics["call_slope_ms"] == pytest.approx(-10)


def test_the_first_call_counts_for_itself_alone() -> None:
    """It loads what later ones find."""
    spoken, seconds = lengths(7), 0.02 * lengths(7)
    slow = call_metrics([100.0, *seconds[1:]], [1.0, *[500.0] * (CALLS - 1)], spoken)
    quick = call_metrics([0.0, *seconds[1:]], [900.0, *[500.0] * (CALLS - 1)], spoken)
    assert slow == quick


def test_texts_of_several_lengths_are_no_slope_either() -> None:
    """Text that happens to grow longer explains what would look like a slope."""
    spoken, text = lengths(8), lengths(9) + 4 * np.arange(CALLS)
    seconds = 0.02 * spoken + 0.003 * text
    assert slope(seconds, spoken).least > 0.005
    assert slope(seconds, spoken, text).value == pytest.approx(0, abs=1e-9)


# The same call again and again


def test_metrics_of_one_call_again_and_again() -> None:
    found = repeat_metrics([3.0, 1.3, 1.0, 0.9, 1.1, 1.0], 2.0)
    usual, factors = 1.0, np.array([1.3, 1.0, 0.9, 1.1, 1.0]) / 2.0  # the first left out
    assert found == {
        "warmup_ratio": pytest.approx(3.0 / usual),
        "warmup_calls": 2,  # 3 and 1.3 are more than a tenth above it
        "rtf_sequential_std": pytest.approx(factors.std()),
        "rtf_sequential_range": pytest.approx(0.2),
    }


def test_a_call_that_is_as_fast_as_ever_at_once_needs_no_warming_up() -> None:
    found = repeat_metrics([0.5] * 10, 1.0)
    assert found == {"warmup_ratio": 1, "warmup_calls": 0, "rtf_sequential_std": 0, "rtf_sequential_range": 0}


def test_calls_that_are_slow_later_are_no_warming_up() -> None:
    """They are in the range, and do not move the median."""
    found = repeat_metrics([1.0, 1.0, 1.0, 1.0, 9.0, 1.0], 1.0)
    assert (found["warmup_calls"], found["warmup_ratio"], found["rtf_sequential_range"]) == (0, 1, 8)


@pytest.mark.parametrize(("first", "calls"), [(WARM, 0), (WARM + 1e-6, 1)])
def test_a_tenth_more_than_usual_is_warm(first: float, calls: int) -> None:
    assert repeat_metrics([first, 1.0, 1.0, 1.0], 1.0)["warmup_calls"] == calls
