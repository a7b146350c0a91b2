"""What a hub keeps of a repository: commits of trees, branches, tags, pull requests, and objects of git-LFS."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

MAIN = "main"
ATTRIBUTES = ".gitattributes"
LARGE = ("*.onnx", "*.onnx_data", "*.npz", "*.bin", "*.safetensors", "*.pth")  # as the hub's .gitattributes has them
LARGE_BYTES = 10_000_000


@dataclass(frozen=True)
class Blob:
    """A file's content: in memory, or an object of LFS on disk."""

    oid: str
    size: int
    data: bytes = b""
    stored: Path | None = None

    @property
    def sha256(self) -> str | None:
        """Of an object of LFS."""
        return self.stored.name if self.stored else None

    def read(self) -> bytes:
        return self.stored.read_bytes() if self.stored else self.data


def blob(data: bytes) -> Blob:
    """A regular file of git."""
    return Blob(blob_id(data), len(data), data)


def pointer(stored: Path) -> Blob:
    """A file that git keeps a pointer of."""
    size = stored.stat().st_size
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{stored.name}\nsize {size}\n"
    return Blob(blob_id(text.encode()), size, stored=stored)


def blob_id(data: bytes) -> str:
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    tree: Mapping[str, Blob]


@dataclass
class Pull:
    number: int
    title: str
    commit: str
    status: str = "open"


class Refused(Exception):
    """What the hub answers to something that it does not do: status, its code, and what it says."""

    def __init__(self, status: int, code: str = "", says: str = "") -> None:
        super().__init__(status, code, says)
        self.status, self.code, self.says = status, code, says


@dataclass
class Repository:
    """objects: a folder for LFS."""

    name: str
    objects: Path
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.at(MAIN)

    def at(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a pull request, or an id."""
        known = {f"refs/pr/{pull.number}": pull.commit for pull in self.pulls.values()} | self.tags | self.branches
        oid = known.get(revision, revision)
        if oid not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]

    def history(self, revision: str) -> list[Commit]:
        """From a revision back to the first."""
        found: list[Commit] = [self.at(revision)]
        while parent := found[-1].parent:
            found.append(self.commits[parent])
        return found

    def put(self, changes: Mapping[str, Blob | None], title: str, message: str = "", branch: str = MAIN) -> Commit:
        """A commit on a branch. None deletes a file."""
        made = self.make(changes, title, message, self.branches.get(branch))
        self.branches[branch] = made.oid
        return made

    def make(self, changes: Mapping[str, Blob | None], title: str, message: str, parent: str | None) -> Commit:
        """A commit that no branch is at."""
        tree = dict(self.commits[parent].tree) if parent else {}
        for name, content in changes.items():
            if content is not None:
                tree[name] = content
            elif tree.pop(name, None) is None:
                raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
        what = [parent, title, message, {name: content.oid for name, content in tree.items()}]
        oid = hashlib.sha1(json.dumps(what).encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, message, tree)
        return self.commits[oid]

    def propose(self, made: Commit) -> Pull:
        number = len(self.pulls) + 1
        self.pulls[number] = Pull(number, made.title, made.oid)
        return self.pulls[number]

    def stored(self, sha256: str) -> Path:
        """Where an object of LFS lies, or would."""
        return self.objects / sha256

    def is_large(self, name: str, size: int, sample: bytes) -> bool:
        """Whether git does not take it as it is."""
        return size > LARGE_BYTES or b"\0" in sample or any(fnmatch(name, pattern) for pattern in LARGE)

    def is_ignored(self, name: str) -> bool:
        patterns = self.head.tree[".gitignore"].read().decode().split() if ".gitignore" in self.head.tree else []
        return any(fnmatch(name, pattern) for pattern in patterns)


def new(name: str, objects: Path, private: bool = False) -> Repository:
    """As the hub makes one: with a first commit."""
    objects.mkdir(parents=True, exist_ok=True)
    made = Repository(name, objects, private)
    attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE)
    made.put({ATTRIBUTES: blob(attributes.encode())}, "initial commit")
    return made
