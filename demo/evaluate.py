"""How good the demo voice is: figures on sentences that it never saw, of PyTorch and of a release's variants.

    python -m demo.evaluate DATA.npz PHONES.pt [--checkpoint SOURCE] [--release RELEASE] [--json FILE] [--table FILE]

Each sentence in each voice is spoken three times: with true durations, F0 and energy; with true durations alone; and
from nothing but its tokens. The reference is espeak-ng's audio.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jtts_export.exporters.kokoro import GRAPH
from jtts_export.models import MODELS
from jtts_export.models.kokoro import checkpoint
from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.models.kokoro.decoder import VOICED_THRESHOLD_HZ
from jtts_export.models.kokoro.reference import Reference
from jtts_export.models.source import locate
from jtts_export.runtime.names import VARIANT_SUFFIX, graph_file
from jtts_export.runtime.taps import OnnxRunner
from jtts_export.validate.audio.intelligibility import stoi
from jtts_export.validate.audio.spectral import log_mel_l1

from .data import Utterance, load
from .export import NAMES
from .phone_classifier import PhoneClassifier, accuracy, read

Taps = Callable[[Mapping[str, np.ndarray], Sequence[str], Mapping[str, np.ndarray]], dict[str, np.ndarray]]
THREADS = 1  # two of torch's wait for each other on a busy machine
TITLES = {
    "stoi_forced": "STOI, true durations, F0 and energy",
    "log_mel_l1_forced": "log-mel L1 (nepers), the same",
    "stoi_predicted": "STOI, true durations, predicted F0 and energy",
    "log_mel_l1_predicted": "log-mel L1 (nepers), the same",
    "phones_forced": "phonemes told, true durations, F0 and energy",
    "phones_end_to_end": "phonemes told, end to end",
    "phones_espeak": "phonemes told in espeak-ng's own audio",
    "length_error": "error of the total length",
    "duration_error_frames": "error of a token's duration (frames of 25 ms)",
    "voicing_error": "voiced or unvoiced wrongly",
    "f0_correlation": "correlation of F0 where both are voiced",
    "f0_error_hz": "mean error of F0 there (Hz)",
}
AS_SHARE = ("phones_forced", "phones_end_to_end", "phones_espeak", "length_error", "voicing_error")


def figures(
    taps: Taps, voices: Mapping[str, np.ndarray], utterances: Sequence[Utterance], classifier: PhoneClassifier
) -> dict[str, float]:
    """TITLES' figures, means over the utterances."""

    def spoken(wanted: Sequence[str], *forced: str) -> list[dict[str, np.ndarray]]:
        return [taps(kokoro_inputs(u, voices), wanted, {name: _true(u)[name] for name in forced}) for u in utterances]

    forced = spoken(["waveform"], "duration", "f0", "n")
    timed = spoken(["waveform", "f0"], "duration")
    free = spoken(["waveform", "duration", "frames"])
    rows = [_row(*each) for each in zip(utterances, forced, timed, free, strict=True)]
    found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    ids = [u.ids.tolist() for u in utterances]
    true = [u.durations.tolist() for u in utterances]
    told = {
        "forced": ([made["waveform"][0] for made in forced], true),
        "end_to_end": ([made["waveform"][0] for made in free], [made["duration"][0].tolist() for made in free]),
        "espeak": ([u.audio for u in utterances], true),
    }
    for name, (audio, durations) in told.items():
        found[f"phones_{name}"] = accuracy(classifier, list(zip(audio, ids, durations, strict=True)))
    return {name: found[name] for name in TITLES}


def kokoro_inputs(utterance: Utterance, voices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's, at speed 1."""
    style = voices[NAMES[utterance.voice]][len(utterance.ids) - 3]
    return {"input_ids": utterance.ids[None], "style": style, "speed": np.ones(1, np.float32)}


def _true(utterance: Utterance) -> dict[str, np.ndarray]:
    return {"duration": utterance.durations[None], "f0": utterance.f0[None], "n": utterance.n[None]}


def _row(
    utterance: Utterance,
    forced: Mapping[str, np.ndarray],
    timed: Mapping[str, np.ndarray],
    free: Mapping[str, np.ndarray],
) -> dict[str, float]:
    exact, total = utterance.f0, float(utterance.durations.sum())
    made = timed["f0"][0]
    both = (made > VOICED_THRESHOLD_HZ) & (exact > VOICED_THRESHOLD_HZ)
    row = {
        "length_error": abs(float(free["duration"].sum()) - total) / total,
        "duration_error_frames": float(np.abs(free["frames"][0] - utterance.durations).mean()),
        "voicing_error": float(((made > VOICED_THRESHOLD_HZ) != (exact > VOICED_THRESHOLD_HZ)).mean()),
        "f0_correlation": float(np.corrcoef(made[both], exact[both])[0, 1]),
        "f0_error_hz": float(np.abs(made - exact)[both].mean()),
    }
    for name, said in (("forced", forced), ("predicted", timed)):
        row[f"stoi_{name}"] = stoi(said["waveform"][0], utterance.audio, SAMPLE_RATE_HZ)
        row[f"log_mel_l1_{name}"] = log_mel_l1(said["waveform"][0], utterance.audio, SAMPLE_RATE_HZ)
    return row


def markdown(found: Mapping[str, Mapping[str, float]]) -> str:
    """A table with a column for each."""

    def shown(name: str, value: float) -> str:
        return f"{value:.1%}" if name in AS_SHARE else f"{value:.3f}"

    lines = ["| | " + " | ".join(found) + " |", "| --- |" + " ---: |" * len(found)]
    for name, title in TITLES.items():
        lines.append(f"| {title} | " + " | ".join(shown(name, of[name]) for of in found.values()) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("phones", type=Path)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--release", type=Path, help="of that checkpoint: its variants come along")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only each so manieth utterance")
    given = parser.parse_args()
    utterances = load(given.data.with_name("held_out.npz"))[:: given.every]
    classifier = read(given.phones)
    _, model, voices = checkpoint.load(locate(given.checkpoint, MODELS["kokoro"].files))
    runners: dict[str, Any] = {"PyTorch": Reference(model, THREADS)}
    if given.release:
        runners |= {
            variant: OnnxRunner(GRAPH.name, file, THREADS)
            for variant in VARIANT_SUFFIX
            if (file := given.release / graph_file(GRAPH.name, variant)).is_file()
        }
    found = {name: figures(runner.taps, voices, utterances, classifier) for name, runner in runners.items()}
    minutes = sum(len(u.audio) for u in utterances) / SAMPLE_RATE_HZ / 60
    print(f"{len(utterances)} utterances, {minutes:.1f} minutes")
    print(markdown(found), end="")
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if given.table:
        given.table.write_text(markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
