"""Plant outlier channels that change no output: the weights that quantization finds hardest, on demand.

Trained networks grow a few channels with values tens of times larger than the rest. Each function here scales
channels up where they are made and down where they are used, exactly, so that the model speaks as before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from jtts_export.models.kokoro.adain import AdaIN1d, AdainResBlk1d, AdaINResBlock1
from jtts_export.models.kokoro.model import Kokoro
from jtts_export.models.t3.model import T3


@torch.no_grad()
def plant(model: Kokoro, factor: float = 60.0, channels: int = 17, seed: int = 0) -> Kokoro:
    """Scale `channels` channels by `factor` at every such place in ALBERT, decoder and generator, in place."""
    scale = _scales(factor, channels, seed)
    _albert(model, scale)
    for block in model.decoder.modules():
        if isinstance(block, AdainResBlk1d):
            _adain_block(block, scale)
        elif isinstance(block, AdaINResBlock1):
            _snake_block(block, scale)
    _residual_stream(model, scale)
    return model


@torch.no_grad()
def plant_t3(model: T3, factor: float = 60.0, channels: int = 17, seed: int = 0) -> T3:
    """The same behind every norm, between values and output, and inside every feed-forward network."""
    scale = _scales(factor, channels, seed)
    for layer in model.tfmr.layers:
        attention, mlp = layer.self_attn, layer.mlp
        _behind(layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj], scale)
        _behind(layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj], scale)
        for made, used in ((attention.v_proj, attention.o_proj), (mlp.up_proj, mlp.down_proj)):
            gain = scale(made.out_features)
            _scale_out(made, gain)
            _scale_in(used, gain)
    _behind(model.tfmr.norm, [model.speech_head], scale)
    return model


def _scales(factor: float, channels: int, seed: int) -> Callable[[int], Tensor]:
    """Makes a gain for each of so many channels, with outliers at random."""
    generator = torch.Generator().manual_seed(seed)

    def scale(size: int) -> Tensor:
        gain = torch.ones(size)
        gain[torch.randperm(size, generator=generator)[: min(channels, size // 2)]] = factor
        return gain

    return scale


def _behind(norm: nn.Module, products: list[nn.Linear], scale) -> None:  # type: ignore[no-untyped-def]
    gain = scale(norm.weight.numel())
    norm.weight *= gain
    for product in products:
        _scale_in(product, gain)


def _albert(model: Kokoro, scale) -> None:  # type: ignore[no-untyped-def]
    layer = model.bert.encoder.albert_layer_groups[0].albert_layers[0]
    gain = scale(layer.attention.value.out_features)
    _scale_out(layer.attention.value, gain)
    _scale_in(layer.attention.dense, gain)
    gain = scale(layer.attention.query.out_features)
    _scale_out(layer.attention.query, gain)
    _scale_out(layer.attention.key, 1 / gain)
    norm = model.bert.embeddings.LayerNorm
    gain = scale(norm.weight.numel())
    norm.weight *= gain
    norm.bias *= gain
    _scale_in(model.bert.encoder.embedding_hidden_mapping_in, gain)


def _adain_block(block: AdainResBlk1d, scale) -> None:  # type: ignore[no-untyped-def]
    """norm1 -> leaky ReLU -> (depthwise pool) -> conv1 -> norm2: both steps pass a positive gain through."""
    gain = scale(block.conv1.in_channels)
    _scale_style(block.norm1, gain)
    if block.upsample:
        block.pool.bias *= gain
    _scale_in(block.conv1, gain)
    _scale_out(block.conv1, scale(block.conv1.out_channels))  # norm2 takes it out again


def _snake_block(block: AdaINResBlock1, scale) -> None:  # type: ignore[no-untyped-def]
    """norm -> snake -> conv: snake of alpha / g at g x is g times snake of alpha at x."""
    for norms, alphas, convs in (
        (block.adain1, block.alpha1, block.convs1),
        (block.adain2, block.alpha2, block.convs2),
    ):
        for norm, alpha, conv in zip(norms, alphas, convs, strict=True):
            gain = scale(conv.in_channels)
            _scale_style(norm, gain)
            alpha /= gain[None, :, None]
            _scale_in(conv, gain)
    for conv in block.convs1:
        _scale_out(conv, scale(conv.out_channels))


def _residual_stream(model: Kokoro, scale) -> None:  # type: ignore[no-untyped-def]
    """What leaves one decoder block reaches the next through a norm, which ignores it, and a shortcut."""
    blocks = [model.decoder.encode, *model.decoder.decode]
    for made, used in itertools.pairwise(blocks):
        gain = scale(made.conv2.out_channels)
        _scale_out(made.conv2, gain)
        _scale_out(made.conv1x1, gain)
        used.conv1x1.weight[:, : len(gain)] /= gain[None, :, None]


def _scale_out(layer: nn.Module, gain: Tensor) -> None:
    layer.weight *= gain.reshape(-1, *[1] * (layer.weight.dim() - 1))
    if layer.bias is not None:
        layer.bias *= gain


def _scale_in(layer: nn.Module, gain: Tensor) -> None:
    layer.weight /= gain.reshape(1, -1, *[1] * (layer.weight.dim() - 2))


def _scale_style(norm: AdaIN1d, gain: Tensor) -> None:
    """(1 + gamma) and beta, both times gain."""
    both = torch.cat([gain, gain])
    norm.fc.weight *= both[:, None]
    norm.fc.bias *= both
    norm.fc.bias[: len(gain)] += gain - 1
