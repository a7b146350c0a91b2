"""What a publication leaves on the hub, request by request of the real client."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import call
from hub.repository import ATTRIBUTES, Repository, blob
from hub.server import Fault, Hub, Request
from huggingface_hub import snapshot_download
from publish.releases import FILES, GRAPHS, REPO, TOKEN, Waits, is_published, put, write

from jtts_export.artifact import verify
from jtts_export.errors import GateFailed, OutsideError
from jtts_export.publish import publish
from jtts_export.publish.files import BLOCK
from jtts_export.publish.local import Passed, check

OTHERS = {"images/logo.png": b"\x89PNG\x00", "NOTES.md": b"# Notes\n"}


def head(hub: Hub) -> Any:
    return hub.repositories[REPO].head


def later(tmp_path: Path, name: str = "later") -> Path:
    """Another release of the model: a graph changed, a file gone, one new."""
    files = {**FILES, GRAPHS["int8"]: b"\x08other" * 700, "voices/a.bin": b"\x00" * 64}
    del files["clients/voices.npz"], files["report/index.html"]
    return write(tmp_path / name, files)


def kinds(published: Any) -> dict[str, str]:
    return {operation.name: operation.kind for operation in published.operations}


def test_a_first_publication(hub: Hub, made: Path, passed: Passed, waits: Waits, tmp_path: Path) -> None:
    published = put(made, waits)
    repository = hub.repositories[REPO]
    assert len(repository.history("main")) == 2
    assert published.commit == repository.head.oid
    assert published.committed
    assert set(kinds(published).values()) == {"add"}
    assert set(repository.head.tree) == {*passed.files, ATTRIBUTES}
    assert is_published(repository.head, passed)
    assert repository.tags == {passed.name: published.commit} == {published.tag: published.commit}
    assert passed.name == f"kokoro-{passed.manifest.seal[:12]}"
    assert not repository.private
    assert waits.pauses == []
    for word in ("kokoro", "fp32, int8", "random:0", passed.name):
        assert word in repository.head.title
    for word in ("Kokoro-82M", "jtts-export 0.1.0", "ab" * 32, "Profile: tiny", passed.manifest.seal):
        assert word in repository.head.message
    copy = snapshot_download(REPO, cache_dir=tmp_path / "cache")
    assert verify(Path(copy))[0] == passed.manifest
    local = snapshot_download(REPO, local_dir=tmp_path / "local", revision=passed.name)
    assert check(Path(local), None).manifest == passed.manifest


def test_nothing_is_visible_before_the_one_commit(hub: Hub, made: Path, waits: Waits) -> None:
    put(made, waits)
    commit = hub.requests.index(f"POST /api/models/{REPO}/commit/main")
    written = [i for i, request in enumerate(hub.requests) if not request.startswith("GET")]
    last = max(i for i, request in enumerate(hub.requests) if request.startswith("PUT") or "verify" in request)
    assert sum("/commit/" in request for request in hub.requests) == 1
    assert last < commit
    assert [hub.requests[i] for i in written if i > commit] == [f"POST /api/models/{REPO}/tag/{head(hub).oid}"]
    assert len([r for r in hub.requests[commit:] if "/resolve/" in r]) == len(FILES) + 3


def test_the_same_again_makes_no_commit_and_sends_nothing(hub: Hub, made: Path, waits: Waits) -> None:
    first = put(made, waits)
    hub.requests.clear()
    hub.served.clear()
    again = put(made, waits)
    assert not again.committed
    assert (again.commit, again.tag) == (first.commit, first.tag)
    assert set(kinds(again).values()) == {"unchanged"}
    assert [request for request in hub.requests if not request.startswith("GET")] == []
    assert hub.served == ["manifest.json"]  # the tag says that the rest was verified


def test_a_missing_tag_is_made_when_every_byte_was_looked_at_again(
    hub: Hub, made: Path, passed: Passed, waits: Waits
) -> None:
    put(made, waits)
    hub.repositories[REPO].tags.clear()
    hub.served.clear()
    assert not put(made, waits).committed
    assert hub.repositories[REPO].tags == {passed.name: head(hub).oid}
    assert set(hub.served) == {*passed.files}


def test_a_later_release_takes_the_place_of_all_of_the_one_before(
    hub: Hub, made: Path, waits: Waits, tmp_path: Path
) -> None:
    put(made, waits)
    repository = hub.repositories[REPO]
    repository.put({name: blob(data) for name, data in OTHERS.items()}, "somebody's files")
    first, before = repository.history("main")[1], repository.head
    release = later(tmp_path)
    published = put(release, waits)
    assert len(repository.history("main")) == 4
    assert repository.head.parent == before.oid
    assert is_published(repository.head, check(release, None))
    assert set(repository.head.tree) == {*check(release, None).files, *OTHERS, ATTRIBUTES}
    changed = {name: kind for name, kind in kinds(published).items() if kind != "unchanged"}
    assert changed == {
        **{"clients/voices.npz": "delete", "report/index.html": "delete", "voices/a.bin": "add"},
        **dict.fromkeys((GRAPHS["int8"], "manifest.json", "validation.json"), "replace"),
    }
    assert len(repository.tags) == 2
    # And back: the tag of those bytes is there, at the commit that it was made for.
    back = put(made, waits)
    assert back.committed
    assert repository.tags[back.tag] == first.oid != repository.head.oid == back.commit


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"no json",
        b"[" * 100_000,
        b'{"files": ["NOTES.md"]}',
        b'{"files": 1}',
        json.dumps({"files": {n: {} for n in (ATTRIBUTES, "../NOTES.md", "/NOTES.md", "onnx\\x", "a\nb")}}).encode(),
        json.dumps({"files": {"nothing": {}, ".git/config": None, "images": 3, "": {}}}).encode(),
    ],
)
def test_a_manifest_from_anywhere_deletes_nothing_of_others(
    hub: Hub, made: Path, waits: Waits, manifest: bytes
) -> None:
    repository = hub.add(REPO, {**OTHERS, "manifest.json": manifest, "a\nb": b"odd"})
    published = put(made, waits)
    assert "delete" not in kinds(published).values()
    for name, data in OTHERS.items():
        assert repository.head.tree[name].read() == data
    assert ATTRIBUTES in repository.head.tree


def test_a_manifest_too_large_to_be_one_is_not_read_to_its_end(
    hub: Hub, made: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jtts_export.publish.hub.MANIFEST_MAX", 1000)
    listed = json.dumps({"files": {name: {} for name in OTHERS}, "more": "x" * 1000})
    hub.add(REPO, {**OTHERS, "manifest.json": listed.encode()})
    assert "delete" not in kinds(put(made, waits)).values()


def test_a_dry_run_prints_what_a_run_does_and_writes_nothing(
    hub: Hub, made: Path, waits: Waits, tmp_path: Path
) -> None:
    planned = put(made, waits, dry_run=True)
    assert hub.repositories == {}
    assert (planned.commit, planned.committed, planned.tag) == (None, False, None)
    assert planned.operations == put(made, waits).operations
    release, before = later(tmp_path), head(hub)
    hub.requests.clear()
    planned = put(release, waits, dry_run=True)
    assert all(request.startswith("GET") for request in hub.requests)
    assert head(hub) == before
    again = put(release, waits, dry_run=True, revision="next")  # which would be made where main is
    assert again.operations == planned.operations == put(release, waits).operations


def test_a_dry_run_needs_no_token_for_what_anybody_may_see(
    hub: Hub, made: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, OTHERS)
    monkeypatch.delenv("HF_TOKEN")
    assert len(put(made, waits, dry_run=True).changes) == len(FILES) + 3
    hub.repositories[REPO].private = True
    with pytest.raises(OutsideError, match="nobody without a token"):
        put(made, waits, dry_run=True)
    hub.requests.clear()
    with pytest.raises(OutsideError, match="publishing needs a token: set HF_TOKEN"):
        put(made, waits)
    assert hub.requests == []


@pytest.mark.parametrize("private", [True, False, None])
def test_who_may_see_a_new_repository(hub: Hub, made: Path, waits: Waits, private: bool | None) -> None:
    put(made, waits, private=private)
    assert hub.repositories[REPO].private is bool(private)


@pytest.mark.parametrize("private", [True, False])
def test_who_may_see_a_repository_that_is_there_stays_as_it_was(
    hub: Hub, made: Path, waits: Waits, private: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add(REPO, OTHERS, private=not private)
    put(made, waits, private=private)
    assert hub.repositories[REPO].private is not private
    was, asked = ("public", "private") if private else ("private", "public")
    assert f"{REPO} is {was} and stays so; its settings on the hub make it {asked}" in " ".join(
        capsys.readouterr().err.split()
    )


def test_another_branch(hub: Hub, made: Path, passed: Passed, waits: Waits) -> None:
    repository = hub.add(REPO, OTHERS)
    before = repository.head
    published = put(made, waits, revision="next")
    assert repository.head == before
    assert is_published(repository.at("next"), passed)
    assert repository.at("next").parent == before.oid
    assert repository.tags == {passed.name: published.commit}


def test_another_branch_of_a_new_repository(hub: Hub, made: Path, passed: Passed, waits: Waits) -> None:
    put(made, waits, revision="next")
    assert is_published(hub.repositories[REPO].at("next"), passed)
    assert len(head(hub).tree) == 1


def test_a_pull_request(hub: Hub, made: Path, passed: Passed, waits: Waits) -> None:
    """Proposed once, merged by somebody, and then only tagged."""
    repository = hub.add(REPO, OTHERS)
    before = repository.head
    published = put(made, waits, pull_request=True)
    assert repository.head == before
    assert published.pull_request == f"{hub.url}/{REPO}/discussions/1"
    assert is_published(repository.at("refs/pr/1"), passed)
    assert repository.at("refs/pr/1").parent == before.oid
    assert repository.tags == {}
    again = put(made, waits, pull_request=True)
    assert (again.committed, again.pull_request, again.commit) == (False, published.pull_request, published.commit)
    assert len(repository.pulls) == 1
    repository.branches["main"] = repository.pulls[1].commit
    repository.pulls[1].status = "merged"
    assert put(made, waits, pull_request=True).pull_request is None
    assert not put(made, waits).committed
    assert repository.tags == {passed.name: repository.head.oid}
    assert len(repository.pulls) == 1


def test_a_pull_request_of_that_title_with_other_files_is_not_ours(
    hub: Hub, made: Path, passed: Passed, waits: Waits
) -> None:
    repository = hub.add(REPO, OTHERS)
    repository.propose(repository.make({"x": blob(b"x")}, passed.title, "", repository.head.oid))
    assert put(made, waits, pull_request=True).pull_request == f"{hub.url}/{REPO}/discussions/2"


def test_a_tag_that_is_taken(hub: Hub, made: Path, passed: Passed, waits: Waits) -> None:
    repository = hub.add(REPO, OTHERS, tags=(passed.name,))
    with pytest.raises(OutsideError, match=f"the tag {passed.name} is there already, and holds something else"):
        put(made, waits)
    assert is_published(repository.head, passed)


# --- somebody else is there --------------------------------------------------------------------------------------


def meanwhile(hub: Hub, change: Callable[[Repository], object], times: int = 1) -> None:
    """Somebody commits just before each of the first commits arrives."""
    left = times

    def before(request: Request) -> None:
        nonlocal left
        if "/commit/" in request.path and left:
            left -= 1
            change(hub.repositories[REPO])

    hub.before = before


def test_a_commit_to_other_files_meanwhile(hub: Hub, made: Path, passed: Passed, waits: Waits) -> None:
    repository = hub.add(REPO, {"NOTES.md": b"old"})
    meanwhile(hub, lambda there: there.put({"NOTES.md": blob(b"new")}, "notes"))
    published = put(made, waits)
    assert [commit.title for commit in repository.history("main")][:2] == [passed.title, "notes"]
    assert published.commit == repository.head.oid
    assert repository.head.tree["NOTES.md"].read() == b"new"
    assert is_published(repository.head, passed)


def test_a_commit_to_the_same_files_meanwhile(hub: Hub, made: Path, passed: Passed, waits: Waits) -> None:
    repository = hub.add(REPO, OTHERS)
    meanwhile(hub, lambda there: there.put({"README.md": blob(b"mine")}, "a card"))
    with pytest.raises(OutsideError, match=r"committed [0-9a-f]{40} meanwhile, which changed README\.md") as caught:
        put(made, waits)
    assert "nothing of this release is in it" in str(caught.value)
    assert repository.head.title == "a card"
    assert put(made, waits).committed  # who looked at it and still wants it, asks again
    assert is_published(repository.head, passed)


def test_commits_again_and_again(hub: Hub, made: Path, waits: Waits) -> None:
    repository = hub.add(REPO, OTHERS)
    meanwhile(hub, lambda there: there.put({"n": blob(there.head.oid.encode())}, "more"), times=2)
    with pytest.raises(OutsideError, match="somebody else keeps committing"):
        put(made, waits)
    assert repository.head.title == "more"


def test_somebody_published_the_very_same_meanwhile(hub: Hub, made: Path, passed: Passed, waits: Waits) -> None:
    repository = hub.add(REPO, OTHERS)

    def same(there: Repository) -> None:
        there.put({name: blob(content.read()) for name, content in passed.files.items()}, passed.title)

    meanwhile(hub, same)
    assert put(made, waits).commit == repository.head.oid
    assert len(repository.history("main")) == 3


# --- files that change -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FILES, "README.md", "validation.json", "manifest.json"])
@pytest.mark.parametrize("at", ["/tree/", "/preupload/", "/batch", "/validate-yaml"])
def test_a_file_that_changes_while_it_is_published(
    hub: Hub, tmp_path: Path, waits: Waits, name: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either what was verified was in memory, or on the hub; or else nothing is visible. Never the changed bytes."""
    monkeypatch.setattr("jtts_export.publish.files.KEPT", 64)
    release = write(tmp_path / "out")
    passed = check(release, None)
    repository = hub.add(REPO, OTHERS)
    before = repository.head

    def change(request: Request) -> None:
        if at in request.path:
            size = (release / name).stat().st_size
            (release / name).write_bytes(b"!" * size)

    originals = {path: path.read_bytes() for path in release.rglob("*") if path.is_file()}
    hub.before = change
    try:
        put(release, waits)
    except GateFailed as error:
        assert f"{name} changed while it was being published" in str(error)
        assert "main is as it was" in str(error)
        assert repository.head == before
    else:
        assert len(repository.history("main")) == 3
    hub.before = lambda _: None
    for path, data in originals.items():
        path.write_bytes(data)
        assert hub_lacks(hub, b"!" * len(data))
    put(release, waits)
    assert repository.head.parent == before.oid
    for path, content in passed.files.items():
        assert repository.head.tree[path].read() == originals[release / content.name]


def hub_lacks(hub: Hub, data: bytes) -> bool:
    return all(path.read_bytes() != data for path in (hub.folder / "objects").iterdir())


@pytest.mark.parametrize("change", ["shorter", "gone", "longer"])
def test_a_large_file_that_is_cut_grows_or_goes(hub: Hub, tmp_path: Path, waits: Waits, change: str) -> None:
    release = write(tmp_path / "out", large(2 * BLOCK + 7))

    def cut(request: Request) -> None:
        if "/batch" in request.path:
            graph = release / GRAPHS["fp32"]
            data = graph.read_bytes()
            graph.unlink()
            if change != "gone":
                graph.write_bytes(data[:-1] if change == "shorter" else data + b"x")

    hub.before = cut
    with pytest.raises(GateFailed, match=r"onnx/model\.onnx changed while it was being published"):
        put(release, waits)
    assert len(head(hub).tree) == 1


def large(size: int) -> dict[str, bytes]:
    return {**FILES, GRAPHS["fp32"]: os.urandom(size)}


# --- the wire ----------------------------------------------------------------------------------------------------


def test_files_in_parts_and_of_the_same_bytes(hub: Hub, tmp_path: Path) -> None:
    """Several threads, uploads of several requests, and a file that is there under two names."""
    size = 3 * BLOCK + 5
    files = {**large(size), "voices/a.bin": b"\x00voice" * 60_000, "voices/b.bin": b"\x00voice" * 60_000}
    release = write(tmp_path / "out", files)
    hub.part = BLOCK - 1
    publish(release, REPO)
    assert sum(request.startswith("PUT") for request in hub.requests) == 4 + 3
    assert is_published(head(hub), check(release, None))


def test_names_that_an_address_must_quote(hub: Hub, tmp_path: Path, waits: Waits) -> None:
    odd = ("voices/née à.bin", "voices/50%#1?x=y&z.bin", "voices/a+b c.txt", "clients/日本.json", "empty.txt")
    release = write(tmp_path / "out", {**FILES, **{name: f"\0{name}".encode() for name in odd}, "empty.txt": b""})
    put(release, waits)
    assert is_published(head(hub), check(release, None))
    assert set(odd) <= set(head(hub).tree)
    assert not put(release, waits).committed


def test_what_the_hub_says_of_a_commit_is_told(hub: Hub, made: Path, waits: Waits) -> None:
    said = Fault("status", 400, {"X-Error-Message": "Your push was rejected: too\x1b[2K many files"})
    hub.fault = lambda request: said if "/commit/" in request.path else None
    with pytest.raises(OutsideError, match=r"committing: BadRequestError: .*rejected: too\ufffd\[2K many") as caught:
        put(made, waits)
    assert "main is as it was" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_address_that_is_none(hub: Hub, made: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "nonsense")
    with pytest.raises(OutsideError, match="is not the address of a hub"):
        put(made, waits)
    assert waits.pauses == []


def test_offline(hub: Hub, made: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OutsideError, match="HF_HUB_OFFLINE is set"):
        put(made, waits)
    assert hub.requests == []


def test_files_that_the_repository_ignores(hub: Hub, made: Path, waits: Waits) -> None:
    repository = hub.add(REPO, {".gitignore": b"*.npz\n"})
    with pytest.raises(OutsideError, match=r"the \.gitignore of org/tiny leaves out clients/voices\.npz"):
        put(made, waits)
    assert len(repository.history("main")) == 2


def test_a_card_that_the_hub_does_not_take(hub: Hub, tmp_path: Path, waits: Waits) -> None:
    release = write(tmp_path / "out", card="---\nlicense: 'Not A Licence'\n---\n")
    with pytest.raises(OutsideError, match=r"Invalid metadata in README\.md") as caught:
        put(release, waits)
    assert "\n" not in str(caught.value)
    assert len(head(hub).tree) == 1


def test_a_token_that_may_only_read(hub: Hub, made: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    hub.add(REPO, OTHERS)
    with pytest.raises(OutsideError, match=r"the token may not do this \(403.*one that may write.*main is as it was"):
        put(made, waits)
    assert waits.pauses == []


def test_a_token_that_the_hub_does_not_know(
    hub: Hub, made: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_unknown")
    with pytest.raises(OutsideError, match=r"does not accept the token \(401.*HF_TOKEN.*no file was sent"):
        put(made, waits)
    assert hub.repositories == {}
    assert waits.pauses == []


def test_an_organisation_of_others(hub: Hub, made: Path) -> None:
    with pytest.raises(OutsideError, match=r"the token may not do this \(403"):
        publish(made, "others/tiny")
    assert hub.repositories == {}


# --- what the command prints -------------------------------------------------------------------------------------


def test_the_command(hub: Hub, made: Path, passed: Passed, tmp_path: Path) -> None:
    given = ("publish", made, "--repo", REPO)
    done = call(tmp_path, *given, "--dry-run")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"{REPO}: 8 to add; 0.0 MB to send; nothing was sent"
    for name in passed.files:
        assert any(
            line.split() == ["add", line.split()[1], name] for line in done.stdout.splitlines() if name in line
        )
    done = call(tmp_path, *given, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["commit"] == head(hub).oid
    assert said["tag"] == passed.name
    assert said["bytes"] == sum(content.size for content in passed.files.values())
    assert {o["name"]: o["kind"] for o in said["operations"]} == dict.fromkeys(passed.files, "add")
    done = call(tmp_path, *given)
    assert done.stdout == f"unchanged, and verified: {REPO}@main, commit {head(hub).oid}, tag {passed.name}\n"
    for stage in ("check", "plan"):
        assert f"{stage:<16} done" in done.stderr


def test_a_local_folder_in_the_manifest_is_told(
    hub: Hub, tmp_path: Path, waits: Waits, capsys: pytest.CaptureFixture[str]
) -> None:
    def local(content: dict[str, Any]) -> None:
        content["checkpoint"]["source"] = "/home/somebody/Kokoro-82M"

    release = write(tmp_path / "out", change=local, alter=local)
    for dry_run in (True, False):
        put(release, waits, dry_run=dry_run)
        assert "names the folder /home/somebody/Kokoro-82M" in " ".join(capsys.readouterr().err.split())
    assert "from Kokoro-82M (" in head(hub).title
    assert "/home/somebody" not in head(hub).title + head(hub).message


def test_a_folder_is_told_as_it_is_named(
    hub: Hub, tmp_path: Path, waits: Waits, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its name would mean to a terminal, or to what prints on one."""

    def local(content: dict[str, Any]) -> None:
        content["checkpoint"]["source"] = "/home/[old]/[/x]/\x1b[31mk"

    put(write(tmp_path / "out", change=local, alter=local), waits)
    assert "the folder /home/[old]/[/x]/\ufffd[31mk," in " ".join(capsys.readouterr().err.split())


def test_ctrl_c_breaks_off_what_other_threads_send(
    hub: Hub, made: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.HfApi.preupload_lfs_files", stopped)
    patience = waits.patience()
    with pytest.raises(KeyboardInterrupt):
        publish(made, REPO, patience=patience)
    with pytest.raises(OutsideError, match="broken off"):
        patience.pace(1)()


@pytest.mark.parametrize("address", ["nowhere", "ftp://me:secret@nowhere"])
def test_an_address_that_is_no_hubs(
    hub: Hub, made: Path, waits: Waits, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    with pytest.raises(OutsideError, match=r"^\S+ is not the address of a hub: .*no file was sent") as caught:
        put(made, waits)
    assert str(caught.value).startswith(address.replace("me:secret", "***"))


def test_the_environments_token_is_the_one_that_is_sent(hub: Hub, made: Path, waits: Waits) -> None:
    seen: set[str] = set()
    hub.before = lambda request: seen.add(request.token) if not request.path.startswith("/store/") else None  # type: ignore[func-returns-value]
    put(made, waits)
    assert seen == {TOKEN}


def test_a_release_in_a_copy_is_the_same_release(hub: Hub, made: Path, waits: Waits, tmp_path: Path) -> None:
    put(made, waits)
    assert not put(Path(shutil.copytree(made, tmp_path / "copy")), waits).committed
