"""The SpeechT5 release as transformers.js meets it: the same audio as from our runtime."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import brief
from speecht5_command import build, write_checkpoint

from jtts_export.runtime.names import released
from jtts_export.runtime.speecht5 import GRAPHS, SpeechT5
from jtts_export.runtime.speecht5_taps import SpeechT5Runner
from jtts_export.validate.audio import snr_db

DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8"}  # transformers.js's names of the variants
TEXTS = ("The dog jumps over my box.", "Why not?", "Judge my vow, quick: five dozen jugs of quartz.", "a")
FIXED = {"minlenratio": 4, "maxlenratio": 4}
OPTIONS = ({"maxlenratio": 0.01}, {"minlenratio": 16}, {"threshold": 1.2}, {"minlenratio": 3, "maxlenratio": 1})
HOP, REDUCTION = 256, 2


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("speecht5-clients")
    write_checkpoint(home / "checkpoint")
    return build(home, home / "checkpoint", "--int8", "--fp16", *brief(home)).release


@pytest.fixture(scope="module", params=list(DTYPES))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def requests(release: Path) -> list[dict[str, Any]]:
    speakers = [str(release / "speakers" / f"{name}.bin") for name in ("first", "second")]
    free = [{"text": text, "speaker": speaker} for text in TEXTS for speaker in speakers]
    fixed = [request | {"options": FIXED} for request in free]
    return [*free, *fixed, *({"text": TEXTS[1], "speaker": speakers[0], "options": options} for options in OPTIONS)]


@pytest.fixture(scope="module")
def answer(node_client, release: Path, variant: str, requests: list[dict[str, Any]]) -> dict[str, Any]:
    asked = {"release": str(release), "dtype": DTYPES[variant], "requests": requests}
    return node_client("synthesize_speecht5.mjs", asked)


@pytest.fixture(scope="module")
def tts(release: Path, variant: str) -> SpeechT5:
    return SpeechT5.open(release, variant, threads=1)


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def inputs_of(tts: SpeechT5, request: dict[str, Any]) -> dict[str, np.ndarray]:
    inputs = {"input_ids": tts.tokens(request["text"]), "speaker_embeddings": tts.speaker(request["speaker"])}
    options, per_step = request.get("options", {}), inputs["input_ids"].shape[1] / REDUCTION
    for name, ratio in (("min_steps", "minlenratio"), ("max_steps", "maxlenratio")):
        if ratio in options:
            inputs[name] = np.int64(per_step * options[ratio])
    return inputs | ({"threshold": np.float32(options["threshold"])} if "threshold" in options else {})


def test_it_makes_the_same_tokens(answer: dict[str, Any], tts: SpeechT5, requests: list[dict[str, Any]]) -> None:
    for request, spoken in zip(requests, answer["spoken"], strict=True):
        assert [spoken["ids"]] == tts.tokens(request["text"]).tolist()


def test_it_makes_the_same_spectrogram_and_waveform(
    answer: dict[str, Any], release: Path, variant: str, tts: SpeechT5, requests: list[dict[str, Any]]
) -> None:
    """To float noise, of which onnxruntimes differ. In int8 what is rounded may fall to either side of an edge, and
    speech goes on from there: no further from ours, then, than ours is from fp32, where both have one length."""
    runner = runner_of(release, variant)
    for request, spoken in zip(requests, answer["spoken"], strict=True):
        inputs = inputs_of(tts, request)
        if variant == "int8" and request.get("options") != FIXED:
            assert np.isfinite(floats(spoken["waveform"])).all()
            continue
        taps = runner.taps(inputs, ["spectrogram", "waveform"])
        assert spoken["dims"] == list(taps["spectrogram"].shape)
        exact = runner_of(release, "fp32").taps(inputs, list(taps)) if variant == "int8" else {}
        for tap, value in taps.items():
            least = snr_db(value, exact[tap]) if exact else 100
            assert snr_db(floats(spoken[tap]), value.ravel()) >= least, (request, tap)


def runner_of(release: Path, variant: str) -> SpeechT5Runner:
    return SpeechT5Runner(released(release, GRAPHS, variant), 1)


def test_the_pipeline_makes_the_same_audio(answer: dict[str, Any], requests: list[dict[str, Any]]) -> None:
    free = [spoken for request, spoken in zip(requests, answer["spoken"], strict=True) if "options" not in request]
    assert len(answer["piped"]) == len(free) == 8
    for piped, spoken in zip(answer["piped"], free, strict=True):
        assert piped["rate"] == 16_000
        np.testing.assert_array_equal(floats(piped["waveform"]), floats(spoken["waveform"]))


def test_lengths_vary_and_most_texts_end_by_their_stop_token(
    answer: dict[str, Any], requests: list[dict[str, Any]]
) -> None:
    """Or else the tests above would compare the limit with itself."""
    lengths = [spoken["dims"][0] // REDUCTION for spoken in answer["spoken"]]
    limits = [len(spoken["ids"]) * 20 // REDUCTION for spoken in answer["spoken"]]
    ended = [n for n, limit, r in zip(lengths, limits, requests, strict=True) if "options" not in r and n < limit]
    assert len(ended) >= 4
    assert len(set(ended)) >= 3


def test_it_logs_nothing(answer: dict[str, Any]) -> None:
    assert answer["said"] == []


def test_tokens_of_odd_texts_are_ours(node_client, release: Path, tts: SpeechT5) -> None:
    texts = ["Two  spaces ", " ahead", "naïve café", "tab\tand\nline", "ﬁne… ½", "the 犬🐕 dog", "a" * 150, "<s>"]
    answer = node_client("tokenize.mjs", {"release": str(release), "texts": texts})
    assert answer == [tts._tokenizer.encode(text).ids for text in texts]
