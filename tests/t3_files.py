"""Small T3 checkpoints on disk, in the authors' layout: of the English model and of the multilingual one."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor

from jtts_export.exporters.model import Loaded
from jtts_export.exporters.onnx import save
from jtts_export.exporters.t3 import MODEL
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.models.t3.conditioning import Voice
from jtts_export.models.t3.config import MULTILINGUAL_VOCAB, T3Config
from jtts_export.models.t3.model import T3
from jtts_export.models.t3.random import character_tokenizer, random_model, random_voices
from jtts_export.quantize.apply import quantize
from jtts_export.runtime.names import graph_file

ALIGNMENT_HEADS = ((0, 1), (1, 0))
LANGUAGES = ("en", "fr", "de")
VOICE = "second"  # in voices/, without a prompt


def tiny_config(**changes: Any) -> T3Config:
    sizes = {"hidden_size": 128, "layers": 2, "heads": 2, "ffn_size": 256, "alignment_heads": ALIGNMENT_HEADS}
    return replace(T3Config(max_text_tokens=254, max_speech_tokens=1020), **{**sizes, **changes})


def tiny_voices(seed: int = 0) -> dict[str, Voice]:
    """By the names that the loader gives them."""
    voices = random_voices(seed, tiny_config())
    return {"default": voices["random_a"], VOICE: voices["random_b"]}


def write_checkpoint(
    folder: Path,
    seed: int = 0,
    *,
    multilingual: bool = False,
    weights: str | None = None,
    config: dict[str, Any] | None = None,
) -> T3:
    """Write every file of a random checkpoint into `folder`; returns its model.

    weights: the name of that file, by default the authors'; config: changes to the tiny one.
    """
    cfg = tiny_config(**{"text_vocab": MULTILINGUAL_VOCAB if multilingual else 704, **(config or {})})
    model = random_model(seed, cfg)
    (folder / "voices").mkdir(parents=True, exist_ok=True)
    official = "t3_mtl23ls_v2.safetensors" if multilingual else "t3_cfg.safetensors"
    write_weights(folder / (weights or official), model.state_dict())
    tokenizer = "grapheme_mtl_merged_expanded_v1.json" if multilingual else "tokenizer.json"
    write_json(folder / tokenizer, tokenizer_json(cfg, multilingual=multilingual))
    write_json(folder / "config.json", {"alignment_heads": cfg.alignment_heads})
    voices = tiny_voices(seed)
    write_voice(folder / "conds.pt", voices["default"])
    write_voice(folder / f"voices/{VOICE}.safetensors", voices[VOICE])
    return model


def write_weights(path: Path, state: dict[str, Tensor], *, nested: bool = False) -> None:
    """nested: in a .pt file, as the authors' training saves them."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"model": [state]} if nested else state, path)


def tokenizer_json(config: T3Config, *, multilingual: bool = False) -> dict:
    """Characters; the multilingual one has tags of languages at the end of its vocabulary.

    The English one has the post-processor of the community's exports, with ids that are no text tokens.
    """
    content = character_tokenizer(config)
    if multilingual:
        first = config.text_vocab - len(LANGUAGES)
        content["model"]["vocab"] |= {f"[{language}]": first + i for i, language in enumerate(LANGUAGES)}
        content["added_tokens"] += [
            {**content["added_tokens"][0], "id": first + i, "content": f"[{language}]"}
            for i, language in enumerate(LANGUAGES)
        ]
        return content
    text = {"Sequence": {"id": "A", "type_id": 0}}
    before, after = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[BEFORE]", "[AFTER]"))
    ids = {"[BEFORE]": [6563, 255], "[AFTER]": [0, 6561, 6561]}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [before, text, after],
        "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {k: {"id": k, "ids": v, "tokens": [k] * len(v)} for k, v in ids.items()},
    }
    return content


def write_voice(path: Path, voice: Voice, **changes: Any) -> None:
    """A .pt file as the authors' Conditionals.save() writes it, or a .safetensors file; `changes` of None drop."""
    emotion = voice.exaggeration.reshape(1, 1, 1)
    tokens = voice.cond_prompt_speech_tokens if voice.cond_prompt_speech_tokens.size else None
    arrays = {"speaker_emb": voice.speaker_emb, "cond_prompt_speech_tokens": tokens, "emotion_adv": emotion}
    arrays |= changes
    if path.suffix == ".safetensors":
        save_arrays({f"t3.{key}": value for key, value in arrays.items() if value is not None}, path)
        return
    t3 = {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in arrays.items()}
    gen = {"prompt_token": torch.ones(1, 4, dtype=torch.int32), "prompt_feat": torch.zeros(1, 8, 80)}
    torch.save({"t3": {**t3, "clap_emb": None, "cond_prompt_speech_emb": None}, "gen": gen}, path)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_release(folder: Path, seed: int = 0, opset: int = 17, **options: Any) -> Loaded:
    """As much of a release as runtimes and clients read, fp32, and the checkpoint beside it."""
    write_checkpoint(folder / "checkpoint", seed, **options)
    loaded = MODEL.load(locate(str(folder / "checkpoint"), MODELS["t3"].files, MODELS["t3"].companions))
    MODEL.client_files(folder, loaded.config, loaded.voices)
    MODEL.export(loaded, folder, opset)
    return loaded


def add_variant(release: Path, variant: str) -> dict[str, str]:
    """Another variant of a release, by its recipe alone. Returns the scheme of every weight."""
    schemes: dict[str, str] = {}
    for name in MODEL.graphs:
        graph = ir.load(release / graph_file(name, "fp32"))
        schemes |= quantize(graph, MODEL.recipes[variant], {})
        save(graph, release / graph_file(name, variant), name in MODEL.external)
    return schemes


def request(text_tokens: np.ndarray, voice: Voice, **options: float) -> dict[str, np.ndarray]:
    """The inputs of an engine, or of the reference."""
    return {"text_tokens": text_tokens, **vars(voice), **{name: np.array(value) for name, value in options.items()}}


def authors_file(folder: str, name: str) -> Path:
    """A file of the authors' installed package, whose own __init__ imports what is not installed."""
    try:
        files = metadata.files("chatterbox-tts") or []
    except metadata.PackageNotFoundError:
        pytest.fail("not installed: pip install --no-deps chatterbox-tts==0.1.7", pytrace=False)
    (path,) = (f.locate() for f in files if f.name == name and f.parent.name == folder)
    return Path(str(path))
