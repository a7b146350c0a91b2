"""What can be said of samples without listening: loudness, clipping, DC, silence."""

from __future__ import annotations

import numpy as np

from .spectral import finite

FULL_SCALE = 32767 / 32768  # the largest value of a WAV file's 16 bits
QUIETEST = 1e-4  # -80 dB re full scale: less is silence, whatever else there is
GATE_LUFS = -70.0  # BS.1770's absolute gate; what lies under it has this loudness
BLOCK_S = 0.4
FRAME_S = 0.02
SILENCE = 10 ** (-35 / 20)  # of the loudest frame: above it lies 30 dB of noise, below it no vowel
FLAT = 1e-4  # of the peak: less than a step of 13 bits


def loudness_lufs(audio: np.ndarray, sample_rate_hz: int) -> float:
    """Integrated loudness, ITU-R BS.1770-4, at least -70. What is shorter than a block of 0.4 s is followed by zeros
    up to there, so that its loudness is that of its energy."""
    from pyloudnorm import Meter  # type: ignore[import-not-found, import-untyped, unused-ignore]

    short = max(0, int(np.ceil(BLOCK_S * sample_rate_hz)) - len(audio))
    padded = np.pad(audio.astype(np.float64), (0, short))
    if not padded.any():
        return GATE_LUFS
    with np.errstate(all="ignore"):  # nothing passes the gate: -inf or NaN
        loudness = float(Meter(sample_rate_hz, filter_class="DeMan").integrated_loudness(padded))
    return max(loudness, GATE_LUFS) if np.isfinite(loudness) else GATE_LUFS


def loudness_change_lu(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Absolute difference in loudness; inf where samples are not finite."""
    if not finite(measured, reference):
        return float("inf")
    return abs(loudness_lufs(measured, sample_rate_hz) - loudness_lufs(reference, sample_rate_hz))


def clipped_ratio(audio: np.ndarray) -> float:
    """Share of samples at full scale or beyond; what is not finite counts."""
    return float((~(np.abs(audio) < FULL_SCALE)).mean()) if len(audio) else 0.0


def flat_top_ratio(audio: np.ndarray) -> float:
    """Share of samples at the audio's own peak, to FLAT of it: one of many, where nothing is clipped."""
    loud = np.abs(np.nan_to_num(audio.astype(np.float64)))
    peak = float(loud.max(initial=0))
    return float((loud >= peak * (1 - FLAT)).mean()) if peak else 0.0


def dc_ratio(measured: np.ndarray, reference: np.ndarray) -> float:
    """Shift of the mean over the reference's RMS, or over -80 dB if that is more; inf where not finite."""
    if not finite(measured, reference):
        return float("inf")
    if not len(measured) or not len(reference):
        return 0.0
    exact = reference.astype(np.float64)
    shift = float(measured.astype(np.float64).mean() - exact.mean())
    return abs(shift) / max(float(np.sqrt((exact**2).mean())), QUIETEST)


def silence_change_ratio(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Difference in the share of silent frames: 20 ms whose RMS is 35 dB below that of the reference's loudest, or
    -80 dB re full scale. 1 where samples are not finite."""
    if not finite(measured, reference):
        return 1.0
    made, exact = frame_rms(measured, sample_rate_hz), frame_rms(reference, sample_rate_hz)
    threshold = max(SILENCE * float(exact.max(initial=0)), QUIETEST)
    return abs(_share(made <= threshold) - _share(exact <= threshold))


def frame_rms(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """RMS of 20 ms after 20 ms, [frames]; of all, where there is less than 20 ms. What is left at the end counts
    only then. The mean is taken out first: an offset is no sound."""
    size = min(len(audio), max(1, round(FRAME_S * sample_rate_hz)))
    if not size:
        return np.zeros(0)
    centred = audio.astype(np.float64) - audio.mean(dtype=np.float64)
    return np.sqrt((centred[: len(audio) // size * size].reshape(-1, size) ** 2).mean(1))


def not_finite(audio: np.ndarray) -> float:
    """How many samples are NaN or infinite."""
    return float((~np.isfinite(audio)).sum())


def _share(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else 0.0
