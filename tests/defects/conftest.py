"""One small artifact of each model, built once without timing, and its reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.defects import make, small
from bench.defects.trial import Good
from jtts_export.validate.subject import Subject


@pytest.fixture(scope="session")
def goods(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Good]:
    """By a model's name, made when first asked for."""
    made: dict[str, Good] = {}

    def good(model: str) -> Good:
        if model not in made:
            home = tmp_path_factory.mktemp(model)
            made[model] = make.judged(small.subject(model, 0, home), lambda: small.subject(model, 1, home))
        return made[model]

    return good


@pytest.fixture
def another(tmp_path: Path) -> Callable[[str, int], Subject]:
    """A model's artifact of another seed, with gates of time, not yet measured."""
    return lambda model, seed: small.subject(model, seed, tmp_path, timed=True)
