"""Tiny checkpoints that the tests of the measurements share, for reading only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from subjects import subject

from jtts_export.validate.measure import faithfulness, reference
from jtts_export.validate.subject import Findings, Subject

Subjects = Callable[[str], Subject]
Found = Callable[[str, str], tuple[Findings, list[np.ndarray]]]


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Subjects:
    """By model."""
    return cache(lambda name: subject(name, tmp_path_factory.mktemp(f"subject-{name}")))


@pytest.fixture(scope="session")
def found(subjects: Subjects) -> Found:
    """What faithfulness() gives of a model and a variant."""

    @cache
    def expected(name: str) -> Sequence:
        return reference(subjects(name))

    return cache(lambda name, variant: faithfulness(subjects(name), variant, expected(name), lambda _: None))
