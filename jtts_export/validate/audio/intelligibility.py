"""STOI and PESQ, by the packages that are known for them."""

from __future__ import annotations

import importlib.util
import math

import numpy as np

from .spectral import finite

_STOI_HZ, _STOI_WINDOW, _STOI_HOP, _STOI_FRAMES = 10_000, 256, 128, 30  # Taal et al. 2011
_STOI_RANGE = 100.0  # 40 dB of energy: frames below are left out of STOI
_PESQ_HZ = 16_000
_PESQ_WORST = 1.04  # what P.862.2's mapping gives at its lower end


def stoi(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Short-time objective intelligibility, 1 at best (Taal et al. 2011); [samples] both, of one length.

    It needs 30 frames (0.4 s) that are not silent: shorter signals are said again until there are as many. What is
    shorter than one frame, or silent throughout, is judged by whether the other is: 1 if so, else 0. 0 where
    samples are not finite.
    """
    if not finite(measured, reference):
        return 0.0
    if np.array_equal(measured, reference):
        return 1.0  # even where bands are empty, which pystoi counts as unlike
    sounds = bool(reference.any())
    if not sounds or not measured.any() or len(reference) * _STOI_HZ < _STOI_WINDOW * sample_rate_hz:
        return float(sounds == bool(measured.any()))
    from pystoi import stoi as pystoi  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from pystoi.utils import resample_oct  # type: ignore[import-not-found, import-untyped, unused-ignore]

    x, y = (a.astype(np.float64) for a in (reference, measured))
    if sample_rate_hz != _STOI_HZ:
        x, y = (resample_oct(a, _STOI_HZ, sample_rate_hz) for a in (x, y))
    frames = np.lib.stride_tricks.sliding_window_view(x, _STOI_WINDOW)[::_STOI_HOP]
    level = np.linalg.norm(frames * np.hanning(_STOI_WINDOW + 2)[1:-1], axis=1)
    active = max(1, int((level * _STOI_RANGE > level.max()).sum()))  # none, where all sound lies behind the frames
    if active < _STOI_FRAMES + 2:
        times = math.ceil((_STOI_FRAMES + 2) / active) + 1
        x, y = np.tile(x, times), np.tile(y, times)
    return float(np.clip(pystoi(x, y, _STOI_HZ), 0, 1))


def pesq(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float | None:
    """Wideband PESQ (ITU-T P.862.2), mean opinion score of 1.04 to 4.64; [samples] both.

    None where the package is not installed, or PESQ finds no utterance in the reference (it needs 0.25 s).
    """
    if not pesq_installed():
        return None
    if not finite(measured, reference):
        return _PESQ_WORST
    from pesq import PesqError  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from pesq import pesq as itu

    x, y = (_at_16_khz(a, sample_rate_hz) for a in (reference, measured))
    if len(x) < _PESQ_HZ // 4 or not x.any():
        return None
    if not y.any():
        return _PESQ_WORST
    score = float(itu(_PESQ_HZ, x, y, "wb", on_error=PesqError.RETURN_VALUES))
    return score if score > 0 else None  # -1: no utterance


def pesq_installed() -> bool:
    return importlib.util.find_spec("pesq") is not None


def _at_16_khz(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    from scipy.signal import resample_poly

    common = math.gcd(_PESQ_HZ, sample_rate_hz)
    return np.asarray(resample_poly(audio.astype(np.float32), _PESQ_HZ // common, sample_rate_hz // common))
