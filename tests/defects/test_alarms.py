"""Good artifacts are passed, of whatever seed, and the same one again."""

from __future__ import annotations

from collections.abc import Callable

from bench.defects import alarms
from bench.defects.trial import Good
from jtts_export.validate.subject import Subject


def test_good_artifacts_are_passed(goods: Callable[[str], Good], another: Callable[[str, int], Subject]) -> None:
    told: list[str] = []
    subjects = [goods("t3").subject, another("t3", 2)]
    assert alarms.verdicts(subjects, 3, False, told.append) == ["pass"] * 3, told
    assert told == [f"validation {number} of 3: pass" for number in (1, 2, 3)]
