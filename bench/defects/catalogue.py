"""Every defect that is planted."""

from __future__ import annotations

from pathlib import Path

from . import kokoro, speecht5, t3
from .defect import Defect
from .releases import of_release

DEFECTS = {"kokoro": kokoro.DEFECTS, "speecht5": speecht5.DEFECTS, "t3": t3.DEFECTS}


def defects(model: str, release: Path | None, once: bool = False) -> list[Defect]:
    """Of a model, and of its release where there is one. once: those that fp32 and int8 can both have, of int8 alone,
    whose gates leave more room."""
    both = {defect.name for defect in DEFECTS[model] if defect.variant == "int8"} if once else set()
    found = [defect for defect in DEFECTS[model] if defect.variant != "fp32" or defect.name not in both]
    return [*found, *(of_release(model, release) if release else [])]
