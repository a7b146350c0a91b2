"""A task's process on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .events import Tell
from .task import CRASHED, RESULT, Order, Result

COMMAND = (sys.executable, "-m", "jtts_export.plan.task")
LAST_WORDS = 300  # characters of what a process wrote before it crashed


class Processes:
    """Runs orders, each in a process and group of its own, until it is told to stop."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._one = threading.Lock()
        self.stopped = False

    def run(self, order: Order, tell: Tell) -> Result:
        """Wait for an order to be carried out. A process that crashes is a result like others."""
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
            with self._one:
                if self.stopped:
                    return Result(error="stopped", code=CRASHED)
                process = subprocess.Popen(
                    COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=words,
                    encoding="utf-8",
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                return self._heard(process, order, tell) or Result(
                    error=_crash(process.wait(), _tail(words)), code=CRASHED, crashed=True
                )
            finally:
                with self._one:
                    self._running.discard(process)
                _end(process)

    def _heard(self, process: subprocess.Popen[str], order: Order, tell: Tell) -> Result | None:
        assert process.stdin
        assert process.stdout
        with suppress(BrokenPipeError):
            process.stdin.write(order.as_json() + "\n")
            process.stdin.flush()
        for line in process.stdout:
            event: Mapping[str, Any] = json.loads(line)
            if event["event"] == "result":
                return RESULT.validate_python(event["result"])
            tell(event)
        return None

    def stop(self) -> None:
        """End all that runs; what they finished stays in the cache."""
        with self._one:
            self.stopped = True
            for process in self._running:
                _kill(process)


def _end(process: subprocess.Popen[str]) -> None:
    """The process, and what it may have started."""
    if process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)  # it has said all that it had to
    _kill(process)
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()
    process.wait()


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _crash(code: int, words: str) -> str:
    last = next((line for line in reversed(words.splitlines()) if line.strip()), "").strip()[-LAST_WORDS:]
    said = f"; it said last: {last}" if last else ""
    if code >= 0:
        return f"its process ended with exit code {code}{said}"
    memory = ", as when memory runs out" if code == -signal.SIGKILL else ""
    return f"its process was killed by {signal.Signals(-code).name}{memory}{said}"


def _tail(words: Any) -> str:
    words.seek(0)
    return str(words.read()[-10 * LAST_WORDS :])
