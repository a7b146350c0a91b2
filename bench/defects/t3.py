"""What can be wrong with a T3 artifact."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from jtts_export.runtime.taps import Arrays
from jtts_export.validate.runner import Runner

from . import weights
from .common import (
    in_graph,
    one_character,
    other_checkpoint,
    other_variant,
    shifted,
    swapped,
    truncated_data,
    with_metadata,
    without_metadata,
)
from .defect import Defect, Planting
from .graph_file import RUNNING, GraphFile
from .weights import Damage

MODEL = "t3"
_INT64 = 7  # onnx's number of the type
CONDITIONING, EMBED, LANGUAGE_MODEL = "conditioning", "embed_tokens", "language_model"
OTHER_THETA = 10_000.0  # Llama 2's; T3 has Llama 3's 500000
UNSAID = 6560  # the last speech token below the start
WINDOW = 32  # positions


def _text_positions_off(graph: GraphFile) -> None:
    graph.splice("position_ids", ("Add", [RUNNING, np.int64(1)], {}), users=_takes("text_pos_emb.emb.weight/index"))


def _speech_positions_off(graph: GraphFile) -> None:
    graph.splice("position_ids", ("Add", [RUNNING, np.int64(1)], {}), users=_takes("speech_pos_emb.emb.weight/index"))


def _start_at_one(graph: GraphFile) -> None:
    """The start of speech has position 0, in the prompt and behind it."""
    is_start = "position_ids/planted/0"
    graph.splice(
        "position_ids",
        ("Equal", ["input_ids", "start_speech"], {}),
        ("Where", [is_start, np.int64(1), "position_ids"], {}),
        users=_takes("speech_pos_emb.emb.weight/index"),
    )


def _takes(name: str) -> Callable[[object], bool]:
    return lambda node: node.name == name  # type: ignore[attr-defined]


def _exaggeration_ignored(graph: GraphFile) -> None:
    """It is 0.5, the default, always."""
    graph.splice("exaggeration", ("Mul", [RUNNING, np.float32(0)], {}), ("Add", [RUNNING, np.float32(0.5)], {}))


def _perceiver_once(graph: GraphFile) -> None:
    """Its second pass, over its own output, is left out."""
    ahead, behind = (graph.nodes("Add", f"/cond_enc/perceiver/attn{n}/Add_3")[0].output[0] for n in ("", "_1"))
    (user,) = graph.users(behind)
    graph.redirect(user, behind, ahead)


def _keys_early(graph: GraphFile) -> None:
    """A step behind the prompt writes its keys and values over those of the position before."""
    graph.splice(
        "mask/total",
        ("Shape", ["inputs_embeds"], {"start": 1, "end": 2}),
        ("Equal", [RUNNING, np.array([1])], {}),
        ("Cast", [RUNNING], {"to": _INT64}),
        ("Squeeze", [RUNNING], {}),
        ("Sub", ["mask/total/whole", RUNNING], {}),
    )
    graph.splice("mask/last", ("Sub", [RUNNING, "mask/total/planted/3"], {}))
    if graph.nodes("Mean", "aligned"):  # in the shape that the runtime waits for
        graph.splice(
            "alignment",
            ("Mul", ["mask/total/planted/2", np.array([0, 0, 0, 1])], {}),
            ("Pad", ["alignment/whole", RUNNING], {}),
        )


def _other_theta(graph: GraphFile) -> None:
    """The rotary tables as if frequencies were those of another base: without what Llama 3 does to them."""
    positions, half = graph.array("rotary.cos").shape
    angles = np.arange(positions)[:, None] / OTHER_THETA ** (np.arange(half) / half)
    graph.set("rotary.cos", np.cos(angles).astype(np.float32))
    graph.set("rotary.sin", np.sin(angles).astype(np.float32))


def _head_swapped(graph: GraphFile) -> None:
    """One of the heads that follow the text is another head of its layer."""
    node = graph.nodes("Gather", "*.aligned.*")[0]
    old = int(graph.array(node.input[1]))
    heads = next(a.i for a in graph.nodes("GroupQueryAttention")[0].attribute if a.name == "num_heads")
    node.input[1] = graph.constant("aligned/planted", np.int64((old + 1) % heads))


class _Changed:
    """A runner that gets other inputs."""

    def __init__(self, runner: Runner, change: Callable[[Arrays], Arrays]) -> None:
        self._runner, self._change = runner, change
        self._known: dict[int, tuple[Arrays, Arrays]] = {}  # the runner knows inputs by their identity

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        given = self._known.setdefault(id(inputs), (inputs, self._change(inputs)))
        return self._runner.taps(given[1], wanted, forced)


def _with_inputs(change: Callable[[Arrays], Arrays]) -> Callable[[Planting], None]:
    def plant(planting: Planting) -> None:
        good = planting.model.runner
        planting.model = replace(planting.model, runner=lambda *a: _Changed(good(*a), change))

    return plant


def _without_weight(inputs: Arrays) -> Arrays:
    return {name: value for name, value in inputs.items() if name != "cfg_weight"}


def _other_stop(value: str) -> str:
    config = json.loads(value)
    config["stop_speech"] = config["start_speech"]
    return json.dumps(config)


_PRODUCT, _DOWN, _OUT = "tfmr.layers.*_proj.weight", "tfmr.layers.*.down_proj.weight", "tfmr.layers.*.o_proj.weight"
_BIAS, _HALVES = "cond_enc.*.bias", "*.fp16"
_EPSILON = weights.attribute("SkipSimplifiedLayerNormalization", "epsilon", 1e-2)
_WINDOW = weights.attribute("GroupQueryAttention", "local_window_size", WINDOW)
_LOST_ROW = weights.negate_row(UNSAID, "speech_emb.weight*")

_FP32: list[tuple[str, str, str, Damage]] = [
    ("sign of one weight, language model", "of a layer", LANGUAGE_MODEL, weights.flip_sign(_PRODUCT)),
    ("sign of one weight, speech head", "of one token", LANGUAGE_MODEL, weights.flip_sign("speech_head.weight")),
    ("sign of one weight, conditioning", "the largest", CONDITIONING, weights.flip_sign("cond_enc.*.weight")),
    ("zeroed row", "of a product of the language model", LANGUAGE_MODEL, weights.zero_channel(_DOWN)),
    ("channels swapped", "of such a product", LANGUAGE_MODEL, weights.swap_channels(_DOWN, axis=1)),
    ("layers exchanged", "of the language model", LANGUAGE_MODEL, weights.exchange(_OUT)),
    ("NaN", "in one weight", LANGUAGE_MODEL, weights.poison(np.nan, _PRODUCT)),
]

_INT8: list[tuple[str, str, str, Damage]] = [
    ("sign of one weight, MatMulNBits", "of a layer", LANGUAGE_MODEL, weights.flip_sign("tfmr.layers.*.int8")),
    ("sign of one weight, fp16", "of the conditioning", CONDITIONING, weights.flip_sign(_HALVES)),
    ("zeroed row", "of a MatMulNBits", LANGUAGE_MODEL, weights.zero_channel(f"{_DOWN}.int8")),
    ("channels swapped", "of a MatMulNBits", LANGUAGE_MODEL, weights.swap_channels(f"{_DOWN}.int8")),
    ("scale of one MatMulNBits", "3 % too large", LANGUAGE_MODEL, weights.multiply(1.03, "tfmr.layers.*.scale")),
    ("layers exchanged", "integers of two products", LANGUAGE_MODEL, weights.exchange(f"{_OUT}.int8")),
    ("fp16 overflow", "one weight times 1e7", CONDITIONING, weights.overflow(1e7, _HALVES)),
    ("NaN", "in one fp16 weight", CONDITIONING, weights.poison(np.nan, _HALVES)),
]

_BOTH: list[tuple[str, str, str, Damage]] = [
    ("bias dropped", "of the perceiver", CONDITIONING, weights.clear(_BIAS)),
    ("norm's epsilon", "1e-2 in the language model", LANGUAGE_MODEL, _EPSILON),
    ("token's embedding", "negated, of a speech token that nobody says", EMBED, _LOST_ROW),
    ("keys one position early", "a step writes over the one before", LANGUAGE_MODEL, _keys_early),
    ("rotary table of another base", "10000, without Llama 3's scaling", LANGUAGE_MODEL, _other_theta),
    ("rotary sines one late", "by one position", LANGUAGE_MODEL, weights.roll(1, "rotary.sin")),
    ("attention window", f"{WINDOW} positions", LANGUAGE_MODEL, _WINDOW),
    ("alignment head swapped", "one of them is its neighbour", LANGUAGE_MODEL, _head_swapped),
    ("text positions off by one", "all of them", EMBED, _text_positions_off),
    ("speech positions off by one", "all of them", EMBED, _speech_positions_off),
    ("start of speech at position 1", "instead of 0", EMBED, _start_at_one),
    ("exaggeration ignored", "it is 0.5 always", EMBED, _exaggeration_ignored),
    ("perceiver applied once", "instead of twice", CONDITIONING, _perceiver_once),
    ("metadata key missing", "t3_config", EMBED, without_metadata("t3_config")),
    ("metadata's stop token", "is the start", EMBED, with_metadata("t3_config", _other_stop)),
]

_CLIENTS = [
    ("voices swapped", "two voices, each under the other's name", swapped("voices/*.safetensors")),
    ("tokenizer shifted", "every id of tokenizer.json is the next one", shifted("tokenizer.json", "model", "vocab")),
    ("character changed", "one of config.json", one_character("config.json", "hidden_size", "hidden_sizf")),
]

DEFECTS = [
    *(Defect(n, MODEL, "fp32", w, in_graph(g, d)) for n, w, g, d in _FP32),
    *(Defect(n, MODEL, "int8", w, in_graph(g, d)) for n, w, g, d in _INT8),
    *(Defect(n, MODEL, v, w, in_graph(g, d)) for v in ("fp32", "int8") for n, w, g, d in _BOTH),
    *(
        Defect("guidance weight ignored", MODEL, v, "the runtime's default always", _with_inputs(_without_weight))
        for v in ("fp32", "int8")
    ),
    *(Defect(n, MODEL, "fp32", w, p) for n, w, p in _CLIENTS),
    Defect("file of weights truncated", MODEL, "int8", "its last tenth", truncated_data(LANGUAGE_MODEL)),
    Defect("another variant's graph", MODEL, "int8", "fp32's under int8's names", other_variant("fp32")),
    Defect("another checkpoint's graph", MODEL, "int8", "made from the next seed", other_checkpoint),
]
