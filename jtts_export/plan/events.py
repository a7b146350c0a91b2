"""What happens while a plan is built: lines for people on stderr, and JSON lines for programs.

An event is a dict: `event`, `build` (or `builds` of a shared task), and by its kind `stage`, `seconds`, `cached`,
`reason`, `error`, `verdict`, `release`. The log adds `time`, seconds since 1970.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from jtts_export.redact import redacted
from jtts_export.report.facts import text
from jtts_export.store import writing

Event = dict[str, Any]
Tell = Callable[[Mapping[str, Any]], None]


class Teller:
    """A Shows that sends events."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.present = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """While a stage runs."""
        start, self.present = time.perf_counter(), name
        self.tell({"event": "stage_started", "stage": name})
        event = "stage_failed"
        try:
            yield
            event = "stage_done"
        finally:
            seconds = round(time.perf_counter() - start, 3)
            self.tell({"event": event, "stage": name, "cached": False, "seconds": seconds})

    def step(self, text: str) -> None:
        """What the present stage is doing."""
        self.tell({"event": "step", "stage": self.present, "step": text})

    def cached(self, name: str) -> None:
        """A stage whose result was there already."""
        self.tell({"event": "stage_done", "stage": name, "cached": True, "seconds": 0.0})

    def waits(self, name: str, reason: str) -> None:
        """A stage that cannot begin yet."""
        self.tell({"event": "stage_waits", "stage": name, "reason": reason})


class Journal:
    """Prints events, and appends them to a file."""

    def __init__(self, log: TextIO | None = None) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._log, self._one = log, threading.Lock()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """From any thread."""
        line = _line(event)
        with self._one:
            if self._log:
                whole = redacted(json.dumps({"time": round(time.time(), 3), **event}))
                self._log.write(whole + "\n")
                self._log.flush()
            if line:
                self._console.print(redacted(line), markup=False)


@contextmanager
def journal(log: Path | None) -> Iterator[Journal]:
    """log: the file to append to. Raises OutsideError where that cannot be written."""
    if log is None:
        yield Journal()
        return
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open("a", encoding="utf-8")
    with file:
        yield Journal(file)


def _line(event: Mapping[str, Any]) -> str:
    """For people; empty for what only a program wants to know."""
    kind, stage = event["event"], event.get("stage", "")
    builds = event.get("builds", [""])
    who = event.get("build") or f"{builds[0]} +{len(builds) - 1}"
    said = {
        "stage_done": None if event.get("cached") else f"done     {event.get('seconds', 0):6.1f} s",
        "stage_failed": f"stopped  {event.get('seconds', 0):6.1f} s",
        "stage_waits": f"waits: {event.get('reason', '')}",
        "step": str(event.get("step", "")),
        "again": f"again: {event.get('reason', '')}",
        "build_done": str(event.get("verdict", "")),
        "build_failed": str(event.get("error", "")),
        "unchanged": "unchanged",
        "published": str(event.get("published", "")),
        "publish_failed": str(event.get("error", "")),
    }.get(kind)
    if said is None:
        return ""
    where = f"{text(stage, 40):<16} " if stage else ""
    return f"{text(who, 40):<24} {where}{text(said, 400)}".rstrip()
