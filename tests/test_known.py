"""Hashes that are remembered: never those of other bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from jtts_export import known as module
from jtts_export.errors import CheckpointError
from jtts_export.known import LEAST_BYTES, Known

DATA = bytes(LEAST_BYTES)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose last change has settled, by a clock that is ahead."""
    path = tmp_path / "weights"
    path.write_bytes(DATA)
    now = module.time.time
    monkeypatch.setattr(module.time, "time", lambda: now() + 60)
    return path


@pytest.fixture
def known(tmp_path: Path) -> Known:
    return Known(tmp_path / "hashes")


@pytest.fixture
def unread(known: Known, file: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """Remembers the file's hash; a file that it reads has the hash `read`."""
    known.read(file)
    monkeypatch.setattr(module, "sha256_file", lambda path: "read")
    return known


def test_a_file_that_did_not_change_is_not_read_again(unread: Known, file: Path, tmp_path: Path) -> None:
    assert unread.sha256(file) == sha256(DATA)
    assert Known(tmp_path / "hashes").sha256(file) == sha256(DATA)
    file.rename(tmp_path / "moved")
    assert unread.sha256(tmp_path / "moved") in {sha256(DATA), "read"}  # some systems count a new name as a change


def test_what_reads_always_reads(unread: Known, file: Path) -> None:
    assert unread.read(file) == "read"


def edit_and_set_its_time_back(file: Path) -> None:
    before = file.stat()
    with file.open("r+b") as out:
        out.write(b"1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert file.stat().st_size == before.st_size


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(DATA[:-1] + b"1")
    other.replace(file)


def touch(file: Path) -> None:
    os.utime(file)


@pytest.mark.parametrize("change", [edit_and_set_its_time_back, replace, touch])
def test_one_that_did_is(unread: Known, file: Path, change: object) -> None:
    change(file)  # type: ignore[operator]
    assert unread.sha256(file) == "read"


def test_one_that_changed_just_now_is_not_remembered(tmp_path: Path, known: Known) -> None:
    path = tmp_path / "weights"
    path.write_bytes(DATA)  # a change within the clock's tick would not show
    assert known.read(path) == sha256(DATA)
    assert not known.root.exists()


def test_small_ones_are_always_read(file: Path, known: Known) -> None:
    file.write_bytes(DATA[1:])
    known.read(file)
    assert not known.root.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"of": []}', '{"of": [1, 2, 3, 4, 5], "sha256": "x"}'])
def test_a_damaged_memory_is_none(unread: Known, file: Path, text: str) -> None:
    (path,) = unread.root.iterdir()
    path.write_text(text)
    assert unread.sha256(file) == "read"


def test_a_file_that_is_not_there(known: Known, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*none: No such file"):
        known.sha256(tmp_path / "none")


def test_a_memory_that_cannot_be_written_is_none(file: Path, tmp_path: Path) -> None:
    (tmp_path / "hashes").write_text("no folder")
    assert Known(tmp_path / "hashes").sha256(file) == sha256(DATA)
