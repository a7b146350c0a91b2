"""Every package of a model, and the same with weights in 8 bits: a stage takes the smallest scheme that is close
enough."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .convert import SUFFIX, About, assemble, convert
from .stage import Export, Function, Length, Stage, Target, Tensor

PARTS, INTERFACE, SCHEMES = "parts", "interface.json", "schemes.json"
KEPT = "fp16"  # in the place of a scheme

Tell = Callable[[str], None]
Judge = Callable[[Stage, Path], float]  # SNR of a package, in dB


def build(export: Export, stages: Sequence[Stage], target: Target, about: About, folder: Path, tell: Tell) -> None:
    """Convert every stage, below a folder: packages, their functions one by one, and what they take and give."""
    for stage in stages:
        tell(f"converting {stage.name}")
        parts = convert(stage, target, folder / PARTS)
        assemble(stage, parts, folder, about)
    (folder / INTERFACE).write_text(json.dumps(interface(export, stages, target), indent=2) + "\n", encoding="utf-8")


def build_int8(
    stages: Sequence[Stage],
    target: Target,
    about: About,
    made: Path,
    judge: Judge,
    least_db: float,
    folder: Path,
    tell: Tell,
) -> None:
    """Quantize what build() made, in `made`: for each stage the first of its schemes that is off by no more than
    `least_db`, or none."""
    from jtts_export.quantize.coreml import is_allowed

    chosen: dict[str, dict[str, Any]] = {}
    for stage in stages:
        tell(f"quantizing {stage.name}")
        tried: dict[str, float] = {}
        scheme = KEPT
        for candidate in (scheme for scheme in stage.schemes if is_allowed(scheme, target)):
            tried[candidate] = judge(stage, _held(stage, candidate, made, folder, about))
            if tried[candidate] >= least_db:
                scheme = candidate
                break
        if scheme == KEPT:
            _held(stage, KEPT, made, folder, about)
        chosen[stage.name] = {"scheme": scheme, "snr_db": tried}
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    (folder / SCHEMES).write_text(json.dumps(chosen, indent=2) + "\n", encoding="utf-8")


def rebuild_int8(
    stages: Sequence[Stage], about: About, made: Path, schemes: Mapping[str, str], folder: Path, tell: Tell
) -> None:
    """Quantize what build() made, in `made`, each stage by its scheme as build_int8() chose it."""
    for stage in stages:
        tell(f"quantizing {stage.name}")
        _held(stage, schemes[stage.name], made, folder, about)


def _held(stage: Stage, scheme: str, made: Path, folder: Path, about: About) -> Path:
    """A stage's package below a folder, its weights held by a scheme."""
    from jtts_export.quantize.coreml import quantize

    if scheme == KEPT:
        package = folder / f"{stage.name}{SUFFIX}"
        shutil.rmtree(package, ignore_errors=True)
        return Path(shutil.copytree(made / package.name, package))
    parts = {name: made / PARTS / f"{stage.name}.{name}{SUFFIX}" for name in stage.functions}
    return assemble(stage, quantize(parts, scheme, stage.skip, folder / PARTS), folder, about)


def packages(folder: Path, stages: Mapping[str, Any] | Sequence[str]) -> dict[str, Path]:
    """Stage -> package of what one of the above made."""
    return {name: folder / f"{name}{SUFFIX}" for name in stages}


def interface(export: Export, stages: Sequence[Stage], target: Target) -> dict[str, Any]:
    """What an app must know of the packages, as JSON."""
    return {
        "target": target,
        "stages": {
            stage.name: {
                "description": stage.description,
                "precision": stage.precision,
                "compute_units": stage.units,
                "functions": {name: _function(function) for name, function in stage.functions.items()},
            }
            for stage in stages
        },
        "lengths": export.lengths,
        "chain": export.chain,
    }


def _function(function: Function) -> dict[str, Any]:
    return {
        "inputs": [_tensor(tensor) for tensor in function.inputs],
        "outputs": [_tensor(tensor) for tensor in function.outputs],
        "states": [_tensor(tensor) for tensor in function.states],
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    shape = [[size.least, size.most] if isinstance(size, Length) else size for size in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": tensor.dtype, "description": tensor.description}
