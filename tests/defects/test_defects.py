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
ANYWHERE = {d.name for d in DEFECTS["kokoro"] + DEFECTS["speecht5"] if d.variant == "fp32"}
OF_INT8 = {
    "norm's epsilon",
    "bias dropped",
    "token's embedding",
    "zeroed channel",
    "layers exchanged",
    "postnet skipped",
}
NOWHERE = {"sign of one weight, 4 bits"}  # a small Kokoro has none; tests/validate/test_layers.py makes some
COSTLY = {"another checkpoint's graph", "another variant's graph", "gap of 10 ms at joins", "gap of 5 ms at joins"}


def is_chosen(defect: Defect) -> bool:
    where = defect.model, defect.variant
    if defect.name in AUDIO:
        return where == ("speecht5", "int8")
    if defect.model == "kokoro" and defect.name in COSTLY | NOWHERE:
        return False
    return defect.model == "t3" or defect.variant == "fp32" or defect.name in OF_INT8 or defect.name not in ANYWHERE


CHOSEN = [defect for defects in DEFECTS.values() for defect in defects if is_chosen(defect)]


@pytest.mark.parametrize("model", sorted(DEFECTS))
def test_an_artifact_without_defects_passes_every_gate(model: str, goods: Callable[[str], Good]) -> None:
    good = goods(model)
    for variant, metrics in good.metrics.items():
        assert good.gates(variant) == list(good.subject.gates(variant))  # all were measured
        assert good.failing(variant, metrics) == []


@pytest.mark.parametrize("defect", CHOSEN, ids=lambda d: f"{d.model}-{d.variant}-{d.name}")
def test_a_defect_is_caught(defect: Defect, goods: Callable[[str], Good]) -> None:
    good = goods(defect.model)
    before = {path: path.stat().st_mtime_ns for files in good.subject.files.values() for path in files.values()}
    trial = attempt(good, defect)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert trial.is_caught, trial.metrics


def test_there_are_enough_defects_of_different_kinds() -> None:
    assert sum(map(len, DEFECTS.values())) >= 40
    assert all({d.variant for d in defects} == {"fp32", "int8"} for defects in DEFECTS.values())
    assert len({(d.model, d.variant, d.name) for ds in DEFECTS.values() for d in ds}) == sum(
        map(len, DEFECTS.values())
    )
