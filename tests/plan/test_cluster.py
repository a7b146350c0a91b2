"""A plan on a Dask cluster of two workers: one is killed at work, and a task kills whoever takes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import LIMIT_S, Built, assert_refused, call, contents, run, start
from plan_cluster import Cluster, cluster
from plan_files import POISON, build_table, events, on_path, poison

KILLED_IN = "quantize-int8"  # of kokoro-int8: it takes seconds
LOCAL = ("build", "--cache", "cache")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("cluster")
    site = poison(home / "site", "os.kill(os.getppid(), signal.SIGKILL)")
    with cluster(home, 2, **on_path(site)) as made:
        yield made


@pytest.fixture(scope="module")
def plan(built: Built, speecht5_built: Built, t3_built: Built, two: Cluster) -> Path:
    """Three models in two variants, and one of them in a third, which shares an export."""
    (two.home / "brief.txt").write_text("Hello.\n")
    tables = [
        build_table("kokoro-int8", built, ["int8"]),
        build_table("kokoro-fp16", built, ["fp16"]),
        build_table("speecht5", speecht5_built, ["int8"]),
        build_table("t3", t3_built, ["int8"]),
    ]
    path = two.home / "plan.toml"
    path.write_text('[defaults]\nsentences = "brief.txt"\n\n' + "\n".join(tables))
    return path


def made_by_model(release: Path) -> dict[str, str]:
    """Graphs and client files, by sha256: all but what was measured, and what tells of it."""
    told = ("report/", "validation.json", "manifest.json", "README.md")
    return {n: sha256 for n, sha256 in contents(release).items() if not n.startswith(told) and not n.endswith("/")}


def of_variant(files: dict[str, str], *left_out: str) -> dict[str, str]:
    return {n: sha256 for n, sha256 in files.items() if not any(part in n for part in left_out)}


@pytest.fixture(scope="module")
def survived(plan: Path, two: Cluster) -> list[dict[str, Any]]:
    """Events of the plan, of whose workers one was killed in the middle of a stage."""
    log = two.home / "log.jsonl"
    where = ["--scheduler", two.address, "--store", two.store, "--log", str(log)]
    pids = two.pids()
    process = start(two.home, *LOCAL, str(plan), *where)
    killed = False
    assert process.stderr is not None
    for _ in process.stderr:
        begun = [e for e in events(log) if e["event"] == "stage_started" and e["stage"] == KILLED_IN]
        if not killed and (at_work := [e["worker"] for e in begun if e.get("build") == "kokoro-int8"]):
            os.kill(pids[at_work[0]], signal.SIGKILL)
            killed = True
    process.communicate(timeout=LIMIT_S)
    assert killed
    assert process.returncode == 0, (two.home / "log.jsonl").read_text()
    return events(log)


def test_a_worker_killed_in_mid_stage_costs_that_stage_and_the_bytes_are_those_of_a_serial_build(
    survived: list[dict[str, Any]], built: Built, speecht5_built: Built, t3_built: Built, two: Cluster
) -> None:
    release = two.home / "release"
    kokoro, t3 = made_by_model(built.release), made_by_model(t3_built.release)
    expected = {
        "kokoro-int8/kokoro": of_variant(kokoro, "_fp16", "/fp16."),
        "kokoro-fp16/kokoro": of_variant(kokoro, "_quantized", "/int8."),
        "speecht5/speecht5": of_variant(made_by_model(speecht5_built.release), "_fp16", "/fp16."),
        "t3/t3": of_variant(t3, "_fp16", "_fast", "_q4", "/fp16.", "/int8-fast.", "/int4."),
    }
    for name, files in expected.items():
        assert made_by_model(release / name) == files
        assert run(two.home, "inspect", str(release / name)).returncode == 0
    assert {e["build"]: e["verdict"] for e in survived if e["event"] == "build_done"} == {
        name.partition("/")[0]: "pass" for name in expected
    }


def test_what_the_killed_worker_had_finished_is_not_done_again(survived: list[dict[str, Any]]) -> None:
    begun = [(e.get("build") or str(e["builds"]), e["stage"]) for e in survived if e["event"] == "stage_started"]
    assert {one for one in begun if begun.count(one) > 1} == {("kokoro-int8", KILLED_IN)}
    exports = [builds for builds, stage in begun if stage == "export"]
    assert len(exports) == 3  # of three models: the two builds of one share it


def test_a_rerun_on_the_cluster_makes_nothing(survived: list[dict[str, Any]], plan: Path, two: Cluster) -> None:
    before = contents(two.home / "release"), times(two.home / "release")
    log = two.home / "again.jsonl"
    where = ["--scheduler", two.address, "--store", two.store, "--log", str(log)]
    done = run(two.home, *LOCAL, str(plan), *where)
    assert done.returncode == 0, done.stderr
    assert [e for e in events(log) if e["event"] == "stage_started"] == []
    assert (contents(two.home / "release"), times(two.home / "release")) == before


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_task_that_kills_its_workers_is_given_up_after_three_and_the_others_finish(
    survived: list[dict[str, Any]], plan: Path, built: Built, two: Cluster
) -> None:
    shutil.copytree(built.checkpoint, two.home / POISON)
    lost = two.home / "none"
    tables = [
        build_table("poison", built, ["int8"], two.home / POISON),
        build_table("lost", built, ["int8"], lost),
        build_table("kokoro-int8", built, ["int8"]),
        build_table("kokoro-fp16", built, ["fp16"]),
    ]
    (two.home / "poison.toml").write_text('[defaults]\nsentences = "brief.txt"\n\n' + "\n".join(tables))
    log = two.home / "poison.jsonl"
    where = ["--scheduler", two.address, "--store", two.store, "--log", str(log), "--out", "beside", "--json"]
    done = run(two.home, *LOCAL, "poison.toml", *where)
    assert done.returncode == 4, (done.stdout, done.stderr)
    found = {one["name"]: one for one in json.loads(done.stdout)["builds"]}
    verdicts = {name: one["verdict"] for name, one in found.items()}
    assert verdicts == {"poison": "error", "lost": "error", "kokoro-int8": "pass", "kokoro-fp16": "pass"}
    assert "given up after 3 tries" in found["poison"]["error"]
    assert f"no checkpoint at '{lost}'" in found["lost"]["error"]
    assert "on every worker" in found["lost"]["error"]
    tries = {e["worker"] for e in events(log) if e.get("build") == "poison" and e["event"] == "task_started"}
    assert len(tries) == 3


def test_a_scheduler_that_does_not_answer_is_an_outside_error(
    tmp_path: Path, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jtts_export.plan.cluster.CONNECT_S", 0.5)
    store = (tmp_path / "store").as_uri()
    where = ["--scheduler", "tcp://127.0.0.1:1", "--store", store, "--cache", "cache"]
    assert_refused(call(tmp_path, "build", plan, *where), 4, "no scheduler answers at tcp://127.0.0.1:1")


def test_what_is_no_address_is_refused(tmp_path: Path, plan: Path) -> None:
    where = ["--scheduler", "127.0.0.1:1", "--store", (tmp_path / "store").as_uri(), "--cache", "cache"]
    assert_refused(call(tmp_path, "build", plan, *where), 2, "'127.0.0.1:1' is not the address of a scheduler")
