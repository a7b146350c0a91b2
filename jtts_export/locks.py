"""Locks between processes of one machine. The system takes them back from a process that is gone, however it went."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir

Waits = Callable[[], None]


def _silently() -> None:
    """Tells nobody."""


@contextmanager
def exclusive(path: Path, waits: Waits = _silently) -> Iterator[None]:
    """Hold a lock that has the name of a file, which is there while somebody holds it. waits: told where another
    process does. Raises OSError where there can be no such file."""
    lock = _taken(path, cache(waits))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: who awaits this very file notices, and begins anew
        os.close(lock)


def _taken(path: Path, waits: Waits) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            _lock(lock, True, waits)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


@contextmanager
def machine(alone: bool, waits: Waits = _silently) -> Iterator[None]:
    """Work on this machine beside whoever else holds this, or, for what is timed, alone among them.

    Who would be alone waits for those at work, and keeps those who come later from beginning before it.
    """
    waits = cache(waits)  # told once
    with _shared_file("work") as work:
        with _shared_file("turn") as turn:
            _lock(turn, True, waits)
            _lock(work, alone, waits)
        yield


@contextmanager
def _shared_file(name: str) -> Iterator[int]:
    """A file of the machine, of whichever user came first; the others may read it, which is enough to lock it."""
    path = Path(gettempdir()) / f"jtts-export-{name}.lock"
    read = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(path, read | os.O_CREAT, 0o644)
    except PermissionError:  # another's, in a folder for all
        file = os.open(path, read)
    try:
        yield file
    finally:
        os.close(file)


def _lock(file: int, alone: bool, waits: Waits) -> None:
    import fcntl  # not every system has it; where it is missing, nothing is built

    how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        waits()
        fcntl.flock(file, how)
