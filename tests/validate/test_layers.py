"""Error of each layer against fp32: quiet where rounding is all there is, loud where a weight or a scale is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import kokoro_graph
import numpy as np
import onnx_ir as ir
import pytest
import speecht5_command
import t3_files
from graphs import graph, normal, ops_at_run_time

from bench.defects import signals
from bench.defects.graph_file import damaging
from jtts_export.errors import OutsideError
from jtts_export.exporters import kokoro, speecht5, t3
from jtts_export.exporters.model import Loaded, Model
from jtts_export.exporters.onnx import save
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.optimize import optimize
from jtts_export.quantize.apply import fit_convs, integers, quantize
from jtts_export.quantize.build import build_variant
from jtts_export.quantize.calibrate import sample
from jtts_export.quantize.schemes import Recipe, Rule, StaticConv
from jtts_export.quantize.weights import find_weights
from jtts_export.runtime.names import data_file, graph_file
from jtts_export.runtime.session import session
from jtts_export.surgery import set_constant
from jtts_export.validate.audio import snr_db
from jtts_export.validate.layer_weights import exact_weights, held, units_of
from jtts_export.validate.layers import OUTPUT, LayerError, layer_errors, layer_metrics, rows, run_cut
from jtts_export.validate.runner import Case
from jtts_export.validate.spread import Spread

# Half a step is rounding. Where a scale lies nowhere in the graph, it is recovered from some dozens of weights of a
# tiny network, each known to half a step.
ROUNDING_STEPS = 1.0
EXACT_STEPS = 0.501  # of scales in the graph, held in float32
# A typical weight lies dozens of steps of 8 bits from its negative, 3 or more of 4 bits.
WRONG_STEPS = 3.0
RECIPE = Recipe(rules=(Rule(pattern="*", scheme=StaticConv(channels=False)),))


@dataclass(frozen=True)
class Release:
    """Graphs of a tiny checkpoint: graph -> file of each variant, and the scheme that each weight of int8 got."""

    model: Model
    loaded: Loaded
    folder: Path
    schemes: Mapping[str, str]

    def files(self, variant: str) -> dict[str, Path]:
        return {name: self.folder / graph_file(name, variant) for name in self.model.graphs}

    def errors(self, variant: str | Mapping[str, Path]) -> list[LayerError]:
        (case,) = self.model.cases(self.loaded.config, self.loaded.voices, "brief")
        files = self.files(variant) if isinstance(variant, str) else variant
        return layer_errors(self.model, self.files("fp32"), files, case, 1)


def built(folder: Path, model: Model, loaded: Loaded) -> Release:
    """fp32 and int8, by the recipe alone."""
    traced = folder / "traced"
    model.export(loaded, traced, 17)
    for name in model.graphs:
        made = ir.load(traced / f"{name}.onnx")
        optimize(made)
        save(made, folder / graph_file(name, "fp32"), name in model.external)
    return with_variant(Release(model, loaded, folder, {}), "int8")


def with_variant(release: Release, variant: str) -> Release:
    """The release with another variant beside fp32, held as at full size, and its schemes."""
    model, loaded = release.model, release.loaded
    recipe = model.recipes[variant].for_sizes({})  # no weight is small
    graphs, report, _ = build_variant(
        *(model, release.files("fp32"), recipe, loaded.config, loaded.voices, []),
        *(Spread({}), 1, lambda _: None),
    )
    for name, made in graphs.items():
        save(made, release.folder / graph_file(name, variant), name in model.external)
    return dataclasses.replace(release, schemes=report["schemes"])


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Release]:
    @cache
    def release(name: str) -> Release:
        folder = tmp_path_factory.mktemp(name)
        if name == "kokoro":
            return built(folder, kokoro.MODEL, kokoro_graph.loaded())
        if name == "speecht5":  # wide enough for int8 convolutions
            speecht5_command.write_checkpoint(folder / "from")
            model = speecht5.MODEL
        else:
            t3_files.write_checkpoint(folder / "from")
            model = t3.MODEL
        info = MODELS[name]
        return built(folder, model, model.load(locate(str(folder / "from"), info.files, info.companions)))

    return release


@pytest.fixture(scope="module")
def good(releases: Callable[[str], Release]) -> Callable[[str], dict[str, LayerError]]:
    """Layers of a model's int8 variant, by name."""

    @cache
    def errors(name: str) -> dict[str, LayerError]:
        return {e.layer: e for e in releases(name).errors("int8")}

    return errors


NAMES = ("kokoro", "speecht5", "t3")


@pytest.mark.parametrize("name", NAMES)
def test_fp32_differs_from_itself_by_nothing_but_rounding(name: str, releases: Callable[[str], Release]) -> None:
    """Cut, its graph is fused otherwise, and so rounds otherwise: 24 bits of mantissa leave some 140 dB."""
    errors = releases(name).errors("fp32")
    assert all(e.cumulative_snr_db == float("inf") for e in errors)
    assert {(e.scheme, e.weight_steps, e.weight_gain_error) for e in errors} == {("float32", 0, 0), (OUTPUT, 0, 0)}
    metrics = layer_metrics(errors)
    assert metrics["layer_worst_snr_db"] > 120
    assert metrics["layer_channel_snr_db"] > 120
    assert metrics["layer_gain_error"] < 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_is_a_layer_and_its_scheme_is_read_off_the_graph(
    name: str, releases: Callable[[str], Release], good: Callable[[str], dict[str, LayerError]]
) -> None:
    found: dict[str, str] = {}
    for layer, error in good(name).items():
        weight = layer.split(" (")[0]
        found[weight] = error.scheme
    for weight, scheme in releases(name).schemes.items():
        if weight in found:
            assert found[weight] == scheme, weight
    carried = {"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "Gather"}
    for path in releases(name).files("fp32").values():
        for weight, held_in in find_weights(ir.load(path)).items():
            # The recurrent half of an LSTM is part of the layer of its other weight.
            assert weight in found or held_in.node.op_type not in carried or weight.endswith(".R"), weight


@pytest.mark.parametrize("name", NAMES)
def test_rounding_alone_is_quiet(name: str, good: Callable[[str], dict[str, LayerError]]) -> None:
    for error in good(name).values():
        chained = error.scheme == "static-conv" and name == "speecht5"
        assert error.weight_steps <= (ROUNDING_STEPS if chained else EXACT_STEPS), error
        # Rounding is as often up as down, and a network of 32 channels averages over few.
        assert error.weight_gain_error < 0.01, error
        assert error.gain_error < (0.1 if error.scheme == "stored-int4" else 0.04), error
        assert error.isolated_snr_db > (10 if error.scheme == "stored-int4" else 20), error


@pytest.mark.parametrize(
    ("variant", "scheme"),
    [("int8-fast", "block-matmul128"), ("int4", "block-matmul32-int4"), ("fp16", "stored-fp16")],
)
def test_t3_variants_are_read_as_they_are_held(variant: str, scheme: str, releases: Callable[[str], Release]) -> None:
    release = with_variant(releases("t3"), variant)
    errors = release.errors(variant)
    assert {e.layer: e.scheme for e in errors if e.layer in release.schemes} == {
        e.layer: release.schemes[e.layer] for e in errors if e.layer in release.schemes
    }
    assert {e.scheme for e in errors if e.layer.startswith("tfmr.")} == {scheme}
    assert max(e.weight_steps for e in errors) <= EXACT_STEPS


def test_what_a_layer_adds_is_less_than_what_has_built_up(good: Callable[[str], dict[str, LayerError]]) -> None:
    last = good("speecht5")["vocoder.post.weight"]
    assert last.scheme == "float32"
    # 24 bits of mantissa leave some 140 dB; behind convolutions of 8 bits there are their 40.
    assert last.isolated_snr_db > 120
    assert 15 < last.cumulative_snr_db < 45


def flip(array: np.ndarray) -> None:
    """The sign of one integer of typical magnitude."""
    centre = 128 if array.dtype == np.uint8 else 0
    integers = array.astype(np.int32) - centre
    size = np.abs(integers)
    place = np.unravel_index(np.abs(size - np.median(size[size > 0])).argmin(), array.shape)
    array[place] = centre - integers[place]


def flip_half(array: np.ndarray) -> None:
    """The sign of one weight of 4 bits, in the upper nibble of a pair: 12 is 4, 4 is -4."""
    place = int(np.abs((array >> 4).astype(int) - 12).argmin())
    array[place] = (array[place] & 15) | 4 << 4


def silence(array: np.ndarray) -> None:
    """All of one output channel."""
    array[len(array) // 2] = 128 if array.dtype == np.uint8 else 0


def swap(array: np.ndarray) -> None:
    """Two output channels."""
    array[[1, 2]] = array[[2, 1]]


def off_by_three_percent(array: np.ndarray) -> None:
    array *= np.float32(1.03)


def planted(release: Release, folder: Path, graph_name: str, constant: str, defect: Callable) -> dict[str, Path]:
    """The files of int8, one constant of one graph spoilt."""
    files = release.files("int8")
    model = ir.load(files[graph_name])
    value = model.graph.initializers[constant]
    assert value.const_value is not None
    array = np.array(value.const_value.numpy())
    defect(array)
    set_constant(value, array)
    path = folder / graph_file(graph_name, "int8")
    save(model, path, graph_name in release.model.external)
    return {**files, graph_name: path}


_SNAKE, _SNAKED = (
    "/model/decoder/generator/resblocks.1/convs1.1/Conv",
    "decoder.generator.resblocks.1.convs1.1.weight",
)
_FIRST, _FIRST_WEIGHT = "/vocoder/blocks.1/first.0/Conv", "vocoder.blocks.1.first.0.weight"
_SECOND, _SECOND_WEIGHT = "/vocoder/blocks.1/second.0/Conv", "vocoder.blocks.1.second.0.weight"
_UP, _DOWN = "decoder.layers.1.up.weight", "tfmr.layers.1.mlp.down_proj.weight"
_KOKORO, _VOCODER, _DECODER, _ENCODER = kokoro.GRAPH.name, speecht5.VOCODER, speecht5.DECODER, speecht5.ENCODER
DEFECTS = [
    ("kokoro", _KOKORO, f"{_SNAKE}/w_int8", flip, _SNAKED),
    ("kokoro", _KOKORO, f"{_SNAKE}/w_int8", silence, _SNAKED),
    ("kokoro", _KOKORO, f"{_SNAKE}/w_int8", swap, _SNAKED),
    ("kokoro", _KOKORO, f"{_SNAKE}/w_scale", off_by_three_percent, _SNAKED),
    ("kokoro", _KOKORO, f"{_SNAKE}/in_scale", off_by_three_percent, _SNAKED),
    ("kokoro", _KOKORO, f"{_SNAKE}/out_scale", off_by_three_percent, _SNAKED),
    (
        "kokoro",
        _KOKORO,
        f"{_SNAKE}/table_line",
        off_by_three_percent,
        "decoder.generator.resblocks.1.adain1.1.fc.weight",
    ),
    ("kokoro", _KOKORO, "decoder.encode.conv1x1.weight.pairs", flip_half, "decoder.encode.conv1x1.weight"),
    ("kokoro", _KOKORO, "decoder.generator.ups.1.weight.int8", flip, "decoder.generator.ups.1.weight"),
    ("kokoro", _KOKORO, "predictor.shared.W.scale", off_by_three_percent, "predictor.shared.W"),
    ("kokoro", _KOKORO, "predictor.shared.R.int8", flip, "predictor.shared.W"),
    ("speecht5", _VOCODER, f"{_FIRST}/w_int8", flip, _FIRST_WEIGHT),
    ("speecht5", _VOCODER, f"{_FIRST}/w_int8", silence, _FIRST_WEIGHT),
    ("speecht5", _VOCODER, f"{_FIRST}/out_gain", off_by_three_percent, _FIRST_WEIGHT),
    ("speecht5", _VOCODER, f"{_SECOND}/w_int8", flip, _SECOND_WEIGHT),
    ("speecht5", _VOCODER, f"{_SECOND}/w_int8", swap, _SECOND_WEIGHT),
    ("speecht5", _DECODER, f"{_UP}.int8", flip, _UP),
    ("speecht5", _DECODER, f"{_UP}.int8", silence, _UP),
    ("speecht5", _DECODER, f"{_UP}.scale", off_by_three_percent, _UP),
    ("speecht5", _ENCODER, "encoder.layers.1.down.weight.int8", flip, "encoder.layers.1.down.weight"),
    (
        "speecht5",
        _ENCODER,
        "encoder.layers.1.down.weight.scale",
        off_by_three_percent,
        "encoder.layers.1.down.weight",
    ),
    ("t3", t3.LANGUAGE_MODEL, f"{_DOWN}.int8", flip, _DOWN),
    ("t3", t3.LANGUAGE_MODEL, f"{_DOWN}.int8", swap, _DOWN),
    ("t3", t3.LANGUAGE_MODEL, f"{_DOWN}.scale", off_by_three_percent, _DOWN),
]


@pytest.mark.parametrize(("name", "graph_name", "constant", "defect", "layer"), DEFECTS)
def test_a_defect_is_found_in_its_layer(
    name: str,
    graph_name: str,
    constant: str,
    defect: Callable,
    layer: str,
    releases: Callable[[str], Release],
    good: Callable[[str], dict[str, LayerError]],
    tmp_path: Path,
) -> None:
    errors = releases(name).errors(planted(releases(name), tmp_path, graph_name, constant, defect))
    (found,) = (e for e in errors if e.layer == layer)
    others = [e for e in errors if e is not found]
    assert found.weight_steps > WRONG_STEPS
    assert max(e.weight_steps for e in others) <= ROUNDING_STEPS
    if defect is off_by_three_percent:
        assert found.weight_gain_error == pytest.approx(0.03, abs=0.005)
        assert max(e.weight_gain_error for e in others) < 0.01
    # What another layer adds has not changed: it was given fp32's output of the one that is wrong. (Between two
    # convolutions or at a table, in steps that are recovered from the weights that are left, or are the table's.)
    for other in others:
        if other.graph == graph_name:
            assert other.isolated_snr_db == pytest.approx(good(name)[other.layer].isolated_snr_db, abs=0.5), other


def test_a_channel_that_is_gone_or_another_s_is_heard_as_well(
    releases: Callable[[str], Release], good: Callable[[str], dict[str, LayerError]], tmp_path: Path
) -> None:
    """Of all channels the loudest: one that is weaker than their mean adds less than that."""
    before = good("speecht5")[_SECOND_WEIGHT]
    exact = ir.load(releases("speecht5").files("fp32")[_VOCODER])
    loudest = int((find_weights(exact)[_SECOND_WEIGHT].array ** 2).sum((1, 2, 3)).argmax())

    def silenced(array: np.ndarray) -> None:
        array[loudest] = 0

    files = planted(releases("speecht5"), tmp_path, _VOCODER, f"{_SECOND}/w_int8", silenced)
    (after,) = (e for e in releases("speecht5").errors(files) if e.layer == _SECOND_WEIGHT)
    assert before.channel_snr_db > 15
    assert after.channel_snr_db < 3
    assert after.isolated_snr_db < before.isolated_snr_db - 6


def test_a_bias_that_is_gone_is_heard(
    releases: Callable[[str], Release], good: Callable[[str], dict[str, LayerError]], tmp_path: Path
) -> None:
    files = planted(releases("kokoro"), tmp_path, _KOKORO, f"{_SNAKE}/b_int32", lambda b: b.fill(0))
    (after,) = (e for e in releases("kokoro").errors(files) if e.layer == _SNAKED)
    assert good("kokoro")[_SNAKED].channel_snr_db > 15
    assert after.channel_snr_db < 5


@pytest.mark.parametrize(("name", "graph"), [("kokoro", _KOKORO), ("speecht5", _VOCODER)])
def test_noise_behind_the_last_layer_is_no_layers_and_is_found(
    name: str,
    graph: str,
    releases: Callable[[str], Release],
    good: Callable[[str], dict[str, LayerError]],
    tmp_path: Path,
) -> None:
    """-60 dB: far below what int8 adds by itself, so that the audio does not tell."""
    files = releases(name).files("int8")
    copy = Path(shutil.copyfile(files[graph], tmp_path / "model.onnx"))
    with damaging(copy) as damaged:
        signals.behind(damaged, signals.noise(1e-3))
    errors = releases(name).errors({**files, graph: copy})
    before, after = layer_metrics(list(good(name).values())), layer_metrics(errors)
    assert before.pop("layer_outputs_snr_db") > 100
    assert after.pop("layer_outputs_snr_db") < 60
    assert after == pytest.approx(before, rel=1e-3)


def test_what_follows_a_defect_has_built_up_and_not_added(
    releases: Callable[[str], Release], good: Callable[[str], dict[str, LayerError]], tmp_path: Path
) -> None:
    files = planted(releases("t3"), tmp_path, t3.LANGUAGE_MODEL, "tfmr.layers.0.mlp.down_proj.weight.scale",
                    lambda scale: np.negative(scale, out=scale))  # fmt: skip
    errors = {e.layer: e for e in releases("t3").errors(files)}
    before, after = good("t3")[_DOWN], errors[_DOWN]
    assert after.isolated_snr_db == before.isolated_snr_db
    assert after.cumulative_snr_db < 10 < before.cumulative_snr_db


def test_weights_in_a_file_of_their_own_are_read_there(releases: Callable[[str], Release]) -> None:
    for variant in ("fp32", "int8"):
        path = releases("t3").files(variant)[t3.LANGUAGE_MODEL]
        assert data_file(path).stat().st_size > 10 * path.stat().st_size


def test_speecht5_decoder_is_fed_a_step_of_its_own_speech(releases: Callable[[str], Release]) -> None:
    release = releases("speecht5")
    (case,) = release.model.cases(release.loaded.config, release.loaded.voices, "brief")
    files = release.files("fp32")
    feeds = speecht5.feeds(files, case, 1)
    (spectrum,) = session(files[_DECODER], 1).run(["spectrum"], dict(feeds[_DECODER]))
    spoken, step = feeds[_VOCODER]["spectrogram"], int(feeds[_DECODER]["position"][0])
    assert step == int(case.inputs["max_steps"]) // 2 > 0
    assert snr_db(spectrum, spoken[step * len(spectrum) : (step + 1) * len(spectrum)]) > 100  # other sums of buffers


def test_t3_language_model_is_fed_a_prompt_and_its_own_speech(releases: Callable[[str], Release]) -> None:
    """All but the last token at once lead to the logits that the last one was chosen by."""
    release = releases("t3")
    (case,) = release.model.cases(release.loaded.config, release.loaded.voices, "brief")
    unguided = Case(case.name, {**case.inputs, "cfg_weight": np.array(0.0)})
    files = release.files("fp32")
    feed = dict(t3.feeds(files, unguided, 1)[t3.LANGUAGE_MODEL])
    feed |= {name: feed[name][:, :-1] for name in ("inputs_embeds", "attention_mask")}
    (logits,) = session(files[t3.LANGUAGE_MODEL], 1).run(["logits"], feed)
    along = t3.runner(files, 1, True).taps(unguided.inputs, ["logits"])["logits"]
    assert snr_db(logits[0, 0], along[-1]) > 100  # one pass sums otherwise than many steps


def test_measuring_changes_nothing_that_a_graph_computes(releases: Callable[[str], Release], tmp_path: Path) -> None:
    """Convolutions stay in integers, tables of leaky ReLUs included; what they make is the same to the bit."""
    path = releases("speecht5").files("int8")[_VOCODER]
    model, feed = ir.load(path), {"spectrogram": normal(0, 20, 80)}
    tensors = [n.outputs[0].name or "" for n in model.graph if n.op_type == "DequantizeLinear"]
    made = run_cut(model, path, ["waveform", *(t for t in tensors if t.endswith("Conv_output_0"))], {}, feed, 1)
    assert len(made) > 10
    np.testing.assert_array_equal(made["waveform"], session(path, 1).run(["waveform"], feed)[0])
    plain = ops_at_run_time(model, tmp_path)
    names = [name for name in made if name != "waveform"]
    model.graph.outputs.extend(v for n in model.graph for v in n.outputs if v.name in names)
    tapped = ops_at_run_time(model, tmp_path)
    assert plain["QLinearConv"] == tapped["QLinearConv"] == len(names)
    assert plain["QLinearLeakyRelu"] == tapped["QLinearLeakyRelu"] > 0


def chained(weight: np.ndarray, bias: np.ndarray) -> tuple[ir.Model, ir.Model, np.ndarray]:
    """Two convolutions and a leaky ReLU between them, in fp32 and in integers; the step of each channel there."""
    model = graph(
        """(float[1,24,N] x) => (float[1,24,N] z) {
            y = Conv <pads=[1,1]> (x, v, b)
            l = LeakyRelu <alpha=0.1> (y)
            z = Conv <pads=[1,1]> (l, w, b)
        }""",
        {"v": weight, "w": normal(1, 24, 24, 3) / 8, "b": bias},
    )
    samples = sample(model, find_weights(model), [{"x": normal(3, 1, 24, 2000)}])
    convs = integers(model, fit_convs(model, samples))
    made = model.clone()
    assert set(quantize(made, RECIPE, convs).values()) == {"static-conv"}
    return model, made, convs["w"].scale


def test_steps_between_two_convolutions_are_recovered_from_their_weights() -> None:
    model, made, scale = chained(normal(0, 24, 24, 3) / 8, normal(2, 24) / 4)
    nodes = {n.outputs[0].name or "": n for n in model.graph if exact_weights(n)}
    outputs = {v.name: v for n in made.graph for v in n.outputs}
    units = units_of(outputs["y"], nodes)
    assert units is not None
    # 72 weights a channel, of some 40 steps, each known to 0.3 steps: a part in a thousand.
    np.testing.assert_allclose(units.gain, scale, rtol=3e-3)
    assert units_of(outputs["z"], nodes) is None


def test_a_silent_channel_raises_no_alarm() -> None:
    """Its weights are as good as nothing, and so is their step: an int32 must hold its zero point in such steps."""
    weight, bias = normal(0, 24, 24, 3) / 8, normal(2, 24) / 4
    weight[5] *= 1e-12
    bias[5] = 1e-9
    model, made, _ = chained(weight, bias)
    nodes = {n.outputs[0].name or "": n for n in model.graph if exact_weights(n)}
    outputs = {v.name: v for n in made.graph for v in n.outputs}
    (holding,) = held(nodes["y"], outputs["y"], nodes)
    raw = np.abs(np.clip(weight / holding.step, -127, 127) - holding.integers)
    assert raw[5].max() > ROUNDING_STEPS
    assert holding.deviation(weight).steps <= ROUNDING_STEPS


def test_a_weight_held_in_no_known_way_is_wrong(releases: Callable[[str], Release], tmp_path: Path) -> None:
    release = releases("kokoro")
    model = ir.load(release.files("int8")[_KOKORO])
    (node,) = (n for n in model.graph if n.name == "decoder.generator.ups.1.weight/value")
    twice = ir.node("Sqrt", [node.inputs[0]], name="other")
    model.graph.insert_before(node, twice)
    node.replace_input_with(0, twice.outputs[0])
    save(model, tmp_path / "graph.onnx")
    (found,) = (
        e for e in release.errors({_KOKORO: tmp_path / "graph.onnx"}) if e.layer == "decoder.generator.ups.1.weight"
    )
    assert (found.scheme, found.weight_steps) == ("unknown", float("inf"))


def test_another_models_graph_is_refused(releases: Callable[[str], Release]) -> None:
    files = {**releases("speecht5").files("int8"), _VOCODER: releases("speecht5").files("int8")[_DECODER]}
    with pytest.raises(OutsideError, match="no tensor named"):
        releases("speecht5").errors(files)


def test_metrics_are_of_the_worst_layer_and_rows_are_json(good: Callable[[str], dict[str, LayerError]]) -> None:
    errors = list(good("kokoro").values())
    bad = dataclasses.replace(errors[3], isolated_snr_db=-1.5, gain_error=0.5, weight_steps=float("inf"))
    metrics = layer_metrics([*errors, bad])
    assert (metrics["layer_worst_snr_db"], metrics["layer_gain_error"]) == (-1.5, 0.5)
    assert metrics["layer_weight_steps"] == float("inf")
    assert metrics["layer_channel_snr_db"] == min(e.channel_snr_db for e in errors)
    listed = json.loads(json.dumps(rows([*errors, bad]), allow_nan=False))
    assert len(listed) == len(errors) + 1
    assert listed[0] == {**dataclasses.asdict(bad), "weight_steps": "inf"}
