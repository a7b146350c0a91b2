"""What can be wrong with a SpeechT5 artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jtts_export.runtime.taps import Arrays, PartRunner

from . import weights
from .common import (
    Damage,
    in_graph,
    in_json,
    of_audio,
    of_streams,
    one_character,
    other_checkpoint,
    other_variant,
    swapped,
    tokens_shifted,
    with_metadata,
    without_metadata,
)
from .defect import Defect, Planting
from .graph_file import RUNNING, GraphFile

MODEL, SAMPLE_RATE_HZ = "speecht5", 16_000
ENCODER, DECODER, VOCODER, CLIENT = "encoder_model", "onnx/decoder", "vocoder/onnx/model", "decoder_model_merged"
_LAYERS = "decoder.layers"


def _masks(change: int | None) -> Damage:
    """The prenet's dropout off: all units kept; or the rows of the next step."""

    def damage(graph: GraphFile) -> None:
        mask = graph.array("prenet_mask")
        graph.set("prenet_mask", np.ones_like(mask) if change is None else np.roll(mask, change, axis=0))

    return damage


def _postnet_skipped(graph: GraphFile) -> None:
    """`mel` is the spectrogram."""
    (node,) = (n for n in graph.graph.node if "mel" in n.output)
    node.op_type = "Identity"
    node.input[:] = ["spectrogram"]
    del node.attribute[:]


def _stop_bias(shift: float) -> Damage:
    def damage(graph: GraphFile) -> None:
        graph.set("decoder.prob_out.bias", graph.array("decoder.prob_out.bias") + np.float32(shift))

    return damage


def _keys_early(graph: GraphFile) -> None:
    """Keys and values of a step are written over those of the step before."""
    attending = [node.name for node in graph.nodes("GroupQueryAttention")]
    graph.splice("total", ("Sub", [RUNNING, np.int32(1)], {}), ("Max", [RUNNING, np.int32(1)], {}))
    steps = ("Sub", [RUNNING, np.int32(1)], {}), ("Max", [RUNNING, np.int32(0)], {})
    graph.splice("position", *steps, users=lambda n: n.name in attending)


def _embedded_position_off(graph: GraphFile) -> None:
    """Each step gets the position before its own, the first its own."""
    steps = ("Sub", [RUNNING, np.int32(1)], {}), ("Max", [RUNNING, np.int32(0)], {})
    graph.splice("position", *steps, users=lambda n: n.name == "prenet/position")


class _Threshold:
    """Speech ends at another probability than the checkpoint's."""

    def __init__(self, runner: PartRunner, threshold: float) -> None:
        self._runner, self._threshold = runner, np.array(threshold)

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        return self._runner.taps({**inputs, "threshold": self._threshold}, wanted, forced)


def _threshold(value: float) -> object:
    def plant(planting: Planting) -> None:
        good = planting.model.runner
        planting.model = replace(planting.model, runner=lambda *a: _Threshold(good(*a), value))  # type: ignore[arg-type]

    return plant


_FP32: list[tuple[str, str, str, Damage]] = [
    ("sign of one weight, encoder", "the largest of a layer", ENCODER, lambda g: weights.flip_sign(g, g.pick("encoder.layers.*.weight"))),
    ("sign of one weight, decoder", "the largest of a layer", DECODER, lambda g: weights.flip_sign(g, g.pick(f"{_LAYERS}.*.weight"))),
    ("sign of one weight, vocoder", "the largest of a block", VOCODER, lambda g: weights.flip_sign(g, g.pick("vocoder.blocks.*.weight"))),
    ("sign of one weight, transformers.js", "of the decoder made for it", CLIENT, lambda g: weights.flip_sign(g, g.pick(f"{_LAYERS}.*.weight"))),
    ("zeroed channel", "of a block of the vocoder", VOCODER, lambda g: weights.zero_channel(g, g.pick("vocoder.blocks.*.weight"))),
    ("zeroed row", "of a feed-forward network of the decoder", DECODER, lambda g: weights.zero_channel(g, g.pick(f"{_LAYERS}.*.down.weight"))),
    ("channels swapped", "of a block of the vocoder", VOCODER, lambda g: weights.swap_channels(g, g.pick("vocoder.blocks.*.weight"))),
    ("layers exchanged", "of the decoder", DECODER, lambda g: weights.exchange(g, f"{_LAYERS}.*.weight")),
    ("bias dropped", "of the keys, queries and values", DECODER, lambda g: weights.clear(g, g.pick(f"{_LAYERS}.*.qkv.bias"))),
    ("norm's epsilon", "1e-5 becomes 1e-2 in the decoder", DECODER, lambda g: weights.set_attribute(g, "SkipLayerNormalization", "epsilon", 1e-2)),
    ("NaN", "in one weight of the decoder", DECODER, lambda g: weights.poison(g, g.pick(f"{_LAYERS}.*.weight"), np.nan)),
]  # fmt: skip

_INT8: list[tuple[str, str, str, Damage]] = [
    ("sign of one weight, DynamicQuantizeMatMul", "of the encoder", ENCODER, lambda g: weights.flip_sign(g, g.pick("encoder.layers.*.int8"))),
    ("sign of one weight, MatMulNBits", "of the decoder", DECODER, lambda g: weights.flip_sign(g, g.pick(f"{_LAYERS}.*.int8"))),
    ("sign of one weight, int8 convolution", "of the vocoder", VOCODER, lambda g: weights.flip_sign(g, g.pick("*/w_int8"))),
    ("sign of one weight, fp16", "of the vocoder", VOCODER, lambda g: weights.flip_sign(g, g.pick("*.fp16"))),
    ("sign of one weight, 4 bits", "of the decoder for transformers.js", CLIENT, lambda g: weights.flip_nibble(g, g.pick("*/high/0"))),
    ("zeroed channel", "of an int8 convolution", VOCODER, lambda g: weights.zero_channel(g, g.pick("*/w_int8"))),
    ("zeroed row", "of a MatMulNBits", DECODER, lambda g: weights.zero_channel(g, g.pick(f"{_LAYERS}.*.int8"))),
    ("channels swapped", "of an int8 convolution", VOCODER, lambda g: weights.swap_channels(g, g.pick("*/w_int8"))),
    ("scale of one convolution", "3 % too large", VOCODER, lambda g: weights.multiply(g, g.pick("*blocks*/w_scale", "*/w_scale"), 1.03)),
    ("scale of one MatMulNBits", "3 % too large", DECODER, lambda g: weights.multiply(g, g.pick(f"{_LAYERS}.*.scale"), 1.03)),
    ("layers exchanged", "integers of two int8 convolutions", VOCODER, lambda g: weights.exchange(g, "*/w_int8")),
    ("bias dropped", "of an int8 convolution", VOCODER, lambda g: weights.clear(g, g.pick("*/b_int32"))),
    ("norm's epsilon", "1e-5 becomes 1e-2 in the decoder", DECODER, lambda g: weights.set_attribute(g, "SkipLayerNormalization", "epsilon", 1e-2)),
    ("fp16 overflow", "one weight times 1e5", VOCODER, lambda g: weights.overflow(g, g.pick("*.fp16"))),
    ("NaN", "in one fp16 weight", VOCODER, lambda g: weights.poison(g, g.pick("*.fp16"), np.nan)),
]  # fmt: skip

_BOTH: list[tuple[str, str, str, Damage]] = [
    ("postnet skipped", "the spectrogram goes to the vocoder as the decoder made it", VOCODER, _postnet_skipped),
    ("dropout off", "of the prenet", DECODER, _masks(None)),
    ("another dropout mask", "each step has that of the next", DECODER, _masks(-1)),
    ("stop bias up", "0.5 is added", DECODER, _stop_bias(0.5)),
    ("stop bias down", "0.5 is taken away", DECODER, _stop_bias(-0.5)),
    ("keys one position early", "a step writes them over those of the step before", DECODER, _keys_early),
    ("position one early", "each step is embedded as the one before", DECODER, _embedded_position_off),
    ("sample rate in the metadata", "22050 Hz", VOCODER, with_metadata("sample_rate", lambda _: "22050")),
    ("metadata key missing", "context_frames", VOCODER, without_metadata("context_frames")),
    ("context too short", "the metadata says half of it", VOCODER, with_metadata("context_frames", lambda v: str(int(v) // 2))),
]  # fmt: skip

_CLIENTS = [
    ("speakers swapped", "two speakers/*.bin, each under the other's name", swapped("speakers/*.bin")),
    ("tokenizer shifted", "every id of tokenizer.json is the next one", in_json("tokenizer.json", lambda c: _shift(c["model"]))),
    ("sample rate", "22050 Hz in vocoder/config.json", in_json("vocoder/config.json", lambda c: c.update(sampling_rate=22050))),
    ("character changed", "one of config.json", one_character("config.json", "hidden_size", "hidden_sizf")),
]  # fmt: skip


def _shift(model: dict) -> None:
    """A unigram's or a vocabulary's."""
    if isinstance(model["vocab"], dict):
        tokens_shifted(model["vocab"])
    else:
        model["vocab"] = [*model["vocab"][1:], model["vocab"][0]]


DEFECTS = [
    *(Defect(n, MODEL, "fp32", w, in_graph(g, d)) for n, w, g, d in _FP32),
    *(Defect(n, MODEL, "int8", w, in_graph(g, d)) for n, w, g, d in _INT8),
    *(Defect(n, MODEL, v, w, in_graph(g, d)) for v in ("fp32", "int8") for n, w, g, d in _BOTH),
    *of_audio(MODEL, VOCODER, ("fp32", "int8"), SAMPLE_RATE_HZ),
    *of_streams(MODEL, "int8", SAMPLE_RATE_HZ),
    Defect("stop threshold", MODEL, "fp32", "the runtime ends speech at 0.9", _threshold(0.9)),
    Defect("stop threshold", MODEL, "int8", "the runtime ends speech at 0.9", _threshold(0.9)),
    *(Defect(n, MODEL, "int8", w, p) for n, w, p in _CLIENTS),
    Defect("another variant's graph", MODEL, "int8", "fp32's under int8's names", other_variant("fp32")),
    Defect("another checkpoint's graph", MODEL, "int8", "made from the next seed", other_checkpoint),
]
