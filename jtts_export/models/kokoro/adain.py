"""Style-conditioned blocks shared by the prosody predictor and the decoder (kokoro 0.9.4's istftnet.py)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AdaIN1d(nn.Module):
    """Instance norm whose scale and bias come from the style (Huang and Belongie 2017, arXiv:1703.06868).

    x: [1, channels, time]; style: [1, style_dim]. The authors' norm has affine parameters that released
    weights leave out; where a file has them, the loader folds them into `fc`.
    """

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.fc = nn.Linear(style_dim, channels * 2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.fc(style).view(-1).split(self.channels)
        return F.instance_norm(x, weight=1 + gamma, bias=beta)


class AdainResBlk1d(nn.Module):
    """Residual block of two 3-tap convolutions; optionally doubles the frame rate."""

    def __init__(self, dim_in: int, dim_out: int, style_dim: int, upsample: bool = False) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv1 = nn.Conv1d(dim_in, dim_out, 3, padding=1)
        self.conv2 = nn.Conv1d(dim_out, dim_out, 3, padding=1)
        self.norm1 = AdaIN1d(style_dim, dim_in)
        self.norm2 = AdaIN1d(style_dim, dim_out)
        if dim_in != dim_out:
            self.conv1x1 = nn.Conv1d(dim_in, dim_out, 1, bias=False)
        if upsample:
            self.pool = nn.ConvTranspose1d(dim_in, dim_in, 3, stride=2, groups=dim_in, padding=1, output_padding=1)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[1, dim_in, frames] -> [1, dim_out, frames], or 2 * frames with `upsample`."""
        y = F.leaky_relu(self.norm1(x, style), 0.2)
        if self.upsample:
            y = self.pool(y)
        y = self.conv1(y)
        y = self.conv2(F.leaky_relu(self.norm2(y, style), 0.2))
        shortcut = self.conv1x1(x) if hasattr(self, "conv1x1") else x
        if self.upsample:
            shortcut = F.interpolate(shortcut, scale_factor=2.0, mode="nearest")
        return (y + shortcut) * math.sqrt(0.5)


class AdaINResBlock1(nn.Module):
    """HiFi-GAN residual block with AdaIN and snake activations (Ziyin et al. 2020, arXiv:2006.08195)."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int], style_dim: int) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Conv1d:
            padding = (kernel_size - 1) * dilation // 2
            return nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)

        self.convs1 = nn.ModuleList(conv(d) for d in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.adain1 = nn.ModuleList(AdaIN1d(style_dim, channels) for _ in dilations)
        self.adain2 = nn.ModuleList(AdaIN1d(style_dim, channels) for _ in dilations)
        self.alpha1 = nn.ParameterList(torch.ones(1, channels, 1) for _ in dilations)
        self.alpha2 = nn.ParameterList(torch.ones(1, channels, 1) for _ in dilations)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """[1, channels, time] -> [1, channels, time]."""
        halves = zip(self.convs1, self.convs2, self.adain1, self.adain2, self.alpha1, self.alpha2, strict=True)
        for conv1, conv2, norm1, norm2, alpha1, alpha2 in halves:
            y = conv1(snake(norm1(x, style), alpha1))
            x = x + conv2(snake(norm2(y, style), alpha2))
        return x


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """x + sin(alpha x)^2 / alpha."""
    sine = torch.sin(alpha * x)
    return x + (1 / alpha) * (sine * sine)
