"""Levels, against what can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graphs import normal

from jtts_export.validate.audio import levels

RATE_HZ = 24_000


def sine(hz: float, amplitude: float, seconds: float = 2, rate_hz: int = RATE_HZ) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [16_000, 24_000, 48_000])
def test_a_sine_of_997_hz_at_full_scale_has_the_loudness_of_the_standard(rate_hz: int) -> None:
    """-3.01 LUFS by BS.1770; its filters are given for 48 kHz."""
    assert levels.loudness_lufs(sine(997, 1, rate_hz=rate_hz), rate_hz) == pytest.approx(-3.01, abs=0.05)


@pytest.mark.parametrize("db", [-6.0, -20.0, 3.0])
@pytest.mark.parametrize("seconds", [0.05, 0.39, 0.4, 2])
def test_a_gain_of_a_db_is_a_loudness_unit(db: float, seconds: float) -> None:
    """At any length: short signals are followed by zeros."""
    x = 0.1 * normal(0, round(seconds * RATE_HZ))
    y = x * np.float32(10 ** (db / 20))
    difference = levels.loudness_lufs(y, RATE_HZ) - levels.loudness_lufs(x, RATE_HZ)
    assert difference == pytest.approx(db, abs=1e-4)
    assert levels.loudness_change_lu(y, x, RATE_HZ) == pytest.approx(abs(db), abs=1e-4)


def test_below_the_gate_all_is_equally_silent() -> None:
    silence, murmur = np.zeros(RATE_HZ, np.float32), 1e-6 * normal(0, RATE_HZ)
    assert levels.loudness_lufs(silence, RATE_HZ) == levels.loudness_lufs(murmur, RATE_HZ) == -70
    assert levels.loudness_change_lu(murmur, silence, RATE_HZ) == 0
    assert levels.loudness_change_lu(sine(997, 1), silence[: 2 * RATE_HZ], RATE_HZ) == pytest.approx(67, abs=0.1)
    assert levels.loudness_lufs(silence[:0], RATE_HZ) == -70


def test_clipping_is_the_share_of_samples_at_full_scale() -> None:
    assert levels.clipped_ratio(np.array([0.5, 1.0, -1.0, 0.999])) == 0.5
    assert levels.clipped_ratio(np.array([np.nan, 0, 2, -32767 / 32768])) == 0.75
    assert levels.clipped_ratio(np.zeros(0)) == 0
    assert levels.flat_top_ratio(np.zeros(9)) == levels.flat_top_ratio(np.zeros(0)) == 0
    assert levels.flat_top_ratio(np.array([0.1, -0.5, 0.5, 0.4])) == 0.5
    noise = np.random.default_rng(0).standard_normal(24_000)
    assert levels.flat_top_ratio(noise) == 1 / 24_000
    assert levels.flat_top_ratio(np.clip(noise, -2, 2)) == pytest.approx(0.0455, rel=0.1)  # beyond two deviations
    # A sine of twice full scale is above it for two thirds of the time: arcsin(1/2) is 30 degrees.
    assert levels.clipped_ratio(np.clip(sine(100, 2), -1, 1)) == pytest.approx(2 / 3, abs=0.01)


def test_dc_is_in_units_of_the_references_rms() -> None:
    x = sine(100, 0.1 * math.sqrt(2))
    assert levels.dc_ratio(x + np.float32(0.01), x) == pytest.approx(0.1, rel=1e-4)
    assert levels.dc_ratio(x - np.float32(0.01), x) == pytest.approx(0.1, rel=1e-4)
    assert levels.dc_ratio(x + np.float32(0.01), x + np.float32(0.01)) == 0  # the reference's own
    assert levels.dc_ratio(np.full(9, 1e-4), np.zeros(9)) == pytest.approx(1)  # silence: re -80 dB
    assert levels.dc_ratio(np.zeros(0), np.zeros(0)) == 0
    assert levels.dc_ratio(np.array([np.inf]), np.ones(1)) == math.inf


def test_silence_is_the_share_of_frames() -> None:
    x = sine(200, 0.1)
    y = x.copy()
    y[: len(y) // 4] = 0
    assert levels.silence_change_ratio(y, x, RATE_HZ) == levels.silence_change_ratio(x, y, RATE_HZ) == 0.25
    assert levels.silence_change_ratio(x / 2, x, RATE_HZ) == 0
    assert levels.silence_change_ratio(0 * x, 0 * x, RATE_HZ) == 0
    assert levels.silence_change_ratio(0 * x, x, RATE_HZ) == 1
    assert levels.silence_change_ratio(y + np.float32(0.3), y, RATE_HZ) == 0  # an offset is no sound
    assert levels.silence_change_ratio(np.full_like(x, np.nan), x, RATE_HZ) == 1


def test_noise_in_pauses_ends_their_silence() -> None:
    """35 dB below the loudest frame: a sine of amplitude 0.1 has RMS -23 dB, the threshold is -58."""
    x = sine(200, 0.1)
    x[len(x) // 2 :] = 0
    for db, change in ((-64, 0), (-40, 0.5)):
        noise = normal(0, len(x)) * np.float32(10 ** (db / 20))
        assert levels.silence_change_ratio(x + noise, x, RATE_HZ) == change


@pytest.mark.parametrize("samples", [0, 1, 100, 480, 959])
def test_short_audio_has_a_frame_or_none(samples: int) -> None:
    assert len(levels.frame_rms(normal(0, samples), RATE_HZ)) == (1 if samples else 0)


def test_samples_that_are_no_numbers_are_counted() -> None:
    assert levels.not_finite(np.array([np.nan, 1, np.inf, -np.inf])) == 3
    assert levels.not_finite(np.zeros(0)) == 0
