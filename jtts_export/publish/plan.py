"""What a publication changes: the release's files against those that lie on the hub."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from jtts_export.artifact import has_a_dotted_part, is_inside

from .files import Verified

Kind = Literal["add", "replace", "delete", "unchanged"]


@dataclass(frozen=True)
class Remote:
    """A file on the hub. sha256: of one that lies in LFS, whose blob_id is a pointer's."""

    size: int
    blob_id: str
    sha256: str | None = None

    def holds(self, content: Verified) -> bool:
        """Whether it has the same bytes, by what the hub says."""
        if self.size != content.size:
            return False
        return self.blob_id == content.blob_id if self.sha256 is None else self.sha256 == content.sha256


@dataclass(frozen=True)
class Operation:
    """What becomes of a file. size: bytes that it has, or had if it is deleted."""

    kind: Kind
    name: str
    size: int


Tree = Mapping[str, Remote]


def plan(contents: Iterable[Verified], tree: Tree, left: Collection[str]) -> list[Operation]:
    """Every operation, by name. left: files of the last publication."""
    ours = {content.name: content for content in contents}
    made = [Operation(_kind(content, tree.get(name)), name, content.size) for name, content in ours.items()]
    gone = [Operation("delete", name, tree[name].size) for name in left if name in tree and name not in ours]
    return sorted([*made, *gone], key=lambda operation: operation.name)


def _kind(content: Verified, there: Remote | None) -> Kind:
    if there is None:
        return "add"
    return "unchanged" if there.holds(content) else "replace"


def changes(operations: Iterable[Operation]) -> list[Operation]:
    """Those that a commit is made of."""
    return [operation for operation in operations if operation.kind != "unchanged"]


def is_there(contents: Iterable[Verified], tree: Tree) -> bool:
    """Whether a tree holds every file of the release."""
    return all(content.name in tree and tree[content.name].holds(content) for content in contents)


def listed(manifest: bytes | None) -> set[str]:
    """Names of the files in a manifest.json from anywhere, the good ones: nothing that begins with a dot, as
    .gitattributes, was ever published."""
    try:
        files = json.loads(manifest or b"")["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return set()
    names = files if isinstance(files, dict) else {}
    return {name for name in names if is_inside(name) and not has_a_dotted_part(name)}


def summary(operations: Iterable[Operation]) -> str:
    """As `2 to add, 1 to replace, 12 unchanged; 93.1 MB to send`."""
    operations = list(operations)
    counts = Counter(operation.kind for operation in operations)
    said = [f"{counts[k]} to {k}" for k in ("add", "replace", "delete") if counts[k]]
    said += [f"{counts['unchanged']} unchanged"] if counts["unchanged"] else []
    return f"{', '.join(said)}; {bytes_to_send(operations) / 1e6:.1f} MB to send"


def bytes_to_send(operations: Iterable[Operation]) -> int:
    """At most: what the hub has under another name is not sent again."""
    return sum(operation.size for operation in operations if operation.kind in ("add", "replace"))


def as_json(operations: Iterable[Operation]) -> list[dict[str, object]]:
    return [asdict(operation) for operation in operations]
