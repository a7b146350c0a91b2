"""What the benchmarks share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from jtts_export.profiles.schema import load_profile
from jtts_export.validate.speed import Timings

ROOT = Path(__file__).parents[1]
THREADS = 2
PROFILE = load_profile("cpu")
POLL_S = 0.002


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Markdown."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(map(str, cells)) + " |"

    return [line(header), "|" + " --- |" * len(header), *map(line, rows)]


def ratio(timings: Timings, a: str, b: str, case: int) -> str:
    """a's time over b's, median of the rounds."""
    return f"{np.median(timings.seconds[a][:, case] / timings.seconds[b][:, case]):.2f}"


def rtf(timings: Timings, name: str, case: int) -> str:
    return f"{np.median(timings.seconds[name][:, case]) / timings.audio_s[case]:.3f}"


def timed(arguments: Sequence[str]) -> tuple[float, float]:
    """Wall seconds and the process's peak resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:  # not from wait4: its maximum outlives exec, and so counts this process
        with suppress(OSError, StopIteration):
            peak = max(peak, peak_mb(process.pid))
        time.sleep(POLL_S)
    assert process.returncode == 0, f"{arguments} ended with status {process.returncode}"
    return time.perf_counter() - start, peak


def peak_mb(process: int | str = "self") -> float:
    """The most resident memory that a process, by its id, has had so far, 10^6 bytes. Raises OSError or StopIteration
    where it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) * 1024 / 1e6
