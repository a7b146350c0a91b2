"""The authors' files -> reference, strictly: nothing missing, nothing extra, nothing of another shape.

Layout (hexgrad/Kokoro-82M): config.json, one .pth holding a dict of five state dicts, voices/*.pt. In place of the
.pth, a .safetensors with the same keys behind their part's name and a dot, in any floating point. The authors' own
loader falls back to strict=False, so that a mismatch passes in silence; this one names it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from jtts_export.errors import CheckpointError, first_line
from jtts_export.models.exact import weight_norm
from jtts_export.models.source import Source
from jtts_export.models.tensors import check_shape, check_state, differences, float32, safetensors_load, torch_load

from .adain import AdaIN1d
from .config import KokoroConfig
from .model import Kokoro
from .random import official_config, random_model, random_voices, weight_normed

PARTS = ("bert", "bert_encoder", "predictor", "text_encoder", "decoder")
# In some files, and in no computation: position ids of older transformers, the complex-free STFT's tables.
_DERIVED = re.compile(r"bert\.embeddings\.(position_ids|token_type_ids)|decoder\.generator\.stft\..+")
_MAGNITUDE = {
    "weight_g": "weight_v",
    "parametrizations.weight.original0": "parametrizations.weight.original1",
}


def load(source: Source) -> tuple[dict, Kokoro, dict[str, np.ndarray]]:
    """The raw config, the reference in eval mode, and voices {name: float32 [rows, 1, 2 * style_dim]}.

    Raises CheckpointError naming the file or the key.
    """
    if source.seed is not None:
        raw = official_config()
        cfg = KokoroConfig.model_validate(raw)
        voices = random_voices(source.seed, cfg)
        return raw, random_model(source.seed, cfg), {name: v.numpy() for name, v in voices.items()}
    raw, cfg = _read_config(source)
    model = Kokoro(cfg).eval()
    weights = _only(source, ".pth", ".safetensors")
    _assign(model, _read_tensors(source.files[weights], weights), weights)
    return raw, model, _read_voices(source, cfg)


def _read_config(source: Source) -> tuple[dict, KokoroConfig]:
    path = source.files.get("config.json")
    if path is None:
        raise CheckpointError(f"no config.json in {source.source}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return raw, KokoroConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "config"
        raise CheckpointError(f"config.json is not Kokoro's: {where}: {first['msg']}") from error
    except (ValueError, OSError) as error:
        raise CheckpointError(f"config.json cannot be read: {first_line(error)}") from error


def _only(source: Source, *suffixes: str) -> str:
    names = [n for n in source.files if n.endswith(suffixes)]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise CheckpointError(f"{source.source} must hold exactly one {' or '.join(suffixes)} file; found: {found}")
    return names[0]


def _read_tensors(path: Path, file: str) -> dict[str, Tensor]:
    """{part.key: tensor}"""
    if path.suffix == ".safetensors":
        return safetensors_load(path, file)
    return _flatten(torch_load(path, file), file)


def _flatten(loaded: object, file: str) -> dict[str, Tensor]:
    """{part: {key: tensor}}, keys with or without `module.` -> {part.key: tensor}."""
    if not isinstance(loaded, dict) or not all(isinstance(v, dict) for v in loaded.values()):
        raise CheckpointError(f"{file} is not Kokoro's: expected a dict of state dicts {', '.join(PARTS)}")
    missing = [p for p in PARTS if p not in loaded]
    extra = [str(p) for p in loaded if p not in PARTS]
    if missing or extra:
        raise CheckpointError(f"{file}: {differences(missing, extra, 'part')}")
    flat: dict[str, Tensor] = {}
    for part, state in loaded.items():
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                raise CheckpointError(f"{file}: {part}.{key} is not a tensor")
            name = f"{part}.{key.removeprefix('module.')}"
            if name in flat:
                raise CheckpointError(f"{file}: {name} is there twice, with and without 'module.'")
            flat[name] = value
    return flat


def _assign(model: Kokoro, found: dict[str, Tensor], file: str) -> None:
    """Copy checkpoint tensors into the model; every key and shape must match."""
    found = {k: float32(v, f"{file}: {k}") for k, v in found.items() if not _DERIVED.fullmatch(k)}
    folded = _fold_affine(_fold_weight_norm(found, model, file), model, file)
    wanted = model.state_dict()
    check_state(folded, wanted, file)
    model.load_state_dict(folded)


def _fold_weight_norm(found: dict[str, Tensor], model: Kokoro, file: str) -> dict[str, Tensor]:
    """weight = g * v / |v|, norms over all axes but the first; either naming of g and v, or a plain weight."""
    folded = dict(found)
    for module in sorted(weight_normed(model)):
        shape = model.get_parameter(f"{module}.weight").shape
        for magnitude, direction in _MAGNITUDE.items():
            g, v = folded.pop(f"{module}.{magnitude}", None), folded.pop(f"{module}.{direction}", None)
            if g is None and v is None:
                continue
            if g is None or v is None:
                absent = magnitude if g is None else direction
                raise CheckpointError(f"{file}: missing key {module}.{absent}")
            check_shape(g, [shape[0], *[1] * (len(shape) - 1)], f"{file}: {module}.{magnitude}")
            check_shape(v, shape, f"{file}: {module}.{direction}")
            if f"{module}.weight" in folded:
                raise CheckpointError(f"{file}: {module} has its weight in two forms")
            weight = weight_norm(v, g)
            if not torch.isfinite(weight).all():
                raise CheckpointError(f"{file}: {module}.{direction} has a direction of zero length")
            folded[f"{module}.weight"] = weight
    return folded


def _fold_affine(found: dict[str, Tensor], model: Kokoro, file: str) -> dict[str, Tensor]:
    """Instance norms with parameters of their own: (1 + gamma) (w x + b) + beta, as one linear map of style."""
    folded = dict(found)
    for name, module in model.named_modules():
        keys = [f"{name}.{k}" for k in ("norm.weight", "norm.bias", "fc.weight", "fc.bias")]
        if not isinstance(module, AdaIN1d) or not all(k in folded for k in keys):
            continue  # a key without its companions is reported as missing or unexpected
        shapes = ([module.channels], [module.channels], module.fc.weight.shape, module.fc.bias.shape)
        for key, shape in zip(keys, shapes, strict=True):
            check_shape(folded[key], shape, f"{file}: {key}")
        w, b, matrix, offset = (folded[k] for k in keys)
        del folded[keys[0]], folded[keys[1]]
        (gamma, beta), (gamma0, beta0) = matrix.chunk(2), offset.chunk(2)
        folded[keys[2]] = torch.cat([w[:, None] * gamma, beta + b[:, None] * gamma])
        folded[keys[3]] = torch.cat([w * (1 + gamma0) - 1, beta0 + b * (1 + gamma0)])
    return folded


def _read_voices(source: Source, cfg: KokoroConfig) -> dict[str, np.ndarray]:
    voices: dict[str, np.ndarray] = {}
    for name, path in source.files.items():
        if not name.startswith("voices/"):
            continue
        stem = Path(name).stem
        if stem in voices:
            raise CheckpointError(f"two files for the voice '{stem}'; keep one of .pt and .bin")
        voices[stem] = _read_voice(path, name, cfg)
    if not voices:
        raise CheckpointError(f"no voice in {source.source}: expected voices/*.pt or voices/*.bin")
    return voices


def _read_voice(path: Path, name: str, cfg: KokoroConfig) -> np.ndarray:
    """A style per number of tokens, float32 [rows, 1, 2 * style_dim], from .pt or raw little-endian .bin."""
    width = 2 * cfg.style_dim
    if path.suffix == ".pt":
        tensor = torch_load(path, name)
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{name} is not a tensor")
        voice = float32(tensor, name).numpy()
    else:
        data = path.read_bytes()
        if not data or len(data) % (4 * width):
            raise CheckpointError(f"{name} is truncated: {len(data)} bytes are no whole rows of {width} floats")
        voice = np.frombuffer(data, dtype="<f4").reshape(-1, 1, width)
    if voice.shape != (cfg.max_tokens, 1, width):
        expected = [cfg.max_tokens, 1, width]
        raise CheckpointError(f"{name} has shape {list(voice.shape)}, expected {expected}")
    if not np.isfinite(voice).all():
        raise CheckpointError(f"{name} holds NaN or infinite values")
    return np.ascontiguousarray(voice, dtype=np.float32)
