"""The T3 release as the community's scripts for Chatterbox in ONNX meet it: the same tokens as from our runtime."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from t3_files import VOICE, add_variant, write_release

from jtts_export.runtime.names import VARIANT_SUFFIX
from jtts_export.runtime.t3 import T3

HERE = Path(__file__).parent
TEXTS = ("Why not?", "The dog jumps over my box.", "Judge my vow, quick: five dozen jugs of quartz, and some more.")
PENALTY, MOST = 1.2, 400


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t3-client")
    write_release(folder, seed=2)
    add_variant(folder, "int8")
    return folder


@pytest.fixture(scope="module", params=["fp32", "int8"])
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def t3(release: Path, variant: str) -> T3:
    return T3.open(release, variant, threads=1)


@pytest.fixture(scope="module")
def answer(release: Path, variant: str, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    limits = {"max_tokens": MOST, "penalty": PENALTY}
    question = {"release": str(release), "suffix": VARIANT_SUFFIX[variant], "texts": asked, **limits}
    command = [sys.executable, str(HERE / "speak_t3.py")]
    done = subprocess.run(
        command, input=json.dumps(question), capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])["spoken"]


@pytest.fixture(scope="module")
def asked() -> list[dict[str, Any]]:
    """Texts as the checkpoint wants them: the scripts leave them as they are."""
    every = itertools.product(TEXTS, ("default", VOICE), (0.5, 1.25))
    return [{"text": text.replace(":", ","), "voice": v, "exaggeration": e} for text, v, e in every]


def test_its_tokenizer_makes_whole_prompts(answer: list[dict[str, Any]], t3: T3, asked: list[dict[str, Any]]) -> None:
    for one, spoken in zip(asked, answer, strict=True):
        assert spoken["ids"] == [6563, *t3.text_tokens(one["text"])[0].tolist(), 6561, 6561]


def test_it_speaks_the_same_tokens(answer: list[dict[str, Any]], t3: T3, asked: list[dict[str, Any]]) -> None:
    ended = 0
    for one, spoken in zip(asked, answer, strict=True):
        made = t3.speech_tokens(
            cfg_weight=0, temperature=0, repetition_penalty=PENALTY, analyze=False, max_tokens=MOST, **one
        )
        theirs = np.array(spoken["tokens"])
        assert theirs[theirs < 6561].tolist() == made.tolist(), one
        assert len(made) > 10
        ended += spoken["tokens"][-1] == 6562
    assert ended > len(asked) / 2  # or else the limit would be compared with itself


def test_texts_voices_and_emotions_differ(answer: list[dict[str, Any]]) -> None:
    """The emotion may leave a text of such a checkpoint as it was, but not all of them."""
    assert len({str(spoken["tokens"]) for spoken in answer}) > len(TEXTS) * 2
    assert len({str(spoken["tokens"]) for spoken in answer[::2]}) == len(TEXTS) * 2
