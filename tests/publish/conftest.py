"""A hub for each test, a tiny release for all, and patience that costs no time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.server import Hub, serve
from publish.releases import TOKEN, Waits, write

from jtts_export.publish.local import Passed, check


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, for reading only."""
    return write(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="session")
def passed(made: Path) -> Passed:
    """What is published of it."""
    return check(made, None)


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    """A release to be changed."""
    return Path(shutil.copytree(made, tmp_path / "release"))


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Empty, and the one that this process's client knows; its listings have several pages."""
    with serve(Hub(tmp_path / "hub", writers=(TOKEN,), readers=("hf_reader",))) as running:
        running.page = 5
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
        for name in ("HF_OIDC_RESOURCE", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "*")
        yield running
        assert running.leaked == []
