"""Discontinuities where chunks of a stream meet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .spectral import finite
from .stutter import runs

AROUND_S = 0.02  # what a join is compared with, on either side
ORDER = 16  # of the linear prediction
AUDIBLE = 1e-3  # of the peak: -60 dB; smaller steps do not count, and quieter stretches are silent
ABRUPT_S, ABRUPT = 0.002, 30  # a gap lies between 2 ms of sound, 30 dB above silence: stops fade, or nearly
LEAST_GAP_S, LONGEST_GAP_S = 0.001, 0.1


def join_score(chunks: Sequence[np.ndarray], sample_rate_hz: int) -> float:
    """How conspicuous the worst join is: about 1 or less if no more than any other place, 0 without joins.

    chunks: [samples] each, in order. The greater of `jump` and `gap` over all joins; inf where samples are not
    finite.
    """
    filled = [chunk for chunk in chunks if len(chunk)]
    if not finite(*filled):
        return float("inf")
    if len(filled) < 2:
        return 0.0
    audio = np.concatenate(filled).astype(np.float64)
    joins = np.cumsum([len(chunk) for chunk in filled])[:-1]
    return max(_gap(audio, joins, sample_rate_hz), *(_jump(audio, int(join), sample_rate_hz) for join in joins))


def _jump(audio: np.ndarray, join: int, sample_rate_hz: int) -> float:
    """Error of linear prediction at the join over its maximum in 20 ms on either side."""
    reach = round(AROUND_S * sample_rate_hz)
    start = max(0, join - reach - ORDER)
    near = audio[start : join + reach]
    least = AUDIBLE * float(np.abs(audio).max())
    if len(near) < 4 * ORDER or not least:
        return 0.0
    lagged = np.lib.stride_tricks.sliding_window_view(near, ORDER + 1)
    past, now = lagged[:, :-1], lagged[:, -1]
    # Least squares by normal equations; the ridge of -90 dB is the noise of 16 bits, and keeps a sine solvable.
    power = past.T @ past
    power += np.eye(ORDER) * (1e-9 * float(np.trace(power)) + 1e-30)
    error = np.abs(now - past @ np.linalg.solve(power, past.T @ now))
    at = join - start - ORDER
    if at < 0:
        return 0.0
    # A step at a sample is an error there, and a smaller one in the ORDER samples that are predicted from it.
    elsewhere = np.concatenate([error[: max(0, at - ORDER)], error[at + 2 * ORDER :]])
    return float(error[at : at + 2].max(initial=0)) / max(float(elsewhere.max(initial=0)), least)


def _gap(audio: np.ndarray, joins: np.ndarray, sample_rate_hz: int) -> float:
    """Longest gap at a join over the longest elsewhere, or 1 ms if that is more. A gap is silence between sounds that
    begin and end abruptly, or zeros, which no network computes, between samples of any level."""
    least, side = round(LEAST_GAP_S * sample_rate_hz), round(ABRUPT_S * sample_rate_hz)
    level = np.abs(audio)
    silence = AUDIBLE * float(level.max())
    silent = _between(audio, level <= silence, ABRUPT * silence, sample_rate_hz)
    zeros = _between(audio, level == 0, float(np.finfo(np.float32).tiny), sample_rate_hz)
    at_joins = elsewhere = 0
    for start, stop in (*silent, *zeros):
        if ((joins >= start - side) & (joins <= stop + side)).any():
            at_joins = max(at_joins, stop - start)
        else:
            elsewhere = max(elsewhere, stop - start)
    return at_joins / max(elsewhere, least)


def _between(audio: np.ndarray, quiet: np.ndarray, loud: float, sample_rate_hz: int) -> Iterator[tuple[int, int]]:
    """Start and stop of what is as quiet for 1 to 100 ms, with an RMS of `loud` in the 2 ms on either side."""
    least, side = round(LEAST_GAP_S * sample_rate_hz), round(ABRUPT_S * sample_rate_hz)
    for start, stop in runs(quiet):
        if least <= stop - start <= LONGEST_GAP_S * sample_rate_hz:
            sides = audio[max(0, start - side) : start], audio[stop : stop + side]
            if min(float(np.sqrt((x**2).mean())) if len(x) else 0.0 for x in sides) >= loud:
                yield start, stop
