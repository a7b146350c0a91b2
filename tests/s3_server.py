"""As much of S3 as a store asks for, on 127.0.0.1, for the real client: objects in memory, whole or by range."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

NOT_FOUND = "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"


@dataclass
class Bucket:
    """Where it answers, what it holds by /bucket/key, and what it was asked."""

    address: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """Of a process whose client shall come here, with a login."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }


@contextmanager
def serving() -> Iterator[Bucket]:
    """An empty one, until the end."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    bucket.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    bucket: ClassVar[Bucket]
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.bucket.objects[self._key()] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200)

    def do_HEAD(self) -> None:
        self._object(body=False)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._listing(query.get("prefix", [""])[0])
        else:
            self._object(body=True)

    def do_DELETE(self) -> None:
        self.bucket.objects.pop(self._key(), None)
        self._answer(204)

    def _key(self) -> str:
        self.bucket.asked.append(f"{self.command} {self.path}")
        return unquote(urlsplit(self.path).path)

    def _object(self, body: bool) -> None:
        data = self.bucket.objects.get(self._key())
        if data is None:
            self._answer(404, NOT_FOUND.encode(), body)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self._answer(200, data, body)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        self._answer(206, data[start : end + 1], body, {"Content-Range": f"bytes {start}-{end}/{len(data)}"})

    def _listing(self, prefix: str) -> None:
        name = self._key().strip("/")
        keys = [key.removeprefix(f"/{name}/") for key in self.bucket.objects if key.startswith(f"/{name}/{prefix}")]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.bucket.objects[f'/{name}/{key}'])}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag></Contents>"
            for key in keys
        )
        text = f"<ListBucketResult><Name>{name}</Name><KeyCount>{len(keys)}</KeyCount>{contents}</ListBucketResult>"
        self._answer(200, text.encode())

    def _answer(self, code: int, data: bytes = b"", body: bool = True, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"ETag": '"e"', "Last-Modified": formatdate(usegmt=True), **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Nothing."""
