"""What differs between two releases, figure by figure and gate by gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import facts
from .facts import FAIL, INCONCLUSIVE, PASS, Gate

UNJUDGED = "no gate"
_RANK = {FAIL: 0, INCONCLUSIVE: 1, PASS: 2}


@dataclass(frozen=True)
class Change:
    """A metric of a variant in both releases, as text; `values` are the JSON's. trend: `better` or `worse` by the
    gates on it, else empty."""

    variant: str
    metric: str
    first: str
    second: str
    change: str
    trend: str
    values: tuple[object, object]


@dataclass(frozen=True)
class Turn:
    """A gate whose outcome is another in the second release: outcomes there and here, and both values."""

    variant: str
    metric: str
    wanted: str
    first: str
    second: str
    outcomes: tuple[str, str]

    @property
    def worse(self) -> bool:
        before, after = self.outcomes
        return after in _RANK and _RANK[after] < _RANK.get(before, _RANK[PASS])


def changes_of(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """Every metric of every variant of either release; main figures first, in the model card's order."""
    wanted = {g["metric"]: g["op"] for v in (a, b) for n in v["variants"] for g in v["variants"][n].get("gates", [])}
    main = list(main_metrics())
    found = []
    for variant in _both(a["variants"], b["variants"]):
        first, second = (v["variants"].get(variant, {}).get("metrics") or {} for v in (a, b))
        metrics = _both(first, second)
        metrics.sort(key=lambda m: main.index(m) if m in main else len(main))
        found += [_change(variant, m, first.get(m), second.get(m), wanted.get(m, "")) for m in metrics]
    return found


def _change(variant: str, metric: str, first: object, second: object, op: str) -> Change:
    before, after = facts.real(first), facts.real(second)
    said, trend = "", ""
    if before is not None and after is not None:
        said = _said(metric, before, after)
        if before != after and op[:1] in {">", "<"}:
            trend = "better" if (after > before) == (op[0] == ">") else "worse"
    shown = [facts.figure(metric, value) for value in (first, second)]
    return Change(facts.text(variant), facts.text(metric), shown[0], shown[1], said, trend, (first, second))


def _said(metric: str, before: float, after: float) -> str:
    if before == after:
        return "="
    difference = after - before
    if not math.isfinite(difference):
        return ""
    sign = "+" if difference > 0 else "−"
    if facts.unit(metric) in {"dB", "LU", "cents"} or before == 0:  # already relative, or without a measure
        return f"{sign}{facts.figure(metric, abs(difference))}"
    return f"{sign}{abs(difference / before):.1%}"


def turns(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Turn]:
    """Gates with another outcome, those that got worse first."""
    found = []
    for variant in _both(a["variants"], b["variants"]):
        before, after = (
            {g.metric: g for g in facts.gates(v, variant)} if variant in v["variants"] else {} for v in (a, b)
        )
        for metric in _both(before, after):
            one, other = before.get(metric), after.get(metric)
            outcomes = (one.outcome if one else UNJUDGED, other.outcome if other else UNJUDGED)
            if outcomes[0] != outcomes[1]:
                found.append(_turn(one, other, outcomes))
    return sorted(found, key=lambda t: not t.worse)


def _turn(one: Gate | None, other: Gate | None, outcomes: tuple[str, str]) -> Turn:
    gate = other or one
    assert gate
    measured = [g.measured if g else "" for g in (one, other)]
    return Turn(gate.variant, gate.metric, gate.wanted, measured[0], measured[1], outcomes)


def trend(turn: Turn) -> str:
    """`worse`, `better`, or empty for a gate that is new or gone."""
    return "worse" if turn.worse else "better" if UNJUDGED not in turn.outcomes else ""


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def main_metrics() -> tuple[str, ...]:
    from jtts_export.card import COLUMNS

    return tuple(key for _, key, _ in COLUMNS)


def sentence(turned: Sequence[Turn]) -> str:
    """What became of the gates."""
    worse = [t for t in turned if t.worse]
    better = [t for t in turned if trend(t) == "better"]
    shown = ", ".join(f"{t.variant} {t.metric} ({t.outcomes[0]} -> {t.outcomes[1]})" for t in worse[:3])
    more = f" and {len(worse) - 3} more" if len(worse) > 3 else ""
    parts = [f"{_count(len(worse))} got worse: {shown}{more}"] if worse else []
    parts += [f"{_count(len(better))} got better"] if better else []
    said = "; ".join(parts) or "No gate changed its outcome"
    return f"{said}."


def _count(gates: int) -> str:
    return f"{gates} gate{'s' * (gates != 1)}"
