"""What can be wrong with a Kokoro artifact."""

from __future__ import annotations

import numpy as np

from jtts_export.runtime.draws import source_noise

from . import weights
from .common import (
    in_graph,
    of_audio,
    of_streams,
    one_character,
    other_checkpoint,
    other_variant,
    shifted,
    swapped,
    with_metadata,
    without_metadata,
)
from .defect import Defect, Planting
from .graph_file import RUNNING, GraphFile, rewrite
from .weights import Damage

MODEL, GRAPH, SAMPLE_RATE_HZ = "kokoro", "model", 24_000
_BLOCKS = "decoder.generator.resblocks"
_FLOAT, _INT32 = 1, 6  # onnx's numbers of types
UNSAID = 66  # 'x', as in "loch": in no sentence to validate with
VOICE_ROWS = 510  # of the authors' voices


def _speed_integer(graph: GraphFile) -> None:
    graph.splice("speed", ("Cast", [RUNNING], {"to": _INT32}), ("Cast", [RUNNING], {"to": _FLOAT}))


def _speed_ignored(graph: GraphFile) -> None:
    graph.splice("speed", ("Mul", [RUNNING, np.float32(0)], {}), ("Add", [RUNNING, np.float32(1)], {}))


def _durations_off(graph: GraphFile) -> None:
    graph.splice("duration", ("Add", [RUNNING, np.int64(1)], {}))


def _durations_down(graph: GraphFile) -> None:
    (node,) = graph.nodes("Round", "*predictor*")
    node.op_type = "Floor"


def _voice_rows_shifted(planting: Planting) -> None:
    """Row i holds what row i + 1 should. Raises LookupError where all are the same."""
    path = sorted((planting.clients / "voices").glob("*.bin"))[0]
    raw = path.read_bytes()
    width = len(raw) // VOICE_ROWS
    shifted_rows = raw[width:] + raw[:width]
    if shifted_rows == raw:
        raise LookupError(f"the rows of {path.name} are all the same")
    rewrite(path, shifted_rows)


def _tokens_txt(planting: Planting) -> None:
    path = planting.clients / "clients/sherpa-onnx/tokens.txt"
    tokens, ids = zip(*(line.rsplit(" ", 1) for line in path.read_text(encoding="utf-8").splitlines()), strict=True)
    lines = [f"{token} {i}\n" for token, i in zip(tokens, [*ids[1:], ids[0]], strict=True)]
    rewrite(path, "".join(lines).encode())


def _noise_of_another_draw(graph: GraphFile) -> None:
    graph.set("source_noise", source_noise(7))


_CONVOLUTION, _FEED_FORWARD = f"{_BLOCKS}.*.weight", "bert.encoder.*ffn.weight"
_EMBEDDING = "bert.embeddings.word_embeddings.weight"
_INTEGERS = "*/w_int8"

_FP32: list[tuple[str, str, Damage]] = [
    ("sign of one weight, convolution", f"{_BLOCKS}, the largest", weights.flip_sign(_CONVOLUTION)),
    ("sign of one weight, ALBERT", "of its feed-forward network", weights.flip_sign(_FEED_FORWARD)),
    ("sign of one weight, LSTM", "of the predictor", weights.flip_sign("predictor.lstm*.W", "predictor.*lstm*.W")),
    ("zeroed channel", f"one output channel of {_BLOCKS}", weights.zero_channel(_CONVOLUTION)),
    ("zeroed row", "of ALBERT's feed-forward network", weights.zero_channel(_FEED_FORWARD)),
    ("channels swapped", f"two output channels of {_BLOCKS}", weights.swap_channels(_CONVOLUTION)),
    ("layers exchanged", f"two layers of {_BLOCKS}", weights.exchange(_CONVOLUTION)),
    ("bias dropped", f"of a layer of {_BLOCKS}", weights.clear(f"{_BLOCKS}.*.convs2.*.bias")),
    ("NaN", "in one weight", weights.poison(np.nan, _CONVOLUTION)),
    ("token's embedding", "negated, of a token that no sentence has", weights.negate_row(UNSAID, _EMBEDDING)),
]

_INT8: list[tuple[str, str, Damage]] = [
    ("sign of one weight, int8 convolution", "the largest", weights.flip_sign(_INTEGERS)),
    ("sign of one weight, fp16", "of ALBERT", weights.flip_sign("bert.encoder.*.fp16", "bert*.fp16")),
    ("sign of one weight, 4 bits", "of the text encoder", weights.flip_sign("text_encoder.cnn*.pairs")),
    ("sign of one weight, stored int8", "the largest", weights.flip_sign("*.int8")),
    ("zeroed channel", "of an int8 convolution", weights.zero_channel(_INTEGERS)),
    ("channels swapped", "of an int8 convolution", weights.swap_channels(_INTEGERS)),
    ("scale of one convolution", "3 % too large", weights.multiply(1.03, "*resblocks*/w_scale")),
    ("layers exchanged", "integers of two int8 convolutions", weights.exchange(_INTEGERS)),
    ("bias dropped", "of an int8 convolution", weights.clear("*resblocks*convs2*/b_int32")),
    ("fp16 overflow", "one weight times 1e5", weights.overflow(1e5, "decoder*.fp16", "*.fp16")),
    ("NaN", "in one fp16 weight", weights.poison(np.nan, "decoder*.fp16", "*.fp16")),
    ("token's embedding", "negated, of a token that no sentence has", weights.negate_row(UNSAID, f"{_EMBEDDING}*")),
]

_BOTH: list[tuple[str, str, Damage]] = [
    (
        "norm's epsilon",
        "1e-5 becomes 1e-2 in ALBERT",
        weights.attribute("LayerNormalization", "epsilon", 1e-2, "*bert*"),
    ),
    ("integer speed", "speed goes through int32", _speed_integer),
    ("speed ignored", "it is 1 always", _speed_ignored),
    ("durations off by one", "one frame more for every token", _durations_off),
    ("durations rounded down", "floor in place of round", _durations_down),
    ("noise of another draw", "the source's, of another seed", _noise_of_another_draw),
    ("noise zero", "the source's", weights.clear("source_noise")),
    ("sample rate in the metadata", "22050 Hz", with_metadata("sample_rate", lambda _: "22050")),
    ("metadata key missing", "style_dim", without_metadata("style_dim")),
]


_CLIENTS = [
    ("voices swapped", "two voices/*.bin, each under the other's name", swapped("voices/*.bin")),
    ("voice's rows shifted", "row i of a voice holds row i + 1", _voice_rows_shifted),
    ("tokenizer shifted", "every id of tokenizer.json is the next one", shifted("tokenizer.json", "model", "vocab")),
    ("tokens.txt shifted", "sherpa-onnx's: every id is the next one", _tokens_txt),
    ("vocabulary shifted", "every id of config.json's vocab is the next one", shifted("config.json", "vocab")),
    ("character changed", "one of config.json", one_character("config.json", "style_dim", "style_din")),
]

DEFECTS = [
    *(Defect(n, MODEL, "fp32", w, in_graph(GRAPH, d)) for n, w, d in _FP32),
    *(Defect(n, MODEL, "int8", w, in_graph(GRAPH, d)) for n, w, d in _INT8),
    *(Defect(n, MODEL, v, w, in_graph(GRAPH, d)) for v in ("fp32", "int8") for n, w, d in _BOTH),
    *of_audio(MODEL, GRAPH, ("fp32", "int8"), SAMPLE_RATE_HZ),
    *of_streams(MODEL, "int8", SAMPLE_RATE_HZ),
    *(Defect(n, MODEL, "fp32", w, p) for n, w, p in _CLIENTS),
    Defect("another variant's graph", MODEL, "int8", "fp32's under int8's name", other_variant("fp32")),
    Defect("another checkpoint's graph", MODEL, "int8", "made from the next seed", other_checkpoint),
]
