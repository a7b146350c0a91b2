"""What is known of onnxruntime-web's operators: web_operators.json, which scripts/web_operators.py measures."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("web_operators.json")


@cache
def known() -> dict[str, Any]:
    """Version -> what it has, oldest first."""
    runtimes: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["runtimes"]
    return runtimes


def latest() -> str:
    """The last release among them; development versions are what some client pins."""
    return [version for version in known() if "-" not in version][-1]
