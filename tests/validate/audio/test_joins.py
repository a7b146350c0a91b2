"""The join score: chunks of one signal join, chunks that lost their neighbours do not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from graphs import normal

from jtts_export.validate.audio import join_score

RATE_HZ, LIMIT = 24_000, 3
Speech = Callable[..., np.ndarray]
SEEDS = range(6)


def loud(audio: np.ndarray) -> int:
    """The largest sample of the loudest 100 ms of the middle half."""
    quarter = len(audio) // 4
    energy = np.convolve(audio.astype(float) ** 2, np.ones(2400), "same")
    start = quarter + int(energy[quarter : 3 * quarter].argmax()) - 1200
    return start + int(np.abs(audio[start : start + 2400]).argmax())


@pytest.mark.parametrize("seed", SEEDS)
def test_pieces_of_one_signal_join(speech: Speech, seed: int) -> None:
    """Wherever it is cut: measured 0.1 to 1.2 over 1,000 cuts of this, of noise and of a formant synthesizer."""
    x = speech(seed)
    for cuts in np.random.default_rng(seed).integers(0, len(x), (10, 5)):
        assert join_score(np.split(x, np.sort(cuts)), RATE_HZ) < 0.6 * LIMIT


@pytest.mark.parametrize("milliseconds", [5, 10, 30])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_gap_scores_its_length_in_milliseconds(speech: Speech, seed: int, milliseconds: int) -> None:
    x = speech(seed)
    x += 1e-3 * normal(9, len(x))  # no silence of its own
    at, gap = loud(x), np.zeros(milliseconds * 24, np.float32)
    for chunks in ([x[:at], gap, x[at:]], [x[:at], np.concatenate([gap, x[at:]])]):
        assert join_score(chunks, RATE_HZ) == pytest.approx(milliseconds, rel=0.1)


def test_zeros_in_place_of_sound_are_found(speech: Speech) -> None:
    """10 ms at a join; but for a few whose end falls where a vowel is 30 dB below the peak for 2 ms."""
    found = 0
    for seed in range(20):
        x = speech(seed) + 1e-3 * normal(9, 4 * RATE_HZ)
        at = loud(x)
        x[at : at + 240] = 0
        found += join_score([x[:at], x[at:]], RATE_HZ) > LIMIT
    assert found >= 18


@pytest.mark.parametrize("step", [0.2, -0.5])
def test_a_step_is_found_in_what_is_voiced(step: float) -> None:
    """A fifth of the amplitude in a vowel; the reach of linear prediction is what makes it stand out."""
    t = np.arange(2 * RATE_HZ) / RATE_HZ
    x = sum(np.sin(2 * np.pi * (120 * t + 3 * t**2) * h) / h for h in range(1, 20)) * 0.1
    at = RATE_HZ + 37
    assert join_score([x[:at], x[at:]], RATE_HZ) < 0.6 * LIMIT
    assert join_score([x[:at], x[at:] + step * np.abs(x).max()], RATE_HZ) > LIMIT


def test_samples_left_out_or_said_twice_are_steps() -> None:
    t = np.arange(2 * RATE_HZ) / RATE_HZ
    x = sum(np.sin(2 * np.pi * (120 * t + 3 * t**2) * h) / h for h in range(1, 20)) * 0.1
    at = RATE_HZ + 37
    assert join_score([x[:at], x[at + 100 :]], RATE_HZ) > LIMIT
    assert join_score([x[:at], x[at - 100 :]], RATE_HZ) > LIMIT
    assert join_score([x[:at], -x[at:]], RATE_HZ) > LIMIT


@pytest.mark.parametrize("level", [1e-4, 1e-7])
@pytest.mark.parametrize("milliseconds", [5, 10])
def test_zeros_in_a_pause_are_a_gap(speech: Speech, milliseconds: int, level: float) -> None:
    """Trained speech meets in pauses, where a network still computes something: 1e-4 is -60 dB of full scale."""
    x = speech(0)
    pause = level * normal(9, RATE_HZ // 4)
    gap = np.zeros(milliseconds * 24, np.float32)
    fade = np.minimum(1, np.arange(len(x)) / 2400)
    before, after = np.concatenate([x * fade[::-1], pause]), np.concatenate([pause, x * fade])
    assert join_score([before, after], RATE_HZ) < 0.6 * LIMIT
    assert join_score([before, gap, after], RATE_HZ) == pytest.approx(milliseconds, rel=0.1)


def test_zeros_that_sound_brings_along_are_its_own(speech: Speech) -> None:
    """A vocoder that ends in zeros wherever it pauses does so at joins as well."""
    x = speech(0)
    x[10_000:10_240] = x[50_000:50_240] = 0
    assert join_score([x[:10_100], x[10_100:]], RATE_HZ) < LIMIT


def test_gaps_elsewhere_are_the_signals_own(speech: Speech) -> None:
    """Where speech stops abruptly by itself, a join may too."""
    x = speech(0)
    x += 1e-3 * normal(9, len(x))
    at = loud(x)
    x[at : at + 480] = x[at + 2400 : at + 2880] = 0
    assert join_score([x[: at + 240], x[at + 240 :]], RATE_HZ) < LIMIT


def test_a_pause_is_no_gap(speech: Speech) -> None:
    """Speech that fades into half a second of silence and out of it, cut on both sides."""
    x, pause = speech(0), np.zeros(RATE_HZ // 2, np.float32)
    fade = np.minimum(1, np.arange(len(x)) / 2400)
    assert join_score([x * fade[::-1], pause, x * fade], RATE_HZ) < 0.6 * LIMIT
    assert join_score([pause, pause, pause], RATE_HZ) == 0


def test_awkward_chunks() -> None:
    x = 0.1 * normal(0, RATE_HZ)
    assert join_score([], RATE_HZ) == join_score([x], RATE_HZ) == join_score([x, x[:0]], RATE_HZ) == 0
    assert join_score([x[:1], x[1:2]], RATE_HZ) == 0
    assert join_score([x, np.array([np.nan])], RATE_HZ) == math.inf
    assert math.isfinite(join_score(np.split(x, np.arange(100, len(x), 100)), RATE_HZ))
    assert join_score([x[:9], x[9:]], RATE_HZ) < LIMIT
