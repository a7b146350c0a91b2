"""Metrics and a profile's gates -> a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jtts_export.profiles.metrics import is_flattered
from jtts_export.profiles.schema import Gate

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"

Interval = tuple[float, float]


def judge(
    gates: Sequence[Gate],
    metrics: Mapping[str, float],
    intervals: Mapping[str, Interval] | None = None,
    disturbed: Sequence[str] = (),
) -> dict:
    """`verdict`, and `gates` with the measured values and their outcomes.

    A metric that was not measured fails its gate, and so does a variant without any gate: nothing passes because
    nobody looked. intervals: of metrics, between which values the true one lies: a gate that one end passes and the
    other fails is inconclusive. disturbed: metrics that were measured while others kept the machine busy: they may
    pass, unless that may have flattered them, for others only make it slower, and are inconclusive where they do not.
    """
    rows, outcomes = [], []
    for gate in gates:
        row = {"metric": gate.metric, "op": gate.op, "limit": gate.limit, "value": metrics.get(gate.metric)}
        ends = (intervals or {}).get(gate.metric)
        outcome = _outcome(gate, metrics, ends)
        if gate.metric in disturbed and gate.metric in metrics and (outcome == FAIL or is_flattered(gate.metric)):
            outcome = INCONCLUSIVE
        between = {"interval": list(ends)} if ends else {}
        rows.append({**row, **between, "outcome": outcome, "passed": outcome == PASS})
        outcomes.append(outcome)
    return {"verdict": verdict_of(outcomes), "gates": rows}


def _outcome(gate: Gate, metrics: Mapping[str, float], ends: Interval | None) -> str:
    passes = {gate.passes({gate.metric: end}) for end in ends} if ends else {gate.passes(metrics)}
    return INCONCLUSIVE if len(passes) > 1 else PASS if passes.pop() else FAIL


def verdict_of(outcomes: Sequence[str]) -> str:
    """Of gates, or of variants: a failure decides, then what is inconclusive."""
    return next((bad for bad in (FAIL, INCONCLUSIVE) if bad in outcomes), PASS if outcomes else FAIL)


def finite(value: object) -> object:
    """JSON has no infinity: +-inf and NaN as strings, everything else unchanged, recursively."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
