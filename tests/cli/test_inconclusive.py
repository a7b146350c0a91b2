"""A machine that is too busy to judge: nothing passes, nothing fails, and it is measured anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Built, run, stages
from t3_command import PROFILE, again

# No machine meets it; on a busy one, nobody can say so.
TIMED = PROFILE.replace("[gates.t3.fp32]", '[gates.t3.fp32]\nrtf_warm_p50 = "<= 1e-9"')
INCONCLUSIVE = 3


@pytest.fixture
def busy() -> Iterator[None]:
    """Neighbours that take a fourth of the cores at least: well above what a watch lets pass."""
    code = "while True: pass"
    neighbours = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(-(-(os.cpu_count() or 1) // 2))]
    yield
    for neighbour in neighbours:
        neighbour.kill()
        neighbour.wait()


def read(release: Path, name: str) -> dict[str, Any]:
    return json.loads((release / name).read_text(encoding="utf-8"))


@pytest.mark.usefixtures("busy")
def test_a_time_that_fails_beside_busy_neighbours_is_undecided_and_taken_again(
    t3_warm: Built, tmp_path: Path
) -> None:
    profile = tmp_path / "timed.toml"
    profile.write_text(TIMED)
    command = again(t3_warm, tmp_path / "out", "--profile", str(profile))
    first = run(tmp_path, *command)
    assert first.returncode == INCONCLUSIVE, (first.stdout, first.stderr)
    release = tmp_path / "out" / "t3.inconclusive"
    assert list((tmp_path / "out").iterdir()) == [release]
    row = first.stdout.splitlines()[1].split()
    assert row[:2] == ["fp32", "rtf_warm_p50"]
    assert row[5] == "inconclusive"  # behind what was measured and the limit; then between what it lies
    assert first.stdout.splitlines()[-1].startswith("INCONCLUSIVE")
    assert first.stdout.rstrip().endswith(str(release))
    assert read(release, "manifest.json")["verdict"] == "inconclusive"
    validation = read(release, "validation.json")
    assert (validation["verdict"], validation["noise"]["disturbed"]) == ("inconclusive", True)
    assert run(tmp_path, "inspect", str(release)).returncode == 0

    # What is decided by the bytes is kept; what is not decided is measured anew, though nothing has changed.
    second = run(tmp_path, *command, "--json")
    assert second.returncode == INCONCLUSIVE, (second.stdout, second.stderr)
    cached = dict.fromkeys(("export", "spread", "optimize"), "cached")
    assert stages(second.stderr) == {**cached, "validate": "done", "report": "done"}
    both = validation["variants"]["fp32"], json.loads(second.stdout)["variants"]["fp32"]
    before, after = (variant["metrics"]["rtf_warm_p50"] for variant in both)
    assert before != after
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"t3.inconclusive"}
