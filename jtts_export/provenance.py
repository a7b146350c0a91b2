"""Which source of this tool runs: its version, its hash, and its commit where it is a checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from . import __version__
from .models.source import git_hash
from .store import code_version, files_under

PACKAGE = Path(__file__).parent
LONGEST_S = 20
_NO_SOURCE = {".pyc", ".pyo"}


def tool() -> dict[str, Any]:
    """version; code: a hash of the source; commit: of a checkout that it runs from, else None; dirty: whether the
    source is not that commit's."""
    commit = _git("rev-parse", "HEAD") if (PACKAGE.parent / ".git").exists() else None
    dirty = None if commit is None else _committed() != _there()
    return {"version": __version__, "code": code_version(), "commit": commit, "dirty": dirty}


def _committed() -> dict[str, str]:
    """Path -> the blob that HEAD has of each file of the package."""
    listed = _git("ls-tree", "-r", "-z", "--full-name", "HEAD", "--", f"{PACKAGE.name}/") or ""
    entries = (entry.partition("\t") for entry in listed.split("\0") if entry)
    return {path: about.split()[2] for about, _, path in entries}


def _there() -> dict[str, str]:
    """The same of the files as they are. Their bytes are hashed: no time of change says what they hold."""
    paths = [p for p in files_under(PACKAGE) if p.suffix not in _NO_SOURCE]
    return {path.relative_to(PACKAGE.parent).as_posix(): _blob(path.read_bytes()) for path in paths}


def _blob(data: bytes) -> str:
    name = git_hash(len(data))
    name.update(data)
    return name.hexdigest()


def _git(*args: str) -> str | None:
    """What git prints, or nothing where it is missing or refuses."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE.parent), *args],
            env={**env, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            encoding="utf-8",
            timeout=LONGEST_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
