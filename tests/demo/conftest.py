"""The demo checkpoint as a graph, spoken by the runtime that users have."""

from __future__ import annotations

import pytest

from jtts_export.exporters.graph import DEFAULT_OPSET
from jtts_export.exporters.kokoro import GRAPH, MODEL
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.runtime.kokoro import Kokoro


@pytest.fixture(scope="session")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Kokoro:
    """fp32."""
    folder = tmp_path_factory.mktemp("demo")
    loaded = MODEL.load(locate("demo", MODELS["kokoro"].files))
    MODEL.export(loaded, folder, DEFAULT_OPSET)
    return Kokoro({GRAPH.name: folder / f"{GRAPH.name}.onnx"}, loaded.config["vocab"], loaded.voices, threads=1)
