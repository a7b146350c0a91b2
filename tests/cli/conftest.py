"""One build that the tests of the command share, for reading only."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command import PROFILE, Built, run


@pytest.fixture(scope="session")
def built(kokoro_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All variants of a tiny checkpoint, built once from scratch."""
    home = tmp_path_factory.mktemp("built")
    profile = home / "tiny.toml"
    profile.write_text(PROFILE)
    built = Built(home / "out" / "kokoro", profile, home / "cache", kokoro_folder, "", "")
    done = run(home, *built.again(home / "out", "--int8", "--fp16"))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return Built(built.release, profile, built.cache, kokoro_folder, done.stdout, done.stderr)


@pytest.fixture
def warm(built: Built, tmp_path: Path) -> Built:
    """The same, with a copy of the cache to build on or to damage."""
    return replace(built, cache=Path(shutil.copytree(built.cache, tmp_path / "warm")))
