"""Which source ran: told by its bytes, whatever its times of change say."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jtts_export import __version__, provenance
from jtts_export.store import code_version


def git(folder: Path, *args: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    env = {**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(
        ["git", "-C", str(folder), *args], env=env, check=True, capture_output=True, encoding="utf-8"
    ).stdout


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in a checkout of its own."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "code.py").write_text("x = 1\n")
    (package / "data.toml").write_text("a = 1\n")
    (package.parent / "README.md").write_text("beside it\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "one")
    monkeypatch.setattr(provenance, "PACKAGE", package)
    return package


def test_a_checkout_has_its_commit(package: Path) -> None:
    told = provenance.tool()
    assert told["commit"] == git(package.parent, "rev-parse", "HEAD").strip()
    assert told["dirty"] is False
    assert (told["version"], told["code"]) == (__version__, code_version())


def test_a_changed_byte_is_told_however_old_the_file_looks(package: Path) -> None:
    before = (package / "code.py").stat()
    (package / "code.py").write_text("x = 2\n")
    os.utime(package / "code.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert provenance.tool()["dirty"] is True


@pytest.mark.parametrize("change", ["added", "removed", "staged"])
def test_a_file_more_or_less_is_told(package: Path, change: str) -> None:
    if change == "removed":
        (package / "data.toml").unlink()
    else:
        (package / "new.py").write_text("y = 1\n")
    if change == "staged":
        git(package.parent, "add", ".")
    assert provenance.tool()["dirty"] is True


def test_what_lies_beside_the_package_and_what_python_compiled_do_not_matter(package: Path) -> None:
    (package.parent / "README.md").write_text("changed\n")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "code.pyc").write_bytes(b"compiled")
    assert provenance.tool()["dirty"] is False


def test_an_installed_package_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where some other repository lies above it."""
    installed = tmp_path / "checkout" / ".venv" / "site-packages" / "package"
    installed.mkdir(parents=True)
    git(tmp_path / "checkout", "init", "-q")
    monkeypatch.setattr(provenance, "PACKAGE", installed)
    assert (provenance.tool()["commit"], provenance.tool()["dirty"]) == (None, None)


def test_without_git_nothing_is_said(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.tool()["commit"] is None
