"""Two releases of a model, by what was measured of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import artifact
from .errors import BadInput
from .store import writing

if TYPE_CHECKING:
    from .report import Comparison

SAMPLES = Path("report/samples")


def compare_releases(a: Path, b: Path, folder: Path | None) -> Comparison:
    """What changed from `a` to `b`, whose checksums are verified first. folder: also write index.html, report.md and
    junit.xml there. Raises BadInput for releases of different models, and for a folder inside one of them."""
    from .report import compare

    (first, before), (second, after) = artifact.verify(a), artifact.verify(b)
    if first.model != second.model:
        raise BadInput(f"{a} is a release of {first.model}, {b} one of {second.model}")
    if folder:
        artifact.outside(folder, a)
        artifact.outside(folder, b)
    made = compare(before, after, a / SAMPLES, b / SAMPLES, labels(a, b))
    if folder:
        with writing(folder):
            made.write(folder)
    return made


def labels(a: Path, b: Path) -> tuple[str, str]:
    """What tells the two apart: the last parts of their paths that differ."""
    parts = zip(reversed(a.resolve().parts), reversed(b.resolve().parts), strict=False)
    return next(((one, other) for one, other in parts if one != other), ("A", "B"))
