"""Metrics to a verdict, and to JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from jtts_export.profiles.schema import parse_gate
from jtts_export.validate.gates import FAIL, PASS, finite, judge

GATES = [parse_gate("size_mb", "<= 100"), parse_gate("parity_f0_snr_db", ">= 20")]
GOOD = {"size_mb": 99.0, "parity_f0_snr_db": 20.0, "load_ms": 3.0}


def test_every_gate_must_pass() -> None:
    verdict = judge(GATES, GOOD)
    assert verdict["verdict"] == PASS
    assert verdict["gates"] == [
        {"metric": "size_mb", "op": "<=", "limit": 100.0, "value": 99.0, "passed": True},
        {"metric": "parity_f0_snr_db", "op": ">=", "limit": 20.0, "value": 20.0, "passed": True},
    ]


@pytest.mark.parametrize("value", [100.1, math.nan, math.inf])
def test_one_gate_that_fails_fails_all_and_is_named(value: float) -> None:
    verdict = judge(GATES, GOOD | {"size_mb": value})
    assert verdict["verdict"] == FAIL
    assert [g["metric"] for g in verdict["gates"] if not g["passed"]] == ["size_mb"]


def test_a_metric_that_was_not_measured_fails() -> None:
    verdict = judge(GATES, {"size_mb": 99.0})
    assert verdict["verdict"] == FAIL
    assert (verdict["gates"][1]["value"], verdict["gates"][1]["passed"]) == (None, False)


def test_without_gates_nothing_passes() -> None:
    assert judge([], GOOD) == {"verdict": FAIL, "gates": []}


def test_what_json_cannot_hold_becomes_text() -> None:
    content = {"a": [math.inf, (-math.inf, 1.5)], "b": {"c": math.nan, "d": "inf", "e": None, "f": 3, "g": True}}
    safe = finite(content)
    assert safe == {"a": ["inf", ["-inf", 1.5]], "b": {"c": "nan", "d": "inf", "e": None, "f": 3, "g": True}}
    assert json.loads(json.dumps(safe, allow_nan=False)) == safe
    assert content["a"][0] == math.inf  # the original is left alone


def test_text_for_infinity_reads_back_as_a_number() -> None:
    assert float(str(finite(-math.inf))) == -math.inf
    assert finite(np.float64("inf")) == "inf"


def test_a_verdict_of_infinities_can_be_written() -> None:
    verdict = judge(GATES, {"size_mb": math.nan, "parity_f0_snr_db": math.inf})
    assert json.loads(json.dumps(finite(verdict), allow_nan=False))["gates"][1]["passed"] is True
