"""What a model must provide so that the pipeline can take it through every stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jtts_export.models.source import Source
from jtts_export.quantize.schemes import Recipe
from jtts_export.runtime.taps import Graphs
from jtts_export.validate.parity import Metrics, Parity
from jtts_export.validate.runner import Case, Runner

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from .coreml.stage import Export

Config = Mapping[str, Any]
Voices = Mapping[str, Any]  # arrays, or what else makes a model's voice
Speak = Callable[[], "Iterator[np.ndarray]"]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory: what clients need to know of it, the PyTorch modules, and its voices or speakers."""

    config: Config
    module: Any
    voices: Voices


def derive_nothing(graphs: Mapping[str, ir.Model]) -> dict[str, ir.Model]:
    """For models whose clients all load the same graphs."""
    return {}


def draw_nothing(loaded: Loaded) -> dict[str, Mapping[str, np.ndarray]]:
    """For models whose graphs hold no random numbers."""
    return {}


@dataclass(frozen=True)
class Model:
    """A family of checkpoints that can be exported. Functions, so that adding a model is one file.

    graphs: names of the networks: paths in a release, without suffix.
    load: reads a checkpoint.
    export: writes fp32 ONNX, `<graph>.onnx` of each, below a folder, with an opset.
    derive: further graphs that some client needs, made of a variant's graphs.
    reference: the PyTorch runner, on a number of threads, with a seed of its draws, in float64 or not.
    runner: the ONNX runner, on files or graphs in memory, a number of threads, with onnxruntime's optimizer or not;
    a PartRunner where stages of `parity` have gates.
    client_files: writes what clients need beside the graphs into a folder; assets reads config and voices
    back from there.
    steps: of a model that speaks token by token, metrics of a step, for each variant, given its files, its engine,
    an utterance and a number of threads.
    key_value_reach: largest magnitudes in keys and values over some utterances, for recipes that hold them as int8,
    given the graphs, the utterances and a number of threads; see quantize/key_values.py.
    feeds: what each graph is fed at one representative point of an utterance, given the graphs and a number of
    threads: graph -> input -> array.
    spoken: utterances of a user's own texts, by voices taken by turns; of a long text several. Raises BadInput naming
    a text of which nothing can be said.
    metadata: what a checkpoint's graphs say of it to clients: graph -> key -> text.
    draws: what is drawn once for a checkpoint and baked into its graphs: graph -> initializer -> array.
    external: graphs whose weights lie in a file beside theirs.
    cases: utterances to "calibration", "search" or "validation" ends, which share none; "timed" ones, a short, a
    medium and a long one in this order; a "brief" one; and a "sequence" of many lengths by one voice, the longest
    first, every sixth the same as the second.
    coreml: how it comes to CoreML, of a model that does.
    speaker: a runtime on graph files; calling it streams a built-in text, chunk by chunk.
    """

    graphs: tuple[str, ...]
    load: Callable[[Source], Loaded]
    export: Callable[[Loaded, Path, int], None]
    reference: Callable[[Loaded, int, int, bool], Runner]
    runner: Callable[[Graphs, int, bool], Runner]
    client_files: Callable[[Path, Config, Voices], object]
    assets: Callable[[Path], tuple[Config, Voices]]
    cases: Callable[[Config, Voices, str], Sequence[Case]]
    spoken: Callable[[Config, Voices, Sequence[str]], Sequence[Case]]
    speaker: Callable[[Mapping[str, Path], Config, Voices, int], Speak]
    feeds: Callable[[Graphs, Case, int], Mapping[str, Mapping[str, np.ndarray]]]
    metadata: Callable[[Loaded], Mapping[str, Mapping[str, str]]]
    parity: Parity
    recipes: Mapping[str, Recipe]
    derive: Callable[[Mapping[str, ir.Model]], dict[str, ir.Model]] = derive_nothing
    derived: tuple[str, ...] = ()
    draws: Callable[[Loaded], Mapping[str, Mapping[str, np.ndarray]]] = draw_nothing
    external: tuple[str, ...] = ()
    key_value_reach: Callable[[Graphs, Sequence[Case], int], dict[str, np.ndarray]] | None = None
    steps: Callable[[Mapping[str, Mapping[str, Path]], Mapping[str, Any], Case, int], dict[str, Metrics]] | None = (
        None
    )
    coreml: Export | None = None
