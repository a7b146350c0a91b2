"""Time, measured side by side: every contender takes its turn within each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .gates import Interval
from .machine import Machine

Call = Callable[[], object]

CONFIDENCE = 0.95
RESAMPLES = 200
QUIET = 1.3  # times the fastest piece of work: rounds beyond it were disturbed


@dataclass(frozen=True)
class Timings:
    """Seconds per contender, [rounds, cases]; the seconds of audio of each case; and seconds of a fixed piece of work
    in each round."""

    seconds: Mapping[str, np.ndarray]
    audio_s: np.ndarray
    piece_s: np.ndarray

    def rtf(self, name: str, quantile: float, case: int | None = None) -> float:
        """Real-time factor at a quantile, over rounds and cases, or over the rounds of one."""
        return self._rtf(name, quantile, case, self._rounds)

    def rtf_interval(self, name: str, quantile: float, case: int | None = None) -> Interval:
        """Between which values that lies, by bootstrap over rounds."""
        return self._between(lambda rounds: self._rtf(name, quantile, case, rounds))

    def speedup(self, name: str, over: str) -> float:
        """How many times faster `name` is than `over`: the ratio within each round and case, median of all."""
        return self._speedup(name, over, self._rounds)

    def speedup_interval(self, name: str, over: str) -> Interval:
        """Between which values that lies, by bootstrap over rounds."""
        return self._between(lambda rounds: self._speedup(name, over, rounds))

    def more(self, later: Timings) -> Timings:
        """With the rounds of a later measurement."""
        seconds = {name: np.concatenate([known, later.seconds[name]]) for name, known in self.seconds.items()}
        return Timings(seconds, self.audio_s, np.concatenate([self.piece_s, later.piece_s]))

    def quiet(self, least: int) -> Timings:
        """Without the rounds in which the machine was slower than it can be; all, where fewer than `least` remain."""
        calm = self.piece_s <= QUIET * self.piece_s.min()
        if calm.sum() < least:
            return self
        return Timings({name: known[calm] for name, known in self.seconds.items()}, self.audio_s, self.piece_s[calm])

    @property
    def _rounds(self) -> np.ndarray:
        return np.arange(len(self.piece_s))

    def _rtf(self, name: str, quantile: float, case: int | None, rounds: np.ndarray) -> float:
        factors = self.seconds[name][rounds] / self.audio_s
        return float(np.quantile(factors if case is None else factors[:, case], quantile))

    def _speedup(self, name: str, over: str, rounds: np.ndarray) -> float:
        return float(np.median(self.seconds[over][rounds] / self.seconds[name][rounds]))

    def _between(self, statistic: Callable[[np.ndarray], float]) -> Interval:
        return interval(len(self.piece_s), statistic)


def interval(count: int, statistic: Callable[[np.ndarray], float]) -> Interval:
    """Of a statistic of `count` samples, given the indices of those to take: the middle CONFIDENCE of what resampling
    gives (percentile bootstrap, Efron 1979)."""
    random = np.random.default_rng(0)
    found = [statistic(random.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def interleave(
    contenders: Mapping[str, Sequence[Call]],
    audio_s: Sequence[float],
    rounds: int,
    tick: Callable[[], None],
    machine: Machine | None = None,
) -> Timings:
    """Time each contender's calls, one a case, `rounds` times after one warm-up; order turns each round, and
    `machine` does its piece of work between."""
    names = list(contenders)
    seconds = {name: np.zeros((rounds, len(audio_s))) for name in names}
    pieces = np.zeros(rounds)
    for turn in range(-1, rounds):
        worked = []
        for case in range(len(audio_s)):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                start = time.perf_counter()
                contenders[name][case]()
                if turn >= 0:
                    seconds[name][turn, case] = time.perf_counter() - start
            worked.append(machine.probe() if machine else 0.0)
        if turn >= 0:
            pieces[turn] = np.median(worked)
        tick()
    return Timings(seconds, np.asarray(audio_s), pieces)
