"""A variant of a model's graphs: calibrate, apply its recipe, climb the ladder as far as its gates ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import onnx_ir as ir

from jtts_export.profiles.schema import Gate
from jtts_export.runtime.taps import Graphs, PartRunner
from jtts_export.validate.runner import Case
from jtts_export.validate.spread import Spread

from .apply import fit_convs, integers, quantize
from .calibrate import sample
from .calibration import Calibration
from .key_values import quantize_key_values
from .ladder import Climb, Ladder
from .schemes import Recipe, StaticConv
from .static_conv import Parameters, Ranges
from .weights import find_weights

if TYPE_CHECKING:
    from jtts_export.exporters.model import Config, Model, Voices


def build_variant(
    model: Model,
    files: Graphs,
    recipe: Recipe,
    config: Config,
    voices: Voices,
    gates: Sequence[Gate],
    spread: Spread,
    threads: int,
    tell: Callable[[str], None],
) -> tuple[dict[str, ir.Model], dict[str, Any], Calibration]:
    """The quantized graphs; how they came about: recipe as it ended, scheme of each weight, ladder steps; and what
    calibration found for that recipe.

    files: graph -> its fp32 form, better a file than a copy in memory.
    """
    graphs = {name: _opened(source) for name, source in files.items()}
    recipe = recipe.for_sizes({n: w.array.size for graph in graphs.values() for n, w in find_weights(graph).items()})
    calibration = calibrate(model, files, recipe, config, voices, threads, tell, graphs)
    climb = Climb(recipe, {})
    if helped := [g for g in gates if any(g.metric in stage.gates for stage in model.parity.stages)]:
        tell("judging the recipe")
        ladder = Ladder(
            graphs=graphs,
            files=files,
            convs=_parameters(graphs, calibration),
            runner=cast("Callable[[Graphs, int, bool], PartRunner]", model.runner),
            parity=model.parity,
            spread=spread,
            cases=model.cases(config, voices, "search"),
            brief=model.cases(config, voices, "brief")[0],
            gates=helped,
            threads=threads,
            tell=tell,
        )
        climb = ladder.climb(recipe)
    tell("quantizing")
    calibration = calibration.of(climb.recipe)
    schemes = _apply(graphs, climb.recipe, calibration)
    report = {"recipe": climb.recipe.model_dump(), "schemes": schemes, "ladder": climb.as_json()}
    return graphs, report, calibration


def rebuild_variant(files: Graphs, recipe: Recipe, calibration: Calibration) -> dict[str, ir.Model]:
    """The quantized graphs of a recipe as it ended, and what calibration found then: nothing is measured."""
    graphs = {name: _opened(source) for name, source in files.items()}
    _apply(graphs, recipe, calibration)
    return graphs


def calibrate(
    model: Model,
    files: Graphs,
    recipe: Recipe,
    config: Config,
    voices: Voices,
    threads: int,
    tell: Callable[[str], None],
    graphs: Mapping[str, ir.Model] | None = None,
) -> Calibration:
    """What a recipe needs to know of activations, measured on the model's utterances for that. graphs: the files,
    where they are open already."""
    graphs = graphs or {name: _opened(source) for name, source in files.items()}
    convs: dict[str, Ranges] = {}
    for graph in graphs.values():
        weights = find_weights(graph)
        static = {n: w for n, w in weights.items() if isinstance(recipe.scheme_of(n), StaticConv)}
        if static:
            tell(f"calibrating {len(static)} convolutions")
            cases = model.cases(config, voices, "calibration")
            samples = sample(graph, static, _feeds(model, files, graph, cases, threads))
            tell(f"fitting {len(static)} convolutions")
            convs |= fit_convs(graph, samples)
    reach = {}
    if recipe.key_values == "int8":
        tell("calibrating keys and values")
        assert model.key_value_reach is not None
        reach = model.key_value_reach(files, model.cases(config, voices, "calibration"), threads)
    return Calibration(convs, reach)


def _apply(graphs: Mapping[str, ir.Model], recipe: Recipe, calibration: Calibration) -> dict[str, str]:
    """Quantize in place. Returns the scheme that each weight got."""
    convs = _parameters(graphs, calibration)
    schemes: dict[str, str] = {}
    for graph in graphs.values():
        schemes |= quantize(graph, recipe, convs)
        if calibration.reach:
            quantize_key_values(graph, calibration.reach)
    return schemes


def _parameters(graphs: Mapping[str, ir.Model], calibration: Calibration) -> dict[str, Parameters]:
    made: dict[str, Parameters] = {}
    for graph in graphs.values():
        made |= integers(graph, calibration.convs)
    return made


def _opened(source: Path | onnx.ModelProto) -> ir.Model:
    """A graph; weights in a file of their own stay there until they are read."""
    return ir.load(source) if isinstance(source, Path) else ir.from_proto(source)


def _feeds(
    model: Model, files: Graphs, graph: ir.Model, cases: Sequence[Case], threads: int
) -> list[dict[str, np.ndarray]]:
    """A graph's own inputs in each case: the case's, or taps of the same name."""
    inputs = [v.name or "" for v in graph.graph.inputs if not v.is_initializer()]
    made = [n for n in inputs if n not in cases[0].inputs]
    runner = model.runner(files, threads, True) if made else None
    whole = [{**case.inputs, **(runner.taps(case.inputs, made) if runner else {})} for case in cases]
    return [{n: feed[n] for n in inputs} for feed in whole]
