"""From a checkpoint to a verified release: the stages in order.

    checkpoint -> export -> optimize -> quantize (each variant) -> validate -> report -> package
          |         `----> spread ------------'----------------------|
          `-> coreml -> coreml-int8 ---------------------------------'

Every stage but the last is cached by its inputs, and imports what it needs when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import artifact
from .exporters.coreml.convert import check_installed
from .exporters.coreml.stage import Target
from .models import MODELS
from .models.source import locate
from .profiles.schema import Profile
from .progress import Progress
from .runtime.names import COREML, COREML_INT8
from .stages import Stages
from .store import Stage, Store


@dataclass(frozen=True)
class Job:
    """One model, from one checkpoint, in some variants, for one profile. sentences: to validate on, in place of the
    built-in ones. coreml: the target to make packages for too, in 8 bits as well where `variants` has int8."""

    model: str
    checkpoint: str
    variants: tuple[str, ...]
    profile: Profile
    out: Path
    cache: Path
    opset: int
    force: bool = False
    sentences: tuple[str, ...] = ()
    coreml: Target | None = None


@dataclass(frozen=True)
class Outcome:
    """Where the release lies, and the content of its validation.json."""

    release: Path
    validation: dict[str, Any]


def build(job: Job, progress: Progress) -> Outcome:
    """Take a job through every stage. Raises the errors of errors.py."""
    if job.coreml:
        check_installed()
    artifact.prepare(job.out, job.model)
    info = MODELS[job.model]
    source = locate(job.checkpoint, info.files, info.companions)
    store = Store(job.cache)
    stages = Stages(job.model, source, job.profile, job.opset, job.sentences, progress.step)

    def stage(name: str, inputs: Mapping[str, object], run: Callable[[Path], None], force: bool = job.force) -> Stage:
        def shown(out: Path) -> None:
            with progress.stage(name):
                stages.check(job.variants)
                run(out)

        result = store.stage(name, {"model": job.model, **inputs}, shown, force)
        if result.cached:
            progress.cached(name)
        return result

    exported = stage("export", {"checkpoint": source.sha256, "opset": job.opset}, stages.export)
    spread = stage("spread", {"export": exported.key, "threads": job.profile.threads}, stages.spread)
    optimized = stage("optimize", {"export": exported.key}, lambda out: stages.optimize(exported.folder, out))
    made = {"fp32": optimized}
    for variant in job.variants:
        gates = [str(gate) for gate in job.profile.gates_for(job.model, variant)]
        made[variant] = stage(
            f"quantize-{variant}",
            {
                "graph": optimized.key,
                "spread": spread.key,
                "gates": gates,
                "schemes": job.profile.schemes,
                "threads": job.profile.threads,
            },
            lambda out, v=variant: stages.quantize(v, exported.folder, optimized.folder, spread.folder, out),  # type: ignore[misc]
        )
    folders = {variant: result.folder for variant, result in made.items()}
    packed: dict[str, Stage] = {}
    if target := job.coreml:
        given = {"checkpoint": source.sha256, "target": target}
        packed[COREML] = stage(COREML, given, lambda out: stages.coreml(target, out))
        if "int8" in job.variants:
            gates = [str(gate) for gate in job.profile.gates_for(job.model, COREML_INT8)]
            packed[COREML_INT8] = stage(
                COREML_INT8,
                {**given, "gates": gates},
                lambda out: stages.coreml_int8(target, packed[COREML].folder, out),
            )
    packages = {variant: result.folder for variant, result in packed.items()}
    measured = {
        "checkpoint": source.describe(),
        "graphs": {variant: result.key for variant, result in made.items()},
        "profile": job.profile.model_dump(),
        "sentences": job.sentences,
        "machine": artifact.machine(),
        "packages": {variant: result.key for variant, result in packed.items()},
    }

    def validate(force: bool) -> Stage:
        def run(out: Path) -> None:
            stages.validate(exported.folder, folders, spread.folder, packages, out)

        return stage("validate", measured, run, force)

    validated = validate(job.force)
    if validated.cached and stages.is_inconclusive(validated.folder):
        validated = validate(force=True)
    text = stages.validation(validated.folder)
    reported = stage("report", {"validation": text}, lambda out: stages.report(validated.folder, out))
    release, validation = stages.package(
        exported.folder, folders, spread.folder, packages, validated.folder, reported.folder, job.out
    )
    return Outcome(release, validation)
