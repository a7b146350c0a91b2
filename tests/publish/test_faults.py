"""Every fault at every request of a publication: a complete, verified commit, or no visible change."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub.repository import Repository, blob
from hub.server import Fault, Hub, Request, serve
from publish.releases import REPO, TOKEN, Waits, is_published, put, write

from jtts_export.errors import OutsideError
from jtts_export.publish.local import Passed, check
from jtts_export.publish.patience import Patience, Trouble

GRAPHS = {"onnx/model.onnx": b"\x08fp32" * 200, "onnx/model_quantized.onnx": b"\x08int8" * 90}
LEFT = {"old.txt": b"of the last publication", "manifest.json": b'{"files": {"old.txt": {}}}', "NOTES.md": b"others'"}
BUSY = Fault("status", 500)
PASSING = {
    "500": BUSY,
    "503": Fault("status", 503),
    "429": Fault("status", 429, {"Retry-After": "7"}),
    "drop": Fault("drop"),
    "lose": Fault("lose"),
    "cut-answer": Fault("cut-answer"),
    "cut-upload": Fault("cut-upload"),
    "slow": Fault("slow"),
    "412": Fault("status", 412),
}
LASTING = {"500": BUSY, "drop": Fault("drop"), "lose": Fault("lose"), "cut-answer": Fault("cut-answer")}
REFUSING = {"401": Fault("status", 401), "403": Fault("status", 403)}


@dataclass
class Place:
    """A hub with a repository that something was published to before, and a release that takes its place."""

    hub: Hub
    release: Path
    passed: Passed

    def renew(self, empty: bool) -> None:
        """As if nothing had happened."""
        shutil.rmtree(self.hub.folder / "objects")
        self.hub.repositories.clear()
        self.hub.requests.clear()
        self.hub.fault, self.hub.before = lambda _: None, lambda _: None
        if not empty:
            self.hub.add(REPO, LEFT)
        (self.hub.folder / "objects").mkdir(exist_ok=True)

    @property
    def repository(self) -> Repository | None:
        return self.hub.repositories.get(REPO)

    @property
    def is_done(self) -> bool:
        """One commit behind those that were there, with the release and what others have, and its tag."""
        there = self.repository
        if there is None or not is_published(there.head, self.passed):
            return False
        before = [c for c in there.history("main") if c.title in ("initial commit", "files")]
        assert len(there.history("main")) == len(before) + 1, "a commit was made twice"
        others = {name for name in before[0].tree if name not in ("old.txt", "manifest.json")}
        assert set(there.head.tree) == {*self.passed.files, *others}
        return there.tags == {self.passed.name: there.head.oid}

    @property
    def is_untouched(self) -> bool:
        there = self.repository
        return there is None or there.head.title in ("initial commit", "files")

    @property
    def is_committed(self) -> bool:
        """Complete, if not tagged yet."""
        return self.repository is not None and is_published(self.repository.head, self.passed)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("faults"), GRAPHS)


@pytest.fixture
def place(hub: Hub, release: Path) -> Place:
    return Place(hub, release, check(release, None))


@pytest.fixture(params=[False, True], ids=["again", "first"])
def empty(request: pytest.FixtureRequest) -> bool:
    return request.param


def requests_of(place: Place, empty: bool, **given: bool) -> list[str]:
    """All of an undisturbed publication."""
    place.renew(empty)
    put(place.release, Waits(), **given)
    assert place.is_done or given
    return list(place.hub.requests)


def moments(place: Place, empty: bool) -> list[tuple[int, str]]:
    """Every request; of a first publication those that others have not."""
    requests = list(enumerate(requests_of(place, empty)))
    return [(n, r) for n, r in requests if n < 5 or "/commit/" in r or "/tag/" in r] if empty else requests


def at(number: int, fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.number == number else None


def since(number: int, fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.number >= number else None


def assert_quiet(capsys: pytest.CaptureFixture[str], *said: object) -> None:
    """No token anywhere."""
    printed = capsys.readouterr()
    for text in (printed.out, printed.err, *map(str, said), *map(repr, said)):
        assert TOKEN not in text


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes(place: Place, empty: bool, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    fault = PASSING[name]
    for number, request in moments(place, empty):
        if name == "412" and "/commit/" not in request:  # which the hub answers to nothing else
            continue
        if name == "cut-answer" and request.startswith("HEAD"):
            continue
        place.renew(empty)
        waits = Waits()
        place.hub.fault = at(number, fault)
        published = put(place.release, waits)
        assert place.is_done, (number, request)
        assert place.repository is not None
        assert published.commit == place.repository.head.oid
        assert waits.pauses in ([7.0], []) if name == "429" else sum(waits.pauses) <= 2, (number, request)
        assert_quiet(capsys, published, *waits.told)


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_lasts_until_patience_ends(
    place: Place, empty: bool, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And then passes: the second publication completes the first."""
    for number, request in moments(place, empty):
        place.renew(empty)
        place.hub.fault = since(number, LASTING[name])
        waits = Waits()
        with pytest.raises(OutsideError) as caught:
            put(place.release, waits, limit_s=60)
        assert place.is_untouched or place.is_committed, (number, request)
        assert waits.now <= 60
        assert "gave up after" in str(caught.value)
        assert f"({REPO}: " in str(caught.value)
        assert_quiet(capsys, caught.value, *waits.told)
        place.hub.fault = lambda _: None
        put(place.release, Waits())
        assert place.is_done, (number, request)


@pytest.mark.parametrize("name", REFUSING)
def test_a_refusal_is_told_at_once(place: Place, empty: bool, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number, request in moments(place, empty):
        place.renew(empty)
        place.hub.fault = since(number, REFUSING[name])
        waits = Waits()
        with pytest.raises(OutsideError, match=f"token.*{name}") as caught:
            put(place.release, waits)
        assert "\n" not in str(caught.value)
        assert waits.pauses == []
        assert len(place.hub.requests) <= number + 2, request  # another thread's may be on its way
        assert place.is_untouched or place.is_committed, (number, request)
        assert_quiet(capsys, caught.value)
        place.hub.fault = lambda _: None
        put(place.release, Waits())
        assert place.is_done, (number, request)


def test_a_store_that_refuses_is_not_laid_on_the_token(place: Place) -> None:
    for method in ("PUT", "GET"):
        place.renew(True)
        refuses = method, "/store/"

        def planted(request: Request, refuses: tuple[str, str] = refuses) -> Fault | None:
            return Fault("status", 403) if str(request).startswith(" ".join(refuses)) else None

        place.hub.fault = planted
        with pytest.raises(
            OutsideError, match=r"the store of large files, which sees no token, refuses this \(403\)"
        ):
            put(place.release, Waits())
        assert place.is_untouched or place.is_committed


def test_two_faults_in_a_row(place: Place) -> None:
    """A lost answer, and a hub that is busy when it is asked what became of it."""
    for number in range(len(requests_of(place, False))):
        place.renew(False)
        planted = {number: Fault("lose"), number + 1: BUSY, number + 2: Fault("drop")}
        place.hub.fault = lambda request, planted=planted: planted.get(request.number)  # type: ignore[misc]
        put(place.release, Waits())
        assert place.is_done, number


@pytest.mark.parametrize("name", ["500", "drop", "lose", "cut-answer"])
def test_a_pull_request_is_opened_once(place: Place, name: str) -> None:
    for number, request in enumerate(requests_of(place, False, pull_request=True)):
        place.renew(False)
        place.hub.fault = at(number, PASSING[name])
        published = put(place.release, Waits(), pull_request=True)
        assert place.repository is not None
        assert place.is_untouched
        assert len(place.repository.pulls) == 1, (number, request)
        assert is_published(place.repository.at("refs/pr/1"), place.passed)
        assert published.pull_request == f"{place.hub.url}/{REPO}/discussions/1"


# --- what comes back ---------------------------------------------------------------------------------------------


def downloads(place: Place) -> list[int]:
    """Of an undisturbed publication: numbers of the requests that bring back a file's content."""
    requests = requests_of(place, False)
    commit = next(i for i, request in enumerate(requests) if "/commit/" in request)
    content = [i for i, r in enumerate(requests) if i > commit and r.startswith("GET") and "/api/" not in r]
    redirected = {i for i in content if "/resolve/" in requests[i] and requests[i + 1].startswith("GET /store/")}
    return [i for i in content if i not in redirected]


def test_wrong_content_that_was_wrong_once(place: Place) -> None:
    numbers = downloads(place)
    assert len(numbers) == len(place.passed.files)
    for number in numbers:
        place.renew(False)
        place.hub.fault = at(number, Fault("wrong"))
        put(place.release, Waits())
        assert place.is_done, number


def test_wrong_content_that_stays_wrong(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Says which file, and what is on the hub; no tag calls it verified. Once it is right again, a rerun says so."""
    for name in place.passed.files:
        place.renew(False)
        where = f"/store/{place.passed.files[name].sha256}", f"/{name}"

        def planted(request: Request, where: tuple[str, str] = where) -> Fault | None:
            read = request.method == "GET" and "/api/" not in request.path and request.number > 10
            return Fault("wrong") if read and request.path.endswith(where) else None

        place.hub.fault = planted
        with pytest.raises(OutsideError, match=f"{name} on the hub is not the file that was sent") as caught:
            put(place.release, Waits())
        assert place.repository is not None
        assert f"commit {place.repository.head.oid} is on main, and is not verified" in str(caught.value)
        assert place.repository.tags == {}
        assert_quiet(capsys, caught.value)
        place.hub.fault = lambda _: None
        assert not put(place.release, Waits()).committed
        assert place.is_done


def test_a_file_that_the_hub_lost(place: Place) -> None:
    place.renew(False)

    def lose(request: Request) -> None:
        if place.is_committed and place.repository is not None:
            del place.repository.head.tree["onnx/model.onnx"]  # type: ignore[attr-defined]

    place.hub.before = lose
    with pytest.raises(OutsideError, match=r"onnx/model\.onnx is missing on the hub .*is not verified"):
        put(place.release, Waits())


# --- time --------------------------------------------------------------------------------------------------------


def test_a_hub_that_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request ends, whatever it waits for, even where the client itself sets no limit."""
    monkeypatch.setattr("jtts_export.publish.hub.SILENCE_S", 0.15)
    for number, request in enumerate(requests_of(place, False)):
        if not any(part in request for part in ("/tree/", "PUT", "/commit/", "/tag/", "/resolve/", "/preupload/")):
            continue
        place.renew(False)
        place.hub.fault = at(number, Fault("hang"))
        put(place.release, Waits())
        assert place.is_done, (number, request)


def test_a_hub_that_is_not_there(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(Hub(place.hub.folder / "gone")) as gone:
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", gone.url)
        waits = Waits()
        with pytest.raises(OutsideError, match="asking for the repository: the hub cannot be reached; gave up"):
            put(place.release, waits, limit_s=40)
    assert waits.pauses == [1, 2, 4, 8, 16]
    assert_quiet(capsys, *waits.told)


def test_the_hubs_wish_to_be_left_alone_is_kept_or_told(place: Place) -> None:
    place.renew(False)
    place.hub.fault = at(3, Fault("status", 429, {"Retry-After": "1000"}))
    with pytest.raises(OutsideError, match=r"answers 429; gave up after 1 try; the hub asks to come back in 1000 s"):
        put(place.release, Waits())
    place.renew(False)
    place.hub.fault = at(3, Fault("status", 429, {"RateLimit": '"api";r=0;t=55'}))
    waits = Waits()
    put(place.release, waits)
    assert waits.pauses == [55]
    place.renew(False)
    date = {"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    place.hub.fault = at(3, Fault("status", 503, date))
    waits = Waits()
    put(place.release, waits)
    assert sum(waits.pauses) in (30, 1)  # the server's own Date header may be the first


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TestPatience:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def patience(self, clock: Clock) -> Patience:
        def sleep(seconds: float) -> None:
            clock.now += seconds

        return Patience(100, sleep=sleep, clock=clock)

    def test_time_that_came_to_nothing_is_lost(self, patience: Patience, clock: Clock) -> None:
        def fail() -> None:
            clock.now += 20
            raise Trouble("busy")

        with pytest.raises(OutsideError, match="thing: busy; gave up after 5 tries"):
            patience.run("thing", fail)
        assert clock.now == 5 * 20 + 1 + 2 + 4 + 8 > 100

    def test_time_in_which_bytes_move_is_not(self, patience: Patience, clock: Clock) -> None:
        """A connection that broke after an hour of uploading is no reason to give up."""
        tries: Iterator[int] = iter(range(3))

        def upload() -> str:
            pace = patience.pace(10**9)
            for _ in range(60):
                clock.now += 60
                pace()
            if next(tries) < 2:
                raise Trouble("reset")
            return "done"

        assert patience.run("upload", upload) == "done"
        assert patience.lost_s == 3

    def test_bytes_that_hardly_move(self, patience: Patience, clock: Clock) -> None:
        pace = patience.pace(1000)
        clock.now += 99
        pace()
        clock.now += 2
        with pytest.raises(Trouble, match="take too long"):
            pace()

    def test_what_always_fails_in_the_same_place_ends(self, patience: Patience, clock: Clock) -> None:
        tries = 0

        def upload() -> None:
            nonlocal tries
            tries += 1
            clock.now += 1
            patience.moved()
            raise Trouble("reset", wait_s=0.0)

        with pytest.raises(OutsideError, match="gave up after 12 tries"):
            patience.run("upload", upload)
        assert tries == 12

    def test_threads_lose_the_same_time_once(self, patience: Patience, clock: Clock) -> None:
        for _ in range(4):
            patience.wait("thing", Trouble("busy", wait_s=30), 1, 0.0)
            clock.now = 0.0
        assert patience.lost_s == 30

    def test_what_is_no_trouble_is_not_tried_again(self, patience: Patience) -> None:
        tries = 0

        def fail() -> None:
            nonlocal tries
            tries += 1
            raise ValueError("wrong")

        with pytest.raises(ValueError, match="wrong"):
            patience.run("thing", fail)
        assert tries == 1


def test_others_files_are_never_touched(place: Place) -> None:
    """By the least of checks, of the whole module's setting: that what is to stay was there."""
    requests_of(place, False)
    assert place.repository is not None
    assert place.repository.head.tree["NOTES.md"] == blob(LEFT["NOTES.md"])
    assert "old.txt" not in place.repository.head.tree
