"""T3's sizes. The authors publish no config.json: a checkpoint's tensors say what they can. No torch here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from jtts_export.errors import CheckpointError

ENGLISH_VOCAB, MULTILINGUAL_VOCAB = 704, 2454
ALIGNMENT_HEADS = ((12, 15), (13, 11), (9, 2))  # the authors' alignment_stream_analyzer.py
HEAD_SIZE = 64  # as Llama_520M in the authors' llama_configs.py
_LAYER = re.compile(r"tfmr\.layers\.(\d+)\..+")


@dataclass(frozen=True)
class T3Config:
    """Everything that shapes the network or its inputs; the defaults are the official English model's.

    alignment_heads: (layer, head) of those whose attention follows the text.
    """

    text_vocab: int = ENGLISH_VOCAB
    speech_vocab: int = 8194
    hidden_size: int = 1024
    layers: int = 30
    heads: int = 16
    head_size: int = HEAD_SIZE
    ffn_size: int = 4096
    rms_eps: float = 1e-5
    rope_theta: float = 500_000.0
    rope_factor: float = 8.0
    rope_low_freq_factor: float = 1.0
    rope_high_freq_factor: float = 4.0
    rope_original_positions: int = 8192
    max_text_tokens: int = 2048
    max_speech_tokens: int = 4096
    start_text: int = 255
    stop_text: int = 0
    start_speech: int = 6561
    stop_speech: int = 6562
    speaker_size: int = 256
    queries: int = 32
    perceiver_heads: int = 4
    alignment_heads: tuple[tuple[int, int], ...] = ALIGNMENT_HEADS

    @property
    def is_multilingual(self) -> bool:
        """Whether the text begins with the tag of its language."""
        return self.text_vocab == MULTILINGUAL_VOCAB

    @property
    def exaggeration_token(self) -> int:
        """What stands for the emotion in a prompt of tokens, as the community's graphs have it."""
        return self.stop_speech + 1

    @property
    def positions(self) -> int:
        """The most that a prompt and its speech can take: voice, emotion, text, two starts, speech."""
        return 1 + self.queries + 1 + self.text_positions + 1 + self.speech_positions

    @property
    def text_positions(self) -> int:
        """Rows of the text position table."""
        return self.max_text_tokens + 2

    @property
    def speech_positions(self) -> int:
        """Rows of the speech position table."""
        return self.max_speech_tokens + 4

    @cached_property
    def inverse_frequencies(self) -> tuple[float, ...]:
        """Radians per position of each rotary pair, [head_size / 2], scaled as Llama 3.1's are."""
        plain = [self.rope_theta ** (-2 * i / self.head_size) for i in range(self.head_size // 2)]
        return tuple(self._scaled(frequency) for frequency in plain)

    def _scaled(self, frequency: float) -> float:
        turns = self.rope_original_positions * frequency / (2 * math.pi)
        low, high = self.rope_low_freq_factor, self.rope_high_freq_factor
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        return frequency * (kept + (1 - kept) / self.rope_factor)


class _Overrides(BaseModel):
    """What config.json may say that the tensors do not."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    num_attention_heads: PositiveInt | None = None
    perceiver_heads: PositiveInt = 4
    alignment_heads: tuple[tuple[NonNegativeInt, NonNegativeInt], ...] | None = None
    start_text: NonNegativeInt = 255
    stop_text: NonNegativeInt = 0
    start_speech: NonNegativeInt = 6561
    stop_speech: NonNegativeInt = 6562


def config_of(
    shapes: Mapping[str, Sequence[int]], overrides: Mapping[str, object], file: str = "the checkpoint"
) -> T3Config:
    """The configuration that tensors of these shapes belong to. `overrides`: config.json's fields, if there is one.

    Raises CheckpointError naming the tensor, with `file` before it, or the field of config.json.
    """
    given = _validated(overrides)

    def axis(key: str, index: int, axes: int = 2) -> int:
        if key not in shapes:
            raise CheckpointError(f"{file}: missing key {key}")
        if len(shapes[key]) != axes or 0 in shapes[key]:
            raise CheckpointError(f"{file}: {key} has shape {list(shapes[key])}, expected {axes} axes")
        return int(shapes[key][index])

    layers = len({match[1] for match in map(_LAYER.fullmatch, shapes) if match})
    if not layers:
        raise CheckpointError(f"{file} holds no T3 of Llama layers: missing tfmr.layers.0")
    hidden = axis("speech_emb.weight", 1)
    heads = given.num_attention_heads or max(hidden // HEAD_SIZE, 1)
    head_size, uneven = divmod(hidden, heads)
    if uneven or head_size % 2:
        raise CheckpointError(
            f"{file}: hidden size {hidden} does not divide into {heads} attention heads of even size"
        )
    if hidden % given.perceiver_heads:
        raise CheckpointError(
            f"{file}: hidden size {hidden} does not divide into {given.perceiver_heads} perceiver_heads"
        )
    config = T3Config(
        text_vocab=axis("text_emb.weight", 0),
        speech_vocab=axis("speech_emb.weight", 0),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        head_size=head_size,
        ffn_size=axis("tfmr.layers.0.mlp.gate_proj.weight", 0),
        max_text_tokens=axis("text_pos_emb.emb.weight", 0) - 2,
        max_speech_tokens=axis("speech_pos_emb.emb.weight", 0) - 4,
        speaker_size=axis("cond_enc.spkr_enc.weight", 1),
        queries=axis("cond_enc.perceiver.pre_attention_query", 1, 3),
        alignment_heads=_alignment_heads(given.alignment_heads, layers, heads),
        **given.model_dump(exclude={"num_attention_heads", "alignment_heads"}),
    )
    _check_tokens(config, file)
    return config


def _validated(overrides: Mapping[str, object]) -> _Overrides:
    try:
        return _Overrides.model_validate(dict(overrides))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"config.json: {where}: {first['msg']}") from error


def _alignment_heads(
    given: tuple[tuple[int, int], ...] | None, layers: int, heads: int
) -> tuple[tuple[int, int], ...]:
    """Those given, which must exist, or else those of the authors that do."""
    if given is None:
        return tuple((layer, head) for layer, head in ALIGNMENT_HEADS if layer < layers and head < heads)
    for layer, head in given:
        if layer >= layers or head >= heads:
            raise CheckpointError(
                f"config.json: alignment_heads: no head {head} in layer {layer} of {layers} layers of {heads} heads"
            )
    return given


def _check_tokens(config: T3Config, file: str) -> None:
    values = asdict(config)
    for kind in ("text", "speech"):
        size = values[f"{kind}_vocab"]
        for name in (f"start_{kind}", f"stop_{kind}"):
            if values[name] >= size:
                raise CheckpointError(
                    f"{file}: {name} is {values[name]}, but the {kind} vocabulary has {size} tokens"
                )
