"""The checkpoint that comes with the package: where it is found, and that it is one like any other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jtts_export.errors import BadInput, CheckpointError
from jtts_export.licences import licence_of
from jtts_export.models import MODELS
from jtts_export.models.kokoro import checkpoint
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.model import Kokoro
from jtts_export.models.kokoro.random import official_config
from jtts_export.models.source import DEMO_FOLDER, DEMO_WEIGHTS, Source, locate

INFO = MODELS["kokoro"]
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def source() -> Source:
    return locate("demo", INFO.files)


def test_is_found_by_its_name_and_hashed_file_by_file(source: Source) -> None:
    assert source.source == "demo"
    assert {*source.files} == {"config.json", DEMO_WEIGHTS, "voices/af_demo.pt", "voices/am_demo.pt"}
    for name, path in source.files.items():
        assert source.hashes[name] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_hash_is_that_of_the_same_files_in_a_folder(source: Source) -> None:
    assert locate(str(DEMO_FOLDER), INFO.files).sha256 == source.sha256


def test_a_folder_of_that_name_is_meant_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert locate("demo", INFO.files).source == "demo"
    assert {*locate("./demo", INFO.files).files} == {"config.json"}


@pytest.mark.parametrize("model", ["speecht5", "t3"])
def test_is_no_checkpoint_of_another_model(model: str) -> None:
    with pytest.raises(BadInput, match=r"'demo' is a Kokoro"):
        locate("demo", MODELS[model].files, MODELS[model].companions)


def test_has_a_licence_of_its_own(source: Source) -> None:
    assert licence_of(source, INFO) == "Apache-2.0"


def test_is_small(source: Source) -> None:
    assert sum(path.stat().st_size for path in source.files.values()) <= MOST_BYTES


def test_loads_with_the_names_of_a_full_checkpoint(source: Source) -> None:
    _, model, voices = checkpoint.load(source)
    full = Kokoro(KokoroConfig.model_validate(official_config()))
    deeper = ("predictor.text_encoder.lstms.4.", "predictor.text_encoder.lstms.5.", "text_encoder.cnn.2.")
    assert {*model.state_dict()} == {key for key in full.state_dict() if not key.startswith(deeper)}  # 2 of 3 layers
    assert {name: voice.shape for name, voice in voices.items()} == dict.fromkeys(
        ("af_demo", "am_demo"), (510, 1, 64)
    )
    assert not np.allclose(voices["af_demo"], voices["am_demo"], atol=0.05)


def test_speaks_the_official_vocabulary_at_the_official_rates(source: Source) -> None:
    raw, model, _ = checkpoint.load(source)
    official = official_config()
    assert raw["vocab"] == official["vocab"]
    assert model.cfg.samples_per_f0 == 300
    for key in ("upsample_rates", "upsample_kernel_sizes", "gen_istft_n_fft", "resblock_kernel_sizes"):
        assert raw["istftnet"][key] == official["istftnet"][key]


def _copied(folder: Path, weights: dict[str, np.ndarray]) -> Source:
    for name, path in locate("demo", INFO.files).files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        if name != DEMO_WEIGHTS:
            (folder / name).write_bytes(path.read_bytes())
    save_file(weights, folder / "weights.safetensors")
    return locate(str(folder), INFO.files)


def test_safetensors_are_read_as_strictly_as_the_authors_form(source: Source, tmp_path: Path) -> None:
    weights = load_file(source.files[DEMO_WEIGHTS])
    key = "predictor.F0_proj.bias"
    with pytest.raises(CheckpointError, match=rf"missing.*{key}"):
        checkpoint.load(_copied(tmp_path, {k: v for k, v in weights.items() if k != key}))
    with pytest.raises(CheckpointError, match=r"decoder\.extra"):
        checkpoint.load(_copied(tmp_path, weights | {"decoder.extra": np.zeros(1, np.float16)}))
    with pytest.raises(CheckpointError, match=rf"{key} holds NaN"):
        checkpoint.load(_copied(tmp_path, weights | {key: np.full(1, np.nan, np.float16)}))
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        checkpoint.load(locate(str(tmp_path), INFO.files))


def test_two_files_of_weights_are_one_too_many(source: Source, tmp_path: Path) -> None:
    weights = load_file(source.files[DEMO_WEIGHTS])
    _copied(tmp_path, weights)
    (tmp_path / "other.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"exactly one \.pth or \.safetensors file; found: other\.pth, weights"):
        checkpoint.load(locate(str(tmp_path), INFO.files))
