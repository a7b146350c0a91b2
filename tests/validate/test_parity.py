"""Parity: what each metric says, and that an error shows in the stage that made it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import kokoro_graph
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph

from jtts_export.exporters import kokoro
from jtts_export.runtime.taps import OnnxRunner
from jtts_export.surgery import set_constant
from jtts_export.validate.audio import snr_db
from jtts_export.validate.parity import Parity, Stage, compare, reference_taps
from jtts_export.validate.runner import Arrays, Case
from jtts_export.validate.spread import NUDGE_DB, Spread, measure_nudged, measure_spread

STAGES = ("frames", "f0", "n", "decoder")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [*kokoro_graph.cases("brief"), *kokoro_graph.cases("search")[:1]]


@pytest.fixture(scope="module")
def expected(cases: list[Case]) -> list[dict]:
    return reference_taps(kokoro.PARITY, runner_of(kokoro_graph.optimized()), cases)


def runner_of(model: ir.Model) -> OnnxRunner:
    return OnnxRunner("toy", ir.to_proto(model), 1)


def test_a_graph_compared_with_itself_is_perfect(cases: list[Case], expected: list[dict]) -> None:
    metrics, rows = compare(kokoro.PARITY, expected, runner_of(kokoro_graph.optimized()), cases)
    perfect = {f"parity_{s}_snr_db": math.inf for s in STAGES}
    assert metrics == perfect | {"durations_equal_ratio": 1.0, "parity_log_mel_l1": 0.0}
    assert [row["case"] for row in rows] == [case.name for case in cases]
    assert [row["durations_count"] for row in rows] == [case.inputs["input_ids"].size for case in cases]


@pytest.mark.parametrize(
    ("weight", "wrong", "audible"),
    [
        ("predictor.duration_proj.linear_layer.weight", {"frames"}, False),  # durations are forced behind it
        ("predictor.lstm.W", {"frames"}, False),
        ("predictor.F0.0.conv1.weight", {"f0"}, True),
        ("predictor.N.0.conv1.weight", {"n"}, True),
        ("predictor.shared.W", {"f0", "n"}, True),
        ("bert_encoder.weight", {"frames", "f0", "n"}, True),
        ("text_encoder.cnn.0.0.weight", {"decoder"}, True),
        ("decoder.decode.3.conv2.weight", {"decoder"}, True),
        ("decoder.generator.resblocks.2.convs1.0.weight", {"decoder"}, True),
        ("decoder.generator.conv_post.weight", {"decoder"}, True),
    ],
)
def test_a_flipped_sign_shows_in_its_own_stage_only(
    cases: list[Case], expected: list[dict], weight: str, wrong: set[str], audible: bool
) -> None:
    model = kokoro_graph.optimized()
    value = model.graph.initializers[weight]
    assert value.const_value is not None
    set_constant(value, -value.const_value.numpy())
    metrics, _ = compare(kokoro.PARITY, expected, runner_of(model), cases)
    for stage in STAGES:
        snr = metrics[f"parity_{stage}_snr_db"]
        assert snr < 40 if stage in wrong else snr == math.inf
    assert (metrics["parity_log_mel_l1"] > 0) == audible
    if "frames" in wrong and weight != "bert_encoder.weight":
        assert metrics["durations_equal_ratio"] < 1
    if "frames" not in wrong:
        assert metrics["durations_equal_ratio"] == 1


# What metrics are made of, on a graph that can be computed by hand: y = x + error, d = round(x).

RATE_HZ = 24_000
TOY = Parity(
    stages=(Stage("frames", "y"), Stage("decoder", "z", forced=("y",))),
    exact={"durations": "d"},
    audio="y",
    timing=("d",),
    sample_rate_hz=RATE_HZ,
)


def toy(error: float = 0, gain: float = 2, shift: float = 0, tail: str = "y = Add(x, e)") -> OnnxRunner:
    body = f"{tail} z = Mul(y, g) s = Add(x, h) r = Round(s) d = Cast<to=7>(r)"
    text = f"(float[1,N] x) => (float[1,M] y, float[1,M] z, int64[1,K] d) {{ {body} }}"
    numbers = {"e": error, "g": gain, "h": shift}
    return runner_of(graph(text, {name: np.float32([value]) for name, value in numbers.items() if name in text}))


def case(*values: float, name: str = "x") -> Case:
    return Case(name, {"x": np.array([values], np.float32)})


LOUD, QUIET = case(*[10.0] * 40, name="loud"), case(*[1.0] * 8, name="quiet")


def toy_metrics(runner: OnnxRunner, *spoken: Case) -> tuple[dict, list[dict]]:
    return compare(TOY, reference_taps(TOY, toy(), spoken), runner, spoken)


def test_snrs_are_averaged_as_powers_case_by_case() -> None:
    metrics, rows = toy_metrics(toy(error=0.125), LOUD, QUIET)
    ratios = (0.125 / 10) ** 2, 0.125**2
    assert [r["parity_frames_snr_db"] for r in rows] == pytest.approx([-10 * math.log10(r) for r in ratios])
    # The worse case prevails: a mean of decibels would say 28, not 21.
    assert metrics["parity_frames_snr_db"] == pytest.approx(-10 * math.log10(sum(ratios) / 2))


def test_a_stage_is_given_the_references_inputs() -> None:
    """An error ahead of a stage is not its own."""
    metrics, _ = toy_metrics(toy(error=0.5), LOUD)
    assert metrics["parity_decoder_snr_db"] == math.inf
    metrics, _ = toy_metrics(toy(gain=2.2), LOUD)
    assert metrics["parity_decoder_snr_db"] == pytest.approx(20, abs=1e-3)  # a tenth, in float32
    assert metrics["parity_frames_snr_db"] == math.inf


def test_equal_integers_are_counted_over_all_cases() -> None:
    spoken = case(1.0, 2.0, 3.4, 4.4), case(5.4)  # half a unit on, those that are nearly there round up
    metrics, rows = toy_metrics(toy(shift=0.2), *spoken)
    assert [(r["durations_equal"], r["durations_count"]) for r in rows] == [(2, 4), (0, 1)]
    assert metrics["durations_equal_ratio"] == 2 / 5


def test_log_mels_are_averaged_by_case() -> None:
    metrics, rows = toy_metrics(toy(error=1.0), LOUD, QUIET)
    each = [r["parity_log_mel_l1"] for r in rows]
    assert each[0] != each[1]
    assert metrics["parity_log_mel_l1"] == pytest.approx(sum(each) / 2)


def test_an_output_of_another_length_is_as_wrong_as_can_be() -> None:
    metrics, _ = toy_metrics(toy(tail="y = Concat<axis=1>(x, x)"), LOUD, QUIET)
    assert metrics["parity_frames_snr_db"] == -math.inf
    assert metrics["parity_log_mel_l1"] == math.inf
    assert metrics["durations_equal_ratio"] == 1  # those are right


def test_an_output_that_is_not_finite_is_as_wrong_as_can_be() -> None:
    metrics, _ = toy_metrics(toy(error=math.nan), LOUD, QUIET)
    assert metrics["parity_frames_snr_db"] == -math.inf
    assert metrics["parity_log_mel_l1"] == math.inf


def test_stages_of_derived_graphs_are_judged_with_the_whole_only() -> None:
    client = Stage("client", "c", forced=("d",))
    parity = dataclasses.replace(TOY, derived=(client,))
    assert parity.stages == TOY.stages
    assert parity.taps == TOY.taps  # what makes `c` is not there before it is derived
    assert parity.whole.stages == (*TOY.stages, client)
    assert "c" in parity.whole.taps
    assert (parity.whole.exact, parity.whole.audio, parity.whole.timing) == (TOY.exact, TOY.audio, TOY.timing)
    assert parity.stage("decoder") is TOY.stages[1]
    with pytest.raises(StopIteration):
        parity.stage("client")


def test_a_derived_stage_is_measured_like_any_other() -> None:
    text = "(float[1,N] x) => (float[1,M] y, float[1,M] z, int64[1,K] d, float[1,M] c)"
    body = "y = Identity(x) z = Mul(y, g) r = Round(x) d = Cast<to=7>(r) c = Mul(z, e)"
    exact, wrong = (
        runner_of(graph(f"{text} {{ {body} }}", {"g": np.float32([2]), "e": np.float32([gain])})) for gain in (1, 1.1)
    )
    parity = dataclasses.replace(TOY, derived=(Stage("client", "c", forced=("z",)),))
    expected = reference_taps(parity.whole, exact, [LOUD])
    assert "parity_client_snr_db" not in compare(parity, expected, wrong, [LOUD])[0]
    metrics, _ = compare(parity.whole, expected, wrong, [LOUD])
    assert metrics["parity_client_snr_db"] == pytest.approx(20, abs=1e-3)
    assert metrics["parity_decoder_snr_db"] == math.inf


def test_parity_knows_its_taps() -> None:
    assert TOY.taps == ("d", "y", "z")
    assert kokoro.PARITY.taps == ("duration", "f0", "frames", "har", "n", "waveform")


# The reference's own spread


def spread_of(reseed: float, fp64: float, decoder_db: float) -> Spread:
    return Spread(
        {
            "spread_reseed_log_mel_l1": reseed,
            "spread_fp64_log_mel_l1": fp64,
            "spread_fp64_decoder_snr_db": decoder_db,
        }
    )


SPREAD = spread_of(0.5, 0.1, 90.0)


def test_metrics_are_related_to_the_wider_spread() -> None:
    measured = {"parity_log_mel_l1": 0.25, "parity_decoder_snr_db": 84.0}
    related = SPREAD.relate(measured)
    assert related == measured | SPREAD.metrics | {"parity_log_mel_ratio": 0.5, "parity_decoder_margin_db": -6.0}
    other = spread_of(0.1, 1.0, 90.0)
    assert other.relate(measured)["parity_log_mel_ratio"] == 0.25


def test_every_stage_that_has_a_spread_gets_a_margin_over_it() -> None:
    """In fp64 and on another draw apart, whatever the stages are called."""
    spread = Spread(
        {
            **{"spread_reseed_log_mel_l1": 0.5, "spread_fp64_log_mel_l1": 0.1},
            **{"spread_fp64_mel_snr_db": 100.0, "spread_fp64_decoder_steps_snr_db": 110.0},
            **{"spread_reseed_mel_snr_db": 12.0, "spread_reseed_margin_snr_db": 9.0},
        }
    )
    snrs = {"mel": 30.0, "decoder_steps": 95.0, "margin": 10.0, "encoder": 70.0}
    measured = {"parity_log_mel_l1": 0.25, **{f"parity_{name}_snr_db": value for name, value in snrs.items()}}
    assert spread.relate(measured) == measured | spread.metrics | {
        "parity_log_mel_ratio": 0.5,
        "parity_mel_margin_db": -70.0,
        "parity_decoder_steps_margin_db": -15.0,
        "parity_mel_reseed_margin_db": 18.0,
        "parity_margin_reseed_margin_db": 1.0,
    }


def test_a_reference_without_any_spread_still_relates() -> None:
    none = spread_of(0, 0, math.inf)
    related = none.relate({"parity_log_mel_l1": 0.0, "parity_decoder_snr_db": 80.0})
    assert related["parity_log_mel_ratio"] == 0
    assert related["parity_decoder_margin_db"] == -math.inf


def test_spread_is_measured_between_the_references() -> None:
    parity = Parity(TOY.stages[1:], TOY.exact, TOY.timing, RATE_HZ, audio="z", fp64=("decoder",))
    spoken = [LOUD, QUIET]
    expected = reference_taps(parity, toy(), spoken)
    spread = measure_spread(parity, expected, reseeded=toy(gain=4), double=toy(gain=2.002), cases=spoken)
    assert spread.metrics["spread_reseed_log_mel_l1"] == pytest.approx(
        np.mean(
            [
                compare(parity, [e], toy(gain=4), [c])[0]["parity_log_mel_l1"]
                for e, c in zip(expected, spoken, strict=True)
            ]
        )
    )
    assert 0 < spread.metrics["spread_fp64_log_mel_l1"] < spread.metrics["spread_reseed_log_mel_l1"]
    assert spread.metrics["spread_fp64_decoder_snr_db"] == pytest.approx(60, abs=0.1)  # a thousandth


class Asked:
    """Answers as another runner does, and remembers what it was asked."""

    def __init__(self, answering: OnnxRunner) -> None:
        self._answering = answering
        self.questions: list[tuple[int, tuple[str, ...], frozenset[str]]] = []

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        self.questions.append((inputs["x"].size, tuple(wanted), frozenset(forced or {})))
        return self._answering.taps(inputs, wanted, forced)


HEARD = ("spread_reseed_audio_mrstft", "spread_reseed_audio_f0_rmse_cents", "spread_reseed_audio_stoi")


def test_a_nudge_of_the_inputs_comes_out_as_the_gain_of_a_stage() -> None:
    """What is added to a signal is above its noise too; what takes no floats has no such measure."""
    spoken = Case("1", {"x": np.random.default_rng(3).standard_normal(4000), "n": np.arange(3)})

    class Doubler:
        def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
            y = (forced or {}).get("y", 2 * inputs["x"])
            made = {"y": y, "z": y + 9 * y.std(), "n": inputs["n"] + 1.0}
            return {name: made[name] for name in wanted}

    parity = Parity((Stage("double", "y"), Stage("far", "z", forced=("y",)), Stage("count", "n")), {}, (), 1)
    metrics = measure_nudged(parity, Doubler(), spoken)
    assert set(metrics) == {"spread_nudge_double_snr_db", "spread_nudge_far_snr_db"}
    assert metrics["spread_nudge_double_snr_db"] == pytest.approx(NUDGE_DB, abs=0.5)
    # z has the power of 1 + 9^2 with noise of 1.
    assert metrics["spread_nudge_far_snr_db"] == pytest.approx(NUDGE_DB + 10 * math.log10(82), abs=0.5)
    related = Spread(metrics).relate({"parity_double_snr_db": 30.0, "parity_far_snr_db": 50.0})
    assert related["parity_double_input_snr_db"] == pytest.approx(30, abs=0.5)
    assert related["parity_far_input_snr_db"] == pytest.approx(50 - 10 * math.log10(82), abs=0.5)


def test_a_tap_that_a_checkpoint_makes_nothing_of_fails_no_gate() -> None:
    """As the alignment of a T3 without heads for it; what a variant makes of it all the same is wrong."""

    class Nothing:
        def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
            return dict.fromkeys(wanted, np.zeros(0))

    spread = Spread(measure_nudged(Parity((Stage("heads", "y"),), {}, (), 1), Nothing(), LOUD))
    for made, snr in ((np.zeros(0), math.inf), (np.ones(3), -math.inf)):
        related = spread.relate({"parity_heads_snr_db": snr_db(made, np.zeros(0))})
        assert related["parity_heads_input_snr_db"] == snr


def test_what_is_forced_alike_is_asked_for_at_once() -> None:
    """A synthesis of a reference takes seconds: stages that are forced as the whole audio is come with it."""
    parity = dataclasses.replace(
        TOY,
        stages=(
            Stage("mel", "y", forced=("d",)),
            Stage("wave", "z", forced=("d",)),
            Stage("part", "z", forced=("y",)),
        ),
        audio="z",
        reseed=("mel", "part"),
        fp64=("part", "wave"),
    )
    spoken = [LOUD, QUIET]
    expected = reference_taps(parity, toy(), spoken)
    reseeded, double = Asked(toy(error=0.125)), Asked(toy(gain=2.002))
    spread = measure_spread(parity, expected, reseeded, double, spoken)
    assert reseeded.questions == [
        *((40, ("y", "z"), frozenset("d")), (40, ("z",), frozenset("y"))),
        *((8, ("y", "z"), frozenset("d")), (8, ("z",), frozenset("y"))),
    ]
    # The first case alone in fp64; "wave" is the audio itself.
    assert double.questions == [(40, ("z",), frozenset("d")), (40, ("z",), frozenset("y"))]
    assert set(spread.metrics) == {
        *("spread_reseed_log_mel_l1", "spread_reseed_mel_snr_db", "spread_reseed_part_snr_db", *HEARD),
        *("spread_fp64_log_mel_l1", "spread_fp64_wave_snr_db", "spread_fp64_part_snr_db"),
    }
    # Of what is measured, the other reference is the signal; over cases, decibels are averaged.
    each = [20 * math.log10((level + 0.125) / 0.125) for level in (10, 1)]
    assert spread.metrics["spread_reseed_mel_snr_db"] == pytest.approx(sum(each) / 2, abs=1e-3)
    assert spread.metrics["spread_reseed_part_snr_db"] == math.inf  # what is given makes up for the draw
    for stage in ("wave", "part"):
        assert spread.metrics[f"spread_fp64_{stage}_snr_db"] == pytest.approx(20 * math.log10(1001), abs=0.01)


def test_a_model_without_stages_of_its_own_has_the_spread_of_its_audio() -> None:
    expected = reference_taps(TOY, toy(), [LOUD])
    spread = measure_spread(TOY, expected, toy(error=1.0), toy(error=0.01), [LOUD])
    assert set(spread.metrics) == {"spread_reseed_log_mel_l1", "spread_fp64_log_mel_l1", *HEARD}
    assert 0 < spread.metrics["spread_fp64_log_mel_l1"] < spread.metrics["spread_reseed_log_mel_l1"]


def test_a_kokoros_spread_comes_from_its_draw() -> None:
    """Another draw is audible; float64 is not, by far."""
    loaded = kokoro_graph.loaded()
    spoken = kokoro_graph.cases("brief")
    reference = kokoro.reference(loaded, 1, 0, False)
    expected = reference_taps(kokoro.PARITY, reference, spoken)
    reseeded, double = kokoro.reference(loaded, 1, 1, False), kokoro.reference(loaded, 1, 0, True)
    spread = measure_spread(kokoro.PARITY, expected, reseeded, double, spoken)
    assert spread.metrics["spread_reseed_log_mel_l1"] > 0.01
    assert spread.metrics["spread_fp64_decoder_snr_db"] > 80  # float32 has 150, and some hundred layers

    # And the exported graph is as near to the reference as the reference is to itself.
    exported = onnx.ModelProto.FromString(kokoro_graph.exported())
    metrics, _ = compare(kokoro.PARITY, expected, kokoro_graph.runner(exported), spoken)
    assert SPREAD.relate(metrics)["durations_equal_ratio"] == 1
    assert metrics["parity_decoder_snr_db"] > spread.metrics["spread_fp64_decoder_snr_db"] - 12
    assert snr_db(expected[0]["waveform"], expected[0]["waveform"]) == math.inf
