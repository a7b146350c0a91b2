"""A variant of a model's graphs: calibrate, apply its recipe, climb the ladder as far as its gates ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from jtts_export.profiles.schema import Gate
from jtts_export.validate.runner import Case
from jtts_export.validate.spread import Spread

from .apply import fit_convs, quantize
from .calibrate import sample
from .ladder import Ladder
from .schemes import Recipe, StaticConv
from .static_conv import Parameters
from .weights import find_weights

if TYPE_CHECKING:
    from jtts_export.exporters.model import Config, Model, Voices


def build_variant(
    model: Model,
    graphs: dict[str, ir.Model],
    recipe: Recipe,
    config: Config,
    voices: Voices,
    gates: Sequence[Gate],
    spread: Spread,
    threads: int,
    tell: Callable[[str], None],
) -> tuple[dict[str, ir.Model], dict[str, Any]]:
    """The quantized graphs, and how they came about: recipe as it ended, scheme of each weight, ladder steps."""
    convs: dict[str, Parameters] = {}
    for name, graph in graphs.items():
        weights = find_weights(graph)
        static = {n: w for n, w in weights.items() if isinstance(recipe.scheme_of(n), StaticConv)}
        if static:
            tell(f"calibrating {len(static)} convolutions")
            cases = model.cases(config, voices, "calibration")
            samples = sample(graph, static, _feeds(model, graphs, name, cases, threads))
            tell(f"fitting {len(static)} convolutions")
            convs |= fit_convs(graph, samples)
    tell("judging the recipe")
    ladder = Ladder(
        graphs=graphs,
        convs=convs,
        runner=model.runner,
        parity=model.parity,
        spread=spread,
        cases=model.cases(config, voices, "search"),
        brief=model.cases(config, voices, "brief")[0],
        gates=[g for g in gates if any(g.metric in stage.gates for stage in model.parity.stages)],
        threads=threads,
        tell=tell,
    )
    climb = ladder.climb(recipe)
    schemes: dict[str, str] = {}
    for graph in graphs.values():
        schemes |= quantize(graph, climb.recipe, convs)
    return graphs, {"recipe": climb.recipe.model_dump(), "schemes": schemes, "ladder": climb.as_json()}


def _feeds(
    model: Model, graphs: Mapping[str, ir.Model], name: str, cases: Sequence[Case], threads: int
) -> list[dict[str, np.ndarray]]:
    """A graph's own inputs in each case: the case's, or taps of the same name."""
    graph = graphs[name].graph
    inputs = [v.name or "" for v in graph.inputs if not v.is_initializer()]
    made = [n for n in inputs if n not in cases[0].inputs]
    if not made:
        return [{n: case.inputs[n] for n in inputs} for case in cases]
    runner = model.runner({n: ir.to_proto(g) for n, g in graphs.items()}, threads, True)
    return [
        {n: v for n, v in {**case.inputs, **runner.taps(case.inputs, made)}.items() if n in inputs} for case in cases
    ]
