"""A fresh process that loads a variant's graphs and speaks: cold times, call after call, and memory, in nobody else's
company.

    python -m jtts_export.validate.probe MODEL '{"GRAPH": "FILE.onnx"}' CASES.npz THREADS

prints one line of JSON. The first case is spoken REPEATS times; then every other one; then the first once more, by
several threads. load_ms; first_audio_ms, from the start to its first chunk; repeated and calls: how long each took
(seconds), how much was given (elements of its inputs) and spoken (samples, or tokens of a model that makes those),
and the resident memory after it (rss_mb); rss_peak_mb after all of these; concurrent: for each number of requests at
a time, seconds from the first to the last of REQUESTS, and the slowest one's.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jtts_export.runtime.engines import Engine

    from .runner import Case

REPEATS = 10
AT_A_TIME = (1, 2, 4)
REQUESTS = max(AT_A_TIME)

Inputs = Mapping[str, np.ndarray]


def save_cases(cases: Sequence[Case], path: Path) -> None:
    """What probe() takes: an npz with inputs as `<case>/<input>`."""
    np.savez(path, **{f"{i}/{k}": v for i, c in enumerate(cases) for k, v in c.inputs.items()})  # type: ignore[arg-type]


def probe(model: str, files: Mapping[str, Path], cases: Path, threads: int) -> dict[str, Any]:
    """Run this module in a process of its own. Raises RuntimeError with its last words where it dies."""
    graphs = json.dumps({name: str(path) for name, path in files.items()})
    command = [sys.executable, "-m", __name__, model, graphs, str(cases), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        first = next(iter(files.values())).name
        raise RuntimeError(f"{first} does not run in a process of its own: {words[0]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(model: str, files: str, cases: str, threads: str) -> None:
    """cases: see save_cases()."""
    start = time.perf_counter()
    from jtts_export.runtime.engines import engine

    speaking = engine(model, {name: Path(path) for name, path in json.loads(files).items()}, int(threads))
    opened = time.perf_counter()
    first, *others = _grouped(Path(cases))
    begun = time.perf_counter()
    stream = speaking.stream(first)
    chunks = [next(stream)]
    heard = time.perf_counter()
    chunks += stream
    cold = _row(first, sum(map(len, chunks)), time.perf_counter() - begun)
    result = {
        "load_ms": 1e3 * (opened - start),
        "first_audio_ms": 1e3 * (opened - start + heard - begun),
        "repeated": _columns([cold, *_spoken(speaking, [first] * (REPEATS - 1))]),
        "calls": _columns(_spoken(speaking, others)),
        "rss_peak_mb": rss_mb("VmHWM"),
        "concurrent": _concurrent(speaking, first),
    }
    print(json.dumps(result))


def _grouped(path: Path) -> list[dict[str, np.ndarray]]:
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for key, array in np.load(path).items():
        case, _, name = key.partition("/")
        grouped.setdefault(case, {})[name] = array
    return list(grouped.values())


def _spoken(engine: Engine, feeds: Iterable[Inputs]) -> list[dict[str, float]]:
    rows = []
    for feed in feeds:
        called = time.perf_counter()
        made = len(engine.speak(feed))
        rows.append(_row(feed, made, time.perf_counter() - called))
    return rows


def _row(feed: Inputs, samples: int, seconds: float) -> dict[str, float]:
    given = sum(array.size for array in feed.values())
    return {"seconds": seconds, "given": given, "samples": samples, "rss_mb": rss_mb("VmRSS")}


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _concurrent(engine: Engine, feed: Inputs) -> dict[int, dict[str, float]]:
    def served(_: int) -> float:
        called = time.perf_counter()
        engine.speak(feed)
        return time.perf_counter() - called

    found = {}
    for number in AT_A_TIME:
        with ThreadPoolExecutor(number) as pool:
            start = time.perf_counter()
            each = list(pool.map(served, range(REQUESTS)))
            found[number] = {"seconds": time.perf_counter() - start, "slowest_s": max(each)}
    return found


def rss_mb(which: str) -> float:
    """Resident memory of this process, 10^6 bytes: now (VmRSS) or at its peak (VmHWM). Elsewhere than on Linux, the
    peak either way.

    Not getrusage's on Linux: its maximum outlives exec, and so counts the parent that started the process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(which))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


if __name__ == "__main__":
    main(*sys.argv[1:])
