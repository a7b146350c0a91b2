"""Distances between waveforms and between spectra."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from graphs import normal
from scipy.signal import ShortTimeFFT, get_window

from jtts_export.validate.audio import FLOOR, HOP, MELS, N_FFT, log_mel, log_mel_l1, mel_filters, mrstft, snr_db

RATE_HZ = 24_000


def sine(hz: float, samples: int = RATE_HZ, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(samples) / RATE_HZ)).astype(np.float32)


def test_the_package_loads_numpy_alone() -> None:
    """Every start of the program would pay for the others: scipy.signal takes half a second."""
    code = "import sys, jtts_export.validate.audio; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"scipy", "scipy.signal", "parselmouth", "pystoi", "pyloudnorm", "pesq", "torch"}


def test_equal_signals_have_no_noise() -> None:
    assert snr_db(sine(440), sine(440)) == math.inf
    assert snr_db(np.zeros(9), np.zeros(9)) == math.inf


@pytest.mark.parametrize("db", [-20, 0, 6, 40, 120])
def test_snr_is_the_ratio_of_powers(db: float) -> None:
    reference, noise = normal(0, 1, 5000).astype(np.float64), normal(1, 1, 5000).astype(np.float64)
    noise *= math.sqrt((reference**2).sum() / (noise**2).sum()) * 10 ** (-db / 20)
    assert snr_db(reference + noise, reference) == pytest.approx(db, abs=1e-6)


def test_snr_by_hand() -> None:
    assert snr_db(np.array([3.0, 4.0]), np.array([3.0, 5.0])) == pytest.approx(10 * math.log10(34 / 1))


def test_snr_is_of_the_reference_and_sees_gain_and_delay() -> None:
    x = normal(0, 5000)
    assert snr_db(1.1 * x, x) == pytest.approx(20, abs=1e-4)  # float32's rounding of 1.1
    assert snr_db(np.zeros_like(x), x) == pytest.approx(0)
    assert snr_db(np.roll(x, 1), x) == pytest.approx(-10 * math.log10(2), abs=0.3)  # as far as another signal


def test_small_differences_are_measured_in_float64() -> None:
    x = np.full(10_000, 1000, np.float32)
    y = x.copy()
    y[0] = np.nextafter(np.float32(1000), np.float32(2000))
    step = float(y[0]) - 1000
    assert snr_db(y, x) == pytest.approx(10 * math.log10(1e4 * 1e6 / step**2))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_signal_that_is_not_finite_is_as_bad_as_can_be(bad: float) -> None:
    x = sine(440)
    y = x.copy()
    y[100] = bad
    for measured, reference in ((y, x), (x, y)):
        assert snr_db(measured, reference) == -math.inf
        assert log_mel_l1(measured, reference, RATE_HZ) == math.inf


def test_another_length_is_as_bad_as_can_be() -> None:
    x = sine(440)
    assert snr_db(x[:-1], x) == -math.inf
    assert snr_db(x[None], x) == -math.inf
    assert log_mel_l1(x[:-1], x, RATE_HZ) == math.inf


def test_noise_on_silence_is_as_bad_as_can_be() -> None:
    assert snr_db(np.ones(5), np.zeros(5)) == -math.inf


# Mels


def test_slaneys_scale_is_linear_below_1_khz_and_logarithmic_above() -> None:
    """Peaks lie at equal steps in mels: 3 to 200 Hz up to 1 kHz (15 mels), then 27 to a factor of 6.4."""
    top = 15 + 27 * math.log(RATE_HZ / 2 / 1000) / math.log(6.4)
    mels = np.linspace(0, top, MELS + 2)[1:-1]
    hz = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    filters = mel_filters(RATE_HZ)
    assert filters.shape == (MELS, N_FFT // 2 + 1)
    bin_hz = RATE_HZ / N_FFT
    # A triangle's largest bin is the one nearest its peak, but for a filter as narrow as two bins.
    assert np.abs(filters.argmax(axis=1) * bin_hz - hz).max() <= bin_hz


def test_mel_filters_have_unit_area_and_leave_no_gap() -> None:
    filters = mel_filters(RATE_HZ)
    area = filters.sum(axis=1) * RATE_HZ / N_FFT
    wide = area[40:]  # many bins each: the sum is the integral
    np.testing.assert_allclose(wide, 1, atol=0.02)
    assert (area > 0.3).all()  # the narrowest hold a single bin, off their peak
    covered = filters.any(axis=0)
    assert covered[1:-1].all()
    assert not covered[[0, -1]].any()  # DC and half the sample rate are the outer edges
    assert (filters >= 0).all()


@pytest.mark.parametrize("hz", [200.0, 1000.0, 4000.0, 10_000.0])
def test_a_sine_peaks_in_its_own_band(hz: float) -> None:
    mel = hz / (200 / 3) if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)
    top = 15 + 27 * math.log(RATE_HZ / 2 / 1000) / math.log(6.4)
    band = mel / top * (MELS + 1) - 1  # the filter that peaks there, as a fraction
    spectrum = log_mel(sine(hz), RATE_HZ)[:, 20]
    assert abs(int(spectrum.argmax()) - band) <= 1


def test_log_mel_by_hand() -> None:
    """One frame in the middle, from the definition."""
    audio = normal(0, 8000) * np.float32(0.1)
    mels = log_mel(audio, RATE_HZ)
    assert mels.shape[0] == MELS
    window = get_window("hann", N_FFT)  # periodic
    ours = []
    for start in range(0, len(audio) - N_FFT, HOP):
        magnitude = np.abs(np.fft.rfft(audio[start : start + N_FFT] * window))
        ours.append(np.log(np.maximum(mel_filters(RATE_HZ) @ magnitude, FLOOR)))
    # Frames are centred on multiples of the hop; the first whole one starts at the first sample.
    offset = next(i for i in range(mels.shape[1]) if np.allclose(mels[:, i], ours[0]))
    np.testing.assert_allclose(mels[:, offset : offset + len(ours)], np.array(ours).T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("samples", [1, 1023, 1024, 1025, 1026, 1280, 1281, 1282, 5000])
def test_frames_are_those_of_scipy(samples: int) -> None:
    audio = normal(samples, samples).astype(np.float64)
    scipys = ShortTimeFFT(get_window("hann", N_FFT), HOP, RATE_HZ, fft_mode="onesided")
    magnitude = np.abs(scipys.stft(np.pad(audio, (0, max(0, N_FFT - samples)))))
    expected = np.log(np.maximum(mel_filters(RATE_HZ) @ magnitude, FLOOR))
    np.testing.assert_allclose(log_mel(audio, RATE_HZ), expected, rtol=0, atol=1e-9)


def test_a_gain_is_its_logarithm() -> None:
    x = normal(0, RATE_HZ)
    assert log_mel_l1(2 * x, x, RATE_HZ) == pytest.approx(math.log(2), abs=1e-9)


def test_log_mel_distance_is_a_distance() -> None:
    x, y = normal(0, RATE_HZ), normal(1, RATE_HZ)
    assert log_mel_l1(x, x, RATE_HZ) == 0
    assert log_mel_l1(x, y, RATE_HZ) == pytest.approx(log_mel_l1(y, x, RATE_HZ))
    z = (x + y) / 2
    assert log_mel_l1(x, y, RATE_HZ) <= log_mel_l1(x, z, RATE_HZ) + log_mel_l1(z, y, RATE_HZ)


def test_log_mel_hears_no_phase() -> None:
    """Where SNR sees another signal, a steady tone shifted by a quarter of its period sounds the same."""
    a, b = sine(1000), sine(1000)
    b = np.roll(b, 6)
    assert snr_db(b, a) < 0
    mels, shifted = (log_mel(x, RATE_HZ)[:, 8:-8] for x in (a, b))  # the ends differ: silence ahead of another sample
    heard = mels > mels.max() - 4  # 35 dB; what leaks into other bands is rounding
    assert np.abs(mels - shifted)[heard].max() < 0.05


def test_silence_has_a_floor() -> None:
    silence, murmur = np.zeros(RATE_HZ, np.float32), normal(0, RATE_HZ) * np.float32(1e-9)
    assert (log_mel(silence, RATE_HZ) == math.log(FLOOR)).all()
    assert log_mel_l1(murmur, silence, RATE_HZ) == 0


@pytest.mark.parametrize("samples", [1, 100, N_FFT - 1, N_FFT, N_FFT + 1])
def test_a_signal_shorter_than_a_window_has_a_spectrum(samples: int) -> None:
    x = normal(0, samples)
    assert np.isfinite(log_mel(x, RATE_HZ)).all()
    assert log_mel_l1(2 * x, x, RATE_HZ) > 0


# Multi-resolution STFT


def test_mrstft_of_a_gain_by_hand() -> None:
    """Convergence is |1 - gain| and the logarithm's difference log(gain), at every resolution."""
    x = normal(0, RATE_HZ)
    assert mrstft(x, x, RATE_HZ) == 0
    assert mrstft(2 * x, x, RATE_HZ) == pytest.approx(1 + math.log(2), abs=1e-4)  # a few bins lie at the floor
    assert mrstft(x / 2, x, RATE_HZ) == pytest.approx(0.5 + math.log(2), abs=1e-4)


def test_mrstft_of_one_resolution_by_hand() -> None:
    """With the definition written out, for the three resolutions at 24 kHz."""
    made, exact = 0.1 * normal(0, 6000).astype(np.float64), 0.1 * normal(1, 6000).astype(np.float64)
    distances = []
    for size, hop, n_fft in ((600, 120, 1024), (1200, 240, 2048), (240, 50, 512)):
        spectra = []
        for x in (made, exact):
            padded = np.pad(x, (size // 2, 2 * size))
            frames = [padded[i * hop : i * hop + size] * get_window("hann", size) for i in range(1 + len(x) // hop)]
            spectra.append(np.sqrt(np.maximum(np.abs(np.fft.rfft(frames, n_fft)) ** 2, 1e-7)))
        convergence = np.sqrt(((spectra[1] - spectra[0]) ** 2).sum() / (spectra[1] ** 2).sum())
        distances.append(convergence + np.abs(np.log(spectra[1]) - np.log(spectra[0])).mean())
    assert mrstft(made, exact, RATE_HZ) == pytest.approx(np.mean(distances), rel=1e-9)


def test_mrstft_grows_with_noise() -> None:
    x, noise = 0.1 * normal(0, RATE_HZ), normal(1, RATE_HZ)
    distances = [mrstft(x + 0.1 * 10 ** (-db / 20) * noise, x, RATE_HZ) for db in (60, 40, 30, 20, 10, 0)]
    assert distances == sorted(distances)
    assert distances[0] < 0.005 < 0.5 < distances[-1]


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 44_100, 48_000])
def test_mrstft_means_alike_at_every_sample_rate(rate_hz: int) -> None:
    """Noise 20 dB below noise; windows last as long, so only the number of bins differs."""
    x, noise = 0.1 * normal(0, rate_hz), normal(1, rate_hz)
    at_24_khz = mrstft(0.1 * normal(0, RATE_HZ) + 0.01 * normal(1, RATE_HZ), 0.1 * normal(0, RATE_HZ), RATE_HZ)
    assert mrstft(x + 0.01 * noise, x, rate_hz) == pytest.approx(at_24_khz, rel=0.05)


def test_mrstft_of_silence_is_finite_and_of_no_numbers_is_not() -> None:
    x, silence = normal(0, 5000), np.zeros(5000, np.float32)
    assert mrstft(silence, silence, RATE_HZ) == 0
    assert 1 < mrstft(silence, x, RATE_HZ) < mrstft(x, silence, RATE_HZ) < math.inf
    assert mrstft(np.full_like(x, np.nan), x, RATE_HZ) == mrstft(x[:-1], x, RATE_HZ) == math.inf
