"""The stage cache: what makes a result new, what a killed or failing stage leaves, what is cleaned."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import environment

from jtts_export import store as store_module
from jtts_export.errors import GateFailed, OutsideError
from jtts_export.store import Stage, Store, check, clean_dead, default_root, files_under, tool_versions, writing


def make(
    store: Store, inputs: dict[str, object], name: str = "export", content: str = "whole", **more: bool
) -> Stage:
    return store.stage(name, inputs, lambda out: wrote(out, content), **more)


def wrote(out: Path, content: str) -> None:
    (out / "sub").mkdir()
    (out / "sub" / "graph.onnx").write_text(content)


def never(out: Path) -> None:
    raise AssertionError("a cached stage was run")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def dead_pid() -> int:
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


# --- keys -----------------------------------------------------------------------------------------------


def test_the_same_inputs_are_found_again_by_another_process(tmp_path: Path) -> None:
    made = make(Store(tmp_path), {"a": 1, "b": [2, "x"]})
    found = Store(tmp_path).stage("export", {"b": [2, "x"], "a": 1}, never)
    assert (made.cached, found.cached) == (False, True)
    assert (found.folder, found.key) == (made.folder, made.key)
    assert names(tmp_path) == [made.folder.name]


def test_name_and_inputs_are_in_the_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    keys = {
        make(store, inputs, name).key
        for name in ("export", "optimize")
        for inputs in ({}, {"opset": 17}, {"opset": 18}, {"opset": "17"}, {"other": 17}, {"opset": {"of": 17}})
    }
    assert len(keys) == 12


def test_the_code_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(Store(tmp_path), {})
    monkeypatch.setattr(store_module, "code_version", lambda: "edited")
    assert make(Store(tmp_path), {}).key != first.key


def test_tool_versions_are_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(Store(tmp_path), {})
    monkeypatch.setattr(store_module, "tool_versions", lambda: {**tool_versions(), "onnxruntime": "99"})
    assert make(Store(tmp_path), {}).key != first.key


def test_code_version_follows_every_source_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    shutil.copytree(Path(store_module.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(store_module, "__file__", str(package / "store.py"))
    versions = [store_module.code_version.__wrapped__()]
    for change in (
        lambda: (package / "quantize" / "new.py").write_text(""),
        lambda: (package / "quantize" / "new.py").rename(package / "validate" / "new.py"),
        lambda: (package / "validate" / "new.py").write_text("x = 1"),
        lambda: (package / "models" / "kokoro" / "config.json").write_text("{}"),
        *(lambda n=n: (package / "report" / "templates" / n).write_text("") for n in ("new.jinja", "a.css", "b.js")),
    ):
        change()
        versions.append(store_module.code_version.__wrapped__())
    assert len(set(versions)) == len(versions)


def test_tool_versions_name_what_artifacts_depend_on() -> None:
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= tool_versions().keys()


# --- running --------------------------------------------------------------------------------------------


def test_a_stage_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def build(out: Path) -> None:
        wrote(out, "half")
        assert out.parent == tmp_path
        lock, work = names(tmp_path)
        assert lock.startswith(".export-")
        assert work == f"tmp-{os.getpid()}-{lock.removeprefix('.').removesuffix('.lock')}"

    made = store.stage("export", {}, build)
    assert names(tmp_path) == [made.folder.name]
    assert (made.folder / "sub" / "graph.onnx").read_text() == "half"


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        wrote(out, "half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).stage("export", {}, fail)
    assert names(tmp_path) == []


def test_a_forced_stage_that_fails_leaves_the_earlier_result(tmp_path: Path) -> None:
    made = make(Store(tmp_path), {})

    def fail(out: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).stage("export", {}, fail, force=True)
    assert Store(tmp_path).stage("export", {}, never) == Stage(made.folder, made.key, cached=True)


def test_force_replaces_the_result(tmp_path: Path) -> None:
    make(Store(tmp_path), {}, content="first")
    again = make(Store(tmp_path), {}, content="second", force=True)
    assert not again.cached
    assert (again.folder / "sub" / "graph.onnx").read_text() == "second"
    assert names(tmp_path) == [again.folder.name]


MAKE_ONE = """
import sys, time
from pathlib import Path
from jtts_export.store import Store

def build(out: Path) -> None:
    print("makes it", flush=True)
    sys.stdin.readline()
    (out / "made").write_text(sys.argv[2])

def waits(reason: str) -> None:
    print("waits:", reason, flush=True)

made = Store(Path(sys.argv[1])).stage("export", {}, build, waits=waits)
print(made.cached, (made.folder / "made").read_text(), flush=True)
"""


def one_more(root: Path, content: str) -> subprocess.Popen[str]:
    """A process that makes a stage as soon as it is sent a line."""
    command = [sys.executable, "-c", MAKE_ONE, str(root), content]
    env = environment(root.with_name(f"{root.name}-home"))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=env)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_of_two_processes_that_want_a_stage_one_makes_it(tmp_path: Path) -> None:
    first = one_more(tmp_path, "first")
    assert said(first) == "makes it"
    second = one_more(tmp_path, "second")
    assert said(second) == "waits: another process makes it"
    assert first.communicate("\n")[0] == "False first\n"
    assert second.communicate()[0] == "True first\n"
    assert len(names(tmp_path)) == 1


def test_a_process_that_is_killed_leaves_its_stage_to_the_one_that_waits(tmp_path: Path) -> None:
    first = one_more(tmp_path, "first")
    assert said(first) == "makes it"
    second = one_more(tmp_path, "second")
    assert said(second) == "waits: another process makes it"
    first.kill()
    first.communicate()
    assert said(second) == "makes it"
    assert second.communicate("\n")[0] == "False second\n"
    assert Store(tmp_path)
    assert len(names(tmp_path)) == 1


def test_find_makes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("export", {"n": 1}) is None
    made = make(store, {"n": 1})
    assert store.find("export", {"n": 1}) == Stage(made.folder, made.key, cached=True)
    truncate(made.folder)
    assert store.find("export", {"n": 1}) is None


def truncate(folder: Path) -> None:
    (folder / "sub" / "graph.onnx").write_text("w")


def remove(folder: Path) -> None:
    (folder / "sub" / "graph.onnx").unlink()


def remove_record(folder: Path) -> None:
    (folder / "stage.json").unlink()


def record_of(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "stage.json").write_text(text) and None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        remove,
        remove_record,
        *map(record_of, ("", "{", "[]", "null", "{}", '{"files": []}', '{"files": {"a": 1}}')),
    ],
)
def test_a_damaged_result_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    made = make(Store(tmp_path), {})
    damage(made.folder)
    again = make(Store(tmp_path), {})
    assert not again.cached
    assert (again.folder / "sub" / "graph.onnx").read_text() == "whole"
    assert Store(tmp_path).stage("export", {}, never).cached


def test_check_finds_other_bytes_of_the_same_size(tmp_path: Path) -> None:
    made = make(Store(tmp_path), {})
    check(made.folder)
    (made.folder / "sub" / "graph.onnx").write_text("whale")
    with pytest.raises(GateFailed, match=r"sub/graph\.onnx .*--force"):
        check(made.folder)
    check(make(Store(tmp_path), {}, force=True).folder)


def test_check_finds_a_file_that_the_stage_did_not_make(tmp_path: Path) -> None:
    made = make(Store(tmp_path), {})
    (made.folder / "sub" / "more.onnx").write_text("whole")
    with pytest.raises(GateFailed, match=r"sub/more\.onnx was not made .*--force"):
        check(made.folder)


def test_the_record_says_what_made_the_result(tmp_path: Path) -> None:
    made = make(Store(tmp_path), {"opset": 17})
    record = json.loads((made.folder / "stage.json").read_text())
    assert (record["what"]["stage"], record["what"]["inputs"]) == ("export", {"opset": 17})
    assert record["what"]["versions"] == tool_versions()
    assert list(record["files"]) == ["sub/graph.onnx"]


# --- cleaning -------------------------------------------------------------------------------------------


def test_temporary_folders_of_dead_processes_go_and_others_stay(tmp_path: Path, dead_pid: int) -> None:
    mine = make(Store(tmp_path), {}).folder.name
    stay = [f"tmp-{os.getpid()}-export", "tmp-1-export", "tmp-notes", "tmp-x-y", f"tmp-{10**30}-a", "notes", mine]
    for name in [*stay, f"tmp-{dead_pid}-export", f".tmp-{dead_pid}-kokoro", f"tmp-{dead_pid}-quantize-int8"]:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "file").write_text("")
    (tmp_path / f"tmp-{dead_pid}-file").write_text("no folder, not ours")
    Store(tmp_path)
    assert names(tmp_path) == sorted([*stay, f"tmp-{dead_pid}-file"])
    clean_dead(tmp_path)


def test_results_not_used_for_a_month_go(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, used, new = (make(store, {"n": n}).folder for n in range(3))
    (tmp_path / "notes").mkdir()
    month_ago = time.time() - (store_module.UNUSED_DAYS + 1) * 86_400
    for folder in (old, used, tmp_path / "notes"):
        os.utime(folder, (month_ago, month_ago))
    store.stage("export", {"n": 1}, never)  # using a result keeps it
    Store(tmp_path)
    assert names(tmp_path) == sorted([used.name, new.name, "notes"])


# --- where, and what the disk says ----------------------------------------------------------------------


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("JTTS_EXPORT_CACHE", str(tmp_path / "named"))
    assert default_root() == tmp_path / "named"
    monkeypatch.setenv("JTTS_EXPORT_CACHE", "")
    assert default_root() == tmp_path / "xdg" / "jtts-export"
    monkeypatch.delenv("JTTS_EXPORT_CACHE")
    assert default_root() == tmp_path / "xdg" / "jtts-export"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert default_root() == tmp_path / "home" / ".cache" / "jtts-export"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == tmp_path / "home" / ".cache" / "jtts-export"


def test_a_root_that_cannot_be_is_an_outside_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for root in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/cache")):
        with pytest.raises(OutsideError, match="cannot write to"):
            Store(root)


def test_a_full_disk_is_an_outside_error_that_leaves_nothing(tmp_path: Path) -> None:
    def fill(out: Path) -> None:
        wrote(out, "half")
        Path("/dev/full").write_bytes(b"more")

    with pytest.raises(OutsideError, match=r"cannot write to .*: No space left on device"):
        Store(tmp_path).stage("export", {}, fill)
    assert names(tmp_path) == []


def test_writing_names_the_path_that_was_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(OutsideError, match=f"cannot write to {tmp_path / 'no' / 'file'}: No such file"),
        writing(tmp_path),
    ):
        (tmp_path / "no" / "file").write_text("")
    with pytest.raises(OutsideError, match="cannot write to target: File too large"), writing(tmp_path):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), "source", None, "target")
    with pytest.raises(OSError, match="no number"), writing(tmp_path):
        raise OSError("no number")


def test_files_under_lists_files_at_any_depth_in_order(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a/b/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [p.relative_to(tmp_path).as_posix() for p in files_under(tmp_path)] == ["a/b/c", "a/z", "b"]
