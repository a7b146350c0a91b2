"""Models that speak token by token: time of a step, and how much of the machine's read bandwidth it uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

ROUNDS, STEPS = 7, 12
PROBE_FLOATS = 1 << 27  # 512 MiB, more than any cache holds
REST_S = 0.02  # for idle threads to stop spinning

Feed = Callable[[int, int], object]  # one more token, at a position


def step_times(
    feeds: Mapping[str, Feed], token: int, first: int, threads: int
) -> tuple[dict[str, np.ndarray], float]:
    """Seconds [ROUNDS, STEPS] of each contender's steps from position `first` on, by turns, after a warm-up; and the
    bytes a second that this machine reads, median of a probe in every round."""
    seconds = {name: np.zeros((ROUNDS, STEPS)) for name in feeds}
    probed = torch.ones(PROBE_FLOATS)
    torch.set_num_threads(threads)
    reads = []
    for turn in range(-1, ROUNDS):
        for name, feed in feeds.items():
            feed(token, first)
            for i in range(STEPS if turn >= 0 else 1):
                start = time.perf_counter()
                feed(token, first + i)
                seconds[name][turn, i] = time.perf_counter() - start
        reads.append(_read(probed))
    return seconds, float(np.median(reads[1:]))


def _read(probed: torch.Tensor) -> float:
    """Bytes a second of adding up a large array, on as many threads as torch has."""
    time.sleep(REST_S)
    start = time.perf_counter()
    probed.sum()
    return probed.nbytes / (time.perf_counter() - start)
