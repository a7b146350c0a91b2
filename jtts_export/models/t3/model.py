"""T3: conditioning, text and past speech tokens to the next speech token.

A dense Llama between learned embeddings, with the authors' parameter names. Computes in the dtype of its weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import T3Config

UNUSED_TOKENS = 8  # rows of tfmr.embed_tokens, which is in the authors' files and in no computation


class Cache:
    """Keys and values [batch, heads, positions, head_size] of every layer, that each forward() extends."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor]] = []

    @property
    def positions(self) -> int:
        return self.layers[0][0].shape[2] if self.layers else 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's keys and values with these at their end. The first pass calls it layer by layer."""
        if layer == len(self.layers):
            self.layers.append((key, value))
        else:
            past_key, past_value = self.layers[layer]
            self.layers[layer] = torch.cat([past_key, key], 2), torch.cat([past_value, value], 2)
        return self.layers[layer]


class T3(nn.Module):
    """The full architecture; one utterance at a time, in two batch rows under classifier-free guidance (CFG)."""

    def __init__(self, config: T3Config) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden_size
        self.tfmr = Llama(config)
        self.cond_enc = ConditioningEncoder(config)
        self.text_emb = nn.Embedding(config.text_vocab, hidden)
        self.speech_emb = nn.Embedding(config.speech_vocab, hidden)
        self.text_pos_emb = Positions(config.text_positions, hidden)
        self.speech_pos_emb = Positions(config.speech_positions, hidden)
        self.text_head = nn.Linear(hidden, config.text_vocab, bias=False)
        self.speech_head = nn.Linear(hidden, config.speech_vocab, bias=False)

    def condition(self, speaker_emb: Tensor, prompt: Tensor) -> Tensor:
        """[1, speaker_size] and speech tokens int64 [1, n] -> [1, 1 + queries, hidden]; n = 0: [1, 1, hidden]."""
        speaker = self.cond_enc.spkr_enc(speaker_emb)[:, None]
        if not prompt.shape[1]:
            return speaker
        positions = torch.arange(prompt.shape[1], device=prompt.device)
        return torch.cat([speaker, self.cond_enc.perceiver(self.embed_speech(prompt, positions))], 1)

    def emotion(self, exaggeration: Tensor) -> Tensor:
        """[1] -> [1, 1, hidden]."""
        return self.cond_enc.emotion_adv_fc(exaggeration[:, None, None])

    def prompt_embeds(self, cond: Tensor, emotion: Tensor, text_tokens: Tensor, cfg: bool) -> Tensor:
        """Everything before the first speech token, [1, positions, hidden]; under `cfg` [2, positions, hidden].

        text_tokens: int64 [1, n], start and stop included. The second row of CFG keeps the text's positions only.
        The start of speech comes twice, both times at position 0, as the authors' inference() feeds it.
        """
        text = self.text_emb(text_tokens)
        if cfg:
            text = torch.cat([text, torch.zeros_like(text)])
        text = text + self.text_pos_emb(torch.arange(text.shape[1], device=text.device))
        start = torch.full_like(text_tokens[:, :1], self.config.start_speech).expand(1, 2)
        starts = self.embed_speech(start, torch.zeros_like(start[0]))
        rows = len(text)
        return torch.cat([part.expand(rows, -1, -1) for part in (cond, emotion, text, starts)], 1)

    def embed_speech(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """int64 [batch, n] and [n] -> [batch, n, hidden]."""
        return self.speech_emb(tokens) + self.speech_pos_emb(positions)

    def forward(self, embeds: Tensor, cache: Cache | None = None, attention: list[Tensor] | None = None) -> Tensor:
        """[batch, n, hidden] -> the same after the final norm, each position seeing those before it.

        cache: what was fed before, which this extends. attention: takes [n, positions], the mean over
        alignment_heads (there must be some) of what the first row's positions attend to.
        """
        return self.tfmr(embeds, cache or Cache(), attention)


class Llama(nn.Module):
    def __init__(self, config: T3Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(UNUSED_TOKENS, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_eps)

    def forward(self, x: Tensor, cache: Cache, attention: list[Tensor] | None) -> Tensor:
        n, past = x.shape[1], cache.positions
        rotary = rotary_tables(self.config, torch.arange(past, past + n, device=x.device), x.dtype)
        visible = torch.ones(n, past + n, dtype=torch.bool, device=x.device).tril(past)
        aligned: list[Tensor] | None = None if attention is None else []
        for layer in self.layers:
            x = layer(x, rotary, visible, cache, aligned)
        if attention is not None and aligned is not None:
            attention.append(torch.stack(aligned).mean(0))
        return self.norm(x)


class Layer(nn.Module):
    def __init__(self, config: T3Config, index: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config, index)
        self.mlp = FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], visible: Tensor, cache: Cache, aligned: list[Tensor] | None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, visible, cache, aligned)
        return x + self.mlp(self.post_attention_layernorm(x))


class SelfAttention(nn.Module):
    def __init__(self, config: T3Config, index: int) -> None:
        super().__init__()
        self.index, self.heads = index, config.heads
        self.aligned_heads = [head for layer, head in config.alignment_heads if layer == index]
        hidden = config.hidden_size
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(hidden, hidden, bias=False) for _ in range(4))

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], visible: Tensor, cache: Cache, aligned: list[Tensor] | None
    ) -> Tensor:
        query, key, value = (_split(project(x), self.heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        query = _rotate(query, rotary)
        key, value = cache.extend(self.index, _rotate(key, rotary), value)
        if aligned is not None:
            aligned += [_weights(query[0, head], key[0, head], visible) for head in self.aligned_heads]
        first, last = len(visible) == visible.shape[1], len(visible) == 1
        mask = None if first or last else visible
        mixed = F.scaled_dot_product_attention(query, key, value, mask, is_causal=first)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: T3Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.ffn_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.ffn_size, bias=False)
        self.down_proj = nn.Linear(config.ffn_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class ConditioningEncoder(nn.Module):
    """The layers of T3.condition() and T3.emotion()."""

    def __init__(self, config: T3Config) -> None:
        super().__init__()
        self.spkr_enc = nn.Linear(config.speaker_size, config.hidden_size)
        self.emotion_adv_fc = nn.Linear(1, config.hidden_size, bias=False)
        self.perceiver = Perceiver(config)


class Perceiver(nn.Module):
    """A prompt of any length to a fixed number of rows (https://arxiv.org/abs/2103.03206).

    One block serves twice: queries attend to the prompt, then to each other.
    """

    def __init__(self, config: T3Config) -> None:
        super().__init__()
        self.pre_attention_query = nn.Parameter(torch.zeros(1, config.queries, config.hidden_size))
        self.attn = CrossAttention(config.hidden_size, config.perceiver_heads)

    def forward(self, prompt: Tensor) -> Tensor:
        """[batch, n, hidden] -> [batch, queries, hidden]."""
        rows = self.attn(self.pre_attention_query.expand(len(prompt), -1, -1), prompt)
        return self.attn(rows, rows)


class CrossAttention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(hidden)
        self.to_q, self.to_k, self.to_v, self.proj_out = (nn.Linear(hidden, hidden) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm(context)
        query = _split(self.to_q(self.norm(x)), self.heads)
        key, value = _split(self.to_k(normed), self.heads), _split(self.to_v(normed), self.heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(mixed.transpose(1, 2).flatten(2))


class Positions(nn.Module):
    """A learned embedding of positions."""

    def __init__(self, rows: int, hidden: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(rows, hidden)

    def forward(self, positions: Tensor) -> Tensor:
        return self.emb(positions)


def rotary_tables(config: T3Config, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [n, head_size] of positions [n], the two halves of an axis alike; from float64 angles."""
    frequencies = torch.tensor(config.inverse_frequencies, dtype=torch.float64, device=positions.device)
    angles = torch.outer(positions.double(), frequencies).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _split(x: Tensor, heads: int) -> Tensor:
    """[batch, n, heads * size] -> [batch, heads, n, size]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _weights(query: Tensor, key: Tensor, visible: Tensor) -> Tensor:
    """Of one head, [n, size] and [positions, size] -> [n, positions]."""
    scores = query @ key.T * query.shape[-1] ** -0.5
    return scores.masked_fill(~visible, float("-inf")).softmax(-1)
