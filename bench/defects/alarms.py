"""How often good artifacts are not passed: alone on a machine, or beside others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

from jtts_export.validate import measure
from jtts_export.validate.subject import Subject

SPIN = "while True: pass"

Tell = Callable[[str], None]


def verdicts(subjects: Iterable[Subject], busy: bool, tell: Tell) -> list[str]:
    """Validate good artifacts, which may be made on the way."""
    found = []
    with neighbours() if busy else ExitStack():
        for number, subject in enumerate(subjects, 1):
            content = measure.validate(subject, lambda _: None)
            found.append(content["verdict"])
            tell(f"validation {number}: {subject.name}: {found[-1]}{_open(content)}")
    return found


@contextmanager
def neighbours() -> Iterator[None]:
    """A process on every core that computes without end."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _open(content: dict) -> str:
    """Gates that did not pass."""
    rows = [
        f" {variant}.{row['metric']} {row['value']} {row['op']} {row['limit']}: {row['outcome']}"
        for variant, found in content["variants"].items()
        for row in found["gates"]
        if not row["passed"]
    ]
    return ";".join(rows)
