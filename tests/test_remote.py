"""A store that machines share: what goes there comes back, or counts as absent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from s3_server import serving

from jtts_export.errors import BadInput, OutsideError
from jtts_export.remote import Remote
from jtts_export.store import Store, check, record_of

WEIGHTS = b"weights" * 1000


def wrote(out: Path) -> None:
    (out / "graphs").mkdir()
    (out / "graphs" / "model.onnx").write_bytes(WEIGHTS)
    (out / "empty.json").write_bytes(b"")


def never(out: Path) -> None:
    raise AssertionError("what is in the store was made again")


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "s3":
        with serving() as bucket:
            for name, value in bucket.environment().items():
                monkeypatch.setenv(name, value)
            yield "s3://bucket/store"
    else:
        yield (tmp_path / "store").as_uri() if request.param == "file" else f"memory://{uuid.uuid4().hex}/store"


def machine(tmp_path: Path, name: str, url: str) -> Store:
    return Store(tmp_path / name, Remote(url))


def test_what_one_machine_makes_another_finds(tmp_path: Path, url: str) -> None:
    made = machine(tmp_path, "a", url).stage("export", {"n": 1}, wrote)
    found = machine(tmp_path, "b", url).stage("export", {"n": 1}, never)
    assert (made.cached, found.cached, found.key) == (False, True, made.key)
    assert (found.folder / "graphs" / "model.onnx").read_bytes() == WEIGHTS
    assert record_of(found.folder) == record_of(made.folder)
    check(found.folder)
    assert [path.name for path in (tmp_path / "b").iterdir()] == [found.folder.name]
    with pytest.raises(AssertionError, match="made again"):
        machine(tmp_path, "b", url).stage("export", {"n": 2}, never)


def test_what_a_machine_had_before_goes_there_too(tmp_path: Path, url: str) -> None:
    Store(tmp_path / "a").stage("export", {}, wrote)
    assert machine(tmp_path, "a", url).stage("export", {}, never).cached
    assert machine(tmp_path, "b", url).stage("export", {}, never).cached


def test_all_machines_go_on_from_what_is_there(tmp_path: Path, url: str) -> None:
    machine(tmp_path, "a", url).stage("export", {}, wrote)

    def otherwise(out: Path) -> None:
        (out / "other").write_text("other")

    Store(tmp_path / "b").stage("export", {}, otherwise)
    found = machine(tmp_path, "b", url).stage("export", {}, never)
    assert (found.folder / "graphs" / "model.onnx").read_bytes() == WEIGHTS
    assert not (found.folder / "other").exists()
    forced = machine(tmp_path, "b", url).stage("export", {}, otherwise, force=True)
    assert record_of(machine(tmp_path, "a", url).stage("export", {}, never).folder) == record_of(forced.folder)


def test_equal_files_are_there_once(tmp_path: Path) -> None:
    store = machine(tmp_path, "a", (tmp_path / "store").as_uri())
    for n in range(3):
        store.stage("export", {"n": n}, wrote)
    assert len([p for p in (tmp_path / "store" / "objects").rglob("*") if p.is_file()]) == 2
    assert len(list((tmp_path / "store" / "records").iterdir())) == 3


def the_object(folder: Path) -> Path:
    return max((p for p in (folder / "objects").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def the_record(folder: Path) -> Path:
    (path,) = (folder / "records").iterdir()
    return path


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        record = json.loads(the_record(folder).read_text())
        change(record)
        the_record(folder).write_text(json.dumps(record))

    return damage


def renamed(name: str) -> Callable[[Path], None]:
    return edited(lambda record: record["files"].update({name: record["files"].pop("empty.json")}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "an object is gone": lambda folder: the_object(folder).unlink(),
    "an object is cut": lambda folder: the_object(folder).write_bytes(WEIGHTS[:-1]),
    "an object is longer": lambda folder: the_object(folder).write_bytes(WEIGHTS + b"-"),
    "another of its size": lambda folder: the_object(folder).write_bytes(b"x" * len(WEIGHTS)),
    "a record is gone": lambda folder: the_record(folder).unlink(),
    "a record is cut": lambda folder: the_record(folder).write_bytes(the_record(folder).read_bytes()[:-9]),
    "a record is empty": lambda folder: the_record(folder).write_bytes(b""),
    "a record of something else": edited(lambda record: record["what"]["inputs"].update(n=9)),
    "a size that is none": edited(lambda record: record["files"]["empty.json"].update(size=-1)),
    "a hash that is a path": edited(lambda record: record["files"]["empty.json"].update(sha256="../" * 21 + "x")),
    "a name that goes up": renamed("../../escaped"),
    "a name from the root": renamed("/tmp/escaped"),  # noqa: S108
    "a name of Windows": renamed("..\\escaped"),
    "a name of two lines": renamed("a\nb"),
    "a file in a file": renamed("graphs/model.onnx/escaped"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_counts_as_absent_and_is_put_right(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "store"
    machine(tmp_path, "a", folder.as_uri()).stage("export", {"n": 1}, wrote)
    DAMAGES[damage](folder)
    again = machine(tmp_path, "b", folder.as_uri()).stage("export", {"n": 1}, wrote)
    assert not again.cached
    check(again.folder)
    assert machine(tmp_path, "c", folder.as_uri()).stage("export", {"n": 1}, never).cached
    assert not list(tmp_path.rglob("*escaped*"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "store"]


def test_half_a_stage_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = (tmp_path / "store").as_uri()
    store = machine(tmp_path, "a", url)
    write, written = Remote._write, []

    def killed_at_the_record(remote: Remote, name: str, put: Callable[[str], None]) -> None:
        written.append(name)
        if name.startswith("records/"):
            raise KeyboardInterrupt
        write(remote, name, put)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "_write", killed_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            store.stage("export", {}, wrote)
    assert [name.partition("/")[0] for name in written] == ["objects", "objects", "records"]
    assert not machine(tmp_path, "b", url).stage("export", {}, wrote).cached
    assert store.stage("export", {}, never).cached  # it was kept here


def test_a_store_that_refuses_is_an_outside_error_and_what_was_made_is_kept(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    url = (tmp_path / "store").as_uri()
    with pytest.raises(OutsideError, match=f"store {url}: "):
        Remote(url).check()
    with pytest.raises(OutsideError, match="store file"):
        machine(tmp_path, "a", url).stage("export", {}, wrote)


def test_a_check_leaves_nothing(tmp_path: Path, url: str) -> None:
    Remote(url).check()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "s3:/a", "folder", "/folder"])
def test_a_url_that_is_none_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput, match=r"store .*, as file:///folder or s3://bucket"):
        Remote(url).check()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.core

    def missing(*args: object, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(OutsideError, match=r"Install s3fs to access S3: pip install 'jtts-export\[cluster\]'"):
        Remote("s3://bucket/path").check()


def test_a_password_in_the_address_is_not_shown(tmp_path: Path) -> None:
    assert Remote("ftp://me:secret@host/path").shown == "ftp://***@host/path"
