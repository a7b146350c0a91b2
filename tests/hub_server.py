"""A hub of one repository on 127.0.0.1, as far as huggingface_hub's snapshot_download asks for one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

NO_REPOSITORY = {"X-Error-Code": "RepoNotFound"}
NO_REVISION = {"X-Error-Code": "RevisionNotFound"}


class Hub:
    """`repo` with `files` at one commit, which the branch `main` and every name in `tags` point to.

    With `token`, every request must carry it. The connection breaks off halfway through the file `cut`.
    `served` lists the files whose content was sent.
    """

    def __init__(
        self, repo: str, files: Mapping[str, bytes], *, tags: tuple[str, ...] = (), token: str | None = None
    ) -> None:
        self.repo, self.files, self.token = repo, dict(files), token
        self.commit = hashlib.sha1(repr(sorted(self.files.items())).encode(), usedforsecurity=False).hexdigest()
        self.revisions = {"main", self.commit, *tags}
        self.served: list[str] = []
        self.cut = ""
        self.url = ""

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a GET of `path`."""
        if self.token is not None and authorization != f"Bearer {self.token}":
            return 401, NO_REPOSITORY, b""  # the hub does not tell strangers what exists
        api, resolve = f"/api/models/{self.repo}", f"/{self.repo}/resolve/"
        if path.startswith(resolve):
            revision, _, name = path.removeprefix(resolve).partition("/")
            if revision not in self.revisions:
                return 404, NO_REVISION, b""
            if name not in self.files:
                return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit}, b""
            return 200, {"ETag": f'"{_blob_id(self.files[name])}"', "X-Repo-Commit": self.commit}, self.files[name]
        if path == api:
            path = f"{api}/revision/main"
        for what in ("revision", "tree"):
            if path.startswith(f"{api}/{what}/"):
                revision = unquote(path.removeprefix(f"{api}/{what}/"))
                if revision not in self.revisions:
                    return 404, NO_REVISION, b""
                return 200, {"Content-Type": "application/json"}, json.dumps(getattr(self, f"_{what}")()).encode()
        return 404, NO_REPOSITORY, b""

    def _revision(self) -> dict:
        siblings = [{"rfilename": name} for name in self.files]
        return {"id": self.repo, "sha": self.commit, "private": False, "siblings": siblings}

    def _tree(self) -> list[dict]:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": _blob_id(data)}
            for name, data in self.files.items()
        ]


def _blob_id(data: bytes) -> str:
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve `hub` at `hub.url` on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, send_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            status, headers, body = hub.answer(path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if not send_body:
                return
            name = path.split("/resolve/")[-1].partition("/")[2]
            self.wfile.write(body[: len(body) // 2] if name == hub.cut else body)
            if name in hub.files:
                hub.served.append(name)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
