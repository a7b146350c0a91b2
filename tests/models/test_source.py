"""Where checkpoints come from. The hub is a server on 127.0.0.1, its client the real one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hub.server import Fault, Hub, serve

from jtts_export.artifact import SCHEMA_VERSION, read, sealed
from jtts_export.errors import BadInput, CheckpointError
from jtts_export.models import MODELS
from jtts_export.models.source import Companion, Patterns, choices, locate, sha256_file
from jtts_export.revalidate import _recorded

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

# Several files of weights of which a checkpoint has one, and what comes along with each.
WEIGHTS = ("model_en.st", "model_all_v2.st", "model*.st", "model*.pth")
CHOICES = ("config.json", WEIGHTS, "voices/*.pt")
SMALL = {name: WANTED[name] for name in ("config.json", "voices/a.pt", "voices/b.pt")}
SEVERAL = {name: name.encode() * 50 for name in ("model_all_v1.st", "model_all_v2.st", "model_en.pth", "model_en.st")}
NO_CHOICE = [
    *("", ".", "..", "other.st", "model_en.txt", "config.json", "voices/model_en.st", "../model_en.st", "model*.st"),
    *("model/en.st", "model/../../model_en.st", "model_..st", "model\\en.st", "model_[e]n.st"),
]
BESIDE = {"other.st": b"of another network", "voices/model_en.st": b"no weights"}

# The client reads its settings when it is imported, so each call has a process of its own.
LOCATE = """
import json, sys, time
from jtts_export.errors import JttsError
from jtts_export.models.source import Companion, locate
import huggingface_hub.errors  # so that its import is not timed
started = time.monotonic()
try:
    companions = [Companion(**fields) for fields in json.loads(sys.argv[2])]
    patterns = [p if isinstance(p, str) else tuple(p) for p in json.loads(sys.argv[3])]
    found = locate(sys.argv[1], patterns, companions)
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
    patterns: Patterns = PATTERNS,
    companions: Sequence[Companion] = (),
) -> dict[str, Any]:
    """locate(source) with huggingface_hub pointed to `endpoint`, and nothing else of this machine's settings."""
    private = ("HF_", "HUGGING", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    env = {k: v for k, v in os.environ.items() if not k.upper().startswith(private)}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*"}
    fields = json.dumps([asdict(companion) for companion in companions])
    command = [sys.executable, "-c", LOCATE, source, fields, json.dumps(list(patterns))]
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


def assert_no_choice(source: str) -> None:
    """One line says what could be chosen, and nothing is looked for."""
    with pytest.raises(BadInput, match="weights file") as caught:
        locate(source, CHOICES)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert all(pattern in str(caught.value) for pattern in WEIGHTS)


def write_manifest(release: Path, checkpoint: dict[str, Any]) -> None:
    """A release of a checkpoint and of nothing else."""
    content = {
        **{"schema_version": SCHEMA_VERSION, "tool_version": "0", "model": "t3", "licence": "MIT", "opset": 17},
        **{"profile": {}, "verdict": "pass", "variants": {}, "versions": {}, "machine": {}, "files": {}},
        "checkpoint": checkpoint,
    }
    (release / "manifest.json").write_text(sealed(content))
    (release / "validation.json").write_text('{"variants": {}}')


Files = dict[str, bytes]


@contextmanager
def hosting(tmp_path: Path, repositories: Mapping[str, Files], tags: tuple[str, ...] = ()) -> Iterator[Hub]:
    """A hub with these."""
    with serve(Hub(tmp_path / "server")) as running:
        for name, files in repositories.items():
            running.add(name, files, tags=tags)
        yield running


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hosting(tmp_path, {REPO: {**WANTED, **UNWANTED}}, ("v1.0", "refs/pr/1")) as running:
        yield running


def fetched(hub: Hub) -> list[str]:
    """Files of checkpoints that were sent; what its authors say of one is no part of it."""
    return sorted(name for name in hub.served if name != "README.md")


def commit_of(hub: Hub) -> str:
    return hub.repositories[REPO].head.oid


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


class TestHub:
    @pytest.mark.parametrize("revision", ["", "@v1.0", "@refs/pr/1", "@COMMIT"])
    def test_the_files_that_match_are_downloaded(self, hub: Hub, tmp_path: Path, revision: str) -> None:
        source = f"hub:{REPO}{revision.replace('COMMIT', commit_of(hub))}"
        answer = locate_on(hub.url, source, tmp_path)
        assert answer["source"] == source
        assert answer["revision"] == commit_of(hub)
        assert {name: Path(path).read_bytes() for name, path in answer["files"].items()} == WANTED
        assert fetched(hub) == sorted(WANTED)

    def test_a_second_time_nothing_is_downloaded(self, hub: Hub, tmp_path: Path) -> None:
        first = locate_on(hub.url, f"hub:{REPO}", tmp_path)
        hub.served.clear()
        again = locate_on(hub.url, f"hub:{REPO}", tmp_path)
        assert hub.served == []
        assert again["sha256"] == first["sha256"]

    def test_what_was_downloaded_is_found_without_the_hub(self, hub: Hub, tmp_path: Path) -> None:
        first = locate_on(hub.url, f"hub:{REPO}", tmp_path)
        again = locate_on(f"http://127.0.0.1:{closed_port()}", f"hub:{REPO}", tmp_path)
        assert again["revision"] == commit_of(hub)
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
        with serve(Hub(tmp_path / "server", readers=("hf_secret",))) as hub:
            hub.add(REPO, WANTED, private=True)
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
        hub.fault = lambda r: Fault("cut-answer") if r.method == "GET" and r.path.endswith("model.pth") else None
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


class TestChoiceOfTheHub:
    """A repository of several files of weights, each gigabytes in the wild."""

    @pytest.fixture
    def hub(self, tmp_path: Path) -> Iterator[Hub]:
        with hosting(tmp_path, {REPO: {**SMALL, **SEVERAL, **BESIDE}}, ("v1.0", "refs/pr/1")) as running:
            yield running

    @pytest.mark.parametrize(
        ("chosen", "file"),
        [
            ("", "model_en.st"),
            ("@v1.0", "model_en.st"),
            *((f"#{name}", name) for name in SEVERAL),
            ("@v1.0#model_all_v1.st", "model_all_v1.st"),
            ("@refs/pr/1#model_en.pth", "model_en.pth"),
        ],
    )
    def test_one_of_them_is_downloaded_and_all_small_files(
        self, hub: Hub, tmp_path: Path, chosen: str, file: str
    ) -> None:
        answer = locate_on(hub.url, f"hub:{REPO}{chosen}", tmp_path, CHOICES)
        expected = {**SMALL, file: SEVERAL[file]}
        assert {name: Path(path).read_bytes() for name, path in answer["files"].items()} == expected
        assert fetched(hub) == sorted(expected)
        assert answer["revision"] == commit_of(hub)

    @pytest.mark.parametrize(
        ("chosen", "recorded"),
        [
            ("", ""),
            ("@v1.0", "@v1.0"),
            ("#model_all_v1.st", "#model_all_v1.st"),
            ("@v1.0#model_all_v1.st", "#model_all_v1.st@v1.0"),
            ("#model_all_v1.st@v1.0", "#model_all_v1.st@v1.0"),
        ],
    )
    def test_what_is_recorded_leads_to_the_same_files_of_the_same_commit(
        self, hub: Hub, tmp_path: Path, chosen: str, recorded: str
    ) -> None:
        first = locate_on(hub.url, f"hub:{REPO}{chosen}", tmp_path / "cache", CHOICES)
        assert first["source"] == f"hub:{REPO}{recorded}"
        (tmp_path / "release").mkdir()
        write_manifest(tmp_path / "release", {key: first[key] for key in ("source", "revision", "sha256")})
        pinned = _recorded(read(tmp_path / "release")[0])
        assert pinned.endswith(f"@{commit_of(hub)}")
        again = locate_on(hub.url, pinned, tmp_path / "another", CHOICES)
        assert again["sha256"] == first["sha256"]
        assert again["files"].keys() == first["files"].keys()

    def test_files_of_earlier_choices_do_not_mix(self, hub: Hub, tmp_path: Path) -> None:
        """All choices of a commit lie in one folder of the hub's cache."""
        sources = [f"hub:{REPO}{chosen}" for chosen in ("#model_all_v2.st", "#model_en.pth", "")]
        answers = [locate_on(hub.url, source, tmp_path, CHOICES) for source in (*sources, *sources)]
        assert [a["sha256"] for a in answers[:3]] == [a["sha256"] for a in answers[3:]]
        assert len({a["sha256"] for a in answers}) == 3
        assert all(len(a["files"]) == len(SMALL) + 1 for a in answers)

    def test_the_hash_is_that_of_the_same_choice_in_a_folder(self, hub: Hub, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "local", {**SMALL, **SEVERAL, **BESIDE})
        for chosen in ("", "#model_all_v1.st"):
            answer = locate_on(hub.url, f"hub:{REPO}{chosen}", tmp_path / "cache", CHOICES)
            assert answer["sha256"] == locate(f"{folder}{chosen}", CHOICES).sha256

    def test_one_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with hosting(tmp_path, {REPO: {**SMALL, "model_all_v1.st": b"a"}}) as hub:
            assert_refused(locate_on(hub.url, f"hub:{REPO}", tmp_path, CHOICES), "model_en.st", REPO, "#FILE")
            chosen = locate_on(hub.url, f"hub:{REPO}#model_all_v2.st", tmp_path, CHOICES)
            assert_refused(chosen, "model_all_v2.st", REPO)

    @pytest.mark.parametrize("chosen", [f"#{name}" for name in NO_CHOICE])
    @pytest.mark.parametrize("revision", ["", "@v1.0"])
    def test_a_name_that_cannot_be_chosen_is_bad_input(self, revision: str, chosen: str) -> None:
        assert_no_choice(f"hub:{REPO}{revision}{chosen}")

    @pytest.mark.parametrize("rest", ["@v1#model_en.st@v2", "@#model_en.st", "#model_en.st@", "#model_en.st@v 1"])
    def test_a_revision_of_another_form_is_bad_input(self, rest: str) -> None:
        with pytest.raises(BadInput, match=r"hub:ORG/REPO@REVISION"):
            locate(f"hub:{REPO}{rest}", CHOICES)

    def test_a_model_of_one_weights_file_takes_no_choice(self) -> None:
        with pytest.raises(BadInput, match="not of the form"):
            locate(f"hub:{REPO}#model.pth", PATTERNS)


class TestChoiceOfAFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return write_files(tmp_path / "model", {**SMALL, **SEVERAL, **BESIDE})

    @pytest.mark.parametrize("between", ["#", "/"])
    @pytest.mark.parametrize("file", SEVERAL)
    def test_a_file_is_chosen_by_name_or_by_path(self, folder: Path, between: str, file: str) -> None:
        found = locate(f"{folder}{between}{file}", CHOICES)
        assert {name: path.read_bytes() for name, path in found.files.items()} == {**SMALL, file: SEVERAL[file]}
        assert found.source == f"{folder.resolve()}#{file}"
        assert locate(found.source, CHOICES) == found

    def test_without_a_choice_the_best_is_taken(self, folder: Path) -> None:
        for best in ("model_en.st", "model_all_v2.st", "model_all_v1.st", "model_en.pth"):
            found = locate(str(folder), CHOICES)
            assert found.files.keys() == {*SMALL, best}
            assert found.source == str(folder.resolve())
            assert found.sha256 == locate(f"{folder}#{best}", CHOICES).sha256
            (folder / best).unlink()
        with pytest.raises(CheckpointError, match=r"model_en\.st.*model\*\.pth"):
            locate(str(folder), CHOICES)

    def test_several_of_the_same_rank_are_listed(self, folder: Path) -> None:
        (folder / "model_en.st").unlink()
        (folder / "model_all_v2.st").rename(folder / "model_mine.st")
        with pytest.raises(CheckpointError, match=r"model_all_v1\.st, model_mine\.st; .*#FILE"):
            locate(str(folder), CHOICES)
        assert "model_all_v1.st" in locate(f"{folder}#model_all_v1.st", CHOICES).files

    def test_one_that_is_not_there_is_named(self, folder: Path) -> None:
        with pytest.raises(CheckpointError, match=r"model_v9\.st") as caught:
            locate(f"{folder}#model_v9.st", CHOICES)
        assert str(folder) in str(caught.value)

    @pytest.mark.parametrize("name", NO_CHOICE)
    def test_a_name_that_cannot_be_chosen_is_bad_input(self, folder: Path, name: str) -> None:
        write_files(folder.parent, {"model_en.st": b"outside"})
        assert_no_choice(f"{folder}#{name}")

    @pytest.mark.parametrize("name", ["other.st", "config.json", "voices/a.pt", "voices/model_en.txt"])
    def test_the_path_of_another_file_is_bad_input(self, folder: Path, name: str) -> None:
        write_files(folder, {"voices/model_en.txt": b""})
        assert_no_choice(str(folder / name))

    def test_a_folder_may_be_named_so(self, tmp_path: Path) -> None:
        folder = write_files(tmp_path / "a#model_en.st", {**SMALL, **SEVERAL})
        assert "model_en.st" in locate(str(folder), CHOICES).files
        chosen = locate(f"{folder}#model_all_v1.st", CHOICES)
        assert "model_all_v1.st" in chosen.files
        assert locate(chosen.source, CHOICES) == chosen

    def test_a_link_to_the_file_is_the_file(self, folder: Path, tmp_path: Path) -> None:
        """As the hub's cache has them."""
        (folder / "model_en.st").rename(tmp_path / "blob")
        (folder / "model_en.st").symlink_to(tmp_path / "blob")
        found = locate(str(folder / "model_en.st"), CHOICES)
        assert found.files["model_en.st"].read_bytes() == SEVERAL["model_en.st"]

    def test_a_model_of_one_weights_file_takes_no_choice(self, tmp_path: Path) -> None:
        write_files(tmp_path, WANTED)
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            locate(f"{tmp_path}#model.pth", PATTERNS)

    @pytest.mark.parametrize("place", ["x" * 5000, "~nobody-of-that-name/model", "x" * 5000 + "#model_en.st"])
    @pytest.mark.parametrize("patterns", [PATTERNS, CHOICES])
    def test_a_place_that_cannot_be(self, patterns: Patterns, place: str) -> None:
        with pytest.raises(CheckpointError, match="no checkpoint at") as caught:
            locate(place, patterns)
        assert len(str(caught.value)) < 300


class TestChoicesOfTheModels:
    def test_only_t3_has_some(self) -> None:
        assert [name for name, info in MODELS.items() if choices(info.files)] == ["t3"]

    def test_of_the_authors_repository_one_file_is_fetched(self, tmp_path: Path) -> None:
        """Its files as they are named there."""
        small = ("conds.pt", "grapheme_mtl_merged_expanded_v1.json", "mtl_tokenizer.json", "tokenizer.json")
        weights = ("t3_cfg.safetensors", "t3_mtl23ls_v2.safetensors", "t3_23lang.safetensors", "t3_cfg.pt")
        others = ("README.md", "Cangjie5_TC.json", "s3gen.pt", "s3gen.safetensors", "ve.pt", "ve.safetensors")
        files = {name: name.encode() for name in (*small, *weights, *others)}
        with hosting(tmp_path, {"ResembleAI/chatterbox": files}) as hub:
            for chosen, file in (("", "t3_cfg.safetensors"), *((f"#{name}", name) for name in weights)):
                hub.served.clear()
                cache = tmp_path / f"cache{chosen}"
                answer = locate_on(hub.url, f"{MODELS['t3'].checkpoint}{chosen}", cache, MODELS["t3"].files)
                assert fetched(hub) == sorted([*small, file])
                assert sorted(answer["files"]) == sorted([*small, file])


class TestCompanionsOfTheHub:
    def locate(self, tmp_path: Path, repositories: Mapping[str, Files]) -> tuple[dict[str, Any], list[str]]:
        """The answer, and the files that were sent."""
        with hosting(tmp_path, repositories) as running:
            answer = locate_on(running.url, f"hub:{REPO}", tmp_path, OWN_PATTERNS, [VOCODER, SPEAKERS])
            return answer, fetched(running)

    def test_they_come_from_repositories_of_their_own(self, tmp_path: Path) -> None:
        answer, served = self.locate(
            tmp_path,
            {
                REPO: {**WANTED, **UNWANTED},
                VOCODER.hub: {**VOCODER_FILES, "README.md": b"# A vocoder"},
                f"datasets/{SPEAKERS.hub}": {**SPEAKER_FILES, "speakers.py": b"raise SystemExit"},
            },
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
        answer, _ = self.locate(tmp_path, {REPO: {**WANTED, **own, speaker: b"me"}})  # no other is there
        assert {name: Path(path).read_bytes() for name, path in answer["files"].items()} == {
            **WANTED,
            speaker: b"me",
            **{f"vocoder/{name}": data[::-1] for name, data in VOCODER_FILES.items()},
        }

    def test_the_hash_is_that_of_the_same_files_in_a_folder(self, tmp_path: Path) -> None:
        of_others = {VOCODER.hub: VOCODER_FILES, f"datasets/{SPEAKERS.hub}": SPEAKER_FILES}
        answer, _ = self.locate(tmp_path / "cache", {REPO: WANTED, **of_others})
        folder = write_files(tmp_path / "local", WANTED | {"speakers/all.zip": SPEAKER_FILES["all.zip"]})
        write_files(folder / "vocoder", VOCODER_FILES)
        local = locate(str(folder), [*OWN_PATTERNS, "speakers/*.zip"], [VOCODER, SPEAKERS])
        assert answer["sha256"] == local.sha256

    @pytest.mark.parametrize("absent", [VOCODER, SPEAKERS])
    def test_one_that_is_not_there_is_named(self, tmp_path: Path, absent: Companion) -> None:
        of_others = {VOCODER: (VOCODER.hub, VOCODER_FILES), SPEAKERS: (f"datasets/{SPEAKERS.hub}", SPEAKER_FILES)}
        del of_others[absent]
        answer, _ = self.locate(tmp_path, {REPO: WANTED, **dict(of_others.values())})
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
