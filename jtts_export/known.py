"""Hashes of large files, remembered, so that finding that there is nothing to do does not read gigabytes.

What is remembered goes with all that a file system says of a file: device, inode, size, and both times of change. One
of them, ctime, no program can set back. So a remembered hash is of the bytes that lie there now, short of a disk that
lost some; and it only ever leads to leaving alone what is there. Whatever is made, measured, or published is read.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from .models.source import sha256_file

LEAST_BYTES = 1_000_000  # of a file that is worth it
SETTLED_S, COARSE_S = 0.1, 3.0  # a later change than that shows in its times; where they have whole seconds only


class Known:
    """Hashes under one folder, a small file for each."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def sha256(self, path: Path) -> str:
        """As remembered, or else read. Raises CheckpointError where the file cannot be read."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = path.stat()
            if found.st_size >= LEAST_BYTES:
                kept = json.loads(self._file(found).read_text(encoding="utf-8"))
                if kept["of"] == _of(found):
                    return str(kept["sha256"])
        return self.read(path)

    def read(self, path: Path) -> str:
        """Of the bytes as they are, and remembered. Raises CheckpointError where the file cannot be read."""
        start, before = time.time(), _stat(path)
        sha256 = sha256_file(path)
        after = _stat(path)
        if before and after and _of(before) == _of(after) and _is_worth_it(after, start):
            with suppress(OSError):
                self.root.mkdir(parents=True, exist_ok=True)
                work = self.root / f".{os.getpid()}-{after.st_ino}"
                work.write_text(json.dumps({"of": _of(after), "sha256": sha256}), encoding="utf-8")
                work.replace(self._file(after))
        return sha256

    def _file(self, found: os.stat_result) -> Path:
        return self.root / f"{found.st_dev}-{found.st_ino}.json"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _of(found: os.stat_result) -> list[int]:
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _is_worth_it(found: os.stat_result, start: float) -> bool:
    """Whether it is large, and a change after `start` would show."""
    coarse = found.st_ctime_ns % 1_000_000_000 == 0
    return found.st_size >= LEAST_BYTES and start - found.st_ctime > (COARSE_S if coarse else SETTLED_S)
