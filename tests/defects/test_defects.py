"""Every planted defect is caught by a gate that the same artifact passes without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.defects.catalogue import DEFECTS
from bench.defects.defect import Defect
from bench.defects.trial import Good, attempt

# What is planted alike in several models and variants is planted here in the one that is judged fastest; `python -m
# bench.defects` plants all.
AUDIO = {
    *("tail of 5 % missing", "tail of 20 ms missing", "segment repeated", "segment dropped", "resampled"),
    *("DC offset", "clipped", "noise", "gain", "polarity"),
}
ONCE = {d.name for d in DEFECTS["kokoro"] if d.variant == "fp32"} - {"norm's epsilon", "bias dropped", "token's embedding"}


def is_chosen(defect: Defect) -> bool:
    if defect.name in AUDIO:
        return (defect.model, defect.variant) == ("speecht5", "int8")
    return (defect.model, defect.variant) != ("kokoro", "int8") or defect.name not in ONCE


CHOSEN = [defect for defects in DEFECTS.values() for defect in defects if is_chosen(defect)]
MISSED: dict[tuple[str, str, str], str] = {}


@pytest.mark.parametrize("model", sorted(DEFECTS))
def test_an_artifact_without_defects_passes_every_gate(model: str, goods: Callable[[str], Good]) -> None:
    good = goods(model)
    for variant, metrics in good.metrics.items():
        assert good.gates(variant) == [gate for gate in good.subject.gates(variant)]  # all were measured
        assert good.failing(variant, metrics) == []


@pytest.mark.parametrize("defect", CHOSEN, ids=lambda d: f"{d.model}-{d.variant}-{d.name}")
def test_a_defect_is_caught(defect: Defect, goods: Callable[[str], Good], request: pytest.FixtureRequest) -> None:
    if reason := MISSED.get((defect.model, defect.variant, defect.name)):
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    good = goods(defect.model)
    before = {path: path.stat().st_mtime_ns for files in good.subject.files.values() for path in files.values()}
    trial = attempt(good, defect)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert trial.is_caught, trial.metrics
    for row in trial.failing:
        assert row["metric"] not in {bad["metric"] for bad in good.failing(defect.variant, good.metrics[defect.variant])}


def test_there_are_enough_defects_of_different_kinds() -> None:
    assert sum(map(len, DEFECTS.values())) >= 40
    assert all({d.variant for d in defects} == {"fp32", "int8"} for defects in DEFECTS.values())
    assert len({(d.model, d.variant, d.name) for ds in DEFECTS.values() for d in ds}) == sum(map(len, DEFECTS.values()))
