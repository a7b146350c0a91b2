"""A Hugging Face Hub on 127.0.0.1 that the real client talks to, and that fails where it is told to.

It knows what huggingface_hub asks for to download snapshots and to publish through git-LFS: repositories, commits
with their parents, branches, tags, pull requests. Objects of LFS lie at another origin, `localhost`, as the hub's lie
in a store of their own, which a token must not reach.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

from .repository import MAIN, Blob, Refused, Repository, blob, new, pointer

PIECE = 1 << 16
SLOW_PIECES, SLOW_S = 20, 0.01

# status: answer so and do nothing. drop: break off before the request is read; cut-upload: halfway through its body;
# lose: when it is done, in the place of the answer; cut-answer: halfway through the answer. slow: read it bit by bit.
# wrong: answer with a byte changed. hang: say nothing until the client has gone.
Kind = Literal["status", "drop", "cut-upload", "lose", "cut-answer", "slow", "wrong", "hang"]


@dataclass(frozen=True)
class Fault:
    """act: called where it strikes."""

    kind: Kind
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    act: Callable[[], object] = field(default=lambda: None, compare=False)


@dataclass
class Request:
    """As it came: the number of requests before it, and what it is about."""

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    file: Path | None = None  # of a large body

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def json(self) -> Any:
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes | Path = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)


def as_json(content: object, status: int = 200, **headers: str) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


class Hub:
    """Repositories by name, `datasets/ORG/NAME` of a data set.

    writers: tokens that may write; where there are none, anybody may read everything. fault: asked about every
    request. before: told of it. requests: all that came, as METHOD PATH. served: names of files whose content was
    sent. leaked: requests that brought a token to the store. page: entries of a listing at a time. part: bytes of a
    larger upload's parts, 0 for none.
    """

    def __init__(self, folder: Path, *, writers: tuple[str, ...] = (), readers: tuple[str, ...] = ()) -> None:
        self.folder, self.writers, self.readers = folder, writers, readers
        self.repositories: dict[str, Repository] = {}
        self.fault: Callable[[Request], Fault | None] = lambda _: None
        self.before: Callable[[Request], None] = lambda _: None
        self.requests: list[str] = []
        self.served: list[str] = []
        self.leaked: list[str] = []
        self.page, self.part = 1000, 0
        self.url = self.store_url = ""
        self.lock = threading.RLock()
        self.active = threading.Condition()
        self.serving = 0
        self.closing = threading.Event()

    def settle(self) -> None:
        """Wait until every request that came was dealt with."""
        with self.active:
            assert self.active.wait_for(lambda: self.serving == 0, 30)

    def add(
        self, name: str, files: Mapping[str, bytes], *, tags: tuple[str, ...] = (), private: bool = False
    ) -> Repository:
        """A repository with these as regular files, on main and at every tag."""
        made = self.repositories[name] = new(name, self.folder / "objects", private)
        made.put({path: blob(data) for path, data in files.items()}, "files")
        made.tags |= dict.fromkeys(tags, made.head.oid)
        return made

    def answer(self, request: Request) -> Answer:
        """What it says, and does."""
        try:
            with self.lock:
                return self._routed(request)
        except Refused as refused:
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            headers |= {"X-Error-Message": refused.says} if refused.says else {}
            return as_json({"error": refused.says}, refused.status, **headers)

    def _routed(self, request: Request) -> Answer:
        path = request.path.replace("/api/datasets/", "/api/models/datasets/")
        for method, pattern, handle in ROUTES:
            if method in (request.method, "*") and (match := pattern.fullmatch(path)):
                return handle(self, request, **{k: unquote(v) for k, v in match.groupdict().items() if v})
        raise Refused(404, "RepoNotFound", "no such address")

    def repository(self, request: Request, name: str, write: bool = False) -> Repository:
        """The one asked for, if the token may see it, or write to it."""
        known = request.token in (*self.readers, *self.writers)
        if request.token and not known:
            raise Refused(401, says="Invalid credentials in Authorization header")
        found = self.repositories.get(name)
        if found is None or (found.private and not known):
            raise Refused(404 if known else 401, "RepoNotFound", "Repository not found")
        if write:
            self.check_writer(request)
        return found

    def check_writer(self, request: Request) -> None:
        if not request.token:
            raise Refused(401, says="Invalid username or password.")
        if request.token not in self.writers:
            known = request.token in self.readers
            raise Refused(403 if known else 401, says="You don't have the required permissions" if known else "no")


# --- reading -----------------------------------------------------------------------------------------------------


def _whoami(hub: Hub, request: Request) -> Answer:
    hub.check_writer(request)
    return as_json({"name": "somebody", "type": "user", "orgs": []})


def _info(hub: Hub, request: Request, repo: str, rev: str = MAIN) -> Answer:
    repository = hub.repository(request, repo)
    commit = repository.at(rev)
    siblings = [{"rfilename": name} for name in commit.tree]
    return as_json({"id": repo, "sha": commit.oid, "private": repository.private, "siblings": siblings})


def _tree(hub: Hub, request: Request, repo: str, rev: str) -> Answer:
    tree = hub.repository(request, repo).at(rev).tree
    folders = sorted({str(parent) for name in tree for parent in Path(name).parents} - {"."})
    entries: list[dict[str, Any]] = [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders]
    for path, content in tree.items():
        entry = {"type": "file", "path": path, "size": content.size, "oid": content.oid}
        if content.sha256:
            entry["lfs"] = {"oid": content.sha256, "size": content.size, "pointerSize": 134}
        entries.append(entry)
    start = int(request.query.get("cursor", 0))
    end = start + hub.page
    if end >= len(entries):
        return as_json(entries[start:])
    following = f"{hub.url}{quote(request.path)}?recursive=true&cursor={end}"
    return as_json(entries[start:end], Link=f'<{following}>; rel="next"')


def _refs(hub: Hub, request: Request, repo: str) -> Answer:
    repository = hub.repository(request, repo)

    def listed(of: Mapping[str, str], where: str) -> list[dict[str, str]]:
        return [{"name": n, "ref": f"refs/{where}/{n}", "targetCommit": oid} for n, oid in of.items()]

    branches, tags = listed(repository.branches, "heads"), listed(repository.tags, "tags")
    return as_json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


def _commits(hub: Hub, request: Request, repo: str, rev: str) -> Answer:
    date = "2026-01-01T00:00:00.000Z"
    return as_json(
        [
            {"id": c.oid, "title": c.title, "message": c.message, "authors": [{"user": "somebody"}], "date": date}
            for c in hub.repository(request, repo).history(rev)
        ]
    )


def _discussions(hub: Hub, request: Request, repo: str) -> Answer:
    pulls = hub.repository(request, repo).pulls.values()
    found = [p for p in pulls if request.query.get("status", p.status) == p.status]
    listed = [
        {
            **{"num": p.number, "title": p.title, "status": p.status, "isPullRequest": True},
            **{"author": {"name": "somebody"}, "createdAt": "2026-01-01T00:00:00.000Z"},
            "repo": {"name": repo, "type": "model"},
        }
        for p in found
    ]
    return as_json({"discussions": listed, "count": len(listed), "start": 0})


def _resolve(hub: Hub, request: Request, repo: str, rev: str, path: str) -> Answer:
    commit = hub.repository(request, repo).at(rev)
    if path not in commit.tree:
        raise Refused(404, "EntryNotFound", "Entry not found")
    content = commit.tree[path]
    headers = {"ETag": f'"{content.sha256 or content.oid}"', "X-Repo-Commit": commit.oid}
    if content.stored is None:
        return Answer(200, content.data, headers)
    headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(content.size)}
    return Answer(302, b"", {**headers, "Location": f"{hub.store_url}/store/{content.sha256}?name={quote(path)}"})


def _stored(hub: Hub, request: Request, sha256: str) -> Answer:
    return Answer(200, hub.folder / "objects" / sha256, {"ETag": f'"{sha256}"'})


# --- writing -----------------------------------------------------------------------------------------------------


def _create(hub: Hub, request: Request) -> Answer:
    hub.check_writer(request)
    asked = request.json()
    name = f"{asked['organization']}/{asked['name']}"
    if asked["organization"] == "others":
        raise Refused(403, says="You don't have the rights to create a model under the namespace")
    address = {"url": f"{hub.url}/{name}"}
    if name in hub.repositories:
        return as_json({"error": "You already created this model repo", **address}, 409)
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    hub.repositories[name] = new(name, hub.folder / "objects", private)
    return as_json(address)


def _branch(hub: Hub, request: Request, repo: str, rev: str) -> Answer:
    repository = hub.repository(request, repo, write=True)
    if rev in repository.branches:
        raise Refused(409, says="Reference already exists")
    repository.branches[rev] = repository.at((request.json() or {}).get("startingPoint", MAIN)).oid
    return as_json({})


def _tag(hub: Hub, request: Request, repo: str, rev: str) -> Answer:
    repository = hub.repository(request, repo, write=True)
    tag = request.json()["tag"]
    if tag in repository.tags:
        raise Refused(409, says="Reference already exists")
    repository.tags[tag] = repository.at(rev).oid
    return as_json({})


def _validate_yaml(hub: Hub, request: Request) -> Answer:
    _, _, rest = request.json()["content"].partition("---\n")
    try:
        metadata = yaml.safe_load(rest.partition("\n---\n")[0])
        assert isinstance(metadata, dict)
        given = metadata["license"]
        assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in (given if isinstance(given, list) else [given]))
    except Exception as error:
        return as_json({"errors": [{"message": f"invalid metadata: {error}"}], "warnings": []}, 400)
    return as_json({"errors": [], "warnings": [] if "language" in metadata else [{"message": "no language"}]})


def _preupload(hub: Hub, request: Request, repo: str, rev: str) -> Answer:
    repository = hub.repository(request, repo, write="create_pr" not in request.query)
    tree = repository.at(rev).tree
    files = []
    for asked in request.json()["files"]:
        name, there = asked["path"], tree.get(asked["path"])
        large = repository.is_large(name, asked["size"], base64.b64decode(asked["sample"]))
        oid = there and (there.sha256 or there.oid)
        mode = "lfs" if large else "regular"
        files.append({"path": name, "uploadMode": mode, "shouldIgnore": repository.is_ignored(name), "oid": oid})
    return as_json({"files": files})


def _batch(hub: Hub, request: Request, repo: str) -> Answer:
    repository = hub.repository(request, repo)
    hub.check_writer(request)
    objects = []
    for asked in request.json()["objects"]:
        entry: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
        if not repository.stored(asked["oid"]).exists():
            where = f"{hub.store_url}/store/{asked['oid']}?size={asked['size']}"
            upload: dict[str, Any] = {"href": where}
            if hub.part and asked["size"] > hub.part:
                count = -(-asked["size"] // hub.part)
                parts = {str(n): f"{where}&part={n}" for n in range(1, count + 1)}
                upload = {"href": f"{hub.url}/complete/{asked['oid']}", "header": {"chunk_size": hub.part, **parts}}
            entry["actions"] = {"upload": upload, "verify": {"href": f"{hub.url}/{repo}.git/info/lfs/verify"}}
        objects.append(entry)
    return as_json({"transfer": "basic", "objects": objects})


def _put(hub: Hub, request: Request, sha256: str) -> Answer:
    assert request.file is not None
    part = request.query.get("part")
    with request.file.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if part is None and (found, request.file.stat().st_size) != (sha256, int(request.query["size"])):
        raise Refused(400, says="the content is not what its name says")
    request.file.replace(hub.folder / "objects" / (sha256 if part is None else f"{sha256}.{part}"))
    return Answer(200, b"", {"ETag": f'"{found}"'})


def _complete(hub: Hub, request: Request, sha256: str) -> Answer:
    whole = hub.folder / "objects" / f"{sha256}.whole"
    with whole.open("wb") as out:
        for part in request.json()["parts"]:
            path = hub.folder / "objects" / f"{sha256}.{part['partNumber']}"
            out.write(path.read_bytes())
            path.unlink()
    with whole.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise Refused(400, says="the content is not what its name says")
    whole.replace(hub.folder / "objects" / sha256)
    return as_json({})


def _verify(hub: Hub, request: Request, repo: str) -> Answer:
    repository, asked = hub.repository(request, repo), request.json()
    hub.check_writer(request)
    stored = repository.stored(asked["oid"])
    if not stored.exists() or stored.stat().st_size != asked["size"]:
        raise Refused(404, says="no such object")
    return as_json({})


def _commit(hub: Hub, request: Request, repo: str, rev: str) -> Answer:
    proposed = "create_pr" in request.query
    repository = hub.repository(request, repo, write=not proposed)
    header, *lines = [json.loads(line) for line in request.body.splitlines()]
    about = header["value"]
    head = repository.at(rev).oid
    if not proposed and about.get("parentCommit", head) != head:
        raise Refused(412, says="A commit has happened since. Please refresh and try again.")
    changes: dict[str, Blob | None] = {}
    for line in lines:
        value = line["value"]
        if line["key"] == "lfsFile":
            stored = repository.stored(value["oid"])
            if not stored.exists():
                raise Refused(400, says=f"no object {value['oid']} was uploaded")
            changes[value["path"]] = pointer(stored)
        elif line["key"] == "file":
            changes[value["path"]] = blob(base64.b64decode(value["content"]))
        else:
            assert line["key"] == "deletedFile", line["key"]
            changes[value["path"]] = None
    parent = about.get("parentCommit", head)
    made = repository.make(changes, about["summary"], about["description"], parent)
    answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{hub.url}/{repo}/commit/{made.oid}"}
    if not proposed:
        repository.branches[rev] = made.oid
        return as_json(answer)
    number = repository.propose(made).number
    return as_json({**answer, "pullRequestUrl": f"{hub.url}/{repo}/discussions/{number}"})


_REPO = r"(?P<repo>(?:datasets/)?[^/]+/[^/]+)"
_REV, _NAME = r"(?P<rev>[^/]+)", r"(?P<sha256>[0-9a-f]{64})"
ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
    (method, re.compile(pattern), handle)
    for method, pattern, handle in [
        ("GET", "/api/whoami-v2", _whoami),
        ("POST", "/api/repos/create", _create),
        ("POST", "/api/validate-yaml", _validate_yaml),
        ("GET", f"/api/models/{_REPO}", _info),
        ("GET", f"/api/models/{_REPO}/revision/{_REV}", _info),
        ("GET", f"/api/models/{_REPO}/tree/{_REV}", _tree),
        ("GET", f"/api/models/{_REPO}/refs", _refs),
        ("GET", f"/api/models/{_REPO}/commits/{_REV}", _commits),
        ("GET", f"/api/models/{_REPO}/discussions", _discussions),
        ("POST", f"/api/models/{_REPO}/preupload/{_REV}", _preupload),
        ("POST", f"/api/models/{_REPO}/commit/{_REV}", _commit),
        ("POST", f"/api/models/{_REPO}/tag/{_REV}", _tag),
        ("POST", f"/api/models/{_REPO}/branch/{_REV}", _branch),
        ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _batch),
        ("POST", rf"/{_REPO}\.git/info/lfs/verify", _verify),
        ("PUT", f"/store/{_NAME}", _put),
        ("POST", f"/complete/{_NAME}", _complete),
        ("*", f"/store/{_NAME}", _stored),
        ("*", f"/{_REPO}/resolve/{_REV}/(?P<path>.+)", _resolve),
    ]
]


# --- HTTP --------------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        hub = self.hub
        with hub.active:
            hub.serving += 1
        try:
            self._served()
        finally:
            with hub.active:
                hub.serving -= 1
                hub.active.notify_all()

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _served(self) -> None:
        hub = self.hub
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        with hub.lock:
            request = Request(len(hub.requests), self.command, url.path, query, self.headers)
            hub.requests.append(str(request))
            if url.path.startswith("/store/") and request.token:
                hub.leaked.append(str(request))
            hub.before(request)
            fault = hub.fault(request)
        kind, act = (fault.kind, fault.act) if fault else ("", lambda: None)
        if kind == "drop":
            act()
            return self._break_off()
        if kind == "hang":
            hub.closing.wait(30)
            return self._break_off()
        if not self._read(request, kind):
            act()
            return self._break_off()
        if fault and kind == "status":
            return self._send(as_json({"error": "planted"}, fault.status, **fault.headers), request)
        answer = hub.answer(request)
        act()
        if kind == "lose":
            return self._break_off()
        return self._send(answer, request, kind)

    def _read(self, request: Request, kind: str) -> bool:
        """The body: a file of what goes to the store. False where it is not read to the end."""
        size = int(self.headers.get("Content-Length", 0))
        if kind == "cut-upload":
            size //= 2
        large = request.method == "PUT"
        with tempfile.NamedTemporaryFile(dir=self.hub.folder, delete=False) if large else _Memory() as out:
            left = size
            while left and (data := self.rfile.read(min(PIECE if kind != "slow" else 1 + size // SLOW_PIECES, left))):
                out.write(data)
                left -= len(data)
                if kind == "slow":
                    time.sleep(SLOW_S)
            if large:
                request.file = Path(out.name)
            else:
                request.body = bytes(out.data)  # type: ignore[union-attr]
        return left == 0 and kind != "cut-upload"

    def _send(self, answer: Answer, request: Request, kind: str = "") -> None:
        """Whole, or half of it, or with a byte that is another."""
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(answer.size)}.items():
            self.send_header(name, value)
        self.end_headers()
        if kind == "cut-answer":
            if self.command != "HEAD":
                whole = answer.body.read_bytes() if isinstance(answer.body, Path) else answer.body
                self.wfile.write(whole[: len(whole) // 2])
            self.wfile.flush()
            return self._break_off()
        if self.command == "HEAD":
            return None
        name = request.query.get("name") or request.path.partition("/resolve/")[2].partition("/")[2]
        if isinstance(answer.body, Path):
            with answer.body.open("rb") as file:
                _copy(file, self.wfile, flipped=kind == "wrong")
        else:
            self.wfile.write(_flipped(answer.body) if kind == "wrong" else answer.body)
        if name and answer.status == 200:
            self.hub.served.append(unquote(name))
        return None

    def _break_off(self) -> None:
        """With a reset, which no buffer hides."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def log_message(self, *_: object) -> None:
        pass


class _Memory:
    def __init__(self) -> None:
        self.data = bytearray()

    def __enter__(self) -> _Memory:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.data += data


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


def _copy(source: BinaryIO, out: BinaryIO, flipped: bool) -> None:
    if flipped:
        out.write(_flipped(source.read()))
    else:
        shutil.copyfileobj(source, out, PIECE)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """A client that has gone is none of the hub's errors."""


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` at `hub.url` on a free port."""
    (hub.folder / "objects").mkdir(parents=True, exist_ok=True)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.store_url = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
