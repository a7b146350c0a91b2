"""The authors' files -> transformers' SpeechT5ForTextToSpeech and SpeechT5HifiGan, strictly.

Layout: config.json, weights as save_pretrained writes them, spm_char.model; the vocoder's config.json and
weights (microsoft/speecht5_hifigan) in a folder of their own; x-vectors of speakers. transformers' own loader
fills what is missing with random numbers, and only warns; this one names it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import SpeechT5Config, SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5HifiGanConfig

from jtts_export.errors import CheckpointError, first_line
from jtts_export.models import MODELS
from jtts_export.models.exact import weight_norm
from jtts_export.models.source import Source
from jtts_export.models.tensors import check_shape, check_state, float32, torch_load

from .positions import settle
from .random import random_checkpoint
from .tokenizer import character_tokenizer, read_tokenizer

# In some files, and in no computation: sines that older transformers saved, and a counter of training.
_DERIVED = re.compile(r"speecht5\.(en|de)coder\.prenet\.encode_positions\.pe|.+\.num_batches_tracked")
_MAGNITUDE = {
    "weight_g": "weight_v",
    "parametrizations.weight.original0": "parametrizations.weight.original1",
}
_SIZES = (
    *("vocab_size", "hidden_size", "max_text_positions", "max_speech_positions", "encoder_max_relative_position"),
    *("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
    *("decoder_layers", "decoder_attention_heads", "decoder_ffn_dim"),
    *("num_mel_bins", "reduction_factor", "speaker_embedding_dim"),
    *("speech_decoder_prenet_layers", "speech_decoder_prenet_units"),
    *("speech_decoder_postnet_layers", "speech_decoder_postnet_units", "speech_decoder_postnet_kernel"),
)
_ARCTIC = re.compile(r"(?:.*/)?cmu_us_([^_/]+)_[^/]*\.npy")
_ARCTIC_UTTERANCE = "arctic_a0508"  # of which published examples take the x-vector
_MAX_XVECTOR_BYTES = 1 << 20  # a few thousand in truth; a zip file can unpack to any number
_Config = TypeVar("_Config", SpeechT5Config, SpeechT5HifiGanConfig)
_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Checkpoint:
    """config: raw config.json of "model" and "vocoder"; both networks float32 in eval mode.

    tokenizer: content of a tokenizer.json; speakers: {name: float32 [speaker_embedding_dim]}.
    """

    config: dict
    model: SpeechT5ForTextToSpeech
    vocoder: SpeechT5HifiGan
    tokenizer: dict
    speakers: dict[str, np.ndarray]


def load(source: Source) -> Checkpoint:
    """Everything a checkpoint holds. Raises CheckpointError naming the file or the key."""
    if source.seed is not None:
        config, model, vocoder, speakers = random_checkpoint(source.seed)
        return Checkpoint(config, model, vocoder, character_tokenizer(model.config.vocab_size), speakers)
    raw, cfg = _model_config(source)
    if not any(name.startswith("vocoder/") for name in source.files):
        folders = " or ".join(f"{f}/" for c in MODELS["speecht5"].companions for f in c.folders)
        raise CheckpointError(
            f"no vocoder in {source.source}: looked for {folders} inside and beside it; "
            "it is published as microsoft/speecht5_hifigan"
        )
    raw_vocoder, vocoder_cfg = _vocoder_config(source, cfg)
    model = _build(SpeechT5ForTextToSpeech, cfg, "config.json")
    settle(model)
    _assign(model, *_read_weights(source, ""))
    vocoder = _build(SpeechT5HifiGan, vocoder_cfg, "vocoder/config.json")
    found, file = _read_weights(source, "vocoder/")
    _assign(vocoder, _fold_weight_norm(found, file), file)
    if vocoder_cfg.normalize_before and not vocoder.scale.all():
        raise CheckpointError(f"{file}: scale holds zeros")
    tokenizer = read_tokenizer(source, cfg.vocab_size)
    speakers = _read_speakers(source, cfg.speaker_embedding_dim)
    return Checkpoint({"model": raw, "vocoder": raw_vocoder}, model, vocoder, tokenizer, speakers)


def _model_config(source: Source) -> tuple[dict, SpeechT5Config]:
    name = "config.json"
    raw = _read_json(source, name)
    _check_architecture(raw, name, {"speecht5"}, "SpeechT5ForTextToSpeech")
    cfg = _config(SpeechT5Config, raw, name)
    _check(name, {size: (getattr(cfg, size), getattr(cfg, size) > 0) for size in _SIZES})
    dropout, kernel = cfg.speech_decoder_prenet_dropout, cfg.speech_decoder_postnet_kernel
    rules = {
        "hidden_act": (cfg.hidden_act, cfg.hidden_act == "gelu"),
        "pad_token_id": (cfg.pad_token_id, cfg.pad_token_id is not None),
        "speech_decoder_prenet_dropout": (dropout, 0 <= dropout < 1),
        "speech_decoder_postnet_kernel": (kernel, kernel % 2 == 1),
    }
    _check(name, rules)
    return raw, cfg


def _vocoder_config(source: Source, model: SpeechT5Config) -> tuple[dict, SpeechT5HifiGanConfig]:
    name = "vocoder/config.json"
    raw = _read_json(source, name)
    _check_architecture(raw, name, {"hifigan", "speecht5_hifigan"}, "SpeechT5HifiGan")
    cfg = _config(SpeechT5HifiGanConfig, raw, name)
    if cfg.model_in_dim != model.num_mel_bins:
        raise CheckpointError(
            f"{name}: model_in_dim is {cfg.model_in_dim}, but the model's num_mel_bins is {model.num_mel_bins}"
        )
    rates, kernels = cfg.upsample_rates, cfg.upsample_kernel_sizes
    blocks, dilations = cfg.resblock_kernel_sizes, cfg.resblock_dilation_sizes
    rules = {
        "sampling_rate": (cfg.sampling_rate, cfg.sampling_rate > 0),
        "upsample_rates": (rates, len(rates) > 0 and min(rates) > 0),
        "upsample_kernel_sizes": (
            kernels,
            # of any others a frame gives no whole number of samples
            len(kernels) == len(rates)
            and all(k >= r and (k - r) % 2 == 0 for k, r in zip(kernels, rates, strict=True)),
        ),
        "resblock_kernel_sizes": (blocks, len(blocks) > 0 and all(k > 0 and k % 2 == 1 for k in blocks)),
        "resblock_dilation_sizes": (dilations, len(dilations) == len(blocks)),
    }
    _check(name, rules)
    return raw, cfg


def _check(file: str, rules: Mapping[str, tuple[object, bool]]) -> None:
    for field, (value, holds) in rules.items():
        if not holds:
            raise CheckpointError(f"{file}: {field} {value!r} is not supported")


def _read_json(source: Source, name: str) -> dict[str, Any]:
    path = source.files.get(name)
    if path is None:
        raise CheckpointError(f"no {name} in {source.source}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{name} cannot be read: {first_line(error)}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{name} is not a JSON object")
    return raw


def _check_architecture(raw: dict[str, Any], name: str, types: set[str], architecture: str) -> None:
    kind, classes = raw.get("model_type"), raw.get("architectures") or [architecture]
    if not isinstance(kind, str) or kind not in types or classes != [architecture]:
        raise CheckpointError(
            f"{name} is not {architecture}'s: its model_type is {kind!r}, its architectures {classes!r}"
        )


def _config(kind: type[_Config], raw: dict[str, Any], name: str) -> _Config:
    """Only what shapes the network: how others stored, ran or quantized it decides nothing here."""
    try:
        return kind(**{key: value for key, value in raw.items() if key in kind.__annotations__})
    except Exception as error:  # those of huggingface_hub's strict dataclasses; their cause names the field
        raise CheckpointError(f"{name}: {first_line(error.__cause__ or error)}") from error


def _build(kind: Callable[[Any], _Module], cfg: object, name: str) -> _Module:
    try:
        with torch.random.fork_rng(devices=[]):
            return kind(cfg).eval()
    except Exception as error:  # whatever a size that does not fit the others raises
        raise CheckpointError(f"{name} describes no network: {first_line(error)}") from error


def _read_weights(source: Source, folder: str) -> tuple[dict[str, Tensor], str]:
    """Float32 tensors from the first of the forms that save_pretrained writes, and the file to name in errors."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        name = folder + name
        if name in source.files:
            return _read_tensors(source.files[name], name), name
        if f"{name}.index.json" in source.files:
            return _read_shards(source, folder, f"{name}.index.json"), f"{name}.index.json"
    raise CheckpointError(f"no {folder}model.safetensors and no {folder}pytorch_model.bin in {source.source}")


def _read_shards(source: Source, folder: str, index: str) -> dict[str, Tensor]:
    places = _read_json(source, index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise CheckpointError(f"{index} has no weight_map of file names")
    found: dict[str, Tensor] = {}
    for shard in sorted(set(places.values())):
        name = folder + shard
        if name not in source.files:
            raise CheckpointError(f"{index} names {shard}, which is not there")
        tensors = _read_tensors(source.files[name], name)
        if strays := [key for key in tensors if places.get(key) != shard]:
            raise CheckpointError(f"{name}: {strays[0]} is not what {index} says it holds")
        found |= tensors
    return found


def _read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    if name.endswith(".safetensors"):
        try:
            loaded: object = load_file(path)
        except Exception as error:
            raise CheckpointError(f"{name} is damaged or not a safetensors file: {first_line(error)}") from error
    else:
        loaded = torch_load(path, name)
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{name} is not a state dict")
    return {str(k): float32(v, f"{name}: {k}") for k, v in loaded.items() if not _DERIVED.fullmatch(str(k))}


def _fold_weight_norm(found: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    """weight = g * v / |v|, norms over all axes but the first; halves of a pair are left, to be unexpected."""
    folded = dict(found)
    for magnitude, direction in _MAGNITUDE.items():
        for key in [key for key in found if key.endswith(f".{magnitude}")]:
            module = key.removesuffix(f".{magnitude}")
            g, v = found[key], found.get(f"{module}.{direction}")
            if v is None:
                continue
            check_shape(g, [*v.shape[:1], *[1] * (v.dim() - 1)], f"{file}: {key}")
            if f"{module}.weight" in folded:
                raise CheckpointError(f"{file}: {module} has its weight in two forms")
            weight = weight_norm(v, g)
            if not torch.isfinite(weight).all():
                raise CheckpointError(f"{file}: {module}.{direction} has a direction of zero length")
            del folded[key], folded[f"{module}.{direction}"]
            folded[f"{module}.weight"] = weight
    return folded


def _assign(model: nn.Module, found: dict[str, Tensor], file: str) -> None:
    """Copy checkpoint tensors into the model; every key and shape must match."""
    wanted = {key: value for key, value in model.state_dict().items() if not _DERIVED.fullmatch(key)}
    check_state(found, wanted, file)
    model.load_state_dict(found, strict=False)


def _read_speakers(source: Source, width: int) -> dict[str, np.ndarray]:
    speakers: dict[str, np.ndarray] = {}
    for file, path in source.files.items():
        if not _is_speaker(file):
            continue
        found = _read_zip(path, file) if path.suffix == ".zip" else [(path.stem, file, _read_xvector(path, file))]
        for name, what, value in found:
            if name in speakers:
                raise CheckpointError(f"{what}: there is another x-vector of the speaker '{name}'")
            speakers[name] = _check_xvector(value, width, what)
    if not speakers:
        raise CheckpointError(
            f"no speaker in {source.source}: put x-vectors of {width} floats there, as speakers/NAME.npy, .bin or .pt"
        )
    return speakers


def _is_speaker(name: str) -> bool:
    """Whether locate took the file for a speaker's: all but weights and vocoder have such a suffix."""
    if name.startswith(("vocoder/", "pytorch_model")):
        return False
    return name.endswith((".npy", ".bin", ".pt", ".zip"))


def _read_xvector(path: Path, name: str) -> np.ndarray:
    if path.suffix == ".pt":
        tensor = torch_load(path, name)
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{name} is not a tensor")
        return float32(tensor, name).numpy()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {name}: {error.strerror}") from error
    if path.suffix == ".npy":
        return _read_npy(data, name)
    if len(data) % 4:
        raise CheckpointError(f"{name} is truncated: {len(data)} bytes are no whole floats")
    return np.frombuffer(data, dtype="<f4")


def _read_npy(data: bytes, name: str) -> np.ndarray:
    try:
        return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # there is no telling what damaged bytes raise
        raise CheckpointError(f"{name} is damaged or not a .npy file of numbers: {first_line(error)}") from error


def _read_zip(path: Path, file: str) -> Iterable[tuple[str, str, np.ndarray]]:
    """One utterance's x-vector for every speaker of CMU ARCTIC."""
    chosen: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist(), key=lambda name: (_ARCTIC_UTTERANCE not in name, name))
            for name in names:
                if match := _ARCTIC.fullmatch(name):
                    chosen.setdefault(match[1], name)
            contents = {who: archive.open(name).read(_MAX_XVECTOR_BYTES) for who, name in sorted(chosen.items())}
    except Exception as error:  # zipfile raises what its decompressors raise
        raise CheckpointError(f"{file} is damaged or not a zip file: {first_line(error)}") from error
    if not chosen:
        raise CheckpointError(f"{file} holds no x-vector of CMU ARCTIC, as cmu_us_slt_arctic-wav-arctic_a0508.npy")
    for speaker, data in contents.items():
        what = f"{file}: {chosen[speaker]}"
        yield speaker, what, _read_npy(data, what)


def _check_xvector(value: np.ndarray, width: int, what: str) -> np.ndarray:
    if value.dtype.kind != "f":
        raise CheckpointError(f"{what} is {value.dtype}, not floating point")
    if value.shape not in ((width,), (1, width)):
        raise CheckpointError(f"{what} has shape {list(value.shape)}, expected [{width}]")
    value = np.array(value, dtype=np.float32).reshape(width)
    if not np.isfinite(value).all():
        raise CheckpointError(f"{what} holds NaN or infinite values")
    if not value.any():
        raise CheckpointError(f"{what} holds only zeros")
    return value
