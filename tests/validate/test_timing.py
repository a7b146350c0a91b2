"""Times of every variant: which are taken, and how often, until the gates that name them are decided."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from subjects import profile

from jtts_export.profiles import metrics as known
from jtts_export.profiles.metrics import is_timed, metrics_of
from jtts_export.validate import timing
from jtts_export.validate.gates import FAIL, INCONCLUSIVE, PASS, Interval, finite
from jtts_export.validate.machine import Machine
from jtts_export.validate.speed import Timings
from jtts_export.validate.subject import Findings, Subject

METRIC, LIMIT = "rtf_warm_p50", 0.5
GATES = {"all": {METRIC: f"<= {LIMIT}", "rss_peak_mb": "<= 100"}}
CALL_GATES = {"all": {METRIC: f"<= {LIMIT}", timing.GROWTH: "<= 0.2"}}
FAST, SLOW = 0.4, 0.6  # within the limit, and beyond it
CLEAR_PASS, CLEAR_FAIL, ACROSS = (0.3, 0.45), (0.55, 0.7), (0.4, 0.6)


@dataclass(frozen=True)
class Batch:
    """What a measurement finds, and whether others kept the machine busy meanwhile."""

    rtf: float
    between: Interval
    busy: bool = False
    rss_mb: float = 50.0

    def findings(self) -> Findings:
        return Findings({METRIC: self.rtf, "rss_peak_mb": self.rss_mb}, {METRIC: self.between})


@dataclass(frozen=True)
class Calls(Batch):
    """growth: from call to call."""

    growth: float = 0.0

    def findings(self) -> Findings:
        return Findings({METRIC: self.rtf, timing.GROWTH: self.growth}, {METRIC: self.between})


@dataclass(frozen=True)
class Settled:
    """How often was measured, and what stands at the end."""

    taken: int
    findings: Findings
    outcomes: Mapping[str, str]


@pytest.fixture
def settle(subjects: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settled]:
    """Take given batches, one after the other; a further one fails the test. What others do to the machine, no test
    can choose: the watch over it says what the batch says."""

    def settled(*batches: Batch) -> Settled:
        gates = CALL_GATES if isinstance(batches[0], Calls) else GATES
        subject = replace(subjects("t3"), profile=profile(t3=gates))
        findings = {"fp32": Findings()}
        taken: list[Batch] = []

        class Watch(Machine):
            is_disturbed = property(lambda _: taken[-1].busy)  # type: ignore[assignment]

        def once(_: Machine) -> Mapping[str, Findings]:
            taken.append(batches[len(taken)])
            return {"fp32": taken[-1].findings()}

        monkeypatch.setattr(timing, "Machine", Watch)
        timing._settle(subject, findings, once)
        rows = findings["fp32"].judged(subject.gates("fp32"))["gates"]
        return Settled(len(taken), findings["fp32"], {row["metric"]: row["outcome"] for row in rows})

    return settled


@pytest.mark.parametrize(
    ("batch", "outcome"),
    [
        (Batch(FAST, CLEAR_PASS), PASS),
        (Batch(SLOW, CLEAR_FAIL), FAIL),  # no second try makes an honest failure a pass
        (Batch(FAST, CLEAR_PASS, busy=True), PASS),  # others only make it slower
    ],
)
def test_what_is_decided_is_measured_once(settle: Callable[..., Settled], batch: Batch, outcome: str) -> None:
    found = settle(batch)
    assert found.taken == 1
    assert found.outcomes[METRIC] == outcome


@pytest.mark.parametrize(
    ("second", "outcome"),
    [
        (Batch(FAST, CLEAR_PASS), PASS),
        (Batch(SLOW, CLEAR_FAIL), FAIL),
        (Batch(FAST, CLEAR_PASS, busy=True), PASS),
    ],
)
@pytest.mark.parametrize(
    "first",
    [Batch(FAST, ACROSS), Batch(SLOW, ACROSS), Batch(SLOW, CLEAR_FAIL, busy=True), Batch(FAST, ACROSS, busy=True)],
)
def test_what_is_open_is_measured_again_until_it_is_decided(
    settle: Callable[..., Settled], first: Batch, second: Batch, outcome: str
) -> None:
    found = settle(first, second)
    assert found.taken == 2
    assert found.outcomes[METRIC] == outcome
    assert found.findings.metrics[METRIC] == second.rtf
    assert found.findings.intervals[METRIC] == second.between


@pytest.mark.parametrize("batch", [Batch(FAST, ACROSS), Batch(SLOW, CLEAR_FAIL, busy=True)])
def test_what_stays_open_ends_inconclusive(settle: Callable[..., Settled], batch: Batch) -> None:
    found = settle(*[batch] * timing.BATCHES)
    assert found.taken == timing.BATCHES
    assert found.outcomes == {METRIC: INCONCLUSIVE, "rss_peak_mb": PASS}


def test_a_busy_machine_excuses_times_and_nothing_else(settle: Callable[..., Settled]) -> None:
    found = settle(Batch(FAST, CLEAR_PASS, busy=True, rss_mb=101))
    assert found.taken == 1
    assert found.outcomes == {METRIC: PASS, "rss_peak_mb": FAIL}
    assert found.findings.disturbed == {METRIC}


CALM, GROWING = Calls(FAST, CLEAR_PASS), Calls(FAST, CLEAR_PASS, growth=0.3)
OPEN = Calls(FAST, ACROSS)


@pytest.mark.parametrize(
    ("batches", "outcome"),
    [
        ((GROWING, CALM), PASS),
        ((GROWING, GROWING), FAIL),
        ((GROWING, OPEN, GROWING), INCONCLUSIVE),
        ((OPEN, GROWING, GROWING), FAIL),
    ],
)
def test_growth_fails_where_two_measurements_in_a_row_find_it(
    settle: Callable[..., Settled], batches: tuple[Calls, ...], outcome: str
) -> None:
    found = settle(*batches)
    assert found.taken == len(batches)
    assert found.outcomes[timing.GROWTH] == outcome


def test_a_quiet_measurement_clears_what_was_disturbed(settle: Callable[..., Settled]) -> None:
    found = settle(Batch(SLOW, CLEAR_FAIL, busy=True), Batch(SLOW, CLEAR_FAIL))
    assert found.findings.disturbed == set()
    assert found.outcomes[METRIC] == FAIL


def test_one_open_variant_has_all_that_are_timed_by_turns_measured_again(
    subjects: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a measurement that is not its own is left alone."""
    subject = replace(subjects("t3"), profile=profile(t3=GATES))
    findings = {variant: Findings({"load_ms": 1.0}) for variant in ("fp32", "int8")}
    int8 = iter([Batch(SLOW, ACROSS), Batch(FAST, CLEAR_PASS)])
    fp32 = iter([Batch(0.1, (0.1, 0.1)), Batch(0.2, (0.2, 0.2))])
    monkeypatch.setattr(timing, "Machine", type("Quiet", (Machine,), {"is_disturbed": False}))
    timing._settle(subject, findings, lambda _: {"fp32": next(fp32).findings(), "int8": next(int8).findings()})
    assert next(int8, None) is None
    assert findings["fp32"].metrics == {"load_ms": 1.0, METRIC: 0.2, "rss_peak_mb": 50}


def test_a_metric_that_has_no_gate_is_not_waited_for(
    subjects: Callable[[str], Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = {"fp32": Findings()}
    batches = iter([Batch(FAST, ACROSS, busy=True)])
    monkeypatch.setattr(timing, "Machine", type("Busy", (Machine,), {"is_disturbed": True}))
    timing._settle(subjects("t3"), findings, lambda _: {"fp32": next(batches).findings()})
    assert findings["fp32"].disturbed == {METRIC}


def test_rounds_beside_others_count_only_where_there_are_no_others() -> None:
    def batch(seconds: float) -> Timings:
        return Timings({"a": np.full((2, 1), seconds)}, np.ones(1), np.ones(2))

    def seconds(*batches: tuple[float, bool]) -> list[float]:
        return timing.pooled([(batch(s), busy) for s, busy in batches]).seconds["a"].ravel().tolist()

    assert seconds((9, True), (1, False)) == [1, 1]
    assert seconds((1, False), (9, True), (2, False)) == [1, 1, 2, 2]
    assert seconds((9, True), (8, True)) == [9, 9, 8, 8]


def test_a_variant_whose_process_dies_is_told_and_fails_and_others_are_timed(
    subjects: Callable[[str], Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = subjects("t3")
    findings = {variant: Findings() for variant in subject.files}
    process = timing._process

    def dying(of: Subject, variant: str, fed: Path) -> Findings:
        if variant == "int8":
            raise RuntimeError("model.onnx does not run\nin a process of its own")
        return process(of, variant, fed)

    monkeypatch.setattr(timing, "_process", dying)
    said: list[str] = []
    timing.measure(subject, findings, said.append)
    assert findings["int8"].error == "RuntimeError: model.onnx does not run in a process of its own"
    assert f"int8 does not run: {findings['int8'].error}" in said
    assert findings["int8"].judged([])["verdict"] == FAIL
    assert findings["int8"].metrics == {}
    assert findings["fp32"].metrics["speedup_vs_fp32"] == 1


# --- all of it, of tiny models ---------------------------------------------------------------------------------

# Not of time, but of the process that is timed and of the stream.
BESIDE = {"rss_peak_mb", "rss_slope_mb", "rss_slope_margin_mb", "rss_growth_mb"}


@pytest.mark.parametrize(("name", "variants"), [("kokoro", 1), ("speecht5", 1), ("t3", 2)])
def test_every_metric_of_time_is_measured(subjects: Callable[[str], Subject], name: str, variants: int) -> None:
    """Of models that take longer, of fp32 alone."""
    whole = subjects(name)
    subject = replace(whole, files=dict(list(whole.files.items())[:variants]))
    findings = {variant: Findings() for variant in subject.files}
    said: list[str] = []
    noise = timing.measure(subject, findings, said.append)
    timed = {metric for metric in metrics_of(name) if is_timed(metric) and known.TABLE[metric].always}
    joins = {"audio_join_score"} if subject.model.parity.audio else set()
    for variant, found in findings.items():
        assert timed | BESIDE | joins <= set(found.metrics)
        assert all(isinstance(value, float) for value in found.metrics.values())
        assert {f"rtf_{which}_p{q}" for which in ("warm", "short", "medium", "long") for q in (50, 95)} < set(
            found.intervals
        )
        for metric, (low, high) in found.intervals.items():
            assert low <= found.metrics[metric] <= high, metric
        assert found.disturbed <= {metric for metric in found.metrics if is_timed(metric)}
        assert [row["length"] for row in found.details["timings"]] == ["short", "medium", "long"]
        assert len(found.details["calls"]["seconds"]) == 61
        assert [row["name"] for row in found.details["stages"]] == ["frontend", *subject.model.graphs, "rest"]
        assert {f"cold start and calls of {variant}", f"stream of {variant}"} <= set(said)
        json.dumps(finite({"metrics": found.metrics, **found.details}), allow_nan=False)
    assert findings["fp32"].metrics["speedup_vs_fp32"] == 1
    assert set(noise) == {"jitter_ratio", "others_ratio", "probe_ms", "disturbed"}
    json.dumps(noise, allow_nan=False)
