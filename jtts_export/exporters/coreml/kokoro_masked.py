"""Kokoro's layers on a padded time axis.

A package computes a fixed number of frames or tokens, and an utterance fills part of them. Every layer here gives, up
to the utterance's end, what the reference's gives on an axis that ends there: convolutions see zeros behind the end,
norms count what is ahead of it, and LSTMs that run backwards start at it.

What converting computes of weights is a buffer here, so that every constant of a package can be found in its module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jtts_export.models.kokoro.adain import AdaIN1d, AdainResBlk1d, AdaINResBlock1
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


def span(length: Tensor, size: int, like: Tensor) -> Span:
    """length: int32 [1], valid values of `size`; the mask is of the type of `like`."""
    return Span.of((_positions(size) < length).to(like.dtype).reshape(1, 1, -1))


def _positions(size: int) -> Tensor:
    """int32 [size]; cast once more, for what coremltools counts by a computed size are floats."""
    return torch.arange(size, dtype=torch.int32).to(torch.int32)


def repeat(x: Tensor, rate: int) -> Tensor:
    """[1, channels, time] -> [1, channels, rate * time], each value `rate` times."""
    return x.unsqueeze(3).expand(-1, -1, -1, rate).reshape(1, x.shape[1], -1)


def reversal(length: Tensor, size: int) -> Tensor:
    """Indices that turn the first `length` values of an axis around, int32 [size]; its own inverse."""
    at = _positions(size)
    return torch.where(at < length, length - 1 - at, at)


class BiLSTM(nn.Module):
    """An LSTM in both directions, of which nothing behind the end reaches what is ahead of it."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.lstm = lstm
        for end in ("", "_reverse"):
            ih, hh = (getattr(lstm, f"bias_{name}_l0{end}").detach() for name in ("ih", "hh"))
            self.register_buffer(f"bias{end}", ih + hh)

    def forward(self, x: Tensor, turned: Tensor) -> Tensor:
        """x: [1, time, channels]; turned: see reversal()."""
        ahead = self._one_direction(x, "")
        back = self._one_direction(x.index_select(1, turned), "_reverse")
        return torch.cat([ahead, back.index_select(1, turned)], dim=2)

    def _one_direction(self, x: Tensor, end: str) -> Tensor:
        weights = [getattr(self.lstm, f"weight_{name}_l0{end}") for name in ("ih", "hh")]
        bias, zeros = self.get_buffer(f"bias{end}"), x.new_zeros(1, 1, self.lstm.hidden_size)
        weights += [bias, torch.zeros_like(bias)]
        return torch._VF.lstm(x, (zeros, zeros), weights, True, 1, 0.0, False, False, True)[0]


class MaskedAlbert(nn.Module):
    """ALBERT, whose attention sees what is valid."""

    positions: Tensor

    def __init__(self, bert: Albert) -> None:
        super().__init__()
        self.bert = bert
        table = bert.embeddings.position_embeddings.weight + bert.embeddings.token_type_embeddings.weight[0]
        self.register_buffer("positions", table.detach())

    def forward(self, input_ids: Tensor, length: Tensor, tokens: Span) -> Tensor:
        """int32 [1, tokens] -> [1, tokens, hidden_size]."""
        embeddings, encoder = self.bert.embeddings, self.bert.encoder
        at = _positions(input_ids.shape[1])
        # Looked up, not cut off: the table is stored once for all lengths.
        places = self.positions.index_select(0, torch.where(at < length, at, torch.zeros_like(at)))
        x = encoder.embedding_hidden_mapping_in(embeddings.LayerNorm(embeddings.word_embeddings(input_ids) + places))
        layer: Any = encoder.get_submodule("albert_layer_groups.0.albert_layers.0")
        unseen = (1 - tokens.mask).unsqueeze(1) * FAR
        for _ in range(encoder.repeats):
            x = _attention(layer.attention, x, unseen)
            x = layer.full_layer_layer_norm(layer.ffn_output(F.gelu(layer.ffn(x), approximate="tanh")) + x)
        return x


def _attention(block: Any, x: Tensor, unseen: Tensor) -> Tensor:
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


class SnakeResidual(nn.Module):
    """AdaINResBlock1."""

    def __init__(self, block: AdaINResBlock1) -> None:
        super().__init__()
        self.block: Any = block
        self._count = len(block.convs1)
        for i, alpha in enumerate([*block.alpha1, *block.alpha2]):
            self.register_buffer(f"inverse{i}", 1 / alpha.detach())

    def forward(self, x: Tensor, styled: Styled, valid: Span) -> Tensor:
        """[1, channels, time] -> [1, channels, time]."""
        block = self.block
        for i, (conv1, conv2) in enumerate(zip(block.convs1, block.convs2, strict=True)):
            y = self._snake(adain(block.adain1[i], x, styled, valid), block.alpha1[i], i)
            y = adain(block.adain2[i], conv1(y * valid.mask), styled, valid)
            x = x + conv2(self._snake(y, block.alpha2[i], self._count + i) * valid.mask)
        return x

    def _snake(self, x: Tensor, alpha: Tensor, i: int) -> Tensor:
        sine = torch.sin(alpha * x)
        return x + self.get_buffer(f"inverse{i}") * (sine * sine)


def norms_of(*blocks: nn.Module) -> list[AdaIN1d]:
    return [module for block in blocks for module in block.modules() if isinstance(module, AdaIN1d)]
