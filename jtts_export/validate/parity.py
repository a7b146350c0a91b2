"""Parity, stage by stage: each stage is given the reference's own inputs, so that it answers for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import logits
from .audio import log_mel_l1, snr_db
from .runner import Arrays, Case, Runner

Metrics = dict[str, float]


@dataclass(frozen=True)
class Stage:
    """Part of a model, judged on its own.

    `tap` is compared while the taps in `forced` take the reference's values. `gates` names the metrics that
    this stage can improve when its weights are held more precisely.
    """

    name: str
    tap: str
    forced: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parity:
    """What a model declares of its taps.

    stages: judged by SNR as parity_<name>_snr_db; exact: integer taps, judged free-running by the share that
    is equal, as <name>_equal_ratio (metric name -> tap); timing: taps that are forced when two whole syntheses are
    compared by ear, so that they line up; audio: the tap to listen to, of a model that makes any; distributions:
    stages whose taps are logits, compared as in logits.py too; fp64, reseed: stages in which the reference is
    compared with itself in float64, and with itself on another draw; derived: stages of graphs that are derived
    from the others for some client, and so are judged where those are made.
    """

    stages: tuple[Stage, ...]
    exact: Mapping[str, str]
    timing: tuple[str, ...]
    sample_rate_hz: int
    audio: str | None = None
    distributions: tuple[str, ...] = ()
    fp64: tuple[str, ...] = ()
    reseed: tuple[str, ...] = ()
    derived: tuple[Stage, ...] = ()

    @property
    def whole(self) -> Parity:
        """With the stages of derived graphs among the others."""
        return replace(self, stages=self.stages + self.derived)

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def output(self) -> str:
        """What a synthesis is for: audio, or of a model that makes none, the tokens that fix its timing."""
        return self.audio or self.timing[0]

    @property
    def taps(self) -> tuple[str, ...]:
        wanted = {s.tap for s in self.stages} | {t for s in self.stages for t in s.forced}
        wanted |= {*self.exact.values(), *self.timing, *([self.audio] if self.audio else [])}
        return tuple(sorted(wanted))


def reference_taps(parity: Parity, reference: Runner, cases: Sequence[Case]) -> list[dict[str, np.ndarray]]:
    """Every tap of every case, free-running."""
    return [reference.taps(case.inputs, parity.taps) for case in cases]


def compare(
    parity: Parity,
    expected: Sequence[Arrays],
    runner: Runner,
    cases: Sequence[Case],
    in_time: Sequence[np.ndarray] | None = None,
) -> tuple[Metrics, list[dict]]:
    """Metrics over all cases (SNRs by mean noise power, ratios by count, log-mels by mean), and a row a case.

    in_time: the audio of each case in the reference's timing, where it is known already.
    """
    rows: list[dict] = [{"case": case.name} for case in cases]
    for forced, taps in _questions(parity, in_time is None).items():
        for row, case, wanted in zip(rows, cases, expected, strict=True):
            made = runner.taps(case.inputs, taps, {name: wanted[name] for name in forced})
            row |= _judged(parity, forced, made, wanted)
    for row, audio, wanted in zip(rows, in_time, expected, strict=True) if in_time else ():
        row |= _log_mel(parity, audio, wanted)
    metrics: Metrics = {}
    for stage in parity.stages:
        metrics[_snr_of(stage)] = _mean_snr([row[_snr_of(stage)] for row in rows])
        if stage.name in parity.distributions:
            metrics |= logits.overall(rows, f"parity_{stage.name}")
    for name in parity.exact:
        metrics[f"{name}_equal_ratio"] = sum(r[f"{name}_equal"] for r in rows) / sum(r[f"{name}_count"] for r in rows)
    if parity.audio:
        metrics["parity_log_mel_l1"] = float(np.mean([row["parity_log_mel_l1"] for row in rows]))
    return metrics, rows


def _questions(parity: Parity, with_audio: bool) -> dict[tuple[str, ...], list[str]]:
    """What is forced -> the taps to ask for then. One question for all cases, then the next: runners keep a part of
    a graph loaded."""
    asked = [(stage.forced, stage.tap) for stage in parity.stages]
    asked += [((), tap) for tap in parity.exact.values()]
    if parity.audio and with_audio:
        asked.append((parity.timing, parity.audio))
    found: dict[tuple[str, ...], list[str]] = {}
    for forced, tap in dict.fromkeys(asked):
        found.setdefault(forced, []).append(tap)
    return found


def _judged(parity: Parity, forced: tuple[str, ...], made: Arrays, wanted: Arrays) -> dict:
    """Of one case, everything that is judged with these taps forced, by the reference's."""
    row: dict = {}
    for stage in (stage for stage in parity.stages if stage.forced == forced):
        row[_snr_of(stage)] = snr_db(made[stage.tap], wanted[stage.tap])
        if stage.name in parity.distributions:
            row |= logits.compare(made[stage.tap], wanted[stage.tap], f"parity_{stage.name}")
    for name, tap in parity.exact.items() if not forced else ():
        row[f"{name}_count"] = wanted[tap].size
        row[f"{name}_equal"] = int((made[tap] == wanted[tap]).sum()) if made[tap].shape == wanted[tap].shape else 0
    if forced == parity.timing and parity.audio and parity.audio in made:
        row |= _log_mel(parity, made[parity.audio], wanted)
    return row


def _log_mel(parity: Parity, audio: np.ndarray, wanted: Arrays) -> dict[str, float]:
    assert parity.audio is not None
    exact = wanted[parity.audio].reshape(-1)
    return {"parity_log_mel_l1": log_mel_l1(audio.reshape(-1), exact, parity.sample_rate_hz)}


def _snr_of(stage: Stage) -> str:
    return f"parity_{stage.name}_snr_db"


def _mean_snr(values: Sequence[float]) -> float:
    """Mean of noise-to-signal power ratios, as dB."""
    ratios = [10 ** (-v / 10) for v in values]
    mean = float(np.mean(ratios))
    return -10 * float(np.log10(mean)) if mean else float("inf")
