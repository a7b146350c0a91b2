"""Kokoro's layers on a padded time axis.

A package computes a fixed number of frames or tokens, and an utterance fills part of them. Every layer here gives, up
to the utterance's end, what the reference's gives on an axis that ends there: convolutions see zeros behind the end,
norms count what is ahead of it, and LSTMs that run backwards start at it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jtts_export.models.kokoro.adain import AdaIN1d, AdainResBlk1d, AdaINResBlock1, snake
from jtts_export.models.kokoro.albert import Albert
from jtts_export.models.kokoro.prosody import AdaLayerNorm

Styled = Mapping[AdaIN1d, tuple[Tensor, Tensor]]  # scale and bias, each [1, channels, 1]

FAR = -1e4  # added to what softmax shall not see: its exponential is 0, and it is a finite fp16


@dataclass(frozen=True)
class Span:
    """A time axis that is filled in part.

    mask: [1, 1, time], 1 up to the end of the utterance, 0 behind it. share: [1, 1, 1], how much of the axis that is.
    root: of share. lifted: mask / root.
    """

    mask: Tensor
    share: Tensor
    root: Tensor
    lifted: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Span:
        share = mask.mean(dim=2, keepdim=True)
        root = torch.sqrt(share)
        return cls(mask, share, root, mask / root)

    def times(self, rate: int, more: int = 0) -> Span:
        """The same on an axis of `rate` values for each of this one's, and `more` at its start."""
        finer = repeat(self.mask, rate)
        return Span.of(torch.cat([finer[:, :, :1]] * more + [finer], dim=2))


def span(length: Tensor, size: Tensor | int, like: Tensor) -> Span:
    """length: int32 [1], valid values of `size`; the mask is of the type of `like`."""
    valid = torch.arange(size, dtype=torch.int32) < length  # type: ignore[call-overload]
    return Span.of(valid.to(like.dtype).reshape(1, 1, -1))


def repeat(x: Tensor, rate: int) -> Tensor:
    """[1, channels, time] -> [1, channels, rate * time], each value `rate` times."""
    return x.unsqueeze(3).expand(-1, -1, -1, rate).reshape(1, x.shape[1], -1)


def reversal(length: Tensor, size: Tensor | int) -> Tensor:
    """Indices that turn the first `length` values of an axis around, int32 [size]; its own inverse."""
    at = torch.arange(size, dtype=torch.int32)  # type: ignore[call-overload]
    return torch.where(at < length, length - 1 - at, at)


def bilstm(lstm: nn.LSTM, x: Tensor, turned: Tensor) -> Tensor:
    """x: [1, time, channels]; turned: see reversal(). Nothing behind the end reaches what is ahead of it."""
    ahead = _one_direction(lstm, x, "")
    back = _one_direction(lstm, x.index_select(1, turned), "_reverse")
    return torch.cat([ahead, back.index_select(1, turned)], dim=2)


def _one_direction(lstm: nn.LSTM, x: Tensor, suffix: str) -> Tensor:
    weights = [getattr(lstm, f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    zeros = x.new_zeros(1, 1, lstm.hidden_size)
    return torch._VF.lstm(x, (zeros, zeros), weights, True, 1, 0.0, False, False, True)[0]  # type: ignore[attr-defined]


def albert(bert: Albert, input_ids: Tensor, tokens: Span) -> Tensor:
    """[1, tokens] -> [1, tokens, hidden_size]; attention sees what is valid."""
    x = bert.encoder.embedding_hidden_mapping_in(bert.embeddings(input_ids))
    layer = bert.encoder.get_submodule("albert_layer_groups.0.albert_layers.0")
    unseen = (1 - tokens.mask).unsqueeze(1) * FAR
    for _ in range(bert.encoder.repeats):
        x = _attention(layer.attention, x, unseen)
        x = layer.full_layer_layer_norm(layer.ffn_output(F.gelu(layer.ffn(x), approximate="tanh")) + x)
    return x


def _attention(block: nn.Module, x: Tensor, unseen: Tensor) -> Tensor:
    size = x.shape[-1] // block.heads

    def split(y: Tensor) -> Tensor:
        return y.view(1, -1, block.heads, size).transpose(1, 2)

    # Scaled ahead of the product, which fp16 might not hold.
    q, k, v = split(block.query(x) * (1 / math.sqrt(size))), split(block.key(x)), split(block.value(x))
    weights = torch.softmax(q @ k.transpose(-1, -2) + unseen, dim=-1)
    context = (weights @ v).transpose(1, 2).reshape(1, -1, block.heads * size)
    return block.LayerNorm(x + block.dense(context))


def ada_layer_norm(norm: AdaLayerNorm, x: Tensor, style: Tensor) -> Tensor:
    """As it is, in operations that take a scale which is computed. x: [1, time, channels]; style: [1, style_dim]."""
    gamma, beta = norm.fc(style).unsqueeze(1).split(norm.channels, dim=2)
    return F.layer_norm(x, (norm.channels,)) * (1 + gamma) + beta


class Styles(nn.Module):
    """The scales and biases that a style gives some norms, in one product: a graph of hundreds of small ones takes
    long to convert and to run."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norms: Sequence[AdaIN1d]) -> None:
        super().__init__()
        halves = [(*norm.fc.weight.detach().chunk(2), *norm.fc.bias.detach().chunk(2)) for norm in norms]
        gammas, betas, gamma_biases, beta_biases = zip(*halves, strict=True)
        self.register_buffer("weight", torch.cat([*gammas, *betas]))
        self.register_buffer("bias", torch.cat([*(1 + bias for bias in gamma_biases), *beta_biases]))
        self._norms = tuple(norms)
        self._channels = [norm.channels for norm in norms]

    def forward(self, style: Tensor, valid: Span) -> Styled:
        """style: [1, style_dim]; valid: the axis that these norms are on."""
        scale, bias = F.linear(style, self.weight, self.bias).unsqueeze(2).chunk(2, dim=1)
        scales, biases = (scale * valid.root).split(self._channels, dim=1), bias.split(self._channels, dim=1)
        return dict(zip(self._norms, zip(scales, biases, strict=True), strict=True))


def adain(norm: AdaIN1d, x: Tensor, styled: Styled, valid: Span) -> Tensor:
    """Instance norm over what is valid. x: [1, channels, time].

    With the mean in its place, the padding adds nothing to the variance, and scaled up by 1 / sqrt(share), the rest
    has its own in spite of the padding. So the plain operation does it, which keeps its sums in fp32 where one
    written in fp16 steps would lose or overflow them. Styles scales down again.
    """
    scale, bias = styled[norm]
    mean = (x * valid.mask).mean(dim=2, keepdim=True) / valid.share
    return F.instance_norm((x - mean) * valid.lifted) * scale + bias


def adain_residual(
    block: AdainResBlk1d, x: Tensor, styled: Styled, valid: Span, doubled: Span | None = None
) -> Tensor:
    """[1, dim_in, time] -> [1, dim_out, time]; 2 * time of a block that upsamples, which needs `doubled`."""
    after = doubled if block.upsample else valid
    assert after is not None
    y = F.leaky_relu(adain(block.norm1, x, styled, valid), 0.2) * valid.mask
    if block.upsample:
        y = block.pool(y) * after.mask
    y = block.conv1(y)
    y = block.conv2(F.leaky_relu(adain(block.norm2, y, styled, after), 0.2) * after.mask)
    shortcut = block.conv1x1(x) if hasattr(block, "conv1x1") else x
    return (y + (repeat(shortcut, 2) if block.upsample else shortcut)) * math.sqrt(0.5)


def snake_residual(block: AdaINResBlock1, x: Tensor, styled: Styled, valid: Span) -> Tensor:
    """[1, channels, time] -> [1, channels, time]."""
    halves = zip(block.convs1, block.convs2, block.adain1, block.adain2, block.alpha1, block.alpha2, strict=True)
    for conv1, conv2, norm1, norm2, alpha1, alpha2 in halves:
        y = conv1(snake(adain(norm1, x, styled, valid), alpha1) * valid.mask)
        x = x + conv2(snake(adain(norm2, y, styled, valid), alpha2) * valid.mask)
    return x


def norms_of(*blocks: nn.Module) -> list[AdaIN1d]:
    return [module for block in blocks for module in block.modules() if isinstance(module, AdaIN1d)]
