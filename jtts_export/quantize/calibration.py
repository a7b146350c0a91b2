"""What calibration found, as data: measured once, kept beside the graphs, and applied again on any machine.

A processor's own order of adding changes the last digits of activations, and what a model makes of them (phases, a
stop) may change more. Scales are therefore measured when a release is made, and recorded; whoever rebuilds it takes
them from there, and checks that their own are near.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from jtts_export.errors import OutsideError

from .schemes import Recipe, StaticConv
from .static_conv import Ranges, Steps

_ARRAYS = ("scale", "step", "shift", "out_scale", "out_zero")
_REACH = "reach"


@dataclass(frozen=True)
class Calibration:
    """convs: ranges of each convolution's weight; reach: largest magnitudes of keys and values, f32 [heads, head
    size]."""

    convs: Mapping[str, Ranges] = field(default_factory=dict)
    reach: Mapping[str, np.ndarray] = field(default_factory=dict)

    def of(self, recipe: Recipe) -> Calibration:
        """What a recipe needs of it."""
        convs = {n: r for n, r in self.convs.items() if isinstance(recipe.scheme_of(n), StaticConv)}
        return Calibration(convs, self.reach)

    def fits(self, other: Calibration) -> bool:
        """Whether it is of the same weights and buffers, in the same shapes, with every lead that the other has."""
        led = (name for name, ranges in other.convs.items() if ranges.lead)
        return _shapes(self) == _shapes(other) and all(self.convs[name].lead for name in led)

    def __bool__(self) -> bool:
        return bool(self.convs or self.reach)


def _shapes(calibration: Calibration) -> dict[str, object]:
    convs = {n: [getattr(r, part).shape for part in _ARRAYS] for n, r in calibration.convs.items()}
    return {**convs, **{f"{n}/{_REACH}": value.shape for n, value in calibration.reach.items()}}


def write(calibration: Calibration, path: Path) -> None:
    """Save as safetensors: `<weight>/scale` and so on, `<name>/reach`."""
    tensors = {f"{name}/{_REACH}": value.astype(np.float32) for name, value in calibration.reach.items()}
    for name, ranges in calibration.convs.items():
        tensors |= {f"{name}/{part}": getattr(ranges, part) for part in _ARRAYS}
        steps = [ranges.common, *([ranges.lead] if ranges.lead else [])]
        tensors[f"{name}/gains"] = np.array([s.gain for s in steps], np.float32)
        tensors[f"{name}/zeros"] = np.array([ranges.zero, *(s.zero for s in steps)], np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path)


def read(path: Path) -> Calibration:
    """What write() saved. Raises OutsideError where it is nothing of the kind."""
    try:
        tensors = load_file(path)
        names = {name.rpartition("/")[0] for name in tensors if not name.endswith(f"/{_REACH}")}
        reach = {n.removesuffix(f"/{_REACH}"): v for n, v in tensors.items() if n.endswith(f"/{_REACH}")}
        return Calibration({name: _ranges(tensors, name) for name in sorted(names)}, reach)
    except Exception as error:  # whatever damaged bytes raise, and a tensor that is missing
        raise OutsideError(f"{path} is no calibration: {str(error) or type(error).__name__}") from error


def _ranges(tensors: Mapping[str, np.ndarray], name: str) -> Ranges:
    zero, *zeros = tensors[f"{name}/zeros"].tolist()
    common, *lead = map(Steps, tensors[f"{name}/gains"].tolist(), zeros)
    arrays = {part: tensors[f"{name}/{part}"] for part in _ARRAYS}
    return Ranges(zero=zero, common=common, lead=lead[0] if lead else None, **arrays)


@dataclass(frozen=True)
class Distance:
    """How far two calibrations of one thing lie apart. scales_db: rms over channels of the ratio of their scales, the
    largest of its kinds; levels: the largest difference of zero points and shifts, in levels of 256."""

    scales_db: float
    levels: float


def distances(one: Calibration, other: Calibration) -> dict[str, Distance]:
    """Of each weight and buffer. They must fit each other."""
    convs = {name: _apart(ranges, other.convs[name]) for name, ranges in sorted(one.convs.items())}
    reaches = {name: Distance(_db(value, other.reach[name]), 0.0) for name, value in sorted(one.reach.items())}
    return {**convs, **reaches}


def _apart(one: Ranges, other: Ranges) -> Distance:
    pairs = [(one.scale, other.scale), (one.out_scale, other.out_scale), (one.step, other.step)]
    pairs.append((np.array([one.common.gain]), np.array([other.common.gain])))
    zeros = [(one.zero, other.zero), (one.common.zero, other.common.zero)]
    if one.lead and other.lead:
        pairs.append((np.array([one.lead.gain]), np.array([other.lead.gain])))
    levels = [np.abs(a - b) for a, b in zeros]
    shifts = np.abs(one.shift.astype(np.float64) - other.shift) / np.maximum(one.out_scale, other.out_scale)
    middles = np.abs(one.out_zero.astype(np.float64) - other.out_zero)
    return Distance(max(_db(a, b) for a, b in pairs), float(max(*levels, _rms(shifts), _rms(middles))))


def _db(one: np.ndarray, other: np.ndarray) -> float:
    ratio = np.maximum(one.astype(np.float64), 1e-30) / np.maximum(other.astype(np.float64), 1e-30)
    return _rms(20 * np.log10(ratio))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
