"""Content-addressed stage results: a stage whose inputs have not changed is not run again.

A stage writes into a temporary folder that is renamed when it is whole; a build that is killed leaves every
finished stage, and nothing else that is ever read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import GateFailed, OutsideError
from .models.source import sha256_file

PACKAGES = (
    *("torch", "transformers", "tokenizers", "onnx", "onnx-ir", "onnxruntime", "numpy", "scipy"),
    *("pystoi", "pesq", "praat-parselmouth", "pyloudnorm", "soundfile", "pillow", "jinja2", "coremltools"),
)
SOURCES = {".py", ".json", ".jinja", ".css", ".js"}
UNUSED_DAYS = 30
_RECORD = "stage.json"
_TEMPORARY = re.compile(r"\.?tmp-(\d+)-.+")


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder, its key, and whether it was there before."""

    folder: Path
    key: str
    cached: bool


class Store:
    """Stage results under one folder, `<stage>-<key>`. Results that were not used for UNUSED_DAYS go."""

    def __init__(self, root: Path) -> None:
        self.root = root
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
            clean_dead(root)
            self._clean_unused()

    def stage(
        self, name: str, inputs: Mapping[str, object], build: Callable[[Path], None], force: bool = False
    ) -> Stage:
        """The result of stage `name` on `inputs`, which must be JSON: found, or made by `build(folder)`."""
        what = {"stage": name, "inputs": dict(inputs), "code": code_version(), "versions": tool_versions()}
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        folder = self.root / f"{name}-{key[:24]}"
        if self._complete(folder) and not force:
            with suppress(OSError):
                os.utime(folder)
            return Stage(folder, key, cached=True)
        with writing(self.root):
            work = self.root / f"tmp-{os.getpid()}-{name}"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                build(work)
                made = files_under(work)
                files = {p.relative_to(work).as_posix(): [p.stat().st_size, sha256_file(p)] for p in made}
                (work / _RECORD).write_text(json.dumps({**what, "files": files}, indent=1), encoding="utf-8")
                if force or not self._complete(folder):  # another process may have made it meanwhile
                    shutil.rmtree(folder, ignore_errors=True)
                    work.rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return Stage(folder, key, cached=False)

    def _complete(self, folder: Path) -> bool:
        """Every file that the stage wrote is there, in its size. What they hold is check()'s to find out."""
        try:
            files = json.loads((folder / _RECORD).read_text(encoding="utf-8"))["files"]
            return all((folder / name).stat().st_size == size for name, (size, _) in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # or a damaged record
            return False

    def _clean_unused(self) -> None:
        for path in self.root.iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > UNUSED_DAYS * 86_400 and (path / _RECORD).exists():
                    shutil.rmtree(path)


def check(folder: Path) -> None:
    """Raises GateFailed where the files of a finished stage are not, byte for byte, what the stage wrote."""
    files = json.loads((folder / _RECORD).read_text(encoding="utf-8"))["files"]
    there = {path.relative_to(folder).as_posix() for path in files_under(folder)} - {_RECORD}
    if extra := sorted(there - set(files)):
        raise GateFailed(f"{folder / extra[0]} was not made by its stage; build again with --force")
    for name, (_, sha256) in files.items():
        if sha256_file(folder / name) != sha256:
            raise GateFailed(f"{folder / name} is not what was measured; build again with --force")


def clean_dead(folder: Path) -> None:
    """Remove temporary folders, `tmp-PID-NAME` or hidden, of processes that are gone."""
    for path in folder.iterdir():
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def default_root() -> Path:
    """$JTTS_EXPORT_CACHE, or jtts-export in the user's cache folder."""
    if named := os.environ.get("JTTS_EXPORT_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jtts-export"


@cache
def code_version() -> str:
    """Hash of this package's source: any change of it makes every stage new."""
    whole = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(p for p in files_under(package) if p.suffix in SOURCES):
        whole.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


@cache
def tool_versions() -> dict[str, str]:
    """Versions of the packages that artifacts depend on, without importing them."""
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def files_under(folder: Path) -> list[Path]:
    """Every file below a folder, sorted."""
    return sorted(p for p in folder.rglob("*") if p.is_file())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        refused = error.filename2 or error.filename or path  # a copy's target is its second name
        raise OutsideError(f"cannot write to {refused}: {error.strerror}") from error


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
