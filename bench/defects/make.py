"""Artifacts to plant defects in, made without a cache and without timing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.profiles.schema import Profile
from jtts_export.stages import CLIENTS, Stages, graph_paths, read_spread
from jtts_export.validate import measure
from jtts_export.validate.subject import Subject

from .defect import Files
from .trial import Good, joins, measured

OPSET = 17

Tell = Callable[[str], None]


def made(name: str, checkpoint: str, variants: Sequence[str], profile: Profile, folder: Path, tell: Tell) -> Subject:
    """Export, optimize and quantize a checkpoint below a folder."""
    info = MODELS[name]
    source = locate(checkpoint, info.files, info.companions)
    stages = Stages(name, source, profile, OPSET, (), tell)

    def stage(what: str, run: Callable[[Path], None]) -> Path:
        out = folder / what
        out.mkdir(parents=True)
        run(out)
        return out

    exported = stage("export", stages.export)
    spread = stage("spread", stages.spread)
    optimized = stage("optimize", lambda out: stages.optimize(exported, out))
    folders = {"fp32": optimized}
    for variant in variants:
        folders[variant] = stage(
            variant,
            lambda out, v=variant: stages.quantize(v, exported, optimized, spread, out),  # type: ignore[misc]
        )
    model = stages.model
    graphs = (*model.graphs, *model.derived)
    files = {variant: graph_paths(where, graphs, variant) for variant, where in folders.items()}
    return Subject(name, model, stages.loaded, files, exported / CLIENTS, profile, read_spread(spread))


def judged(subject: Subject, other: Callable[[], Subject]) -> Good:
    """An artifact with its reference and its metrics; other: one of another checkpoint, made when it is needed."""
    expected = measure.reference(subject)
    metrics = {v: measured(subject, expected, v) | joins(subject, v) for v in subject.files}

    @cache
    def made_once() -> Subject:
        return other()

    def graphs(variant: str) -> Files:
        return made_once().files[variant]

    return Good(subject, expected, metrics, graphs)
