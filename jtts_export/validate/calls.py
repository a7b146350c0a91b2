"""Whether the next call costs what this one did: slopes of time and memory over calls on one loaded model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

CONFIDENCE = 0.95
WARM = 1.1  # times the usual: a call that is no slower is not warming up


@dataclass(frozen=True)
class Slope:
    """Change a call, and how far the true one may lie from it either way, with CONFIDENCE."""

    value: float
    margin: float

    @property
    def least(self) -> float:
        """What is certain of it: the end of its interval that is nearer to zero, zero if that holds it."""
        return float(np.sign(self.value) * max(0.0, abs(self.value) - self.margin))


def slope(values: Sequence[float], *lengths: Sequence[float]) -> Slope:
    """Of values, call by call, by least squares. lengths: of what was spoken, or read, whose shares in the values are
    fitted beside it. At least three calls more than lengths."""
    columns = [np.ones(len(values)), np.arange(len(values)), *(np.asarray(column, float) for column in lengths)]
    design, y = np.stack(columns, 1), np.asarray(values, float)
    fitted, *_ = np.linalg.lstsq(design, y, rcond=None)
    freedom = len(y) - design.shape[1]
    variance = float(((y - design @ fitted) ** 2).sum()) / freedom
    error = np.sqrt(variance * np.linalg.pinv(design.T @ design)[1, 1])
    return Slope(float(fitted[1]), float(t.ppf((1 + CONFIDENCE) / 2, freedom) * error))


def repeat_metrics(seconds: Sequence[float], audio_s: float) -> dict[str, float]:
    """Of one call again and again from a cold start. audio_s: what each one made."""
    later = np.asarray(seconds[1:])
    usual = float(np.median(later))
    warm = [i for i, taken in enumerate(seconds) if taken <= WARM * usual]
    return {
        "warmup_ratio": seconds[0] / usual,
        "warmup_calls": float(warm[0]),
        "rtf_sequential_std": float((later / audio_s).std()),
        "rtf_sequential_range": float(np.ptp(later / audio_s)),
    }


def call_metrics(seconds: Sequence[float], rss_mb: Sequence[float], *lengths: Sequence[float]) -> dict[str, float]:
    """Of calls in order, but for the first, which pays for what later ones find. lengths: of their texts and
    speech. Memory is that of the later half: buffers grow, in a few steps, until they have met every length."""
    time, memory = slope(seconds[1:], *(column[1:] for column in lengths)), slope(rss_mb[len(rss_mb) // 2 :])
    later, count = float(np.mean(seconds[1:])), len(seconds) - 1
    return {
        "call_mean_ms": 1e3 * later,
        "call_slope_ms": 1e3 * time.value,
        "call_slope_margin_ms": 1e3 * time.margin,
        "call_growth_ratio": time.least * count / later,
        "rss_slope_mb": memory.value,
        "rss_slope_margin_mb": memory.margin,
        "rss_growth_mb": memory.least * count,
    }
