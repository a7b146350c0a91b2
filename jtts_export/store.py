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
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from .errors import GateFailed, OutsideError
from .known import Known
from .locks import exclusive, machine
from .models.source import sha256_file

if TYPE_CHECKING:
    from .remote import Remote

PACKAGES = (
    *("torch", "transformers", "tokenizers", "onnx", "onnx-ir", "onnxruntime", "numpy", "scipy"),
    *("pystoi", "pesq", "praat-parselmouth", "pyloudnorm", "soundfile", "pillow", "jinja2", "coremltools"),
)
SOURCES = {".py", ".json", ".jinja", ".css", ".js"}
UNUSED_DAYS = 30
_RECORD = "stage.json"
_TEMPORARY = re.compile(r"\.?tmp-(\d+)-.+")


class Kept(BaseModel):
    """A file of a stage, as it was when the stage was finished."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    size: NonNegativeInt
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Record(BaseModel):
    """What a folder is the result of, and its files by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: dict[str, Any]
    files: dict[str, Kept]


@dataclass(frozen=True)
class Stage:
    """A finished stage: its folder, its key, and whether it was there before."""

    folder: Path
    key: str
    cached: bool


class Store:
    """Stage results under one folder, `<stage>-<key>`. Results that were not used for UNUSED_DAYS go.

    remote: where other machines find them too. What lies there decides: a result of ours that differs is replaced,
    and all machines go on from the same bytes.
    """

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root, self.remote = root, remote
        self.known = Known(root / "hashes")
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
            clean_dead(root)
            self._clean_unused()

    def find(self, name: str, inputs: Mapping[str, object]) -> Stage | None:
        """The result of a stage, if it is here already."""
        key = key_of(what_of(name, inputs))
        folder = self._folder(name, key)
        return Stage(folder, key, cached=True) if _is_whole(folder) else None

    def stage(
        self,
        name: str,
        inputs: Mapping[str, object],
        build: Callable[[Path], None],
        force: bool = False,
        alone: bool = False,
        waits: Callable[[str], None] = lambda reason: None,
    ) -> Stage:
        """The result of stage `name` on `inputs`, which must be JSON: found, or made by `build(folder)`.

        One process makes it, and others that want it wait. alone: for what is timed, no stage of another process runs
        on this machine meanwhile. waits: told what for.
        """
        what = what_of(name, inputs)
        key = key_of(what)
        folder = self._folder(name, key)
        held = partial(waits, "another process makes it")
        busy = partial(waits, "others are at work on this machine")
        with writing(self.root):
            if not force and not self.remote and self._use(folder):
                return Stage(folder, key, cached=True)
            with exclusive(self.root / f".{folder.name}.lock", held):
                if not force and (self._fetch(folder, name, what) if self.remote else self._use(folder)):
                    return Stage(folder, key, cached=True)
                with machine(alone, busy):
                    self._make(folder, what, build)
                if self.remote:
                    with machine(alone=False, waits=busy):
                        self.remote.keep(name, record_of(folder), folder)
        return Stage(folder, key, cached=False)

    def _folder(self, name: str, key: str) -> Path:
        return self.root / f"{name}-{key[:24]}"

    def _use(self, folder: Path) -> bool:
        """Whether a result is here. What is used is kept."""
        if not _is_whole(folder):
            return False
        with suppress(OSError):
            os.utime(folder)
        return True

    def _make(self, folder: Path, what: Mapping[str, object], build: Callable[[Path], None]) -> None:
        with self._work(folder) as work:
            build(work)
            _write_record(work, record_of_files(work, what))

    def _fetch(self, folder: Path, name: str, what: Mapping[str, object]) -> bool:
        """Whether a result is here, and is what others find. Ours goes there where they find none."""
        assert self.remote is not None
        record = self.remote.record(name, what)
        here = self._use(folder)
        if record and here and record.files == record_of(folder).files:
            return True
        if record and self._came(record, folder):
            return True
        if here:
            self.remote.keep(name, record_of(folder), folder)
        return here

    def _came(self, record: Record, folder: Path) -> bool:
        assert self.remote is not None
        with machine(alone=False), self._work(folder) as work:
            came = self.remote.fetch(record, work)
            if came:
                _write_record(work, record)
        return came

    @contextmanager
    def _work(self, folder: Path) -> Iterator[Path]:
        """A temporary folder that takes the place of `folder` once it has a record."""
        work = self.root / f"tmp-{os.getpid()}-{folder.name}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
            if (work / _RECORD).exists():
                shutil.rmtree(folder, ignore_errors=True)
                work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _clean_unused(self) -> None:
        hashes = self.known.root.iterdir() if self.known.root.is_dir() else ()
        for path in (*self.root.iterdir(), *hashes):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime < UNUSED_DAYS * 86_400:
                    continue
                if (path / _RECORD).exists():
                    shutil.rmtree(path)
                elif path.parent == self.known.root:
                    path.unlink()


def what_of(name: str, inputs: Mapping[str, object]) -> dict[str, object]:
    """All that a stage's result depends on."""
    return {"stage": name, "inputs": dict(inputs), "code": code_version(), "versions": tool_versions()}


def key_of(what: Mapping[str, object]) -> str:
    """The name of what JSON describes."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def record_of(folder: Path) -> Record:
    """Of a finished stage. Raises OSError where it has none, ValueError where that is damaged."""
    return Record.model_validate_json((folder / _RECORD).read_bytes())


def record_of_files(folder: Path, what: Mapping[str, object]) -> Record:
    """Of all that lies in a folder now."""
    made = {path.relative_to(folder).as_posix(): path for path in files_under(folder)}
    files = {name: Kept(size=path.stat().st_size, sha256=sha256_file(path)) for name, path in made.items()}
    return Record(what=dict(what), files=files)


def _write_record(work: Path, record: Record) -> None:
    (work / _RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    """Every file that the stage wrote is there, in its size. What they hold is check()'s to find out."""
    try:
        return all((folder / n).stat().st_size == kept.size for n, kept in record_of(folder).files.items())
    except (OSError, ValueError):  # or a damaged record
        return False


def check(folder: Path) -> None:
    """Raises GateFailed where the files of a finished stage are not, byte for byte, what the stage wrote."""
    files = record_of(folder).files
    there = {path.relative_to(folder).as_posix() for path in files_under(folder)} - {_RECORD}
    if extra := sorted(there - set(files)):
        raise GateFailed(f"{folder / extra[0]} was not made by its stage; build again with --force")
    for name, kept in files.items():
        if sha256_file(folder / name) != kept.sha256:
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
    """Whether a process runs; one that has ended and that nobody asked for its exit code does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    with suppress(OSError):  # not every system has it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return True
