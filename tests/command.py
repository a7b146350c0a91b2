"""The real command, in a process of its own, and what its tests look at."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jtts_export.artifact import sealed
from jtts_export.cli import main

COMMAND = (sys.executable, "-m", "jtts_export.cli")
REPORT = {f"report/{name}" for name in ("index.html", "report.md", "junit.xml")}
LIMIT_S = 240

# Gates that a tiny model meets: what a gate says of speed and size is about full-size networks. One thread,
# because two of torch's wait for each other when a core is busy elsewhere.
PROFILE = """
name = "tiny"
description = "a network of a few kilobytes"
threads = 1

[gates.kokoro.all]
durations_equal_ratio = ">= 0.9"

[gates.kokoro.fp32]
durations_equal_ratio = "== 1"
parity_decoder_snr_db = ">= 80"

[gates.kokoro.int8]
parity_decoder_snr_db = ">= 20"
"""


@dataclass(frozen=True)
class Built:
    """A release, the profile and the cache that it was made with, and what the command printed."""

    release: Path
    profile: Path
    cache: Path
    checkpoint: Path
    stdout: str
    stderr: str

    def again(self, out: Path, *more: str) -> list[str]:
        """Arguments of the same build into another folder."""
        where = ["--checkpoint", str(self.checkpoint), "--out", str(out), "--cache", str(self.cache)]
        return ["kokoro", "--profile", str(self.profile), *where, *more]


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's, without its settings of the hub, and with every default folder below `home`."""
    private = ("HF_", "HUGGING", "JTTS_", "XDG_", "COLUMNS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    env = {k: v for k, v in os.environ.items() if not k.upper().startswith(private)}
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    env |= {"HOME": str(home), "TMPDIR": str(home / "tmp"), "JTTS_EXPORT_CACHE": str(home / "cache")}
    return env | {"OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*", **more}


def run(
    home: Path, *args: str, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """`jtts-export ARGS`, run in `home`."""
    return subprocess.run(
        [*COMMAND, *args],
        cwd=home,
        env=environment(home, **(env or {})),
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
        **more,
    )


def call(home: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    """`jtts-export ARGS`, run in `home` but within this process: of what fails early, a tenth of the time."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(home)
        patch.setattr(sys, "argv", ["jtts-export", *map(str, args)])
        patch.setattr(tempfile, "tempdir", str(home))
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def start(home: Path, *args: str) -> subprocess.Popen[str]:
    """`jtts-export ARGS` in a process group of its own, its stderr to be read line by line."""
    return subprocess.Popen(
        [*COMMAND, *args],
        cwd=home,
        env=environment(home, PYTHONUNBUFFERED="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )


def assert_refused(done: subprocess.CompletedProcess[str], code: int, *named: str) -> None:
    """One line says what is wrong, naming each of `named`; no traceback, nothing on stdout."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    own = [line for line in done.stderr.splitlines() if line.startswith("jtts-export:")]
    assert len(own) == 1, done.stderr
    assert done.stderr.rstrip().endswith(own[0]), done.stderr
    assert "Traceback" not in done.stderr
    assert "a bug" not in own[0], own[0]
    for name in named:
        assert name in own[0], own[0]


def contents(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file below a folder; folders end in "/"."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name if path.is_file() else f"{name}/"] = sha256(path) if path.is_file() else ""
    return found


def graphs(release: Path) -> dict[str, str]:
    """Name -> sha256 of a release's graphs."""
    return {path.name: sha256(path) for path in sorted((release / "onnx").iterdir())}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def brief(folder: Path) -> list[str]:
    """Options of a validation on one word: of builds whose figures are not the point."""
    path = folder / "brief.txt"
    path.write_text("Hello.\n")
    return ["--sentences", str(path)]


def samples(cases: int, *speakers: str) -> set[str]:
    """Files of what the reference and some variants said, in a release."""
    return {f"report/samples/{n}-{who}.flac" for n in range(cases) for who in ("reference", *speakers)}


def reseal(release: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a release's manifest, as somebody would who knows how it is sealed."""
    manifest = json.loads((release / "manifest.json").read_text(encoding="utf-8"))
    change(manifest)
    (release / "manifest.json").write_text(sealed(manifest), encoding="utf-8")


def stages(stderr: str) -> dict[str, str]:
    """Stage -> `done`, `cached` or `stopped`, from the lines that progress prints."""
    words = [line.split() for line in stderr.splitlines() if not line.startswith(" ")]
    return {w[0]: w[1] for w in words if len(w) > 1 and w[1] in {"done", "cached", "stopped"}}
