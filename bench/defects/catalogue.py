"""Every defect that is planted."""

from __future__ import annotations

from pathlib import Path

from . import kokoro, speecht5, t3
from .defect import Defect
from .releases import of_release

DEFECTS = {"kokoro": kokoro.DEFECTS, "speecht5": speecht5.DEFECTS, "t3": t3.DEFECTS}


def defects(model: str, release: Path | None) -> list[Defect]:
    """Of a model, and of its release where there is one."""
    return [*DEFECTS[model], *(of_release(model, release) if release else [])]
