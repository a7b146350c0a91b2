"""Measure a release again, from its own bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import artifact
from .errors import CheckpointError
from .locks import machine
from .models import MODELS, Info
from .models.source import Source, locate
from .profiles.schema import Profile, check_schemes, load_profile
from .progress import Progress
from .runtime.names import released
from .store import writing


def revalidate(
    release: Path,
    profile: str | None,
    checkpoint: str | None,
    sentences: Sequence[str],
    report: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Verify checksums, load the checkpoint the release was made from, and validate anew.

    report: a folder for what was measured and heard, if wanted. Returns the content that a validation.json would have
    now; the release stays as it is. Raises GateFailed where the bytes differ from the manifest, CheckpointError where
    the checkpoint is not the same.
    """
    manifest, built = artifact.verify(release)
    if report:
        artifact.outside(report, release)
        with writing(report):
            report.mkdir(parents=True, exist_ok=True)
    info = _model(release, manifest)
    wanted = Profile.model_validate(manifest.profile) if profile is None else load_profile(profile)
    _check_allowed(manifest, wanted)
    source = checkpoint_of(release, manifest, checkpoint)

    from .exporters.coreml.build import packages as built_packages
    from .validate.gates import finite
    from .validate.measure import spread_of, validate
    from .validate.subject import Packages, Subject

    model = info.load()
    files = {variant: released(release, (*model.graphs, *model.derived), variant) for variant in manifest.variants}
    packages = None
    if made := manifest.coreml:
        folders = {v: built_packages(release / v, made["stages"]) for v in made["variants"]}
        packages = Packages(made["target"], folders)
    with progress.stage("spread"):
        loaded = model.load(source)
        spread = spread_of(model, loaded, wanted.threads)
    subject = Subject(manifest.model, model, loaded, files, release, wanted, spread, sentences, packages)
    timed = wanted.is_timed(manifest.model, (*files, *(manifest.coreml.get("variants") or ())))
    busy = partial(progress.waits, "validate", "others are at work on this machine")
    with machine(timed, busy), progress.stage("validate"):
        measured = validate(subject, progress.step, report and report / "samples")
    kept = ("schema_version", "tool_version", "model", "checkpoint")
    content = {key: built[key] for key in kept} | {
        "profile": wanted.model_dump(),
        "sentences": sentences,
        "machine": artifact.machine(),
        **measured,
    }
    validation: dict[str, Any] = finite(content)  # type: ignore[assignment]
    if report:
        from .report import write

        with writing(report):
            write(validation, report / "samples", report)
    return validation


def checkpoint_of(release: Path, manifest: artifact.Manifest, checkpoint: str | None) -> Source:
    """The checkpoint that a release was made from, at `checkpoint`, or where it was then. Raises CheckpointError
    where it is not there, or is another, naming the file."""
    info = _model(release, manifest)
    source = locate(checkpoint or _recorded(manifest), info.files, info.companions)
    if source.sha256 == manifest.checkpoint["sha256"]:
        return source
    then = {name: entry.sha256 for name, entry in manifest.checkpoint_files.items()}
    other = next((name for name in {**then, **source.hashes} if then.get(name) != source.hashes.get(name)), "")
    where = f": {other} is not the same" if other and then else ""
    raise CheckpointError(f"{source.source} is not the checkpoint that {release} was made from{where}")


def _model(release: Path, manifest: artifact.Manifest) -> Info:
    info = MODELS.get(manifest.model)
    if info is None:
        raise CheckpointError(f"{release} is a release of {manifest.model}, which this version does not know")
    return info


def _check_allowed(manifest: artifact.Manifest, profile: Profile) -> None:
    """Raises BadInput where the profile allows a variant of the release, or how it holds its weights, not."""
    from .quantize.schemes import Recipe

    made = {variant: entry for variant, entry in manifest.variants.items() if variant != "fp32"}
    profile.variants_for(manifest.model, list(made))
    for variant, entry in made.items():
        check_schemes(profile, variant, Recipe.model_validate(entry["recipe"]))


def _recorded(manifest: artifact.Manifest) -> str:
    """The checkpoint as the manifest has it; a hub repository at the very commit, whatever its branch is now."""
    source, revision = str(manifest.checkpoint["source"]), manifest.checkpoint["revision"]
    return f"{source.partition('@')[0]}@{revision}" if revision else source
