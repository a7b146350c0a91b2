"""Speed and memory of every variant, side by side, until the gates that name them are decided."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from jtts_export.profiles.schema import is_timed
from jtts_export.runtime.engines import engine

from . import audio, streaming
from .calls import call_metrics, repeat_metrics
from .gates import INCONCLUSIVE, Interval
from .machine import Machine
from .parity import Metrics
from .probe import REQUESTS, probe, save_cases
from .runner import Case
from .speed import Timings, interleave
from .subject import Findings, Subject

ROUNDS = 5
BATCHES = 3  # how often an undecided measurement is taken up again
REFERENCE = "reference"
GROWTH = "call_growth_ratio"
LENGTHS = "short", "medium", "long"

Tell = Callable[[str], None]
Found = Mapping[str, Findings]  # by variant


def measure(subject: Subject, findings: Found, tell: Tell) -> dict[str, Any]:
    """Add times and memory to each variant's findings, of those that run. Returns what the machine did meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        fed = Path(folder) / "cases.npz"
        save_cases([subject.cases("timed")[0], *subject.cases("sequence")], fed)
        for variant in running(subject, findings).files:
            tell(f"cold start and calls of {variant}")
            with findings[variant].failing(variant, tell):
                _settle(subject, findings, lambda _, v=variant: {v: _process(subject, v, fed)})  # type: ignore[misc]
    for variant in running(subject, findings).files:
        tell(f"stream of {variant}")
        with findings[variant].failing(variant, tell):
            _settle(subject, findings, lambda _, v=variant: {v: _stream(subject, v)})  # type: ignore[misc]
    return _speeds(running(subject, findings), findings, tell)


def running(subject: Subject, findings: Found) -> Subject:
    """With those variants alone that have run so far."""
    return replace(subject, files={v: files for v, files in subject.files.items() if not findings[v].error})


def _settle(subject: Subject, findings: Found, once: Callable[[Machine], Found]) -> Machine:
    """Take a measurement up to BATCHES times, until its gates are decided: pass and fail alike end it, unless others
    kept the machine busy. Growth from call to call, which a machine that slows down feigns, fails only where two
    measurements in a row find it. Returns the watch over the last one."""
    grown: set[str] = set()
    for _ in range(BATCHES):
        machine = Machine(subject.threads)
        found = once(machine)
        before, grown = grown, {v for v, mine in found.items() if _has_grown(subject, v, mine)}
        for variant, mine in found.items():
            mine.disturbed = {name for name in mine.metrics if machine.is_disturbed and is_timed(name)}
            mine.disturbed |= {GROWTH} if variant in grown - before else set()
            findings[variant].take(mine)
        if not any(_is_open(subject, variant, mine) for variant, mine in found.items()):
            break
    return machine


def _has_grown(subject: Subject, variant: str, found: Findings) -> bool:
    """Whether calls took longer and longer, beyond what a gate allows."""
    gates = [gate for gate in subject.gates(variant) if gate.metric == GROWTH]
    return GROWTH in found.metrics and not all(gate.passes(found.metrics) for gate in gates)


def _is_open(subject: Subject, variant: str, found: Findings) -> bool:
    gates = [gate for gate in subject.gates(variant) if gate.metric in found.metrics]
    return any(row["outcome"] == INCONCLUSIVE for row in found.judged(gates)["gates"])


def _process(subject: Subject, variant: str, fed: Path) -> Findings:
    """In a process of its own: cold start, the same call again and again, calls of many lengths, memory, and several
    requests at a time."""
    found = probe(subject.name, subject.files[variant], fed, subject.threads)
    rate = subject.model.parity.sample_rate_hz
    repeated, calls = found["repeated"], found["calls"]
    audio_s = repeated["samples"][0] / rate
    metrics = {
        "load_ms": found["load_ms"],
        "rtf_cold": (found["load_ms"] / 1e3 + repeated["seconds"][0]) / audio_s,
        "ttfa_cold_ms": found["first_audio_ms"],
        "rss_peak_mb": found["rss_peak_mb"],
        **repeat_metrics(repeated["seconds"], audio_s),
        **call_metrics(calls["seconds"], calls["rss_mb"], calls["samples"], calls["given"]),
    }
    for number, row in found["concurrent"].items():
        metrics[f"concurrent_{number}_rtf"] = row["seconds"] / REQUESTS / audio_s
        metrics[f"concurrent_{number}_slowest_rtf"] = row["slowest_s"] / audio_s
    spoken = [samples / rate for samples in calls["samples"]]
    details = {
        "calls": {"seconds": calls["seconds"], "audio_s": spoken, "rss_mb": calls["rss_mb"]},
        "repeated": {"seconds": repeated["seconds"], "audio_s": audio_s},
    }
    return Findings(metrics, details=details)


def _stream(subject: Subject, variant: str) -> Findings:
    """A warm stream, chunk by chunk."""
    files, loaded = subject.files[variant], subject.loaded
    rate = subject.model.parity.sample_rate_hz
    speak = subject.model.speaker(files, loaded.config, loaded.voices, subject.threads)
    metrics, intervals, typical = streaming.measure(speak, files, rate)
    if subject.model.parity.audio:
        metrics["audio_join_score"] = audio.join_score([chunk.audio for chunk in typical.chunks], rate)
    graphs = [
        {"name": name, "ms": 1e3 * spent} for name, spent in typical.graphs_s.items() if name in subject.model.graphs
    ]
    details = {
        "stream": [{"at_ms": 1e3 * c.at_s, "audio_s": len(c.audio) / rate} for c in typical.chunks],
        "stages": [
            {"name": "frontend", "ms": 1e3 * typical.frontend_s},
            *graphs,
            {"name": "rest", "ms": 1e3 * typical.rest_s},
        ],
    }
    return Findings(metrics, intervals, details=details)


def _speeds(subject: Subject, findings: Found, tell: Tell) -> dict[str, Any]:
    """Warm times: PyTorch eager and every variant by turns, in this process."""
    model, timed = subject.model, subject.cases("timed")
    reference = model.reference(subject.loaded, subject.threads, 0, False)
    output = model.parity.output
    calls: dict[str, Sequence[Callable[[], object]]] = {
        REFERENCE: [lambda c=c: reference.taps(c.inputs, [output]) for c in timed]  # type: ignore[misc]
    }
    engines = {variant: engine(subject.name, graphs, subject.threads) for variant, graphs in subject.files.items()}
    for variant, opened in engines.items():
        calls[variant] = [lambda e=opened, c=c: e.speak(c.inputs) for c in timed]  # type: ignore[misc]
    seconds = [len(engines["fp32"].speak(c.inputs)) / model.parity.sample_rate_hz for c in timed]
    known: list[tuple[Timings, bool]] = []  # and whether others were busy
    number = 0

    def tick() -> None:
        nonlocal number
        tell(f"speed, round {number}")
        number += 1

    def batch(machine: Machine) -> Found:
        known.append((interleave(calls, seconds, ROUNDS, tick, machine), machine.is_disturbed))
        quiet = pooled(known).quiet(ROUNDS)
        return {v: _warm(quiet, v, timed, machine.jitter_ratio) for v in subject.files}

    def steps(_: Machine) -> Found:
        assert model.steps is not None
        return {v: Findings(m) for v, m in model.steps(subject.files, engines, timed[0], subject.threads).items()}

    machine = _settle(subject, findings, batch)
    if model.steps:
        tell("speed of a step")
        _settle(subject, findings, steps)
    return machine.as_json()


def pooled(batches: Sequence[tuple[Timings, bool]]) -> Timings:
    """The rounds of all; where others were busy in some (True) and not in all, those of the others alone."""
    calm = [timings for timings, busy in batches if not busy]
    return reduce(Timings.more, calm or [timings for timings, _ in batches])


def _warm(timings: Timings, variant: str, timed: Sequence[Case], jitter_ratio: float) -> Findings:
    metrics: Metrics = {"jitter_ratio": jitter_ratio}
    intervals: dict[str, Interval] = {}
    which = {"warm": None} | {length: i for i, length in enumerate(LENGTHS[: len(timed)])}
    for length, case in which.items():
        for percent in (50, 95):
            name = f"rtf_{length}_p{percent}"
            metrics[name] = timings.rtf(variant, percent / 100, case)
            intervals[name] = timings.rtf_interval(variant, percent / 100, case)
    for other in ("fp32", REFERENCE):
        metrics[f"speedup_vs_{other}"] = timings.speedup(variant, other)
        intervals[f"speedup_vs_{other}"] = timings.speedup_interval(variant, other)
    rows = [
        {
            "case": case.name,
            "length": LENGTHS[min(i, len(LENGTHS) - 1)],
            "audio_s": float(timings.audio_s[i]),
            "seconds": timings.seconds[variant][:, i].tolist(),
            "reference_seconds": timings.seconds[REFERENCE][:, i].tolist(),
        }
        for i, case in enumerate(timed)
    ]
    return Findings(metrics, intervals, details={"timings": rows})
