"""Metrics and a profile's gates -> a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jtts_export.profiles.schema import Gate

PASS, FAIL = "pass", "fail"


def judge(gates: Sequence[Gate], metrics: Mapping[str, float]) -> dict:
    """`verdict`, and `gates` with the measured values. A metric that was not measured fails its gate, and so
    does a variant without any gate: nothing passes because nobody looked."""
    rows = [
        {
            "metric": gate.metric,
            "op": gate.op,
            "limit": gate.limit,
            "value": metrics.get(gate.metric),
            "passed": gate.passes(metrics),
        }
        for gate in gates
    ]
    return {"verdict": PASS if rows and all(r["passed"] for r in rows) else FAIL, "gates": rows}


def finite(value: object) -> object:
    """JSON has no infinity: +-inf and NaN as strings, everything else unchanged, recursively."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
