"""Make a release again from its manifest and checkpoint, and compare.

What was decided when it was made is data in the manifest, and is not decided again: recipes as the ladder left them,
schemes of packages, and, beside the graphs, what calibration found. That alone depends on how a processor adds: it is
applied as recorded, and measured again to see that it is near.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import artifact, difference
from .artifact import VALIDATION, Manifest
from .errors import BadInput, CheckpointError, GateFailed
from .exporters.coreml.convert import check_installed
from .exporters.coreml.stage import TARGETS, Target
from .locks import machine
from .models.source import Source, sha256_file
from .profiles.schema import Profile
from .progress import Shows
from .provenance import tool
from .revalidate import checkpoint_of
from .runtime.names import COREML, COREML_INT8
from .stages import CALIBRATION, REPORT, Stages, release_parts
from .store import tool_versions, writing

if TYPE_CHECKING:
    from .quantize.calibration import Calibration

SAME, DIFFERS, MISSING, EXTRA, NEAR, FAR, NOT_COMPARED = (
    *("same", "differs", "missing", "not in the release", "near", "far"),
    "not compared",
)
GOOD = (SAME, NEAR, NOT_COMPARED)
CARD = "README.md"
# Calibration of one checkpoint, on another processor or by another number of threads: see docs/reproduce.md.
NEAR_DB, NEAR_LEVELS = 3.0, 12.0


@dataclass(frozen=True)
class Compared:
    """A file of the release, or one made beside them, what came of it, and where it differs."""

    name: str
    result: str
    detail: str = ""


@dataclass(frozen=True)
class Reproduction:
    """files: in the order of their names. otherwise: what was otherwise when the release was made: then, now."""

    release: str
    checkpoint: str
    files: tuple[Compared, ...]
    otherwise: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether all that can be compared is."""
        return all(file.result in GOOD for file in self.files)

    def as_json(self) -> dict[str, Any]:
        return {"same": self.same, **asdict(self)}


def reproduce(release: Path, checkpoint: str | None, keep: Path | None, progress: Shows) -> Reproduction:
    """Verify a release, make its files again from the manifest, and compare them.

    checkpoint: where it lies now, if not where it was; keep: a folder for what was made. Raises GateFailed where the
    release is not what its manifest says, CheckpointError where the checkpoint is not the same, BadInput for a folder
    that is in use.
    """
    manifest, _ = artifact.verify(release)
    if manifest.coreml:
        check_installed()
    with _folder(release, keep) as work, machine(alone=False, waits=partial(progress.waits, "reproduce", "a test")):
        source = checkpoint_of(release, manifest, checkpoint)
        rebuilding = _Rebuilding(release, manifest, source, work, progress)
        made, calibrated = rebuilding.made()
        with progress.stage("compare"):
            files = _compared(release, manifest, made, calibrated)
        if keep:
            _keep(keep, made)
    return Reproduction(str(release), source.source, files, otherwise(manifest))


@contextlib.contextmanager
def _folder(release: Path, keep: Path | None) -> Iterator[Path]:
    """For what is made on the way: beside `keep`, or where temporary files go."""
    if keep:
        artifact.outside(keep, release)
        if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
            raise BadInput(f"{keep} is there and not empty; choose another --keep")
        with writing(keep):
            keep.mkdir(parents=True, exist_ok=True)
    with writing(keep or Path(tempfile.gettempdir())):
        where = keep.parent if keep else None
        with tempfile.TemporaryDirectory(prefix="jtts-export-", dir=where) as work:
            yield Path(work)


def _keep(keep: Path, made: Mapping[str, Path]) -> None:
    with writing(keep):
        for name, path in made.items():
            (keep / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, keep / name)


class _Rebuilding:
    """A release's stages once more, in a folder of their own, by what its manifest says."""

    def __init__(self, release: Path, manifest: Manifest, source: Source, work: Path, progress: Shows) -> None:
        self.release, self.manifest, self.work, self.progress = release, manifest, work, progress
        profile = Profile.model_validate(manifest.profile)
        self.stages = Stages(manifest.model, source, profile, manifest.opset, (), progress.step, manifest.licence)

    def made(self) -> tuple[dict[str, Path], dict[str, Compared]]:
        """What lies in a release -> the file that was made for it; and how calibrations compare, by their names."""
        self._check_seed()
        with self._stage("export") as exported:
            self.stages.export(exported)
        with self._stage("optimize") as optimized:
            self.stages.optimize(exported, optimized, prove=False)
        folders = {"fp32": optimized}
        calibrated: dict[str, Compared] = {}
        for variant, entry in self.manifest.variants.items():
            if variant != "fp32":
                with self._stage(f"quantize-{variant}") as folder:
                    compared = self._quantize(variant, entry, exported, optimized, folder)
                folders[variant] = folder
                calibrated |= {row.name: row for row in compared}
        packed = self._packages() if self.manifest.coreml else {}
        parts = release_parts(exported, folders, packed)
        if packed:
            (self.work / "page.md").write_text(self.stages.page(packed), encoding="utf-8")
            parts[f"{COREML}/README.md"] = self.work / "page.md"
        return parts, calibrated

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[Path]:
        folder = self.work / name
        with writing(self.work):
            folder.mkdir()
            with self.progress.stage(name):
                yield folder

    def _check_seed(self) -> None:
        """Raises CheckpointError where the seed gives other weights here."""
        recorded = self.manifest.checkpoint.get("seeded_sha256")
        if recorded is not None and self.stages.seeded != recorded:
            raise CheckpointError(
                f"{self.manifest.checkpoint['source']} gives other weights here than where {self.release} was made: "
                "a seed's numbers depend on the processor and on PyTorch's version"
            )

    def _quantize(
        self, variant: str, entry: Mapping[str, Any], exported: Path, optimized: Path, out: Path
    ) -> list[Compared]:
        from .quantize import calibration
        from .quantize.schemes import Recipe

        recipe = Recipe.model_validate(entry["recipe"])
        name = entry.get("calibration")
        recorded = calibration.read(self.release / name) if name else calibration.Calibration()
        own = self.stages.calibrate(recipe, exported, optimized)
        compared = [_near(name, recorded, own)] if name or own else []
        if all(row.detail != _UNFIT for row in compared):
            self.stages.requantize(variant, recipe, recorded, optimized, out)
        return compared

    def _packages(self) -> dict[str, Path]:
        target = _target(self.release, self.manifest)
        with self._stage(COREML) as plain:
            self.stages.coreml(target, plain)
        packed = {COREML: plain}
        if held := self.manifest.coreml["variants"].get(COREML_INT8):
            schemes = {stage: entry["scheme"] for stage, entry in held.items()}
            with self._stage(COREML_INT8) as light:
                self.stages.coreml_requantize(target, schemes, plain, light)
            packed[COREML_INT8] = light
        return packed


def _target(release: Path, manifest: Manifest) -> Target:
    target: Target = manifest.coreml["target"]
    if target not in TARGETS:
        raise GateFailed(f"{release}: no packages can be made for {target}")
    return target


_UNFIT = "is not of this recipe and these graphs"


def _near(name: str | None, recorded: Calibration, own: Calibration) -> Compared:
    """Whether what is recorded is what is found here."""
    from .quantize.calibration import distances

    name = name or f"{CALIBRATION}/"
    if not recorded.fits(own):
        return Compared(name, FAR, _UNFIT)
    found = distances(recorded, own)
    scales, zeros = max(d.scales_db for d in found.values()), max(d.levels for d in found.values())
    far = [what for what, d in found.items() if d.scales_db > NEAR_DB or d.levels > NEAR_LEVELS]
    words = (
        f"applied as recorded; own scales within {scales:.2g} dB, zero points within {zeros:.2g} levels "
        f"(allowed: {NEAR_DB:g} and {NEAR_LEVELS:g})"
    )
    return Compared(name, FAR, f"{words}; first: {far[0]}") if far else Compared(name, NEAR, words)


def _compared(
    release: Path, manifest: Manifest, made: Mapping[str, Path], calibrated: Mapping[str, Compared]
) -> tuple[Compared, ...]:
    rows = dict(calibrated)
    for name in sorted({*manifest.files, *made} - set(rows)):
        if name in (VALIDATION, CARD) or name.startswith(f"{REPORT}/"):
            rows[name] = Compared(name, NOT_COMPARED, "what was measured")
        elif name not in made:
            rows[name] = Compared(name, MISSING, "nothing of that name was made")
        elif name not in manifest.files:
            rows[name] = Compared(name, EXTRA, "made here")
        elif sha256_file(made[name]) == manifest.files[name].sha256:
            rows[name] = Compared(name, SAME)
        else:
            rows[name] = Compared(name, DIFFERS, difference.explain(release / name, made[name]))
    return tuple(rows[name] for name in sorted(rows))


def otherwise(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """What was otherwise when a release was made: what -> then, now."""
    now = tool()
    then = {
        **{f"jtts-export's {key}": _said(manifest.tool.get(key)) for key in now},
        **manifest.versions,
        **{key: _said(manifest.machine.get(key)) for key in artifact.machine()},
    }
    here = {
        **{f"jtts-export's {key}": _said(value) for key, value in now.items()},
        **tool_versions(),
        **{key: _said(value) for key, value in artifact.machine().items()},
    }
    return {
        what: (then.get(what, "none"), here.get(what, "none"))
        for what in {**then, **here}
        if then.get(what, "none") != here.get(what, "none")
    }


def _said(value: object) -> str:
    return "none" if value is None else str(value)
