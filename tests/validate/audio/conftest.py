"""Signals of speech's shape, made of nothing but numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

RATE_HZ = 24_000


def synthetic(seed: int = 0, seconds: float = 4, sample_rate_hz: int = RATE_HZ) -> np.ndarray:
    """Harmonics of a wandering F0 (85-170 Hz) through three wandering formants, or noise instead, with syllables and
    pauses; float32 [samples], RMS 0.1."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    knots = np.arange(int(seconds * 8) + 2) / 8

    def wander(low: float, high: float) -> np.ndarray:
        return np.interp(t, knots, draw.uniform(low, high, len(knots)))

    f0 = 120 * 2 ** wander(-0.5, 0.5)
    loud = np.interp(t, knots, draw.choice([0, 0.3, 0.6, 1], len(knots), p=[0.15, 0.15, 0.3, 0.4]))
    formants = [(wander(250, 900), 60, 1), (wander(900, 2300), 90, 0.5), (wander(2300, 3300), 140, 0.25)]
    phase = 2 * np.pi * np.cumsum(f0) / sample_rate_hz
    harmonics = np.zeros(len(t))
    for h in range(1, 40):
        gain = sum(peak / (1 + ((h * f0 - centre) / width) ** 2) for centre, width, peak in formants)
        harmonics += np.where(h * f0 < 0.47 * sample_rate_hz, gain * np.cos(h * phase), 0) / h**0.5
    voiced = np.interp(t, knots, draw.choice([0.0, 1.0], len(knots), p=[0.3, 0.7]))
    noise = 0.3 * np.diff(draw.standard_normal(len(t)), prepend=0)
    audio = loud * (voiced * harmonics / harmonics.std() + (1 - voiced) * noise)
    return (0.1 * audio / audio.std()).astype(np.float32)


def noisy(audio: np.ndarray, snr_db: float) -> np.ndarray:
    """With white noise, as an int8 decoder adds it."""
    noise = np.random.default_rng(99).standard_normal(len(audio))
    noise *= np.sqrt((audio.astype(float) ** 2).sum() / (noise**2).sum()) * 10 ** (-snr_db / 20)
    return (audio + noise).astype(np.float32)


@pytest.fixture(scope="session")
def speech() -> Callable[..., np.ndarray]:
    """`speech(seed, seconds, sample_rate_hz)`."""
    return synthetic


@pytest.fixture(scope="session")
def with_noise() -> Callable[[np.ndarray, float], np.ndarray]:
    """`with_noise(audio, snr_db)`."""
    return noisy
