"""A release of a tiny T3 checkpoint, made by the real command."""

from __future__ import annotations

from pathlib import Path

from command import Built, run

# What four bits leave of a network this small is not much.
PROFILE = """
name = "tiny"
description = "a network of a few megabytes"
threads = 1

[gates.t3.all]
parity_conditioning_snr_db = ">= 25"
parity_logits_kl = "<= 3"

[gates.t3.fp32]
greedy_tokens_equal_ratio = "== 1"
parity_logits_snr_db = ">= 90"
parity_alignment_snr_db = ">= 90"

[gates.t3.fp16]
parity_logits_kl = "<= 1e-3"

[gates.t3.int8]
parity_logits_kl = "<= 0.1"

[gates.t3.int8-fast]
parity_logits_kl = "<= 0.2"
"""
IMPOSSIBLE = """
name = "impossible"
description = "no rounding at all"
threads = 1

[gates.t3.all]
parity_logits_kl = "<= 0"
size_ratio_vs_fp32 = "<= 0.5"
"""


def build(home: Path, checkpoint: Path | str, *more: str) -> Built:
    """A release of a checkpoint in `home`/out, with its profile and cache beside it."""
    profile = home / "tiny.toml"
    profile.write_text(PROFILE)
    built = Built(home / "out" / "t3", profile, home / "cache", Path(checkpoint), "", "")
    done = run(home, *again(built, home / "out", *more))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return Built(built.release, profile, built.cache, built.checkpoint, done.stdout, done.stderr)


def again(built: Built, out: Path, *more: str) -> list[str]:
    """Arguments of the same build into another folder."""
    where = ["--checkpoint", str(built.checkpoint), "--out", str(out), "--cache", str(built.cache)]
    return ["t3", "--profile", str(built.profile), *where, *more]
