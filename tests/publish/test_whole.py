"""A real release, by the command line: built, published, downloaded, validated."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Built, brief, environment, flip_a_byte, run
from hub.server import Hub, serve
from huggingface_hub import ModelCard
from publish.releases import TOKEN

REPO = "org/tiny-kokoro"
DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1], **({"local_dir": sys.argv[2]} if sys.argv[2:] else {})))
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serve(Hub(tmp_path / "server", writers=(TOKEN,))) as running:
        yield running
        assert running.leaked == []


def command(hub: Hub, home: Path, *args: str) -> tuple[int, str, str]:
    done = run(home, *args, env={"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN})
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


def download(hub: Hub, home: Path, *args: str) -> Path:
    """As anybody does, without a token."""
    env = environment(home, HF_ENDPOINT=hub.url, HF_HUB_DISABLE_PROGRESS_BARS="1")
    command = [sys.executable, "-c", DOWNLOAD, REPO, *args]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_published_downloaded_and_validated(built: Built, hub: Hub, tmp_path: Path) -> None:
    given = ("publish", str(built.release), "--repo", REPO, "--profile", str(built.profile))
    code, out, err = command(hub, tmp_path, *given, "--json")
    assert code == 0, err
    said = json.loads(out)
    files = {path.relative_to(built.release).as_posix() for path in built.release.rglob("*") if path.is_file()}
    assert {operation["name"] for operation in said["operations"]} == files
    assert ModelCard.load(built.release / "README.md").data.license  # as the hub has read it by now
    # In the cache, as links to blobs, and in a folder.
    cached, local = download(hub, tmp_path), download(hub, tmp_path, str(tmp_path / "local"))
    for copy in (cached, local):
        code, out, err = command(hub, tmp_path, "inspect", str(copy))
        assert code == 0, err
        assert "checksums verified" in out
    assert (cached / "onnx/model.onnx").is_symlink()
    code, out, err = command(hub, tmp_path, "validate", str(local), *brief(tmp_path))
    assert (code, out.splitlines()[-1]) == (0, f"passed: {local}"), (out, err)
    # What was downloaded is the release, and so there is nothing to publish; what was edited is none.
    code, out, err = command(hub, tmp_path, "publish", str(local), "--repo", REPO)
    assert (code, out) == (0, f"unchanged, and verified: {REPO}@main, commit {said['commit']}, tag {said['tag']}\n")
    assert len(hub.repositories[REPO].history("main")) == 2
    edited = Path(shutil.copytree(built.release, tmp_path / "edited"))
    flip_a_byte(edited / "onnx/model_quantized.onnx")
    requests = len(hub.requests)
    code, out, err = command(hub, tmp_path, "publish", str(edited), "--repo", REPO)
    assert (code, out) == (3, "")
    assert "onnx/model_quantized.onnx is not the file that was validated" in err
    assert len(hub.requests) == requests
