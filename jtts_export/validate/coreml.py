"""CoreML packages: judged stage by stage on what a whole synthesis feeds them, and as an app chains them.

Without a Mac a package is interpreted (mil/): its numbers are checked, not Apple's hardware.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jtts_export import mil
from jtts_export.exporters.coreml.modules import ModuleNetwork
from jtts_export.exporters.coreml.stage import MAIN, Export, Stage, State
from jtts_export.exporters.model import Loaded
from jtts_export.models.source import sha256_file
from jtts_export.runtime.names import COREML, COREML_INT8
from jtts_export.store import files_under

from . import predict
from .audio import snr_db
from .coreml_weights import farthest, known
from .listening import spoken
from .parity import Metrics, Parity, compare, reference_taps
from .recorder import Call, Only, Recorder, copied
from .runner import Arrays, Case
from .subject import Files, Findings, Packages, Subject

Mode = Literal["exact", "fp16"]
MODES: tuple[Mode, ...] = ("exact", "fp16")
ROUNDED = 2  # functions of a stage, the shortest, that are interpreted in fp16 too: rounding takes its time

Tell = Callable[[str], None]


class Interpreted:
    """A package on disk, by mil/. See stage.Network."""

    def __init__(self, package: Path, mode: Mode) -> None:
        self._functions, self._mode = mil.load(package).functions, mode

    def run(
        self, inputs: Mapping[str, np.ndarray], function: str = MAIN, state: State | None = None
    ) -> dict[str, np.ndarray]:
        return self._functions[function].run(inputs, state, self._mode)

    def new_state(self, function: str = MAIN) -> State:
        return self._functions[function].new_state()


def record(
    export: Export,
    stages: Sequence[Stage],
    loaded: Loaded,
    parity: Parity,
    expected: Sequence[Arrays],
    cases: Sequence[Case],
) -> tuple[dict[str, list[Call]], float]:
    """Let the modules themselves speak, in every length that they are made for. Returns calls by stage, which is what
    packages are compared with; and the worst SNR of the model's stages against the reference, for padding must change
    nothing, in dB."""
    recorders = {stage.name: Recorder(ModuleNetwork(stage)) for stage in stages}
    found = []
    for skipped in range(max(map(len, export.lengths.values()), default=1)):
        networks = {s.name: Only(recorders[s.name], _longer(export, s, skipped)) for s in stages}
        metrics, _ = compare(parity, expected, export.runner(networks, loaded.config), cases)
        found += [metrics[f"parity_{stage.name}_snr_db"] for stage in parity.stages]
    return {name: recorder.calls for name, recorder in recorders.items()}, min(found)


def _longer(export: Export, stage: Stage, skipped: int) -> frozenset[str]:
    """A stage's functions without so many of the shortest, if it has longer ones."""
    lengths = {name: n for name, n in export.lengths.get(stage.name, {}).items() if name in stage.functions}
    by_length = sorted(lengths, key=lambda name: lengths[name])
    return frozenset(stage.functions).difference(by_length[:-1][:skipped])


def stage_row(
    stage: Stage, package: Path, calls: Sequence[Call], modes: Sequence[Mode], shortest: int | None = None
) -> dict[str, Any]:
    """Of one package, against its modules: the worst SNR over outputs and states of all calls in each mode, as
    <mode>_snr_db, and where; overflow: what became infinite in fp16, if anything did. shortest: how many functions,
    in the order of their lengths, count."""
    calls = _of_shortest(calls, shortest)
    row: dict[str, Any] = {"stage": stage.name, "precision": stage.precision, "calls": len(calls), "overflow": ""}
    for mode in modes:
        network, worst, where = Interpreted(package, mode), float("inf"), ""
        for call in _of_shortest(calls, ROUNDED) if mode == "fp16" else calls:
            state = copied(call.before, np.float32)
            try:
                made = network.run(call.inputs, call.function, state)
            except mil.Overflow as overflow:
                row["overflow"], worst, where = str(overflow), -float("inf"), call.function
                continue
            for name, exact in {**call.outputs, **call.after}.items():
                error = snr_db({**made, **state}[name].astype(np.float64), exact.astype(np.float64))
                if error < worst:
                    worst, where = error, f"{call.function}.{name}"
        row[f"{mode}_snr_db"], row[f"{mode}_where"] = worst if calls else -float("inf"), where
    return row


def _of_shortest(calls: Sequence[Call], functions: int | None) -> Sequence[Call]:
    """Calls come in the order of lengths: see record()."""
    names = list(dict.fromkeys(call.function for call in calls))[:functions]
    return [call for call in calls if call.function in names]


def predicted_rows(package: Path, calls: Sequence[Call]) -> list[dict[str, Any]]:
    """Of one package by CoreML on this Mac, with each set of compute units: SNR, time to load, median time of a call;
    or why it came to nothing."""
    rows = []
    for units in predict.UNITS:
        made = predict.predict(package, units, calls)
        row: dict[str, Any] = {"units": units, "error": made.get("error", "")}
        if not row["error"]:
            errors = [
                snr_db(outputs[name].astype(np.float64), exact.astype(np.float64))
                for call, outputs in zip(calls, made["outputs"], strict=True)
                for name, exact in call.outputs.items()
            ]
            row |= {"snr_db": min(errors), "load_s": made["load_s"], "seconds": float(np.median(made["seconds"]))}
        rows.append(row)
    return rows


def stage_metrics(rows: Sequence[Mapping[str, Any]]) -> Metrics:
    """Of the worst stages."""

    def worst(mode: Mode, precision: str) -> float:
        return min((row[f"{mode}_snr_db"] for row in rows if row["precision"] == precision), default=float("inf"))

    return {
        "coreml_stage_snr_db": worst("exact", "fp16"),
        "coreml_fp16_snr_db": worst("fp16", "fp16"),
        "coreml_kept_snr_db": worst("exact", "fp32"),
        "coreml_overflows": float(sum(bool(row["overflow"]) for row in rows)),
    }


def measure(subject: Subject, packages: Packages, tell: Tell) -> dict[str, Findings]:
    """Variant -> findings."""
    export = subject.model.coreml
    assert export is not None
    cases = subject.cases("brief")
    stages = export.stages(subject.loaded, packages.target)
    checked = "by interpretation" + (", and on this Mac" if predict.is_possible() else ", not on Apple hardware")
    tell("stages of CoreML")
    parity, loaded = subject.model.parity, subject.loaded
    expected = reference_taps(parity, subject.model.reference(loaded, subject.threads, 0, False), cases)
    calls, modules_db = record(export, stages, loaded, parity, expected, cases)
    found = {}
    for variant, folders in packages.files.items():
        found[variant] = mine = Findings()
        with mine.failing(variant, tell):
            rows = []
            for stage in stages:
                tell(f"{variant}: {stage.name}")
                # Weights in 8 bits are the same in functions of every length.
                shortest = None if variant == COREML else ROUNDED
                row = stage_row(stage, folders[stage.name], calls[stage.name], MODES, shortest)
                if predict.is_possible():
                    row["predicted"] = predicted_rows(folders[stage.name], calls[stage.name])
                rows.append(row)
            tell(f"{variant}: weights")
            weights = _weights(stages, folders, packages.files[COREML], rows)
            tell(f"{variant}: whole syntheses")
            metrics, spoken = whole(subject, export, folders, expected, cases)
            mine.take(
                Findings(
                    {
                        **stage_metrics(rows),
                        **weights,
                        **metrics,
                        "coreml_modules_snr_db": modules_db,
                        "size_mb": sum(map(size_mb, folders.values())),
                    },
                    details={
                        "coreml": {"checked": checked, "target": packages.target, "stages": rows},
                        "rows": spoken,
                    },
                )
            )
    sizes = {variant: mine.metrics["size_mb"] for variant, mine in found.items() if "size_mb" in mine.metrics}
    if sizes.keys() == {COREML, COREML_INT8}:
        found[COREML_INT8].metrics["size_ratio_vs_coreml"] = sizes[COREML_INT8] / sizes[COREML]
    return found


def _weights(stages: Sequence[Stage], folders: Files, full: Files, rows: Sequence[dict[str, Any]]) -> Metrics:
    """Of a variant's packages, by themselves or, where they hold 8 bits, beside those that do not. Adds to the rows
    what is wrong with each."""
    if folders == full:
        total = unknown = 0
        for stage, row in zip(stages, rows, strict=True):
            found = known(stage, folders[stage.name])
            row["unknown_weights"] = found.unknown
            total, unknown = total + found.total, unknown + len(found.unknown)
        return {"coreml_weights_equal_ratio": 1 - unknown / max(total, 1)}
    for stage, row in zip(stages, rows, strict=True):
        row["weight_error"], row["weight_error_where"] = farthest(folders[stage.name], full[stage.name])
    return {"coreml_weight_error": max(row["weight_error"] for row in rows)}


def whole(
    subject: Subject, export: Export, folders: Files, expected: Sequence[Arrays], cases: Sequence[Case]
) -> tuple[Metrics, list[dict]]:
    """Packages chained as by an app, in fp16, against the reference: parity and audio, over all cases and by case."""
    networks = {name: Interpreted(package, "fp16") for name, package in folders.items()}
    runner = export.runner(networks, subject.loaded.config)
    metrics, rows, _ = spoken(subject.spread, subject.model.parity, expected, runner, cases)
    return metrics, rows


def hashes(variant: str, folders: Files) -> dict[str, str]:
    """Path in a release -> sha256, of every file of a variant's packages."""
    return {
        f"{variant}/{package.name}/{path.relative_to(package).as_posix()}": sha256_file(path)
        for package in folders.values()
        for path in files_under(package)
    }


def size_mb(package: Path) -> float:
    """10^6 bytes of a package's files."""
    return sum(path.stat().st_size for path in files_under(package)) / 1e6
