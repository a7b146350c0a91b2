"""One small artifact of each model, built once without timing, and its reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.defects import make
from bench.defects.trial import Good
from jtts_export.profiles.schema import load_profile
from jtts_export.validate.subject import Subject

# To validate with. Of Kokoro, which takes longest: one at a speed that is no integer, and those of every token; the
# latter's speech, by SpeechT5 with random weights in 8 bits, ends anywhere.
UTTERANCES = {"kokoro": (1, -3, -2, -1), "speecht5": (0, 1, 2, 3, 4)}
VARIANTS = ("int8",)


@pytest.fixture(scope="session")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Good]:
    """By a model's name, made when first asked for."""
    made: dict[str, Good] = {}

    def good(model: str) -> Good:
        if model not in made:
            home = tmp_path_factory.mktemp(model)
            made[model] = make.judged(_subject(model, 0, home), lambda: _subject(model, 1, home))
        return made[model]

    return good


@pytest.fixture
def another(tmp_path: Path) -> Callable[[str, int], Subject]:
    """A model's artifact of another seed, not yet measured."""
    return lambda model, seed: _subject(model, seed, tmp_path)


def _subject(model: str, seed: int, home: Path) -> Subject:
    """The checkpoint of a seed, and what is made of it."""
    folder = home / str(seed)
    _write_checkpoint(model, seed, folder / "checkpoint")
    profile = load_profile(str(Path(__file__).parent / f"{model}.toml"))
    subject = make.made(model, str(folder / "checkpoint"), VARIANTS, profile, folder / "made", lambda _: None)
    cases = subject.model.cases

    def fewer(config: Any, voices: Any, purpose: str) -> list:
        found = list(cases(config, voices, purpose))
        return [found[i] for i in UTTERANCES.get(model, range(len(found)))] if purpose == "validation" else found

    return replace(subject, model=replace(subject.model, cases=fewer))


def _write_checkpoint(model: str, seed: int, folder: Path) -> None:
    import kokoro_files  # these import torch
    import speecht5_files
    import t3_files

    if model == "speecht5":  # speech that ends by its stop token, and a vocoder wide enough for int8 convolutions
        vocoder = {"upsample_initial_channel": 64}
        config = {"max_speech_positions": 1000}
        speecht5_files.write_checkpoint(folder, 8 + seed, ends=True, config=config, vocoder_config=vocoder)
    else:
        {"kokoro": kokoro_files, "t3": t3_files}[model].write_checkpoint(folder, seed)
