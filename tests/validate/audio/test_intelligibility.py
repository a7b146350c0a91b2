"""STOI and PESQ: what they say of known pairs, and of what they cannot judge."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
from graphs import normal
from pystoi import stoi as pystoi

from jtts_export.validate.audio import compare, pesq, pesq_installed, stoi

RATE_HZ = 24_000
Speech = Callable[..., np.ndarray]


@pytest.mark.parametrize("rate_hz", [8000, 10_000, 22_050, 24_000, 44_100])
def test_stoi_is_pystois_at_any_rate(speech: Speech, with_noise: Speech, rate_hz: int) -> None:
    x = speech(0, 2, rate_hz)
    y = with_noise(x, 5)
    expected = pystoi(x.astype(np.float64), y.astype(np.float64), rate_hz)
    assert 0.5 < expected < 0.98
    assert stoi(y, x, rate_hz) == pytest.approx(expected, abs=1e-12)


def test_stoi_falls_with_noise_and_ignores_gain(speech: Speech, with_noise: Speech) -> None:
    x = speech(0)
    scores = [stoi(with_noise(x, db), x, RATE_HZ) for db in (40, 28, 15, 0, -15)]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] > 0.97
    assert scores[-1] < 0.5
    assert stoi(x, x, RATE_HZ) == 1
    assert stoi(x / 4, x, RATE_HZ) == pytest.approx(1, abs=1e-6)


def test_noise_of_another_draw_is_unintelligible(speech: Speech) -> None:
    a, b = 0.1 * normal(0, 2 * RATE_HZ), 0.1 * normal(1, 2 * RATE_HZ)
    assert stoi(b, a, RATE_HZ) < 0.2
    assert stoi(a, a, RATE_HZ) == 1


def test_short_speech_is_judged_as_if_said_again(speech: Speech, with_noise: Speech) -> None:
    """pystoi alone returns 1e-5 below 0.4 s."""
    x = speech(0)[RATE_HZ : RATE_HZ + RATE_HZ // 5]
    good, bad = (stoi(with_noise(x, db), x, RATE_HZ) for db in (30, -10))
    assert good > 0.95
    assert bad < 0.7


@pytest.mark.parametrize("samples", [0, 1, 50, 600])
def test_less_than_a_frame_is_judged_by_whether_there_is_any(samples: int) -> None:
    x, y = normal(0, samples), normal(1, samples)
    assert stoi(y, x, RATE_HZ) == 1
    assert stoi(0 * x, x, RATE_HZ) == (0 if samples else 1)


def test_silence_is_like_silence_only(speech: Speech) -> None:
    x = speech(0, 1)
    assert stoi(0 * x, 0 * x, RATE_HZ) == 1
    assert stoi(0 * x, x, RATE_HZ) == stoi(x, 0 * x, RATE_HZ) == 0
    assert stoi(np.full_like(x, np.nan), x, RATE_HZ) == 0


def test_pesq_is_measured_where_it_is_installed(speech: Speech, with_noise: Speech) -> None:
    x = speech(0)
    installed = importlib.util.find_spec("pesq") is not None
    assert pesq_installed() == installed
    assert ("audio_pesq" in compare(with_noise(x, 30), x, RATE_HZ)) == installed
    if not installed:
        assert pesq(x, x, RATE_HZ) is None
        return
    assert pesq(x, x, RATE_HZ) == pytest.approx(4.644, abs=0.001)  # P.862.2's upper end
    scores = [pesq(with_noise(x, db), x, RATE_HZ) for db in (40, 20, 0)]
    assert scores == sorted(scores, reverse=True)
    assert pesq(0 * x, x, RATE_HZ) == pesq(np.full_like(x, np.inf), x, RATE_HZ) == 1.04
    assert pesq(x, 0 * x, RATE_HZ) is pesq(x[:100], x[:100], RATE_HZ) is None


def test_a_click_behind_the_last_whole_frame_can_be_judged() -> None:
    x = np.zeros(1600, np.float32)
    x[-1] = 1
    assert 0 <= stoi(0.5 * x, x, 16_000) <= 1
