"""What can be wrong with a SpeechT5 artifact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from jtts_export.runtime.taps import Arrays
from jtts_export.validate.runner import Runner

from . import weights
from .common import (
    in_graph,
    in_json,
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
from .graph_file import RUNNING, GraphFile, Step
from .weights import Damage

MODEL, SAMPLE_RATE_HZ = "speecht5", 16_000
ENCODER, DECODER, VOCODER, CLIENT = "encoder_model", "onnx/decoder", "vocoder/onnx/model", "decoder_model_merged"
_LAYERS = "decoder.layers"
_ONE_LESS: list[Step] = [("Sub", [RUNNING, np.int32(1)], {}), ("Max", [RUNNING, np.int32(0)], {})]


def _dropout_off(graph: GraphFile) -> None:
    graph.set("prenet_mask", np.ones_like(graph.array("prenet_mask")))


def _postnet_skipped(graph: GraphFile) -> None:
    """`mel` is the spectrogram."""
    (node,) = (n for n in graph.graph.node if "mel" in n.output)
    node.op_type = "Identity"
    node.input[:] = ["spectrogram"]
    del node.attribute[:]


def _keys_early(graph: GraphFile) -> None:
    """Keys and values of a step are written over those of the step before."""
    attending = [node.name for node in graph.nodes("GroupQueryAttention")]
    graph.splice("total", ("Sub", [RUNNING, np.int32(1)], {}), ("Max", [RUNNING, np.int32(1)], {}))
    graph.splice("position", *_ONE_LESS, users=lambda n: n.name in attending)


def _embedded_position_off(graph: GraphFile) -> None:
    """Each step gets the position before its own, the first its own."""
    graph.splice("position", *_ONE_LESS, users=lambda n: n.name == "prenet/position")


class _Threshold:
    """Speech ends at another probability than the checkpoint's."""

    def __init__(self, runner: Runner, threshold: float) -> None:
        self._runner, self._threshold = runner, np.array(threshold)

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        return self._runner.taps({**inputs, "threshold": self._threshold}, wanted, forced)


def _threshold(value: float) -> Callable[[Planting], None]:
    def plant(planting: Planting) -> None:
        good = planting.model.runner
        planting.model = replace(planting.model, runner=lambda *a: _Threshold(good(*a), value))

    return plant


_BLOCK, _PRODUCT, _INTEGERS = "vocoder.blocks.*.weight", f"{_LAYERS}.*.weight", "*/w_int8"
_EPSILON = weights.attribute("SkipLayerNormalization", "epsilon", 1e-2)
_HALF = with_metadata("context_frames", lambda value: str(int(value) // 2))

_FP32: list[tuple[str, str, str, Damage]] = [
    ("sign of one weight, encoder", "of a layer", ENCODER, weights.flip_sign("encoder.layers.*.weight")),
    ("sign of one weight, decoder", "of a layer", DECODER, weights.flip_sign(_PRODUCT)),
    ("sign of one weight, vocoder", "of a block", VOCODER, weights.flip_sign(_BLOCK)),
    ("sign of one weight, transformers.js", "of the decoder made for it", CLIENT, weights.flip_sign(_PRODUCT)),
    ("zeroed channel", "of a block of the vocoder", VOCODER, weights.zero_channel(_BLOCK)),
    ("zeroed row", "of the decoder's feed-forward", DECODER, weights.zero_channel(f"{_LAYERS}.*.down.weight")),
    ("channels swapped", "of a block of the vocoder", VOCODER, weights.swap_channels(_BLOCK)),
    ("layers exchanged", "of the decoder", DECODER, weights.exchange(_PRODUCT)),
    ("bias dropped", "of keys, queries and values", DECODER, weights.clear(f"{_LAYERS}.*.qkv.bias")),
    ("NaN", "in one weight of the decoder", DECODER, weights.poison(np.nan, _PRODUCT)),
]

_INT8: list[tuple[str, str, str, Damage]] = [
    ("sign of one weight, dynamic int8", "of the encoder", ENCODER, weights.flip_sign("encoder.layers.*.int8")),
    ("sign of one weight, MatMulNBits", "of the decoder", DECODER, weights.flip_sign(f"{_LAYERS}.*.int8")),
    ("sign of one weight, int8 convolution", "of the vocoder", VOCODER, weights.flip_sign(_INTEGERS)),
    ("sign of one weight, fp16", "of the vocoder", VOCODER, weights.flip_sign("*.fp16")),
    ("sign of one weight, 4 bits", "of the decoder for transformers.js", CLIENT, weights.flip_nibble("*/high/0")),
    ("zeroed channel", "of an int8 convolution", VOCODER, weights.zero_channel(_INTEGERS)),
    ("zeroed row", "of a MatMulNBits", DECODER, weights.zero_channel(f"{_LAYERS}.*.int8")),
    ("channels swapped", "of an int8 convolution", VOCODER, weights.swap_channels(_INTEGERS)),
    ("scale of one convolution", "3 % too large", VOCODER, weights.multiply(1.03, "*blocks*/w_scale", "*/w_scale")),
    ("scale of one MatMulNBits", "3 % too large", DECODER, weights.multiply(1.03, f"{_LAYERS}.*.scale")),
    ("layers exchanged", "integers of two int8 convolutions", VOCODER, weights.exchange(_INTEGERS)),
    ("bias dropped", "of an int8 convolution", VOCODER, weights.clear("*/b_int32")),
    ("fp16 overflow", "one weight times 1e5", VOCODER, weights.overflow(1e5, "*.fp16")),
    ("NaN", "in one fp16 weight", VOCODER, weights.poison(np.nan, "*.fp16")),
]

_BOTH: list[tuple[str, str, str, Damage]] = [
    ("norm's epsilon", "1e-5 becomes 1e-2 in the decoder", DECODER, _EPSILON),
    ("postnet skipped", "the decoder's spectrogram goes to the vocoder", VOCODER, _postnet_skipped),
    ("dropout off", "of the prenet", DECODER, _dropout_off),
    ("another dropout mask", "each step has that of the next", DECODER, weights.roll(-1, "prenet_mask")),
    ("stop bias up", "0.5 is added", DECODER, weights.add(0.5, "decoder.prob_out.bias")),
    ("stop bias down", "0.5 is taken away", DECODER, weights.add(-0.5, "decoder.prob_out.bias")),
    ("keys one position early", "a step writes them over those of the step before", DECODER, _keys_early),
    ("position one early", "each step is embedded as the one before", DECODER, _embedded_position_off),
    ("sample rate in the metadata", "22050 Hz", VOCODER, with_metadata("sample_rate", lambda _: "22050")),
    ("metadata key missing", "context_frames", VOCODER, without_metadata("context_frames")),
    ("context too short", "the metadata says half of it", VOCODER, _HALF),
]


def _vocoder_rate(config: dict) -> None:
    config["sampling_rate"] = 22_050


_CLIENTS = [
    ("speakers swapped", "two speakers/*.bin, each under the other's name", swapped("speakers/*.bin")),
    ("tokenizer shifted", "every id of tokenizer.json is the next one", shifted("tokenizer.json", "model", "vocab")),
    ("sample rate", "22050 Hz in vocoder/config.json", in_json("vocoder/config.json", _vocoder_rate)),
    ("character changed", "one of config.json", one_character("config.json", "hidden_size", "hidden_sizf")),
]

DEFECTS = [
    *(Defect(n, MODEL, "fp32", w, in_graph(g, d)) for n, w, g, d in _FP32),
    *(Defect(n, MODEL, "int8", w, in_graph(g, d)) for n, w, g, d in _INT8),
    *(Defect(n, MODEL, v, w, in_graph(g, d)) for v in ("fp32", "int8") for n, w, g, d in _BOTH),
    *of_audio(MODEL, VOCODER, ("fp32", "int8"), SAMPLE_RATE_HZ),
    *of_streams(MODEL, "int8", SAMPLE_RATE_HZ),
    Defect("stop threshold", MODEL, "fp32", "the runtime ends speech at 0.9", _threshold(0.9)),
    Defect("stop threshold", MODEL, "int8", "the runtime ends speech at 0.9", _threshold(0.9)),
    *(Defect(n, MODEL, "fp32", w, p) for n, w, p in _CLIENTS),
    Defect("another variant's graph", MODEL, "int8", "fp32's under int8's names", other_variant("fp32")),
    Defect("another checkpoint's graph", MODEL, "int8", "made from the next seed", other_checkpoint),
]
