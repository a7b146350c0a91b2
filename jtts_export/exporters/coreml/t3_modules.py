"""T3's networks in the form that CoreML takes: fixed shapes, masks instead of lengths, and nothing that overflows in
fp16. The weights are the model's own Parameter objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from jtts_export.models.exact import product, row_sums
from jtts_export.models.t3.model import T3, CrossAttention, Layer, rotary_tables

from .stage import cache_names
from .t3_chain import ROWS

HIDDEN = -1e4  # added to a score that must not count: fp16 holds it, and its exponential is 0
LEAST_PEAK = 2.0**-8  # of a row that is divided by its largest magnitude, so that one of zeros stays finite


class Embed(nn.Module):
    """Tokens, their positions and whether they are of text, all int32 [1, n], to embeddings [rows, n, hidden]: of
    T3.prompt_embeds() under guidance, whose second row knows no text but its positions."""

    def __init__(self, model: T3) -> None:
        super().__init__()
        self.text_emb, self.speech_emb = model.text_emb, model.speech_emb
        self.text_places, self.speech_places = model.text_pos_emb.emb, model.speech_pos_emb.emb

    def forward(self, tokens: Tensor, positions: Tensor, is_text: Tensor) -> Tensor:
        no_text = 1 - is_text  # a token of the other kind reads row 0, which every table has
        speech = self.speech_emb(tokens * no_text) + self.speech_places(positions * no_text)
        places = self.text_places(positions * is_text)
        of_text = (is_text > 0)[..., None]
        guided = torch.where(of_text, self.text_emb(tokens * is_text) + places, speech)
        return torch.cat([guided, torch.where(of_text, places, speech)])


class Conditioning(nn.Module):
    """T3.condition() and T3.emotion(), of a prompt of any length.

    Speaker embedding [1, size], embeddings of a prompt [1, most, hidden], its length int32 [1] and the exaggeration
    [1] to [1, 1 + queries, hidden] and [1, 1, hidden]. Rows behind the length are not read. Without a prompt only
    the first row means something.
    """

    def __init__(self, model: T3) -> None:
        super().__init__()
        self.encoder = model.cond_enc
        perceiver = model.cond_enc.perceiver
        self.query = nn.Parameter(_learned_query(perceiver.attn, perceiver.pre_attention_query))

    def forward(
        self, speaker_emb: Tensor, prompt: Tensor, length: Tensor, exaggeration: Tensor
    ) -> tuple[Tensor, Tensor]:
        encoder, block = self.encoder, self.encoder.perceiver.attn
        there = torch.arange(prompt.shape[1], dtype=torch.int32) < length
        rows: Tensor = encoder.perceiver.pre_attention_query
        rows = _cross(block, rows, self.query, prompt, _mask(there, prompt.dtype))
        rows = _cross(block, rows, _query(block, rows), rows, None)
        speaker = encoder.spkr_enc(speaker_emb)[:, None]
        return torch.cat([speaker, rows], 1), encoder.emotion_adv_fc(exaggeration[:, None, None])


# Keys and values of a chunk -> all of those so far.
_Extend = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class _Places:
    """Where a chunk of n positions lies in the context, as matrices: written [context, n], 1 where one goes; kept
    [context, 1], 1 where none does; mask [n, context], added to scores; cos and sin [1, 1, n, head size]."""

    written: Tensor
    kept: Tensor
    mask: Tensor
    cos: Tensor
    sin: Tensor


class Decoder(nn.Module):
    """The Llama and the speech head over a chunk of positions, with keys and values [rows, heads, context, head size]
    that are rewritten as a whole: the Neural Engine writes no part of a state."""

    def __init__(self, model: T3, context: int) -> None:
        super().__init__()
        self.config, self.context = model.config, context
        self.layers, self.norm, self.speech_head = model.tfmr.layers, model.tfmr.norm, model.speech_head
        cos, sin = rotary_tables(model.config, torch.arange(context), torch.float32)
        # Of rank 4: coremltools makes layers of products with matrices, and renames those.
        self.register_buffer("cos", cos[None, None], persistent=False)
        self.register_buffer("sin", sin[None, None], persistent=False)

    def places(self, n: int, position: Tensor, count: Tensor | None, dtype: torch.dtype) -> _Places:
        """Of `count` positions (all, if None) of a chunk of n, the first of them at `position`; both int32 [1]."""
        mine = position + torch.arange(n, dtype=torch.int32)
        all_places = torch.arange(self.context, dtype=torch.int32)
        goes = all_places[:, None] == mine
        if count is not None:
            goes = goes & (torch.arange(n, dtype=torch.int32) < count)
        written = goes.to(dtype)
        # A product with a single 1 in each row is an exact look-up that every compute unit has.
        cos, sin = (written.T[None, None] @ cast(Tensor, table) for table in (self.cos, self.sin))
        kept = 1 - written.sum(1, keepdim=True)
        return _Places(written, kept, _mask(all_places <= mine[:, None], dtype), cos, sin)

    def layer(self, number: int, x: Tensor, places: _Places, extend: _Extend) -> tuple[Tensor, list[Tensor]]:
        """[rows, n, hidden] -> the same, and the attention [n, context] of each alignment head of this layer in the
        first row."""
        layer, config = cast(Layer, self.layers[number]), self.config
        attention, mlp = layer.self_attn, layer.mlp
        normed = rms_norm(x, layer.input_layernorm.weight, config.rms_eps)
        query, key, value = (
            _split(project(normed), config.heads)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        key, value = extend(_rotate(key, places), value)
        scores = (_rotate(query, places) * config.head_size**-0.5) @ key.transpose(2, 3) + places.mask
        weights = scores.softmax(-1)
        aligned = [weights[0, head] for at, head in config.alignment_heads if at == number]
        x = x + attention.o_proj(_join(weights @ value))
        normed = rms_norm(x, layer.post_attention_layernorm.weight, config.rms_eps)
        return x + mlp.down_proj(nn.functional.silu(mlp.gate_proj(normed)) * mlp.up_proj(normed)), aligned

    def logits(self, x: Tensor, count: Tensor | None) -> Tensor:
        """[rows, n, hidden] -> those of the last of `count` positions, [rows, vocabulary]."""
        if count is not None:
            last = torch.arange(x.shape[1], dtype=torch.int32) == count - 1
            x = last.to(x.dtype)[None, None] @ x
        return self.speech_head(rms_norm(x, self.norm.weight, self.config.rms_eps))[:, 0]


class Stateful(nn.Module):
    """Embeddings [rows, n, hidden] and the context position int32 [1] of the first, and where n > 1 int32 [1], how
    many of the n there are, to logits [rows, vocabulary] behind the last and, of checkpoints with alignment heads,
    alignment [n, context]. Keys and values are states, one of each in every layer."""

    def __init__(self, decoder: Decoder, states: dict[str, Tensor]) -> None:
        super().__init__()
        self.decoder = decoder
        for name, value in states.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, embeds: Tensor, position: Tensor, count: Tensor | None = None) -> tuple[Tensor, ...]:
        places = self.decoder.places(embeds.shape[1], position, count, embeds.dtype)
        x, aligned = embeds, []
        for number, names in enumerate(cache_names(self.decoder.config.layers)):
            held = [self.get_buffer(name) for name in names]

            def extend(*made: Tensor, held: list[Tensor] = held) -> tuple[Tensor, Tensor]:
                for state, new in zip(held, made, strict=True):
                    state[:] = _written(state, new, places)
                return held[0], held[1]

            x, heads = self.decoder.layer(number, x, places, extend)
            aligned += heads
        return self.decoder.logits(x, count), *_mean(aligned)


class Stateless(nn.Module):
    """The same with keys and values as inputs behind the others, in the order of cache_names(), and those of the
    chunk, [rows, heads, n, head size], as outputs behind the others."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, embeds: Tensor, position: Tensor, count: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        places = self.decoder.places(embeds.shape[1], position, count, embeds.dtype)
        x, aligned = embeds, []
        made: list[Tensor] = []
        for number, held in enumerate(zip(past[::2], past[1::2], strict=True)):

            def extend(key: Tensor, value: Tensor, held: tuple[Tensor, Tensor] = held) -> tuple[Tensor, Tensor]:
                made.extend((key, value))
                return _written(held[0], key, places), _written(held[1], value, places)

            x, heads = self.decoder.layer(number, x, places, extend)
            aligned += heads
        return self.decoder.logits(x, count), *_mean(aligned), *made


def states(model: T3, context: int) -> dict[str, Tensor]:
    """Zeros of every state."""
    config = model.config
    shape = (ROWS, config.heads, context, config.head_size)
    return {name: torch.zeros(shape) for names in cache_names(config.layers) for name in names}


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """nn.RMSNorm over the last axis, of x divided by its largest magnitude: squares of fp16 overflow from 256 on."""
    peak = x.abs().amax(-1, keepdim=True).clamp(min=LEAST_PEAK)
    scaled, floor = x / peak, eps**0.5 / peak
    return scaled * torch.rsqrt((scaled * scaled).mean(-1, keepdim=True) + floor * floor) * weight


def _query(block: CrossAttention, x: Tensor) -> Tensor:
    """[1, n, hidden] -> [1, heads, n, head size], scaled."""
    query = _split(block.to_q(block.norm(x)), block.heads)
    return query * query.shape[-1] ** -0.5


@torch.no_grad()
def _learned_query(block: CrossAttention, x: Tensor) -> Tensor:
    """_query() of what does not depend on anything said, the same on every machine."""
    rows, to_q = x[0].double(), block.to_q
    centred = rows - row_sums(rows)[:, None] / rows.shape[1]
    deviation = np.sqrt(row_sums(centred * centred).numpy() / rows.shape[1] + block.norm.eps)
    normed = centred / torch.from_numpy(deviation)[:, None] * block.norm.weight + block.norm.bias
    query = _split((product(normed, to_q.weight.T) + to_q.bias)[None], block.heads)
    return (query * query.shape[-1] ** -0.5).to(x.dtype)


def _cross(block: CrossAttention, x: Tensor, query: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
    normed = block.norm(context)
    key, value = (_split(project(normed), block.heads) for project in (block.to_k, block.to_v))
    scores = query @ key.transpose(2, 3)
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return x + block.proj_out(_join(weights @ value))


def _written(old: Tensor, new: Tensor, places: _Places) -> Tensor:
    """[rows, heads, context, size] with [rows, heads, n, size] in its places."""
    one = new.shape[2] == 1
    put = places.written * new if one else places.written[None, None] @ new
    return old * places.kept + put


def _rotate(x: Tensor, places: _Places) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * places.cos + torch.cat([-second, first], -1) * places.sin


def _mask(there: Tensor, dtype: torch.dtype) -> Tensor:
    return (1 - there.to(dtype)) * HIDDEN


def _mean(aligned: list[Tensor]) -> list[Tensor]:
    return [torch.stack(aligned).mean(0)] if aligned else []


def _split(x: Tensor, heads: int) -> Tensor:
    """[rows, n, heads * size] -> [rows, heads, n, size]."""
    rows, n, width = x.shape
    return x.reshape(rows, n, heads, width // heads).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """[rows, heads, n, size] -> [rows, n, heads * size]."""
    rows, heads, n, size = x.shape
    return x.transpose(1, 2).reshape(rows, n, heads * size)
