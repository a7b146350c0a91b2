"""What came of a plan: a table, report.md, junit.xml, and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jtts_export.card import COLUMNS, number
from jtts_export.redact import redacted
from jtts_export.report.facts import PASS, all_gates, public, text, why
from jtts_export.report.results import ERROR, Result, document, result_of
from jtts_export.report.summary import SIGNS, escape, rows_of
from jtts_export.report.write import RESULTS, SUMMARY
from jtts_export.store import writing

from .run import Done

_FIGURES = tuple(column for column in COLUMNS if column[0] in ("MB", "RTF", "x PyTorch", "x fp32"))
HEADER = ["build", "variant", "verdict", *(title for title, _, _ in _FIGURES), "s", "why"]
WORST = (1, 4, 2, 3)  # exit codes; of several the first: a bug, the outside world, a request, a gate
_RTF = {"rtf_warm_p50": "step_rtf"}  # what stands in for it where no audio is made


def exit_code(done: Sequence[Done]) -> int:
    """0 where all passed; else the worst."""
    codes = {one.code for one in done}
    return next((code for code in WORST if code in codes), 0)


def table(done: Sequence[Done]) -> list[list[str]]:
    """Rows under HEADER: one for each variant of each build."""
    return [row for one in done for row in _rows(one)]


def _rows(done: Done) -> list[list[str]]:
    seconds = "" if done.unchanged else f"{done.seconds:.1f}"
    name, said = done.build.name, text(redacted(_why(done)), 240)
    if done.error:
        return [[name, "", done.verdict, "", "", "", "", seconds, said]]
    rows: list[list[str]] = []
    for variant, measured in done.validation["variants"].items():
        figures = [_figure(measured["metrics"], metric, form) for _, metric, form in _FIGURES]
        first = not rows
        rows.append([name, variant, measured["verdict"], *figures, seconds if first else "", said if first else ""])
        name = ""
    return rows


def _figure(metrics: dict[str, Any], metric: str, form: str) -> str:
    value = metrics.get(metric, metrics.get(_RTF.get(metric, "")))
    return "" if value is None else number(value, form)


def _why(done: Done) -> str:
    """Empty where there is nothing to say."""
    if done.error:
        return done.error
    parts = [] if done.validation["verdict"] == PASS else [why(done.validation)]
    parts += ["unchanged"] if done.unchanged else []
    parts += [done.published] if done.published else []
    return "; ".join(parts)


def as_json(done: Sequence[Done]) -> dict[str, Any]:
    """For programs."""
    return {
        "exit_code": exit_code(done),
        "builds": [
            {
                "name": one.build.name,
                "model": one.build.job.model,
                "verdict": one.verdict,
                "release": str(one.release) if one.release else None,
                "seconds": round(one.seconds, 3),
                "unchanged": one.unchanged,
                "error": redacted(one.error) or None,
                "published": one.published or None,
                "code": one.code,
                "variants": {
                    variant: {
                        "verdict": of["verdict"],
                        **{metric: of["metrics"].get(metric) for _, metric, _ in _FIGURES},
                    }
                    for variant, of in one.validation.get("variants", {}).items()
                },
            }
            for one in done
        ],
    }


def write(done: Sequence[Done], name: str, folder: Path) -> None:
    """report.md and junit.xml of a plan. Raises OutsideError where they cannot be written."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SUMMARY).write_text(markdown(done, name), encoding="utf-8", newline="\n")
        (folder / RESULTS).write_text(junit(done, name), encoding="utf-8", newline="\n")


def markdown(done: Sequence[Done], name: str) -> str:
    """For a CI job's summary: the table, then the gates that do not hold and what went wrong."""
    passed = sum(one.verdict == PASS for one in done)
    rows = [[*row[:2], f"{SIGNS.get(row[2], '❌')} {row[2]}", *row[3:]] for row in table(done)]
    lines = [
        f"## {SIGNS['pass' if exit_code(done) == 0 else 'fail']} {escape(text(name))}: "
        f"{passed} of {len(done)} builds passed",
        "",
        *rows_of(HEADER, rows),
        "",
    ]
    for one in (one for one in done if one.code):
        job = one.build.job
        lines += [
            f"### {escape(one.build.name)}",
            "",
            escape(f"{job.model} from {text(public(job.checkpoint))}, profile {job.profile.name}: {one.verdict}"),
            "",
        ]
        if said := one.error or one.published:
            lines += [escape(text(redacted(said), 1000)), ""]
        open_ = [] if one.error else [gate for gate in all_gates(one.validation) if gate.outcome != PASS]
        if open_:
            cells = [[g.variant, g.metric, g.measured, g.between, g.wanted, g.outcome] for g in open_]
            lines += [*rows_of(["variant", "metric", "measured", "interval", "limit", "outcome"], cells), ""]
    return "\n".join(lines)


def junit(done: Sequence[Done], name: str) -> str:
    """A suite for each build: a case for each gate, or one for what went wrong."""
    suites = {one.build.name: _results(one) for one in done}
    return document(f"jtts-export.{name}", suites)


def _results(done: Done) -> list[Result]:
    if done.error:
        return [Result("build", ERROR, redacted(done.error))]
    found = [result_of(gate, f"{gate.variant}.") for gate in all_gates(done.validation)]
    if done.published:
        failed = done.verdict == PASS and done.code
        found.append(Result("publish", ERROR if failed else PASS, redacted(done.published)))
    return found
