"""T3's Llama in onnxruntime's fused operators: one graph for the prompt and for every step after it.

Wherever a channel's scale is free (between a norm's gain and the products behind it, between values and the output
projection, between the two halves of the feed-forward network) it is set so that both sides reach equally far: what
a checkpoint keeps in outlying channels costs integers nothing then. The factors are powers of two, so that in
float32 nothing changes at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from jtts_export.models.t3.model import T3, rotary_tables

from .builder import MICROSOFT, Builder

LARGEST_EXPONENT = 24  # of a factor; channels that are all zero would ask for more


@torch.no_grad()
def language_model(model: T3, opset: int) -> ir.Model:
    """The graph of models.t3.model.T3.forward() and the speech head, on the last position alone. Weights are made
    when they are written.

    Inputs: inputs_embeds [batch, sequence, hidden]; attention_mask int64 [batch, total], all ones, of what came
    before and `sequence`; past_key_values.N.key and .value [batch, heads, past, head size]. Outputs: logits
    [batch, 1, speech vocabulary], present.N.key and .value, and where the checkpoint has alignment heads their
    mean attention in the first row, alignment [sequence, total].

    Keys and values lie in buffers that the graph extends in place when one is bound as past and present; given
    apart, they grow. Behind a past, a batch of several rows takes one position at a time.
    """
    config, b = model.config, Builder("language_model", opset)
    embeds = b.input("inputs_embeds", ir.DataType.FLOAT, ["batch", "sequence", config.hidden_size])
    mask = b.input("attention_mask", ir.DataType.INT64, ["batch", "total"])
    shared = [*_lengths(b, mask), *_rotary(b, model)]
    layers: list[Any] = list(model.tfmr.layers)
    following = [*((layer.input_layernorm, _qkv(layer)) for layer in layers), (model.tfmr.norm, [model.speech_head])]
    gain = _free_gain(*following[0])
    x, skip = _norm(b, embeds, layers[0].input_layernorm.weight * gain, config.rms_eps), embeds
    present: list[tuple[str, ir.Value]] = []
    aligned: list[ir.Value] = []
    for number, layer in enumerate(layers):
        name = f"tfmr.layers.{number}"
        heads = [head for at, head in config.alignment_heads if at == number]
        mixed, made, attention = _attention(b, number, layer, x, shared, gain, config, bool(heads))
        present += made
        aligned += [b.node("Gather", [attention, b.constant(f"{name}.head.{h}", np.int64(h))],
                           f"{name}.aligned.{h}", axis=1) for h in heads]  # fmt: skip
        norm, forward = layer.post_attention_layernorm, [layer.mlp.gate_proj, layer.mlp.up_proj]
        gain = _free_gain(norm, forward)
        x, skip = _skip_norm(b, mixed, skip, f"{name}.post_attention_layernorm", norm.weight * gain, config.rms_eps)
        down = _feed_forward(b, name, layer.mlp, x, gain)
        norm, products = following[number + 1]
        gain = _free_gain(norm, products)
        x, skip = _skip_norm(b, down, skip, f"{name}.next_norm", norm.weight * gain, config.rms_eps)
    x = b.node("Gather", [x, b.constant("last", np.array([-1]))], "last_hidden", axis=1)
    logits = _product(b, x, "speech_head", model.speech_head.weight.shape, lambda: model.speech_head.weight / gain)
    b.output(logits, "logits", ["batch", 1, config.speech_vocab])
    for output, value in present:
        b.output(value, output, ["batch", config.heads, "total", config.head_size])
    if aligned:
        mean = b.node("Mean", aligned, "aligned")
        first = b.node("Gather", [mean, b.constant("first", np.int64(0))], "aligned/first", axis=0)
        b.output(first, "alignment", ["sequence", "total"])
    return b.model()


def _lengths(b: Builder, mask: ir.Value) -> list[ir.Value]:
    """What GroupQueryAttention wants to know: the last position of each row, int32 [batch], and the longest row's
    length, int32."""
    total = b.node("Gather", [b.node("Shape", [mask], "mask/shape"), b.constant("one", np.int64(1))], "mask/total")
    sums = b.node("ReduceSum", [mask, b.constant("axis", np.array([1]))], "mask/sums", keepdims=0)
    last = b.node("Sub", [sums, b.graph.initializers["one"]], "mask/last")
    return [b.node("Cast", [v], f"{v.name}/int32", to=ir.DataType.INT32) for v in (last, total)]


def _rotary(b: Builder, model: Any) -> list[ir.Value]:
    """cos and sin [positions, head size / 2]."""
    config = model.config
    tables = rotary_tables(config, torch.arange(config.positions), torch.float32)
    half = config.head_size // 2
    return [b.constant(f"rotary.{n}", t[:, :half].clone()) for n, t in zip(("cos", "sin"), tables, strict=True)]


def _qkv(layer: Any) -> list[nn.Linear]:
    return [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]


def _attention(
    b: Builder,
    number: int,
    layer: Any,
    x: ir.Value,
    shared: Sequence[ir.Value],
    gain: Tensor,
    config: Any,
    spied: bool,
) -> tuple[ir.Value, list[tuple[str, ir.Value]], ir.Value | None]:
    """What attention adds, its present keys and values by name, and its weights [batch, heads, sequence, total]."""
    name, (q, k, v) = f"tfmr.layers.{number}.self_attn", _qkv(layer)
    out, size = layer.self_attn.o_proj, config.hidden_size
    values = balance(v.weight.abs().amax(1), out.weight.abs().amax(0))

    def weight() -> Tensor:
        return torch.cat([q.weight, k.weight, v.weight * values[:, None]]) / gain

    shape = ["batch", config.heads, "past", config.head_size]
    past = [b.input(f"past_key_values.{number}.{part}", ir.DataType.FLOAT, shape) for part in ("key", "value")]
    qkv = _product(b, x, f"{name}.qkv_proj", [3 * size, size], weight)
    mixed, *made = b.nodes(
        "GroupQueryAttention",
        [qkv, None, None, *past, *shared],
        f"{name}/mixed",
        outputs=4 if spied else 3,
        domain=MICROSOFT,
        num_heads=config.heads,
        kv_num_heads=config.heads,
        scale=config.head_size**-0.5,
        do_rotary=1,
        **({"qk_output": 2} if spied else {}),
    )
    present = [(f"present.{number}.{part}", value) for part, value in zip(("key", "value"), made, strict=False)]
    mixed = _product(b, mixed, f"{name}.o_proj", [size, size], lambda: out.weight / values)
    return mixed, present, made[2] if spied else None


def _feed_forward(b: Builder, name: str, mlp: Any, x: ir.Value, gain: Tensor) -> ir.Value:
    gate, up, down = mlp.gate_proj, mlp.up_proj, mlp.down_proj
    size, hidden = up.weight.shape
    inner = balance(up.weight.abs().amax(1), down.weight.abs().amax(0))

    def weight() -> Tensor:
        return torch.cat([gate.weight, up.weight * inner[:, None]]) / gain

    both = _product(b, x, f"{name}.mlp.gate_up_proj", [2 * size, hidden], weight)
    sizes = b.constant(f"{name}.mlp.sizes", np.array([size, size]))
    gated, raised = b.nodes("Split", [both, sizes], f"{name}.mlp/gate", outputs=2, axis=-1)
    gated = b.node("QuickGelu", [gated], f"{name}.mlp/silu", domain=MICROSOFT, alpha=1.0)
    x = b.node("Mul", [gated, raised], f"{name}.mlp/gated")
    return _product(b, x, f"{name}.mlp.down_proj", [hidden, size], lambda: down.weight / inner)


def _norm(b: Builder, x: ir.Value, gain: Tensor, eps: float) -> ir.Value:
    """The norm of the embeddings, which no sum precedes: that of twice them, exactly."""
    return _skip_norm(b, x, x, "first_norm", gain, 4 * eps)[0]


def _skip_norm(
    b: Builder, x: ir.Value, skip: ir.Value, name: str, gain: Tensor, eps: float
) -> tuple[ir.Value, ir.Value]:
    """The norm of the sum of both, and the sum."""
    inputs = [x, skip, b.constant(f"{name}.weight", gain)]
    made = b.nodes("SkipSimplifiedLayerNormalization", inputs, name, outputs=4, domain=MICROSOFT, epsilon=eps)
    return made[0], made[3]


def _product(b: Builder, x: ir.Value, name: str, shape: Sequence[int], make: Callable[[], Tensor]) -> ir.Value:
    """x W^T for a weight [out, in], held as [in, out]."""
    weight = b.weight(f"{name}.weight", [shape[1], shape[0]], lambda: make().T)
    return b.node("MatMul", [x, weight], f"{name}/MatMul")


def _free_gain(norm: Any, products: Sequence[nn.Linear]) -> Tensor:
    """Factors for a norm's gain, which the products behind it are divided by."""
    reach = torch.stack([product.weight.abs().amax(0) for product in products]).amax(0)
    return balance(norm.weight.abs(), reach)


def balance(left: Tensor, right: Tensor) -> Tensor:
    """Powers of two s such that left * s and right / s, both [channels], are as equal as those can make them."""
    tiny = torch.finfo(torch.float32).tiny
    ratio = right.clamp_min(tiny).double() / left.clamp_min(tiny).double()  # float32's logarithms differ by machine
    exponents = (ratio.log2() / 2).round().clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return torch.ldexp(torch.ones_like(left), exponents.int())
