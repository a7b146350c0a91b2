"""Two releases side by side: what changed, and whether it still holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from . import facts
from .changes import Change, Turn, changes_of, main_metrics, sentence, trend, turns
from .facts import Gate
from .results import Result, document
from .summary import SIGNS, escape, rows_of


@dataclass(frozen=True)
class Comparison:
    """A page, a summary and test results; a table for the terminal, header and rows; the same for programs."""

    html: str
    markdown: str
    junit: str
    header: list[str]
    rows: list[list[str]]
    content: dict[str, Any]

    def write(self, folder: Path) -> None:
        """index.html, report.md and junit.xml."""
        from .write import write_texts

        write_texts(folder, self.html, self.markdown, self.junit)


def compare(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    a_samples: Path | None = None,
    b_samples: Path | None = None,
    names: tuple[str, str] = ("A", "B"),
) -> Comparison:
    """What changed from release `a` to release `b`. *_samples: folders of their FLAC files; names: what to call them.

    A gate of `b` fails in the test results where it fails; the message says what it was in `a`.
    """
    labels = _labels(names)
    changes, turned = changes_of(a, b), turns(a, b)
    main = [c for c in changes if c.metric in main_metrics()]
    rows = [[c.variant, c.metric, c.first, c.second, c.change, c.trend] for c in main]
    rows += [[t.variant, t.metric, t.first, t.second, " -> ".join(t.outcomes), trend(t)] for t in turned]
    return Comparison(
        html=_page(a, b, a_samples, b_samples, labels, main, changes, turned),
        markdown=_markdown(a, b, labels, main, turned),
        junit=_results(a, b),
        header=["variant", "metric", *labels, "change", ""],
        rows=rows,
        content=_content(a, b, changes, turned),
    )


def _labels(names: tuple[str, str]) -> tuple[str, str]:
    """The names, short; A and B where that leaves them the same."""
    first, second = (facts.text(name, 24) for name in names)
    return (first, second) if first != second else ("A", "B")


def _page(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    a_samples: Path | None,
    b_samples: Path | None,
    labels: tuple[str, str],
    main: Sequence[Change],
    changes: Sequence[Change],
    turned: Sequence[Turn],
) -> str:
    from .figures import rtf
    from .page import fitted

    both = {n: (a["variants"][n], b["variants"][n]) for n in a["variants"] if n in b["variants"]}
    charts = [
        replace(figure, title=f"{figure.title}, {facts.text(name, 40)}")
        for name, pair in both.items()
        for figure in rtf(dict(zip(labels, pair, strict=True)), {labels[0]: 1, labels[1]: 2})
    ]
    content = {
        "title": facts.title(a) if facts.title(a) == facts.title(b) else f"{facts.title(a)} and {facts.title(b)}",
        "labels": labels,
        "verdicts": [facts.text(v["verdict"], 20) for v in (a, b)],
        "whys": [facts.why(v) for v in (a, b)],
        "sentence": sentence(turned),
        "turned": [(t, trend(t)) for t in turned],
        "main": _by_variant(main),
        "changes": _by_variant(changes),
        "count": len(changes),
        "alone": _alone(a, b, labels),
        "rtf": charts,
        "sizes": _sizes(both),
        "abouts": [facts.about(a), facts.about(b)],
    }
    return fitted("compare.jinja", content, _cases(a, b, a_samples, b_samples, labels, list(both)))


def _content(
    a: Mapping[str, Any], b: Mapping[str, Any], changes: Sequence[Change], turned: Sequence[Turn]
) -> dict[str, Any]:
    return {
        "verdicts": [a["verdict"], b["verdict"]],
        "metrics": [
            {"variant": c.variant, "metric": c.metric, "values": list(c.values), "trend": c.trend} for c in changes
        ],
        "gates": [
            {"variant": t.variant, "metric": t.metric, "outcomes": list(t.outcomes), "trend": trend(t)}
            for t in turned
        ],
    }


def _by_variant(changes: Sequence[Change]) -> list[tuple[str, list[Change]]]:
    return [(name, list(own)) for name, own in groupby(changes, key=lambda change: change.variant)]


def _alone(a: Mapping[str, Any], b: Mapping[str, Any], labels: tuple[str, str]) -> list[str]:
    """Sentences on variants that one of them lacks."""
    return [
        f"{facts.text(name, 40)} is only in {label}."
        for one, other, label in ((a, b, labels[0]), (b, a, labels[1]))
        for name in one["variants"]
        if name not in other["variants"]
    ]


def _sizes(both: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[tuple[str, str, str, Any]]:
    from .plots import pair

    known = {n: [facts.finite([(v.get("metrics") or {}).get("size_mb")]) for v in two] for n, two in both.items()}
    sizes = {name: (first[0], second[0]) for name, (first, second) in known.items() if first and second}
    most = max((max(two) for two in sizes.values()), default=0) or 1
    rows = []
    for name, (first, second) in sizes.items():
        one, other = (facts.figure("size_mb", size) for size in (first, second))
        rows.append((facts.text(name, 40), one, other, pair(first / most, second / most, f"{one} and {other}")))
    return rows


def _cases(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    a_samples: Path | None,
    b_samples: Path | None,
    labels: tuple[str, str],
    variants: Sequence[str],
) -> list[Any]:
    """Samples of the same case in both: A's reference, B's where it is another file, and each variant of both."""
    from .listen import REFERENCE, Case, Sound, file_of

    others = dict(_said(b))
    found = []
    for said, row in _said(a):
        other = others.get(said)
        reference = file_of(a_samples, row, REFERENCE)
        if other is None or reference is None:
            continue
        sounds = [Sound(REFERENCE, 0, reference)]
        second = file_of(b_samples, other, REFERENCE)
        if second and second.read_bytes() != reference.read_bytes():
            sounds.append(Sound(f"{REFERENCE} of {labels[1]}", 0, second))
        for variant in variants:
            paths = [file_of(a_samples, row, variant), file_of(b_samples, other, variant)]
            if all(paths):
                shown = [f"{facts.text(variant, 40)}, {label}" for label in labels]
                sounds += [Sound(shown[i], 1 + i, paths[i]) for i in range(2)]
        if len(sounds) > 2:
            found.append(Case(facts.text(row.get("case", ""), 60), facts.text(row.get("text") or "", 400), sounds))
    return found


def _said(validation: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """Samples by what tells them apart: case, text, and which one it is of those that share both."""
    seen: Counter[tuple[Any, ...]] = Counter()
    for row in validation.get("samples") or []:
        said = (row.get("case"), row.get("text"))
        seen[said] += 1
        yield (*said, seen[said]), row


def _markdown(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    labels: tuple[str, str],
    main: Sequence[Change],
    turned: Sequence[Turn],
) -> str:
    verdicts = [facts.text(v["verdict"], 20) for v in (a, b)]
    lines = [f"## {escape(facts.title(a))}: {escape(labels[0])} and {escape(labels[1])}", ""]
    lines += [
        f"- {SIGNS.get(v, '')} {escape(label)}: {escape(v)}. {escape(facts.why(x))}"
        for label, v, x in zip(labels, verdicts, (a, b), strict=True)
    ]
    lines += ["", escape(sentence(turned)), ""]
    if turned:
        cells = [[t.variant, t.metric, t.wanted, t.first, t.second, " -> ".join(t.outcomes)] for t in turned]
        lines += ["### Gates whose outcome changed", ""]
        lines += [*rows_of(["variant", "metric", "limit", *labels, "outcome"], cells), ""]
    cells = [[c.variant, c.metric, c.first, c.second, c.change, c.trend] for c in main]
    lines += ["### Main figures", "", *rows_of(["variant", "metric", *labels, "change", "by its gate"], cells), ""]
    return "\n".join(lines)


def _results(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    suites = {}
    for variant in b["variants"]:
        before = {g.metric: g for g in facts.gates(a, variant)} if variant in a["variants"] else {}
        suites[variant] = [_result(before.get(g.metric), g) for g in facts.gates(b, variant)]
    return document(f"jtts-export.compare.{b.get('model', '')}", suites)


def _result(before: Gate | None, gate: Gate) -> Result:
    was = f"; was {before.measured}, {before.outcome}" if before else "; was not judged"
    return Result(f"{gate.metric} {gate.wanted}".strip(), gate.outcome, f"measured {gate.measured}{was}")
