"""Voices in the authors' files, numpy in and out. Only .pt files need torch, and import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jtts_export.errors import CheckpointError, first_line

from .config import T3Config

EXAGGERATION = 0.5  # where a file has none, as the authors' T3Cond
_FIELDS = ("speaker_emb", "cond_prompt_speech_tokens", "emotion_adv")


@dataclass(frozen=True)
class Voice:
    """speaker_emb: float32 [1, speaker_size]; cond_prompt_speech_tokens: int64 [1, n], n = 0 of none.

    exaggeration: float32 [1], the file's emotion_adv.
    """

    speaker_emb: np.ndarray
    cond_prompt_speech_tokens: np.ndarray
    exaggeration: np.ndarray


def read_voice(path: Path, name: str, config: T3Config) -> Voice:
    """The voice in a .pt file of the authors' or a .safetensors file; `name` is what errors call the file.

    Raises CheckpointError naming the file, what was found and what was expected.
    """
    found = _read_safetensors(path, name) if path.suffix == ".safetensors" else _read_pt(path, name)
    if "speaker_emb" not in found:
        raise CheckpointError(f"{name} is not a voice: it has no speaker_emb")
    speaker = _floats(found["speaker_emb"], f"{name}: speaker_emb")
    tokens = found.get("cond_prompt_speech_tokens", np.zeros((1, 0), np.int64))
    if not np.issubdtype(tokens.dtype, np.integer):
        raise CheckpointError(f"{name}: cond_prompt_speech_tokens is {tokens.dtype}, expected integers")
    emotion = _floats(found.get("emotion_adv", np.array(EXAGGERATION)), f"{name}: emotion_adv")
    if emotion.size != 1:
        raise CheckpointError(f"{name}: emotion_adv has shape {list(emotion.shape)}, expected one number")
    voice = Voice(np.atleast_2d(speaker), np.atleast_2d(tokens).astype(np.int64), emotion.reshape(1))
    check_voice(voice, name, config)
    return voice


def check_voice(voice: Voice, name: str, config: T3Config) -> None:
    """Raises CheckpointError, beginning with `name`, where the model cannot take the voice."""
    tokens = voice.cond_prompt_speech_tokens
    for field, value, expected in (
        ("speaker_emb", voice.speaker_emb, (1, config.speaker_size)),
        ("cond_prompt_speech_tokens", tokens, (1, tokens.shape[-1])),
        ("emotion_adv", voice.exaggeration, (1,)),
    ):
        if value.shape != expected:
            raise CheckpointError(f"{name}: {field} has shape {list(value.shape)}, expected {list(expected)}")
    for field, value in (("speaker_emb", voice.speaker_emb), ("emotion_adv", voice.exaggeration)):
        if not np.isfinite(value).all():
            raise CheckpointError(f"{name}: {field} holds NaN or infinite values")
    if tokens.size > config.speech_positions:
        raise CheckpointError(
            f"{name}: cond_prompt_speech_tokens has {tokens.size} tokens, expected at most {config.speech_positions}"
        )
    outside = tokens[(tokens < 0) | (tokens >= config.speech_vocab)]
    if outside.size:
        raise CheckpointError(
            f"{name}: cond_prompt_speech_tokens holds {outside[0]}, expected ids of 0..{config.speech_vocab - 1}"
        )


def _floats(value: np.ndarray, what: str) -> np.ndarray:
    if not np.issubdtype(value.dtype, np.floating):
        raise CheckpointError(f"{what} is {value.dtype}, expected floating point")
    return value.astype(np.float32)


def _read_safetensors(path: Path, name: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    try:
        loaded = load_file(path)
    except Exception as error:
        raise CheckpointError(f"{name} is damaged or not a safetensors file: {first_line(error)}") from error
    short = {key.removeprefix("t3."): value for key, value in loaded.items()}
    return {field: short[field] for field in _FIELDS if field in short}


def _read_pt(path: Path, name: str) -> dict[str, np.ndarray]:
    from torch import Tensor

    from jtts_export.models.tensors import torch_load

    loaded = torch_load(path, name)
    t3 = loaded.get("t3", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(t3, Mapping):
        raise CheckpointError(f"{name} is not a voice: expected a dict with 't3'")
    found: dict[str, np.ndarray] = {}
    for field in _FIELDS:
        value = t3.get(field)
        if isinstance(value, Tensor):
            wide = value.detach().cpu()
            found[field] = (wide.double() if wide.is_floating_point() else wide).numpy()
        elif isinstance(value, int | float) and field == "emotion_adv":
            found[field] = np.array(float(value))
        elif value is not None:
            raise CheckpointError(f"{name}: {field} is of type {type(value).__name__}, expected a tensor")
    return found
