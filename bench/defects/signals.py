"""Damage to audio, as nodes behind the tensor that is a graph's waveform, [..., samples]."""

from __future__ import annotations

import numpy as np

from .graph_file import RUNNING, GraphFile, Step

_LAST = np.array([-1])


def gain(db: float) -> list[Step]:
    return [("Mul", [RUNNING, np.float32(10 ** (db / 20))], {})]


def invert() -> list[Step]:
    return [("Neg", [RUNNING], {})]


def offset(value: float) -> list[Step]:
    return [("Add", [RUNNING, np.float32(value)], {})]


def noise(deviation: float) -> list[Step]:
    return [
        ("RandomNormalLike", [RUNNING], {"scale": deviation, "seed": 1.0}),
        ("Add", [RUNNING, "waveform/whole"], {}),
    ]


def clip(share: float) -> list[Step]:
    """At a share of each utterance's peak: peak * clamp(x / peak, -share, share)."""
    whole, peak = "waveform/whole", "waveform/planted/1"
    return [
        ("Abs", [RUNNING], {}),
        ("ReduceMax", [RUNNING], {"keepdims": 1}),
        ("Div", [whole, RUNNING], {}),
        ("Clip", [RUNNING, np.float32(-share), np.float32(share)], {}),
        ("Mul", [RUNNING, peak], {}),
    ]


def truncate_share(percent: int) -> list[Step]:
    """The last so many percent are missing."""
    return [
        ("Shape", ["waveform/whole"], {"start": -1}),
        ("Mul", [RUNNING, np.array([100 - percent])], {}),
        ("Div", [RUNNING, np.array([100])], {}),
        ("Slice", ["waveform/whole", np.array([0]), RUNNING, _LAST], {}),
    ]


def truncate(samples: int) -> list[Step]:
    return [("Slice", [RUNNING, np.array([0]), np.array([-samples]), _LAST], {})]


def repeat(samples: int) -> list[Step]:
    """A segment from the middle is said twice."""
    return _joined("Add", samples)


def drop(samples: int) -> list[Step]:
    """A segment from the middle is missing."""
    return _joined("Sub", samples)


def _joined(op: str, samples: int) -> list[Step]:
    """All up to half + samples and all from half on, so that what lies between is there twice (Add); or all up to
    half and all from half + samples on, so that it is left out (Sub)."""
    whole, half, further = "waveform/whole", "waveform/planted/1", "waveform/planted/2"
    end, start = (further, half) if op == "Add" else (half, further)
    return [
        ("Shape", [whole], {"start": -1}),
        ("Div", [RUNNING, np.array([2])], {}),
        ("Add", [half, np.array([samples])], {}),
        ("Slice", [whole, np.array([0]), end, _LAST], {}),
        ("Slice", [whole, start, np.array([np.iinfo(np.int64).max]), _LAST], {}),
        ("Concat", ["waveform/planted/3", RUNNING], {"axis": -1}),
    ]


def resample(factor: float) -> list[Step]:
    """Linearly: all sounds are longer by that factor, and lower."""
    scales = np.array([1, 1, 1, factor], np.float32)
    return [
        ("Reshape", [RUNNING, np.array([1, 1, 1, -1])], {}),
        ("Resize", [RUNNING, "", scales], {"mode": "linear"}),
        ("Reshape", [RUNNING, np.array([-1])], {}),
    ]


def behind(graph: GraphFile, steps: list[Step]) -> None:
    """Put them behind the waveform, in its shape: [samples], or of Kokoro [1, samples]."""
    if steps[-1][0] == "Reshape":
        rank = len(next(o for o in graph.graph.output if o.name == "waveform").type.tensor_type.shape.dim)
        steps = [*steps[:-1], ("Reshape", [RUNNING, np.array([1] * (rank - 1) + [-1])], {})]
    graph.splice("waveform", *steps)
