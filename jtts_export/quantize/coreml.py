"""Schemes that hold a CoreML package's weights in 8 bits; what computes stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jtts_export.errors import BadInput
from jtts_export.exporters.coreml.convert import coremltools, quiet

LEAST = 2048  # values: smaller weights stay as they are
LEVELS = 256
ITERATIONS = 30  # of k-means; by then levels move by less than a hundredth of their distance
NEWER = ("iOS18", "macOS15")  # whose packages hold a scale for each block

SCHEMES = ("linear8", "block8-64", "block8-32", "palette8", "uniform8")


def is_allowed(scheme: str, target: str) -> bool:
    """Whether a target's packages can hold it."""
    return not scheme.startswith("block8") or target in NEWER


def quantize(parts: Mapping[str, Path], scheme: str, skip: Sequence[str], folder: Path) -> dict[str, Path]:
    """The packages of a stage's functions with weights held by a scheme, written below a folder.

    linear8: an integer and a scale for each output channel; block8-N: a scale for N inputs of each; palette8: 256
    levels of a tensor, placed by k-means; uniform8: the same, equally far apart. skip: parts of names of weights that
    stay. Raises BadInput for a scheme that is not known.
    """
    ct = coremltools()
    run: Callable[[Any, Any], Any] = (
        ct.optimize.coreml.linear_quantize_weights
        if scheme.startswith(("linear8", "block8"))
        else ct.optimize.coreml.palettize_weights
    )
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for name, part in parts.items():
        with quiet():
            model = ct.models.MLModel(str(part), skip_model_load=True)
            config = ct.optimize.coreml.OptimizationConfig(
                global_config=_config(scheme), op_name_configs=dict.fromkeys(_skipped(model, skip))
            )
            made[name] = folder / part.name
            run(model, config).save(str(made[name]))
    return made


def _config(scheme: str) -> Any:
    import coremltools.optimize.coreml as cto  # type: ignore[import-untyped, import-not-found, unused-ignore]

    if scheme not in SCHEMES:
        raise BadInput(f"no scheme '{scheme}' of CoreML; schemes: {', '.join(SCHEMES)}")
    if scheme == "linear8":
        return cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=LEAST)
    if scheme.startswith("block8"):
        size = int(scheme.partition("-")[2])
        return cto.OpLinearQuantizerConfig(
            mode="linear_symmetric", granularity="per_block", block_size=size, weight_threshold=LEAST
        )
    if scheme == "uniform8":
        return cto.OpPalettizerConfig(mode="uniform", nbits=8, weight_threshold=LEAST)
    return cto.OpPalettizerConfig(mode="custom", lut_function=palette, weight_threshold=LEAST)


def _skipped(model: Any, skip: Sequence[str]) -> list[str]:
    if not skip:
        return []
    known = coremltools().optimize.coreml.get_weights_metadata(model, weight_threshold=LEAST)
    return [name for name in known if any(part in name for part in skip)]


def palette(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """k-means of single values (Lloyd 1982): levels [LEVELS], and which one each value takes [values].

    Values are few, for they are fp16, and sorted: clusters are ranges, their sums differences of running ones.
    """
    values, which, counts = np.unique(weight.reshape(-1), return_inverse=True, return_counts=True)
    exact = values.astype(np.float64)
    total, mass = np.cumsum(exact * counts), np.cumsum(counts)
    shares = (np.arange(LEVELS) + 0.5) / LEVELS
    # A start that reaches into the tails: levels as dense as the cube root of the density (Panter and Dite 1951).
    dense = np.cumsum(np.cbrt(counts / np.gradient(exact)) * np.gradient(exact)) if len(exact) > 1 else mass
    levels = exact[np.searchsorted(dense / dense[-1], shares).clip(max=len(exact) - 1)]
    for _ in range(ITERATIONS):
        ends = np.searchsorted(exact, (levels[1:] + levels[:-1]) / 2, side="right")
        ends = np.concatenate([[0], ends, [len(exact)]])
        sums, masses = (np.diff(np.concatenate([[0], running])[ends]) for running in (total, mass))
        levels = np.where(masses > 0, sums / np.maximum(masses, 1), levels)
    nearest = np.searchsorted((levels[1:] + levels[:-1]) / 2, exact, side="left")
    return levels.astype(weight.dtype), nearest[which.reshape(-1)].astype(np.uint8)
