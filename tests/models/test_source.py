"""Where checkpoints come from. The hub is a server on 127.0.0.1, its client the real one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serve

from jtts_export.errors import BadInput, CheckpointError
from jtts_export.models.source import Companion, locate, sha256_file

PATTERNS = ("config.json", "*.pth", "voices/*.pt")
WANTED = {
    "config.json": b'{"hidden_dim": 32}',
    "model.pth": bytes(range(256)) * 300,
    "voices/a.pt": b"a voice",
    "voices/b.pt": b"another voice",
}
UNWANTED = {"README.md": b"# A model", "samples/HEARME.wav": b"RIFF", "voices/a.txt": b"notes"}
REPO = "org/tiny-model"

VOCODER = Companion("vocoder", "org/tiny-vocoder", ("config.json", "*.bin"), ("tiny_vocoder", "vocoder"))
SPEAKERS = Companion(
    "speakers", "org/tiny-speakers", ("all.zip",), unless=("*.npy", "speakers/*"), repo_type="dataset"
)
VOCODER_FILES = {"config.json": b'{"rates": [4]}', "model.bin": b"a vocoder"}
SPEAKER_FILES = {"all.zip": b"speakers"}
RECORDED = "0b877391975c60442d7bbf7dc315ec1942b1a2dfba0cb90e0a884bf5ef1097d5"  # of WANTED and voices-a.pth
OWN_PATTERNS = (*PATTERNS, "*.npy", "speakers/*.npy")

# The client reads its settings when it is imported, so each call has a process of its own.
LOCATE = """
import json, sys, time
from jtts_export.errors import JttsError
from jtts_export.models.source import Companion, locate
import huggingface_hub.errors  # so that its import is not timed
started = time.monotonic()
try:
    companions = [Companion(**fields) for fields in json.loads(sys.argv[2])]
    found = locate(sys.argv[1], sys.argv[3:], companions)
    files = {name: str(path) for name, path in found.files.items()}
    answer = {**found.describe(), "files": files}
except JttsError as error:
    answer = {"error": type(error).__name__, "exit_code": error.exit_code, "message": str(error)}
print(json.dumps(answer | {"seconds": time.monotonic() - started}))
"""


def locate_on(
    endpoint: str,
    source: str,
    cache: Path,
    patterns: Sequence[str] = PATTERNS,
    companions: Sequence[Companion] = (),
) -> dict[str, Any]:
    """locate(source) with huggingface_hub pointed to `endpoint`, and nothing else of this machine's settings."""
    private = ("HF_", "HUGGING", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    env = {k: v for k, v in os.environ.items() if not k.upper().startswith(private)}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    fields = json.dumps([asdict(companion) for companion in companions])
    command = [sys.executable, "-c", LOCATE, source, fields, *patterns]
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


class Hubs(Hub):
    """Several repositories at one address; of those named `datasets/...` it answers as of data sets."""

    def __init__(self, *hubs: Hub) -> None:
        super().__init__("", {name: data for hub in hubs for name, data in hub.files.items()})
        self.hubs = hubs

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        path = path.replace("/api/datasets/", "/api/models/datasets/")
        for hub in self.hubs:
            if f"{path}/".startswith((f"/{hub.repo}/", f"/api/models/{hub.repo}/")):
                return hub.answer(path, authorization)
        return super().answer(path, authorization)


class TestCompanionsOfTheHub:
    def locate(self, tmp_path: Path, *hubs: Hub) -> tuple[dict[str, Any], list[str]]:
        """The answer, and the repositories whose files were sent."""
        with serve(Hubs(*hubs)) as running:
            answer = locate_on(running.url, f"hub:{REPO}", tmp_path, OWN_PATTERNS, [VOCODER, SPEAKERS])
            return answer, sorted(running.served)

    def test_they_come_from_repositories_of_their_own(self, tmp_path: Path) -> None:
        answer, served = self.locate(
            tmp_path,
            Hub(REPO, {**WANTED, **UNWANTED}),
            Hub(VOCODER.hub, {**VOCODER_FILES, "README.md": b"# A vocoder"}),
            Hub(f"datasets/{SPEAKERS.hub}", {**SPEAKER_FILES, "speakers.py": b"raise SystemExit"}),
        )
        assert {name: Path(path).read_bytes() for name, path in answer["files"].items()} == {
            **WANTED,
            **{f"vocoder/{name}": data for name, data in VOCODER_FILES.items()},
            **{f"speakers/{name}": data for name, data in SPEAKER_FILES.items()},
        }
        assert served == sorted([*WANTED, *VOCODER_FILES, *SPEAKER_FILES])

    @pytest.mark.parametrize("speaker", ["me.npy", "speakers/me.npy"])
    @pytest.mark.parametrize("folder", VOCODER.folders)
    def test_those_the_checkpoint_brings_come_first(self, tmp_path: Path, folder: str, speaker: str) -> None:
        own = {f"{folder}/{name}": data[::-1] for name, data in VOCODER_FILES.items()}
        answer, _ = self.locate(tmp_path, Hub(REPO, {**WANTED, **own, speaker: b"me"}))  # no other is there
        assert {name: Path(path).read_bytes() for name, path in answer["files"].items()} == {
            **WANTED,
            speaker: b"me",
            **{f"vocoder/{name}": data[::-1] for name, data in VOCODER_FILES.items()},
        }

    def test_the_hash_is_that_of_the_same_files_in_a_folder(self, tmp_path: Path) -> None:
        speakers = Hub(f"datasets/{SPEAKERS.hub}", SPEAKER_FILES)
        answer, _ = self.locate(tmp_path / "cache", Hub(REPO, WANTED), Hub(VOCODER.hub, VOCODER_FILES), speakers)
        folder = write_files(tmp_path / "local", WANTED | {"speakers/all.zip": SPEAKER_FILES["all.zip"]})
        write_files(folder / "vocoder", VOCODER_FILES)
        local = locate(str(folder), [*OWN_PATTERNS, "speakers/*.zip"], [VOCODER, SPEAKERS])
        assert answer["sha256"] == local.sha256

    @pytest.mark.parametrize("absent", [VOCODER, SPEAKERS])
    def test_one_that_is_not_there_is_named(self, tmp_path: Path, absent: Companion) -> None:
        hubs = {
            VOCODER: Hub(VOCODER.hub, VOCODER_FILES),
            SPEAKERS: Hub(f"datasets/{SPEAKERS.hub}", SPEAKER_FILES),
        }
        del hubs[absent]
        answer, _ = self.locate(tmp_path, Hub(REPO, WANTED), *hubs.values())
        assert_refused(answer, absent.hub)


class TestCompanionsOfAFolder:
    @pytest.mark.parametrize("place", ["tiny_vocoder", "vocoder", "../tiny_vocoder", "../vocoder"])
    def test_they_lie_inside_it_or_beside_it(self, tmp_path: Path, place: str) -> None:
        folder = write_files(tmp_path / "model", WANTED)
        write_files(folder / place, {**VOCODER_FILES, "README.md": b""})
        found = locate(str(folder), PATTERNS, [VOCODER])
        expected = {**WANTED, **{f"vocoder/{name}": data for name, data in VOCODER_FILES.items()}}
        assert {name: path.read_bytes() for name, path in found.files.items()} == expected

    def test_beside_a_folder_however_it_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(write_files(tmp_path / "model", WANTED))
        write_files(tmp_path / "vocoder", VOCODER_FILES)
        assert "vocoder/model.bin" in locate(".", PATTERNS, [VOCODER]).files

    def test_what_lies_inside_comes_first(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "model", WANTED)
        write_files(tmp_path / "tiny_vocoder", {"model.bin": b"beside"})
        write_files(folder / "vocoder", {"model.bin": b"inside"})
        found = locate(str(folder), PATTERNS, [VOCODER])
        assert found.files["vocoder/model.bin"].read_bytes() == b"inside"

    def test_one_that_is_not_there_is_no_error(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path, WANTED)
        assert locate(str(folder), PATTERNS, [VOCODER, SPEAKERS]) == locate(str(folder), PATTERNS)

    def test_the_hash_depends_on_them(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path, WANTED)
        hashes = {locate(str(folder), PATTERNS, [VOCODER]).sha256}
        for data in (b"one", b"another"):
            write_files(folder / "vocoder", {"model.bin": data})
            hashes.add(locate(str(folder), PATTERNS, [VOCODER]).sha256)
        assert len(hashes) == 3

    def test_without_them_it_is_what_releases_have_recorded(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path, WANTED | {"voices-a.pth": b"more"})
        assert locate(str(folder), PATTERNS).sha256 == RECORDED

    def test_a_seed_has_none(self) -> None:
        assert locate("random:17", PATTERNS, [VOCODER, SPEAKERS]) == locate("random:17", PATTERNS)


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
