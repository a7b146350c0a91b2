"""Kokoro's config.json, as the authors write it, validated."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

SAMPLE_RATE_HZ = 24_000


class AlbertConfig(BaseModel):
    """The `plbert` section: the fields of transformers' AlbertConfig that the authors set, and its defaults."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hidden_size: PositiveInt
    num_attention_heads: PositiveInt
    intermediate_size: PositiveInt
    max_position_embeddings: PositiveInt
    num_hidden_layers: PositiveInt
    embedding_size: PositiveInt = 128
    type_vocab_size: PositiveInt = 2
    num_hidden_groups: Literal[1] = 1
    inner_group_num: Literal[1] = 1
    hidden_act: Literal["gelu_new"] = "gelu_new"
    layer_norm_eps: float = 1e-12

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> Self:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError("plbert.hidden_size must be a multiple of plbert.num_attention_heads")
        return self


class ISTFTNetConfig(BaseModel):
    """The `istftnet` section: the generator."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    resblock_kernel_sizes: list[PositiveInt]
    resblock_dilation_sizes: list[list[PositiveInt]]
    upsample_rates: list[PositiveInt]
    upsample_kernel_sizes: list[PositiveInt]
    upsample_initial_channel: PositiveInt
    gen_istft_n_fft: PositiveInt
    gen_istft_hop_size: PositiveInt

    @model_validator(mode="after")
    def _lists_agree(self) -> Self:
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise ValueError("istftnet.resblock_kernel_sizes and resblock_dilation_sizes differ in length")
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise ValueError("istftnet.upsample_rates and upsample_kernel_sizes differ in length")
        return self


class KokoroConfig(BaseModel):
    """Everything that shapes the network.

    `decoder_dim` and `asr_res_dim` are widths that the authors' code hard-codes (1024 and 64); as fields
    they let a small configuration run the same code.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    hidden_dim: PositiveInt
    style_dim: PositiveInt
    n_layer: PositiveInt
    n_token: PositiveInt
    max_dur: PositiveInt
    text_encoder_kernel_size: PositiveInt
    plbert: AlbertConfig
    istftnet: ISTFTNetConfig
    vocab: dict[str, int] = Field(min_length=1)
    decoder_dim: PositiveInt = 1024
    asr_res_dim: PositiveInt = 64

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.hidden_dim % 2:
            raise ValueError("hidden_dim must be even: its LSTMs are bidirectional")
        outside = [c for c, i in self.vocab.items() if not 0 < i < self.n_token]
        if outside:
            raise ValueError(f"vocab ids must lie in 1..{self.n_token - 1} (n_token): {outside[:5]}")
        return self

    @cached_property
    def samples_per_f0(self) -> int:
        """Audio samples per F0 value: the generator's upsampling times the iSTFT hop. Official: 300."""
        return math.prod(self.istftnet.upsample_rates) * self.istftnet.gen_istft_hop_size

    @property
    def max_tokens(self) -> int:
        """Most phoneme tokens in one pass: the context less the two boundary tokens. Official: 510."""
        return self.plbert.max_position_embeddings - 2
