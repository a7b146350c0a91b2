"""A fresh process that loads a variant's graphs and speaks: cold times and peak memory, in nobody else's company.

    python -m jtts_export.validate.probe MODEL '{"GRAPH": "FILE.onnx"}' CASES.npz THREADS

prints one line of JSON: load_ms, first_ms (load and the first of the cases), rss_peak_mb after all of them, and case
by case how long it took (seconds), how much was given (elements of its inputs) and spoken (samples, or tokens of a
model that makes those), and the resident memory after it (rss_mb).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .runner import Case


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
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for key, array in np.load(cases).items():
        case, _, name = key.partition("/")
        grouped.setdefault(case, {})[name] = array
    rows = []
    for feed in grouped.values():
        called = time.perf_counter()
        audio = speaking.speak(feed)
        given = sum(array.size for array in feed.values())
        rows.append((time.perf_counter() - called, given, len(audio), rss_mb("VmRSS")))
    seconds, elements, samples, rss = zip(*rows, strict=True)
    result = {
        "load_ms": 1e3 * (opened - start),
        "first_ms": 1e3 * (opened - start + seconds[0]),
        "rss_peak_mb": rss_mb("VmHWM"),
        "seconds": seconds,
        "given": elements,
        "samples": samples,
        "rss_mb": rss,
    }
    print(json.dumps(result))


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
