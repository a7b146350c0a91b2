"""Recipes, and the ladder that corrects them until the parity gates pass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence

import kokoro_graph
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph, normal, ops
from kokoro_files import tiny_model
from pydantic import ValidationError

from bench.outliers import plant
from jtts_export.exporters import kokoro
from jtts_export.exporters.model import Loaded
from jtts_export.optimize import optimize
from jtts_export.profiles.schema import Gate, parse_gate
from jtts_export.quantize.apply import fit_convs, integers, quantize
from jtts_export.quantize.build import build_variant
from jtts_export.quantize.calibrate import sample
from jtts_export.quantize.ladder import Ladder
from jtts_export.quantize.schemes import (
    BlockMatMul,
    DynamicMatMul,
    Float32,
    Recipe,
    Rule,
    StaticConv,
    StoredFp16,
    StoredInt,
    label,
    promoted,
)
from jtts_export.quantize.weights import find_weights
from jtts_export.runtime.taps import Graphs, OnnxRunner
from jtts_export.validate.audio import snr_db
from jtts_export.validate.parity import Parity, Stage, compare, reference_taps
from jtts_export.validate.runner import Arrays, Case
from jtts_export.validate.spread import Spread

SPREAD = Spread({"spread_reseed_log_mel_l1": 0.5, "spread_fp64_log_mel_l1": 0.1, "spread_fp64_decoder_snr_db": 90.0})

# Weights of three stages, held too coarsely by far; everything else stays fp32, which keeps the climb short.
COARSE = Recipe(
    rules=(
        Rule(pattern="decoder.decode.*.conv1x1.weight", scheme=StoredInt(bits=4)),
        Rule(pattern="decoder.decode.*.conv1.weight", scheme=StaticConv()),
        Rule(pattern="predictor.shared.W", scheme=StoredInt(bits=4)),
        Rule(pattern="predictor.duration_proj.*", scheme=StoredInt(bits=4)),
    )
)
DECODER = "parity_decoder_snr_db"


def gates(**limits: str) -> list[Gate]:
    return [parse_gate(metric, limit) for metric, limit in limits.items()]


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return kokoro_graph.optimized()


@pytest.fixture(scope="module")
def convs(model: ir.Model) -> dict:
    weights = {n: w for n, w in find_weights(model).items() if isinstance(COARSE.scheme_of(n), StaticConv)}
    samples = sample(model, weights, [c.inputs for c in kokoro_graph.cases("calibration")])
    return integers(model, fit_convs(model, samples))


def ladder(model: ir.Model, convs: dict, **limits: str) -> Ladder:
    return Ladder(
        graphs={kokoro.GRAPH.name: model},
        files={kokoro.GRAPH.name: ir.to_proto(model)},
        convs=convs,
        runner=kokoro.runner,
        parity=kokoro.PARITY,
        spread=SPREAD,
        cases=kokoro_graph.cases("search")[:1],
        brief=kokoro_graph.cases("brief")[0],
        gates=gates(**limits),
        threads=1,
        tell=lambda _: None,
    )


def test_a_recipe_that_passes_is_left_as_it_is(model: ir.Model, convs: dict) -> None:
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    climb = ladder(model, convs, parity_decoder_snr_db=">= 1", durations_equal_ratio=">= 0").climb(COARSE)
    assert (climb.recipe, climb.steps, climb.failing) == (COARSE, [], [])
    assert climb.metrics[DECODER] >= 1
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before  # only copies are quantized


def test_without_gates_nothing_is_climbed(model: ir.Model, convs: dict) -> None:
    assert ladder(model, convs).climb(COARSE).steps == []


def noise_alone(model: ir.Model, convs: dict, recipe: Recipe) -> dict[str, float]:
    """Noise over signal at the waveform of each weight that the recipe holds otherwise, quantized alone."""
    case = kokoro_graph.cases("brief")[0]
    expected = reference_taps(kokoro.PARITY, kokoro_graph.runner(model), [case])
    noise = {}
    for name in find_weights(model):
        if isinstance(recipe.scheme_of(name), Float32):
            continue
        copy = model.clone()
        quantize(copy, Recipe(rules=(Rule(pattern=name, scheme=recipe.scheme_of(name)),)), convs)
        metrics, _ = compare(kokoro.PARITY, expected, kokoro_graph.runner(copy), [case])
        noise[name] = 10 ** (-metrics[DECODER] / 10)
    return noise


def test_the_worst_weights_are_promoted_first_until_the_gate_passes(model: ir.Model, convs: dict) -> None:
    start = ladder(model, convs).climb(COARSE).metrics
    limit = start[DECODER] + 15
    climb = ladder(model, convs, parity_decoder_snr_db=f">= {limit}").climb(COARSE)
    assert climb.failing == []
    assert climb.metrics[DECODER] >= limit
    assert len(climb.steps) > 1

    first = climb.steps[0]
    assert (first.gate, first.stage) == (f"{DECODER} >= {limit:g}", "decoder")
    assert first.measured == start[DECODER]
    noise = noise_alone(model, convs, COARSE)
    worst = sorted(noise, key=noise.__getitem__, reverse=True)
    assert list(first.promoted) == worst[: len(first.promoted)]
    assert all(first.promoted[n] == label(promoted(COARSE.scheme_of(n))) for n in first.promoted)
    # The ladder lets onnxruntime leave the graph as it is, which rounds a little differently.
    total = sum(noise.values())
    for name, share in first.error_share.items():
        assert share == pytest.approx(noise[name] / total, rel=0.01)
    # What moved is just enough, judged by each weight's own noise: a fifteenth of a decibel less would not do.
    assert 1 - sum(first.error_share.values()) <= 10**-1.5
    assert 1 - sum(list(first.error_share.values())[:-1]) > 0.85 * 10**-1.5
    # Neither what other stages need, nor what adds little, was touched.
    touched = {n for step in climb.steps for n in step.promoted}
    assert touched < set(noise)
    assert not any(n.startswith("predictor.") for n in touched)


def test_each_gate_promotes_the_stage_it_judges(model: ir.Model, convs: dict) -> None:
    climb = ladder(model, convs, parity_f0_snr_db=">= 60", durations_equal_ratio=">= 1").climb(COARSE)
    assert climb.failing == []
    stages = {step.gate.split()[0]: step.stage for step in climb.steps}
    assert stages == {"parity_f0_snr_db": "f0"} | (
        {"durations_equal_ratio": "frames"} if "durations_equal_ratio" in stages else {}
    )
    touched = {n for step in climb.steps for n in step.promoted}
    assert "predictor.shared.W" in touched
    assert not any(n.startswith("decoder.") for n in touched)


def test_a_gate_that_several_stages_could_meet_promotes_the_noisiest(model: ir.Model, convs: dict) -> None:
    """F0 is held far better here than the decoder, and comes before it: making it better still would not help."""
    recipe = Recipe(rules=(Rule(pattern="predictor.shared.W", scheme=StoredInt(bits=8)), *COARSE.rules[:2]))
    start = ladder(model, convs).climb(recipe).metrics
    assert start["parity_f0_snr_db"] > start[DECODER] + 20
    limit = start["parity_log_mel_ratio"] * 0.85
    climb = ladder(model, convs, parity_log_mel_ratio=f"<= {limit}").climb(recipe)
    assert climb.failing == []
    assert climb.steps[0].stage == "decoder"
    assert "f0" not in {step.stage for step in climb.steps}


def test_a_gate_that_nothing_can_meet_ends_with_everything_at_fp32(model: ir.Model, convs: dict) -> None:
    """Durations cannot be more equal than all of them, nor a distance negative."""
    few = Recipe(
        rules=(
            Rule(pattern="decoder.decode.0.conv1x1.weight", scheme=StoredInt(bits=4)),
            Rule(pattern="decoder.decode.0.conv1.weight", scheme=StaticConv()),
            *COARSE.rules[2:],
        )
    )
    climb = ladder(model, convs, durations_equal_ratio=">= 1.5", parity_log_mel_ratio="< 0").climb(few)
    assert climb.failing == ["durations_equal_ratio >= 1.5", "parity_log_mel_ratio < 0"]
    weights = find_weights(model)
    assert {n: climb.recipe.scheme_of(n) for n in weights} == dict.fromkeys(weights, Float32())
    assert climb.metrics[DECODER] == float("inf")
    # No weight moves more often than the ladder has steps: 4 bits, 8, fp16, fp32.
    moves = [n for step in climb.steps for n in step.promoted]
    assert max(moves.count(n) for n in moves) <= 3


def test_two_climbs_are_equal(model: ir.Model, convs: dict) -> None:
    one, two = (ladder(model, convs, parity_decoder_snr_db=">= 35").climb(COARSE) for _ in range(2))
    assert one.steps
    assert one.recipe == two.recipe
    assert json.dumps(one.as_json()) == json.dumps(two.as_json())


# The whole way, on a checkpoint whose weights are hard to quantize.

OUTLIERS = {"factor": 60.0, "channels": 4}  # of 16 to 74 channels; 17 of the official checkpoint's hundreds


@pytest.fixture(scope="module")
def hard() -> tuple[Loaded, ir.Model]:
    loaded = Loaded(kokoro_graph.loaded().config, plant(tiny_model(0), **OUTLIERS), kokoro_graph.loaded().voices)
    model = ir.from_proto(kokoro_graph.export(loaded))
    optimize(model)
    return loaded, model


def test_planted_outliers_change_no_output(hard: tuple[Loaded, ir.Model], model: ir.Model) -> None:
    case = kokoro_graph.cases("search")[:1]
    expected = reference_taps(kokoro.PARITY, kokoro_graph.runner(model), case)
    metrics, _ = compare(kokoro.PARITY, expected, kokoro_graph.runner(hard[1]), case)
    assert metrics["durations_equal_ratio"] == 1
    assert metrics[DECODER] > 60  # instance norm's epsilon is not scaled along


def test_a_checkpoint_with_outliers_ends_past_its_gates(hard: tuple[Loaded, ir.Model]) -> None:
    loaded, model = hard
    wanted = gates(
        durations_equal_ratio=">= 0.98",
        parity_f0_snr_db=">= 18",
        parity_n_snr_db=">= 18",
        parity_log_mel_ratio="<= 1",
        parity_decoder_snr_db=">= 26",
    )
    graphs = {kokoro.GRAPH.name: ir.to_proto(model)}
    made, report, _ = build_variant(
        kokoro.MODEL, graphs, kokoro.INT8, loaded.config, loaded.voices, wanted, SPREAD, 1, lambda _: None
    )
    assert list(made) == [kokoro.GRAPH.name]
    int8 = made[kokoro.GRAPH.name]
    assert report["ladder"]["failing"] == []
    # Judged again, on sentences that the ladder did not see.
    cases = kokoro_graph.cases("validation")[:2]
    expected = reference_taps(kokoro.PARITY, kokoro_graph.runner(model), cases)
    metrics, _ = compare(kokoro.PARITY, expected, kokoro_graph.runner(int8), cases)
    metrics = SPREAD.relate(metrics)
    assert [str(g) for g in wanted if not g.passes(metrics)] == []
    # What the report says is what the file holds.
    assert report["schemes"] == {
        n: label(Recipe.model_validate(report["recipe"]).scheme_of(n)) for n in find_weights(model)
    }
    held = sum(s in ("static-conv", "stored-int4", "stored-int8") for s in report["schemes"].values())
    assert held > len(report["schemes"]) / 2  # and not bought with fp16 everywhere


# Several graphs: a tap of one is an input of the next

IN, OUT, TIME = 16, 24, 400
FIRST = f"(float[1,{IN},N] x) => (float[1,{OUT},N] h) {{ c = Conv<pads=[1,1]>(x, w1) h = Tanh(c) }}"
SECOND = (
    f"(float[1,{OUT},N] h, float[1] gain) => (float[1,{IN},N] y){{ c = Conv<pads=[1,1]>(h, w2) y = Mul(c, gain) }}"
)
WEIGHTS = {"first": "w1", "second": "w2"}
CHAINED = Parity(
    stages=(
        Stage("encoder", "h", gates=("parity_encoder_snr_db", "parity_mel_snr_db")),
        Stage("decoder", "y", forced=("h",), gates=("parity_decoder_snr_db", "parity_mel_snr_db")),
        Stage("mel", "y"),
        Stage("waveform", "y", gates=("parity_waveform_snr_db",)),
    ),
    exact={},
    audio="y",
    timing=(),
    sample_rate_hz=16_000,
)
BITS4 = Recipe(rules=(Rule(pattern="*", scheme=StoredInt(bits=4)),))


class Chained:
    """Runs both graphs, or the second alone where the tap between them is given."""

    def __init__(self, graphs: Graphs, threads: int, optimize: bool) -> None:
        self._runners = {name: OnnxRunner(name, graph, threads, optimize) for name, graph in graphs.items()}

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        made = dict(forced or {})
        if "h" not in made:
            made |= self._runners["first"].taps(inputs, ["h"])
        if "y" in wanted:
            made |= self._runners["second"].taps({**inputs, "h": made["h"]}, ["y"])
        return {name: made[name] for name in wanted}

    def parts(self, inputs: Iterable[str], wanted: str, forced: Iterable[str]) -> dict[str, onnx.ModelProto]:
        found = {}
        if wanted == "y":
            found |= self._runners["second"].parts(["h", "gain"], "y", [])
        if "h" not in forced:
            found |= self._runners["first"].parts(["x"], "h", [])
        return found


@pytest.fixture
def chained() -> dict[str, ir.Model]:
    return {
        "first": graph(FIRST, {"w1": normal(0, OUT, IN, 3) / 7}),
        "second": graph(SECOND, {"w2": normal(1, IN, OUT, 3) / 6}),
    }


def chained_cases(*seeds: int) -> list[Case]:
    return [Case(f"{seed}", {"x": normal(seed, 1, IN, TIME), "gain": np.float32([2])}) for seed in seeds]


def two_graph_ladder(graphs: dict[str, ir.Model], **limits: str) -> Ladder:
    return Ladder(
        graphs=graphs,
        files={name: ir.to_proto(graph) for name, graph in graphs.items()},
        convs={},
        runner=Chained,
        parity=CHAINED,
        spread=Spread({"spread_reseed_log_mel_l1": 1.0, "spread_fp64_log_mel_l1": 1.0}),
        cases=chained_cases(10, 11),
        brief=chained_cases(12)[0],
        gates=gates(**limits),
        threads=1,
        tell=lambda _: None,
    )


def held_as(recipe: Recipe) -> dict[str, str]:
    return {name: label(recipe.scheme_of(name)) for name in ("w1", "w2")}


def test_a_weight_is_found_in_whichever_graph_has_it(chained: dict[str, ir.Model]) -> None:
    before = {name: ir.to_proto(model).SerializeToString() for name, model in chained.items()}
    climb = two_graph_ladder(chained, parity_waveform_snr_db=">= 60").climb(BITS4)
    assert climb.failing == []
    assert held_as(climb.recipe) == {"w1": "stored-fp16", "w2": "stored-fp16"}
    assert {n for step in climb.steps for n in step.promoted} == {"w1", "w2"}
    assert {name: ir.to_proto(model).SerializeToString() for name, model in chained.items()} == before


def test_a_weight_is_measured_alone_beside_the_other_graphs_as_they_are(chained: dict[str, ir.Model]) -> None:
    """At the tap behind both graphs, whichever holds it."""
    ladder = two_graph_ladder(chained, parity_waveform_snr_db=">= 60")
    step = ladder.climb(BITS4).steps[0]
    case = chained_cases(12)[0]
    exact = Chained({n: ir.to_proto(m) for n, m in chained.items()}, 1, True).taps(case.inputs, ["y"])["y"]
    noise = {}
    for home in chained:
        copies = {name: model.clone() for name, model in chained.items()}
        quantize(copies[home], BITS4, {})
        made = Chained({n: ir.to_proto(m) for n, m in copies.items()}, 1, True).taps(case.inputs, ["y"])["y"]
        noise[WEIGHTS[home]] = float(((made - exact) ** 2).sum())
    assert list(step.promoted) == sorted(noise, key=noise.__getitem__, reverse=True)
    for name, share in step.error_share.items():
        assert share == pytest.approx(noise[name] / sum(noise.values()), rel=0.01)


@pytest.mark.parametrize(
    ("gate", "stage", "home"),
    [("parity_encoder_snr_db", "encoder", "w1"), ("parity_decoder_snr_db", "decoder", "w2")],
)
def test_a_stage_of_one_graph_promotes_what_is_in_it(
    chained: dict[str, ir.Model], gate: str, stage: str, home: str
) -> None:
    climb = two_graph_ladder(chained, **{gate: ">= 60"}).climb(BITS4)
    assert climb.failing == []
    assert {step.stage for step in climb.steps} == {stage}
    assert held_as(climb.recipe) == {"w1": "stored-int4", "w2": "stored-int4"} | {home: "stored-fp16"}


def test_a_gate_on_the_whole_promotes_in_the_graph_that_adds_most(chained: dict[str, ir.Model]) -> None:
    """The stage behind both has no weights of its own to promote: it names none."""
    recipe = Recipe(rules=(Rule(pattern="w1", scheme=StoredInt(bits=8)), Rule(pattern="*", scheme=StoredInt(bits=4))))
    climb = two_graph_ladder(chained, parity_mel_snr_db=">= 32").climb(recipe)
    assert climb.failing == []
    assert [(step.stage, list(step.promoted)) for step in climb.steps] == [("decoder", ["w2"])]


def test_a_variant_of_several_graphs_is_calibrated_on_what_reaches_each(chained: dict[str, ir.Model]) -> None:
    model = dataclasses.replace(
        kokoro.MODEL,
        graphs=("first", "second"),
        runner=Chained,
        parity=CHAINED,
        cases=lambda config, voices, purpose: chained_cases(
            *range(*{"calibration": (20, 28)}.get(purpose, (30, 32)))
        ),
    )
    recipe = Recipe(rules=(Rule(pattern="*", scheme=StaticConv()),))
    copies = {name: ir.to_proto(graph) for name, graph in chained.items()}
    spread = Spread({"spread_reseed_log_mel_l1": 1.0, "spread_fp64_log_mel_l1": 1.0})
    limits = gates(parity_waveform_snr_db=">= 25", size_mb="<= 1")
    made, report, _ = build_variant(model, copies, recipe, {}, {}, limits, spread, 1, lambda _: None)
    assert report["schemes"] == {"w1": "static-conv", "w2": "static-conv"}
    assert (report["ladder"]["steps"], report["ladder"]["failing"]) == ([], [])
    assert {n: ops(m)["QuantizeLinear"] for n, m in made.items()} == {"first": 2, "second": 2}
    case = chained_cases(50)[0]
    exact, int8 = (
        Chained({n: ir.to_proto(m) for n, m in models.items()}, 1, True).taps(case.inputs, ["h", "y"])
        for models in (chained, made)
    )
    assert snr_db(int8["h"], exact["h"]) > 33  # as near as eight bits allow; see test_static_conv.py
    assert snr_db(int8["y"], exact["y"]) > 30


# Recipes and schemes

EVERY_SCHEME = (
    StaticConv(),
    StaticConv(table_levels=0),
    StaticConv(channels=False),
    DynamicMatMul(),
    BlockMatMul(),
    BlockMatMul(block=128),
    StoredInt(bits=4),
    StoredInt(bits=8),
    StoredFp16(),
    Float32(),
)


@pytest.mark.parametrize("recipe", [kokoro.INT8, kokoro.FP16, Recipe(rules=())], ids=["int8", "fp16", "empty"])
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump()))) == recipe


@pytest.mark.parametrize("scheme", EVERY_SCHEME, ids=str)
def test_a_scheme_survives_json_under_its_kind(scheme) -> None:
    data = json.loads(Rule(pattern="*", scheme=scheme).model_dump_json())
    assert data["scheme"]["kind"] == scheme.kind
    assert Rule.model_validate(data).scheme == scheme


@pytest.mark.parametrize(
    "scheme",
    [
        {"kind": "stored-int2"},
        {"bits": 8},
        {"kind": "stored-int", "bits": 5},
        {"kind": "stored-fp16", "bits": 8},
        {"kind": "static-conv", "table_levels": -1},
    ],
)
def test_what_is_no_scheme_is_rejected(scheme: dict) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate({"pattern": "*", "scheme": scheme})


def test_an_unknown_kind_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match=r"static-conv.*stored-int.*stored-fp16.*float32"):
        Recipe.model_validate({"rules": [{"pattern": "*", "scheme": {"kind": "int3"}}]})


def test_the_first_rule_that_matches_decides() -> None:
    rules = (
        Rule(pattern="a.b.*", scheme=StoredFp16()),
        Rule(pattern="a.*", scheme=StoredInt(bits=4)),
        Rule(pattern="[xy].?", scheme=StaticConv()),
    )
    recipe = Recipe(rules=rules)
    held = {n: label(recipe.scheme_of(n)) for n in ("a.b.c", "a.c", "A.c", "x.1", "x.12", "z")}
    assert held == {
        "a.b.c": "stored-fp16",
        "a.c": "stored-int4",
        "A.c": "float32",  # names are told apart by case
        "x.1": "static-conv",
        "x.12": "float32",
        "z": "float32",
    }
    assert Recipe(rules=rules[::-1]).scheme_of("a.b.c") == StoredInt(bits=4)


@pytest.mark.parametrize(
    ("scheme", "steps"),
    [
        (StoredInt(bits=4), ["stored-int8", "stored-fp16", "float32", "float32"]),
        (StoredInt(bits=8), ["stored-fp16", "float32"]),
        (StaticConv(), ["stored-fp16", "float32"]),
    ],
    ids=str,
)
def test_the_ladder_leads_to_fp32(scheme, steps: list[str]) -> None:
    for expected in steps:
        scheme = promoted(scheme)
        assert label(scheme) == expected


@pytest.mark.parametrize("name", ["decoder.conv.weight", "w[0]", "what?", "a*"])
def test_promoting_moves_one_weight_and_no_other_whatever_its_name(name: str) -> None:
    recipe = Recipe(rules=(Rule(pattern="*", scheme=StoredInt(bits=4)),))
    for expected in ("stored-int8", "stored-fp16", "float32"):
        recipe = recipe.with_promoted([name])
        assert label(recipe.scheme_of(name)) == expected
        assert label(recipe.scheme_of("another")) == "stored-int4"
        assert len(recipe.rules) == 2


def test_a_scheme_is_reported_as_it_was_applied() -> None:
    weights = {"w": normal(0, 48, 32, 3), "odd": normal(1, 41, 29, 1)}
    text = (
        "(float[1,32,N] x, float[1,29,N] z) => (float[1,48,M] y, float[1,41,K] v) { y = Conv(x, w) v = Conv(z, odd) }"
    )
    model = graph(text, weights)
    assert quantize(model, Recipe(rules=(Rule(pattern="*", scheme=StoredInt(bits=8)),)), {}) == {
        "w": "stored-int8",
        "odd": "stored-int8",
    }
    assert np.prod(weights["odd"].shape) % 2 == 1
