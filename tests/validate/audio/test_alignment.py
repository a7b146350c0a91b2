"""Alignment: paths, and distances that stand a change of timing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from graphs import normal

from jtts_export.validate.audio import dtw_log_mel, log_mel, log_mel_l1, si_sdr_db
from jtts_export.validate.audio.alignment import MELS, align, mel_frames, warped

RATE_HZ = 24_000
Speech = Callable[..., np.ndarray]


def stretched(audio: np.ndarray, factor: float) -> np.ndarray:
    """Said slower, pitch and all."""
    return np.interp(np.arange(round(len(audio) * factor)) / factor, np.arange(len(audio)), audio).astype(np.float32)


def textbook(a: np.ndarray, b: np.ndarray) -> float:
    """Least summed distance, by the recursion itself."""
    cost = np.linalg.norm(a[:, None] - b[None], axis=2)
    total = np.full((len(a) + 1, len(b) + 1), np.inf)
    total[0, 0] = 0
    for i in range(len(a)):
        for j in range(len(b)):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return float(total[-1, -1])


@pytest.mark.parametrize(("frames", "others"), [(40, 40), (40, 55), (55, 40), (1, 20), (20, 1), (1, 1), (2, 30)])
def test_the_path_is_the_best_there_is(frames: int, others: int) -> None:
    a, b = normal(0, frames, MELS).astype(np.float64), normal(1, others, MELS).astype(np.float64)
    b += np.log(np.exp(a).mean()) - np.log(np.exp(b).mean())  # levels are made equal anyhow
    path = align(b, a, RATE_HZ)
    assert (path.reference[0], path.measured[0]) == (0, 0)
    assert (path.reference[-1], path.measured[-1]) == (frames - 1, others - 1)
    steps = np.stack([np.diff(path.reference), np.diff(path.measured)])
    assert set(map(tuple, steps.T)) <= {(1, 1), (1, 0), (0, 1)}
    taken = np.linalg.norm(a[path.reference] - b[path.measured], axis=1).sum()
    assert taken == pytest.approx(textbook(a, b), rel=1e-9)


def test_equal_signals_go_straight(speech: Speech) -> None:
    frames = mel_frames(speech(0), RATE_HZ)
    path = align(frames, frames, RATE_HZ)
    np.testing.assert_array_equal(path.measured, path.reference)
    assert dtw_log_mel(speech(0), speech(0), RATE_HZ) == 0


def test_a_gain_does_not_bend_the_path() -> None:
    """Noise would be matched with whichever of its frames is loudest."""
    x = 0.1 * normal(0, RATE_HZ)
    path = align(mel_frames(x / 4, RATE_HZ), mel_frames(x, RATE_HZ), RATE_HZ)
    np.testing.assert_array_equal(path.measured, path.reference)
    assert dtw_log_mel(x / 4, x, RATE_HZ) == pytest.approx(math.log(4), abs=1e-6)


@pytest.mark.parametrize("seconds", [1, 3, 9])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_timing_alone_is_a_small_distance_at_any_length(speech: Speech, seconds: float, factor: float) -> None:
    """0.1 to 0.3 nepers (2 % of stretch shifts formants by 2 % as well), where other speech is at 2."""
    x = speech(3, seconds)
    distance = dtw_log_mel(stretched(x, factor), x, RATE_HZ)
    other = dtw_log_mel(speech(4, seconds), x, RATE_HZ)
    assert distance < 0.35
    assert distance < 0.35 * other


def test_along_the_path_signals_are_closer_than_frame_by_frame(speech: Speech) -> None:
    x = speech(0)
    late = np.concatenate([np.zeros(4800, np.float32), x[:-4800]])
    assert dtw_log_mel(late, x, RATE_HZ) < 0.2 * log_mel_l1(late, x, RATE_HZ)


def test_frames_last_as_long_at_every_rate(speech: Speech) -> None:
    assert mel_frames(speech(0, 1), RATE_HZ).shape == (log_mel(speech(0, 1), RATE_HZ).shape[1], MELS)
    for rate_hz in (8000, 16_000, 22_050, 44_100, 48_000):
        assert 70 < len(mel_frames(normal(0, rate_hz), rate_hz)) < 150


def test_dtw_of_awkward_signals() -> None:
    x, silence = normal(0, RATE_HZ), np.zeros(RATE_HZ, np.float32)
    assert dtw_log_mel(silence, silence[:1], RATE_HZ) == 0
    assert 1 < dtw_log_mel(silence, x, RATE_HZ) < math.inf
    assert math.isfinite(dtw_log_mel(x[:1], x, RATE_HZ))
    assert dtw_log_mel(np.full_like(x, np.nan), x, RATE_HZ) == math.inf


# SI-SDR


@pytest.mark.parametrize("db", [-20, 0, 20, 60])
def test_si_sdr_of_noise_that_is_unlike_the_signal_is_its_level(db: float) -> None:
    x, noise = normal(0, 5000).astype(np.float64), normal(1, 5000).astype(np.float64)
    x -= x.mean()
    noise -= noise.mean()
    noise -= x * (noise @ x) / (x @ x)
    noise *= math.sqrt((x @ x) / (noise @ noise)) * 10 ** (-db / 20)
    assert si_sdr_db(x + noise, x, RATE_HZ) == pytest.approx(db, abs=1e-6)
    assert si_sdr_db(3 * (x + noise) + 0.5, x, RATE_HZ) == pytest.approx(db, abs=1e-6)  # neither gain nor offset


def test_si_sdr_of_awkward_signals() -> None:
    x = normal(0, 5000)
    assert si_sdr_db(2 * x, x, RATE_HZ) > 140  # float32's rounding
    assert (
        si_sdr_db(x, x, RATE_HZ) == si_sdr_db(0 * x, 0 * x, RATE_HZ) == si_sdr_db(x[:0], x[:0], RATE_HZ) == math.inf
    )
    for bad in (0 * x, x * np.float32(np.nan), x[:0]):
        assert si_sdr_db(bad, x, RATE_HZ) == si_sdr_db(x, bad, RATE_HZ) == -math.inf


def test_si_sdr_aligns_signals_of_different_length(speech: Speech) -> None:
    """150 ms left out cost what is near the cut, not all that comes after it."""
    x = speech(0)
    at = 2 * RATE_HZ
    cut = np.concatenate([x[:at], x[at + 3600 :]])
    padded = np.pad(cut, (0, 3600))
    assert si_sdr_db(cut, x, RATE_HZ) > 8 > 1 > si_sdr_db(padded, x, RATE_HZ)
    assert len(warped(cut, x, RATE_HZ)) == len(x)
    other = speech(1)[: len(cut)]
    assert si_sdr_db(other, x, RATE_HZ) < 0


@pytest.mark.parametrize("samples", [1, 2, 300, 1024, 5000])
def test_warping_takes_any_lengths(samples: int) -> None:
    x = normal(0, 3000)
    assert warped(normal(1, samples), x, RATE_HZ).shape == (3000,)
    assert warped(x, normal(1, samples), RATE_HZ).shape == (samples,)


def test_warping_what_is_aligned_already_changes_nothing() -> None:
    x = normal(0, 9000)
    np.testing.assert_allclose(warped(x, x, RATE_HZ), x, rtol=0, atol=1e-6)
