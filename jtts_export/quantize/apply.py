"""A recipe and a graph -> a quantized graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from jtts_export.surgery import constant, remove_unused

from . import static_conv
from .schemes import Float32, Recipe, Scheme, StaticConv, StoredFp16, StoredInt, label
from .weights import Weight, find_weights, fits_fp16, store_fp16, store_int

Samples = Mapping[str, tuple[np.ndarray, np.ndarray]]


def fit_convs(model: ir.Model, samples: Samples) -> dict[str, static_conv.Parameters]:
    """Integer parameters of every sampled Conv. Independent of the recipe: fitted once, used by many."""
    weights = find_weights(model)
    return {name: _fit(weights[name].node, *samples[name]) for name in samples}


def _fit(conv: ir.Node, inputs: np.ndarray, outputs: np.ndarray) -> static_conv.Parameters:
    weight, bias = constant(conv.inputs[1]), constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    assert weight is not None
    return static_conv.fit(weight, np.zeros(len(weight)) if bias is None else bias, inputs, outputs)


def quantize(model: ir.Model, recipe: Recipe, convs: Mapping[str, static_conv.Parameters]) -> dict[str, str]:
    """Apply `recipe` to `model` in place. Returns the scheme that each weight got: the recipe's, or the nearest
    that can hold it.
    """
    applied: dict[str, str] = {}
    chosen = [(name, weight, recipe.scheme_of(name)) for name, weight in find_weights(model).items()]
    # Convs first: they rescale the weights of the norms ahead of them, which must still be plain constants.
    for name, weight, wanted in sorted(chosen, key=lambda c: not isinstance(c[2], StaticConv)):
        scheme = _fitting(wanted, weight)
        applied[name] = label(scheme)
        if isinstance(scheme, StaticConv):
            static_conv.apply(model, name, weight, convs[name], scheme.table_levels)
        elif isinstance(scheme, StoredInt):
            store_int(model, name, weight, scheme.bits)
        elif isinstance(scheme, StoredFp16):
            store_fp16(model, name, weight)
    remove_unused(model)
    return applied


def _fitting(scheme: Scheme, weight: Weight) -> Scheme:
    """fp32 instead of fp16 for values beyond it; 8 bits instead of 4 for what cannot be packed in pairs."""
    if isinstance(scheme, StoredFp16) and not fits_fp16(weight):
        return Float32()
    if isinstance(scheme, StoredInt) and weight.array.size % 2:
        return StoredInt(bits=8)
    return scheme
