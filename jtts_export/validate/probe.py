"""A fresh process that loads one graph and speaks: cold times and peak memory, in nobody else's company.

    python -m jtts_export.validate.probe MODEL.onnx CASES.npz THREADS

prints one line of JSON: load_ms, first_ms (load and the first of the cases) and rss_peak_mb after all of them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def probe(model: Path, cases: Path, threads: int) -> dict[str, float]:
    """Run this module in a process of its own. Raises RuntimeError with its last words where it dies."""
    command = [sys.executable, "-m", __name__, str(model), str(cases), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        raise RuntimeError(f"{model.name} does not run in a process of its own: {words[0]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(model: str, cases: str, threads: str) -> None:
    """cases: an npz with inputs as `<case>/<input>`, shortest case first."""
    start = time.perf_counter()
    from jtts_export.runtime.session import session

    loaded = session(Path(model), int(threads))
    opened = time.perf_counter()
    grouped: dict[str, dict[str, np.ndarray]] = {}
    for key, array in np.load(cases).items():
        case, _, name = key.partition("/")
        grouped.setdefault(case, {})[name] = array
    first = None
    for feed in grouped.values():
        loaded.run(None, feed)
        first = first or time.perf_counter()
    assert first is not None
    result = {
        "load_ms": 1e3 * (opened - start),
        "first_ms": 1e3 * (first - start),
        "rss_peak_mb": peak_rss_mb(),
    }
    print(json.dumps(result))


def peak_rss_mb() -> float:
    """Peak resident memory of this process, 10^6 bytes.

    Not getrusage's on Linux: its maximum outlives exec, and so counts the parent that started the process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


if __name__ == "__main__":
    main(*sys.argv[1:])
