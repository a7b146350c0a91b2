"""What transformers.js needs of a SpeechT5 release, besides the graphs that our own runtime shares with it.

The release's root is its text-to-speech repository, the folder `vocoder` that of its vocoder. transformers.js feeds
the decoder everything said so far and the encoder's one opaque output: a graph of its own around the same step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from jtts_export.surgery import add_constant, insert, replace

from .files import as_json, write_files

TOKENIZER_CONFIG = {
    "tokenizer_class": "SpeechT5Tokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}


def write_client_files(folder: Path, config: Mapping[str, Any], voices: Mapping[str, np.ndarray]) -> list[Path]:
    """config.json, tokenizer.json, tokenizer_config.json, preprocessor_config.json, vocoder/config.json, and
    speakers/NAME.bin (little-endian float32 [size]). Returns the files in the order written."""
    model, vocoder = config["model"], config["vocoder"]
    contents = {
        "config.json": as_json({**model, "model_type": "speecht5"}),
        "tokenizer.json": as_json(config["tokenizer"]),
        "tokenizer_config.json": as_json({**TOKENIZER_CONFIG, "model_max_length": model["max_text_positions"]}),
        "preprocessor_config.json": as_json(
            {
                "processor_class": "SpeechT5Processor",
                "feature_extractor_type": "SpeechT5FeatureExtractor",
                "feature_size": 1,
                "num_mel_bins": model["num_mel_bins"],
                "sampling_rate": vocoder["sampling_rate"],
            }
        ),
        "vocoder/config.json": as_json({**vocoder, "model_type": "hifigan"}),
        **{f"speakers/{name}.bin": voices[name].astype("<f4").tobytes() for name in sorted(voices)},
    }
    return write_files(folder, contents)


def client_decoder(step: ir.Model) -> ir.Model:
    """The decoder step behind what transformers.js gives it: output_sequence f32 [1, frames, mels],
    encoder_hidden_states (the encoder's encoder_outputs) and use_cache_branch, which is read and ignored.
    Adds the output output_sequence_out: the sequence and the last frame made. transformers.js ends speech where one
    probability reaches its threshold: `prob` [1] is the sum, by which transformers ends it. It hands the empty
    past_key_values.N.encoder.key and .value on, and would complain of a graph without them."""
    model = step.clone()
    _four_bits(model)
    graph = model.graph
    first, taken = graph[0], {v.name: v for v in graph.inputs}
    mels = taken["frame"].shape[1]  # type: ignore[index]
    key = taken["key.0"].shape
    assert key is not None
    _, heads, size, _ = key
    layers = sum(1 for name in taken if (name or "").startswith("key."))

    def constant(name: str, value: Any) -> ir.Value:
        return add_constant(graph, f"client/{name}", np.array(value, np.int64))

    def given(name: str, dtype: ir.DataType, shape: list) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
        graph.inputs.append(value)
        return value

    sequence = given("output_sequence", ir.DataType.FLOAT, [1, "frames", mels])
    packed = given("encoder_hidden_states", ir.DataType.FLOAT, [1, "tokens", 2 * layers * heads * size])
    given("encoder_attention_mask", ir.DataType.INT64, [1, "tokens"])
    given("use_cache_branch", ir.DataType.BOOL, [1])

    last, axis = constant("last", -1), constant("axis", [0])
    made = insert(first, "Shape", [sequence], "client/frames", start=1, end=2)
    past = insert(first, "Sub", [made, constant("one", [1])], "client/past")
    replacing = {
        "frame": insert(first, "Gather", [sequence, last], "client/frame", axis=1),
        "position": insert(first, "Cast", [past], "client/position", to=ir.DataType.INT32),
    }
    shape = constant("shape", [-1, 2 * layers, heads, size])
    split = insert(first, "Reshape", [packed, shape], "client/split")
    turned = {
        "key": insert(first, "Transpose", [split], "client/keys", perm=[1, 2, 3, 0]),
        "value": insert(first, "Transpose", [split], "client/values", perm=[1, 2, 0, 3]),
    }
    for i in range(layers):
        for j, part in enumerate(turned):
            name = f"client/{part}/{i}"
            one = insert(first, "Gather", [turned[part], constant(f"{part}/{i}/at", 2 * i + j)], name, axis=0)
            replacing[f"{part}.{i}"] = insert(first, "Unsqueeze", [one, axis], f"{name}/batch")
    for name, value in replacing.items():
        taken[name].replace_all_uses_with(value)
        graph.inputs.remove(taken[name])

    spectrum = next(v for v in graph.outputs if v.name == "spectrum")
    frame = ir.node("Gather", [spectrum, constant("newest", [-1])], {"axis": 0}, name="client/newest_frame")
    batch = ir.node("Unsqueeze", [frame.outputs[0], axis], name="client/newest_batch")
    longer = ir.node("Concat", [sequence, batch.outputs[0]], {"axis": 1}, name="client/longer")
    for node in (frame, batch, longer):
        node.outputs[0].name = node.name
        graph.append(node)
    out = longer.outputs[0]
    out.name, out.type = "output_sequence_out", ir.TensorType(ir.DataType.FLOAT)
    out.shape = ir.Shape([1, "longer", mels])
    graph.outputs.insert(0, out)

    prob = next(v for v in graph.outputs if v.name == "prob")
    each, at = ir.Value(name="prob"), graph.outputs.index(prob)
    prob.name = "client/prob"
    total = ir.node("ReduceSum", [prob, axis], {"keepdims": 1}, outputs=[each], name="client/prob_sum")
    graph.append(total)
    each.type, each.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([1])
    graph.outputs[at] = each
    for name in [f"{i}.encoder.{part}" for i in range(layers) for part in ("key", "value")]:
        past = given(
            f"past_key_values.{name}", ir.DataType.FLOAT, [1, "encoder_heads", "encoder_past", "encoder_size"]
        )
        same = ir.node("Identity", [past], name=f"client/present.{name}")
        graph.append(same)
        present = same.outputs[0]
        present.name, present.type, present.shape = f"present.{name}", past.type, past.shape
        graph.outputs.append(present)
    return model


def _four_bits(model: ir.Model) -> None:
    """Products of 8-bit weights as sums of two of their 4-bit halves: onnxruntime 1.21, which transformers.js
    brings, knows no others. scale (q - 128) = 16 scale (high - 8) + scale (low - 0)."""
    graph = model.graph
    for node in [n for n in graph if n.op_type == "MatMulNBits" and n.attributes.get_int("bits") == 8]:
        x, weight, scale = node.inputs[:3]
        assert x is not None and weight is not None and scale is not None
        stored, steps = (v.const_value.numpy() for v in (weight, scale))  # type: ignore[union-attr]
        attributes = {a: node.attributes.get_int(a) for a in ("K", "N", "block_size", "accuracy_level")} | {"bits": 4}
        zeros = np.zeros(len(stored) * -(-stored.shape[1] // 2), np.uint8)
        halves = []
        for half, bits, gain, zero in (("high", stored >> 4, 16, []), ("low", stored & 15, 1, [zeros])):
            name = f"{node.name}/{half}"
            packed = bits[..., 0::2] | bits[..., 1::2] << 4
            constants = [packed, (steps * gain).astype(np.float32), *zero]
            inputs = [add_constant(graph, f"{name}/{i}", array) for i, array in enumerate(constants)]
            halves.append(insert(node, "MatMulNBits", [x, *inputs], name, domain=node.domain, **attributes))
        replace(node.outputs[0], insert(node, "Add", halves, f"{node.name}/sum"))
        graph.remove(node, safe=True)
        for value in (weight, scale):
            if not value.uses():
                del graph.initializers[value.name]  # type: ignore[arg-type]
