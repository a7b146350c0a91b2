"""SpeechT5 at its full official size: what the small models of the other tests cannot show.

JTTS_FULL=1 runs every length with both speakers and both seeds; else a short utterance of each seed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tokenizers import Tokenizer

from jtts_export.exporters import speecht5_sentences
from jtts_export.exporters.model import Loaded
from jtts_export.exporters.onnx import save
from jtts_export.exporters.speecht5 import MODEL
from jtts_export.models.source import Source
from jtts_export.optimize import optimize
from jtts_export.runtime.speecht5 import DECODER, GRAPHS
from jtts_export.runtime.speecht5_taps import CLIENT_DECODER, SpeechT5Runner
from jtts_export.validate.audio import snr_db

THREADS = os.cpu_count() or 1
FULL = os.environ.get("JTTS_FULL") == "1"
SEEDS = (0, 1)
TEXTS = {
    "short": "Open the window.",
    "middle": "A large size in stockings is hard to sell.",
    "long": speecht5_sentences.LONG[:150],
}
MATRIX = [(length, speaker) for length in TEXTS for speaker in ("random_a", "random_c")]
COVERING = [("short", "random_a")]


class Full:
    """A seeded checkpoint and its released fp32 graphs."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.loaded: Loaded = MODEL.load(Source(f"random:{seed}", "", seed=seed))
        MODEL.export(self.loaded, folder, 17)
        graphs = {name: ir.load(folder / f"{name}.onnx") for name in GRAPHS}
        for graph in graphs.values():
            optimize(graph)
        for name, graph in {**graphs, **MODEL.derive(graphs)}.items():
            save(graph, folder / f"{name}.onnx")
        self.files = {name: folder / f"{name}.onnx" for name in (*GRAPHS, CLIENT_DECODER)}
        self.runner = SpeechT5Runner(self.files, THREADS)

    def inputs(self, text: str, speaker: str) -> dict[str, np.ndarray]:
        tokenizer = Tokenizer.from_str(json.dumps(self.loaded.config["tokenizer"]))
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        return {"input_ids": ids, "speaker_embeddings": self.loaded.voices[speaker][None]}


@pytest.fixture(scope="module", params=SEEDS)
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Full:
    return Full(request.param, tmp_path_factory.mktemp("speecht5-full"))


@pytest.mark.parametrize(("length", "speaker"), MATRIX if FULL else COVERING)
def test_fp32_equals_transformers(full: Full, length: str, speaker: str) -> None:
    inputs = full.inputs(TEXTS[length], speaker)
    taps = ["encoder_outputs", "steps", "mel", "waveform"]
    expected = MODEL.reference(full.loaded, THREADS, 0, False).taps(inputs, taps)
    made = full.runner.taps(inputs, taps)
    np.testing.assert_array_equal(made["steps"], expected["steps"])
    assert expected["steps"] < 20 * inputs["input_ids"].shape[1] // 2  # ended by its stop token
    figures = {tap: snr_db(made[tap], expected[tap]) for tap in taps if tap != "steps"}
    assert figures["encoder_outputs"] >= 100, figures
    assert figures["mel"] >= 100, figures
    assert figures["waveform"] >= 90, figures
    forced = {"steps": made["steps"]}
    client = full.runner.taps(inputs, ["client_spectrogram", "spectrogram"], forced)
    assert snr_db(client["client_spectrogram"], client["spectrogram"]) >= 100


def test_the_decoder_has_a_mask_and_a_cache_for_all_that_it_can_speak(full: Full) -> None:
    model = onnx.load(full.files[DECODER])
    caches = [i.name for i in model.graph.input if i.name.startswith("past_key_values.")]
    assert len(caches) == 2 * 6
    config = full.loaded.module.model.config
    (mask,) = (t for t in model.graph.initializer if t.name == "prenet_mask")
    assert list(mask.dims) == [config.max_speech_positions, 2, 256]


def test_a_streamed_piece_needs_half_a_second_around_it(full: Full) -> None:
    metadata = {p.key: p.value for p in onnx.load(full.files[GRAPHS[2]]).metadata_props}
    assert int(metadata["context_frames"]) * 256 / 16_000 <= 0.6
