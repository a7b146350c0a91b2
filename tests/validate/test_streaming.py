"""stream() as a listener meets it: chunks, gaps, playback, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from graphs import graph

from jtts_export.exporters.onnx import save
from jtts_export.runtime.engines import engine
from jtts_export.runtime.session import session
from jtts_export.validate import streaming
from jtts_export.validate.streaming import Chunk, Streamed, first_chunk_s, measure, streamed, underruns
from jtts_export.validate.subject import Subject

RATE_HZ = 1000
METRICS = {
    *("ttfa_warm_p50_ms", "ttfa_warm_p95_ms", "chunk_gap_max_ms", "chunk_gap_p95_ms"),
    *("stream_underruns", "stream_underrun_ms", "frontend_ms", "graphs_ms", "rest_ms"),
}
MODELS = ("kokoro", "speecht5", "t3")


def speaker(subject: Subject, variant: str = "fp32") -> streaming.Speak:
    return subject.model.speaker(subject.files[variant], subject.loaded.config, subject.loaded.voices, 1)


# --- playback -----------------------------------------------------------------------------------------------


def chunks(*arrivals: tuple[float, int]) -> list[Chunk]:
    """Of (seconds from the request, samples)."""
    return [Chunk(at_s, np.zeros(samples, np.float32)) for at_s, samples in arrivals]


@pytest.mark.parametrize(
    ("arrivals", "stalls"),
    [
        ([(0.5, 100)], []),  # one piece cannot come too late, however long it took
        ([(0.5, 100), (0.6, 100)], []),  # just in time: 0.5 s + 100 ms of audio
        ([(0.5, 100), (0.55, 100), (0.69, 100)], []),  # 200 ms are there at 0.55 s, and last until 0.7 s
        ([(0.5, 100), (0.9, 100)], [0.3]),
        ([(0.5, 100), (0.9, 100), (1.25, 100)], [0.3, 0.25]),  # playback goes on at 0.9 s, and is dry at 1 s
        ([(0.5, 100), (0.9, 1000), (1.25, 100)], [0.3]),
        ([(0.5, 0), (0.7, 100)], [0.2]),  # a chunk of nothing
    ],
)
def test_playback_stands_still_until_the_chunk_is_there(
    arrivals: list[tuple[float, int]], stalls: list[float]
) -> None:
    assert underruns(chunks(*arrivals), RATE_HZ) == pytest.approx(stalls)


# --- known times --------------------------------------------------------------------------------------------


FRONTEND_S, LATE_S, SAMPLES = 0.04, 0.08, 20


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Two graphs; the first alone is used by `sleepy`."""
    made = {name: tmp_path / f"{name}.onnx" for name in ("used", "idle")}
    for path in made.values():
        save(graph("(float[1,N] x) => (float[1,N] y) { y = Add(x, x) }"), path)
    return made


@pytest.fixture
def sleepy(files: dict[str, Path]) -> streaming.Speak:
    """FRONTEND_S, a graph, a chunk of 20 ms, then LATE_S and another chunk."""
    opened, fed = session(files["used"], 1), {"x": np.ones((1, SAMPLES), np.float32)}

    def speak() -> Iterator[np.ndarray]:
        time.sleep(FRONTEND_S)
        yield opened.run(["y"], fed)[0][0]
        time.sleep(LATE_S)
        yield opened.run(["y"], fed)[0][0]

    return speak


def test_times_are_those_of_the_front_end_the_graphs_and_the_rest(
    sleepy: streaming.Speak, files: dict[str, Path]
) -> None:
    """A sleep lasts at least as long as it should; on a busy machine anything lasts longer."""
    begun = time.perf_counter()
    found = streamed(sleepy, files)
    wall_s = time.perf_counter() - begun
    assert [chunk.audio.tolist() for chunk in found.chunks] == [[2.0] * SAMPLES] * 2
    assert set(found.graphs_s) == set(files)
    assert found.graphs_s["idle"] == 0 < found.graphs_s["used"]
    assert FRONTEND_S <= found.frontend_s <= found.chunks[0].at_s
    assert found.rest_s >= LATE_S
    whole_s = found.frontend_s + sum(found.graphs_s.values()) + found.rest_s
    assert whole_s == pytest.approx(found.chunks[-1].at_s)
    assert whole_s <= wall_s


def test_the_first_chunk_alone_does_not_wait_for_the_second(sleepy: streaming.Speak) -> None:
    taken: list[int] = []

    def counted() -> Iterator[np.ndarray]:
        for chunk in sleepy():
            taken.append(len(chunk))
            yield chunk

    assert first_chunk_s(counted) >= FRONTEND_S
    assert len(taken) == 1


def test_metrics_are_those_of_the_streams(sleepy: streaming.Speak, files: dict[str, Path]) -> None:
    metrics, intervals, typical = measure(sleepy, files, RATE_HZ)
    assert set(metrics) == METRICS
    assert set(intervals) == {"ttfa_warm_p50_ms", "ttfa_warm_p95_ms"}
    for name, (low, high) in intervals.items():
        assert 1e3 * FRONTEND_S <= low <= metrics[name] <= high
    assert metrics["ttfa_warm_p50_ms"] <= metrics["ttfa_warm_p95_ms"]
    assert 1e3 * LATE_S <= metrics["chunk_gap_p95_ms"] <= metrics["chunk_gap_max_ms"]
    assert metrics["stream_underruns"] == 1  # the second chunk comes 80 ms after the first, which lasts 20
    assert 1e3 * LATE_S - 20 <= metrics["stream_underrun_ms"] <= metrics["chunk_gap_max_ms"]
    assert metrics["frontend_ms"] >= 1e3 * FRONTEND_S
    assert metrics["rest_ms"] >= 1e3 * LATE_S
    assert metrics["graphs_ms"] == pytest.approx(1e3 * sum(typical.graphs_s.values()))  # the median of three


def test_a_stream_of_one_chunk_has_no_gaps(sleepy: streaming.Speak, files: dict[str, Path]) -> None:
    metrics, _, typical = measure(lambda: iter([np.concatenate([*sleepy()])]), files, RATE_HZ)
    assert len(typical.chunks) == 1
    assert metrics["chunk_gap_max_ms"] == metrics["chunk_gap_p95_ms"] == 0
    assert metrics["stream_underruns"] == metrics["stream_underrun_ms"] == 0


# --- the sessions are watched, and let go --------------------------------------------------------------------


def methods() -> tuple[Callable, Callable]:
    return ort.InferenceSession.run, ort.InferenceSession.run_with_iobinding


def test_sessions_are_as_they_were(sleepy: streaming.Speak, files: dict[str, Path]) -> None:
    before = methods()
    watched: list[bool] = []

    def speak() -> Iterator[np.ndarray]:
        watched.append(methods() != before)
        return sleepy()

    streamed(speak, files)
    assert watched == [True]
    assert methods() == before


@pytest.mark.parametrize("chunks_before", [0, 1])
def test_sessions_are_as_they_were_where_a_stream_breaks(
    sleepy: streaming.Speak, files: dict[str, Path], chunks_before: int
) -> None:
    before = methods()

    def broken() -> Iterator[np.ndarray]:
        for number, chunk in enumerate(sleepy()):
            if number == chunks_before:
                raise OSError("broken")
            yield chunk

    for take in (streamed, lambda speak, files: measure(speak, files, RATE_HZ)):
        with pytest.raises(OSError, match="broken"):
            take(broken, files)
        assert methods() == before


# --- the models' own streams ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taken(subjects: Callable[[str], Subject]) -> Callable[[str], Streamed]:
    """A model's stream of its built-in text, fp32."""
    made: dict[str, Streamed] = {}

    def take(name: str) -> Streamed:
        if name not in made:
            made[name] = streamed(speaker(subjects(name)), subjects(name).files["fp32"])
        return made[name]

    return take


@pytest.mark.parametrize("name", MODELS)
def test_the_time_of_a_models_stream_is_accounted_for(
    subjects: Callable[[str], Subject], taken: Callable[[str], Streamed], name: str
) -> None:
    found, subject = taken(name), subjects(name)
    assert list(found.graphs_s) == list(subject.files["fp32"])
    assert all(found.graphs_s[graph] > 0 for graph in subject.model.graphs)
    assert all(found.graphs_s[graph] == 0 for graph in subject.model.derived)  # our own runtime has no use for it
    assert found.frontend_s > 0  # a text is made into tokens
    assert found.rest_s >= 0
    assert sum(found.graphs_s.values()) < found.chunks[-1].at_s
    assert all(one.at_s <= other.at_s for one, other in pairwise(found.chunks))
    assert len(found.chunks) > 1


@pytest.mark.parametrize("name", ["speecht5", "t3"])
def test_joined_chunks_are_the_whole(
    subjects: Callable[[str], Subject], taken: Callable[[str], Streamed], name: str
) -> None:
    subject = subjects(name)
    (*_, longest) = subject.cases("timed")
    whole = engine(name, subject.files["fp32"], 1).speak(longest.inputs)
    joined = np.concatenate([np.atleast_1d(chunk.audio) for chunk in taken(name).chunks])
    assert joined.shape == whole.shape
    # Pieces of a spectrogram are other shapes of the same convolutions: float32 rounding. Tokens are integers.
    np.testing.assert_allclose(joined, whole, rtol=0, atol=1e-5 if name == "speecht5" else 0)
