"""Keys and values of a GroupQueryAttention held in 8 bits, by onnxruntime's own means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from jtts_export.surgery import add_constant

from .matmul import MICROSOFT

MARGIN = 1.3  # over the largest magnitude seen: what goes beyond is clipped
_SCALES = 12, 13  # inputs: of keys, of values
_PAST, _PRESENT = "past_key_values", "present"


def quantize_key_values(model: ir.Model, reach: Mapping[str, np.ndarray]) -> None:
    """Make past_key_values and present int8, with a scale for each channel of each head.

    reach: past_key_values.N.key and .value -> largest magnitude [heads, head size]. Needs an onnxruntime whose CPU
    provider has 8-bit caches, as 1.31 has.
    """
    graph = model.graph
    for node in [n for n in graph if n.op_type == "GroupQueryAttention"]:
        past = [value.name or "" for value in node.inputs[3:5] if value is not None]
        inputs = [*node.inputs, *[None] * (max(_SCALES) + 1 - len(node.inputs))]
        for slot, name in zip(_SCALES, past, strict=True):
            scale = np.maximum(reach[name].reshape(-1) * MARGIN, 1e-20) / 127
            inputs[slot] = add_constant(graph, f"{name}.scale", scale.astype(np.float32))
        attributes = {
            **{name: a.value for name, a in node.attributes.items()},
            **{"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8},
        }
        made = ir.node("GroupQueryAttention", inputs, attributes, domain=MICROSOFT, num_outputs=len(node.outputs),
                       name=f"{node.name}/int8")  # fmt: skip
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            old.name = f"{old.name}/float"
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.insert_before(node, made)
        graph.remove(node, safe=True)
    for value in (*graph.inputs, *graph.outputs):
        if (value.name or "").startswith((_PAST, _PRESENT)):
            value.type = ir.TensorType(ir.DataType.INT8)
