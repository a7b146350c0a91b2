"""What the machine does of its own while something is measured: a fixed piece of work, and the others' share."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

PIECE = bytes(8 << 20)  # hashed in about 10 ms
JITTER_LIMIT = 2  # slowest over median piece of work: an idle machine keeps below 1.5
OTHERS_LIMIT = 0.1  # of all cores' time


class Machine:
    """A watch over one measurement, from its making on. threads: as many as what is measured uses."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.pieces_s: list[float] = []
        self.probe()
        self.pieces_s.clear()  # the first is slower, and says nothing
        self._start = time.monotonic(), _busy_s(), _own_s()

    def probe(self) -> float:
        """Seconds of a fixed piece of work on each thread; kept in pieces_s."""
        with ThreadPoolExecutor(self._threads) as pool:
            start = time.perf_counter()
            list(pool.map(hashlib.sha256, [PIECE] * self._threads))
            self.pieces_s.append(time.perf_counter() - start)
        return self.pieces_s[-1]

    @property
    def jitter_ratio(self) -> float:
        """Slowest over median piece of work; 1 before any."""
        return max(self.pieces_s) / float(np.median(self.pieces_s)) if self.pieces_s else 1.0

    @property
    def others_ratio(self) -> float:
        """Share of all cores' time that went to other processes than this one and its finished children. 0 where the
        system does not tell."""
        began, busy, own = self._start
        others = (_busy_s() - busy) - (_own_s() - own)
        return max(0.0, others / (time.monotonic() - began) / (os.cpu_count() or 1))

    @property
    def is_disturbed(self) -> bool:
        """Whether times measured meanwhile may be the machine's, and not the artifact's."""
        return self.jitter_ratio > JITTER_LIMIT or self.others_ratio > OTHERS_LIMIT

    def as_json(self) -> dict:
        """jitter_ratio, others_ratio, probe_ms of each piece, disturbed."""
        return {
            "jitter_ratio": self.jitter_ratio,
            "others_ratio": self.others_ratio,
            "probe_ms": [1e3 * s for s in self.pieces_s],
            "disturbed": self.is_disturbed,
        }


def _busy_s() -> float:
    """Seconds that all cores together were not idle, since boot."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Seconds of processor time of this process and the children it has waited for."""
    return sum(os.times()[:4])
