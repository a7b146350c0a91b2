"""What a checkpoint's tensors, and a config.json where there is one, say of its sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from jtts_export.errors import CheckpointError

from .config import ALIGNMENT_HEADS, HEAD_SIZE, T3Config

_LAYER = re.compile(r"tfmr\.layers\.(\d+)\..+")


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
