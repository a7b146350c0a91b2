"""The released folder as its users meet it: kokoro-onnx, kokoro-js and sherpa-onnx load it and speak."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from jtts_export.exporters.kokoro_clients import SAMPLE_RATE_HZ, write_client_files

SAMPLES_PER_FRAME = 600
TEXT = "Hello world."
PHONEMES = "həlˈoʊ wˈɜːld."
# 1.5 lies between whole numbers: a client or graph that rounds speed would repeat one of its neighbours.
SPEEDS = [1.0, 1.5, 2.0]

GRAPHS = ["model.onnx", "model_quantized.onnx", "model_fp16.onnx"]
DTYPES = ["fp32", "q8", "fp16"]  # transformers.js's names for the same three files


@pytest.mark.parametrize("graph", GRAPHS)
def test_kokoro_onnx_speaks_phonemes(python_client, release_dir, config, voices, graph):
    request = {"release": str(release_dir), "graph": graph, "voice": max(voices), "speeds": SPEEDS}
    answer = python_client("synthesize_kokoro_onnx.py", {**request, "phonemes": PHONEMES})
    assert answer["ids"] == _ids(config, PHONEMES)
    _assert_speech(answer["audio"])
    _assert_every_frame_is_heard(answer["audio"])
    assert all(0 < audio["trimmed_samples"] <= audio["samples"] for audio in answer["audio"])


def test_kokoro_onnx_speaks_text(python_client, release_dir, voices):
    request = {"release": str(release_dir), "graph": "model.onnx", "voice": min(voices), "speeds": SPEEDS}
    answer = python_client("synthesize_kokoro_onnx.py", {**request, "text": TEXT})
    _assert_speech(answer["audio"])
    _assert_every_frame_is_heard(answer["audio"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_kokoro_js_speaks_phonemes(node_client, release_dir, config, dtype):
    request = {"release": str(release_dir), "dtype": dtype, "voice": "af_heart", "speeds": SPEEDS}
    answer = node_client("synthesize.mjs", {**request, "phonemes": PHONEMES})
    assert answer["ids"] == _ids(config, PHONEMES)
    _assert_speech(answer["audio"])
    _assert_every_frame_is_heard(answer["audio"])


def test_kokoro_js_speaks_text(node_client, release_dir):
    request = {"release": str(release_dir), "dtype": "q8", "voice": "bm_george", "speeds": SPEEDS}
    answer = node_client("synthesize.mjs", {**request, "text": TEXT})
    _assert_speech(answer["audio"])
    _assert_every_frame_is_heard(answer["audio"])


def test_transformers_js_knows_every_phoneme_and_drops_the_rest(node_client, release_dir, config):
    vocab = config["vocab"]
    texts = ["".join(vocab), "", "$", "h\n\t[]{}\\^-/1😀həl"]
    answer = node_client("tokenize.mjs", {"release": str(release_dir), "texts": texts})
    assert answer == [_ids(config, text) for text in texts]


def test_transformers_js_reads_a_vocabulary_of_regex_characters(node_client, config, tmp_path):
    odd = {**config, "vocab": {symbol: i for i, symbol in enumerate("^]-\\[a-&~#|.*+?(){}/z"[::-1], start=1)}}
    write_client_files(tmp_path, odd, {"v": np.zeros((4, 1, 256), np.float32)})
    texts = ["".join(odd["vocab"]), "bcd^]-e\\[f&&~~Z"]
    answer = node_client("tokenize.mjs", {"release": str(tmp_path), "texts": texts})
    assert answer == [_ids(odd, text) for text in texts]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("phonemes", [{"tokens": list(PHONEMES)}, {"codepoints": PHONEMES}], ids=lambda p: min(p))
def test_sherpa_onnx_speaks_phonemes_in_the_voice_of_that_number(
    python_client, release_dir, config, voices, phonemes, graph
):
    last = len(voices) - 1
    request = {"release": str(release_dir), "graph": graph, "speaker": last, "speeds": SPEEDS}
    answer = python_client("synthesize_sherpa_onnx.py", {**request, **phonemes})
    assert answer["speakers"] == len(voices)
    _assert_speech(answer["audio"])
    # sherpa-onnx gives no durations. Its style is row n for n phonemes; kokoro-onnx's is row n - 1.
    style = voices[max(voices)][len(PHONEMES)]
    path, ids = release_dir / "onnx" / graph, _ids(config, PHONEMES)
    expected = [_samples(path, ids, style, speed) for speed in SPEEDS]
    assert [audio["samples"] for audio in answer["audio"]] == expected


def test_sherpa_onnx_speaks_text_through_a_lexicon(python_client, release_dir, config, voices, tmp_path):
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("hello h ə l ˈ o ʊ\nworld w ˈ ɜ ː l d\n", encoding="utf-8")
    request = {"release": str(release_dir), "graph": "model.onnx", "speaker": 0, "speeds": SPEEDS}
    # No full stop: sherpa-onnx 2.0.1 says the one that ends a sentence again, after the boundary token.
    said = {"lexicon": str(lexicon), "text": TEXT.rstrip(".")}
    answer = python_client("synthesize_sherpa_onnx.py", {**request, **said})
    _assert_speech(answer["audio"])
    phonemes = PHONEMES.rstrip(".")
    graph, style = release_dir / "onnx/model.onnx", voices[min(voices)][len(phonemes)]
    expected = [_samples(graph, _ids(config, phonemes), style, speed) for speed in SPEEDS]
    assert [audio["samples"] for audio in answer["audio"]] == expected


@pytest.fixture(scope="session")
def config(release_dir: Path) -> dict[str, Any]:
    return json.loads((release_dir / "config.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def voices(release_dir: Path) -> dict[str, np.ndarray]:
    with np.load(release_dir / "clients/kokoro-onnx/voices.npz") as archive:
        return dict(archive)


def _ids(config: dict[str, Any], phonemes: str) -> list[int]:
    return [0, *(config["vocab"][p] for p in phonemes if p in config["vocab"]), 0]


def _samples(graph: Path, ids: Sequence[int], style: np.ndarray, speed: float) -> int:
    """How long the graph itself says these tokens are."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    inputs = {"input_ids": np.array([ids]), "style": style, "speed": np.array([speed], np.float32)}
    (duration,) = session.run(["duration"], inputs)
    return int(duration.sum()) * SAMPLES_PER_FRAME


def _assert_speech(audio: Sequence[dict[str, Any]]) -> None:
    assert all(a["rate"] == SAMPLE_RATE_HZ and a["finite"] and a["peak"] > 0 for a in audio)
    lengths = [a["samples"] for a in audio]
    assert all(slower > faster > 0 for slower, faster in pairwise(lengths)), lengths


def _assert_every_frame_is_heard(audio: Sequence[dict[str, Any]]) -> None:
    assert [a["samples"] for a in audio] == [a["frames"] * SAMPLES_PER_FRAME for a in audio]
