"""JUnit XML: a suite for each variant, a case for each gate.

A gate that does not hold is a failure. One that the measurement cannot decide is an error: most readers of JUnit
count the two apart, and both end a CI job, as neither may leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from .facts import FAIL, INCONCLUSIVE, Gate, gates, text

ERROR = "error"  # an outcome of what could not be judged, for it was never made
_ELEMENT = {FAIL: "failure", INCONCLUSIVE: "error", ERROR: "error"}


@dataclass(frozen=True)
class Result:
    """A test case. outcome: one of facts.OUTCOMES, or ERROR; what it says goes with those that do not pass."""

    name: str
    outcome: str
    says: str


def junit(validation: Mapping[str, Any]) -> str:
    """As Jenkins' junit-10.xsd has it; no times and no hosts, so that the same content is the same text."""
    suites = {variant: [result_of(g) for g in gates(validation, variant)] for variant in validation["variants"]}
    return document(f"jtts-export.{validation.get('model', '')}", suites)


def document(name: str, suites: Mapping[str, Sequence[Result]]) -> str:
    """The XML of suites by name."""
    every = [r for results in suites.values() for r in results]
    root = ET.Element("testsuites", {"name": text(name), **_counts(every)})
    for suite, results in suites.items():
        element = ET.SubElement(root, "testsuite", {"name": text(suite), "skipped": "0", **_counts(results)})
        for result in results:
            case = ET.SubElement(element, "testcase", name=text(result.name), classname=f"{text(name)}.{text(suite)}")
            if result.outcome in _ELEMENT:
                said = {"message": text(result.says, 400), "type": result.outcome}
                ET.SubElement(case, _ELEMENT[result.outcome], said)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _counts(results: Sequence[Result]) -> dict[str, str]:
    elements = [_ELEMENT.get(result.outcome) for result in results]
    failures, errors = (str(elements.count(element)) for element in ("failure", "error"))
    return {"tests": str(len(results)), "failures": failures, "errors": errors}


def result_of(gate: Gate, whose: str = "") -> Result:
    """The test case of a gate. whose: a prefix of its name."""
    if not gate.op:
        return Result(f"{whose}{gate.metric}", gate.outcome, gate.metric)
    between = f", interval {gate.between}" if gate.between else ""
    says = f"measured {gate.measured}{between}; limit {gate.wanted}"
    return Result(f"{whose}{gate.metric} {gate.wanted}", gate.outcome, says)
