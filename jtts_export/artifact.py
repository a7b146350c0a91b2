"""The release folder: what is in it, and proof that its bytes are those that were measured.

    <out>/<model>/                 a release that passed
    <out>/<model>.failed/          one that did not, kept aside to be looked at
    <out>/<model>.inconclusive/    one that the machine was too busy to judge

manifest.json lists every other file with its sha256, and its own in its last line; validation.json names the sha256
of each graph file that was measured. Writing is atomic: a folder appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import BadInput, GateFailed, OutsideError, first_line
from .models.source import sha256_file
from .store import clean_dead, files_under, writing
from .validate.gates import FAIL, INCONCLUSIVE, PASS

SCHEMA_VERSION = 4
MANIFEST, VALIDATION = "manifest.json", "validation.json"
# Unicode's categories: controls, marks without a shape, halves of characters, separators of lines
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # of Cf, and without them some scripts cannot be written
_ASIDE = {PASS: "", FAIL: ".failed", INCONCLUSIVE: ".inconclusive"}
VERDICTS = tuple(_ASIDE)


class FileEntry(BaseModel):
    """A file of the release."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int


class Manifest(BaseModel):
    """manifest.json: where a release comes from, how it was made, and every file of it.

    tool: see provenance.tool(). checkpoint: see models.source.Source.describe(), and of a seeded one the sha256 of
    its weights; checkpoint_files: its files, as their authors name them. licence: the checkpoint's, in SPDX's terms.
    variants: files, and how weights are held. coreml: what an app must know of packages, and how each holds its
    weights. seal: sha256 of the file itself, with nothing in the place of the seal.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int
    tool_version: str
    tool: dict[str, Any] = {}
    model: str
    checkpoint: dict[str, str | None]
    checkpoint_files: dict[str, FileEntry] = {}
    licence: str
    opset: int
    profile: dict[str, Any]
    verdict: str
    variants: dict[str, dict[str, Any]]
    coreml: dict[str, Any] = {}
    versions: dict[str, str]
    machine: dict[str, Any]
    files: dict[str, FileEntry]
    seal: str = ""


def release_path(out: Path, model: str, verdict: str) -> Path:
    """Where a release with this verdict lies."""
    return out / f"{model}{_ASIDE[verdict]}"


def prepare(out: Path, model: str) -> None:
    """Make `out` ready for a release, better before the work than after it; tidy up behind a killed build.

    Raises OutsideError where a release could not be written, or would replace something that is none.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        clean_dead(out)
        with tempfile.TemporaryDirectory(prefix=f".tmp-{os.getpid()}-", dir=out) as probe:
            (Path(probe) / "probe").write_bytes(b"-")
        for verdict in _ASIDE:
            target = release_path(out, model, verdict)
            if _aside(target).exists() and not target.exists():
                _aside(target).rename(target)
            if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
                raise OutsideError(f"{target} is in the way and is no release; move it, or choose another --out")


def write(out: Path, parts: Mapping[str, Path], texts: Mapping[str, str], manifest: Mapping[str, Any]) -> Path:
    """Assemble a release and move it into place. Returns its folder.

    parts: path in the release -> file to copy; texts: path -> content; manifest: all of it but `files`.
    Raises GateFailed where a graph's bytes are not those that validation.json says were measured.
    """
    target = release_path(out, manifest["model"], manifest["verdict"])
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        work = out / f".tmp-{os.getpid()}-{target.name}"
        shutil.rmtree(work, ignore_errors=True)
        try:
            for name, source in parts.items():
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, work / name)
            for name, text in texts.items():
                (work / name).write_text(text, encoding="utf-8")
            made = {path.relative_to(work).as_posix(): path for path in files_under(work)}
            entries = {
                name: {"sha256": sha256_file(path), "size": path.stat().st_size} for name, path in made.items()
            }
            validation = json.loads((work / VALIDATION).read_text(encoding="utf-8"))
            _check_measured(validation, {name: str(entry["sha256"]) for name, entry in entries.items()})
            (work / MANIFEST).write_text(sealed({**manifest, "files": entries}), encoding="utf-8")
            _replace(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def sealed(manifest: Mapping[str, Any]) -> str:
    """The text of manifest.json."""
    text = Manifest.model_validate({**manifest, "seal": ""}).model_dump_json(indent=2) + "\n"
    empty = '"seal": ""'
    return f'"seal": "{hashlib.sha256(text.encode()).hexdigest()}"'.join(text.rsplit(empty, 1))


def _is_sealed(text: bytes, seal: str) -> bool:
    return hashlib.sha256(b"".join(text.rsplit(seal.encode(), 1))).hexdigest() == seal


def place(work: Path, out: Path, model: str) -> Path:
    """Move a release that came from elsewhere into its place in `out`, once it is verified. Returns its folder.

    Raises GateFailed or OutsideError where it is not a whole release of this model.
    """
    manifest, _ = verify(work)
    if manifest.model != model:
        raise OutsideError(f"{work} is a release of {manifest.model}, not of {model}")
    target = release_path(out, model, manifest.verdict)
    with writing(out):
        _replace(work, target)
    return target


def _replace(work: Path, target: Path) -> None:
    """Put `work` in the place of `target`; after a kill in between, prepare() puts the old one back."""
    old = _aside(target)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    work.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def read(release: Path) -> tuple[Manifest, dict[str, Any]]:
    """manifest.json and validation.json. Raises OutsideError where this is no release, or one of another form;
    GateFailed where manifest.json is not what was written."""
    with _reading(release):
        if not (release / MANIFEST).is_file():
            raise OutsideError(f"{release} is not a release: it has no {MANIFEST}")
    name = MANIFEST
    try:
        text = (release / MANIFEST).read_bytes()
        manifest = Manifest.model_validate_json(text)
        name = VALIDATION
        validation = json.loads((release / VALIDATION).read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise OutsideError(f"{release}: {name} is damaged: {_said(error)}") from error
    if manifest.seal and not _is_sealed(text, manifest.seal):
        raise GateFailed(f"{release}: {MANIFEST} is not what was written")
    if manifest.schema_version != SCHEMA_VERSION:
        raise OutsideError(f"{release} was written by jtts-export {manifest.tool_version}, in a form unknown here")
    if not manifest.seal:
        raise GateFailed(f"{release}: {MANIFEST} is not what was written: it has no seal")
    for name in manifest.files:
        if not is_inside(name):
            raise OutsideError(f"{release}: {MANIFEST} names a file outside the release: {name!r}")
    return manifest, validation


def _said(error: Exception) -> str:
    """In one line; of pydantic's, the first mistake."""
    if not isinstance(error, ValidationError):
        return first_line(error)
    first = error.errors()[0]
    return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])


def is_inside(name: str) -> bool:
    """Whether a name is the path of a file below some folder on every system: parts without `..`, backslashes, or
    what ends, hides or reorders a line."""
    odd = (char for char in name if unicodedata.category(char) in _UNPRINTABLE and char not in _JOINERS)
    plain = not any(odd) and "\\" not in name
    path = PurePosixPath(name)
    return plain and path.as_posix() == name != "." and not path.is_absolute() and ".." not in path.parts


def verify(release: Path, sha256: Callable[[Path], str] = sha256_file) -> tuple[Manifest, dict[str, Any]]:
    """read(), and every file's sha256. Raises GateFailed naming the first file that differs. sha256: of a file.

    Folders and files whose name begins with a dot are somebody's bookkeeping (.git, .cache), and no part of it. A
    link is no file of a release, but in the hub's own cache, where every file is one.
    """
    manifest, validation = read(release)
    with _reading(release):
        _check_listed(release, manifest, sha256)
        try:
            _measured(validation)
        except (KeyError, TypeError, AttributeError) as error:
            raise OutsideError(f"{release}: {VALIDATION} is damaged: it does not list what was measured") from error
        _check_measured(validation, {name: entry.sha256 for name, entry in manifest.files.items()})
    return manifest, validation


@contextmanager
def _reading(release: Path) -> Iterator[None]:
    """Turn what the file system refuses, as a name too long, into one line that names the path."""
    try:
        yield
    except OSError as error:
        raise OutsideError(f"cannot read {error.filename or release}: {error.strerror}") from error


def _check_listed(release: Path, manifest: Manifest, sha256: Callable[[Path], str]) -> None:
    for path in links(release):
        if not _is_cached(path, release):
            raise GateFailed(f"{release}: {path.relative_to(release).as_posix()} is a link, not a file")
    paths = (path.relative_to(release) for path in files_under(release))
    there = {path.as_posix() for path in paths if not path.parts[0].startswith(".")} - {MANIFEST}
    for name, entry in manifest.files.items():
        path = release / name
        if name not in there or path.stat().st_size != entry.size or sha256(path) != entry.sha256:
            state = "missing" if name not in there else "not the file that was validated"
            raise GateFailed(f"{release}: {name} is {state}")
    extra = (name for name in sorted(there - set(manifest.files)) if not has_a_dotted_part(name))
    if name := next(extra, ""):
        raise GateFailed(f"{release}: {name} is not in {MANIFEST}")


def links(release: Path) -> list[Path]:
    """Symbolic links below a release, whatever they lead to, but in what begins with a dot."""
    found = sorted(path for path in release.rglob("*") if path.is_symlink())
    return [path for path in found if not path.relative_to(release).parts[0].startswith(".")]


def _is_cached(link: Path, release: Path) -> bool:
    """Whether it is a file of a snapshot in the hub's cache: CACHE/models--ORG--NAME/snapshots/COMMIT, whose files
    lie in folders named `blobs`."""
    folder = Path(os.path.realpath(release))
    cache = folder.parents[2] if len(folder.parents) > 2 else folder
    target = Path(os.path.realpath(link))
    return (
        folder.parent.name == "snapshots"
        and target.is_relative_to(cache)
        and "blobs" in target.relative_to(cache).parts
        and target.is_file()
    )


def has_a_dotted_part(name: str) -> bool:
    """Whether a name is of somebody's bookkeeping."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def outside(path: Path, release: Path) -> None:
    """Raises BadInput where something is to be written into a release, which no longer would be what was measured."""
    real, folder = (Path(os.path.realpath(given)) for given in (path, release))  # resolve() raises in a loop of links
    if real.is_relative_to(folder):
        raise BadInput(f"{path} lies inside the release {release}")


def is_current(release: Path, validation: str, sha256: Callable[[Path], str] = sha256_file) -> bool:
    """Whether a release is there, whole, with exactly this validation.json. sha256: of a file."""
    try:
        verify(release, sha256)
        return (release / VALIDATION).read_text(encoding="utf-8") == validation
    except (GateFailed, OutsideError, OSError):
        return False


def _measured(validation: Any) -> list[tuple[str, str]]:
    """Names of graphs, and the sha256 that each had. Raises what Python does where it is not of that form."""
    return [pair for variant in validation["variants"].values() for pair in variant["files"].items()]


def _check_measured(validation: Mapping[str, Any], made: Mapping[str, str]) -> None:
    """Raises GateFailed where the graphs among the files of a release are not those that were measured. made: the
    sha256 of each file."""
    measured = _measured(validation)
    for name, sha256 in measured:
        if made.get(name) != sha256:
            raise GateFailed(f"{name} is not the file that was measured; build again with --force")
    loose = set(made).difference(name for name, _ in measured)
    if unmeasured := sorted(n for n in loose if n.endswith((".onnx", ".onnx_data")) or ".mlpackage/" in n):
        raise GateFailed(f"{unmeasured[0]} was never measured")


def machine() -> dict[str, Any]:
    """What measurements were taken on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
