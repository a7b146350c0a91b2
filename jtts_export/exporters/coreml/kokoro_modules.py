"""Kokoro in five stages, each a module that CoreML can hold: what the packages are converted from.

They compute with the reference's own layers, on a padded axis (see kokoro_masked.py). `length` is how much of it an
utterance fills: tokens in Duration, frames in the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jtts_export.models.exact import product
from jtts_export.models.kokoro.adain import AdaIN1d
from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.models.kokoro.decoder import (
    SINE_AMPLITUDE,
    VOICED_NOISE_STD,
    VOICED_THRESHOLD_HZ,
    HarmonicSource,
)
from jtts_export.models.kokoro.model import Kokoro
from jtts_export.models.kokoro.prosody import AdaLayerNorm
from jtts_export.runtime.draws import NOISE_SCALE, source_noise

from .kokoro_masked import (
    BiLSTM,
    MaskedAlbert,
    SnakeResidual,
    Span,
    Styled,
    Styles,
    ada_layer_norm,
    adain_residual,
    norms_of,
    repeat,
    reversal,
    span,
)


class Duration(nn.Module):
    """Tokens and style to frames per token, and what later stages need of the text."""

    def __init__(self, model: Kokoro) -> None:
        super().__init__()
        self.style_dim = model.cfg.style_dim
        predictor = model.predictor
        self.bert, self.bert_encoder = MaskedAlbert(model.bert), model.bert_encoder
        blocks = predictor.text_encoder.lstms
        self.encoder = nn.ModuleList(BiLSTM(block) if isinstance(block, nn.LSTM) else block for block in blocks)
        self.lstm, self.projection = BiLSTM(predictor.lstm), predictor.duration_proj
        self.embedding, self.cnn = model.text_encoder.embedding, model.text_encoder.cnn
        self.text_lstm = BiLSTM(model.text_encoder.lstm)

    def forward(
        self, input_ids: Tensor, length: Tensor, style: Tensor, speed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """input_ids: int32 [1, tokens]; style: [1, 2 * style_dim]; speed: [1].

        Returns frames per token before rounding [1, tokens], features [1, tokens, hidden_dim + style_dim] and text
        [1, hidden_dim, tokens]; zeros behind the end.
        """
        size = input_ids.shape[1]
        tokens, turned = span(length, size, style), reversal(length, size)
        x = self.bert_encoder(self.bert(input_ids, length, tokens))
        features = self._features(x, style[:, self.style_dim :], turned) * tokens.mask.transpose(1, 2)
        frames = torch.sigmoid(self.projection(self.lstm(features, turned))).sum(dim=2) / speed
        return frames * tokens.mask[0], features, self._text(input_ids, tokens, turned)

    def _features(self, x: Tensor, style: Tensor, turned: Tensor) -> Tensor:
        tiled = style.unsqueeze(1).expand(-1, x.shape[1], -1)
        x = torch.cat([x, tiled], dim=2)
        for block in self.encoder:
            if isinstance(block, AdaLayerNorm):
                x = torch.cat([ada_layer_norm(block, x, style), tiled], dim=2)
            else:
                x = block(x, turned)
        return x

    def _text(self, input_ids: Tensor, tokens: Span, turned: Tensor) -> Tensor:
        x = self.embedding(input_ids).transpose(1, 2)
        for block in self.cnn:
            x = block(x * tokens.mask)
        return self.text_lstm(x.transpose(1, 2), turned).transpose(1, 2) * tokens.mask


class Prosody(nn.Module):
    """Features of tokens, stretched to frames, to F0 and energy."""

    def __init__(self, model: Kokoro) -> None:
        super().__init__()
        self.style_dim = model.cfg.style_dim
        predictor = model.predictor
        self.shared, self.f0, self.n = BiLSTM(predictor.shared), predictor.F0, predictor.N
        self.f0_projection, self.n_projection = predictor.F0_proj, predictor.N_proj
        norms = norms_of(self.f0, self.n)
        doubled = [norm for blocks in (self.f0, self.n) for norm in _doubled(blocks)]
        self.styles = Styles([norm for norm in norms if norm not in doubled])
        self.doubled_styles = Styles(doubled)

    def forward(self, features: Tensor, owner: Tensor, length: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """features: [1, tokens, hidden_dim + style_dim]; owner: the token of each frame, int32 [frames].

        Returns F0 in Hz and energy, each [1, 2 * frames].
        """
        size = owner.shape[0]
        frames = span(length, size, features)
        curve = frames.times(2)
        x = self.shared(features.index_select(1, owner), reversal(length, size)).transpose(1, 2)
        style = style[:, self.style_dim :]
        styled = {**self.styles(style, frames), **self.doubled_styles(style, curve)}

        def drawn(blocks: nn.ModuleList, projection: nn.Module) -> Tensor:
            y = _residuals(blocks, x, styled, frames, curve)
            return (projection(y) * curve.mask).squeeze(1)

        return drawn(self.f0, self.f0_projection), drawn(self.n, self.n_projection)


def _doubled(blocks: Any) -> list[AdaIN1d]:
    """Norms at the doubled rate: the second of the block that upsamples, and what comes behind it."""
    at = next(i for i, block in enumerate(blocks) if block.upsample)
    return [blocks[at].norm2, *norms_of(*blocks[at + 1 :])]


def _residuals(blocks: Any, x: Tensor, styled: Styled, valid: Span, doubled: Span) -> Tensor:
    """One after the other; those behind the one that upsamples run at its rate."""
    for block in blocks:
        x = adain_residual(block, x, styled, valid, doubled)
        valid = doubled if block.upsample else valid
    return x


class Source(nn.Module):
    """F0 to the spectrum of the harmonic source, with the noise that every export bakes in."""

    noise: Tensor
    ahead: Tensor
    behind: Tensor

    def __init__(self, model: Kokoro) -> None:
        super().__init__()
        self.source, self.stft = model.decoder.generator.m_source, model.decoder.generator.stft
        merge = self.source.l_linear.weight.detach()
        noise = product(torch.from_numpy(source_noise()).float() * NOISE_SCALE, merge.T)
        self.register_buffer("noise", noise.T.to(merge.dtype))
        per_f0 = self.source.samples_per_f0
        offset = torch.arange(per_f0) + 0.5 - per_f0 / 2  # of samples, from the F0 value in their middle
        self.register_buffer("ahead", offset[: per_f0 // 2].clone())
        self.register_buffer("behind", offset[per_f0 // 2 :].clone())

    def forward(self, f0: Tensor, length: Tensor) -> Tensor:
        """F0 in Hz [1, 2 * frames] -> magnitude and phase [1, n_fft + 2, samples / hop + 1]."""
        per_frame = 2 * self.source.samples_per_f0
        frames = span(length, f0.shape[1] // 2, f0)
        audio = self._excitation(f0 * repeat(frames.mask, 2)[0])
        padded = self._reflected(audio.reshape(-1, per_frame), frames.mask[0].T)
        real, imag = F.conv1d(padded, self.stft.analysis, stride=self.stft.hop).split(self.stft.bins, dim=1)
        har = torch.cat([torch.sqrt(real * real + imag * imag), angle(imag, real)], dim=1)
        return har * frames.times(per_frame // self.stft.hop, 1).mask

    def _excitation(self, f0: Tensor) -> Tensor:
        """F0, 0 behind the end -> [1, samples]. See HarmonicSource."""
        source: HarmonicSource = self.source
        sines = torch.sin(harmonic_phase(f0, source.harmonic, self.ahead, self.behind) * (2 * math.pi))
        sines = sines.reshape(source.harmonic.shape[0], -1)
        voiced = (f0 > VOICED_THRESHOLD_HZ).to(f0.dtype)
        noise_std = voiced * VOICED_NOISE_STD + (1 - voiced) * (SINE_AMPLITUDE / 3)
        merged = self._per_sample(voiced * SINE_AMPLITUDE) * (source.l_linear.weight @ sines)
        return torch.tanh(merged + self._noise(self._per_sample(noise_std)) + source.l_linear.bias)

    def _per_sample(self, values: Tensor) -> Tensor:
        return repeat(values.unsqueeze(0), self.source.samples_per_f0)[0]

    def _noise(self, std: Tensor) -> Tensor:
        """The table, read cyclically, times [1, samples]. In rows of its own length, so that it is stored once: where
        all shapes are known, a converter would store what it computes of constants."""
        period, samples = self.noise.shape[1], std.shape[1]
        rows = F.pad(std, (0, period))[:, : (samples // period + 1) * period].reshape(-1, period)
        return (rows * self.noise).reshape(1, -1)[:, :samples]

    def _reflected(self, rows: Tensor, valid: Tensor) -> Tensor:
        """Audio by frames [frames, samples of one], of which some are valid [frames, 1] -> [1, 1, samples + n_fft],
        reflected where the first and the last valid one end."""
        pad, size = self.stft.n_fft // 2, rows.shape[1]
        ends_ahead = torch.cat([torch.ones_like(valid[:1]), valid]) - torch.cat([valid, torch.zeros_like(valid[:1])])
        behind = F.pad(rows[:, size - pad - 1 : -1].flip(1), (0, size - pad, 1, 0)) * ends_ahead
        audio = (F.pad(rows * valid, (0, 0, 0, 1)) + behind).reshape(1, -1)[:, : pad - size]
        return torch.cat([audio[:, 1 : pad + 1].flip(1), audio], dim=1).unsqueeze(1)


def angle(y: Tensor, x: Tensor) -> Tensor:
    """atan2, with 0 at the origin and pi on the negative real axis whatever the signs of zeros, as the reference has
    it; without choosing between constants, which a converter stores in the size of y."""
    turn = math.pi * (x < 0).to(x.dtype) * (2 * (y >= 0).to(x.dtype) - 1)
    origin = ((x == 0) & (y == 0)).to(x.dtype)
    return torch.atan(y / (x + origin)) + turn


def harmonic_phase(f0: Tensor, harmonic: Tensor, ahead: Tensor, behind: Tensor) -> Tensor:
    """Phase of each harmonic in cycles, 0 to 1, [harmonics, values, samples of one], from F0 in Hz [1, values].

    ahead, behind: where its samples lie on each side of an F0 value, in samples.

    HarmonicSource adds up in float64, which CoreML lacks. Here each term is cut into parts of so few bits that fp32
    holds their sums without rounding, over 4096 values (51 s) of at most 512 samples, in whatever order they are
    added.
    """
    per_f0 = len(ahead) + len(behind)
    rate = torch.full_like(f0, SAMPLE_RATE_HZ)  # of a plain number, coremltools would multiply by the inverse
    cycles = _fraction(f0 * harmonic / rate)
    coarse = _cut(cycles, 14)
    fine = cycles - coarse
    turns = _fraction(coarse * per_f0)
    rest = fine * per_f0
    rest_coarse = _cut(rest, 18)
    at = sum(_fraction(torch.cumsum(part, dim=1)) for part in (turns, rest_coarse, rest - rest_coarse))
    assert isinstance(at, Tensor)

    def within(part: Tensor, wrap: bool) -> Tensor:
        """Cycles from the F0 value's own phase: back by its step, on by the next one's, and still at the ends."""
        own, next_one = F.pad(part[:, 1:], (1, 0)), F.pad(part[:, 1:], (0, 1))
        moved = torch.cat([own.unsqueeze(2) * ahead, next_one.unsqueeze(2) * behind], dim=2)
        return _fraction(moved) if wrap else moved

    return _fraction(at.unsqueeze(2) + within(coarse, True) + within(fine, False))


def _fraction(x: Tensor) -> Tensor:
    return x - torch.floor(x)  # CoreML's float mod is wrong


def _cut(x: Tensor, bits: int) -> Tensor:
    return torch.floor(x * 2**bits) * 2.0**-bits


class Decoder(nn.Module):
    """Text, F0, energy and source to what the inverse STFT needs. See models/kokoro/decoder.py."""

    def __init__(self, model: Kokoro) -> None:
        super().__init__()
        self.style_dim, self.rates = model.cfg.style_dim, model.cfg.istftnet.upsample_rates
        self.decoder, generator = model.decoder, model.decoder.generator
        doubled = _doubled(self.decoder.decode)
        plain = [norm for norm in norms_of(self.decoder.encode, self.decoder.decode) if norm not in doubled]
        rates = range(len(self.rates))
        kernels = generator.kernels
        self.styles, self.doubled_styles = Styles(plain), Styles(doubled)
        self.generator_styles = nn.ModuleList(
            Styles(norms_of(generator.noise_res[i], *generator.resblocks[i * kernels : (i + 1) * kernels]))
            for i in rates
        )
        self.noise_blocks = _snakes(generator.noise_res)
        self.blocks = _snakes(generator.resblocks)

    def forward(
        self, text: Tensor, owner: Tensor, f0: Tensor, n: Tensor, har: Tensor, length: Tensor, style: Tensor
    ) -> Tensor:
        """text: [1, hidden_dim, tokens]; owner: int32 [frames]; f0, n: [1, 2 * frames]; har: see Source.

        Returns log magnitude and phase ahead of its sine, [1, n_fft + 2, samples / hop + 1]; zeros behind the end.
        """
        decoder, style = self.decoder, style[:, : self.style_dim]
        frames = span(length, owner.shape[0], text)
        curve = frames.times(2)
        asr = text.index_select(2, owner)
        f0 = decoder.F0_conv((f0 * curve.mask[0]).unsqueeze(1))
        n = decoder.N_conv((n * curve.mask[0]).unsqueeze(1))
        styled = {**self.styles(style, frames), **self.doubled_styles(style, curve)}
        x = adain_residual(decoder.encode, torch.cat([asr, f0, n], dim=1), styled, frames)
        beside = torch.cat([decoder.asr_res(asr), f0, n], dim=1)
        blocks: Iterable[Any] = decoder.decode
        for block in blocks:
            x = adain_residual(block, torch.cat([x, beside], dim=1), styled, frames, curve)
        return self._generate(x, har, frames, style)

    def _generate(self, x: Tensor, har: Tensor, frames: Span, style: Tensor) -> Tensor:
        generator = self.decoder.generator
        rate, last = 2, len(self.rates) - 1
        spectra = frames.times(2 * math.prod(self.rates), 1)
        har, valid = har * spectra.mask, frames.times(rate)
        for i, up in enumerate(generator.ups):
            x = up(F.leaky_relu(x, 0.1) * valid.mask)
            rate *= self.rates[i]
            valid = spectra if i == last else frames.times(rate)
            if i == last:
                x = F.pad(x, (1, 0), mode="reflect")
            styled = self.generator_styles[i](style, valid)
            x = x + self.noise_blocks[i](generator.noise_convs[i](har), styled, valid)
            first, *others = self.blocks[i * generator.kernels : (i + 1) * generator.kernels]
            total = first(x, styled, valid)
            for block in others:
                total = total + block(x, styled, valid)
            x = total / generator.kernels
        return generator.conv_post(F.leaky_relu(x) * valid.mask) * valid.mask


def _snakes(blocks: Iterable[Any]) -> nn.ModuleList:
    return nn.ModuleList(SnakeResidual(block) for block in blocks)


class Tail(nn.Module):
    """The inverse STFT."""

    def __init__(self, model: Kokoro) -> None:
        super().__init__()
        self.stft = model.decoder.generator.stft
        self.per_frame = 2 * model.cfg.samples_per_f0

    def forward(self, spectrum: Tensor, length: Tensor) -> Tensor:
        """See Decoder -> [1, samples], 0 behind the end."""
        stft, rate = self.stft, self.per_frame // self.stft.hop
        frames = span(length, spectrum.shape[2] // rate, spectrum)
        mask = frames.times(rate, 1).mask
        log_magnitude, phase = (spectrum * mask).split(stft.bins, dim=1)
        magnitude, phase = torch.exp(log_magnitude) * mask, torch.sin(phase)
        x = torch.cat([magnitude * torch.cos(phase), magnitude * torch.sin(phase)], dim=1)
        pad = stft.n_fft // 2
        audio = F.conv_transpose1d(x, stft.synthesis, stride=stft.hop, padding=pad)
        envelope = F.conv_transpose1d(mask, stft.envelope, stride=stft.hop, padding=pad)
        valid = repeat(frames.mask, self.per_frame)
        return (audio * valid / (envelope * valid + (1 - valid))).squeeze(1)
