"""A variant's audio beside the reference's: distances between signals, and samples for ears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import audio
from .parity import Metrics, Parity, compare
from .runner import Arrays, Case, Runner
from .spread import Spread


@dataclass(frozen=True)
class Heard:
    """Metrics over all utterances, a row each, and what was said, free-running and in the reference's timing:
    float32 [samples] each."""

    metrics: Metrics
    rows: list[dict]
    said: list[np.ndarray]
    in_time: list[np.ndarray]


def listen(parity: Parity, expected: Sequence[Arrays], runner: Runner, cases: Sequence[Case]) -> Heard:
    """Of a model that makes audio. Signals are compared sample by sample with the reference's timing forced, and
    along the best alignment without."""
    assert parity.audio is not None
    said, late = [], []
    for number, (case, taps) in enumerate(zip(cases, expected, strict=True)):
        free = runner.taps(case.inputs, [parity.audio, *parity.timing])
        said.append(free[parity.audio].reshape(-1))
        if any(not np.array_equal(free[name], taps[name]) for name in parity.timing):
            late.append(number)
    in_time = list(said)
    for number in late:  # after all others: runners keep a part of a graph loaded
        forced = {name: expected[number][name] for name in parity.timing}
        in_time[number] = runner.taps(cases[number].inputs, [parity.audio], forced)[parity.audio].reshape(-1)
    rows = []
    for heard, timed, taps in zip(said, in_time, expected, strict=True):
        exact = taps[parity.audio].reshape(-1)
        rows.append(
            {
                **audio.compare(timed, exact, parity.sample_rate_hz),
                **audio.compare_free(heard, exact, parity.sample_rate_hz),
            }
        )
    return Heard(audio.overall(rows), rows, said, in_time)


def spoken(
    spread: Spread, parity: Parity, expected: Sequence[Arrays], runner: Runner, cases: Sequence[Case]
) -> tuple[Metrics, list[dict], list[np.ndarray]]:
    """Stages and, of a model that makes any, audio: metrics over all utterances, some relative to the reference's own
    spread, a row for each, and what was said."""
    heard = listen(parity, expected, runner, cases) if parity.audio else None
    metrics, rows = compare(parity, expected, runner, cases, heard.in_time if heard else None)
    metrics = spread.relate(metrics)
    if heard is None:
        return metrics, rows, []
    metrics |= spread.relate_audio(heard.metrics)
    return metrics, [{**row, **more} for row, more in zip(rows, heard.rows, strict=True)], heard.said


def save_samples(
    folder: Path, cases: Sequence[Case], said: Mapping[str, Sequence[np.ndarray]], sample_rate_hz: int
) -> list[dict]:
    """Write what each speaker (`reference`, and every variant) said of each case, as 16-bit FLAC named
    `<number>-<speaker>`. Returns what validation.json says of them."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, case in enumerate(cases):
        files = {}
        for speaker, signals in said.items():
            name = f"{number}-{speaker}.flac"
            clean = np.clip(np.nan_to_num(signals[number].reshape(-1)), -1, 1)
            soundfile.write(folder / name, clean, sample_rate_hz, subtype="PCM_16")
            files[speaker] = f"{folder.name}/{name}"
        listed.append({"case": case.name, "text": case.text, "sample_rate_hz": sample_rate_hz, "files": files})
    return listed
