"""A recipe and a graph -> a quantized graph."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_ir as ir

from jtts_export.surgery import constant, remove_unused

from . import matmul, static_conv
from .matmul import is_linear
from .schemes import (
    BlockMatMul,
    DynamicMatMul,
    Float32,
    Recipe,
    Scheme,
    StaticConv,
    StoredFp16,
    StoredInt,
    label,
)
from .static_conv import Ranges
from .weights import Weight, find_weights, fits_fp16, store_fp16, store_int

Samples = Mapping[str, tuple[np.ndarray, np.ndarray]]


def fit_convs(model: ir.Model, samples: Samples) -> dict[str, Ranges]:
    """Ranges of every sampled Conv. Independent of the recipe: fitted once, used by many."""
    weights = find_weights(model)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter's lock
        fits = pool.map(lambda name: _fit(weights[name], *samples[name]), samples)
        fitted = dict(zip(samples, fits, strict=True))
    for first, second in _followers({name: weights[name] for name in samples}).items():
        relu = weights[second].node.inputs[0].producer()  # type: ignore[union-attr]
        slope = relu.attributes.get_float("alpha", 0.01)  # type: ignore[union-attr]
        taken = _integers(weights[second], fitted[second])
        fitted[second] = dataclasses.replace(
            fitted[second], lead=static_conv.fit_lead(taken, samples[first][1], slope)
        )
    return fitted


def _fit(weight: Weight, inputs: np.ndarray, outputs: np.ndarray) -> Ranges:
    return static_conv.fit(weight.array, inputs, outputs, _bias(weight.node))


def integers(model: ir.Model, ranges: Mapping[str, Ranges]) -> dict[str, static_conv.Parameters]:
    """Parameters of the Convs of a graph that there are ranges of."""
    weights = find_weights(model)
    return {name: _integers(weights[name], found) for name, found in ranges.items() if name in weights}


def _integers(weight: Weight, ranges: Ranges) -> static_conv.Parameters:
    return static_conv.integers(weight.array, ranges, _bias(weight.node))


def _bias(conv: ir.Node) -> np.ndarray | None:
    return constant(conv.inputs[2]) if len(conv.inputs) > 2 else None


def _followers(weights: Mapping[str, Weight]) -> dict[str, str]:
    """Convs whose output goes through a leaky ReLU into one other Conv: weight -> weight."""
    names = {id(weight.node): name for name, weight in weights.items()}
    found = {name: static_conv.follower(weight.node) for name, weight in weights.items()}
    return {name: names[id(node)] for name, node in found.items() if node is not None and id(node) in names}


def quantize(model: ir.Model, recipe: Recipe, convs: Mapping[str, static_conv.Parameters]) -> dict[str, str]:
    """Apply `recipe` to `model` in place. Returns the scheme that each weight got: the recipe's, or the nearest
    that can hold it.
    """
    weights = find_weights(model)
    schemes = {name: _fitting(recipe.scheme_of(name), weight) for name, weight in weights.items()}
    # Convs first: they rescale the weights of the norms ahead of them, which must still be plain constants.
    static = {name: weights[name] for name, scheme in schemes.items() if isinstance(scheme, StaticConv)}
    followers = _followers(static)
    led, nodes = set(followers.values()), {id(weight.node) for weight in static.values()}
    behind = {name for name, weight in static.items() if id(static_conv.leader(weight.node)) in nodes}
    for name, weight in static.items():
        p, scheme, out = convs[name], schemes[name], None
        assert isinstance(scheme, StaticConv)
        if name in followers:
            follower = convs[followers[name]]
            p, out = p.leading_to(follower), follower.lead
        elif not scheme.channels:
            p, out = p.evenly(), p.common
        static_conv.apply(model, name, weight, p, scheme.table_levels, name in led, name in behind, out)
    for name, scheme in schemes.items():
        if isinstance(scheme, StoredInt):
            store_int(model, name, weights[name], scheme.bits)
        elif isinstance(scheme, StoredFp16):
            store_fp16(model, name, weights[name])
        elif isinstance(scheme, DynamicMatMul):
            matmul.dynamic(model, name, weights[name])
        elif isinstance(scheme, BlockMatMul):
            matmul.blocked(model, name, weights[name], scheme.block, scheme.bits)
    remove_unused(model)
    return {name: label(scheme) for name, scheme in schemes.items()}


def _fitting(scheme: Scheme, weight: Weight) -> Scheme:
    """fp32 instead of fp16 for values beyond it; 8 bits instead of 4 for what cannot be packed in pairs, and
    instead of int8 products for what is no plain matrix product."""
    if isinstance(scheme, DynamicMatMul | BlockMatMul) and not is_linear(weight):
        return StoredInt(bits=8)
    if isinstance(scheme, StoredFp16) and not fits_fp16(weight):
        return Float32()
    if isinstance(scheme, StoredInt) and weight.array.size % 2:
        return StoredInt(bits=8)
    return scheme
