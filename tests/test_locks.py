"""Locks between processes: who waits for whom, and what a killed one leaves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import environment

from jtts_export.locks import exclusive

HOLD = """
import sys
from pathlib import Path
from jtts_export.locks import exclusive, machine

def waits() -> None:
    print("waits", flush=True)

kind, path = sys.argv[1:]
held = exclusive(Path(path), waits) if kind == "file" else machine(kind == "alone", waits)
with held:
    print("holds", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """A process that takes a lock, and holds it until it is told."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, str(folder / "lock")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=environment(folder),
        )

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ends(self) -> None:
        self.process.communicate("\n")

    def killed(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.parametrize("end", ["ends", "killed"])
def test_the_next_takes_a_lock_from_one_that_is_gone(tmp_path: Path, end: str) -> None:
    first = Holder("file", tmp_path)
    assert first.said() == "holds"
    second = Holder("file", tmp_path)
    assert second.said() == "waits"
    getattr(first, end)()
    assert second.said() == "holds"
    third = Holder("file", tmp_path)
    assert third.said() == "waits"
    second.ends()
    assert third.said() == "holds"
    third.ends()
    assert not (tmp_path / "lock").exists()


def test_stages_share_a_machine_and_what_is_timed_has_it_alone(tmp_path: Path) -> None:
    first = Holder("beside", tmp_path)
    assert first.said() == "holds"
    second = Holder("beside", tmp_path)
    assert second.said() == "holds"
    timed = Holder("alone", tmp_path)
    assert timed.said() == "waits"
    later = Holder("beside", tmp_path)
    assert later.said() == "waits"  # or what is timed would wait for ever
    first.ends()
    second.killed()
    assert timed.said() == "holds"
    timed.killed()
    assert later.said() == "holds"
    later.ends()


def test_a_lock_that_cannot_be_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), exclusive(tmp_path / "none" / "lock"):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"), exclusive(tmp_path / "link"):
        pass
    assert not (tmp_path / "elsewhere").exists()
