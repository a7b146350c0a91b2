"""Pitch of the audio itself, by Praat's autocorrelation method (Boersma 1993)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .spectral import finite

STEP_S = 0.01
FLOOR_HZ, CEILING_HZ = 60.0, 600.0  # of speaking voices
LEAST_FRAMES = 10  # voiced in both; 100 ms of pitch say nothing of a melody
# Noise of 28 dB makes the tracker take another octave for up to 6 % of voiced frames. At 1200 cents they would be all
# of the error; a fault of pitch that matters does not end at a tenth of the frames.
COUNTED = 0.9


@dataclass(frozen=True)
class PitchError:
    """rmse_cents: over the nine tenths of the frames voiced in both that agree best, 0 where fewer than LEAST_FRAMES
    are; voicing_error_ratio: share of all frames that are voiced in one signal only (voicing decision error of
    Nakatani et al. 2008)."""

    rmse_cents: float
    voicing_error_ratio: float


def f0_hz(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """F0 every 10 ms, [frames], 0 where unvoiced. No frames where the audio is shorter than three periods of the
    lowest pitch, which is Praat's window."""
    import parselmouth  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if len(audio) < 3 / FLOOR_HZ * sample_rate_hz + 2:
        return np.zeros(0)
    sound = parselmouth.Sound(audio.astype(np.float64), sample_rate_hz)
    pitch = sound.to_pitch_ac(time_step=STEP_S, pitch_floor=FLOOR_HZ, pitch_ceiling=CEILING_HZ)
    return np.asarray(pitch.selected_array["frequency"])


def pitch_error(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> PitchError:
    """[samples] both, of one length. Where samples are not finite, inf and 1.

    A signal without pitch has no error of pitch; where pitch comes or goes, voicing says so.
    """
    if not finite(measured, reference):
        return PitchError(float("inf"), 1.0)
    made, exact = f0_hz(measured, sample_rate_hz), f0_hz(reference, sample_rate_hz)
    voiced = (made > 0) & (exact > 0)
    error = float(((made > 0) != (exact > 0)).mean()) if len(exact) else 0.0
    if voiced.sum() < LEAST_FRAMES:
        return PitchError(0.0, error)
    off = np.sort(np.abs(1200 * np.log2(made[voiced] / exact[voiced])))
    cents = off[: int(np.ceil(COUNTED * len(off)))]
    return PitchError(float(np.sqrt((cents**2).mean())), error)
