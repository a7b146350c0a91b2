"""A Dask cluster of real processes on this machine, each worker with a cache of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from command import LIMIT_S, environment

DASK = (sys.executable, "-m", "dask")
QUIET = {
    "DASK_DISTRIBUTED__WORKER__DAEMON": "False",  # a worker starts processes of its own
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "120s",  # a machine as busy as a test's may be silent for long
}


@dataclass
class Cluster:
    """A scheduler's address, and the folder that everything lies in."""

    address: str
    home: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def store(self) -> str:
        return (self.home / "store").as_uri()

    def add_worker(self, **env: str) -> None:
        """One more, under a nanny that puts another in the place of one that dies."""
        name = f"worker{len(self.processes)}"
        own = environment(self.home / name, **QUIET, **env)
        where = ["--local-directory", str(self.home / name), "--nthreads", "1", "--no-dashboard"]
        log = (self.home / f"{name}.log").open("wb")
        command = [*DASK, "worker", self.address, "--name", name, *where]
        self.processes.append(
            subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True, cwd=self.home / name)
        )

    def pids(self) -> dict[str, int]:
        """Address -> process of each worker, of which there are as many as were added."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(len(self.processes))
            return dict(client.run(os.getpid))


@contextmanager
def cluster(home: Path, workers: int, **env: str) -> Iterator[Cluster]:
    """A scheduler and some workers, until the end."""
    home.mkdir(parents=True, exist_ok=True)
    file, log = home / "scheduler.json", (home / "scheduler.log").open("wb")
    command = [*DASK, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    command += ["--host", "127.0.0.1"]
    own = environment(home / "scheduler", **QUIET)
    scheduler = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True, cwd=home)
    made = Cluster(_address(file, scheduler), home)
    try:
        for _ in range(workers):
            made.add_worker(**env)
        yield made
    finally:
        for process in (*made.processes, scheduler):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _address(file: Path, scheduler: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until and scheduler.poll() is None:
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError):  # not there, or half of it
            time.sleep(0.05)
    raise AssertionError("the scheduler did not start")
