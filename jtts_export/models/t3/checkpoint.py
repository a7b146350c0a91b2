"""The authors' files -> T3, strictly: nothing missing, nothing extra, nothing of another shape.

Layout (ResembleAI/chatterbox): t3_cfg.safetensors or a multilingual t3_*.safetensors, the tokenizer's .json,
conds.pt with a voice; no config.json. Weights stay in their file where they are float32 already: no copy is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch
from tokenizers import Tokenizer
from torch import Tensor

from jtts_export.errors import CheckpointError, first_line
from jtts_export.models.source import Source
from jtts_export.models.tensors import check_state, float32, safetensors_load, torch_load
from jtts_export.models.tokenizer_json import check_ids, read_tokenizer_json

from .conditioning import Voice, read_voice
from .config import ENGLISH_VOCAB, T3Config
from .model import T3
from .random import random_checkpoint
from .sizes import config_of

ENGLISH_TOKENIZERS = ("tokenizer.json",)
# Of two generations of the multilingual model, whose repository holds both and the English one's too.
OTHER_TOKENIZERS = ("grapheme_mtl_merged_expanded_v1.json", "mtl_tokenizer.json", "tokenizer.json")
DEFAULT_VOICE = "default"  # the name of the voice in conds.pt


@dataclass(frozen=True)
class Checkpoint:
    """The model float32 in eval mode; tokenizer: content of a tokenizer.json; voices by name."""

    config: T3Config
    model: T3
    tokenizer: dict
    voices: dict[str, Voice]


def load(source: Source) -> Checkpoint:
    """Everything a checkpoint holds. Raises CheckpointError naming the file or the key."""
    if source.seed is not None:
        return Checkpoint(*random_checkpoint(source.seed))
    file = _weights_file(source)
    found = _read_tensors(source, file)
    config = config_of({key: value.shape for key, value in found.items()}, _overrides(source), file)
    tokenizer = _read_tokenizer(source, config)
    voices = _read_voices(source, config)
    return Checkpoint(config, _build(config, found, file), tokenizer, voices)


def _weights_file(source: Source) -> str:
    """The only one: of several, locate() has chosen."""
    names = [name for name in source.files if name.startswith("t3") and name.endswith((".safetensors", ".pt"))]
    if len(names) != 1:
        raise CheckpointError(f"{source.source} must hold one T3; found: {', '.join(names) or 'none'}")
    return names[0]


def _read_tensors(source: Source, file: str) -> dict[str, Tensor]:
    """Of any dtype, still in the file where its format allows."""
    path = source.files[file]
    if file.endswith(".safetensors"):
        return safetensors_load(path, file)
    loaded = torch_load(path, file, mmap=True)
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), list) and len(loaded["model"]) == 1:
        loaded = loaded["model"][0]  # as the authors' training saves it
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{file} is not a state dict")
    return {str(key): value for key, value in loaded.items()}


def _overrides(source: Source) -> Mapping[str, object]:
    path = source.files.get("config.json")
    if path is None:
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"config.json cannot be read: {first_line(error)}") from error
    if not isinstance(raw, dict):
        raise CheckpointError("config.json is not a JSON object")
    return raw


def _build(config: T3Config, found: dict[str, Tensor], file: str) -> T3:
    """The network around the tensors themselves. Empties `found`, so that conversion holds one of them twice."""
    with torch.device("meta"):
        model = T3(config)
    wanted = model.state_dict()
    check_state(found, wanted, file)
    state = {key: float32(found.pop(key), f"{file}: {key}") for key in wanted}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _read_tokenizer(source: Source, config: T3Config) -> dict:
    """The first there of those of such a model, or of several the first whose tokens the model has."""
    known = ENGLISH_TOKENIZERS if config.text_vocab == ENGLISH_VOCAB else OTHER_TOKENIZERS
    made = {name: read_tokenizer_json(source.files[name], name) for name in known if name in source.files}
    if not made:
        raise CheckpointError(f"no {' and no '.join(known)} in {source.source}")
    fitting = [name for name, tokenizer in made.items() if _largest_id(tokenizer) < config.text_vocab]
    name = (fitting or list(made))[0]
    check_ids(made[name], name, config.text_vocab, "the text vocabulary's size")
    for token, expected in (("[START]", config.start_text), ("[STOP]", config.stop_text), ("[SPACE]", None)):
        index = made[name].token_to_id(token)
        if index is None:
            raise CheckpointError(f"{name} has no token {token}")
        if expected is not None and index != expected:
            raise CheckpointError(f"{name}: {token} has id {index}, but the model's is {expected}")
    return json.loads(made[name].to_str())


def _largest_id(tokenizer: Tokenizer) -> int:
    return max(tokenizer.get_vocab().values(), default=-1)


def _read_voices(source: Source, config: T3Config) -> dict[str, Voice]:
    voices: dict[str, Voice] = {}
    for file, path in source.files.items():
        name = _voice_name(PurePosixPath(file))
        if name is None:
            continue
        if name in voices:
            raise CheckpointError(f"{file}: there is another file of the voice '{name}'")
        voices[name] = read_voice(path, file, config)
    if not voices:
        raise CheckpointError(
            f"no voice in {source.source}: looked for conds.pt, conds.safetensors, "
            "voices/*.pt and voices/*.safetensors"
        )
    return voices


def _voice_name(file: PurePosixPath) -> str | None:
    if file.suffix not in (".pt", ".safetensors"):
        return None
    if file.parent.name == "voices":
        return file.stem
    return DEFAULT_VOICE if file.stem == "conds" else None
