"""Where a checkpoint comes from: a hub repository, a local folder, a seed, or this package. No torch here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from jtts_export.errors import BadInput, CheckpointError, first_line

SOURCES = "hub:ORG/REPO[@REVISION], a local folder, random:SEED, or demo (Kokoro)"
DEMO = "demo"
DEMO_FOLDER = Path(__file__).parents[1] / "data" / DEMO
DEMO_WEIGHTS = "kokoro-demo.safetensors"
_HUB = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
README = "README.md"
Sha256 = Callable[[Path], str]  # of a file's bytes, in hex
Patterns = Collection[str | tuple[str, ...]]  # of files; of those that a tuple's match, a checkpoint has one


@dataclass(frozen=True)
class Companion:
    """Files that authors publish apart from the checkpoint's own repository.

    name: their folder in Source.files; hub: where they come from for a checkpoint of the hub that brings none;
    folders: what a checkpoint calls them inside itself, or a local one beside itself; files: patterns;
    unless: patterns of the checkpoint's own files that stand in for them.
    """

    name: str
    hub: str
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    repo_type: str = "model"


@dataclass(frozen=True)
class Source:
    """A checkpoint, located and hashed but not loaded.

    `files` maps names as the authors' repository has them to local paths, and `COMPANION/NAME` to those of a
    companion; empty for `random:SEED`. hashes: sha256 of each of them. readme: what its authors say of it, which is
    no part of the checkpoint.
    """

    source: str
    sha256: str
    revision: str | None = None
    seed: int | None = None
    files: dict[str, Path] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    readme: Path | None = None

    def describe(self) -> dict[str, str | None]:
        return {"source": self.source, "revision": self.revision, "sha256": self.sha256}


def choices(patterns: Patterns) -> tuple[str, ...]:
    """The tuple in `patterns`: those of the weights file that a checkpoint has one of, best first."""
    return next((pattern for pattern in patterns if isinstance(pattern, tuple)), ())


def locate(
    source: str, patterns: Patterns, companions: Collection[Companion] = (), sha256: Sha256 | None = None
) -> Source:
    """Find `source` and hash the files that match `patterns`; a hub repository is downloaded first.

    Of those that match a tuple in `patterns` one file comes along: FILE of `source#FILE`, or that of the first
    pattern with any; a hub is asked for the first pattern only. Companions come along where they are found. sha256:
    of a file, if not sha256_file.
    Raises BadInput for a source of another form, CheckpointError where nothing is found.
    """
    if source.startswith("random:"):
        return _seeded(source)
    if source == DEMO:
        return _from_package(patterns, sha256 or sha256_file)
    find = _from_hub if source.startswith("hub:") else _from_folder
    return find(source, patterns, companions, sha256 or sha256_file)


def is_local(source: str) -> bool:
    """Whether it is a folder or a file of somebody's machine."""
    return source != DEMO and not source.startswith(("random:", "hub:"))


def _seeded(source: str) -> Source:
    seed = source.removeprefix("random:")
    if not seed.isdecimal() or len(seed) > 18:  # torch's seeds have 64 bits
        raise BadInput(f"checkpoint '{source}': the seed must be a whole number, as in random:0")
    source = f"random:{int(seed)}"
    return Source(source, hashlib.sha256(source.encode()).hexdigest(), seed=int(seed))


def _from_package(patterns: Patterns, sha256: Sha256) -> Source:
    """The checkpoint that comes along. Raises BadInput for the patterns of a model that it is none of."""
    files = _matching(DEMO_FOLDER, _always(patterns))
    if DEMO_WEIGHTS not in files:
        raise BadInput(f"checkpoint '{DEMO}' is a Kokoro; another model's is {SOURCES.rpartition(', or')[0]}")
    return _hashed(Source(DEMO, "", files=files, readme=_readme(DEMO_FOLDER)), sha256)


def _from_hub(source: str, patterns: Patterns, companions: Collection[Companion], sha256: Sha256) -> Source:
    """Source.source has FILE before the revision, so that another revision may take its place."""
    weights = choices(patterns)
    place, file = _repository_and_file(source) if weights else (source, None)
    match = _HUB.fullmatch(place)
    if not match:
        raise BadInput(f"checkpoint '{source}' is not of the form hub:ORG/REPO or hub:ORG/REPO@REVISION")
    if file is not None:
        _check_choice(file, weights, source)
        source = f"hub:{match['repo']}#{file}" + place.removeprefix(f"hub:{match['repo']}")
    wanted = weights[:1] if file is None else (file,)
    inside = [f"{folder}/{file}" for c in companions for folder in c.folders for file in c.files]
    folder = _download(match["repo"], match["revision"], [*_always(patterns), *wanted, *inside, README])
    files = _matching(folder, _always(patterns))
    if weights:
        files |= _one(folder, wanted, f"{source} (another is chosen by #FILE behind it)")
    for companion in companions:
        files |= _companion(companion, files, [folder], fetch=True)
    return _hashed(Source(source, "", folder.name, files=files, readme=_readme(folder)), sha256)


def _from_folder(source: str, patterns: Patterns, companions: Collection[Companion], sha256: Sha256) -> Source:
    weights = choices(patterns)
    try:
        folder, file = _folder_and_file(source, bool(weights))
        found = folder.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long, or a home folder of nobody
        raise CheckpointError(f"no checkpoint at '{source[:80]}': {first_line(error)[:80]}") from error
    if not found:
        raise CheckpointError(f"no checkpoint at '{source}'; a checkpoint is {SOURCES}")
    recorded = str(folder.resolve())
    files = _matching(folder, _always(patterns))
    if file is not None:
        _check_choice(file, weights, source)
        recorded = f"{recorded}#{file}"
    if weights:
        files |= _one(folder, weights if file is None else (file,), str(folder))
    for companion in companions:
        files |= _companion(companion, files, [folder, folder.resolve().parent])
    return _hashed(Source(recorded, "", files=files, readme=_readme(folder)), sha256)


def _repository_and_file(source: str) -> tuple[str, str | None]:
    """hub:ORG/REPO[@REVISION] and FILE; the revision may stand behind either."""
    place, chosen, rest = source.partition("#")
    file, at, revision = rest.partition("@")
    return place + at + revision, file if chosen else None


def _folder_and_file(source: str, choosing: bool) -> tuple[Path, str | None]:
    """A folder, FOLDER#FILE, or a file, which stands for its folder and is chosen where there are choices."""
    path = Path(source).expanduser()
    if path.is_file():
        return path.parent, path.name if choosing else None
    if choosing and "#" in source and not path.is_dir():
        folder, _, file = source.rpartition("#")
        return Path(folder).expanduser(), file
    return path, None


def _check_choice(file: str, weights: Collection[str], source: str) -> None:
    special = set("/\\#*?[") & set(file) or ".." in file
    if special or not any(fnmatch(file, pattern) for pattern in weights):
        known = ", ".join(weights)
        raise BadInput(f"checkpoint '{source}': '{file}' is no weights file of this model, which are {known}")


def _one(folder: Path, patterns: Collection[str], where: str) -> dict[str, Path]:
    """The file of the first pattern that any matches. Raises CheckpointError where there is none, or are several."""
    for pattern in patterns:
        found = _matching(folder, [pattern])
        if len(found) > 1:
            raise CheckpointError(f"{where} has {', '.join(found)}; choose one by #FILE behind it")
        if found:
            return found
    raise CheckpointError(f"no {', '.join(patterns)} in {where}")


def _always(patterns: Patterns) -> list[str]:
    return [pattern for pattern in patterns if isinstance(pattern, str)]


def _matching(folder: Path, patterns: Collection[str], prefix: str = "") -> dict[str, Path]:
    paths = sorted({p for pattern in patterns for p in folder.glob(pattern) if p.is_file()})
    return {prefix + p.relative_to(folder).as_posix(): p for p in paths}


def _companion(
    companion: Companion, own: Collection[str], places: Collection[Path], fetch: bool = False
) -> dict[str, Path]:
    """Its files from the first of its folders in `places` that holds any, else from the hub if `fetch`."""
    if any(fnmatch(name, pattern) for name in own for pattern in companion.unless):
        return {}
    folders = [place / folder for place in places for folder in companion.folders]
    for folder in folders:
        if found := _matching(folder, companion.files, f"{companion.name}/"):
            return found
    if not fetch:
        return {}
    folder = _download(companion.hub, None, companion.files, companion.repo_type)
    return _matching(folder, companion.files, f"{companion.name}/")


def _hashed(source: Source, sha256: Sha256) -> Source:
    """With the hashes of its files, and one of them all."""
    hashes = {name: sha256(source.files[name]) for name in sorted(source.files, key=PurePosixPath)}
    return replace(source, sha256=sha256_of_all(hashes), hashes=hashes)


def sha256_of_all(hashes: Mapping[str, str]) -> str:
    """What stands for a checkpoint: a hash of its files' names and hashes."""
    lines = (f"{name}\0{hashes[name]}\n" for name in sorted(hashes, key=PurePosixPath))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _readme(folder: Path) -> Path | None:
    path = folder / README
    return path if path.is_file() else None


def _download(repo: str, revision: str | None, patterns: Collection[str], repo_type: str = "model") -> Path:
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    try:
        from huggingface_hub import snapshot_download  # fails where HF_ENDPOINT is no address

        folder = snapshot_download(repo, repo_type=repo_type, revision=revision, allow_patterns=list(patterns))
    except NoRevision as error:
        raise CheckpointError(f"the hub's {repo} has no revision '{revision}'") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"the hub has no repository {repo}, or it needs a token") from error
    except Exception as error:  # its HTTP library, and so the errors' base, differs between versions
        raise CheckpointError(
            f"could not download {repo} from the hub: {first_line(error)}; "
            "with a local copy, pass its folder as --checkpoint"
        ) from error
    return Path(folder)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes. Raises CheckpointError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def git_hash(size: int) -> hashlib._Hash:
    """What becomes git's name of a file of `size` bytes, when it is given them."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
