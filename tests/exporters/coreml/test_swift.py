"""The page for app developers is made of what the manifest says."""

from __future__ import annotations

import pytest

from bench.coreml_pages import PAGES, pages
from jtts_export.exporters.coreml.swift import page
from jtts_export.models import MODELS

INTERFACE = {
    "target": "iOS18",
    "stages": {
        "text_encoder": {
            "description": "text to states",
            "precision": "fp16",
            "compute_units": "CPU_AND_NE",
            "functions": {
                name: {
                    "inputs": [{"name": "ids", "shape": [1, size], "dtype": "int32", "description": "tokens"}],
                    "outputs": [{"name": "out", "shape": [1, [1, size]], "dtype": "fp32", "description": "made"}],
                    "states": [{"name": "past", "shape": [1, 32], "dtype": "fp16", "description": "kept"}],
                }
                for name, size in (("short", 7), ("long", 90))
            },
        }
    },
    "lengths": {"text_encoder": {"short": 7, "long": 90}},
    "chain": "1. Run `text_encoder`.",
}


def test_the_page_names_every_stage_function_and_tensor() -> None:
    text = page("A model", INTERFACE)
    assert text.startswith("# A model")
    assert "1. Run `text_encoder`." in text
    assert "configuration.computeUnits = .cpuAndNeuralEngine" in text
    assert 'functionName = "short"  // one of: short, long' in text
    assert "let state = textEncoder.makeState()" in text
    for row in (
        "| input | `ids` | 1 × 90 | Int32 | tokens |",
        "| output | `out` | 1 × 1…7 | Float | made |",
        "| state | `past` | 1 × 32 | Float16 | kept |",
        "| `text_encoder` | `long` | 90 |",
    ):
        assert row in text


@pytest.mark.parametrize("model", MODELS)
def test_the_pages_in_docs_are_those_that_the_code_makes_now(model: str) -> None:
    """`python -m bench.coreml_pages` writes them."""
    assert (PAGES / f"{model}.md").read_text(encoding="utf-8") == pages()[model]
