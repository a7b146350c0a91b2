"""Fixtures that several test packages share. Helper modules beside this file are imported by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import PROFILE, Built, run


@pytest.fixture(autouse=True)
def own_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No stage of a test waits for what somebody else builds on this machine."""
    monkeypatch.setattr("jtts_export.locks.gettempdir", lambda: str(tmp_path_factory.getbasetemp()))


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


@pytest.fixture(scope="session")
def speecht5_built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All variants of a tiny SpeechT5 checkpoint, built once from scratch."""
    from speecht5_command import build, write_checkpoint

    home = tmp_path_factory.mktemp("speecht5")
    write_checkpoint(home / "checkpoint")
    return build(home, home / "checkpoint", "--int8", "--fp16")


@pytest.fixture(scope="session")
def t3_built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """All variants of a tiny T3 checkpoint, built once from scratch."""
    from t3_command import build
    from t3_files import write_checkpoint  # imports torch

    home = tmp_path_factory.mktemp("t3")
    write_checkpoint(home / "checkpoint")
    return build(home, home / "checkpoint", "--int8", "--int8-fast", "--int4", "--fp16")
