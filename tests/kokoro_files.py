"""Small Kokoro checkpoints on disk, in every form that the authors' files have had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from jtts_export.models.kokoro.adain import AdaIN1d
from jtts_export.models.kokoro.checkpoint import PARTS
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.model import Kokoro
from jtts_export.models.kokoro.random import official_config, random_model, random_voices, weight_normed

WEIGHTS = "kokoro-v1_0.pth"
PATTERNS = ("config.json", "*.pth", "voices/*.pt", "voices/*.bin")

Form = Literal["weight_g", "parametrizations", "plain"]
FORMS: tuple[Form, ...] = ("weight_g", "parametrizations", "plain")
Affine = Literal["none", "identity", "learned"]

_MAGNITUDE_DIRECTION = {
    "weight_g": ("weight_g", "weight_v"),  # torch.nn.utils.weight_norm, the released checkpoint
    "parametrizations": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
}


def tiny_config() -> dict[str, Any]:
    """The official config.json (its vocabulary, its rates) with small widths: a second of audio in milliseconds."""
    raw = official_config()
    raw |= {"hidden_dim": 32, "style_dim": 16, "n_layer": 1, "decoder_dim": 64, "asr_res_dim": 8}
    raw["istftnet"] |= {"upsample_initial_channel": 32}
    raw["plbert"] |= {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "embedding_size": 16,
        "max_position_embeddings": 64,
    }
    return raw


def tiny_model(seed: int) -> Kokoro:
    return random_model(seed, KokoroConfig.model_validate(tiny_config()))


def authors_state(
    model: Kokoro, form: Form = "weight_g", *, prefix: str = "", affine: Affine = "none"
) -> dict[str, dict[str, Tensor]]:
    """The authors' dict of five state dicts that holds the same function as `model`.

    `affine`: whether instance norms bring parameters of their own, as those of kokoro 0.9 do once it saves
    a model: ones and zeros, or values that `fc` undoes. `prefix` is `module.` where nn.DataParallel saved.
    """
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    if form != "plain":
        magnitude, direction = _MAGNITUDE_DIRECTION[form]
        for module in weight_normed(model):
            weight = state.pop(f"{module}.weight")
            norm = weight.norm(2, dim=tuple(range(1, weight.dim())), keepdim=True)
            state[f"{module}.{magnitude}"] = norm
            # A direction's own length means nothing; training leaves it anywhere.
            state[f"{module}.{direction}"] = weight * (0.5 + torch.rand(norm.shape, generator=generator))
    if affine != "none":
        for name, module in model.named_modules():
            if isinstance(module, AdaIN1d):
                _separate_affine(state, name, generator if affine == "learned" else None)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, value in state.items():
        part, rest = key.split(".", 1)
        parts[part][prefix + rest] = value
    return parts


def _separate_affine(state: dict[str, Tensor], name: str, generator: torch.Generator | None) -> None:
    """Give a norm weight w and bias b, and divide them out of (1 + gamma) (w x + b) + beta again."""
    channels = len(state[f"{name}.fc.bias"]) // 2
    w, b = torch.ones(channels), torch.zeros(channels)
    if generator is not None:
        w = 0.5 + torch.rand(channels, generator=generator)
        b = 0.3 * torch.randn(channels, generator=generator)
    gamma, beta = state[f"{name}.fc.weight"].chunk(2)
    gamma0, beta0 = state[f"{name}.fc.bias"].chunk(2)
    gamma, gamma0 = gamma / w[:, None], (1 + gamma0) / w - 1
    state[f"{name}.fc.weight"] = torch.cat([gamma, beta - b[:, None] * gamma])
    state[f"{name}.fc.bias"] = torch.cat([gamma0, beta0 - b * (1 + gamma0)])
    state[f"{name}.norm.weight"], state[f"{name}.norm.bias"] = w, b


def write_checkpoint(
    folder: Path,
    seed: int = 0,
    config: dict[str, Any] | None = None,
    *,
    form: Form = "weight_g",
    prefix: str = "",
    affine: Affine = "none",
    voice_suffix: Literal[".pt", ".bin"] = ".pt",
) -> Kokoro:
    """Write config.json, kokoro-v1_0.pth and voices/* of a random model into `folder`; returns the model.

    `.bin` voices are raw little-endian float32, as onnx-community/Kokoro-82M-v1.0-ONNX has them.
    """
    raw = tiny_config() if config is None else config
    cfg = KokoroConfig.model_validate(raw)
    model = random_model(seed, cfg)
    (folder / "voices").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    torch.save(authors_state(model, form, prefix=prefix, affine=affine), folder / WEIGHTS)
    for name, voice in random_voices(seed, cfg).items():
        path = folder / "voices" / f"{name}{voice_suffix}"
        if voice_suffix == ".pt":
            torch.save(voice, path)
        else:
            voice.numpy().astype(np.dtype("<f4")).tofile(path)
    return model
