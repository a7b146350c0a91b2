"""Stage results that machines share, in any place that fsspec knows: file://, s3://, memory://.

    objects/<sha256>             a file, named by its content
    records/<name>-<key>.json    what made a folder, and its files; written last, so that half of one is never seen

A store is not trusted with names, sizes or bytes: every name is checked, and every file hashed while it comes. What
is damaged counts as absent, and is written anew by whoever makes it again. Who may write there can still put another
stage's files under a key, so that belongs to those who may build.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .artifact import is_inside
from .errors import BadInput, JttsError, OutsideError, first_line
from .redact import redacted
from .store import Kept, Record, key_of

EXTRA = "pip install 'jtts-export[cluster]'"
_SUCH_AS = ", as file:///folder or s3://bucket/path"
CHUNK_BYTES = 1 << 20
RECORD_BYTES = 64 << 20  # more is no record


class Remote:
    """A store by its URL. Raises BadInput where no fsspec file system has its form, OutsideError naming what is to be
    installed, or what the other side said."""

    def __init__(self, url: str) -> None:
        self.shown = redacted(url)
        self._url = url
        self._damaged: set[str] = set()

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise OutsideError(f"a store needs fsspec: {EXTRA}") from error
        if "://" not in self._url:
            raise BadInput(f"store '{self.shown}' is no URL{_SUCH_AS}")
        try:
            # Listings would be remembered, and what others write not be seen.
            return url_to_fs(self._url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            raise OutsideError(f"store {self.shown}: {first_line(error)}: {EXTRA}") from error
        except ValueError as error:
            raise BadInput(f"store {self.shown}: {first_line(error)}{_SUCH_AS}") from error

    def check(self) -> None:
        """Raises where nothing can be written there."""
        name = f"probe-{uuid.uuid4().hex}"
        with self._asking():
            self._fs.makedirs(self._path("records"), exist_ok=True)
            self._write(name, lambda path: self._fs.pipe_file(path, b"-"))
            self._fs.rm_file(self._path(name))

    def record(self, name: str, what: Mapping[str, object]) -> Record | None:
        """Of the folder that `what` made, if there is one, whole."""
        with self._asking():
            try:
                with self._fs.open(self._path(_record(name, what)), "rb") as file:
                    text = file.read(RECORD_BYTES + 1)
            except FileNotFoundError:
                return None
        try:
            found = Record.model_validate_json(text)
        except ValidationError:
            return None
        is_it = len(text) <= RECORD_BYTES and key_of(found.what) == key_of(what)
        return found if is_it and all(map(is_inside, found.files)) else None

    def fetch(self, record: Record, folder: Path) -> bool:
        """The record's files into an empty folder; False where one of them is not what it says."""
        for name, kept in record.files.items():
            target = folder / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):  # a file of the record's has the name of a folder
                return False
            if not self._fetch(kept, target):
                self._damaged.add(kept.sha256)
                return False
        return True

    def _fetch(self, kept: Kept, target: Path) -> bool:
        whole, size = hashlib.sha256(), 0
        with target.open("xb") as out:
            with self._asking():
                try:
                    source = self._fs.open(self._path(_object(kept.sha256)), "rb")
                except FileNotFoundError:
                    return False
            with source:
                while size <= kept.size:
                    with self._asking():
                        chunk = source.read(CHUNK_BYTES)
                    if not chunk:
                        break
                    whole.update(chunk)
                    size += len(chunk)
                    out.write(chunk)
        return size == kept.size and whole.hexdigest() == kept.sha256

    def keep(self, name: str, record: Record, folder: Path) -> None:
        """Put a folder there: objects that are not there yet, then its record."""
        with self._asking():
            for file, kept in record.files.items():
                if kept.sha256 in self._damaged or self._size(_object(kept.sha256)) != kept.size:
                    self._write(_object(kept.sha256), partial(self._fs.put_file, str(folder / file)))
                    self._damaged.discard(kept.sha256)
            text = record.model_dump_json().encode()
            self._write(_record(name, record.what), lambda path: self._fs.pipe_file(path, text))

    @property
    def _fs(self) -> Any:
        return self._place[0]

    def _path(self, name: str) -> str:
        return f"{self._place[1].rstrip('/')}/{name}"

    def _size(self, name: str) -> int | None:
        try:
            return int(self._fs.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def _write(self, name: str, write: Callable[[str], None]) -> None:
        """All at once: on a disk by a name of its own first; elsewhere objects appear only when they are whole."""
        path = self._path(name)
        if "file" not in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,)):
            write(path)
            return
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        work = f"{path}.{uuid.uuid4().hex}"
        try:
            write(work)
            Path(work).replace(path)
        finally:
            Path(work).unlink(missing_ok=True)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn whatever the other side, or the library between, says into one line."""
        try:
            yield
        except JttsError:
            raise
        except Exception as error:  # every file system has errors of its own
            raise OutsideError(f"store {self.shown}: {redacted(first_line(error))}") from error


def _object(sha256: str) -> str:
    return f"objects/{sha256[:2]}/{sha256}"


def _record(name: str, what: Mapping[str, object]) -> str:
    return f"records/{name}-{key_of(what)}.json"
