"""Artifacts of the tests' small checkpoints: a megabyte or two, made in seconds."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from bench.common import ROOT
from bench.defects import make
from jtts_export.exporters.model import Config, Model, Voices
from jtts_export.models.source import DEMO_FOLDER
from jtts_export.profiles.schema import load_profile
from jtts_export.validate.runner import Case
from jtts_export.validate.subject import Subject

sys.path.append(str(ROOT / "tests"))

import kokoro_files
import speecht5_files
import t3_files

# To validate with. Of Kokoro, which takes longest: one at a speed that is no integer, and those of every token; the
# latter's speech, by SpeechT5 with random weights in 8 bits, ends anywhere.
UTTERANCES = {"kokoro": (1, -3, -2, -1), "speecht5": (0, 1, 2, 3, 4)}
VARIANTS = ("int8",)


def subject(model: str, seed: int, home: Path, timed: bool = False) -> Subject:
    """What is made of the checkpoint of a seed, below a folder. timed: with the gates of time that hold at this
    size; and of SpeechT5 with weights as random:SEED has them, whose speech ends at the same step whatever is
    rounded, and which is deaf to a few defects."""
    folder = home / str(seed)
    _write_checkpoint(model, seed, folder / "checkpoint", timed)
    profile = load_profile(str(Path(__file__).parent / f"{model}{'-timed' if timed else ''}.toml"))
    made = make.made(model, str(folder / "checkpoint"), VARIANTS, profile, folder / "made", lambda _: None)
    return replace(made, model=with_utterances(made.model, UTTERANCES.get(model)))


def with_utterances(model: Model, chosen: tuple[int, ...] | None) -> Model:
    """With those alone to validate on; None: with all."""

    def cases(config: Config, voices: Voices, purpose: str) -> list[Case]:
        made = list(model.cases(config, voices, purpose))
        return [made[i] for i in chosen] if chosen and purpose == "validation" else made

    return replace(model, cases=cases)


def write_demo_sized(seed: int, folder: Path) -> None:
    """A Kokoro checkpoint with random weights in the demo voice's widths."""
    kokoro_files.write_checkpoint(folder, seed, json.loads((DEMO_FOLDER / "config.json").read_bytes()))


def _write_checkpoint(model: str, seed: int, folder: Path, seeded: bool = False) -> None:
    if model == "speecht5":  # speech that ends by its stop token, and a vocoder wide enough for int8 convolutions
        vocoder = {"upsample_initial_channel": 64}
        config = {"max_speech_positions": 1000, **({"hidden_size": 64} if seeded else {})}
        speecht5_files.write_checkpoint(
            folder, 8 + seed, ends=not seeded, seeded=seeded, config=config, vocoder_config=vocoder
        )
    else:
        {"kokoro": kokoro_files, "t3": t3_files}[model].write_checkpoint(folder, seed)
