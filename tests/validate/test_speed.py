"""Timing by turns, and cold starts in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import graph

from jtts_export.exporters.onnx import save
from jtts_export.runtime.kokoro import GRAPH
from jtts_export.validate import machine, speed
from jtts_export.validate.machine import OTHERS_LIMIT, Machine
from jtts_export.validate.probe import REPEATS, probe, rss_mb
from jtts_export.validate.speed import Timings, interleave

REPORTED = {"load_ms", "first_audio_ms", "repeated", "calls", "rss_peak_mb", "concurrent"}
ROW = {"seconds", "given", "samples", "rss_mb"}


def test_every_contender_takes_its_turn_in_every_round() -> None:
    calls: list[str] = []
    contenders = {n: [lambda n=n, c=c: calls.append(f"{n}{c}") for c in range(2)] for n in "abc"}
    ticks: list[int] = []
    interleave(contenders, [1.0, 1.0], 3, lambda: ticks.append(len(calls)))
    warm_up, *rounds = (calls[i : i + 6] for i in range(0, len(calls), 6))
    assert sorted(warm_up) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert rounds == [
        ["a0", "b0", "c0", "a1", "b1", "c1"],
        ["b0", "c0", "a0", "b1", "c1", "a1"],  # nobody is always first
        ["c0", "a0", "b0", "c1", "a1", "b1"],
    ]
    assert ticks == [6, 12, 18, 24]


def test_ratios_are_those_of_the_durations(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock)
    first = dict.fromkeys(("slow", "fast"), True)

    def take(name: str, seconds: float) -> None:
        nonlocal clock
        clock += seconds + 0.1 * first[name]  # a warm-up is slow, and does not count
        first[name] = False

    contenders = {"slow": [lambda: take("slow", 0.030)], "fast": [lambda: take("fast", 0.010)]}
    timings = interleave(contenders, [0.1], 7, lambda: None)
    assert timings.seconds["slow"].shape == (7, 1)
    assert timings.speedup("fast", over="slow") == pytest.approx(3)
    assert timings.speedup("slow", over="fast") == pytest.approx(1 / 3)
    assert timings.speedup("slow", over="slow") == 1
    assert timings.rtf("slow", 0.5) == pytest.approx(0.3)


def test_quantiles_are_over_rounds_and_cases() -> None:
    timings = Timings(
        {"a": np.array([[1.0, 8.0], [2.0, 8.0]]), "b": np.array([[2.0, 4.0], [2.0, 16.0]])},
        np.array([1.0, 4.0]),
        np.ones(2),
    )
    assert timings.rtf("a", 0.5) == 2  # of 1, 2, 2, 2
    assert timings.rtf("a", 0.5, 0) == 1.5
    assert timings.rtf("a", 0.5, 1) == 2
    assert timings.rtf("a", 0.0) == 1
    assert timings.rtf("b", 1.0) == 4
    assert timings.speedup("a", over="b") == 1.5  # of 2, 1/2, 1, 2


def rounds(seconds: list[float], pieces: list[float]) -> Timings:
    return Timings({"a": np.array(seconds)[:, None]}, np.ones(1), np.array(pieces))


def test_an_interval_holds_the_value_and_narrows_with_rounds() -> None:
    random = np.random.default_rng(1)
    widths = []
    for count in (5, 80):
        timings = rounds((1 + 0.1 * random.standard_normal(count)).tolist(), [1.0] * count)
        low, high = timings.rtf_interval("a", 0.5)
        assert low <= timings.rtf("a", 0.5) <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert rounds([2.0] * 5, [1.0] * 5).rtf_interval("a", 0.95) == (2, 2)


def test_rounds_in_which_the_machine_was_slow_are_set_aside_while_enough_remain() -> None:
    timings = rounds([1, 1, 9, 1], [1.0, 1.2, 3.0, 1.1])
    assert timings.quiet(3).seconds["a"].ravel().tolist() == [1, 1, 1]
    assert timings.quiet(4) is timings
    more = timings.more(rounds([5], [1.0]))
    assert more.quiet(4).seconds["a"].ravel().tolist() == [1, 1, 1, 5]


# The machine itself


@pytest.mark.parametrize(("busy_s", "own_s", "share"), [(12, 12, 0), (12, 2, 0.5), (20, 0, 1), (1, 2, 0)])
def test_others_have_what_is_busy_and_not_ones_own(
    monkeypatch: pytest.MonkeyPatch, busy_s: float, own_s: float, share: float
) -> None:
    """Of ten seconds on two cores. The system counts in hundredths: own time may be ahead of it."""
    now = {"monotonic": 0.0, "_busy_s": 100.0, "_own_s": 10.0}
    monkeypatch.setattr(machine.time, "monotonic", lambda: now["monotonic"])
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    for clock in ("_busy_s", "_own_s"):
        monkeypatch.setattr(machine, clock, lambda clock=clock: now[clock])
    watch = Machine(1)
    now |= {"monotonic": 10.0, "_busy_s": 100.0 + busy_s, "_own_s": 10.0 + own_s}
    assert watch.others_ratio == share
    assert watch.is_disturbed == (share > 0)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="elsewhere the system does not tell")
def test_a_busy_neighbour_is_noticed() -> None:
    """One that spins takes half of two cores: well above the limit even where it gets little."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.2)
        watch = Machine(1)
        time.sleep(0.5)
        busy, disturbed = watch.others_ratio, watch.is_disturbed
    finally:
        neighbour.kill()
        neighbour.wait()  # from here on its time counts as this process's own
    assert busy > OTHERS_LIMIT
    assert disturbed


def test_jitter_is_the_slowest_piece_over_the_usual_one() -> None:
    watch = Machine(1)
    assert watch.jitter_ratio == 1
    watch.pieces_s[:] = [1.0, 1.0, 1.0, 3.0]
    assert watch.jitter_ratio == 3
    assert watch.is_disturbed
    assert watch.as_json()["probe_ms"] == [1000, 1000, 1000, 3000]


# In a process of its own

MEGABYTES = 250
SAMPLES = 7


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Speaks its input times the sum of what it expands to the size given."""
    path = tmp_path / "model.onnx"
    signature = "(float[1,N] x, float[1] one, int64[1] size) => (float[1,N] waveform)"
    save(graph(f"{signature} {{ big = Expand(one, size) s = ReduceSum(big) waveform = Mul(x, s) }}"), path)
    return path


def fed(folder: Path, *floats: int) -> Path:
    """Cases that expand to so many floats; the first is SAMPLES long, the second one more, ..."""
    path = folder / "cases.npz"
    cases = {f"{i}/size": np.array([n]) for i, n in enumerate(floats)}
    cases |= {f"{i}/x": np.ones((1, SAMPLES + i), np.float32) for i in range(len(floats))}
    np.savez(path, **cases, **{f"{i}/one": np.ones(1, np.float32) for i in range(len(floats))})
    return path


def probed(model: Path, cases: Path) -> dict[str, Any]:
    """The graph as if it were Kokoro's."""
    return probe("kokoro", {GRAPH: model}, cases, 1)


def test_a_probe_reports_times_and_memory(model: Path, tmp_path: Path) -> None:
    start = time.perf_counter()
    cold = probed(model, fed(tmp_path, 10, 20, 30))
    wall_ms = 1e3 * (time.perf_counter() - start)
    assert set(cold) == REPORTED
    repeated, calls = cold["repeated"], cold["calls"]
    assert set(repeated) == set(calls) == ROW
    assert repeated["samples"] == [SAMPLES] * REPEATS
    assert calls["samples"] == [SAMPLES + 1, SAMPLES + 2]
    assert calls["given"] == [SAMPLES + 3, SAMPLES + 4]  # beside x, one and size
    assert 0 < cold["load_ms"] < cold["first_audio_ms"] < wall_ms
    assert sum(repeated["seconds"] + calls["seconds"]) * 1e3 < wall_ms - cold["load_ms"]
    assert 20 < min(repeated["rss_mb"]) <= max(calls["rss_mb"]) <= cold["rss_peak_mb"] < 1000
    assert list(cold["concurrent"]) == ["1", "2", "4"]
    for row in cold["concurrent"].values():
        assert 0 < row["slowest_s"] <= row["seconds"]


def test_a_probe_counts_the_peak_of_all_cases(model: Path, tmp_path: Path) -> None:
    few, many = (probed(model, fed(tmp_path, 10, n))["rss_peak_mb"] for n in (10, MEGABYTES * 10**6 // 4))
    assert many - few == pytest.approx(MEGABYTES, rel=0.2)


def test_a_probe_does_not_count_the_process_that_started_it(model: Path, tmp_path: Path) -> None:
    before = probed(model, fed(tmp_path, 10))["rss_peak_mb"]
    ballast = np.ones(500 * 10**6, np.uint8)
    assert rss_mb("VmHWM") > 500
    beside = probed(model, fed(tmp_path, 10))["rss_peak_mb"]
    assert ballast.all()
    assert beside == pytest.approx(before, rel=0.2)
    assert beside < 400


def test_peak_memory_is_a_peak() -> None:
    code = (
        "from jtts_export.validate.probe import rss_mb; before = rss_mb('VmHWM'); x = bytearray(300_000_000);"
        "x[::4096] = b'1' * len(x[::4096]); there = rss_mb('VmRSS'); del x;"
        "print(before, there, rss_mb('VmRSS'), rss_mb('VmHWM'))"
    )
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    before, there, gone, peak = map(float, words)
    assert peak - before == pytest.approx(300, rel=0.05)
    assert there - gone == pytest.approx(300, rel=0.05)


@pytest.mark.parametrize("damage", ["graph", "input"])
def test_a_graph_that_does_not_run_is_named(model: Path, tmp_path: Path, damage: str) -> None:
    cases = fed(tmp_path, 10)
    if damage == "graph":
        model.write_bytes(b"not a graph")
    else:
        np.savez(cases, **{"0/other": np.ones(1)})
    with pytest.raises(RuntimeError, match=r"^model\.onnx does not run in a process of its own: .") as error:
        probed(model, cases)
    assert "\n" not in str(error.value)


def test_the_module_prints_one_line_of_json(model: Path, tmp_path: Path) -> None:
    files = json.dumps({GRAPH: str(model)})
    command = [sys.executable, "-m", "jtts_export.validate.probe", "kokoro", files, str(fed(tmp_path, 5)), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert set(json.loads(done.stdout)) == REPORTED
    assert done.stdout.count("\n") == 1
