"""A task in a process of its own: what crashes there is that task's failure, and nothing else's.

    python -m jtts_export.plan.task    an Order on stdin, events on stdout, a Result as the last of them

The process and all that it started go when its stdin ends, and so with whoever ordered the task.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from jtts_export.errors import JttsError, bug_line
from jtts_export.pipeline import Job, build, make
from jtts_export.remote import Remote
from jtts_export.store import Store

from .events import Teller
from .releases import RELEASE, name_of, send

BUG, CRASHED = 1, 4  # exit codes: an exception of ours; a process that was killed, as when memory runs out


@dataclass(frozen=True)
class Order:
    """What a process is to do: stages of a job, or, if `last`, its release but for these. send: the release goes to
    the job's store, and does not stay."""

    job: Job
    stages: tuple[str, ...]
    last: bool
    send: bool = False

    def as_json(self) -> str:
        return ORDER.dump_json(self).decode()


@dataclass(frozen=True)
class Result:
    """What came of a task: a release, if it was a build's last and nothing went wrong. sent: what the release is
    called in the store. error: one line; code: its exit code; crashed: its process was killed, or its worker;
    details: a traceback."""

    release: str = ""
    sent: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    code: int = 0
    crashed: bool = False
    details: str = ""


ORDER = TypeAdapter(Order)
RESULT = TypeAdapter(Result)


def carry_out(order: Order, teller: Teller) -> Result:
    """Do it in this process. What goes wrong is in the result."""
    try:
        return _carry_out(order, teller)
    except JttsError as error:
        return Result(error=error.line, code=error.exit_code)
    except Exception as error:  # a bug, and still no reason for other builds to stop
        return Result(error=bug_line(error), code=BUG, details="".join(traceback.format_exception(error)))


def _carry_out(order: Order, teller: Teller) -> Result:
    if not order.last:
        make(order.job, order.stages, teller)
        return Result()
    if not order.send:
        return Result(release=str(build(order.job, teller, order.stages).release))
    return Result(sent=_send(order, teller))


def _send(order: Order, teller: Teller) -> dict[str, Any]:
    """The release into the store: found there, or made. Returns what it is called there."""
    job = order.job
    assert job.store
    store, remote = Store(job.cache), Remote(job.store)
    name = name_of(job, store)
    if not job.force and remote.record(RELEASE, name):
        teller.cached("package")
        return name
    out = Path(tempfile.mkdtemp(prefix=f"tmp-{os.getpid()}-", dir=store.root))
    try:
        return send(remote, name, build(replace(job, out=out), teller, order.stages))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def main() -> None:
    """Serve one order."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever else prints does not get between events
    one = threading.Lock()

    def tell(event: Any) -> None:
        with one:
            events.write(json.dumps(dict(event)) + "\n")

    order = ORDER.validate_json(sys.stdin.readline())
    threading.Thread(target=_go_with, args=(sys.stdin.fileno(),), daemon=True).start()
    result = carry_out(order, Teller(tell))
    tell({"event": "result", "result": RESULT.dump_python(result)})


def _go_with(stdin: int) -> None:
    """End this process, and those that it started, where whoever ordered the task is gone."""
    while os.read(stdin, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
