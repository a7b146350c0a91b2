"""The wheel, in an environment of its own without a network: from nothing to speech."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import PROFILE, environment

ROOT = Path(__file__).parents[2]
LIMIT_S = 240


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are of an environment with the wheel; what it depends on is this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    building = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(building, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT_S)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    installing = [*pip, "install", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(installing, check=True, capture_output=True, timeout=LIMIT_S)
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def test_exports_and_speaks(scripts: Path, tmp_path: Path) -> None:
    offline = environment(tmp_path, HF_HUB_OFFLINE="1", HTTPS_PROXY="http://127.0.0.1:9")
    offline.pop("PYTHONPATH", None)  # would name this repository

    def run(*args: str) -> str:
        done = subprocess.run(
            args, cwd=tmp_path, env=offline, capture_output=True, encoding="utf-8", timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    where = run(str(scripts / "python"), "-c", "import jtts_export; print(jtts_export.__file__)")
    assert Path(where.strip()).is_relative_to(scripts.parent)
    (tmp_path / "tiny.toml").write_text(PROFILE)
    command = str(scripts / "jtts-export")
    made = run(command, "kokoro", "--checkpoint", "demo", "--profile", "tiny.toml")
    assert made.splitlines()[-1] == "passed: release/kokoro"
    run(command, "say", "release/kokoro", "Nothing leaves that was not measured.", "-o", "hello.wav")
    audio, rate = soundfile.read(tmp_path / "hello.wav")
    assert rate == 24_000
    assert 1.5 < len(audio) / rate < 4
    assert 0.01 < np.sqrt(np.mean(audio**2)) < 0.3
