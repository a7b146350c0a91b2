"""A plan, from its builds to what came of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from jtts_export import artifact
from jtts_export.errors import JttsError
from jtts_export.models.source import Source
from jtts_export.pipeline import find, locate_for
from jtts_export.store import Store

from .events import Journal, Tell
from .graph import Task, tasks
from .local import Processes
from .schema import Build
from .task import CRASHED, Order, Result

NOT_RUN = "not run: another build failed first"


@dataclass
class Done:
    """What came of a build. release, validation: empty where there is none; error: in one line, and details, the
    traceback of a bug; code: a command's that would have made it; seconds: of its tasks, shared ones too; unchanged:
    it was there already; published: where, or why not."""

    build: Build
    release: Path | None = None
    validation: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    code: int = 0
    details: str = ""
    seconds: float = 0.0
    unchanged: bool = False
    published: str = ""

    @property
    def verdict(self) -> str:
        """Of its release, or `error`, or `not run`."""
        if self.error:
            return "not run" if self.error == NOT_RUN else "error"
        return str(self.validation["verdict"])

    def take(self, release: Path) -> None:
        """Its release. Raises OutsideError or GateFailed where that is none."""
        _, self.validation = artifact.read(release)
        self.release = release
        self.code = 0 if self.validation["verdict"] == artifact.PASS else 3


class Workers(Protocol):
    """Where tasks are carried out. width: as many at a time."""

    width: int

    def run(self, task: Task, tell: Tell) -> Result:
        """Wait for a task. Called from many threads."""

    def stop(self) -> None:
        """End what runs."""


def run(builds: Sequence[Build], workers: Callable[[], Workers], journal: Journal, fail_fast: bool) -> list[Done]:
    """Every build of a plan, in the plan's order. workers: made where there is anything to do.

    What fails stops what needs it, and nothing else, unless `fail_fast`.
    """
    done = {build.name: Done(build) for build in builds}
    sources: dict[tuple[str, str], Source] = {}
    open_ = [build for build in builds if not _unchanged(done[build.name], sources, journal)]
    if open_:
        at_work = workers()
        try:
            _Run(done, tasks(open_), at_work, journal, fail_fast).go()
        finally:
            at_work.stop()
    return list(done.values())


def _unchanged(done: Done, sources: dict[tuple[str, str], Source], journal: Journal) -> bool:
    """Whether there is nothing to do for a build. What is wrong with it shows when it is built. sources: checkpoints
    that were located for other builds."""
    job, start = done.build.job, time.perf_counter()
    with suppress(JttsError):
        given = (job.model, job.checkpoint)
        if given not in sources:
            sources[given] = locate_for(job, Store(job.cache))
        if found := find(job, sources[given]):
            done.take(found.release)
            done.unchanged, done.seconds = True, time.perf_counter() - start
            journal({"event": "unchanged", "build": done.build.name, **_verdict(done)})
    return done.unchanged


class _Run:
    """Tasks that wait, tasks that run, and what became of those that ended."""

    def __init__(
        self, done: Mapping[str, Done], waiting: list[Task], workers: Workers, journal: Journal, fail_fast: bool
    ) -> None:
        self.done, self.waiting, self.workers, self.journal = done, waiting, workers, journal
        self.fail_fast = fail_fast
        self.finished: set[str] = set()
        self.running: dict[Future[Result], tuple[Task, float]] = {}

    def go(self) -> None:
        """Until nothing waits and nothing runs."""
        with ThreadPoolExecutor(self.workers.width) as pool:
            try:
                while self.waiting or self.running:
                    self._start(pool)
                    ended, _ = wait(self.running, return_when=FIRST_COMPLETED)
                    for future in ended:
                        task, start = self.running.pop(future)
                        self._end(task, future.result(), time.perf_counter() - start)
            except BaseException:
                self.workers.stop()
                raise

    def _start(self, pool: ThreadPoolExecutor) -> None:
        for task in [t for t in self.waiting if self.finished.issuperset(t.needs)]:
            if len(self.running) == self.workers.width:
                return
            self.waiting.remove(task)
            who = {"build": task.name} if task.last else {"task": task.name, "builds": list(task.builds)}
            self.journal({"event": "started", **who})
            tell = partial(_tell, self.journal, who)
            self.running[pool.submit(self.workers.run, task, tell)] = task, time.perf_counter()

    def _end(self, task: Task, result: Result, seconds: float) -> None:
        self.finished.add(task.name)
        for name in task.builds:
            self.done[name].seconds += seconds
        if not result.error and not task.last:
            return
        if not result.error:
            result = self._taken(self.done[task.name], result)
        if result.error:
            self._fail(task, result)
        if self.fail_fast and any(self.done[name].code for name in task.builds):
            self._give_up()

    def _taken(self, done: Done, result: Result) -> Result:
        try:
            done.take(Path(result.release))
            done.error = ""
        except JttsError as error:
            return Result(error=str(error), code=error.exit_code)
        event = {"event": "build_done", "build": done.build.name, "seconds": round(done.seconds, 3)}
        self.journal({**event, **_verdict(done)})
        return result

    def _fail(self, task: Task, result: Result) -> None:
        """Of every build that waits for the task, and that did not fail before."""
        self.waiting = [t for t in self.waiting if not set(t.builds) <= set(task.builds)]
        for name in task.builds:
            done = self.done[name]
            if not done.error:
                done.error, done.code, done.details = result.error, result.code or CRASHED, result.details
                event = {"event": "build_failed", "build": name, "error": done.error, "code": done.code}
                self.journal({**event, "seconds": round(done.seconds, 3), "details": done.details})

    def _give_up(self) -> None:
        self.waiting = []
        self.workers.stop()
        for done in self.done.values():
            if not done.release and not done.error:
                done.error = NOT_RUN


def _tell(journal: Journal, who: Mapping[str, Any], event: Mapping[str, Any]) -> None:
    journal({**event, **who})


def _verdict(done: Done) -> dict[str, Any]:
    return {"verdict": done.verdict, "release": str(done.release)}


class Local:
    """Workers of this machine."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._processes = Processes()

    def run(self, task: Task, tell: Tell) -> Result:
        """In a process of its own."""
        return self._processes.run(Order(task.job, task.stages, task.last), tell)

    def stop(self) -> None:
        """End all processes."""
        self._processes.stop()
