"""SpeechT5's encoder and vocoder as they are exported: transformers' weights, in the forms that run fastest.

All for one utterance: there is no padding, and so no mask. `model` and `vocoder` are SpeechT5ForTextToSpeech and
SpeechT5HifiGan.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jtts_export.models.exact import product, rounded, squares

STRENGTH_BITS = 10  # of what channels are divided by: near enough, and the same on every machine


class Encoder(nn.Module):
    """Text to what the decoder's cross-attention reads: keys and values of every decoder layer.

    input_ids int64 [1, tokens] -> all of them in one, f32 [1, tokens, 2 x layers x hidden]; a mask of ones, int64
    [1, tokens]; key f32 [1, heads, head size, tokens] and value f32 [1, heads, tokens, head size] of each decoder
    layer; and the encoder's last states, f32 [1, tokens, hidden].
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        encoder = model.speecht5.encoder
        prenet, wrapped = encoder.prenet, encoder.wrapped_encoder
        self.embed = prenet.embed_tokens
        self.norm = wrapped.layer_norm
        self.layers = nn.ModuleList(EncoderLayer(layer) for layer in wrapped.layers)
        self.cross = nn.ModuleList(
            joined(layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)
            for layer in model.speecht5.decoder.wrapped_decoder.layers
        )
        self.heads = model.config.decoder_attention_heads
        self.positions = nn.Parameter(prenet.encode_positions.alpha * prenet.encode_positions.pe[0])
        self.relative = wrapped.embed_positions.pe_k

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        tokens = input_ids.shape[1]
        x = self.norm(self.embed(input_ids) + self.positions[:tokens])
        reach = self.relative.num_embeddings // 2
        offsets = tokens - torch.arange(2 * tokens)  # of column m, for row 0 of skewed()
        relative = self.relative(offsets.clamp(-reach, reach - 1) + reach)
        for layer in self.layers:
            x = layer(x, relative)
        pairs = [linear(x) for linear in self.cross]
        halves = [[split_heads(half, self.heads) for half in pair.chunk(2, -1)] for pair in pairs]
        cross = [tensor for key, value in halves for tensor in (key.transpose(2, 3), value)]
        return torch.cat(pairs, -1), torch.ones_like(input_ids), *cross, x


class EncoderLayer(nn.Module):
    """Post-norm transformer layer with relative positions (Shaw et al. 2018) on the keys."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.attention
        self.heads = attention.num_heads
        self.qkv = joined(scaled(attention.q_proj, attention.scaling), attention.k_proj, attention.v_proj)
        self.out = attention.out_proj
        self.norm, self.final_norm = layer.layer_norm, layer.final_layer_norm
        self.up, self.down = layer.feed_forward.intermediate_dense, layer.feed_forward.output_dense

    def forward(self, x: Tensor, relative: Tensor) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(2, 3) + skewed(q @ relative.T)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.norm(x + self.out(mixed))
        return self.final_norm(x + self.down(F.gelu(self.up(x))))


class Vocoder(nn.Module):
    """Postnet and HiFi-GAN: spectrogram f32 [frames, mels] as the decoder makes it -> waveform f32 [samples],
    and mel f32 [frames, mels] behind the postnet.

    Convolutions over [1, channels, 1, frames]: onnxruntime has faster ones for two dimensions than for one.
    """

    def __init__(self, model: Any, vocoder: Any) -> None:
        super().__init__()
        self.postnet = nn.ModuleList(
            flat(folded(layer.conv, layer.batch_norm)) for layer in model.speech_decoder_postnet.layers
        )
        normalised = vocoder.config.normalize_before
        self.mean = nn.Parameter(vocoder.mean if normalised else torch.zeros_like(vocoder.mean))
        self.gain = nn.Parameter(1 / vocoder.scale if normalised else torch.ones_like(vocoder.scale))
        self.slope = vocoder.config.leaky_relu_slope
        self.branches = vocoder.num_kernels
        self.pre = flat(vocoder.conv_pre)
        self.ups: Any = nn.ModuleList(
            PixelShuffle(up, 1.0 if i == 0 else 1 / self.branches) for i, up in enumerate(vocoder.upsampler)
        )
        self.blocks: Any = nn.ModuleList(ResidualBlock(block, self.slope) for block in vocoder.resblocks)
        self.post = flat(scaled(vocoder.conv_post, 1 / self.branches))
        self._level()

    @torch.no_grad()
    def _level(self) -> None:
        """Give all channels between the blocks of a rate the same strength, as the weights that add to them
        predict it: leaky ReLUs and sums do not mind, and quantized they can share one scale."""
        followers = [*(up.conv for up in self.ups[1:]), self.post]
        for i, (up, follower) in enumerate(zip(self.ups, followers, strict=True)):
            blocks = self.blocks[i * self.branches : (i + 1) * self.branches]
            adding = [conv for block in blocks for conv in block.second]
            power = functools.reduce(torch.add, [squares(conv.weight) for conv in adding])
            strength = evened(power).to(up.conv.weight.dtype)
            for conv, gain in [(up.conv, strength.repeat_interleave(up.stride)), *((c, strength) for c in adding)]:
                conv.weight /= gain[:, None, None, None]
                conv.bias /= gain
            for conv in [follower, *(conv for block in blocks for conv in block.first)]:
                conv.weight *= strength[:, None, None]

    @property
    def context_frames(self) -> int:
        """How many frames on either side the audio of a frame depends on."""
        frames = sum(conv.kernel_size[1] // 2 for conv in (*self.postnet, self.pre))
        reach, rate = 0.0, 1
        for i, up in enumerate(self.ups):
            reach += (up.conv.kernel_size[1] // 2) / rate
            rate *= up.stride
            reach += max(block.reach for block in self.blocks[i * self.branches : (i + 1) * self.branches]) / rate
        return frames + math.ceil(reach + (self.post.kernel_size[1] // 2) / rate)

    def forward(self, spectrogram: Tensor) -> tuple[Tensor, Tensor]:
        x = base = spectrogram.T[None, :, None]
        for i, conv in enumerate(self.postnet):
            x = conv(x)
            x = torch.tanh(x) if i + 1 < len(self.postnet) else x
        mel = (base + x)[0, :, 0].T
        x = self.pre(((mel - self.mean) * self.gain).T[None, :, None])
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, self.slope))
            blocks = self.blocks[i * self.branches : (i + 1) * self.branches]
            x = sum(block(x) for block in blocks)  # their mean: divided by in the next convolution
        return torch.tanh(self.post(F.leaky_relu(x)))[0, 0, 0], mel


class ResidualBlock(nn.Module):
    """HiFi-GAN's: pairs of convolutions, the first of each pair dilated."""

    def __init__(self, block: Any, slope: float) -> None:
        super().__init__()
        self.first = nn.ModuleList(flat(conv) for conv in block.convs1)
        self.second = nn.ModuleList(flat(conv) for conv in block.convs2)
        self.slope = slope

    @property
    def reach(self) -> int:
        """How many samples on either side a sample depends on."""
        return sum((c.kernel_size[1] - 1) // 2 * c.dilation[1] for c in (*self.first, *self.second))

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(F.leaky_relu(first(F.leaky_relu(x, self.slope)), self.slope))
        return x


class PixelShuffle(nn.Module):
    """A transposed convolution as a convolution to all phases of its stride, then interleaved: the same sums,
    without onnxruntime's slow ConvTranspose."""

    def __init__(self, up: Any, gain: float) -> None:
        super().__init__()
        (stride,), (kernel,), (padding,) = up.stride, up.kernel_size, up.padding
        # Phase p of output t sums w[k] x[t - d] over the taps with k = stride d + p + padding.
        past = (kernel - 1 - padding) // stride
        future = (stride - 1 + padding) // stride
        reach = max(past, future)
        weight = torch.zeros(up.out_channels, stride, up.in_channels, 2 * reach + 1)
        for phase in range(stride):
            for d in range(-reach, reach + 1):
                if 0 <= (k := stride * d + phase + padding) < kernel:
                    weight[:, phase, :, reach - d] = gain * up.weight[:, :, k].T
        conv = nn.Conv1d(up.in_channels, up.out_channels * stride, 2 * reach + 1, padding=reach)
        conv.weight = nn.Parameter(weight.flatten(0, 1))
        conv.bias = nn.Parameter(up.bias.repeat_interleave(stride))
        self.conv, self.stride = flat(conv), stride

    def forward(self, x: Tensor) -> Tensor:
        phases = self.conv(x)[:, :, 0].unflatten(1, (-1, self.stride))
        return phases.transpose(2, 3).flatten(2)[:, :, None]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[1, tokens, hidden] -> [1, heads, tokens, head size]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def skewed(scores: Tensor) -> Tensor:
    """Scores by offset -> scores by key: [1, heads, n, 2n] -> [1, heads, n, n].

    Column m of row i belongs to key m + i - n; read n values further, rows of 2n - 1 line up.
    """
    n = scores.shape[2]
    return scores.flatten(2)[:, :, n:].unflatten(2, (n, 2 * n - 1))[..., :n]


def evened(power: Tensor) -> Tensor:
    """Strengths of channels of these powers, float64 [channels], around 1."""
    known = power.numpy()
    strength = np.sqrt(np.where(known > 0, known, 1))
    return torch.from_numpy(rounded(strength / np.exp(np.log(strength).mean()), STRENGTH_BITS))


@torch.no_grad()
def joined(*linears: nn.Linear) -> nn.Linear:
    """Several linear maps of one input, as one."""
    whole = nn.Linear(linears[0].in_features, sum(x.out_features for x in linears))
    whole.weight = nn.Parameter(torch.cat([x.weight for x in linears]))
    whole.bias = nn.Parameter(torch.cat([x.bias for x in linears]))
    return whole


@torch.no_grad()
def prenet_last(prenet: Any, hidden: int) -> tuple[Tensor, Tensor]:
    """The decoder prenet's last two linear maps as one, [hidden, units], and what it adds at each position,
    [positions, hidden]: the first one's output, the position and the speaker are only ever added up."""
    joint, final = prenet.speaker_embeds_layer, prenet.final_layer
    first = joint.weight[:, :hidden]
    positions = prenet.encode_positions.alpha * prenet.encode_positions.pe[0] + final.bias
    table = product(positions, first.T) + joint.bias.double()
    return product(first, final.weight).to(first.dtype), table.to(first.dtype)


@torch.no_grad()
def scaled(linear: Any, gain: float) -> Any:
    """A linear map or convolution of the input times `gain`; a linear map's bias is scaled as well."""
    if isinstance(linear, nn.Linear):
        new: nn.Module = nn.Linear(linear.in_features, linear.out_features)
        new.bias = nn.Parameter(linear.bias * gain)
    else:
        new = nn.Conv1d(linear.in_channels, linear.out_channels, linear.kernel_size, padding=linear.padding)
        new.bias = nn.Parameter(linear.bias)
    new.weight = nn.Parameter(linear.weight * gain)
    return new


@torch.no_grad()
def folded(conv: Any, norm: Any) -> nn.Conv1d:
    """A convolution and the batch norm behind it, as one convolution."""
    deviation = torch.from_numpy(np.sqrt(norm.running_var.double().numpy() + norm.eps))  # torch's root may be off
    gain = (norm.weight / deviation).to(conv.weight.dtype)
    new = nn.Conv1d(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding)
    new.weight = nn.Parameter(conv.weight * gain[:, None, None])
    new.bias = nn.Parameter(norm.bias - norm.running_mean * gain)
    return new


@torch.no_grad()
def flat(conv: Any) -> nn.Conv2d:
    """The same convolution over [1, channels, 1, frames]."""
    padding, dilation = int(conv.padding[0]), conv.dilation[0]
    new = nn.Conv2d(
        conv.in_channels, conv.out_channels, (1, conv.kernel_size[0]), padding=(0, padding), dilation=(1, dilation)
    )
    new.weight, new.bias = nn.Parameter(conv.weight[:, :, None].clone()), nn.Parameter(conv.bias.clone())
    return new
