"""Files that let one exported Kokoro graph be loaded by kokoro-onnx, kokoro-js and sherpa-onnx.

Every file is a pure function of the config and the voices: writing twice gives the same bytes. Voices are
ordered by name throughout, so that a speaker has one number in the graph's metadata and in sherpa-onnx's
`voices.bin`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jtts_export.errors import CheckpointError

from .files import write_files

SAMPLE_RATE_HZ = 24_000

# Kokoro puts id 0 at both ends of a phoneme string; onnx-community's tokenizer.json spells that token "$".
BOUNDARY_TOKEN = "$"  # noqa: S105
BOUNDARY_ID = 0

# transformers.js picks the model class (StyleTextToSpeech2Model) by this name.
TRANSFORMERS_JS_MODEL_TYPE = "style_text_to_speech_2"

# sherpa-onnx's number for the multilingual Kokoro v1.0 (scripts/kokoro/v1.0/add_meta_data.py there). 1 was
# the English-only v0.19, for which sherpa-onnx before 2.0 ignores the lexicon.
SHERPA_KOKORO_VERSION = 2

# The earliest time a zip entry can carry: the archive must not depend on the clock.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_ZIP_CREATOR_UNIX = 3

_OTHER_ASCII_SPACE = "\t\n\v\f\r"

# The characters with a meaning inside a [...] class: in JavaScript's `u` mode, which rejects needless
# escapes, and in Oniguruma (the Rust tokenizers), where "[" opens a nested class.
_CLASS_SPECIAL = re.compile(r"[\\\[\]^-]")


def graph_metadata(config: Mapping[str, Any], voices: Mapping[str, np.ndarray]) -> dict[str, str]:
    """ONNX `metadata_props` that kokoro-onnx 0.6 and sherpa-onnx 2.0 read from the graph.

    `voices` maps a name to its styles, float32 `[n_tokens, 1, style]`. kokoro-onnx takes the vocabulary from
    `kokoro_config`. sherpa-onnx ends the whole process when `sample_rate`, `n_speakers`, `style_dim` or (when
    debugging) `speaker_names` is missing, and when `style_dim` x `n_speakers` is not the size of its voices
    file; versions before 2.0 also want `has_espeak`.

    Raises `CheckpointError` where `vocabulary` or `voice_shape` does.
    """
    vocabulary(config)
    names = sorted(voices)
    return {
        "kokoro_config": _json(config, indent=None),
        "model_type": "kokoro",
        "maintainer": "jtts-export",
        "comment": "Kokoro; one graph for kokoro-onnx, kokoro-js and sherpa-onnx",
        "language": "multi-lang",
        "voice": "en-us",
        "version": str(SHERPA_KOKORO_VERSION),
        "has_espeak": "1",
        "sample_rate": str(SAMPLE_RATE_HZ),
        "style_dim": ",".join(str(size) for size in voice_shape(voices)),
        "n_speakers": str(len(names)),
        "speaker_names": ",".join(names),
        "speaker2id": ",".join(f"{name}->{i}" for i, name in enumerate(names)),
        "id2speaker": ",".join(f"{i}->{name}" for i, name in enumerate(names)),
    }


def write_client_files(folder: Path, config: Mapping[str, Any], voices: Mapping[str, np.ndarray]) -> list[Path]:
    """Write what the clients need besides the graph, and return the files in the order written.

    At the root, for kokoro-js (transformers.js): `config.json`, `tokenizer.json`, `tokenizer_config.json` and
    `voices/<name>.bin` (little-endian float32, `[n_tokens, 1, style]`). For the others, under `clients/`:
    `kokoro-onnx/voices.npz`, `sherpa-onnx/voices.bin` (all voices in the order of their names) and
    `sherpa-onnx/tokens.txt`. sherpa-onnx 2 has no phonemizer: its user brings a lexicon, or phonemes.

    Raises `CheckpointError` where `vocabulary` or `voice_shape` does.
    """
    vocab = vocabulary(config)
    voice_shape(voices)
    styles = {name: voices[name].astype("<f4") for name in sorted(voices)}
    max_tokens = int(config["plbert"]["max_position_embeddings"])

    contents = {
        "config.json": _json({**config, "model_type": TRANSFORMERS_JS_MODEL_TYPE}).encode(),
        "tokenizer.json": _json(tokenizer(vocab)).encode(),
        "tokenizer_config.json": _json(_tokenizer_config(max_tokens)).encode(),
        **{f"voices/{name}.bin": style.tobytes() for name, style in styles.items()},
        "clients/kokoro-onnx/voices.npz": _npz(styles),
        "clients/sherpa-onnx/voices.bin": b"".join(style.tobytes() for style in styles.values()),
        "clients/sherpa-onnx/tokens.txt": "".join(f"{symbol} {i}\n" for symbol, i in vocab.items()).encode(),
    }
    return write_files(folder, contents)


def vocabulary(config: Mapping[str, Any]) -> dict[str, int]:
    """The phonemes of a Kokoro config and their ids, by id, without the boundary token that v0.19 lists.

    Raises `CheckpointError` for a vocabulary that a client cannot hold: a symbol of more than one character
    (all three split text into code points), ASCII white space other than " " (sherpa-onnx splits tokens.txt
    there), or another meaning of "$" or of id 0.
    """
    vocab: dict[str, int] = {s: i for s, i in config["vocab"].items() if (s, i) != (BOUNDARY_TOKEN, BOUNDARY_ID)}
    for symbol, i in vocab.items():
        if len(symbol) != 1 or symbol in _OTHER_ASCII_SPACE:
            raise CheckpointError(f"vocab: {symbol!r} is not one printable character, which the clients need")
        if symbol == BOUNDARY_TOKEN or i <= BOUNDARY_ID:
            raise CheckpointError(f"vocab: {symbol!r} is {i}; only {BOUNDARY_TOKEN!r} may be {BOUNDARY_ID}")
    return dict(sorted(vocab.items(), key=lambda item: item[1]))


def voice_shape(voices: Mapping[str, np.ndarray]) -> tuple[int, int, int]:
    """The shape `[n_tokens, 1, style]` that all voices share; `CheckpointError` when they do not."""
    shapes = {voice.shape for voice in voices.values()}
    if len(shapes) != 1:
        raise CheckpointError(f"voices: expected one common shape, found {sorted(shapes)}")
    (shape,) = shapes
    if len(shape) != 3 or shape[1] != 1:
        raise CheckpointError(f"voices: expected [n_tokens, 1, style], found {list(shape)}")
    return shape


def tokenizer(vocab: Mapping[str, int]) -> dict[str, Any]:
    """A tokenizer.json that maps each phoneme to its id, drops the rest, and puts "$" (0) at both ends.

    It loads in Rust's tokenizers, and in transformers.js, which takes `WordLevel` for a plain table.
    """
    known = "".join(_CLASS_SPECIAL.sub(r"\\\g<0>", symbol) for symbol in vocab)
    boundary = {"SpecialToken": {"id": BOUNDARY_TOKEN, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"Regex": f"[^{known}]"}, "content": ""},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [boundary, {"Sequence": {"id": "A", "type_id": 0}}, boundary],
            "pair": [
                boundary,
                {"Sequence": {"id": "A", "type_id": 0}},
                boundary,
                {"Sequence": {"id": "B", "type_id": 0}},
                boundary,
            ],
            "special_tokens": {
                BOUNDARY_TOKEN: {"id": BOUNDARY_TOKEN, "ids": [BOUNDARY_ID], "tokens": [BOUNDARY_TOKEN]}
            },
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {BOUNDARY_TOKEN: BOUNDARY_ID, **vocab},
            "unk_token": BOUNDARY_TOKEN,
        },
    }


def _tokenizer_config(max_tokens: int) -> dict[str, Any]:
    return {
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_tokens,
        "pad_token": BOUNDARY_TOKEN,
        "tokenizer_class": "PreTrainedTokenizer",
        "unk_token": BOUNDARY_TOKEN,
    }


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz like `np.savez`'s, but without the time of writing, which would make every archive differ."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as entries:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_EPOCH)
            entry.create_system = _ZIP_CREATOR_UNIX
            entries.writestr(entry, content.getvalue())
    return archive.getvalue()


def _json(value: Mapping[str, Any], indent: int | None = 2) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent) + ("\n" if indent else "")
