"""A release folder for the real clients to load, and the means to run each of them in its own process.

The clients live outside the project's environment (kokoro-onnx's `phonemizer` and our `phonemizer-fork` share
a module name): `scripts/setup_clients.sh` installs them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from command import PROFILE, brief
from command import run as jtts_export
from kokoro_files import WEIGHTS, tiny_config, write_checkpoint

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def release_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real release of every variant: small widths, but the official vocabulary and style width, which
    clients have built in."""
    home = tmp_path_factory.mktemp("clients")
    config = tiny_config() | {"style_dim": 128}
    write_checkpoint(home / "checkpoint", config=config)
    _speak_slowly(home / "checkpoint" / WEIGHTS)
    (home / "tiny.toml").write_text(PROFILE)
    where = ["--checkpoint", "checkpoint", "--out", "out", "--cache", "cache", "--profile", "tiny.toml"]
    done = jtts_export(home, "kokoro", "--int8", "--fp16", *where, *brief(home))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return home / "out/kokoro"


def _speak_slowly(weights: Path) -> None:
    """More frames a token, so that every speed gives another number of them."""
    state = torch.load(weights, weights_only=True)
    state["predictor"]["duration_proj.linear_layer.bias"] += 2.5
    torch.save(state, weights)


@pytest.fixture(scope="session")
def python_client() -> Callable[..., Any]:
    """`python_client(script, request)` runs a script of this folder beside kokoro-onnx and sherpa-onnx."""
    python = REPOSITORY / ".venv-clients/bin/python"

    def run(script: str, request: dict[str, Any]) -> Any:
        return _run([str(python), str(HERE / script)], request, installed=python.exists())

    return run


@pytest.fixture(scope="session")
def node_client() -> Callable[..., Any]:
    """`node_client(script, request)` runs a script of node/ beside kokoro-js."""
    installed = shutil.which("node") is not None and (HERE / "node/node_modules/kokoro-js").is_dir()

    def run(script: str, request: dict[str, Any]) -> Any:
        return _run(["node", str(HERE / "node" / script)], request, installed=installed)

    return run


def _run(command: Sequence[str], request: dict[str, Any], *, installed: bool) -> Any:
    """The client's answer to one JSON request: the last line of its standard output."""
    if not installed:
        pytest.fail("this client is not installed: run scripts/setup_clients.sh", pytrace=False)
    done = subprocess.run(
        command,
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    # sherpa-onnx ends the process without a Python exception: its last words are all there is.
    if done.returncode != 0 or not done.stdout.strip():
        pytest.fail(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return json.loads(done.stdout.strip().splitlines()[-1])
