"""Where a checkpoint comes from: a hub repository, a local folder, or a seed. No torch here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from jtts_export.errors import BadInput, CheckpointError

SOURCES = "hub:ORG/REPO[@REVISION], a local folder, or random:SEED"
_HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Source:
    """A checkpoint, located and hashed but not loaded.

    `files` maps names as the authors' repository has them to local paths; empty for `random:SEED`.
    """

    source: str
    sha256: str
    revision: str | None = None
    seed: int | None = None
    files: dict[str, Path] = field(default_factory=dict)

    def describe(self) -> dict[str, str | None]:
        return {"source": self.source, "revision": self.revision, "sha256": self.sha256}


def locate(source: str, patterns: Collection[str]) -> Source:
    """Find `source` and hash the files that match `patterns`; a hub repository is downloaded first.

    Raises BadInput for a source of another form, CheckpointError where nothing is found.
    """
    if source.startswith("random:"):
        seed = source.removeprefix("random:")
        if not seed.isdecimal() or len(seed) > 18:  # torch's seeds have 64 bits
            raise BadInput(f"checkpoint '{source}': the seed must be a whole number, as in random:0")
        source = f"random:{int(seed)}"
        return Source(source, hashlib.sha256(source.encode()).hexdigest(), seed=int(seed))
    if source.startswith("hub:"):
        folder, revision = _download(source, patterns)
        return _folder(source, folder, revision, patterns)
    folder = Path(source).expanduser()
    if folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint at '{source}'; a checkpoint is {SOURCES}")
    return _folder(str(folder.resolve()), folder, None, patterns)


def _folder(source: str, folder: Path, revision: str | None, patterns: Collection[str]) -> Source:
    paths = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file()})
    files = {p.relative_to(folder).as_posix(): p for p in paths}
    whole = hashlib.sha256()
    for name, path in files.items():
        whole.update(f"{name}\0{sha256_file(path)}\n".encode())
    return Source(source, whole.hexdigest(), revision, files=files)


def _download(source: str, patterns: Collection[str]) -> tuple[Path, str]:
    match = _HUB.fullmatch(source)
    if not match:
        raise BadInput(f"checkpoint '{source}' is not of the form hub:ORG/REPO or hub:ORG/REPO@REVISION")
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    repo, revision = match["repo"], match["revision"]
    try:
        from huggingface_hub import snapshot_download  # fails where HF_ENDPOINT is no address

        folder = snapshot_download(repo, revision=revision, allow_patterns=list(patterns))
    except NoRevision as error:
        raise CheckpointError(f"the hub's {repo} has no revision '{revision}'") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"the hub has no repository {repo}, or it needs a token") from error
    except Exception as error:  # its HTTP library, and so the errors' base, differs between versions
        raise CheckpointError(
            f"could not download {repo} from the hub: {first_line(error)}; "
            "with a local copy, pass its folder as --checkpoint"
        ) from error
    return Path(folder), Path(folder).name


def first_line(error: BaseException) -> str:
    """An error's first line, for a message of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes. Raises CheckpointError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
