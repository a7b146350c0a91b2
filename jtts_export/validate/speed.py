"""Time, measured side by side: every contender takes its turn within each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Call = Callable[[], object]


@dataclass(frozen=True)
class Timings:
    """Seconds per contender, [rounds, cases], and the seconds of audio of each case."""

    seconds: Mapping[str, np.ndarray]
    audio_s: np.ndarray

    def rtf(self, name: str, quantile: float) -> float:
        """Real-time factor at a quantile, over rounds and cases."""
        return float(np.quantile(self.seconds[name] / self.audio_s, quantile))

    def speedup(self, name: str, over: str) -> float:
        """How many times faster `name` is than `over`: the ratio within each round and case, median of all."""
        return float(np.median(self.seconds[over] / self.seconds[name]))


def interleave(
    contenders: Mapping[str, Sequence[Call]], audio_s: Sequence[float], rounds: int, tick: Callable[[], None]
) -> Timings:
    """Time each contender's calls, one a case, `rounds` times after one warm-up; order turns each round."""
    names = list(contenders)
    seconds = {name: np.zeros((rounds, len(audio_s))) for name in names}
    for turn in range(-1, rounds):
        for case in range(len(audio_s)):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                start = time.perf_counter()
                contenders[name][case]()
                if turn >= 0:
                    seconds[name][turn, case] = time.perf_counter() - start
        tick()
    return Timings(seconds, np.asarray(audio_s))
