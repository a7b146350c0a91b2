"""Fixtures that several test packages share. Helper modules beside this file are imported by name."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def kokoro_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Kokoro checkpoint in the authors' layout, for reading only."""
    from kokoro_files import write_checkpoint  # imports torch

    folder = tmp_path_factory.mktemp("kokoro")
    write_checkpoint(folder)
    return folder
