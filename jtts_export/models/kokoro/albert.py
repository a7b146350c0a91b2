"""ALBERT as transformers' AlbertModel computes it, for one unpadded sequence, with its parameter names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import AlbertConfig


class _Embeddings(nn.Module):
    def __init__(self, cfg: AlbertConfig, n_token: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(n_token, cfg.embedding_size)
        self.position_embeddings = nn.Embedding(cfg.max_position_embeddings, cfg.embedding_size)
        self.token_type_embeddings = nn.Embedding(cfg.type_vocab_size, cfg.embedding_size)
        self.LayerNorm = nn.LayerNorm(cfg.embedding_size, eps=cfg.layer_norm_eps)

    def forward(self, input_ids: Tensor) -> Tensor:
        position = self.position_embeddings.weight[: input_ids.shape[1]]
        x = self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0] + position
        return self.LayerNorm(x)


class _Attention(nn.Module):
    def __init__(self, cfg: AlbertConfig) -> None:
        super().__init__()
        self.heads = cfg.num_attention_heads
        self.query = nn.Linear(cfg.hidden_size, cfg.hidden_size)
        self.key = nn.Linear(cfg.hidden_size, cfg.hidden_size)
        self.value = nn.Linear(cfg.hidden_size, cfg.hidden_size)
        self.dense = nn.Linear(cfg.hidden_size, cfg.hidden_size)
        self.LayerNorm = nn.LayerNorm(cfg.hidden_size, eps=cfg.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-1] // self.heads

        def split(y: Tensor) -> Tensor:
            return y.view(1, -1, self.heads, size).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = torch.softmax(q @ k.transpose(-1, -2) * (1 / math.sqrt(size)), dim=-1)
        context = (weights @ v).transpose(1, 2).reshape(1, -1, self.heads * size)
        return self.LayerNorm(x + self.dense(context))


class _Layer(nn.Module):
    def __init__(self, cfg: AlbertConfig) -> None:
        super().__init__()
        self.full_layer_layer_norm = nn.LayerNorm(cfg.hidden_size, eps=cfg.layer_norm_eps)
        self.attention = _Attention(cfg)
        self.ffn = nn.Linear(cfg.hidden_size, cfg.intermediate_size)
        self.ffn_output = nn.Linear(cfg.intermediate_size, cfg.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return self.full_layer_layer_norm(self.ffn_output(F.gelu(self.ffn(x), approximate="tanh")) + x)


class _LayerGroup(nn.Module):
    def __init__(self, cfg: AlbertConfig) -> None:
        super().__init__()
        self.albert_layers = nn.ModuleList([_Layer(cfg)])


class _Encoder(nn.Module):
    def __init__(self, cfg: AlbertConfig) -> None:
        super().__init__()
        self.repeats = cfg.num_hidden_layers
        self.embedding_hidden_mapping_in = nn.Linear(cfg.embedding_size, cfg.hidden_size)
        self.albert_layer_groups = nn.ModuleList([_LayerGroup(cfg)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding_hidden_mapping_in(x)
        layer = self.get_submodule("albert_layer_groups.0.albert_layers.0")
        for _ in range(self.repeats):
            x = layer(x)
        return x


class Albert(nn.Module):
    """ALBERT (Lan et al. 2019, arXiv:1909.11942): one layer's weights, applied `num_hidden_layers` times.

    `pooler` is in every checkpoint and in no computation of Kokoro; it is kept so that loading is strict.
    """

    def __init__(self, cfg: AlbertConfig, n_token: int) -> None:
        super().__init__()
        self.embeddings = _Embeddings(cfg, n_token)
        self.encoder = _Encoder(cfg)
        self.pooler = nn.Linear(cfg.hidden_size, cfg.hidden_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        """[1, tokens] int64 -> [1, tokens, hidden_size]."""
        return self.encoder(self.embeddings(input_ids))
