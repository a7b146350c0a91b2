"""Killed (-9) at any moment: a complete commit or none, and a rerun completes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random

import pytest
from command import COMMAND, environment
from hub.repository import Repository, blob
from hub.server import Fault, Hub, Kind, Request
from publish.child import run
from publish.releases import REPO, TOKEN, Waits, is_published, put, write

from jtts_export.publish.local import Passed, check

GRAPHS = {"onnx/model.onnx": b"\x08fp32" * 60_000, "onnx/model_quantized.onnx": b"\x08int8" * 20_000}
KINDS: tuple[Kind, ...] = ("drop", "cut-upload", "lose")
MOMENTS = 24
LIMIT_S = 60


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Children that begin where imports end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["publish.child", "jtts_export.publish.hub"])
    return context


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("killed"), GRAPHS)


@pytest.fixture(scope="module")
def passed(release: Path) -> Passed:
    return check(release, None)


@pytest.fixture
def repository(hub: Hub) -> Repository:
    return hub.add(REPO, {"old.txt": b"old", "manifest.json": b'{"files": {"old.txt": 1}}', "NOTES.md": b"others'"})


def killing(
    hub: Hub, processes: ForkServerContext, release: Path, when: Callable[[Request], Kind | None]
) -> int | None:
    """Publish in a process that is killed at a request; its exit code. Kind: before the request is read, halfway
    through it, or when it is done and not answered."""
    child = processes.Process(target=run, args=(release, REPO, hub.url, TOKEN))

    def kill() -> None:
        assert child.pid
        os.kill(child.pid, signal.SIGKILL)

    def planted(request: Request) -> Fault | None:
        kind = when(request)
        return Fault(kind, act=kill) if kind else None

    hub.fault = planted
    child.start()
    child.join(LIMIT_S)
    hub.settle()
    hub.fault = lambda _: None
    return child.exitcode


def moments() -> Iterator[tuple[float, Kind]]:
    """Spread over the requests of a publication, each in one of three ways."""
    random = Random(7)
    for number in range(MOMENTS):
        yield (number + random.random()) / MOMENTS, KINDS[number % 3]


def at(number: int, kind: Kind) -> Callable[[Request], Kind | None]:
    return lambda request: kind if request.number == number else None


def test_killed_at_moments_all_over_a_publication(
    hub: Hub, repository: Repository, processes: ForkServerContext, release: Path, passed: Passed
) -> None:
    before = repository.head
    put(release, Waits())
    count, states = len(hub.requests), set()
    for share, kind in moments():
        repository.branches["main"] = before.oid
        repository.tags.clear()
        for path in (hub.folder / "objects").iterdir():
            path.unlink()
        hub.requests.clear()
        number = int(share * count)
        code = killing(hub, processes, release, at(number, kind))
        assert code == -signal.SIGKILL, (number, kind, code)
        head = repository.head
        assert head == before or (is_published(head, passed) and head.parent == before.oid), (number, kind)
        assert head == before or set(head.tree) == {*passed.files, "NOTES.md", ".gitattributes"}
        states.add((head == before, bool(repository.tags)))
        put(release, Waits())
        assert is_published(repository.head, passed)
        assert repository.head.parent == before.oid  # and not a second one
        assert repository.tags == {passed.name: repository.head.oid}
    assert states == {(True, False), (False, False), (False, True)}  # or the moments were not spread


def test_killed_before_there_is_a_repository(
    hub: Hub, processes: ForkServerContext, release: Path, passed: Passed
) -> None:
    for number in range(3):
        for kind in KINDS:
            hub.requests.clear()
            hub.repositories.clear()
            killing(hub, processes, release, at(number, kind))
            put(release, Waits())
            assert len(hub.repositories[REPO].history("main")) == 2
            assert is_published(hub.repositories[REPO].head, passed)


def test_killed_and_somebody_commits_before_the_rerun(
    hub: Hub, repository: Repository, processes: ForkServerContext, release: Path, passed: Passed
) -> None:
    killing(hub, processes, release, lambda r: "lose" if "/commit/" in r.path else None)
    assert is_published(repository.head, passed)
    repository.put({"NOTES.md": blob(b"new")}, "notes")
    published = put(release, Waits())
    assert not published.committed
    assert published.commit == repository.head.oid
    assert repository.tags == {passed.name: repository.head.oid}


def test_the_command_killed(hub: Hub, repository: Repository, release: Path, passed: Passed, tmp_path: Path) -> None:
    """As it is started by people; behind the commit, before it is verified."""
    before = repository.head
    env = environment(tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    command = [*COMMAND, "publish", str(release), "--repo", REPO]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:

        def kill(request: Request) -> Fault | None:
            if "/resolve/" not in request.path or repository.head == before:
                return None
            process.kill()
            return Fault("drop")

        hub.fault = kill
        out, err = process.communicate(timeout=LIMIT_S)
    hub.fault = lambda _: None
    assert process.returncode == -signal.SIGKILL
    assert TOKEN.encode() not in out + err
    assert is_published(repository.head, passed)
    assert repository.tags == {}
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"unchanged, and verified: {REPO}@main")
    assert repository.tags == {passed.name: repository.head.oid}
    assert repository.head.parent == before.oid
