"""The signal processing in the decoder: STFT, its inverse, and the harmonic source."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.models.kokoro.decoder import HARMONICS, SINE_AMPLITUDE, STFT, HarmonicSource

SAMPLES_PER_F0 = 300  # official
NO_NOISE = torch.zeros(8, HARMONICS)
ROUNDING = 2e-6  # float32 sums of some twenty terms of order 1

stft_sizes = pytest.mark.parametrize(("n_fft", "hop"), [(20, 5), (16, 4)])


@pytest.fixture
def source() -> HarmonicSource:
    torch.manual_seed(0)
    return HarmonicSource(SAMPLES_PER_F0).requires_grad_(False)


def uniform(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@stft_sizes
def test_stft_equals_torch(n_fft: int, hop: int) -> None:
    audio = uniform(0, 1, 300 * hop) * 2 - 1
    magnitude, phase = STFT(n_fft, hop).transform(audio).chunk(2, dim=1)
    expected = torch.stft(audio, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)
    assert magnitude.shape == expected.shape == (1, n_fft // 2 + 1, 301)
    # As complex numbers: a phase near pi may come out near -pi.
    difference = (torch.polar(magnitude, phase) - expected).abs().max()
    assert difference < ROUNDING


@stft_sizes
def test_inverse_stft_equals_torch(n_fft: int, hop: int) -> None:
    shape = (1, n_fft // 2 + 1, 200)
    magnitude, phase = uniform(1, *shape), (uniform(2, *shape) * 2 - 1) * math.pi
    expected = torch.istft(torch.polar(magnitude, phase), n_fft, hop, window=torch.hann_window(n_fft))
    audio = STFT(n_fft, hop).inverse(magnitude, phase)
    assert audio.shape == expected.shape == (1, 199 * hop)
    # At the first and last samples the window's overlap is small, and dividing by it scales the rounding.
    torch.testing.assert_close(audio, expected, rtol=0, atol=5 * ROUNDING)


def test_inverse_stft_undoes_stft() -> None:
    stft, audio = STFT(20, 5), uniform(3, 1, 1000) * 2 - 1
    again = stft.inverse(*stft.transform(audio).chunk(2, dim=1))
    torch.testing.assert_close(again, audio, rtol=0, atol=5 * ROUNDING)


def test_the_phase_of_silence_is_zero_and_of_a_negative_offset_is_plus_pi() -> None:
    """The network reads the phase as a number: +pi and -pi are far apart to it, and rounding must not choose."""
    stft = STFT(20, 5)
    assert torch.equal(stft.transform(torch.zeros(1, 100)), torch.zeros(1, 22, 21))
    dc_phase = stft.transform(torch.full((1, 100), -0.5))[0, 11]
    assert torch.equal(dc_phase, torch.full((21,), math.pi))


@torch.no_grad()
def test_phases_at_dc_and_nyquist_equal_torch_exactly() -> None:
    audio = uniform(4, 1, 5000) * 2 - 1
    phase = STFT(20, 5).transform(audio)[:, 11:]
    expected = torch.stft(audio, 20, 5, window=torch.hann_window(20), return_complex=True).angle()
    assert torch.equal(phase[:, [0, 10]], expected[:, [0, 10]])


def test_a_steady_f0_keeps_its_frequency_and_phase_for_a_minute(source: HarmonicSource) -> None:
    f0_hz = SAMPLE_RATE_HZ / 256  # a power of two, so that only the accumulated phase can be wrong
    values = 60 * SAMPLE_RATE_HZ // SAMPLES_PER_F0
    audio = source(torch.full((1, values), f0_hz), NO_NOISE)[0]
    assert audio.shape == (values * SAMPLES_PER_F0,)

    # A value's phase stands at the middle of its samples; before the first middle and after the last it is held.
    sample = torch.arange(len(audio) - SAMPLES_PER_F0, len(audio) - SAMPLES_PER_F0 // 2, dtype=torch.float64)
    cycles = (sample + 0.5 + SAMPLES_PER_F0 / 2) * f0_hz / SAMPLE_RATE_HZ
    sines = torch.sin(2 * math.pi * torch.arange(1, HARMONICS + 1).double()[:, None] * cycles)
    weight, bias = source.l_linear.weight[0].double(), source.l_linear.bias.double()
    expected = torch.tanh(SINE_AMPLITUDE * (weight @ sines) + bias).float()
    # The last hundredth of a second of sixty: a phase kept in float32 would be off by 0.03 rad here, 3e-3.
    torch.testing.assert_close(audio[-SAMPLES_PER_F0 : -SAMPLES_PER_F0 // 2], expected, rtol=0, atol=ROUNDING)


def test_the_source_does_not_click_where_f0_jumps(source: HarmonicSource) -> None:
    f0 = torch.tensor([[100.0] * 20 + [300.0] * 20 + [80.0] * 20])
    audio = source(f0, NO_NOISE)[0]
    # Phase is continuous: a sample differs from the next by no more than the fastest sines' slopes allow.
    harmonic = torch.arange(1, HARMONICS + 1)
    slope = SINE_AMPLITUDE * (source.l_linear.weight[0].abs() * harmonic).sum() * 2 * math.pi * 300 / SAMPLE_RATE_HZ
    assert audio.diff().abs().max() < slope


@pytest.mark.parametrize("f0_hz", [-50.0, 0.0, 10.0])
def test_unvoiced_values_are_noise_of_a_third_of_the_sines_amplitude(source: HarmonicSource, f0_hz: float) -> None:
    noise = torch.randn(SAMPLES_PER_F0 * 4, HARMONICS, generator=torch.Generator().manual_seed(0))
    expected = torch.tanh(source.l_linear(SINE_AMPLITUDE / 3 * noise))[:, 0]
    audio = source(torch.full((1, 4), f0_hz), noise)[0]
    torch.testing.assert_close(audio, expected, rtol=0, atol=ROUNDING)


def test_noise_is_read_cyclically(source: HarmonicSource) -> None:
    period = 77  # divides nothing here
    noise = torch.randn(period, HARMONICS, generator=torch.Generator().manual_seed(0))
    audio = source(torch.zeros(1, 5), noise)[0]
    assert torch.equal(audio[period:], audio[:-period])
