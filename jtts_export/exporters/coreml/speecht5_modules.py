"""SpeechT5's stages as PyTorch modules of fixed shapes: transformers' weights, and masks for what is left empty.

`model` and `vocoder` are SpeechT5ForTextToSpeech and SpeechT5HifiGan. Nothing here leaves the range of fp16.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jtts_export.exporters import speecht5_networks
from jtts_export.exporters.speecht5_networks import joined, prenet_last, scaled, skewed, split_heads

from .stage import cache_names

HIDDEN_SCORE = -1e4  # of what attention must not see: far below any score, and within fp16
Pair = tuple[Tensor, Tensor]  # keys and values
Add = Callable[[Tensor, Tensor], Tensor]


class EncoderWeights(nn.Module):
    """What encoders of every length share."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network = speecht5_networks.Encoder(model)
        self.cross = joined(*self.network.cross)
        self.layers = len(self.network.cross)
        del self.network.cross
        joint = model.speecht5.decoder.prenet.speaker_embeds_layer.weight
        self.speaker = nn.Parameter(joint.detach()[:, model.config.hidden_size :].clone())
        self.positions = self.network.positions.detach()
        del self.network.positions


class Encoder(nn.Module):
    """Text and speaker to what the decoder reads at every step, for texts of one length.

    input_ids int32 [1, tokens]; mask f32 [1, tokens], 1 at tokens and 0 behind them; speaker_embeddings f32 [1, size]
    -> memory [layers, 2 x hidden, tokens], keys and then values of each decoder layer's cross-attention; and the
    speaker as the decoder's prenet adds it, [1, hidden].
    """

    def __init__(self, weights: EncoderWeights, tokens: int) -> None:
        super().__init__()
        self.network, self.cross, self.speaker = weights.network, weights.cross, weights.speaker
        self.layers = weights.layers
        self.positions = nn.Parameter(padded(weights.positions, tokens))
        reach = self.network.relative.num_embeddings // 2
        offsets = tokens - torch.arange(2 * tokens)  # see speecht5_networks.Encoder
        relative = self.network.relative(offsets.clamp(-reach, reach - 1) + reach)
        self.relative = nn.Parameter(relative.detach().T.contiguous())

    def forward(self, input_ids: Tensor, mask: Tensor, speaker_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        network = self.network
        x = network.norm(network.embed(input_ids) + self.positions)
        hidden = (1 - mask) * HIDDEN_SCORE
        for layer in network.layers:
            x = attended(layer, x, self.relative, hidden)
        memory = self.cross(x)[0].T.unflatten(0, (self.layers, -1))
        unit = speaker_embeddings / speaker_embeddings.abs().amax(1, keepdim=True)  # squares stay within fp16
        return memory, F.linear(unit / unit.square().sum(1, keepdim=True).sqrt(), self.speaker)


def attended(layer: Any, x: Tensor, relative: Tensor, hidden: Tensor) -> Tensor:
    """speecht5_networks.EncoderLayer.forward() with `hidden`, [1, tokens], added to the scores of every query;
    relative: [head size, 2 x tokens]."""
    q, k, v = (split_heads(part, layer.heads) for part in layer.qkv(x).chunk(3, -1))
    scores = q @ k.transpose(2, 3) + skewed(q @ relative) + hidden
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = layer.norm(x + layer.out(mixed))
    return layer.final_norm(x + layer.down(F.gelu(layer.up(x))))


class DecoderStep(nn.Module):
    """One step of the decoder.

    frame [1, mels], the last one made; kept [layers, units], of the prenet's dropout; speaker [1, hidden] and memory
    [layers, 2 x hidden, tokens] of Encoder; mask [1, tokens]; position int32 [1], steps made so far; caches, keys and
    values [1, hidden, steps] of each layer's earlier steps, to which `add` adds what is new -> spectrum
    [reduction, mels]; end [reduction], logits of the end of speech; and keys and values [1, hidden, 1] of this step
    in each layer.
    """

    def __init__(self, model: Any, steps: int) -> None:
        super().__init__()
        config = model.config
        prenet, postnet = model.speecht5.decoder.prenet, model.speech_decoder_postnet
        self.reduction = config.reduction_factor
        gain = 1 / (1 - config.speech_decoder_prenet_dropout)  # relu(x) * gain = relu(x * gain)
        self.prenet = nn.ModuleList(scaled(linear, gain) for linear in prenet.layers)
        last, positions = prenet_last(prenet, config.hidden_size)
        self.prenet_last = nn.Parameter(last)
        self.positions = nn.Parameter(padded(positions, steps))
        self.layers: Any = nn.ModuleList(
            DecoderLayer(layer) for layer in model.speecht5.decoder.wrapped_decoder.layers
        )
        self.feat_out, self.prob_out = postnet.feat_out, postnet.prob_out

    def forward(
        self,
        frame: Tensor,
        kept: Tensor,
        speaker: Tensor,
        memory: Tensor,
        mask: Tensor,
        position: Tensor,
        caches: Sequence[Pair],
        add: Add,
    ) -> tuple[Tensor, Tensor, list[Pair]]:
        x = frame
        for i, linear in enumerate(self.prenet):
            x = linear(x).relu() * kept[i]
        x = (F.linear(x, self.prenet_last) + F.embedding(position, self.positions) + speaker).relu()
        steps = torch.arange(caches[0][0].shape[-1], dtype=torch.int32)
        here = (steps == position).to(x.dtype)
        hidden, nowhere = (steps > position).to(x.dtype) * HIDDEN_SCORE, (1 - mask) * HIDDEN_SCORE
        made = []
        for layer, cache, text in zip(self.layers, caches, memory, strict=True):
            x, new = layer(x, cache, add, here, hidden, text, nowhere)
            made.append(new)
        return self.feat_out(x).view(self.reduction, -1), self.prob_out(x)[0], made


class DecoderLayer(nn.Module):
    """Post-norm transformer layer, for one step. Keys and values lie as [hidden, steps]: their rows are heads."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        own, cross = layer.self_attn, layer.encoder_attn
        self.heads = own.num_heads
        self.query, self.key, self.value = scaled(own.q_proj, own.scaling), own.k_proj, own.v_proj
        self.out, self.norm = own.out_proj, layer.self_attn_layer_norm
        self.cross_query = scaled(cross.q_proj, cross.scaling)
        self.cross_out, self.cross_norm = cross.out_proj, layer.encoder_attn_layer_norm
        self.up, self.down = layer.feed_forward.intermediate_dense, layer.feed_forward.output_dense
        self.final_norm = layer.final_layer_norm

    def forward(
        self,
        x: Tensor,
        cache: Pair,
        add: Add,
        here: Tensor,
        hidden: Tensor,
        memory: Tensor,
        nowhere: Tensor,
    ) -> tuple[Tensor, Pair]:
        """here [steps]: 1 at this step; hidden [steps] and nowhere [1, tokens]: added to scores."""
        key, value = self.key(x)[..., None], self.value(x)[..., None]
        # All of it is written anew: the Neural Engine fails on writes to a part of a state.
        keys, values = (add(old, (new - old) * here) for old, new in zip(cache, (key, value), strict=True))
        x = self.norm(x + self.out(self.mixed(self.query(x), keys, values, hidden)))
        keys, values = memory.chunk(2)
        cross = self.mixed(self.cross_query(x), keys, values, nowhere)
        x = self.cross_norm(x + self.cross_out(cross))
        return self.final_norm(x + self.down(F.gelu(self.up(x)))), (key, value)

    def mixed(self, query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
        """query [1, hidden], keys and values [1, hidden, steps] or [hidden, steps] -> [1, hidden]."""
        size = query.shape[1] // self.heads
        q = query.view(self.heads, 1, size)
        k, v = (part.reshape(self.heads, size, part.shape[-1]) for part in (keys, values))
        shares = (q @ k + hidden).softmax(-1)
        return (shares @ v.transpose(1, 2)).view(1, -1)


class StatefulDecoder(nn.Module):
    """DecoderStep whose caches are buffers, key_0, value_0, key_1...: the states of a package."""

    def __init__(self, step: DecoderStep, steps: int) -> None:
        super().__init__()
        self.step = step
        hidden = step.positions.shape[1]
        self.names = cache_names(len(step.layers))
        for name in (name for pair in self.names for name in pair):
            self.register_buffer(name, torch.zeros(1, hidden, steps))

    def forward(
        self, frame: Tensor, kept: Tensor, speaker: Tensor, memory: Tensor, mask: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        caches = [(self.get_buffer(key), self.get_buffer(value)) for key, value in self.names]
        spectrum, end, _ = self.step(frame, kept, speaker, memory, mask, position, caches, Tensor.add_)
        return spectrum, end


class StatelessDecoder(nn.Module):
    """DecoderStep whose caches go in, keys and values [layers, hidden, steps], and of which the new columns come
    out, [layers, hidden]: a caller writes them to `position` of what it gives next."""

    def __init__(self, step: DecoderStep) -> None:
        super().__init__()
        self.step = step

    def forward(
        self,
        frame: Tensor,
        kept: Tensor,
        speaker: Tensor,
        memory: Tensor,
        mask: Tensor,
        position: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        caches = [(keys[i : i + 1], values[i : i + 1]) for i in range(len(self.step.layers))]
        spectrum, end, made = self.step(frame, kept, speaker, memory, mask, position, caches, torch.add)
        key, value = (torch.cat(part)[..., 0] for part in zip(*made, strict=True))
        return spectrum, end, key, value


class Vocoder(nn.Module):
    """Postnet and HiFi-GAN on a window: spectrogram [frames, mels], mask [1, frames], 1 at frames and 0 behind them
    -> waveform [samples], mel [frames, mels]. What is behind the end is zero ahead of every convolution, which is
    what the convolutions of a shorter window pad with."""

    def __init__(self, model: Any, vocoder: Any) -> None:
        super().__init__()
        self.network = speecht5_networks.Vocoder(model, vocoder)

    def forward(self, spectrogram: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        network, mask = self.network, mask[None, None]
        base = spectrogram.T[None, :, None]
        x = base
        for i, conv in enumerate(network.postnet):
            x = conv(x * mask)
            x = torch.tanh(x) if i + 1 < len(network.postnet) else x
        mel = (base + x)[0, :, 0].T
        x = network.pre(((mel - network.mean) * network.gain).T[None, :, None] * mask) * mask
        for i, up in enumerate(network.ups):
            x = up(F.leaky_relu(x, network.slope))
            mask = mask[..., None].expand(1, 1, 1, -1, up.stride).flatten(3)
            x = x * mask
            blocks: Any = network.blocks[i * network.branches : (i + 1) * network.branches]
            x = functools.reduce(torch.add, [resounded(block, x, mask) for block in blocks])
        return torch.tanh(network.post(F.leaky_relu(x)))[0, 0, 0], mel


def resounded(block: Any, x: Tensor, mask: Tensor) -> Tensor:
    """speecht5_networks.ResidualBlock.forward() of a masked x, masked."""
    for first, second in zip(block.first, block.second, strict=True):
        x = x + second(F.leaky_relu(first(F.leaky_relu(x, block.slope)), block.slope) * mask) * mask
    return x


def padded(table: Tensor, rows: int) -> Tensor:
    """[at most `rows`, columns] -> [rows, columns], zeros behind."""
    return F.pad(table.detach(), (0, 0, 0, rows - len(table)))
