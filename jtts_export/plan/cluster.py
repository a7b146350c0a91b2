"""A plan's tasks on a Dask cluster. Stage results go from worker to worker by a store, never through the scheduler.

A task that loses its worker begins again on another, and finds in the store whatever it had finished. One that takes
down TRIES workers, or whose process crashes as often, is given up, and the others go on.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jtts_export.errors import BadInput, JttsError, OutsideError, first_line
from jtts_export.models.source import is_local
from jtts_export.remote import EXTRA, Remote
from jtts_export.store import code_version, default_root, tool_versions

from .events import Tell
from .graph import Task
from .local import Processes
from .releases import receive
from .task import CRASHED, ORDER, RESULT, Order, Result

TRIES = 3
CONNECT_S = 30.0  # until the scheduler answers, and until a first worker is there
SUBMISSIONS = 10  # of a task that never began, for it was queued where another took the worker down
ALONE_S = 300.0  # that a task waits where no worker is left
LOOK_S = 5.0
_WIDTH = 1000  # tasks that wait for a worker at a time: the scheduler knows who is free


class Cluster:
    """Workers of a scheduler. Raises OutsideError where it does not answer, or has none."""

    def __init__(self, scheduler: str, store: str, cache: Path) -> None:
        self.width = _WIDTH
        self._address, self._cache, self._remote = scheduler, cache, Remote(store)
        self._run = uuid.uuid4().hex
        self._tellers: dict[str, Tell] = {}
        self._one = threading.Lock()
        self._stopped = False
        self._client = _connected(scheduler)
        self._client.subscribe_topic(self._run, self._heard)

    def run(self, task: Task, tell: Tell) -> Result:
        """On some worker; a release is then fetched from the store. What goes wrong is in the result."""
        name = f"{self._run}-{task.name}"
        with self._one:
            self._tellers[name] = tell
        try:
            result = self._worked(task, name, tell)
            if result.error or not task.last:
                return result
            return replace(result, release=str(receive(self._remote, result.sent, task.job)))
        except JttsError as error:
            return Result(error=error.line, code=error.exit_code)

    def stop(self) -> None:
        """Leave the cluster. What waits there is dropped; what runs ends by itself, and is in the store."""
        self._stopped = True
        with suppress(Exception):
            self._client.close(timeout=5)

    def _worked(self, task: Task, name: str, tell: Tell) -> Result:
        from distributed import KilledWorker

        order = Order(replace(task.job, out=Path("release"), cache=Path("cache")), task.stages, task.last, task.last)
        given = {"order": order.as_json(), "name": name, "run": self._run, "tools": _tools()}
        for _ in range(SUBMISSIONS):
            future = self._client.submit(work, given, key=f"{name}-{uuid.uuid4().hex[:8]}", pure=False)
            try:
                self._wait(future)
                result: Result = RESULT.validate_python(future.result())
            except KilledWorker:  # it was queued where others took workers down, or did so itself
                result = Result(error="its worker was lost", code=CRASHED, crashed=True)
            except JttsError:
                raise
            except Exception as error:  # of Dask's: the scheduler is gone, or a worker cannot import this package
                if self._stopped:
                    return Result(error="stopped", code=CRASHED)
                raise OutsideError(f"{self._address}: {type(error).__name__}: {first_line(error)}") from error
            finally:
                with suppress(Exception):
                    future.release()
            tries = int(self._client.get_metadata([self._run, name], default=0))
            if not result.crashed:
                return result
            if tries >= TRIES:
                return replace(result, error=f"given up after {TRIES} tries: {result.error}")
            tell({"event": "again", "reason": result.error})
        return replace(result, error=f"given up, for workers are lost too often: {result.error}")

    def _wait(self, future: Any) -> None:
        """Until it is done. Raises OutsideError where no worker is left that could do it."""
        from distributed import wait

        alone = None
        while not future.done():
            with suppress(TimeoutError), self._client.as_current():
                wait(future, timeout=LOOK_S)
                return
            if self._client.nthreads():
                alone = None
            elif alone is None:
                alone = time.monotonic()
            elif time.monotonic() - alone > ALONE_S:
                raise OutsideError(f"{self._address} has no worker any more")

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """An event of a worker. Whatever is wrong with one is no reason to stop."""
        with suppress(KeyError, TypeError, IndexError):
            _, told = event
            self._tellers[told["name"]](told["event"])


def work(given: Mapping[str, Any]) -> dict[str, Any]:
    """On a worker: an order, in a process of its own. Returns a Result's fields."""
    from distributed import get_client, get_worker

    worker, client = get_worker(), get_client()
    counted = [given["run"], given["name"]]
    tries = int(client.get_metadata(counted, default=0))
    if tries >= TRIES:
        return asdict(Result(error="it took down every worker that it ran on", code=CRASHED, crashed=True))
    client.set_metadata(counted, tries + 1)
    if differs := _difference(given["tools"], _tools()):
        return asdict(Result(error=f"worker {worker.address} has {differs}", code=OutsideError.exit_code))

    def tell(event: Mapping[str, Any]) -> None:
        worker.log_event(given["run"], {"name": given["name"], "event": {**event, "worker": worker.address}})

    tell({"event": "task_started", "try": tries + 1})
    order: Order = ORDER.validate_json(given["order"])
    result = Processes().run(replace(order, job=replace(order.job, cache=default_root())), tell)
    checkpoint = order.job.checkpoint
    if result.error.startswith("no checkpoint at") and is_local(checkpoint):
        reach = "a local folder must be there on every worker; hub: and random: work anywhere"
        result = replace(result, error=f"worker {worker.address}: no checkpoint at '{checkpoint}': {reach}")
    return asdict(result)


def _tools() -> dict[str, str]:
    return {"jtts-export's code": code_version(), **tool_versions()}


def _difference(wanted: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What a worker has that whoever ordered has not, in words; empty if nothing."""
    for name in sorted({*wanted, *here}):
        if wanted.get(name) != here.get(name):
            have, want = (str(of.get(name, "none"))[:12] for of in (here, wanted))
            return f"another {name}: {have}, not {want}"
    return ""


def _connected(scheduler: str) -> Any:
    """A client. Raises BadInput for an address that is none, OutsideError where nobody answers."""
    try:
        from distributed import Client
    except ImportError as error:
        raise OutsideError(f"--scheduler needs Dask: {EXTRA}") from error
    if not scheduler.startswith(("tcp://", "tls://", "ucx://", "ws://", "wss://")):
        raise BadInput(f"'{scheduler}' is not the address of a scheduler, as tcp://127.0.0.1:8786")
    try:
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False, name="jtts-export")
    except (OSError, TimeoutError, ValueError) as error:
        raise OutsideError(f"no scheduler answers at {scheduler}: {first_line(error)}") from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_S)
    except TimeoutError as error:
        client.close()
        raise OutsideError(f"{scheduler} has no worker; start one: dask worker {scheduler}") from error
    return client
