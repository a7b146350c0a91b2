"""From a checkpoint to a verified release: the stages in order.

    checkpoint -> export -> optimize -> quantize (each variant) -> validate -> report -> package
          |         `----> spread ------------'----------------------|
          `-> coreml -> coreml-int8 ---------------------------------'

Every stage but the last is cached by its inputs, and imports what it needs when it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import artifact
from .exporters.coreml.convert import check_installed
from .exporters.coreml.stage import Target
from .locks import machine
from .models import MODELS
from .models.source import Source, locate
from .profiles.schema import Profile
from .progress import Shows
from .remote import Remote
from .runtime.names import COREML, COREML_INT8
from .stages import Stages
from .store import Stage, Store, key_of

EXPORT, SPREAD, OPTIMIZE, VALIDATE, REPORT = "export", "spread", "optimize", "validate", "report"


@dataclass(frozen=True)
class Job:
    """One model, from one checkpoint, in some variants, for one profile. sentences: to validate on, in place of the
    built-in ones. coreml: the target to make packages for too, in 8 bits as well where `variants` has int8. store:
    URL of a store that shares stage results with other machines."""

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
    store: str | None = None


@dataclass(frozen=True)
class Outcome:
    """Where the release lies, and the content of its validation.json."""

    release: Path
    validation: dict[str, Any]


Folders = Mapping[str, Path]  # of stages, by name


@dataclass(frozen=True)
class Step:
    """A stage of a job. inputs: what its result depends on, beside the results of the stages that it needs; run: the
    work, from those stages' folders into its own; timed: whether gates hang on how long something takes in it."""

    name: str
    inputs: Mapping[str, object]
    needs: tuple[str, ...]
    run: Callable[[Folders, Path], None]
    timed: bool = False


def build(job: Job, progress: Shows, kept: Collection[str] = ()) -> Outcome:
    """Take a job through every stage. kept: stages that are not run again, though the job says `force`. Raises the
    errors of errors.py."""
    if job.coreml:
        check_installed()
    artifact.prepare(job.out, job.model)
    making = _Making(job, progress, kept)
    made = making.made(making.steps)
    validated = made[VALIDATE]
    if validated.cached and making.stages.is_inconclusive(validated.folder):
        validated = making.take(making.steps[-1], made, force=True)
    text = making.stages.validation(validated.folder)
    report = Step(REPORT, {"validation": text}, (), lambda _, out: making.stages.report(validated.folder, out))
    reported = making.take(report, made)
    graphs, packages = _graphs(job), _packages(job)
    with machine(alone=False, waits=partial(progress.waits, "package", "another is measured on this machine")):
        release, validation = making.stages.package(
            made[EXPORT].folder,
            {variant: made[name].folder for variant, name in graphs.items()},
            made[SPREAD].folder,
            {variant: made[name].folder for variant, name in packages.items()},
            validated.folder,
            reported.folder,
            job.out,
        )
        artifact.is_current(release, text, making.store.known.read)  # and find() knows it
    return Outcome(release, validation)


def make(job: Job, names: Collection[str], progress: Shows) -> None:
    """Some stages of a job, with those that they need, and no release."""
    if set(names) & {COREML, COREML_INT8}:
        check_installed()
    making = _Making(job, progress, (), check=False)
    making.made(_with_needs(making.steps, names))


def find(job: Job, source: Source | None = None) -> Outcome | None:
    """What build() would return, where it had nothing to do; None where it has. Large files that the file system says
    are unchanged are not read again. source: the checkpoint, if it was located before."""
    store = Store(job.cache)
    source = source or locate_for(job, store)
    stages = _stages(job, source, lambda text: None)

    def found(step: Step, made: Mapping[str, Stage]) -> Stage | None:
        return store.find(step.name, _inputs(job, step, {name: stage.key for name, stage in made.items()}))

    made: dict[str, Stage] = {}
    for step in steps(job, source, stages):
        if (stage := found(step, made)) is None:
            return None
        made[step.name] = stage
    text = stages.validation(made[VALIDATE].folder)
    validation = json.loads(text)
    release = artifact.release_path(job.out, job.model, validation["verdict"])
    undecided = validation["verdict"] == artifact.INCONCLUSIVE
    if undecided or job.force or not artifact.is_current(release, text, store.known.sha256):
        return None
    return Outcome(release, validation)


def locate_for(job: Job, store: Store) -> Source:
    """The job's checkpoint; of its large files, hashes that are known."""
    info = MODELS[job.model]
    return locate(job.checkpoint, info.files, info.companions, store.known.sha256)


def keys(job: Job, source: Source, on: Mapping[str, Any]) -> dict[str, str]:
    """Names that two jobs' stages share where their results are the same. on: the machine that times are of."""
    found: dict[str, str] = {}
    for step in steps(job, source, _stages(job, source, lambda text: None), on):
        found[step.name] = key_of({"stage": step.name, "inputs": _inputs(job, step, found)})
    return found


def steps(job: Job, source: Source, stages: Stages, on: Mapping[str, Any] | None = None) -> list[Step]:
    """A job's stages up to its validation, in order. on: the machine, if not this one."""
    profile, graphs, packages = job.profile, _graphs(job), _packages(job)
    gates = {v: [*map(str, profile.gates_for(job.model, v))] for v in (*job.variants, *packages)}

    def quantize(variant: str, made: Folders, out: Path) -> None:
        stages.quantize(variant, made[EXPORT], made[OPTIMIZE], made[SPREAD], out)

    def validate(made: Folders, out: Path) -> None:
        of = {variant: made[name] for variant, name in graphs.items()}
        packed = {variant: made[name] for variant, name in packages.items()}
        stages.validate(made[EXPORT], of, made[SPREAD], packed, out)

    listed = [
        Step(EXPORT, {"checkpoint": source.sha256, "opset": job.opset}, (), lambda made, out: stages.export(out)),
        Step(SPREAD, {"threads": profile.threads}, (EXPORT,), lambda made, out: stages.spread(out)),
        Step(OPTIMIZE, {}, (EXPORT,), lambda made, out: stages.optimize(made[EXPORT], out)),
    ]
    for variant in job.variants:
        given = {"gates": gates[variant], "schemes": profile.schemes, "threads": profile.threads}
        listed.append(Step(graphs[variant], given, (EXPORT, SPREAD, OPTIMIZE), partial(quantize, variant)))
    if target := job.coreml:
        given = {"checkpoint": source.sha256, "target": target, "licence": stages.licence}
        listed.append(Step(COREML, given, (), lambda made, out: stages.coreml(target, out)))
        if COREML_INT8 in packages:
            listed.append(
                Step(
                    COREML_INT8,
                    {**given, "gates": gates[COREML_INT8]},
                    (COREML,),
                    lambda made, out: stages.coreml_int8(target, made[COREML], out),
                )
            )
    measured = {
        "checkpoint": source.describe(),
        "profile": profile.model_dump(),
        "sentences": job.sentences,
        "machine": artifact.machine() if on is None else on,
    }
    timed = profile.is_timed(job.model, (*graphs, *packages))
    needs = (EXPORT, SPREAD, *graphs.values(), *packages.values())
    return [*listed, Step(VALIDATE, measured, needs, validate, timed)]


class _Making:
    """A job at work: where its checkpoint and its results lie. kept, check: see build() and make()."""

    def __init__(self, job: Job, progress: Shows, kept: Collection[str], check: bool = True) -> None:
        self.job, self.progress, self.kept, self.check = job, progress, kept, check
        self.store = Store(job.cache, Remote(job.store) if job.store else None)
        info = MODELS[job.model]
        source = locate(job.checkpoint, info.files, info.companions, self.store.known.read)
        self.stages = _stages(job, source, progress.step)
        self.steps = steps(job, source, self.stages)

    def made(self, wanted: Iterable[Step]) -> dict[str, Stage]:
        """Results by name, in the order of `wanted`."""
        made: dict[str, Stage] = {}
        for step in wanted:
            made[step.name] = self.take(step, made)
        return made

    def take(self, step: Step, made: Mapping[str, Stage], force: bool = False) -> Stage:
        """A step's result: found, or made and shown."""

        def shown(out: Path) -> None:
            with self.progress.stage(step.name):
                if self.check:
                    self.stages.check(self.job.variants)
                step.run({name: stage.folder for name, stage in made.items()}, out)

        result = self.store.stage(
            step.name,
            _inputs(self.job, step, {name: stage.key for name, stage in made.items()}),
            shown,
            force=force or (self.job.force and step.name not in self.kept),
            alone=step.timed,
            waits=partial(self.progress.waits, step.name),
        )
        if result.cached:
            self.progress.cached(step.name)
        return result


def _stages(job: Job, source: Source, tell: Callable[[str], None]) -> Stages:
    return Stages(job.model, source, job.profile, job.opset, job.sentences, tell)


def _inputs(job: Job, step: Step, made: Mapping[str, str]) -> dict[str, object]:
    """All that a step's result depends on. made: keys of the stages before it."""
    return {"model": job.model, **step.inputs, "of": {name: made[name] for name in step.needs}}


def _with_needs(listed: list[Step], names: Collection[str]) -> list[Step]:
    """Steps of these names and those that they need, in order."""
    wanted = set(names)
    for step in reversed(listed):
        if step.name in wanted:
            wanted |= set(step.needs)
    return [step for step in listed if step.name in wanted]


def _graphs(job: Job) -> dict[str, str]:
    """Variant -> the stage that makes its graphs."""
    return {"fp32": OPTIMIZE, **{variant: f"quantize-{variant}" for variant in job.variants}}


def _packages(job: Job) -> dict[str, str]:
    """Variant -> the stage that makes its packages."""
    made = [COREML, *([COREML_INT8] if "int8" in job.variants else [])] if job.coreml else []
    return {name: name for name in made}
