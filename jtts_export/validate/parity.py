"""Parity, stage by stage: each stage is given the reference's own inputs, so that it answers for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    parity: Parity, expected: Sequence[Arrays], runner: Runner, cases: Sequence[Case]
) -> tuple[Metrics, list[dict]]:
    """Metrics over all cases (SNRs by mean noise power, ratios by count, log-mels by mean), and a row a case."""
    rows: list[dict] = [{"case": case.name} for case in cases]

    def measured(tap: str, forced: Sequence[str]) -> Iterator[tuple[dict, np.ndarray, np.ndarray]]:
        """Row, measured and expected tap of each case; one question for all cases, then the next."""
        for row, case, taps in zip(rows, cases, expected, strict=True):
            yield row, runner.taps(case.inputs, [tap], {name: taps[name] for name in forced})[tap], taps[tap]

    metrics: Metrics = {}
    for stage in parity.stages:
        metric = f"parity_{stage.name}_snr_db"
        for row, value, wanted in measured(stage.tap, stage.forced):
            row[metric] = snr_db(value, wanted)
            if stage.name in parity.distributions:
                row |= logits.compare(value, wanted, f"parity_{stage.name}")
        metrics[metric] = _mean_snr([row[metric] for row in rows])
        if stage.name in parity.distributions:
            metrics |= logits.overall(rows, f"parity_{stage.name}")
    for name, tap in parity.exact.items():
        for row, value, wanted in measured(tap, ()):
            row[f"{name}_count"] = wanted.size
            row[f"{name}_equal"] = int((value == wanted).sum()) if value.shape == wanted.shape else 0
        metrics[f"{name}_equal_ratio"] = sum(r[f"{name}_equal"] for r in rows) / sum(r[f"{name}_count"] for r in rows)
    if parity.audio:
        for row, value, wanted in measured(parity.audio, parity.timing):
            row["parity_log_mel_l1"] = log_mel_l1(value.reshape(-1), wanted.reshape(-1), parity.sample_rate_hz)
        metrics["parity_log_mel_l1"] = float(np.mean([row["parity_log_mel_l1"] for row in rows]))
    return metrics, rows


def _mean_snr(values: Sequence[float]) -> float:
    """Mean of noise-to-signal power ratios, as dB."""
    ratios = [10 ** (-v / 10) for v in values]
    mean = float(np.mean(ratios))
    return -10 * float(np.log10(mean)) if mean > 0 else float("inf")
