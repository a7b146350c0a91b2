"""index.html: one file that asks for nothing else, and reads without its script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import facts
from .facts import PASS, Gate

if TYPE_CHECKING:
    from jinja2 import Environment

    from .listen import Case, Drawn

LIMIT_BYTES = 1_000_000
STYLES = 6  # colours of the style sheet, the reference's among them
FEW_GATES = 12  # of a variant: of more, those that hold are folded away
_TEMPLATES = Path(__file__).parent / "templates"


def html(validation: Mapping[str, Any], samples: Path | None) -> str:
    """The page of one release. samples: the folder that holds its FLAC files, None where it has none.

    LIMIT_BYTES at most: cases that do not fit are named, not embedded.
    """
    from . import figures, listen

    variants = validation["variants"]
    styles = styles_of(variants)
    content = {
        "title": facts.title(validation),
        "verdict": facts.text(validation["verdict"], 20),
        "why": facts.why(validation),
        "about": facts.about(validation),
        "main": facts.main_table(validation),
        "gates": sorted((_judged(validation, name) for name in variants), key=lambda judged: judged["rank"]),
        "rtf": figures.rtf(variants, styles),
        "calls": [*figures.calls(variants, styles), *figures.warm_up(variants, styles)],
        "stages": figures.stages(variants),
        "streams": figures.streams(variants, styles),
        "layers": [(facts.text(name, 40), rows) for name, v in variants.items() if (rows := figures.layers(v))],
        "metrics": _metrics(variants),
        "noise": figures.probes(validation.get("noise") or {}),
    }
    return fitted("release.jinja", content, listen.cases(validation, samples, styles))


def styles_of(names: Iterable[str]) -> dict[str, int]:
    """Name -> number of its colour; 0 is the reference's."""
    return {name: 1 + i % (STYLES - 1) for i, name in enumerate(names)}


def fitted(template: str, content: Mapping[str, Any], cases: Sequence[Case]) -> str:
    """A page with as many of the cases, in their order, as fit into LIMIT_BYTES."""
    from markupsafe import escape

    from .listen import draw

    # The page names some of those that it omits: at worst the longest.
    longest = sorted((case.name for case in cases), key=lambda name: -len(escape(name).encode()))
    left = LIMIT_BYTES - len(render(template, {**content, "cases": [], "omitted": longest}).encode())
    embedded: list[Drawn] = []
    omitted: list[str] = []
    for case in cases:
        drawn = draw(case)
        size = len(render("case.jinja", {"case": drawn, "unfolded": True}).encode()) if drawn else 0
        if drawn and size <= left:
            embedded.append(drawn)
            left -= size
        elif drawn:
            omitted.append(case.name)
    return render(template, {**content, "cases": embedded, "omitted": omitted})


def render(template: str, content: Mapping[str, Any]) -> str:
    return _environment().get_template(template).render(content)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(_TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Names may break behind these, so that a phone's columns hold them.
    for name, marks in (("breaks", "_"), ("path_breaks", "/")):
        environment.filters[name] = lambda value, marks=marks: Markup("").join(
            Markup("{}<wbr>").format(part) if part in marks else part for part in str(value)
        )
    for name in ("style.css", "script.js"):
        source = (_TEMPLATES / name).read_text(encoding="utf-8")
        kind = name.partition(".")[0]
        environment.globals[kind] = Markup(source)  # noqa: S704 - our own file
        environment.globals[f"{kind}_hash"] = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return environment


def _judged(validation: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A variant's gates as the page shows them, failing ones first; rank: of its worst one."""
    rows = [(gate, _strip(gate)) for gate in facts.gates(validation, name)]
    fold = len(rows) > FEW_GATES
    return {
        "name": facts.text(name),
        "verdict": facts.text(validation["variants"][name].get("verdict", ""), 20),
        "rank": facts.OUTCOMES.index(rows[0][0].outcome),
        "shown": [row for row in rows if not fold or row[0].outcome != PASS],
        "folded": [row for row in rows if fold and row[0].outcome == PASS],
    }


def _strip(gate: Gate) -> Any:
    from .plots import strip

    value = facts.real(gate.value)
    return None if value is None else strip(value, gate.limit, gate.interval, gate.outcome)


def _metrics(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Every metric that was measured, in METRICS' order, unknown ones last: name, meaning, figures by variant."""
    from jtts_export.profiles.schema import METRICS

    measured = {m: None for v in variants.values() for m in v.get("metrics") or {}}
    order = [*(m for m in METRICS if m in measured), *(m for m in measured if m not in METRICS)]
    values = [v.get("metrics") or {} for v in variants.values()]
    rows = [(facts.text(m), METRICS.get(m, ""), [facts.figure(m, v.get(m)) for v in values]) for m in order]
    return {"names": [facts.text(name, 40) for name in variants], "rows": rows}
