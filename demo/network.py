"""The demo voice's network: our Kokoro at small widths, made ready to be trained in batches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jtts_export.models.kokoro.adain import AdaIN1d, AdaINResBlock1
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.decoder import STFT
from jtts_export.models.kokoro.model import Kokoro
from jtts_export.models.kokoro.random import official_config
from jtts_export.runtime.draws import NOISE_HARMONICS, NOISE_PERIOD

from .norm_snake import norm_snake

HARMONIC_WEIGHT = 1.0  # of each in the source, which is not trained: a pulse train of nine harmonics
F0_GAIN, F0_HZ = 0.01, 100.0  # what the decoder's first layer makes of Hz; what the predictor starts from
VOICE_STD = 0.15


def config() -> dict[str, Any]:
    """config.json: the official one with the widths of this network."""
    raw = official_config()
    raw.update(hidden_dim=96, style_dim=32, n_layer=2, decoder_dim=128, asr_res_dim=16)
    raw["istftnet"]["upsample_initial_channel"] = 128
    small = {"hidden_size": 64, "embedding_size": 32, "intermediate_size": 128}
    raw["plbert"].update(small, num_attention_heads=4, num_hidden_layers=2)
    return raw


class Voices(nn.Module):
    """A style for each voice, [voices, 2 * style_dim]; the decoder's half first."""

    def __init__(self, count: int, style_dim: int) -> None:
        super().__init__()
        self.style = nn.Parameter(VOICE_STD * torch.randn(count, 2 * style_dim))


def network(voices: int) -> nn.ModuleDict:
    """`kokoro` and `voices`, fresh; torch's seed decides. The source's merging of harmonics stays as it is."""
    model = Kokoro(KokoroConfig.model_validate(config()))
    with torch.no_grad():
        source = model.decoder.generator.m_source.l_linear
        source.weight.fill_(HARMONIC_WEIGHT)
        source.bias.zero_()
        source.requires_grad_(False)
        model.decoder.F0_conv.weight *= F0_GAIN
        model.predictor.F0_proj.bias.fill_(F0_HZ)  # type: ignore[union-attr]
    return nn.ModuleDict({"kokoro": model, "voices": Voices(voices, model.cfg.style_dim)})


def noise() -> Tensor:
    """What the source reads: unit normal, [NOISE_PERIOD, NOISE_HARMONICS]."""
    return torch.randn(NOISE_PERIOD, NOISE_HARMONICS)


class _AdaIN(AdaIN1d):
    """The reference's, for [batch, channels, time] and [batch, style_dim]."""

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.fc(style).unsqueeze(2).chunk(2, dim=1)
        return F.instance_norm(x) * (1 + gamma) + beta


class _Block(AdaINResBlock1):
    """The reference's, with the channels of each moment side by side, for which CPUs convolve twice as fast."""

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        halves = zip(self.convs1, self.convs2, self.adain1, self.adain2, self.alpha1, self.alpha2, strict=True)
        for conv1, conv2, norm1, norm2, alpha1, alpha2 in halves:
            y = _convolved(conv1, norm_snake(x, norm1.fc(style), alpha1))
            x = x + _convolved(conv2, norm_snake(y, norm2.fc(style), alpha2))
        return x.transpose(1, 2)


def _convolved(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """[batch, time, channels], both."""
    weight = conv.weight.unsqueeze(2)
    image = x.transpose(1, 2).unsqueeze(2)
    made = F.conv2d(image, weight, conv.bias, padding=(0, conv.padding[0]), dilation=(1, conv.dilation[0]))
    return made.squeeze(2).transpose(1, 2)


class _STFT(STFT):
    """The reference's, in float32 wherever the network computes in bfloat16."""

    def inverse(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().inverse(magnitude.float(), phase.float())


def trainable(model: Kokoro) -> None:
    """Makes the decoder take batches; the parameters stay what they are, and so does what they compute."""
    for module in model.modules():
        if type(module) is AdaIN1d:
            module.__class__ = _AdaIN
        elif type(module) is AdaINResBlock1:
            module.__class__ = _Block
        elif type(module) is STFT:
            module.__class__ = _STFT
