"""A release of a tiny SpeechT5 checkpoint, made by the real command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from command import Built, run

PROFILE = """
name = "tiny"
description = "a network of a few kilobytes"
threads = 1

[gates.speecht5.fp32]
stop_steps_equal_ratio = "== 1"
parity_encoder_snr_db = ">= 90"
parity_mel_snr_db = ">= 90"
parity_vocoder_snr_db = ">= 90"
parity_waveform_snr_db = ">= 90"
parity_client_snr_db = ">= 90"

[gates.speecht5.fp16]
parity_mel_snr_db = ">= 40"
parity_vocoder_snr_db = ">= 40"

[gates.speecht5.int8]
parity_mel_snr_db = ">= 15"
parity_client_snr_db = ">= 15"
parity_vocoder_snr_db = ">= 15"
"""


def write_checkpoint(folder: Path, **options: Any) -> None:
    """A checkpoint whose speech mostly ends by its stop token, with positions for as much as a text may last."""
    import speecht5_files  # imports torch

    config = {"max_speech_positions": 1000, **options.pop("config", {})}
    vocoder = {"upsample_initial_channel": 64}  # wide enough for int8 convolutions
    speecht5_files.write_checkpoint(
        folder, 8, **{"ends": True, "config": config, "vocoder_config": vocoder, **options}
    )


def build(home: Path, checkpoint: Path, *variants: str) -> Built:
    """A release of a checkpoint in `home`/out, with its profile and cache beside it."""
    profile = home / "tiny.toml"
    profile.write_text(PROFILE)
    built = Built(home / "out" / "speecht5", profile, home / "cache", checkpoint, "", "")
    done = run(home, *again(built, home / "out", *variants))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return Built(built.release, profile, built.cache, checkpoint, done.stdout, done.stderr)


def again(built: Built, out: Path, *more: str) -> list[str]:
    """Arguments of the same build into another folder."""
    where = ["--checkpoint", str(built.checkpoint), "--out", str(out), "--cache", str(built.cache)]
    return ["speecht5", "--profile", str(built.profile), *where, *more]
