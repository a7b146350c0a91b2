"""Pitch: F0 of known signals, and what counts where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from graphs import normal

from jtts_export.validate.audio import PitchError, f0_hz, pitch_error

RATE_HZ = 24_000
Speech = Callable[..., np.ndarray]


def sawtooth(hz: float, seconds: float = 1, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Of as many harmonics as fit below 4 kHz, or half the rate."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    harmonics = range(1, int(min(4000, rate_hz / 2.1) / hz))
    return (0.2 * sum(np.sin(2 * np.pi * hz * h * t) / h for h in harmonics)).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 24_000, 48_000])
def test_f0_of_a_sawtooth(rate_hz: int) -> None:
    f0 = f0_hz(sawtooth(150, rate_hz=rate_hz), rate_hz)
    assert len(f0) == pytest.approx(95, abs=2)  # 10 ms apart, but for a window of 50 ms
    np.testing.assert_allclose(f0, 150, rtol=1e-4)  # a fifth of a cent


@pytest.mark.parametrize("cents", [0, 5, 50, -50, 200])
@pytest.mark.parametrize("hz", [90, 220])
def test_a_shift_of_pitch_is_measured_in_cents(cents: float, hz: float) -> None:
    error = pitch_error(sawtooth(hz * 2 ** (cents / 1200)), sawtooth(hz), RATE_HZ)
    assert error.rmse_cents == pytest.approx(abs(cents), abs=0.2)
    assert error.voicing_error_ratio == 0


def test_the_mean_is_of_squares_and_leaves_the_worst_tenth_out() -> None:
    """Half of a second off by 40 cents, of which 4 in 9 of the frames that count; but for frames that hold both."""
    exact = sawtooth(200)
    made = np.concatenate([exact[: RATE_HZ // 2], sawtooth(200 * 2 ** (40 / 1200), 0.5)])
    assert pitch_error(made, exact, RATE_HZ).rmse_cents == pytest.approx(40 * math.sqrt(4 / 9), rel=0.05)


@pytest.mark.parametrize(("share", "counts"), [(0.05, False), (0.3, True)])
def test_a_few_frames_far_off_are_the_trackers(share: float, counts: bool) -> None:
    exact = sawtooth(200)
    made = np.concatenate([exact[: round((1 - share) * RATE_HZ)], sawtooth(310, share)])
    error = pitch_error(made, exact, RATE_HZ).rmse_cents
    assert (error > 300) if counts else (error < 5)


def test_pitch_that_vanishes_is_an_error_of_voicing_alone() -> None:
    exact = sawtooth(200)
    made = exact.copy()
    made[RATE_HZ // 2 :] = 0.1 * normal(0, RATE_HZ // 2)
    error = pitch_error(made, exact, RATE_HZ)
    assert error.voicing_error_ratio == pytest.approx(0.5, abs=0.05)
    assert pitch_error(exact, made, RATE_HZ).voicing_error_ratio == error.voicing_error_ratio
    assert error.rmse_cents < 5
    assert pitch_error(0 * exact, exact, RATE_HZ) == PitchError(0, 1)


def test_audio_without_pitch_has_no_error_of_pitch() -> None:
    a, b = 0.1 * normal(0, RATE_HZ), 0.1 * normal(1, RATE_HZ)
    error = pitch_error(a, b, RATE_HZ)
    assert error.rmse_cents == 0
    assert error.voicing_error_ratio < 0.1


def test_a_tenth_of_a_second_is_too_short_for_a_melody() -> None:
    short, other = sawtooth(200, 0.1), sawtooth(230, 0.1)
    assert 0 < len(f0_hz(short, RATE_HZ)) < 10
    assert pitch_error(other, short, RATE_HZ).rmse_cents == 0
    longer = pitch_error(sawtooth(230, 0.2), sawtooth(200, 0.2), RATE_HZ)
    assert longer.rmse_cents == pytest.approx(1200 * math.log2(1.15), abs=1)


@pytest.mark.parametrize("samples", [0, 1, 480, 1201, 1202, 1203])
def test_less_than_praats_window_has_no_frames_or_some(samples: int) -> None:
    x = normal(0, samples)
    assert len(f0_hz(x, RATE_HZ)) <= 1
    assert pitch_error(x, x, RATE_HZ) == PitchError(0, 0)


def test_pitch_stands_noise_of_int8(speech: Speech, with_noise: Speech) -> None:
    """At 28 dB: below 5 cents (measured: 0.3), the least that is heard."""
    for seed in range(6):
        error = pitch_error(with_noise(speech(seed), 28), speech(seed), RATE_HZ)
        assert error.rmse_cents < 5
        assert error.voicing_error_ratio < 0.03


def test_what_is_not_finite_is_as_wrong_as_can_be() -> None:
    x = sawtooth(200)
    y = x.copy()
    y[7] = np.nan
    assert pitch_error(y, x, RATE_HZ) == pitch_error(x, y, RATE_HZ) == PitchError(math.inf, 1)
