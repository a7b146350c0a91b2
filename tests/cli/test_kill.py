"""`kill -9` at any moment costs time and nothing else; a damaged cache is noticed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Built, assert_refused, brief, contents, flip_a_byte, graphs, run, stages, start
from t3_command import again

# A line of stderr that says that a stage is under way.
UNDER_WAY = (
    "export: loading",
    "export: tracing",
    "export           done",  # spread begins
    "optimize: comparing",
    "quantize-int8: calibrating",
    "validate: parity of int8",
    "validate: cold start and calls of fp32",
    "validate: speed, round 2",
)
GRAPH = "graphs/onnx/model.onnx"  # in the folder of a stage
RANDOM_KILLS = 2
LONGEST_S = 8.0  # about what a build takes
PACKAGING_KILLS = 25


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def graphs_of(built: Built, *names: str) -> dict[str, str]:
    return {name: value for name, value in graphs(built.release).items() if name in names}


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "tmp-" in path.name or path.name.endswith(".old")]


def test_a_build_killed_in_every_stage_ends_with_the_same_bytes(built: Built, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = built.again(out, "--int8", "--cache", str(cache), *brief(tmp_path))
    for line in UNDER_WAY:
        process = start(tmp_path, *command)
        assert process.stderr is not None
        seen = next((said for said in process.stderr if line in said), None)
        assert seen is not None, f"never said: {line}"
        kill(process)
        assert not (out / "kokoro").exists()
    assert leftovers(cache)  # the last one was killed at work
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    # What was finished before the last kill was not done again.
    before = dict.fromkeys(("export", "spread", "optimize", "quantize-int8"), "cached")
    assert stages(done.stderr) == {**before, "validate": "done", "report": "done"}
    assert graphs(out / "kokoro") == graphs_of(built, "model.onnx", "model_quantized.onnx")
    assert leftovers(cache) == leftovers(out) == []
    assert run(tmp_path, "inspect", str(out / "kokoro")).returncode == 0


def test_a_build_killed_at_random_moments_ends_with_the_same_bytes(t3_built: Built, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = again(t3_built, out, "--cache", str(cache))
    seed = time.time_ns()
    draw = random.Random(seed)
    for _ in range(RANDOM_KILLS):
        process = start(tmp_path, *command)
        try:
            process.communicate(timeout=draw.uniform(0.1, LONGEST_S))
            assert process.returncode == 0, f"seed {seed}"
        except subprocess.TimeoutExpired:
            kill(process)
    done = run(tmp_path, *command)
    assert done.returncode == 0, (seed, done.stderr)
    made = graphs(out / "t3")
    assert made == graphs_of(t3_built, *made), f"seed {seed}"
    assert leftovers(cache) == leftovers(out) == []


def test_a_kill_while_packaging_leaves_the_old_release_or_the_new_one(built: Built, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = built.again(out, "--int8", "--fp16")
    new = contents(built.release)
    shutil.copytree(built.release, out / "kokoro")
    (out / "kokoro" / "README.md").write_text("another release")
    old = contents(out / "kokoro")
    killed = 0
    for _ in range(PACKAGING_KILLS):
        process = start(tmp_path, *command)
        while process.poll() is None:  # until it begins to write the release
            if (out / f".tmp-{process.pid}-kokoro").exists():
                time.sleep(random.uniform(0, 0.02))
                break
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        if not (out / "kokoro").exists():  # killed between two renames: the old one will be put back
            assert contents(out / ".kokoro.old") == old
            continue
        there = contents(out / "kokoro")
        assert there in (old, new)
        if there == new:
            (out / "kokoro" / "README.md").write_text("another release")
    assert killed > PACKAGING_KILLS / 5
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    assert graphs(out / "kokoro") == graphs(built.release)
    assert leftovers(out) == []
    assert run(tmp_path, "inspect", str(out / "kokoro")).returncode == 0


def test_a_release_put_aside_by_a_killed_build_comes_back(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.release, tmp_path / ".kokoro.old")
    done = run(tmp_path, *built.again(tmp_path, "--int8", "--fp16", "--checkpoint", str(tmp_path / "none")))
    assert_refused(done, 4, "no checkpoint at")
    assert contents(tmp_path / "kokoro") == contents(built.release)


def test_another_process_at_work_is_left_alone(warm: Built, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", warm.cache
    mine = [cache / f"tmp-{os.getpid()}-export", out / f".tmp-{os.getpid()}-kokoro"]
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = [cache / f"tmp-{gone.pid}-export", out / f".tmp-{gone.pid}-kokoro"]
    for folder in [*mine, *dead]:
        folder.mkdir(parents=True)
        (folder / "graph.onnx").write_bytes(b"half")
    done = run(tmp_path, *warm.again(out, "--int8", "--fp16"))
    assert done.returncode == 0, done.stderr
    assert [folder.exists() for folder in (*mine, *dead)] == [True, True, False, False]


def one(cache: Path, stage: str, name: str) -> Path:
    (path,) = cache.glob(f"{stage}-*/{name}")
    return path


def test_files_cut_or_lost_in_the_cache_are_made_again(warm: Built, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", warm.cache
    command = warm.again(out, "--int8", "--fp16")
    graph = one(cache, "optimize", GRAPH)
    graph.write_bytes(graph.read_bytes()[:1000])
    one(cache, "export", "clients/voices/random_a.bin").unlink()
    one(cache, "spread", "stage.json").write_text("[]")
    one(cache, "quantize-int8", "stage.json").write_text('{"files": {"graph')
    one(cache, "quantize-fp16", "recipe.json").write_text("")
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    made = dict.fromkeys(("export", "spread", "optimize", "quantize-fp16", "quantize-int8"), "done")
    assert stages(done.stderr) == {**made, "validate": "cached", "report": "cached"}
    assert contents(out / "kokoro") == contents(warm.release)


def change_a_digit(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace("8", "9", 1))
    assert path.read_text() != text


@pytest.mark.parametrize(
    ("stage", "name", "damage"),
    [
        ("optimize", GRAPH, flip_a_byte),
        ("quantize-int8", GRAPH.replace(".onnx", "_quantized.onnx"), flip_a_byte),
        ("quantize-int8", "recipe.json", change_a_digit),
        ("export", "clients/voices/random_a.bin", flip_a_byte),
        ("validate", "validation.json", change_a_digit),
    ],
)
def test_other_bytes_in_the_cache_are_never_packaged(
    warm: Built, tmp_path: Path, stage: str, name: str, damage: Callable[[Path], None]
) -> None:
    out, cache = tmp_path / "out", warm.cache
    path = one(cache, stage, name)
    size = path.stat().st_size
    damage(path)
    assert path.stat().st_size == size
    done = run(tmp_path, *warm.again(out, "--int8", "--fp16"))
    assert_refused(done, 3, path.name, "--force")
    assert list(out.iterdir()) == []


def test_a_cache_of_another_checkpoint_is_not_used(warm: Built, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(warm.checkpoint, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "note": "another"}))
    process = start(tmp_path, *warm.again(tmp_path / "out", "--checkpoint", str(other)))
    assert process.stderr is not None
    first = process.stderr.readline()
    kill(process)
    assert "export: loading" in first
