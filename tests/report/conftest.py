"""A browser, and a release with everything in it, for reading only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report.browser import Browser, chromium
from report.releases import measured, with_audio


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("release") / "samples"


@pytest.fixture(scope="session")
def whole(samples: Path) -> dict[str, Any]:
    """Six cases of 4 s in three variants; int8 fails a gate and has another in doubt."""
    return with_audio(measured(), samples)
