"""Builds that the tests of the command share, for reading only."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command import Built, run


@pytest.fixture
def warm(built: Built, tmp_path: Path) -> Built:
    """The same, with a copy of the cache to build on or to damage."""
    return replace(built, cache=Path(shutil.copytree(built.cache, tmp_path / "warm")))


@pytest.fixture(scope="session")
def alone(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """fp32 alone, of the same checkpoint in another place, on a copy of that cache."""
    home = tmp_path_factory.mktemp("alone")
    checkpoint = Path(shutil.copytree(built.checkpoint, home / "moved"))
    cache = Path(shutil.copytree(built.cache, home / "cache"))
    moved = replace(built, release=home / "out" / "kokoro", cache=cache, checkpoint=checkpoint)
    done = run(home, *moved.again(home / "out"))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return replace(moved, stdout=done.stdout, stderr=done.stderr)


@pytest.fixture
def t3_warm(t3_built: Built, tmp_path: Path) -> Built:
    """The same, with a copy of the cache to build on or to damage."""
    return replace(t3_built, cache=Path(shutil.copytree(t3_built.cache, tmp_path / "warm")))
