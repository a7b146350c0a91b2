"""Distances between waveforms and between spectra. numpy only."""

from __future__ import annotations

from functools import cache

import numpy as np

N_FFT, HOP, MELS = 1024, 256, 80
FLOOR = 1e-5  # of mel amplitude: silence, and what lies under it, is one value

# Window, hop and FFT of Parallel WaveGAN's loss (Yamamoto et al. 2020, table 1), at 24 kHz.
RESOLUTIONS_24_KHZ = ((600, 120, 1024), (1200, 240, 2048), (240, 50, 512))
_POWER_FLOOR = 1e-7  # of the STFT's squared magnitude, the authors' own


def finite(*signals: np.ndarray) -> bool:
    return all(bool(np.isfinite(x).all()) for x in signals)


def snr_db(measured: np.ndarray, reference: np.ndarray) -> float:
    """Power of the reference over power of the difference, in dB. inf where equal, -inf where one is not finite."""
    if measured.shape != reference.shape or not finite(measured, reference):
        return float("-inf")
    exact = reference.astype(np.float64)
    noise = float(((measured.astype(np.float64) - exact) ** 2).sum())
    signal = float((exact**2).sum())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")


def log_mel(audio: np.ndarray, sample_rate_hz: int, n_fft: int = N_FFT, mels: int = MELS) -> np.ndarray:
    """Natural log of the mel amplitude spectrum, float [mels, frames]; a quarter of a window from frame to frame.

    audio: [samples]. The first frame holds a quarter of a window of audio, the last what is left of it: every
    window that the signal reaches, as scipy's ShortTimeFFT has it.
    """
    hop = n_fft // 4
    padded = np.pad(audio.astype(np.float64), (0, max(0, n_fft - len(audio))))
    count = -(-(len(padded) - 1 + n_fft - hop) // hop)
    magnitude = _magnitude(padded, n_fft, hop, n_fft, n_fft - hop, count)
    return np.log(np.maximum(mel_filters(sample_rate_hz, n_fft, mels) @ magnitude.T, FLOOR))


def log_mel_l1(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Mean absolute difference of log-mels, in nepers; inf where lengths differ or samples are not finite."""
    if measured.shape != reference.shape or not finite(measured, reference):
        return float("inf")
    return float(np.abs(log_mel(measured, sample_rate_hz) - log_mel(reference, sample_rate_hz)).mean())


def mrstft(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> float:
    """Multi-resolution STFT distance: spectral convergence plus log-magnitude L1 (nepers), mean of three resolutions.

    [samples] both, of one length. Yamamoto, Song, Kim: Parallel WaveGAN, ICASSP 2020, eqs. 4-6; windows last as long
    as theirs do at 24 kHz. inf where lengths differ or samples are not finite.
    """
    if measured.shape != reference.shape or not finite(measured, reference):
        return float("inf")
    distances = []
    for at_24_khz in RESOLUTIONS_24_KHZ:
        window, hop = (max(1, round(n * sample_rate_hz / 24_000)) for n in at_24_khz[:2])
        n_fft = power_of_2(at_24_khz[2] * sample_rate_hz / 24_000)
        made, exact = (
            np.sqrt(np.maximum(_magnitude(x, window, hop, n_fft, window // 2, 1 + len(x) // hop) ** 2, _POWER_FLOOR))
            for x in (measured.astype(np.float64), reference.astype(np.float64))
        )
        convergence = np.linalg.norm(exact - made) / np.linalg.norm(exact)
        distances.append(convergence + np.abs(np.log(exact / made)).mean())
    return float(np.mean(distances))


@cache
def mel_filters(sample_rate_hz: int, n_fft: int = N_FFT, mels: int = MELS) -> np.ndarray:
    """Triangular filters of unit area on the mel scale of Slaney's Auditory Toolbox, [mels, n_fft / 2 + 1]."""
    edges = _slaney_hz(np.linspace(0, _slaney_mel(sample_rate_hz / 2), mels + 2))
    bins = np.fft.rfftfreq(n_fft, 1 / sample_rate_hz)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))


def power_of_2(size: float) -> int:
    """The nearest one, by ratio."""
    return int(2 ** round(np.log2(size)))


def _magnitude(audio: np.ndarray, size: int, hop: int, n_fft: int, ahead: int, count: int) -> np.ndarray:
    """|STFT| with a periodic Hann window of `size`, [count, n_fft / 2 + 1]; `ahead` zeros come before the audio."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    behind = max(0, (count - 1) * hop + size - ahead - len(audio))
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(audio, (ahead, behind)), size)[::hop][:count]
    return np.abs(np.fft.rfft(frames * window, n_fft))


# Linear below 1 kHz, 3 mels to 200 Hz; logarithmic above, 27 mels to a factor of 6.4.
_LINEAR_HZ, _MEL_STEP, _LOG_STEP = 1000.0, 200 / 3, np.log(6.4) / 27


def _slaney_mel(hz: float) -> float:
    return hz / _MEL_STEP if hz < _LINEAR_HZ else _LINEAR_HZ / _MEL_STEP + np.log(hz / _LINEAR_HZ) / _LOG_STEP


def _slaney_hz(mel: np.ndarray) -> np.ndarray:
    knee = _LINEAR_HZ / _MEL_STEP
    return np.where(mel < knee, mel * _MEL_STEP, _LINEAR_HZ * np.exp(_LOG_STEP * (mel - knee)))
