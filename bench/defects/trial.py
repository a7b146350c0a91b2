"""A defect planted and judged, beside the artifact that has none."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from jtts_export import artifact
from jtts_export.errors import JttsError
from jtts_export.profiles.schema import Gate
from jtts_export.validate import measure
from jtts_export.validate.audio import join_score
from jtts_export.validate.parity import Metrics
from jtts_export.validate.subject import Findings, Subject

from .defect import WEIGHTS, Defect, Files, Planting, linked, linked_graphs

JOINS = "audio_join_score"


@dataclass(frozen=True)
class Good:
    """An artifact without defects, what it was measured to be, and what the reference says of it.

    metrics: by variant; release: its folder, if it was packaged; other: a variant's graphs of another checkpoint.
    """

    subject: Subject
    expected: Sequence[Mapping[str, np.ndarray]]
    metrics: Mapping[str, Metrics]
    other: Callable[[str], Files]
    release: Path | None = None

    def failing(self, variant: str, metrics: Metrics) -> list[dict]:
        """Rows of the gates that these metrics do not pass."""
        rows = Findings(metrics).judged(self.gates(variant))["gates"]
        return [row for row in rows if not row["passed"]]

    def gates(self, variant: str) -> list[Gate]:
        """Those that this artifact was measured for: of times, only where it was timed."""
        return [gate for gate in self.subject.gates(variant) if gate.metric in self.metrics[variant]]


@dataclass(frozen=True)
class Trial:
    """What became of a defect. refused: by whom and why, where it could not even be measured; failing: rows of
    gates that it does not pass and the artifact without it does, as judge() makes them, the one farthest beyond its
    limit first; metrics: of the planted artifact."""

    defect: Defect
    refused: str = ""
    failing: Sequence[dict] = ()
    metrics: Metrics = field(default_factory=dict)

    @property
    def is_caught(self) -> bool:
        return bool(self.refused or self.failing)


def measured(subject: Subject, expected: Sequence[Mapping[str, np.ndarray]], variant: str) -> Metrics:
    """What faithfulness finds."""
    found, _ = measure.faithfulness(subject, variant, expected, lambda _: None)
    return found.metrics


def joins(subject: Subject, variant: str) -> Metrics:
    """Of the built-in text, streamed once, which timing measures otherwise."""
    parity = subject.model.parity
    if not parity.audio:
        return {}
    loaded = subject.loaded
    speak = subject.model.speaker(subject.files[variant], loaded.config, loaded.voices, subject.threads)
    return {JOINS: join_score(list(speak()), parity.sample_rate_hz)}


def attempt(good: Good, defect: Defect) -> Trial:
    """Plant a defect in a copy, and judge that."""
    with tempfile.TemporaryDirectory(prefix="jtts-defect-") as folder:
        if defect.of_release:
            return _verified(good, defect, Path(folder))
        return _judged(good, defect, Path(folder))


def _verified(good: Good, defect: Defect, folder: Path) -> Trial:
    assert good.release is not None
    release = linked(good.release, folder / "release")
    defect.plant(Planting(defect.variant, {}, release, good.subject.model, good.subject.files, good.other, release))
    try:
        artifact.verify(release)
    except JttsError as error:
        return Trial(defect, refused=f"verify: {str(error).removeprefix(f'{release}: ')}")
    return Trial(defect)


def _judged(good: Good, defect: Defect, folder: Path) -> Trial:
    subject, variant = good.subject, defect.variant
    graphs = linked_graphs(subject.files[variant], folder / "graphs")
    clients = folder / "clients"
    clients.mkdir()
    for path in subject.clients.rglob("*"):
        if path.is_file() and not _is_graph(path):
            linked(path, clients / path.relative_to(subject.clients))
    planting = Planting(variant, graphs, clients, subject.model, subject.files, good.other)
    defect.plant(planting)
    files = {"fp32": subject.files["fp32"], variant: planting.graphs}
    planted = replace(subject, files=files, clients=planting.clients, model=planting.model)
    try:
        metrics = {**good.metrics[variant], **measured(planted, good.expected, variant)}
        if planted.model.speaker is not subject.model.speaker:
            metrics |= joins(planted, variant)
    except Exception as error:  # whatever loads or runs a graph may refuse it, in its own words
        return Trial(defect, refused=f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}")
    fine = good.metrics[variant]
    anyway = {row["metric"] for row in good.failing(variant, fine)}  # and so no catch
    rows = [row for row in good.failing(variant, metrics) if row["metric"] not in anyway]
    strongest = sorted(rows, key=lambda row: -excess(row, fine))
    return Trial(defect, failing=strongest, metrics=metrics)


def _is_graph(path: Path) -> bool:
    return path.suffix in (".onnx", WEIGHTS)


def excess(row: Mapping, good: Metrics) -> float:
    """How far beyond its limit a value lies, in units of how far within the good one does."""
    value, limit, fine = row["value"], row["limit"], good[row["metric"]]
    if value is None or not math.isfinite(value):
        return math.inf
    room = abs(fine - limit)
    return abs(value - limit) / room if room else 1e9 * abs(value - limit)


def moved(good: Metrics, planted: Metrics, count: int = 6) -> list[tuple[str, float, float]]:
    """Metrics that a defect changed most, relative to the good value."""

    def change(name: str) -> float:
        a, b = good[name], planted[name]
        if not math.isfinite(b) or not math.isfinite(a):
            return 0.0 if a == b or (math.isnan(a) and math.isnan(b)) else math.inf
        return abs(b - a) / max(abs(a), abs(b), 1e-12)

    names = [name for name in good if name in planted and change(name) > 1e-6]
    return [(name, good[name], planted[name]) for name in sorted(names, key=change, reverse=True)[:count]]
