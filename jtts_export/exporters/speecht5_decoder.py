"""SpeechT5's decoder step, written directly in onnxruntime's fused operators (domain com.microsoft).

One frame in, `reduction_factor` frames out. The keys and values of earlier steps lie in buffers that the step
extends in place when they are bound as input and output; given apart, they grow by a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from .builder import MICROSOFT, Builder
from .speecht5_networks import joined, prenet_last


@torch.no_grad()
def decoder_step(model: Any, masks: np.ndarray, opset: int) -> ir.Model:
    """The graph of one step of transformers' SpeechT5ForTextToSpeech.

    masks: u8 [steps, layers, units], the prenet's dropout: 1 keeps a unit. Becomes `prenet_mask`, an initializer
    that a caller may override.

    Inputs: frame [1, mels] (the last one made, zeros at first); position int32 [1] (steps made so far);
    speaker_embeddings [1, size]; key.N [1, heads, head size, tokens] and value.N [1, heads, tokens, head size], as
    the encoder makes them; past_key_values.N.decoder.key and
    .value [1, heads, past, head size]. Outputs: spectrum [reduction, mels], prob [reduction] (of the end), and
    present.N.decoder.key and .value.
    """
    config, b = model.config, Builder("decoder", opset)
    heads, size, mels = config.decoder_attention_heads, config.hidden_size, config.num_mel_bins
    frame = b.input("frame", ir.DataType.FLOAT, [1, mels])
    position = b.input("position", ir.DataType.INT32, [1])
    speaker = b.input("speaker_embeddings", ir.DataType.FLOAT, [1, config.speaker_embedding_dim])
    x = _prenet(b, model, masks, frame, position, speaker)
    one, scalar = b.constant("one", np.int32(1)), b.constant("scalar", np.zeros(0, np.int64))
    total = b.node("Add", [b.node("Reshape", [position, scalar], "steps"), one], "total")
    hidden_shape = b.constant("hidden_shape", np.array([1, 1, size]))
    heads_shape = b.constant("heads_shape", np.array([1, heads, 1, size // heads]))
    x = b.node("Reshape", [x, hidden_shape], "prenet/hidden")
    present = []
    for number, layer in enumerate(model.speecht5.decoder.wrapped_decoder.layers):
        name = f"decoder.layers.{number}"
        attention, cross, forward = layer.self_attn, layer.encoder_attn, layer.feed_forward
        past = [
            b.input(f"past_key_values.{number}.decoder.{part}", ir.DataType.FLOAT, [1, heads, "past", size // heads])
            for part in ("key", "value")
        ]
        both = joined(attention.q_proj, attention.k_proj, attention.v_proj)
        qkv = b.linear(x, f"{name}.self_attn.qkv", both.weight, both.bias)
        mixed, *made = b.nodes(
            "GroupQueryAttention",
            [qkv, None, None, *past, position, total],
            f"{name}.self_attn/mixed",
            outputs=3,
            domain=MICROSOFT,
            num_heads=heads,
            kv_num_heads=heads,
            scale=attention.scaling,
        )
        present += [(f"present.{number}.decoder.{part}", v) for part, v in zip(("key", "value"), made, strict=True)]
        x = _skip_norm(b, mixed, x, f"{name}.self_attn", attention.out_proj, layer.self_attn_layer_norm)
        # MultiHeadAttention would copy every key to transpose it, each step; one query against keys that lie
        # transposed is a product of a vector and a matrix.
        gain = cross.scaling
        query = b.linear(x, f"{name}.encoder_attn.q_proj", cross.q_proj.weight * gain, cross.q_proj.bias * gain)
        query = b.node("Reshape", [query, heads_shape], f"{name}.encoder_attn/query")
        keys = b.input(f"key.{number}", ir.DataType.FLOAT, [1, heads, size // heads, "tokens"])
        values = b.input(f"value.{number}", ir.DataType.FLOAT, [1, heads, "tokens", size // heads])
        scores = b.node("MatMul", [query, keys], f"{name}.encoder_attn/scores")
        shares = b.node("Softmax", [scores], f"{name}.encoder_attn/shares", axis=-1)
        mixed = b.node("MatMul", [shares, values], f"{name}.encoder_attn/values")
        mixed = b.node("Reshape", [mixed, hidden_shape], f"{name}.encoder_attn/mixed")
        x = _skip_norm(b, mixed, x, f"{name}.encoder_attn", cross.out_proj, layer.encoder_attn_layer_norm)
        up = b.matmul(x, f"{name}.up", forward.intermediate_dense.weight)
        bias = b.constant(f"{name}.up.bias", forward.intermediate_dense.bias)
        up = b.node("BiasGelu", [up, bias], f"{name}.up/Gelu", domain=MICROSOFT)
        x = _skip_norm(b, up, x, name, forward.output_dense, layer.final_layer_norm, "down")
    _heads(b, model, x)
    for output, value in present:
        b.output(value, output, [1, heads, "total", size // heads])
    return b.model()


def _prenet(
    b: Builder,
    model: Any,
    masks: np.ndarray,
    frame: ir.Value,
    position: ir.Value,
    speaker: ir.Value,
) -> ir.Value:
    """The prenet of the last frame alone, [1, hidden]."""
    prenet, config = model.speecht5.decoder.prenet, model.config
    mask = b.input("prenet_mask", ir.DataType.UINT8, masks.shape)
    mask.const_value = ir.tensor(masks, name=mask.name)
    b.graph.register_initializer(mask)
    row = b.node("Cast", [b.node("Gather", [mask, position], "prenet/row")], "prenet/mask", to=ir.DataType.FLOAT)
    kept = b.nodes("Split", [row, b.constant("prenet/sizes", np.ones(len(prenet.layers), np.int64))], "prenet/kept",
                   outputs=len(prenet.layers), axis=1)  # fmt: skip
    x = b.node("Reshape", [frame, b.constant("prenet/shape", np.array([1, 1, config.num_mel_bins]))], "prenet/frame")
    gain = 1 / (1 - config.speech_decoder_prenet_dropout)
    for i, layer in enumerate(prenet.layers):
        # relu(x) * gain = relu(x * gain): the weights carry it
        x = b.linear(x, f"decoder.prenet.{i}", layer.weight * gain, layer.bias * gain)
        x = b.node("Mul", [b.node("Relu", [x], f"prenet/{i}/relu"), kept[i]], f"prenet/{i}/dropped")
    hidden = config.hidden_size
    weight, table = prenet_last(prenet, hidden)
    x = b.matmul(x, "decoder.prenet.final", weight)
    at = b.node("Gather", [b.constant("decoder.prenet.positions", table), position], "prenet/position")
    unit = b.node("LpNormalization", [speaker], "prenet/unit", axis=1, p=2)
    speaker = b.matmul(unit, "decoder.prenet.speaker", prenet.speaker_embeds_layer.weight[:, hidden:])
    fixed = b.node("Add", [at, speaker], "prenet/fixed")
    return b.node("Relu", [b.node("Add", [x, fixed], "prenet/sum")], "prenet/x")


def _skip_norm(
    b: Builder,
    mixed: ir.Value,
    skip: ir.Value,
    name: str,
    linear: nn.Linear,
    norm: nn.LayerNorm,
    part: str = "out_proj",
) -> ir.Value:
    """norm(linear(mixed) + skip)."""
    out = b.matmul(mixed, f"{name}.{part}", linear.weight)
    constants = [
        b.constant(f"{name}.{part}.{what}", value)
        for what, value in (("norm", norm.weight), ("shift", norm.bias), ("bias", linear.bias))
    ]
    inputs = [out, skip, *constants]
    return b.node("SkipLayerNormalization", inputs, f"{name}.{part}/norm", domain=MICROSOFT, epsilon=norm.eps)


def _heads(b: Builder, model: Any, x: ir.Value) -> None:
    postnet, config = model.speech_decoder_postnet, model.config
    frames = b.linear(x, "decoder.feat_out", postnet.feat_out.weight, postnet.feat_out.bias)
    shape = [config.reduction_factor, config.num_mel_bins]
    b.output(b.node("Reshape", [frames, b.constant("frames_shape", np.array(shape))], "frames"), "spectrum", shape)
    stop = b.linear(x, "decoder.prob_out", postnet.prob_out.weight, postnet.prob_out.bias)
    stop = b.node("Reshape", [stop, b.constant("stop_shape", np.array([-1]))], "stop")
    b.output(b.node("Sigmoid", [stop], "stop/Sigmoid"), "prob", [config.reduction_factor])
