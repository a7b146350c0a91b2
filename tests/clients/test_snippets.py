"""The code in a model card, run as it stands there, in the folder of a release."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import pytest
from command import brief, environment
from speecht5_command import build, write_checkpoint
from t3_files import add_variant, write_release

from jtts_export.models import MODELS
from jtts_export.snippets import Snippet, snippets

NODE = Path(__file__).parent / "node"
CLIENTS = Path(__file__).parents[2] / ".venv-clients/bin"
LIMIT_S = 180


def of_card(release: Path) -> list[Snippet]:
    """What a release's README shows."""
    text = (release / "README.md").read_text(encoding="utf-8").partition("## Use\n")[2]
    return [Snippet(*found) for found in re.findall(r"\n([^\n]+):\n\n```(\w+)\n(.*?)\n```", text, re.DOTALL)]


def run(snippet: Snippet, release: Path, tmp_path: Path) -> str:
    """Run it in a copy of the folder; what it prints."""
    folder = Path(shutil.copytree(release, tmp_path / "copy"))
    before = sorted(folder.rglob("*"))
    own = snippet.language == "bash" or "jtts" in snippet.code or "transformers" in snippet.code
    bin_ = Path(sys.executable).parent if own else CLIENTS
    script = tmp_path / ("run.mjs" if snippet.language == "js" else "run.txt")
    script.write_text(snippet.code, encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    command = {"bash": ["bash", script], "python": [bin_ / "python", script], "js": ["node", script]}
    env = environment(tmp_path, HF_HUB_OFFLINE="1")
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        list(map(str, command[snippet.language])),
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, (snippet.title, done.stdout, done.stderr)
    assert sorted(folder.rglob("*")) == before  # or it would be another release
    return done.stdout


def audio_s(path: Path) -> float:
    """Of a WAV file, whatever its samples are."""
    data = path.read_bytes()
    assert data[:4] == b"RIFF"
    try:
        with wave.open(str(path)) as file:
            return file.getnframes() / file.getframerate()
    except wave.Error:  # of floats
        return (len(data) - 44) / 4 / int.from_bytes(data[24:28], "little")


KOKORO = ("jtts-export", "kokoro-onnx", "sherpa-onnx", "kokoro-js")


@pytest.mark.parametrize("client", KOKORO)
def test_kokoro(release_dir: Path, tmp_path: Path, client: str) -> None:
    shown = of_card(release_dir)
    assert [snippet.title.split()[0] for snippet in shown] == list(KOKORO)
    (snippet,) = [snippet for snippet in shown if snippet.title.split()[0] == client]
    run(snippet, release_dir, tmp_path)
    assert audio_s(tmp_path / "hello.wav") > 0.1


@pytest.fixture(scope="module")
def speecht5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("speecht5-snippets")
    write_checkpoint(home / "checkpoint")
    return build(home, home / "checkpoint", "--int8", *brief(home)).release


@pytest.mark.parametrize("number", [0, 1])
def test_speecht5(speecht5: Path, tmp_path: Path, number: int) -> None:
    shown = of_card(speecht5)
    assert len(shown) == 2
    run(shown[number], speecht5, tmp_path)
    assert audio_s(tmp_path / "hello.wav") > 0.01


@pytest.fixture(scope="module")
def t3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t3-snippets") / "t3"
    write_release(folder, seed=2)
    add_variant(folder, "int8")
    return folder


@pytest.mark.parametrize("number", [1, 2])
def test_t3(t3: Path, tmp_path: Path, number: int) -> None:
    files = [path.relative_to(t3).as_posix() for path in t3.rglob("*") if path.is_file()]
    shown = snippets(MODELS["t3"], ("fp32", "int8"), files)
    assert len(shown) == 3
    tokens = re.findall(r"\d+", run(shown[number], t3, tmp_path))
    assert len(tokens) > 5
    assert all(int(token) < 6561 for token in tokens)
