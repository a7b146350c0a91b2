"""Weights of CoreML packages, one by one: those that no utterance reaches must be right too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jtts_export import mil
from jtts_export.exporters.coreml.stage import Function, Stage

LEAST = 8  # values: what is smaller is a parameter of an operation


@dataclass(frozen=True)
class Known:
    """Of a package: how many constants it has, and names of those that are no tensor of the module's."""

    total: int
    unknown: list[str]


def known(stage: Stage, package: Path) -> Known:
    """Look every constant of a package up among the tensors of its modules, whatever its shape: converting transposes
    some. A layer without a bias is given one of zeros."""
    total, unknown = 0, []
    functions = mil.load(package).functions
    for name, function in stage.functions.items():
        there = set(_digests(function, stage.precision))
        for constant, value in _floats(functions[name]):
            total += 1
            if value.any() and _digest(value, stage.precision) not in there:
                unknown.append(f"{name}.{constant}")
    return Known(total, unknown)


def farthest(light: Path, full: Path) -> tuple[float, str]:
    """Of a package and the same in 8 bits: the largest change of a value over the largest value of its constant, and
    that constant's name."""
    worst, where = 0.0, ""
    theirs = mil.load(full).functions
    for name, function in mil.load(light).functions.items():
        exact = dict(_floats(theirs[name]))
        for constant, value in _floats(function):
            # Quantizing renames what reads a table.
            alike = [exact[constant]] if constant in exact else [w for w in exact.values() if w.shape == value.shape]
            change = min((_change(value, wanted) for wanted in alike), default=float("inf"))
            if not change <= worst:
                worst, where = change, f"{name}.{constant}"
    return worst, where


def _change(value: np.ndarray, wanted: np.ndarray) -> float:
    value, wanted = value.astype(np.float32), wanted.astype(np.float32)
    return float(np.abs(value - wanted).max()) / max(float(np.abs(wanted).max()), 1e-30)


def _floats(function: mil.Function) -> Iterator[tuple[str, np.ndarray]]:
    return ((name, value) for name, value in function.weights(LEAST) if value.dtype.kind == "f")


def _digests(function: Function, precision: str) -> Iterator[str]:
    for tensor in (*function.module.parameters(), *function.module.buffers()):
        if tensor.is_floating_point() and tensor.numel() >= LEAST:
            yield _digest(tensor.detach().float().numpy(), precision)


def _digest(array: np.ndarray, precision: str) -> str:
    """Of the values alone, as a package of that precision holds them."""
    with np.errstate(over="ignore"):
        held = np.sort(array.astype(np.float16 if precision == "fp16" else np.float32), axis=None)
    return hashlib.sha256((held + 0).tobytes()).hexdigest()  # minus zero is zero
