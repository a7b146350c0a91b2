"""Where the graphs of a variant lie in a release, and which runtime reads them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import kokoro_graph
import numpy as np
import pytest

from jtts_export.errors import OutsideError
from jtts_export.exporters import kokoro
from jtts_export.exporters.graph import DEFAULT_OPSET
from jtts_export.models import MODELS
from jtts_export.runtime import engines
from jtts_export.runtime.names import VARIANT_SUFFIX, graph_file, released

GRAPHS = ("onnx/encoder", "onnx/deep/decoder")


@pytest.mark.parametrize(
    ("variant", "path"),
    [("fp32", "onnx/model.onnx"), ("fp16", "onnx/model_fp16.onnx"), ("int8", "onnx/model_quantized.onnx")],
)
def test_a_graphs_file_is_named_as_transformers_js_asks(variant: str, path: str) -> None:
    assert graph_file("onnx/model", variant) == path


@pytest.fixture
def release(tmp_path: Path) -> Path:
    for variant in VARIANT_SUFFIX:
        for graph in GRAPHS:
            path = tmp_path / graph_file(graph, variant)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"graph")
    return tmp_path


@pytest.mark.parametrize("variant", VARIANT_SUFFIX)
def test_every_graph_of_a_variant_is_found(release: Path, variant: str) -> None:
    files = released(release, GRAPHS, variant)
    assert files == {graph: release / graph_file(graph, variant) for graph in GRAPHS}
    assert all(path.is_file() for path in files.values())


@pytest.mark.parametrize("variant", VARIANT_SUFFIX)
@pytest.mark.parametrize("lacking", GRAPHS)
def test_a_variant_that_lacks_a_graph_is_not_there(release: Path, variant: str, lacking: str) -> None:
    path = release / graph_file(lacking, variant)
    path.unlink()
    path.mkdir()  # nor is a folder a graph
    with pytest.raises(OutsideError, match=f"{release} has no {variant} variant"):
        released(release, GRAPHS, variant)
    assert released(release, [g for g in GRAPHS if g != lacking], variant)


@pytest.mark.parametrize("variant", ["int2", "", "INT8", "quantized"])
def test_an_unknown_variant_is_answered_with_the_known_ones(release: Path, variant: str) -> None:
    with pytest.raises(OutsideError, match=f"no variant '{variant}'; variants: fp32, fp16, int8, int8-fast, int4"):
        released(release, GRAPHS, variant)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_a_runtime_and_an_engine(model: str) -> None:
    """Found by the model's name; and it reads the graphs that the exporter writes."""
    runtime, exported = engines.runtime(model), MODELS[model].load()
    module = import_module(runtime.__module__)
    assert (module.Runtime, module.__name__) == (runtime, f"jtts_export.runtime.{model}")
    assert callable(module.Engine.speak)
    assert exported.graphs == module.GRAPHS
    assert not set(exported.graphs) & set(exported.derived)


def test_an_engine_speaks_what_the_runtime_does(tmp_path: Path) -> None:
    kokoro.export(kokoro_graph.loaded(), tmp_path, DEFAULT_OPSET)
    files = released(tmp_path, kokoro.MODEL.graphs, "fp32")
    config, voices = kokoro_graph.loaded().config, kokoro_graph.loaded().voices
    tts = engines.runtime("kokoro")(files, config["vocab"], voices, 1)
    audio = engines.engine("kokoro", files, 1).speak(tts.feeds("həlˈO", "", 1.0))
    assert (audio.dtype, audio.ndim) == (np.float32, 1)
    np.testing.assert_array_equal(audio, tts.synthesize(phonemes="həlˈO").audio)
