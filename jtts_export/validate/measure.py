"""Everything that a gate can name, measured on the bytes of the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from jtts_export.exporters.model import Loaded, Model
from jtts_export.models.source import sha256_file

from . import assets, coreml, layers, operators, timing
from .exported import weight_error
from .gates import verdict_of
from .listening import save_samples, spoken
from .parity import Metrics, reference_taps
from .runner import Arrays
from .spread import Spread, measure_nudged, measure_spread
from .structure import derived_equal_ratio, draws_equal_ratio, structure_equal_ratio
from .subject import Files, Findings, Subject

OTHER_NOISE_SEED = 1

Tell = Callable[[str], None]


def spread_of(model: Model, loaded: Loaded, threads: int) -> Spread:
    """The reference's own spread on a search sentence, the yardstick of ladder and validation alike."""
    exact = model.reference(loaded, threads, 0, False)
    nudged = measure_nudged(model.parity, exact, model.cases(loaded.config, loaded.voices, "brief")[0])
    if model.parity.audio is None:
        return Spread(nudged)
    cases = model.cases(loaded.config, loaded.voices, "search")[:1]
    expected = reference_taps(model.parity, exact, cases)
    reseeded = model.reference(loaded, threads, OTHER_NOISE_SEED, False)
    double = model.reference(loaded, threads, 0, True)
    return Spread({**measure_spread(model.parity, expected, reseeded, double, cases).metrics, **nudged})


def validate(subject: Subject, tell: Tell, samples: Path | None = None) -> dict:
    """Measure each variant's files against the reference and against fp32, and judge it.

    samples: a folder for what was heard. Returns the content of validation.json.
    """
    hashes = {
        variant: {
            (PurePosixPath(graph).parent / path.name).as_posix(): sha256_file(path)
            for graph, main in graphs.items()
            for path in assets.held_in(main)
        }
        for variant, graphs in subject.files.items()
    }
    if packages := subject.packages:
        hashes |= {v: coreml.hashes(v, folders) for v, folders in packages.files.items()}
    tell("reference")
    expected = reference(subject)
    findings = {variant: Findings() for variant in subject.files}
    said: dict[str, list[np.ndarray]] = {}
    for variant, found in findings.items():
        with found.failing(variant, tell):
            faithful, said[variant] = faithfulness(subject, variant, expected, tell)
            found.take(faithful)
    noise = timing.measure(subject, findings, tell)
    if packages:
        findings |= coreml.measure(subject, packages, tell)
    variants = {
        variant: {
            **found.judged(subject.gates(variant)),
            "metrics": found.metrics,
            **found.details,
            "files": hashes[variant],
        }
        for variant, found in findings.items()
    }
    verdict = verdict_of([variant["verdict"] for variant in variants.values()])
    parity = subject.model.parity
    listed = []
    if samples and parity.audio:
        heard = {timing.REFERENCE: [taps[parity.audio] for taps in expected], **said}
        listed = save_samples(samples, subject.cases("validation"), heard, parity.sample_rate_hz)
    return {"verdict": verdict, "noise": noise, "samples": listed, "variants": variants}


def reference(subject: Subject) -> list[dict[str, np.ndarray]]:
    """Every tap of the PyTorch reference, of each utterance to validate on."""
    speaking = subject.model.reference(subject.loaded, subject.threads, 0, False)
    return reference_taps(subject.model.parity.whole, speaking, subject.cases("validation"))


def faithfulness(
    subject: Subject, variant: str, expected: Sequence[Arrays], tell: Tell
) -> tuple[Findings, list[np.ndarray]]:
    """Of one variant, what does not depend on time: parity, audio, layers, size, and what lies beside the graphs. And
    what it said of each utterance. expected: see reference()."""
    model, threads, graphs = subject.model, subject.threads, subject.files[variant]
    cases, parity = subject.cases("validation"), model.parity.whole
    tell(f"parity of {variant}")
    runner = model.runner(graphs, threads, True)
    metrics, rows, said = spoken(subject.spread, parity, expected, runner, cases)
    del runner  # with its sessions, before others are opened
    missing = operators.missing_of(subject.profile, graphs.values())
    metrics |= _sizes(subject, variant) | {
        "client_files_equal_ratio": subject.client_files_equal_ratio,
        "metadata_equal_ratio": assets.metadata_equal_ratio(model, subject.loaded, graphs),
    }
    if operators.is_known(subject.profile):
        metrics["operators_missing"] = float(len(missing))
    if model.draws(subject.loaded):
        metrics["draws_equal_ratio"] = draws_equal_ratio(model, subject.loaded, graphs)
    if model.derived:
        metrics["derived_equal_ratio"] = derived_equal_ratio(model, graphs)
    details: dict[str, Any] = {"rows": rows, "operators_missing": missing}
    exact = subject.files["fp32"]
    if variant == "fp32":
        tell("fp32 against a new export")
        made = subject.new_export.like(graphs, model, subject.loaded)
        equal = [structure_equal_ratio(made[graph], graphs[graph]) for graph in model.graphs]
        metrics["structure_equal_ratio"] = min(equal)
        metrics["exported_weight_error"] = max(weight_error(made[graph], graphs[graph]) for graph in model.graphs)
    else:
        tell(f"layers of {variant}")
        equal = [structure_equal_ratio(exact[graph], graphs[graph]) for graph in model.graphs]
        metrics["structure_equal_ratio"] = min(equal)
        errors = layers.layer_errors(model, exact, graphs, subject.cases("brief")[0], threads)
        metrics |= layers.layer_metrics(errors)
        details["layers"] = layers.rows(errors)
    return Findings(metrics, details=details), said


def _sizes(subject: Subject, variant: str) -> Metrics:
    def size(graphs: Files) -> int:
        return sum(path.stat().st_size for graph in subject.model.graphs for path in assets.held_in(graphs[graph]))

    mine = size(subject.files[variant])
    return {"size_mb": mine / 1e6, "size_ratio_vs_fp32": mine / size(subject.files["fp32"])}
