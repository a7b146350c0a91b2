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

# To validate with, of Kokoro, which takes longest: two at speeds that are no integers.
UTTERANCES = {"kokoro": slice(1, 3)}
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


def _subject(model: str, seed: int, home: Path) -> Subject:
    """The checkpoint of a seed, and what is made of it."""
    folder = home / str(seed)
    _write_checkpoint(model, seed, folder / "checkpoint")
    profile = load_profile(str(Path(__file__).parent / f"{model}.toml"))
    subject = make.made(model, str(folder / "checkpoint"), VARIANTS, profile, folder / "made", lambda _: None)
    cases = subject.model.cases

    def fewer(config: Any, voices: Any, purpose: str) -> list:
        return list(cases(config, voices, purpose))[
            UTTERANCES.get(model, slice(None)) if purpose == "validation" else slice(None)
        ]

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
