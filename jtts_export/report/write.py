"""The report's three files, in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .page import html
from .results import junit
from .summary import markdown

PAGE, SUMMARY, RESULTS = "index.html", "report.md", "junit.xml"


def write(validation: Mapping[str, Any], samples: Path | None, folder: Path) -> None:
    """index.html, report.md and junit.xml of one release. samples: the folder that holds its FLAC files."""
    write_texts(folder, html(validation, samples), markdown(validation), junit(validation))


def write_texts(folder: Path, page: str, summary: str, results: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((PAGE, page), (SUMMARY, summary), (RESULTS, results)):
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
