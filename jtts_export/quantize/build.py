"""A variant of a graph: calibrate, apply its recipe, climb the ladder as far as its gates ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from jtts_export.profiles.schema import Gate
from jtts_export.validate.spread import Spread

from .apply import fit_convs, quantize
from .calibrate import sample
from .ladder import Ladder
from .schemes import Recipe, StaticConv
from .weights import find_weights

if TYPE_CHECKING:
    from jtts_export.exporters.model import Config, Model, Voices


def build_variant(
    model: Model,
    graph: ir.Model,
    recipe: Recipe,
    config: Config,
    voices: Voices,
    gates: Sequence[Gate],
    spread: Spread,
    threads: int,
    tell: Callable[[str], None],
) -> tuple[ir.Model, dict[str, Any]]:
    """The quantized graph, and how it came about: recipe as it ended, scheme of each weight, ladder steps."""
    weights = find_weights(graph)
    static = {n: w for n, w in weights.items() if isinstance(recipe.scheme_of(n), StaticConv)}
    convs = {}
    if static:
        tell(f"calibrating {len(static)} convolutions")
        cases = model.cases(config, voices, "calibration")
        samples = sample(graph, static, [case.inputs for case in cases])
        tell(f"fitting {len(static)} convolutions")
        convs = fit_convs(graph, samples)
        del samples
    tell("judging the recipe")
    ladder = Ladder(
        model=graph,
        convs=convs,
        parity=model.parity,
        spread=spread,
        cases=model.cases(config, voices, "search"),
        brief=model.cases(config, voices, "brief")[0],
        gates=[g for g in gates if any(g.metric in stage.gates for stage in model.parity.stages)],
        threads=threads,
        tell=tell,
    )
    climb = ladder.climb(recipe)
    schemes = quantize(graph, climb.recipe, convs)
    return graph, {"recipe": climb.recipe.model_dump(), "schemes": schemes, "ladder": climb.as_json()}
