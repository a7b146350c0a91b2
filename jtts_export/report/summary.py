"""The summary of a CI job, in GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .facts import OUTCOMES, PASS, Gate, about, all_gates, main_table, text, title, why

SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}
_MARKDOWN = re.compile(r"([\\`*_\[\]#!|~$:])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def markdown(validation: Mapping[str, Any]) -> str:
    """Verdict and why; gates that do not hold; main figures; what it was measured on."""
    verdict, found = text(validation["verdict"], 20), all_gates(validation)
    open_ = [g for g in found if g.outcome != PASS]
    lines = [
        f"## {SIGNS.get(verdict, '')} {escape(title(validation))}: {escape(verdict)}",
        "",
        escape(why(validation)),
        "",
        *_verdicts(validation, found),
        *(["### Gates that do not hold", "", *_gate_rows(open_), ""] if open_ else []),
        "### Main figures",
        "",
        *rows_of(*main_table(validation)),
        "",
        "; ".join(f"{escape(term)}: {escape(said)}" for term, said in about(validation)) + ".",
        "",
    ]
    return "\n".join(lines)


def rows_of(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table; every cell is escaped."""
    lines = ["| " + " | ".join(map(escape, row)) + " |" for row in (header, *rows)]
    return [lines[0], "| --- |" + " ---: |" * (len(header) - 1), *lines[1:]]


def escape(value: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no link, no formula, no end of a table's cell."""
    return "".join(_ENTITIES.get(c, c) for c in _MARKDOWN.sub(r"\\\1", value))


def _verdicts(validation: Mapping[str, Any], found: Sequence[Gate]) -> list[str]:
    counted = []
    for name, variant in validation["variants"].items():
        own = [g.outcome for g in found if g.variant == text(name)]
        verdict = text(variant.get("verdict", ""), 20)
        counted.append([text(name), f"{SIGNS.get(verdict, '')} {verdict}", *(str(own.count(o)) for o in OUTCOMES)])
    return [*rows_of(["variant", "verdict", "failing", "inconclusive", "holding"], counted), ""]


def _gate_rows(found: Sequence[Gate]) -> list[str]:
    cells = [[g.variant, g.metric, g.measured, g.between, g.wanted, g.outcome] for g in found]
    return rows_of(["variant", "metric", "measured", "interval", "limit", "outcome"], cells)
