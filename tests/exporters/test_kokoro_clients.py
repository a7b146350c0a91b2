from __future__ import annotations

import json
import re
import string
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from jtts_export.errors import CheckpointError
from jtts_export.exporters.kokoro_clients import graph_metadata, tokenizer, write_client_files

OFFICIAL_CONFIG = Path(__file__).parents[2] / "jtts_export/models/kokoro/config.json"

# All printable ASCII, which holds every character that a regular expression may read as more than itself.
ASCII_SYMBOLS = [chr(c) for c in range(0x20, 0x7F) if chr(c) != "$"]


@pytest.fixture
def config() -> dict[str, Any]:
    return json.loads(OFFICIAL_CONFIG.read_text(encoding="utf-8"))


@pytest.fixture
def voices() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.2, (7, 1, 16)).astype(np.float32) for name in ("bm_b", "af_a", "zf_c")}


def test_the_files_depend_on_nothing_but_config_and_voices(tmp_path, config, voices):
    first = write_client_files(tmp_path / "1", config, voices)
    second = write_client_files(tmp_path / "2", config, dict(reversed(voices.items())))
    assert [p.relative_to(tmp_path / "1") for p in first] == [p.relative_to(tmp_path / "2") for p in second]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert sorted(first) == sorted(p for p in (tmp_path / "1").rglob("*") if p.is_file())
    with zipfile.ZipFile(tmp_path / "1/clients/kokoro-onnx/voices.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_every_client_gets_the_same_voices(tmp_path, config, voices):
    write_client_files(tmp_path, config, voices)
    for name, voice in voices.items():
        np.testing.assert_array_equal(np.fromfile(tmp_path / f"voices/{name}.bin", "<f4"), voice.ravel())
    with np.load(tmp_path / "clients/kokoro-onnx/voices.npz") as archive:
        assert sorted(archive) == sorted(voices)
        for name, voice in voices.items():
            np.testing.assert_array_equal(archive[name], voice)
            assert archive[name].dtype == np.float32
    speakers = graph_metadata(config, voices)["speaker_names"].split(",")
    in_order = np.stack([voices[name] for name in speakers])
    np.testing.assert_array_equal(
        np.fromfile(tmp_path / "clients/sherpa-onnx/voices.bin", "<f4").reshape(in_order.shape), in_order
    )


@pytest.mark.parametrize("change", [lambda v: v.astype(">f4"), lambda v: v.astype(np.float64), np.asfortranarray])
def test_voices_are_written_as_little_endian_float32_in_c_order(tmp_path, config, voices, change):
    write_client_files(tmp_path, config, {name: change(voice) for name, voice in voices.items()})
    np.testing.assert_array_equal(np.fromfile(tmp_path / "voices/af_a.bin", "<f4"), voices["af_a"].ravel())


def test_config_keeps_the_authors_values_and_names_the_class_for_transformers_js(tmp_path, config, voices):
    write_client_files(tmp_path, config, voices)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert written == {**config, "model_type": "style_text_to_speech_2"}
    tokenizer_config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer_config["model_max_length"] == config["plbert"]["max_position_embeddings"] == 512


def test_tokens_txt_reads_back_the_way_sherpa_onnx_reads_it(tmp_path, config, voices):
    write_client_files(tmp_path, config, voices)
    read = {}
    for line in (tmp_path / "clients/sherpa-onnx/tokens.txt").read_text(encoding="utf-8").splitlines():
        # A line with an id alone is the space (symbol-table.cc); fields end at ASCII white space only.
        *symbol, i = re.split(r"[ \t]+", line.strip(string.whitespace))
        read[symbol[0] if symbol else " "] = int(i)
    assert read == config["vocab"]


def test_metadata_holds_what_the_clients_look_up(config, voices):
    metadata = graph_metadata(config, voices)
    assert all(isinstance(value, str) for value in metadata.values())
    assert json.loads(metadata["kokoro_config"]) == config
    wanted = {
        "sample_rate": "24000",
        "n_speakers": "3",
        "has_espeak": "1",
        "version": "2",
        "speaker_names": "af_a,bm_b,zf_c",
        "speaker2id": "af_a->0,bm_b->1,zf_c->2",
        "id2speaker": "0->af_a,1->bm_b,2->zf_c",
    }
    assert {key: metadata[key] for key in wanted} == wanted


@pytest.mark.parametrize("shape", [(510, 1, 256), (7, 1, 16)])
def test_style_dim_is_the_shape_of_the_voices(config, shape):
    assert graph_metadata(config, {"v": np.zeros(shape)})["style_dim"] == ",".join(map(str, shape))


def test_tokenizer_maps_each_phoneme_of_the_official_vocabulary(config):
    vocab = config["vocab"]
    assert _encode(vocab, "".join(vocab)) == [0, *vocab.values(), 0]


def test_tokenizer_drops_what_is_not_a_phoneme(config):
    assert _encode(config["vocab"], "h$[\n]1\\😀ə^-") == [0, 50, 83, 0]
    assert _encode(config["vocab"], "") == [0, 0]


@pytest.mark.parametrize(
    "symbols", [ASCII_SYMBOLS, ASCII_SYMBOLS[::-1], list("^]-"), list("]^\\"), list("a-c[&&b😀")]
)
def test_tokenizer_takes_regex_characters_as_they_are(symbols):
    vocab = {symbol: i for i, symbol in enumerate(dict.fromkeys(symbols), start=1)}
    outside = [s for s in [*ASCII_SYMBOLS, "$", "\n", "ə", "\u0303"] if s not in vocab]
    assert _encode(vocab, "".join(vocab)) == [0, *vocab.values(), 0]
    assert _encode(vocab, "".join(outside)) == [0, 0]


def test_a_vocabulary_that_lists_the_boundary_token_gives_the_same_files(tmp_path, config, voices):
    listed = {**config, "vocab": {"$": 0, **config["vocab"]}}
    write_client_files(tmp_path / "1", config, voices)
    write_client_files(tmp_path / "2", listed, voices)
    for name in ("tokenizer.json", "clients/sherpa-onnx/tokens.txt"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@pytest.mark.parametrize("vocab", [{"ab": 1}, {"": 1}, {"\t": 1}, {"$": 1}, {"a": 0}])
def test_a_vocabulary_that_a_client_cannot_hold_is_refused(tmp_path, config, voices, vocab):
    with pytest.raises(CheckpointError, match="vocab"):
        write_client_files(tmp_path, {**config, "vocab": vocab}, voices)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shapes", [[], [(7, 1, 16), (8, 1, 16)], [(7, 16)], [(7, 2, 16)]])
def test_voices_of_another_shape_are_refused(config, shapes):
    with pytest.raises(CheckpointError, match="voices"):
        graph_metadata(config, {str(i): np.zeros(shape) for i, shape in enumerate(shapes)})


def _encode(vocab: dict[str, int], text: str) -> list[int]:
    return Tokenizer.from_str(json.dumps(tokenizer(vocab))).encode(text).ids
