"""stream() as a listener meets it: when the first chunk comes, whether playback runs dry, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort

from .gates import Interval
from .speed import interval

FIRST_CALLS, WHOLE_CALLS = 6, 3

Speak = Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Chunk:
    """Seconds from the request to its arrival, and its audio, float32 [samples] (int64 [tokens])."""

    at_s: float
    audio: np.ndarray


@dataclass(frozen=True)
class Streamed:
    """One utterance, chunk by chunk; seconds inside each graph; and from the request to the first of them."""

    chunks: Sequence[Chunk]
    graphs_s: Mapping[str, float]
    frontend_s: float

    @property
    def rest_s(self) -> float:
        """Between and behind the graphs."""
        return self.chunks[-1].at_s - self.frontend_s - sum(self.graphs_s.values())


def streamed(speak: Speak, files: Mapping[str, Path]) -> Streamed:
    """Take a stream to its end. files: graph -> file, as the sessions were opened."""
    graphs = {str(path): name for name, path in files.items()}
    spent = dict.fromkeys(files, 0.0)
    first: list[float] = []

    def tell(path: str, began: float, ended: float) -> None:
        if path in graphs:
            spent[graphs[path]] += ended - began
            first.append(began)

    chunks: list[Chunk] = []
    with _graph_runs(tell):
        start = time.perf_counter()
        chunks += (Chunk(time.perf_counter() - start, audio) for audio in speak())
    return Streamed(chunks, spent, first[0] - start)


def first_chunk_s(speak: Speak) -> float:
    """Seconds to the first chunk alone; the rest is never made."""
    start = time.perf_counter()
    next(speak())
    return time.perf_counter() - start


def underruns(chunks: Sequence[Chunk], sample_rate_hz: float) -> list[float]:
    """How long playback, begun with the first chunk, stands still before each chunk that comes too late, seconds."""
    stalls = []
    dry_s = chunks[0].at_s
    for chunk, following in pairwise(chunks):
        dry_s += len(chunk.audio) / sample_rate_hz
        if following.at_s > dry_s:
            stalls.append(following.at_s - dry_s)
            dry_s = following.at_s
    return stalls


def measure(
    speak: Speak, files: Mapping[str, Path], sample_rate_hz: float
) -> tuple[dict[str, float], dict[str, Interval], Streamed]:
    """Metrics of a warm stream, intervals of those of its first chunk, and the stream of median time in graphs."""
    first_chunk_s(speak)
    first = np.array([first_chunk_s(speak) for _ in range(FIRST_CALLS)])
    whole = [streamed(speak, files) for _ in range(WHOLE_CALLS)]
    first = 1e3 * np.concatenate([first, [s.chunks[0].at_s for s in whole]])
    gaps = 1e3 * np.concatenate([np.diff([c.at_s for c in s.chunks]) for s in whole])
    gaps = gaps if len(gaps) else np.zeros(1)
    stalls = [underruns(s.chunks, sample_rate_hz) for s in whole]
    graphs_ms = [1e3 * sum(s.graphs_s.values()) for s in whole]
    metrics = {
        "ttfa_warm_p50_ms": float(np.quantile(first, 0.5)),
        "ttfa_warm_p95_ms": float(np.quantile(first, 0.95)),
        "chunk_gap_max_ms": float(gaps.max()),
        "chunk_gap_p95_ms": float(np.quantile(gaps, 0.95)),
        "stream_underruns": float(np.median([len(s) for s in stalls])),
        "stream_underrun_ms": 1e3 * float(np.median([sum(s) for s in stalls])),
        "frontend_ms": 1e3 * float(np.median([s.frontend_s for s in whole])),
        "graphs_ms": float(np.median(graphs_ms)),
        "rest_ms": 1e3 * float(np.median([s.rest_s for s in whole])),
    }
    intervals = {
        f"ttfa_warm_p{100 * q:.0f}_ms": interval(len(first), lambda taken, q=q: float(np.quantile(first[taken], q)))  # type: ignore[misc]
        for q in (0.5, 0.95)
    }
    return metrics, intervals, whole[int(np.argsort(graphs_ms)[len(whole) // 2])]


@contextmanager
def _graph_runs(tell: Callable[[str, float, float], None]) -> Iterator[None]:
    """Call `tell(file, began, ended)` for every run of a session on a file in this process."""
    kept = {name: getattr(ort.InferenceSession, name) for name in ("run", "run_with_iobinding")}

    def timed(run: Callable) -> Callable:
        def wrapped(session: ort.InferenceSession, *args: object, **more: object) -> object:
            began = time.perf_counter()
            made = run(session, *args, **more)
            tell(session._model_path, began, time.perf_counter())
            return made

        return wrapped

    try:
        for name, run in kept.items():
            setattr(ort.InferenceSession, name, timed(run))
        yield
    finally:
        for name, run in kept.items():
            setattr(ort.InferenceSession, name, run)
