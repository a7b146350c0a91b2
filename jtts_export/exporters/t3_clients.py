"""What clients of a T3 release read besides the graphs: config, tokenizer, voices.

The community's sample scripts take the prompt as it comes out of a tokenizer: spaces replaced, and around the text
the tokens of emotion, start and stop of text, and twice the start of speech.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save
from tokenizers import Tokenizer, normalizers, processors

from jtts_export.models.t3.conditioning import Voice
from jtts_export.models.t3.config import T3Config
from jtts_export.runtime.t3 import CONFIG
from jtts_export.runtime.t3_text import SPACE

from .files import as_json, write_files

TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}


def write_client_files(folder: Path, config: Mapping[str, Any], voices: Mapping[str, Voice]) -> list[Path]:
    """config.json, tokenizer.json, tokenizer_config.json, and voices/NAME.safetensors (speaker_emb,
    cond_prompt_speech_tokens, emotion_adv). Returns the files in the order written."""
    model = config["model"]
    contents = {
        "config.json": as_json({"model_type": "chatterbox", CONFIG: model}),
        "tokenizer.json": as_json(prompting(config["tokenizer"], T3Config(**model))),
        "tokenizer_config.json": as_json(TOKENIZER_CONFIG),
        **{f"voices/{name}.safetensors": _voice(voices[name]) for name in sorted(voices)},
    }
    return write_files(folder, contents)


def prompting(tokenizer: Mapping[str, Any], config: T3Config) -> dict[str, Any]:
    """A tokenizer.json that makes whole prompts of texts; without special tokens it makes what it made before."""
    made = Tokenizer.from_str(json.dumps(tokenizer))
    spaces = normalizers.Replace(" ", SPACE)
    made.normalizer = normalizers.Sequence([made.normalizer, spaces]) if made.normalizer else spaces
    ids = {
        "[EXAGGERATION]": config.exaggeration_token,
        "[START]": config.start_text,
        "[STOP]": config.stop_text,
        "[START_SPEECH]": config.start_speech,
    }
    made.post_processor = processors.TemplateProcessing(
        single="[EXAGGERATION] [START] $A [STOP] [START_SPEECH] [START_SPEECH]", special_tokens=list(ids.items())
    )
    content = json.loads(made.to_str())
    for token in content["added_tokens"]:
        if token["content"] == SPACE:  # looked for behind the normalizer that makes it
            token["normalized"] = True
    return content


def _voice(voice: Voice) -> bytes:
    return save(
        {
            "speaker_emb": voice.speaker_emb,
            "cond_prompt_speech_tokens": voice.cond_prompt_speech_tokens,
            "emotion_adv": voice.exaggeration,
        }
    )
