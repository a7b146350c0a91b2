"""AdaIN decoder and iSTFTNet generator with a harmonic-plus-noise source (kokoro 0.9.4's istftnet.py)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adain import AdainResBlk1d, AdaINResBlock1
from .config import SAMPLE_RATE_HZ, KokoroConfig

HARMONICS = 9  # the fundamental and harmonic_num = 8 overtones
SINE_AMPLITUDE = 0.1
VOICED_NOISE_STD = 0.003
VOICED_THRESHOLD_HZ = 10.0


class HarmonicSource(nn.Module):
    """Sines at the harmonics of F0 plus noise, merged to one excitation (NSF, Wang et al. 2019).

    The phase is accumulated at F0's own rate, in float64 and in cycles: the authors upsample first, and
    lose the phase of high harmonics to float32 within seconds. Between F0 values it is interpolated
    linearly, as theirs is.
    """

    def __init__(self, samples_per_f0: int) -> None:
        super().__init__()
        self.samples_per_f0 = samples_per_f0
        self.l_linear = nn.Linear(HARMONICS, 1)
        at = (np.arange(samples_per_f0) + 0.5) / samples_per_f0 - 0.5  # offset from the F0 value, in values
        self.before: Tensor
        self.after: Tensor
        self.harmonic: Tensor
        self.register_buffer("before", torch.from_numpy(np.maximum(-at, 0)), persistent=False)
        self.register_buffer("after", torch.from_numpy(np.maximum(at, 0)), persistent=False)
        self.register_buffer(
            "harmonic", torch.arange(1, HARMONICS + 1, dtype=torch.float32)[:, None], persistent=False
        )

    def forward(self, f0: Tensor, noise: Tensor) -> Tensor:
        """F0 in Hz [1, values] and unit noise [period, HARMONICS], read cyclically -> [1, samples]."""
        cycles = f0 * self.harmonic / SAMPLE_RATE_HZ
        step = (cycles - torch.floor(cycles)).double() * self.samples_per_f0
        phase = torch.cumsum(step, dim=1).unsqueeze(2)  # [HARMONICS, values, 1]
        previous = torch.cat([phase[:, :1], phase[:, :-1]], dim=1)
        following = torch.cat([phase[:, 1:], phase[:, -1:]], dim=1)
        phase = phase + (previous - phase) * self.before + (following - phase) * self.after
        phase = (phase - torch.floor(phase)).to(f0.dtype)
        sines = torch.sin(phase * (2 * math.pi)).reshape(HARMONICS, -1)

        voiced = (f0 > VOICED_THRESHOLD_HZ).to(f0.dtype)
        noise_std = voiced * VOICED_NOISE_STD + (1 - voiced) * (SINE_AMPLITUDE / 3)
        merged = self._per_sample(voiced * SINE_AMPLITUDE) * (self.l_linear.weight @ sines)
        merged = merged + self._per_sample(noise_std) * self._noise(noise, merged.shape[1])
        return torch.tanh(merged + self.l_linear.bias)

    def _per_sample(self, values: Tensor) -> Tensor:
        return values.unsqueeze(2).expand(-1, -1, self.samples_per_f0).reshape(1, -1)

    def _noise(self, noise: Tensor, samples: int) -> Tensor:
        """The harmonics share one amplitude, so their noises are merged once, before they are repeated."""
        merged = (noise @ self.l_linear.weight.T).T
        return merged.repeat(1, samples // noise.shape[0] + 1)[:, :samples]


class STFT(nn.Module):
    """Short-time Fourier transform and its inverse as convolutions, equal to torch.stft and torch.istft
    with a periodic Hann window of n_fft, centred, with reflection."""

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop, self.bins = n_fft, hop, n_fft // 2 + 1
        k, n = np.arange(self.bins)[:, None], np.arange(n_fft)[None]
        # Exact zeros at DC and Nyquist: their phase is 0 or pi, and must not depend on rounding.
        angle = 2 * np.pi * ((k * n) % n_fft) / n_fft
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
        cos, sin = np.cos(angle), np.where(2 * ((k * n) % n_fft) % n_fft == 0, 0.0, np.sin(angle))
        weight = np.where((k == 0) | (2 * k == n_fft), 1.0, 2.0) / n_fft
        forward = np.concatenate([cos, -sin]) * window
        inverse = np.concatenate([weight * cos, -weight * sin]) * window
        self.analysis: Tensor
        self.synthesis: Tensor
        self.envelope: Tensor
        for name, value in {
            "analysis": forward[:, None],
            "synthesis": inverse[:, None],
            "envelope": (window**2)[None],
        }.items():
            self.register_buffer(name, torch.from_numpy(value).float(), persistent=False)

    def transform(self, audio: Tensor) -> Tensor:
        """[1, samples] -> magnitude and phase in radians, [1, n_fft + 2, samples / hop + 1]."""
        pad = self.n_fft // 2
        padded = F.pad(audio.unsqueeze(1), (pad, pad), mode="reflect")
        real, imag = F.conv1d(padded, self.analysis, stride=self.hop).split(self.bins, dim=1)
        return torch.cat([torch.sqrt(real * real + imag * imag), _angle(imag, real)], dim=1)

    def inverse(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """Two of [1, n_fft / 2 + 1, frames] -> [1, (frames - 1) * hop]."""
        x = torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=1)
        pad = self.n_fft // 2
        audio = F.conv_transpose1d(x, self.synthesis, stride=self.hop, padding=pad)
        weight = F.conv_transpose1d(torch.ones_like(magnitude[:, :1]), self.envelope, stride=self.hop, padding=pad)
        return (audio / weight).squeeze(1)


class Generator(nn.Module):
    """iSTFTNet (Kaneko et al. 2022, arXiv:2203.02395), driven by a harmonic source."""

    def __init__(self, cfg: KokoroConfig) -> None:
        super().__init__()
        net = cfg.istftnet
        self.m_source = HarmonicSource(cfg.samples_per_f0)
        self.stft = STFT(net.gen_istft_n_fft, net.gen_istft_hop_size)
        self.noise_convs, self.noise_res = nn.ModuleList(), nn.ModuleList()
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        spectrum = net.gen_istft_n_fft + 2
        channels = net.upsample_initial_channel
        for i, (rate, kernel) in enumerate(zip(net.upsample_rates, net.upsample_kernel_sizes, strict=True)):
            self.ups.append(nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2))
            channels //= 2
            for size, dilations in zip(net.resblock_kernel_sizes, net.resblock_dilation_sizes, strict=True):
                self.resblocks.append(AdaINResBlock1(channels, size, dilations, cfg.style_dim))
            stride = math.prod(net.upsample_rates[i + 1 :])
            last = i + 1 == len(net.upsample_rates)
            self.noise_convs.append(
                nn.Conv1d(spectrum, channels, 1)
                if last
                else nn.Conv1d(spectrum, channels, stride * 2, stride, padding=(stride + 1) // 2)
            )
            self.noise_res.append(AdaINResBlock1(channels, 11 if last else 7, [1, 3, 5], cfg.style_dim))
        self.conv_post = nn.Conv1d(channels, spectrum, 7, padding=3)
        self.kernels = len(net.resblock_kernel_sizes)

    def forward(self, x: Tensor, style: Tensor, har: Tensor) -> Tensor:
        """[1, upsample_initial_channel, values], [1, style_dim], the source's STFT -> [1, samples]."""
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, 0.1))
            if i + 1 == len(self.ups):
                x = F.pad(x, (1, 0), mode="reflect")
            x = x + self.noise_res[i](self.noise_convs[i](har), style)
            first, *others = self.resblocks[i * self.kernels : (i + 1) * self.kernels]
            total = first(x, style)
            for block in others:
                total = total + block(x, style)
            x = total / self.kernels
        x = self.conv_post(F.leaky_relu(x))
        log_magnitude, phase = x.split(self.stft.bins, dim=1)
        return self.stft.inverse(torch.exp(log_magnitude), torch.sin(phase))


class Decoder(nn.Module):
    """Text features, F0 and energy -> audio."""

    def __init__(self, cfg: KokoroConfig) -> None:
        super().__init__()
        dim, style, out = cfg.decoder_dim, cfg.style_dim, cfg.istftnet.upsample_initial_channel
        joined = dim + cfg.asr_res_dim + 2
        self.encode = AdainResBlk1d(cfg.hidden_dim + 2, dim, style)
        self.decode = nn.ModuleList(AdainResBlk1d(joined, dim, style) for _ in range(3))
        self.decode.append(AdainResBlk1d(joined, out, style, upsample=True))
        self.F0_conv = nn.Conv1d(1, 1, 3, stride=2, padding=1)
        self.N_conv = nn.Conv1d(1, 1, 3, stride=2, padding=1)
        self.asr_res = nn.Sequential(nn.Conv1d(cfg.hidden_dim, cfg.asr_res_dim, 1))
        self.generator = Generator(cfg)

    def source(self, f0: Tensor, noise: Tensor) -> Tensor:
        """F0 [1, 2 * frames] and unit noise [period, HARMONICS] -> the source's STFT (`har`)."""
        return self.generator.stft.transform(self.generator.m_source(f0, noise))

    def forward(self, asr: Tensor, f0: Tensor, n: Tensor, style: Tensor, har: Tensor) -> Tensor:
        """asr: [1, hidden_dim, frames]; f0, n: [1, 2 * frames]; style: [1, style_dim] -> [1, samples]."""
        f0, n = self.F0_conv(f0.unsqueeze(1)), self.N_conv(n.unsqueeze(1))
        x = self.encode(torch.cat([asr, f0, n], dim=1), style)
        beside = torch.cat([self.asr_res(asr), f0, n], dim=1)
        for block in self.decode:
            x = block(torch.cat([x, beside], dim=1), style)
        return self.generator(x, style, har)


def _angle(y: Tensor, x: Tensor) -> Tensor:
    """atan2 that gives 0 at the origin and +pi on the negative real axis whatever the sign of y's zero."""
    turn = torch.where(x < 0, torch.where(y >= 0, math.pi, -math.pi), 0.0)
    origin = (x == 0) & (y == 0)
    return torch.where(origin, 0.0, torch.atan(y / torch.where(origin, 1.0, x)) + turn)
