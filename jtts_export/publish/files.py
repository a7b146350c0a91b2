"""Files of a release, held to the bytes that were verified until the last of them is sent."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from jtts_export.artifact import FileEntry
from jtts_export.errors import GateFailed
from jtts_export.models.source import git_hash

BLOCK = 1 << 20  # bytes that are read, and compared, at a time
KEPT = 1 << 18  # bytes of a file that is kept in memory


@dataclass(frozen=True)
class Verified:
    """A file with the sha256 of the manifest. blob_id: git's name for it; digests: of each block; data: all of it,
    of a small one."""

    name: str
    path: Path
    size: int
    sha256: str
    blob_id: str
    digests: tuple[bytes, ...] = field(repr=False)
    data: bytes | None = field(repr=False)

    def block(self, number: int) -> bytes:
        """The bytes of one block, from disk if need be. Raises GateFailed where they have changed."""
        start = number * BLOCK
        if self.data is not None:
            return self.data[start : start + BLOCK]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                found, size = file.read(BLOCK), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise changed(self.name) from error
        if size != self.size or hashlib.sha256(found).digest() != self.digests[number]:
            raise changed(self.name)
        return found

    def read(self) -> bytes:
        """All bytes."""
        return b"".join(self.block(number) for number in range(len(self.digests)))


def verified(release: Path, name: str, entry: FileEntry | None) -> Verified:
    """Read a file once. Raises GateFailed where it is not what the manifest says; entry: None of the manifest."""
    path = release / name
    size = path.stat().st_size
    whole, blob, digests, start = hashlib.sha256(), git_hash(size), [], b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            whole.update(block)
            blob.update(block)
            digests.append(hashlib.sha256(block).digest())
            start = start or block
    sha256 = whole.hexdigest()
    if entry is not None and (sha256, size) != (entry.sha256, entry.size):
        raise changed(name)
    return Verified(name, path, size, sha256, blob.hexdigest(), tuple(digests), start if size <= KEPT else None)


def changed(name: str) -> GateFailed:
    """A file that was verified and is another now."""
    return GateFailed(f"{name} changed while it was being published")


class CheckedFile(io.BufferedIOBase):
    """A verified file to read from. No byte of a changed file comes out. moved: called with the number of bytes that
    each reading gives."""

    moved: Callable[[int], None]

    def __init__(self, content: Verified) -> None:
        self.moved = lambda _: None
        self._content, self._at = content, 0
        self._held: tuple[int, bytes] = (-1, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._content.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._content.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted:
            number, start = divmod(self._at, BLOCK)
            if self._held[0] != number:
                self._held = (number, self._content.block(number))
            part = self._held[1][start : start + wanted]
            parts.append(part)
            self._at += len(part)
            wanted -= len(part)
        whole = b"".join(parts)
        self.moved(len(whole))
        return whole
