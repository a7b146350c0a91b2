"""Fixtures that several test packages share. Helper modules beside this file are imported by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import PROFILE, Built, run


@pytest.fixture(scope="session")
def kokoro_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Kokoro checkpoint in the authors' layout, for reading only."""
    from kokoro_files import write_checkpoint  # imports torch

    folder = tmp_path_factory.mktemp("kokoro")
    write_checkpoint(folder)
    return folder


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
