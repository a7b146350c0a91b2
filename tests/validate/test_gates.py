"""Metrics to a verdict, and to JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from jtts_export.profiles.schema import parse_gate
from jtts_export.validate.gates import FAIL, INCONCLUSIVE, PASS, finite, judge

GATES = [parse_gate("size_mb", "<= 100"), parse_gate("parity_f0_snr_db", ">= 20")]
GOOD = {"size_mb": 99.0, "parity_f0_snr_db": 20.0, "load_ms": 3.0}


def test_every_gate_must_pass() -> None:
    verdict = judge(GATES, GOOD)
    assert verdict["verdict"] == PASS
    assert verdict["gates"] == [
        {"metric": "size_mb", "op": "<=", "limit": 100.0, "value": 99.0, "outcome": PASS, "passed": True},
        {"metric": "parity_f0_snr_db", "op": ">=", "limit": 20.0, "value": 20.0, "outcome": PASS, "passed": True},
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


TIMED = [parse_gate("rtf_warm_p50", "<= 0.5"), parse_gate("size_mb", "<= 100")]


@pytest.mark.parametrize(
    ("ends", "outcome"), [((0.3, 0.4), PASS), ((0.6, 0.7), FAIL), ((0.4, 0.6), INCONCLUSIVE), ((0.1, 0.5), PASS)]
)
def test_an_interval_across_the_limit_is_inconclusive(ends: tuple[float, float], outcome: str) -> None:
    """Even where the value itself would pass: that is luck."""
    verdict = judge(TIMED, {"rtf_warm_p50": 0.45, "size_mb": 1.0}, {"rtf_warm_p50": ends})
    assert verdict["verdict"] == outcome
    assert verdict["gates"][0]["interval"] == list(ends)
    assert verdict["gates"][0]["passed"] is (outcome == PASS)


def test_a_time_taken_on_a_busy_machine_may_pass_but_not_fail() -> None:
    for value, outcome in ((0.4, PASS), (0.6, INCONCLUSIVE)):
        assert judge(TIMED, {"rtf_warm_p50": value, "size_mb": 1.0}, {}, ["rtf_warm_p50"])["verdict"] == outcome
    assert judge(TIMED, {"size_mb": 1.0}, {}, ["rtf_warm_p50"])["verdict"] == FAIL  # was not measured at all


@pytest.mark.parametrize("value", [0.1, 0.3])
def test_growth_on_a_busy_machine_says_nothing_either_way(value: float) -> None:
    """Early calls that others slowed hide that later ones take longer."""
    gates = [parse_gate("call_growth_ratio", "<= 0.2")]
    assert judge(gates, {"call_growth_ratio": value}, {}, ["call_growth_ratio"])["verdict"] == INCONCLUSIVE
    assert judge(gates, {"call_growth_ratio": value})["verdict"] == (PASS if value <= 0.2 else FAIL)


def test_a_failure_outweighs_what_is_inconclusive() -> None:
    verdict = judge(TIMED, {"rtf_warm_p50": 0.6, "size_mb": 101.0}, {}, ["rtf_warm_p50"])
    assert [row["outcome"] for row in verdict["gates"]] == [INCONCLUSIVE, FAIL]
    assert verdict["verdict"] == FAIL


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
