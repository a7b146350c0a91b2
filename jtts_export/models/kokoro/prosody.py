"""Text encoder and prosody predictor: phonemes to durations, F0 and energy.

Follows kokoro 0.9.4's modules.py (from StyleTTS 2, Li et al. 2023, arXiv:2306.07691), for one unpadded
sequence: without padding the authors' masks and packed sequences compute nothing, and are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adain import AdainResBlk1d
from .config import KokoroConfig


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [1, channels, time]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), self.gamma.shape, self.gamma, self.beta).transpose(1, 2)


class TextEncoder(nn.Module):
    """[1, tokens] int64 -> [1, hidden_dim, tokens]."""

    def __init__(self, cfg: KokoroConfig) -> None:
        super().__init__()
        channels, kernel = cfg.hidden_dim, cfg.text_encoder_kernel_size
        self.embedding = nn.Embedding(cfg.n_token, channels)
        self.cnn = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2),
                ChannelNorm(channels),
                nn.LeakyReLU(0.2),
            )
            for _ in range(cfg.n_layer)
        )
        self.lstm = nn.LSTM(channels, channels // 2, batch_first=True, bidirectional=True)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids).transpose(1, 2)
        for block in self.cnn:
            x = block(x)
        x, _ = self.lstm(x.transpose(1, 2))
        return x.transpose(1, 2)


class AdaLayerNorm(nn.Module):
    """Layer norm whose scale and bias come from the style. x: [1, time, channels], style: [1, style_dim]."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.fc = nn.Linear(style_dim, channels * 2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.fc(style).view(-1).split(self.channels)
        return F.layer_norm(x, (self.channels,), 1 + gamma, beta)


class DurationEncoder(nn.Module):
    """[1, tokens, hidden_dim], [1, style_dim] -> [1, tokens, hidden_dim + style_dim]."""

    def __init__(self, cfg: KokoroConfig) -> None:
        super().__init__()
        self.lstms = nn.ModuleList()
        for _ in range(cfg.n_layer):
            self.lstms.append(_bilstm(cfg))
            self.lstms.append(AdaLayerNorm(cfg.style_dim, cfg.hidden_dim))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        tiled = style.unsqueeze(1).expand(-1, x.shape[1], -1)
        x = torch.cat([x, tiled], dim=-1)
        for block in self.lstms:
            if isinstance(block, AdaLayerNorm):
                x = torch.cat([block(x, style), tiled], dim=-1)
            else:
                x, _ = block(x)
        return x


class _DurationProjection(nn.Module):
    def __init__(self, cfg: KokoroConfig) -> None:
        super().__init__()
        self.linear_layer = nn.Linear(cfg.hidden_dim, cfg.max_dur)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_layer(x)


class ProsodyPredictor(nn.Module):
    """Durations from text, F0 and energy from text stretched by the durations."""

    def __init__(self, cfg: KokoroConfig) -> None:
        super().__init__()
        self.text_encoder = DurationEncoder(cfg)
        self.lstm = _bilstm(cfg)
        self.duration_proj = _DurationProjection(cfg)
        self.shared = _bilstm(cfg)
        self.F0 = _curve_blocks(cfg)
        self.N = _curve_blocks(cfg)
        self.F0_proj = nn.Conv1d(cfg.hidden_dim // 2, 1, 1)
        self.N_proj = nn.Conv1d(cfg.hidden_dim // 2, 1, 1)

    def forward(
        self, text: Tensor, style: Tensor, speed: Tensor, forced: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Durations before and after rounding, the token of each frame, F0 and energy.

        text: [1, tokens, hidden_dim]; style: [1, style_dim]; speed: [1]; forced: durations to use instead.
        Returns frames per token, float and int64 [1, tokens], at least 1 each; int64 [frames]; F0 in Hz and
        energy, each [1, 2 * frames].
        """
        features = self.text_encoder(text, style)
        x, _ = self.lstm(features)
        frames = torch.sigmoid(self.duration_proj(x)).sum(dim=-1) / speed
        duration = torch.round(frames).clamp(min=1).long() if forced is None else forced
        owner = token_of_frame(duration)
        x, _ = self.shared(features[:, owner])
        f0 = n = x.transpose(1, 2)
        for f0_block, n_block in zip(self.F0, self.N, strict=True):
            f0, n = f0_block(f0, style), n_block(n, style)
        return frames, duration, owner, self.F0_proj(f0).squeeze(1), self.N_proj(n).squeeze(1)


def token_of_frame(duration: Tensor) -> Tensor:
    """Frames per token [1, tokens] -> the token that each frame belongs to, int64 [frames]."""
    ends = torch.cumsum(duration, dim=1)
    frames = torch.arange(ends[0, -1], device=duration.device)  # type: ignore[call-overload]
    return (frames.unsqueeze(1) >= ends).long().sum(dim=1)


def _bilstm(cfg: KokoroConfig) -> nn.LSTM:
    return nn.LSTM(cfg.hidden_dim + cfg.style_dim, cfg.hidden_dim // 2, batch_first=True, bidirectional=True)


def _curve_blocks(cfg: KokoroConfig) -> nn.ModuleList:
    d, s = cfg.hidden_dim, cfg.style_dim
    return nn.ModuleList(
        [AdainResBlk1d(d, d, s), AdainResBlk1d(d, d // 2, s, upsample=True), AdainResBlk1d(d // 2, d // 2, s)]
    )
