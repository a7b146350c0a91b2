"""The stutter score: what it must catch, and what it must not mind. docs/metrics.md has the limit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from graphs import normal

from jtts_export.validate.audio import stutter_score
from jtts_export.validate.audio.stutter import runs

RATE_HZ, LIMIT_S = 24_000, 0.05
Speech = Callable[..., np.ndarray]
SEEDS = range(6)


def loudest(audio: np.ndarray, rate_hz: int) -> int:
    """Middle of the loudest 400 ms of the second third."""
    third, size = len(audio) // 3, round(0.4 * rate_hz)
    energy = np.convolve(audio.astype(float) ** 2, np.ones(size), "same")
    return third + int(energy[third : 2 * third].argmax())


def repeated(audio: np.ndarray, rate_hz: int, seconds: float = 0.15) -> np.ndarray:
    at, n = loudest(audio, rate_hz), round(seconds * rate_hz)
    return np.concatenate([audio[:at], audio[at - n :]])


def repeated_in_place(audio: np.ndarray, rate_hz: int) -> np.ndarray:
    """The length stays: what was to come is lost."""
    at, n = loudest(audio, rate_hz), round(0.15 * rate_hz)
    return np.concatenate([audio[:at], audio[at - n : at], audio[at + n :]])


def dropped(audio: np.ndarray, rate_hz: int, seconds: float = 0.15) -> np.ndarray:
    at, n = loudest(audio, rate_hz), round(seconds * rate_hz)
    return np.concatenate([audio[: at - n // 2], audio[at - n // 2 + n :]])


def stuck(audio: np.ndarray, rate_hz: int) -> np.ndarray:
    """Ten times the same frame of 10.7 ms, instead of what was to come."""
    at, n = loudest(audio, rate_hz), round(rate_hz * 256 / 24_000)
    return np.concatenate([audio[:at], np.tile(audio[at : at + n], 10), audio[at + 10 * n :]])


FAULTS = [repeated, repeated_in_place, dropped, stuck]


def resampled(audio: np.ndarray, factor: float) -> np.ndarray:
    return np.interp(np.arange(round(len(audio) * factor)) / factor, np.arange(len(audio)), audio).astype(np.float32)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_faults_are_above_the_limit(speech: Speech, fault: Callable, seed: int) -> None:
    x = speech(seed)
    assert stutter_score(fault(x, RATE_HZ), x, RATE_HZ) > 1.5 * LIMIT_S


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 48_000])
def test_faults_are_found_at_other_rates(speech: Speech, fault: Callable, rate_hz: int) -> None:
    x = speech(0, 3, rate_hz)
    assert stutter_score(fault(x, rate_hz), x, rate_hz) > 1.5 * LIMIT_S


@pytest.mark.parametrize("fault", [repeated, repeated_in_place, dropped])
def test_faults_are_found_beneath_the_noise_of_int8(speech: Speech, with_noise: Speech, fault: Callable) -> None:
    for seed in SEEDS:
        assert stutter_score(with_noise(fault(speech(seed), RATE_HZ), 25), speech(seed), RATE_HZ) > 1.5 * LIMIT_S


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_found_in_noise_of_speechs_shape(speech: Speech, fault: Callable) -> None:
    """What a model of random weights says."""
    envelope = np.convolve(np.abs(speech(0)), np.hanning(960) / 480, "same")
    x = (normal(0, len(envelope)) * envelope).astype(np.float32)
    assert stutter_score(fault(x, RATE_HZ), x, RATE_HZ) > 1.5 * LIMIT_S


@pytest.mark.parametrize("seconds", [0.15, 0.5, 1])
def test_the_score_is_in_seconds(speech: Speech, seconds: float) -> None:
    x = speech(2, 6)
    x = np.where(np.abs(x) > 0, x + 0.02 * normal(5, len(x)), 0).astype(np.float32)  # sounds throughout
    for fault in (repeated, dropped):
        assert stutter_score(fault(x, RATE_HZ, seconds), x, RATE_HZ) == pytest.approx(seconds, abs=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_no_stutter_scores_nothing(speech: Speech, with_noise: Speech, seed: int) -> None:
    x = speech(seed)
    for y in (
        x,
        with_noise(x, 25),
        with_noise(x, 15),
        resampled(x, 1.01),
        resampled(x, 0.95),
        x / 2,
        np.roll(x, 480),
        np.concatenate([np.zeros(12_000, np.float32), x]),  # silence may be of any length
    ):
        assert stutter_score(y, x, RATE_HZ) == 0


def test_another_draw_of_noise_is_no_stutter() -> None:
    a, b = (0.1 * normal(seed, 4 * RATE_HZ) for seed in (0, 1))
    assert stutter_score(b, a, RATE_HZ) == 0


def test_a_steady_reference_may_be_steady(speech: Speech) -> None:
    """A vowel repeats itself, and so does the reference's."""
    vowel = sum(np.sin(2 * np.pi * 100 * h * np.arange(2 * RATE_HZ) / RATE_HZ) / h for h in range(1, 30))
    assert stutter_score(vowel, vowel, RATE_HZ) == 0
    assert stutter_score(vowel, 0.3 * normal(0, len(vowel)), RATE_HZ) > 1


def test_awkward_signals() -> None:
    x, silence = 0.1 * normal(0, RATE_HZ), np.zeros(RATE_HZ, np.float32)
    assert stutter_score(silence, silence, RATE_HZ) == stutter_score(x[:1], x[:1], RATE_HZ) == 0
    assert stutter_score(silence[:1], silence, RATE_HZ) == 0
    assert stutter_score(x, x[:1], RATE_HZ) == 0  # all that is too much lies behind the end


def test_what_is_said_beyond_the_end_is_length(speech: Speech) -> None:
    x = speech(1)
    assert stutter_score(x, x[:-4800], RATE_HZ) == stutter_score(x[:-4800], x, RATE_HZ) == 0


def test_what_is_not_finite_is_no_speech() -> None:
    x = 0.1 * normal(0, RATE_HZ)
    assert stutter_score(np.full_like(x, np.nan), x, RATE_HZ) == math.inf


def test_runs() -> None:
    assert runs(np.array([True, False, True, True, False, True])) == [(0, 1), (2, 4), (5, 6)]
    assert runs(np.zeros(3, bool)) == runs(np.zeros(0, bool)) == []
