"""Distances between signals. numpy and scipy only; each formula once, with its source."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

N_FFT, HOP, MELS = 1024, 256, 80
FLOOR = 1e-5  # of mel amplitude: silence, and what lies under it, is one value


def snr_db(measured: np.ndarray, reference: np.ndarray) -> float:
    """Power of the reference over power of the difference, in dB. inf where equal, -inf where not finite."""
    if measured.shape != reference.shape or not np.isfinite(measured).all():
        return float("-inf")
    exact = reference.astype(np.float64)
    noise = float(((measured.astype(np.float64) - exact) ** 2).sum())
    signal = float((exact**2).sum())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")


def log_mel(audio: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Natural log of the mel amplitude spectrum, float [MELS, frames]. audio: [samples]."""
    window = hann(N_FFT, sym=False)
    transform = ShortTimeFFT(window, HOP, sample_rate_hz, fft_mode="onesided")
    padded = np.pad(audio.astype(np.float64), (0, max(0, N_FFT - len(audio))))
    magnitude = np.abs(transform.stft(padded))
    return np.log(np.maximum(mel_filters(sample_rate_hz) @ magnitude, FLOOR))


def log_mel_l1(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Mean absolute difference of log-mels, in nepers; inf where lengths differ or samples are not finite."""
    if measured.shape != reference.shape or not np.isfinite(measured).all():
        return float("inf")
    return float(np.abs(log_mel(measured, sample_rate_hz) - log_mel(reference, sample_rate_hz)).mean())


@cache
def mel_filters(sample_rate_hz: int) -> np.ndarray:
    """Triangular filters of unit area on the mel scale of Slaney's Auditory Toolbox, [MELS, N_FFT / 2 + 1]."""
    edges = _slaney_hz(np.linspace(0, _slaney_mel(sample_rate_hz / 2), MELS + 2))
    bins = np.fft.rfftfreq(N_FFT, 1 / sample_rate_hz)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))


# Linear below 1 kHz, 3 mels to 200 Hz; logarithmic above, 27 mels to a factor of 6.4.
_LINEAR_HZ, _MEL_STEP, _LOG_STEP = 1000.0, 200 / 3, np.log(6.4) / 27


def _slaney_mel(hz: float) -> float:
    return hz / _MEL_STEP if hz < _LINEAR_HZ else _LINEAR_HZ / _MEL_STEP + np.log(hz / _LINEAR_HZ) / _LOG_STEP


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    knee = _LINEAR_HZ / _MEL_STEP
    return np.where(mel < knee, mel * _MEL_STEP, _LINEAR_HZ * np.exp(_LOG_STEP * (mel - knee)))
