"""Where checkpoints come from. The hub is a server on 127.0.0.1, its client the real one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serve

from jtts_export.errors import BadInput, CheckpointError
from jtts_export.models.source import locate, sha256_file

PATTERNS = ("config.json", "*.pth", "voices/*.pt")
WANTED = {
    "config.json": b'{"hidden_dim": 32}',
    "model.pth": bytes(range(256)) * 300,
    "voices/a.pt": b"a voice",
    "voices/b.pt": b"another voice",
}
UNWANTED = {"README.md": b"# A model", "samples/HEARME.wav": b"RIFF", "voices/a.txt": b"notes"}
REPO = "org/tiny-model"

# The client reads its settings when it is imported, so each call has a process of its own.
LOCATE = """
import json, sys, time
from jtts_export.errors import JttsError
from jtts_export.models.source import locate
import huggingface_hub.errors  # so that its import is not timed
started = time.monotonic()
try:
    found = locate(sys.argv[1], sys.argv[2:])
    files = {name: str(path) for name, path in found.files.items()}
    answer = {**found.describe(), "files": files}
except JttsError as error:
    answer = {"error": type(error).__name__, "exit_code": error.exit_code, "message": str(error)}
print(json.dumps(answer | {"seconds": time.monotonic() - started}))
"""


def locate_on(endpoint: str, source: str, cache: Path) -> dict[str, Any]:
    """locate(source) with huggingface_hub pointed to `endpoint`, and nothing else of this machine's settings."""
    private = ("HF_", "HUGGING", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    env = {k: v for k, v in os.environ.items() if not k.upper().startswith(private)}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    command = [sys.executable, "-c", LOCATE, source, *PATTERNS]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_refused(answer: dict[str, Any], *named: str) -> None:
    assert answer.get("error") == "CheckpointError", answer
    assert answer["exit_code"] == 4
    assert "\n" not in answer["message"]
    for part in named:
        assert part in answer["message"]
    assert answer["seconds"] < 20  # the client retries some requests, with pauses that add up to 15 s at most


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(Hub(REPO, {**WANTED, **UNWANTED}, tags=("v1.0", "refs/pr/1"))) as running:
        yield running


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


class TestHub:
    @pytest.mark.parametrize("revision", ["", "@v1.0", "@refs/pr/1", "@COMMIT"])
    def test_the_files_that_match_are_downloaded(self, hub: Hub, tmp_path: Path, revision: str) -> None:
        source = f"hub:{REPO}{revision.replace('COMMIT', hub.commit)}"
        answer = locate_on(hub.url, source, tmp_path)
        assert answer["source"] == source
        assert answer["revision"] == hub.commit
        assert {name: Path(path).read_bytes() for name, path in answer["files"].items()} == WANTED
        assert sorted(hub.served) == sorted(WANTED)

    def test_a_second_time_nothing_is_downloaded(self, hub: Hub, tmp_path: Path) -> None:
        first = locate_on(hub.url, f"hub:{REPO}", tmp_path)
        hub.served.clear()
        again = locate_on(hub.url, f"hub:{REPO}", tmp_path)
        assert hub.served == []
        assert again["sha256"] == first["sha256"]

    def test_what_was_downloaded_is_found_without_the_hub(self, hub: Hub, tmp_path: Path) -> None:
        first = locate_on(hub.url, f"hub:{REPO}", tmp_path)
        again = locate_on(f"http://127.0.0.1:{closed_port()}", f"hub:{REPO}", tmp_path)
        assert again["revision"] == hub.commit
        assert again["sha256"] == first["sha256"]

    def test_the_hash_is_that_of_the_same_files_in_a_folder(self, hub: Hub, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "local", {**WANTED, **UNWANTED})
        answer = locate_on(hub.url, f"hub:{REPO}", tmp_path / "cache")
        assert answer["sha256"] == locate(str(folder), PATTERNS).sha256

    def test_an_unknown_repository(self, hub: Hub, tmp_path: Path) -> None:
        assert_refused(locate_on(hub.url, "hub:org/no-such-model", tmp_path), "org/no-such-model")

    @pytest.mark.parametrize("revision", ["v9", "0" * 40])
    def test_an_unknown_revision(self, hub: Hub, tmp_path: Path, revision: str) -> None:
        assert_refused(locate_on(hub.url, f"hub:{REPO}@{revision}", tmp_path), REPO, revision)

    def test_a_repository_that_needs_a_token(self, tmp_path: Path) -> None:
        with serve(Hub(REPO, WANTED, token="hf_secret")) as hub:  # noqa: S106
            assert_refused(locate_on(hub.url, f"hub:{REPO}", tmp_path), REPO, "token")

    def test_a_hub_that_cannot_be_reached(self, tmp_path: Path) -> None:
        answer = locate_on(f"http://127.0.0.1:{closed_port()}", f"hub:{REPO}", tmp_path)
        assert_refused(answer, REPO, "--checkpoint")
        assert answer["seconds"] < 5

    def test_an_endpoint_that_is_no_address(self, tmp_path: Path) -> None:
        assert_refused(locate_on("http://127.0.0.1:port", f"hub:{REPO}", tmp_path), REPO)

    def test_a_name_that_the_hub_does_not_allow(self, hub: Hub, tmp_path: Path) -> None:
        assert_refused(locate_on(hub.url, "hub:org/a--b", tmp_path), "org/a--b")

    def test_a_connection_that_breaks_off(self, hub: Hub, tmp_path: Path) -> None:
        hub.cut = "model.pth"
        assert_refused(locate_on(hub.url, f"hub:{REPO}", tmp_path), REPO)

    @pytest.mark.parametrize("source", ["hub:", "hub:model", "hub:a/b/c", "hub:org/model@", "hub:org/mo del"])
    def test_another_form_is_bad_input(self, source: str) -> None:
        with pytest.raises(BadInput, match=r"hub:ORG/REPO") as caught:
            locate(source, PATTERNS)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


class TestFolder:
    def test_files_have_the_names_of_the_authors_repository(self, tmp_path: Path) -> None:
        write_files(tmp_path, {**WANTED, **UNWANTED})
        found = locate(str(tmp_path), PATTERNS)
        assert {name: path.read_bytes() for name, path in found.files.items()} == WANTED
        assert found.revision is None
        assert found.seed is None

    def test_a_file_stands_for_its_folder(self, tmp_path: Path) -> None:
        write_files(tmp_path, WANTED)
        assert locate(str(tmp_path / "model.pth"), PATTERNS) == locate(str(tmp_path), PATTERNS)

    def test_the_hash_does_not_depend_on_where_the_folder_lies(self, tmp_path: Path) -> None:
        first = write_files(tmp_path / "a", WANTED)
        second = Path(shutil.copytree(first, tmp_path / "elsewhere/b"))
        write_files(second, UNWANTED)
        assert locate(str(first), PATTERNS).sha256 == locate(str(second), PATTERNS).sha256

    def test_the_hash_depends_on_every_byte_and_name(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path, WANTED)
        hashes = {locate(str(folder), PATTERNS).sha256}
        (folder / "model.pth").write_bytes(WANTED["model.pth"][:-1] + b"\0")
        hashes.add(locate(str(folder), PATTERNS).sha256)
        (folder / "voices/a.pt").rename(folder / "voices/c.pt")
        hashes.add(locate(str(folder), PATTERNS).sha256)
        assert len(hashes) == 3

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="nowhere") as caught:
            locate(str(tmp_path / "nowhere"), PATTERNS)
        assert caught.value.exit_code == 4
        assert "\n" not in str(caught.value)

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"model\.pth"):
            sha256_file(tmp_path / "model.pth")


class TestSeed:
    def test_a_seed_has_no_files(self) -> None:
        found = locate("random:17", PATTERNS)
        assert (found.seed, found.files, found.revision) == (17, {}, None)

    def test_the_same_seed_has_the_same_hash_however_it_is_written(self) -> None:
        assert locate("random:007", PATTERNS) == locate("random:7", PATTERNS)
        assert locate("random:8", PATTERNS).sha256 != locate("random:7", PATTERNS).sha256

    @pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "1e3", " 1", "9" * 20, "9" * 5000])
    def test_another_seed_is_bad_input(self, seed: str) -> None:
        with pytest.raises(BadInput, match="whole number") as caught:
            locate(f"random:{seed}", PATTERNS)
        assert caught.value.exit_code == 2
        assert "\n" not in str(caught.value)


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
