"""The loader takes every form of the authors' files, and names what is wrong with any other."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from speecht5_files import SPEAKERS, VOCODER, tiny_config, write_checkpoint, xvectors
from torch import Tensor, nn
from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan

from jtts_export.errors import CheckpointError
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.models.speecht5.checkpoint import Checkpoint, load

State = dict[str, Any]
WEIGHTS = "pytorch_model.bin"
KEY = "speecht5.decoder.prenet.final_layer.weight"  # [32, 16]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speecht5")
    write_checkpoint(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, whole: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def load_folder(folder: Path) -> Checkpoint:
    info = MODELS["speecht5"]
    return load(locate(str(folder), info.files, info.companions))


def assert_refused(folder: Path, *named: str) -> None:
    """Loading must raise one line that names the file, and the key if there is one; exit code 4."""
    with pytest.raises(CheckpointError) as caught:
        load_folder(folder)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    for part in named:
        assert part in message


def assert_same(model: nn.Module, expected: nn.Module) -> None:
    assert not model.training
    state = expected.state_dict()
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert value.dtype == torch.float32, key
            torch.testing.assert_close(value, state[key], rtol=2e-6, atol=1e-6, msg=key)


def edit_weights(folder: Path, change: Callable[[State], object]) -> None:
    state = torch.load(folder / WEIGHTS, weights_only=True)
    change(state)
    torch.save(state, folder / WEIGHTS)


def edit_config(folder: Path, **changes: Any) -> None:
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(raw | changes), encoding="utf-8")


class TestForms:
    @pytest.mark.parametrize("safetensors", [False, True])
    @pytest.mark.parametrize("reduction_factor", [1, 2, 3])
    def test_both_kinds_of_file_load(self, tmp_path: Path, safetensors: bool, reduction_factor: int) -> None:
        model, vocoder = write_checkpoint(tmp_path, 3, safetensors=safetensors, reduction_factor=reduction_factor)
        loaded = load_folder(tmp_path)
        assert_same(loaded.model, model)
        assert_same(loaded.vocoder, vocoder)
        assert loaded.model.config.reduction_factor == reduction_factor

    def test_it_synthesizes_as_transformers_own_loader_does(self, folder: Path) -> None:
        loaded = load_folder(folder)
        raw = json.loads((folder / VOCODER / "config.json").read_text(encoding="utf-8"))
        (folder / VOCODER / "config.json").write_text(json.dumps(raw | {"model_type": "speecht5_hifigan"}))
        text = torch.arange(4, 20)[None]
        speaker = torch.from_numpy(loaded.speakers[SPEAKERS[0]])[None]
        theirs = SpeechT5ForTextToSpeech.from_pretrained(folder)
        for part in ("encoder", "decoder"):  # positions, which no file holds, but for what a processor makes of them
            mine, table = (getattr(m.speecht5, part).prenet.encode_positions.pe for m in (loaded.model, theirs))
            torch.testing.assert_close(mine, table, rtol=0, atol=2e-4)
            table.copy_(mine)
        waveforms = []
        for model, vocoder in (
            (loaded.model, loaded.vocoder),
            (theirs, SpeechT5HifiGan.from_pretrained(folder / VOCODER)),
        ):
            torch.manual_seed(0)  # of the prenet's dropout
            waveforms.append(
                model.generate(text, speaker_embeddings=speaker, vocoder=vocoder, minlenratio=2, maxlenratio=3)
            )
        assert torch.equal(*waveforms)
        assert 0.02 < waveforms[0].std() < 0.3

    def test_configs_and_speakers_come_along(self, folder: Path) -> None:
        loaded = load_folder(folder)
        for name, place in (("model", folder), ("vocoder", folder / VOCODER)):
            assert loaded.config[name] == json.loads((place / "config.json").read_text(encoding="utf-8"))
        assert loaded.tokenizer["model"]["type"] == "Unigram"
        assert loaded.speakers.keys() == set(SPEAKERS)
        for name, vector in xvectors(0).items():
            assert loaded.speakers[name].dtype == np.float32
            assert np.array_equal(loaded.speakers[name], vector)

    @pytest.mark.parametrize("kind", [".bin", ".safetensors"])
    def test_shards_load(self, tmp_path: Path, kind: str) -> None:
        model, _ = write_checkpoint(tmp_path, safetensors=kind == ".safetensors")
        write_shards(tmp_path, kind)
        assert_same(load_folder(tmp_path).model, model)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_float_types_load_as_float32(self, folder: Path, dtype: torch.dtype) -> None:
        def convert(state: State) -> None:
            state.update({k: v.to(dtype) for k, v in state.items() if v.is_floating_point()})

        expected = load_folder(folder).model.state_dict()[KEY].to(dtype).float()
        edit_weights(folder, convert)
        edit_config(folder, dtype=str(dtype).removeprefix("torch."), torch_dtype="float16")
        loaded = load_folder(folder).model.state_dict()
        assert torch.equal(loaded[KEY], expected)
        assert all(v.dtype == torch.float32 for v in loaded.values() if v.is_floating_point())

    def test_tensors_of_no_computation_are_ignored(self, folder: Path) -> None:
        def older(state: State) -> None:
            for key in [key for key in state if key.endswith("num_batches_tracked")]:
                del state[key]
            state["speecht5.encoder.prenet.encode_positions.pe"] = torch.zeros(1, 600, 32)
            state["speecht5.decoder.prenet.encode_positions.pe"] = torch.zeros(1, 1876, 32)

        edit_weights(folder, older)
        loaded = load_folder(folder).model
        assert loaded.speecht5.encoder.prenet.encode_positions.pe.any()

    @pytest.mark.parametrize(
        ("magnitude", "direction"),
        [
            ("weight_g", "weight_v"),
            ("parametrizations.weight.original0", "parametrizations.weight.original1"),
        ],
    )
    def test_a_vocoder_in_training_form_loads(self, folder: Path, magnitude: str, direction: str) -> None:
        expected = load_folder(folder).vocoder
        state = weight_normed(expected.state_dict(), magnitude, direction)
        torch.save(state, folder / VOCODER / WEIGHTS)
        assert_same(load_folder(folder).vocoder, expected)

    def test_as_transformers_writes_it(self, folder: Path) -> None:
        expected = load_folder(folder).vocoder
        training = load_folder(folder).vocoder
        training.apply_weight_norm()
        torch.save(training.state_dict(), folder / VOCODER / WEIGHTS)
        assert_same(load_folder(folder).vocoder, expected)

    @pytest.mark.parametrize("vocoder", ["vocoder", "../speecht5_hifigan", "../vocoder"])
    def test_the_vocoder_may_lie_elsewhere(self, tmp_path: Path, vocoder: str) -> None:
        _, expected = write_checkpoint(tmp_path / "checkpoint", vocoder=vocoder)
        assert_same(load_folder(tmp_path / "checkpoint").vocoder, expected)

    def test_sizes_are_those_of_the_config(self, tmp_path: Path) -> None:
        sizes = {"num_mel_bins": 40, "max_speech_positions": 300, "speaker_embedding_dim": 256}
        write_checkpoint(tmp_path, config=sizes, vocoder_config={"model_in_dim": 40, "sampling_rate": 22050})
        loaded = load_folder(tmp_path)
        assert loaded.model.speecht5.decoder.prenet.encode_positions.pe.shape[1] == 300
        assert loaded.speakers[SPEAKERS[0]].shape == (256,)
        assert loaded.vocoder.config.sampling_rate == 22050

    def test_fields_that_shape_nothing_may_be_missing_or_new(self, folder: Path) -> None:
        edit_config(folder, new_field=1, output_attentions=True, quantization_config={"bits": 4})
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for field in ("use_guided_attention_loss", "scale_embedding", "conv_dim"):
            del raw[field]
        (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        assert not load_folder(folder).model.config.output_attentions

    def test_the_global_generator_is_left_as_it_was(self, folder: Path) -> None:
        before = torch.get_rng_state()
        load_folder(folder)
        assert torch.equal(torch.get_rng_state(), before)


def weight_normed(state: dict[str, Tensor], magnitude: str, direction: str) -> dict[str, Tensor]:
    """The same convolutions as lengths and directions, where a direction's own length means nothing."""
    normed = dict(state)
    for key in [key for key in state if key.endswith(".weight")]:
        weight = normed.pop(key)
        norm = weight.norm(2, dim=(1, 2), keepdim=True)
        normed[key.removesuffix("weight") + magnitude] = norm
        normed[key.removesuffix("weight") + direction] = weight * (0.5 + torch.rand(norm.shape))
    return normed


def write_shards(folder: Path, kind: str) -> Path:
    """Two shards instead of one file; returns the index."""
    stem = "pytorch_model" if kind == ".bin" else "model"
    path = folder / f"{stem}{kind}"
    state = load_file(path) if kind == ".safetensors" else torch.load(path, weights_only=True)
    path.unlink()
    keys = sorted(state)
    places = {}
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        name = f"{stem}-{number:05}-of-00002{kind}"
        shard = {key: state[key] for key in part}
        if kind == ".bin":
            torch.save(shard, folder / name)
        else:
            save_file(shard, folder / name)
        places |= dict.fromkeys(part, name)
    index = folder / f"{stem}{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return index


class TestBadWeights:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda s: s.pop(KEY), ("missing key", KEY)),
            (lambda s: s.update(extra=torch.ones(1)), ("unexpected key", "extra")),
            (lambda s: s.update({KEY: torch.ones(16, 32)}), (KEY, "[16, 32]", "[32, 16]")),
            (lambda s: s[KEY].fill_(torch.nan), (KEY, "NaN")),
            (lambda s: s[KEY].fill_(torch.inf), (KEY, "infinite")),
            (lambda s: s.update({KEY: s[KEY].to(torch.int8)}), (KEY, "int8")),
            (lambda s: s.update({KEY: s[KEY].to_sparse()}), (KEY, "dense")),
            (lambda s: s.update({KEY: 1.5}), ("not a state dict",)),
            (lambda s: s.update({"text_decoder_postnet.lm_head.weight": torch.ones(8, 32)}), ("lm_head",)),
        ],
        ids=["missing", "extra", "shape", "nan", "inf", "int8", "sparse", "number", "another head"],
    )
    def test_the_message_names_the_key(
        self, folder: Path, change: Callable[[State], object], named: tuple[str, ...]
    ) -> None:
        edit_weights(folder, change)
        assert_refused(folder, WEIGHTS, *named)

    @pytest.mark.parametrize("safetensors", [False, True])
    @pytest.mark.parametrize("kept", [0.0, 1e-4, 0.5, 0.999])
    @pytest.mark.parametrize("place", [".", VOCODER])
    def test_a_truncated_file(self, tmp_path: Path, kept: float, safetensors: bool, place: str) -> None:
        write_checkpoint(tmp_path, safetensors=safetensors)
        path = tmp_path / place / ("model.safetensors" if safetensors else WEIGHTS)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        assert_refused(tmp_path, path.name)

    @pytest.mark.parametrize("place", [".", VOCODER])
    def test_weights_must_be_there(self, folder: Path, place: str) -> None:
        (folder / place / WEIGHTS).unlink()
        assert_refused(folder, WEIGHTS, "model.safetensors", str(folder))

    @pytest.mark.parametrize("content", [torch.ones(3), [torch.ones(3)], {"model": {}}, None])
    def test_another_structure(self, folder: Path, content: object) -> None:
        torch.save(content, folder / WEIGHTS)
        assert_refused(folder, WEIGHTS, "not a state dict")

    @pytest.mark.parametrize("file", [WEIGHTS, f"{VOCODER}/{WEIGHTS}", "speakers/third.pt", "speakers/third.npy"])
    def test_nothing_in_a_file_is_executed(self, folder: Path, file: str) -> None:
        marker = folder / "executed"
        payload = np.array([RunsCommand(marker)], dtype=object)
        if file.endswith(".npy"):
            np.save(folder / file, payload, allow_pickle=True)
            np.load(folder / file, allow_pickle=True)
        else:
            torch.save({"weight": payload[0]}, folder / file)
            torch.load(folder / file, weights_only=False)
        assert marker.exists()  # the payload works where it is let
        marker.unlink()
        assert_refused(folder, Path(file).name)
        assert not marker.exists()


class RunsCommand:
    """Unpickling this, as plain pickle does it, makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"echo > '{self.marker}'",)


class TestBadShards:
    @pytest.fixture
    def index(self, folder: Path) -> Path:
        return write_shards(folder, ".bin")

    def test_all_must_be_there(self, folder: Path, index: Path) -> None:
        (folder / "pytorch_model-00002-of-00002.bin").unlink()
        assert_refused(folder, index.name, "pytorch_model-00002-of-00002.bin")

    def test_each_must_hold_what_the_index_says(self, folder: Path, index: Path) -> None:
        shards = [folder / f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
        shutil.copy(shards[0], shards[1])
        assert_refused(folder, shards[1].name, index.name)

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"a": 1}}'])
    def test_the_index_must_be_one(self, folder: Path, index: Path, content: str) -> None:
        index.write_text(content, encoding="utf-8")
        assert_refused(folder, index.name)

    def test_it_names_no_file_elsewhere(self, folder: Path, index: Path) -> None:
        torch.save({"a": torch.ones(1)}, folder.parent / "outside.bin")
        index.write_text('{"weight_map": {"a": "../outside.bin"}}', encoding="utf-8")
        assert_refused(folder, "../outside.bin", "not there")


class TestBadVocoder:
    def test_it_must_be_there(self, folder: Path) -> None:
        shutil.rmtree(folder / VOCODER)
        assert_refused(folder, "no vocoder", str(folder), "speecht5_hifigan/", "vocoder/", "beside")

    def test_its_config_must_be_there(self, folder: Path) -> None:
        (folder / VOCODER / "config.json").unlink()
        assert_refused(folder, "vocoder/config.json")

    def test_another_number_of_mel_bins(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path, vocoder_config={"model_in_dim": 40})
        assert_refused(tmp_path, "model_in_dim is 40", "num_mel_bins is 80")

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"model_type": "vits", "architectures": ["VitsModel"]}, "VitsModel"),
            ({"model_type": ["hifigan"]}, "model_type"),
            ({"sampling_rate": 0}, "sampling_rate"),
            ({"upsample_rates": []}, "upsample_rates"),
            ({"upsample_rates": [4, 4, 4, -4]}, "upsample_rates"),
            ({"upsample_rates": [4, 4, 4]}, "upsample_kernel_sizes"),
            ({"upsample_kernel_sizes": [8, 8, 8, 2]}, "upsample_kernel_sizes"),
            ({"resblock_kernel_sizes": [3, 4]}, "resblock_kernel_sizes"),
            ({"resblock_dilation_sizes": [[1, 3]]}, "resblock_dilation_sizes"),
            ({"resblock_dilation_sizes": [["a"], [1]]}, "describes no network"),
            ({"upsample_initial_channel": "wide"}, "upsample_initial_channel"),
        ],
    )
    def test_a_bad_field_is_named(self, folder: Path, changes: dict[str, Any], named: str) -> None:
        edit_config(folder / VOCODER, **changes)
        assert_refused(folder, "vocoder/config.json", named)

    @pytest.mark.parametrize("absent", ["conv_pre.bias", "upsampler.0.weight", "mean", "scale"])
    def test_a_missing_key(self, folder: Path, absent: str) -> None:
        edit_weights(folder / VOCODER, lambda s: s.pop(absent))
        assert_refused(folder, f"vocoder/{WEIGHTS}", "missing", absent)

    def test_a_scale_of_zero(self, folder: Path) -> None:
        edit_weights(folder / VOCODER, lambda s: s["scale"][:1].zero_())
        assert_refused(folder, f"vocoder/{WEIGHTS}", "scale", "zero")

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda s: s.pop("conv_pre.weight_v"), "conv_pre.weight_g"),
            (lambda s: s.pop("conv_pre.weight_g"), "conv_pre.weight_v"),
            (lambda s: s.update({"conv_pre.weight_g": torch.ones(3)}), "conv_pre.weight_g has shape [3]"),
            (lambda s: s["conv_pre.weight_v"].zero_(), "conv_pre.weight_v has a direction of zero length"),
            (lambda s: s.update({"conv_pre.weight": s["conv_pre.weight_v"]}), "conv_pre has its weight in two forms"),
        ],
        ids=["no direction", "no magnitude", "shape", "zero", "twice"],
    )
    def test_half_a_weight_norm(self, folder: Path, change: Callable[[State], object], named: str) -> None:
        state = weight_normed(load_folder(folder).vocoder.state_dict(), "weight_g", "weight_v")
        change(state)
        torch.save(state, folder / VOCODER / WEIGHTS)
        assert_refused(folder, f"vocoder/{WEIGHTS}", named)


class TestConfig:
    def test_it_must_be_there(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        assert_refused(folder, "config.json", str(folder))

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b"null", b'"text"', b"[" * 100_000])
    def test_it_must_be_a_json_object(self, folder: Path, content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        assert_refused(folder, "config.json")

    @pytest.mark.parametrize(
        ("model_type", "architectures"),
        [
            ("t5", ["T5ForConditionalGeneration"]),
            ("t5", None),
            ("speecht5", ["SpeechT5ForSpeechToText"]),
            ("speecht5", ["SpeechT5ForSpeechToSpeech"]),
            (None, ["SpeechT5ForTextToSpeech"]),
        ],
    )
    def test_another_model_is_named(self, folder: Path, model_type: Any, architectures: Any) -> None:
        edit_config(folder, model_type=model_type, architectures=architectures)
        assert_refused(folder, "config.json", repr(model_type), (architectures or ["SpeechT5For"])[0])

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("hidden_act", "relu"),
            ("hidden_act", "gelu_new"),
            ("hidden_size", "wide"),
            ("hidden_size", 0),
            ("vocab_size", -1),
            ("reduction_factor", 0),
            ("speech_decoder_prenet_layers", 0),
            ("speech_decoder_prenet_dropout", 1.0),
            ("speech_decoder_postnet_kernel", 4),
            ("pad_token_id", None),
            ("conv_stride", [2]),
        ],
    )
    def test_a_bad_field_is_named(self, folder: Path, field: str, value: Any) -> None:
        edit_config(folder, **{field: value})
        assert_refused(folder, "config.json", field)

    @pytest.mark.parametrize("changes", [{"hidden_size": 33}, {"encoder_attention_heads": 5}, {"pad_token_id": 900}])
    def test_sizes_that_do_not_fit(self, folder: Path, changes: dict[str, int]) -> None:
        edit_config(folder, **changes)
        assert_refused(folder, "config.json describes no network")

    def test_weights_of_another_size(self, folder: Path) -> None:
        edit_config(folder, reduction_factor=3)
        assert_refused(folder, WEIGHTS, "feat_out", "[160, 32]", "[240, 32]")

    def test_a_vocabulary_smaller_than_the_tokenizers(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path, config={"vocab_size": 60})
        assert_refused(tmp_path, "spm_char.model", "vocab_size is 60")


def npy(value: np.ndarray) -> bytes:
    written = io.BytesIO()
    np.save(written, value)
    return written.getvalue()


class TestSpeakers:
    def test_one_must_be_there(self, folder: Path) -> None:
        shutil.rmtree(folder / "speakers")
        assert_refused(folder, "no speaker", str(folder), "512", "speakers/NAME.npy")

    @pytest.mark.parametrize(
        "place",
        [
            *("a.npy", "speaker_a.npy", "speaker_a.bin", "speaker_a.pt", "xvector.bin", "xvectors/a.pt"),
            *("speakers/a.pt", "speaker_embeddings/a.npy", "voices/a.bin"),
        ],
    )
    @pytest.mark.parametrize("shape", [(512,), (1, 512)])
    def test_they_lie_in_many_places(self, folder: Path, place: str, shape: tuple[int, ...]) -> None:
        vector = xvectors(5)[SPEAKERS[0]]
        path = folder / place
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, vector.reshape(shape).astype(np.float64))
        elif path.suffix == ".bin":
            vector.astype("<f4").tofile(path)
        else:
            torch.save(torch.from_numpy(vector).reshape(shape), path)
        speakers = load_folder(folder).speakers
        assert speakers.keys() == {*SPEAKERS, path.stem}
        assert speakers[path.stem].dtype == np.float32
        assert np.array_equal(speakers[path.stem], vector)

    @pytest.mark.parametrize(
        ("value", "named"),
        [
            (np.ones(511, np.float32), "[511]"),
            (np.ones((512, 1), np.float32), "[512, 1]"),
            (np.ones((2, 512), np.float32), "[2, 512]"),
            (np.full(512, np.nan, np.float32), "NaN"),
            (np.full(512, 1e300), "infinite"),
            (np.zeros(512, np.float32), "zeros"),
            (np.ones(512, np.int64), "int64"),
            (np.array(["a"] * 512), "floating"),
        ],
        ids=["short", "column", "two", "nan", "overflow", "zeros", "integers", "text"],
    )
    @pytest.mark.filterwarnings("ignore:overflow")
    def test_a_bad_vector_is_named(self, folder: Path, value: np.ndarray, named: str) -> None:
        np.save(folder / "speakers/bad.npy", value)
        assert_refused(folder, "speakers/bad.npy", named)

    @pytest.mark.parametrize("value", [{"a": torch.ones(512)}, torch.ones(511), torch.full((512,), torch.nan)])
    def test_a_bad_tensor_is_named(self, folder: Path, value: object) -> None:
        torch.save(value, folder / "speakers/bad.pt")
        assert_refused(folder, "speakers/bad.pt")

    @pytest.mark.parametrize("size", [0, 1, 2047, 2044])
    def test_bad_raw_floats_are_named(self, folder: Path, size: int) -> None:
        (folder / "speakers/bad.bin").write_bytes(np.ones(512, "<f4").tobytes()[:size])
        assert_refused(folder, "speakers/bad.bin")

    @pytest.mark.parametrize("kept", [0, 5, 100, 2000])
    def test_a_truncated_npy_is_named(self, folder: Path, kept: int) -> None:
        (folder / "speakers/bad.npy").write_bytes(npy(np.ones(512, np.float32))[:kept])
        assert_refused(folder, "speakers/bad.npy", "damaged")

    def test_a_speaker_in_two_files(self, folder: Path) -> None:
        np.save(folder / f"{SPEAKERS[1]}.npy", np.ones(512, np.float32))
        assert_refused(folder, SPEAKERS[1], "another")


ARCTIC = {
    "spkrec-xvect/cmu_us_slt_arctic-wav-arctic_a0001.npy": 1.0,
    "spkrec-xvect/cmu_us_slt_arctic-wav-arctic_a0508.npy": 2.0,
    "spkrec-xvect/cmu_us_bdl_arctic-wav-arctic_b0002.npy": 3.0,
    "spkrec-xvect/cmu_us_bdl_arctic-wav-arctic_a0007.npy": 4.0,
}


class TestArctic:
    """spkrec-xvect.zip of Matthijs/cmu-arctic-xvectors: thousands of utterances of seven speakers."""

    def write(self, path: Path, **others: bytes) -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in ARCTIC.items():
                archive.writestr(name, npy(np.full(512, value, np.float32)))
            for name, data in {"spkrec-xvect/notes.txt": b"text", **others}.items():
                archive.writestr(name, data)
        return path

    @pytest.mark.parametrize("place", ["spkrec-xvect.zip", "speakers/spkrec-xvect.zip"])
    def test_a_speaker_is_one_utterance(self, folder: Path, place: str) -> None:
        self.write(folder / place)
        speakers = load_folder(folder).speakers
        assert speakers.keys() == {*SPEAKERS, "bdl", "slt"}
        assert set(speakers["slt"]) == {2.0}  # a0508
        assert set(speakers["bdl"]) == {4.0}  # the first by name

    def test_a_bad_entry_is_named(self, folder: Path) -> None:
        name = "cmu_us_awb_arctic-wav-arctic_a0508.npy"
        self.write(folder / "spkrec-xvect.zip", **{name: npy(np.ones(3, np.float32))})
        assert_refused(folder, "spkrec-xvect.zip", name, "[3]")

    def test_an_entry_that_unpacks_to_gigabytes_is_not_unpacked(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "cmu_us_awb_arctic-wav-arctic_a0508.npy"
        self.write(folder / "spkrec-xvect.zip", **{name: npy(np.ones(10_000_000, np.float32))})
        sizes = []
        read = zipfile.ZipExtFile.read

        def measured(self: zipfile.ZipExtFile, n: int = -1) -> bytes:
            data = read(self, n)
            sizes.append(len(data))
            return data

        monkeypatch.setattr(zipfile.ZipExtFile, "read", measured)
        assert_refused(folder, "spkrec-xvect.zip", name)
        assert max(sizes) <= 1 << 20

    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_a_truncated_file(self, folder: Path, kept: float) -> None:
        path = self.write(folder / "spkrec-xvect.zip")
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept)])
        assert_refused(folder, "spkrec-xvect.zip", "damaged")

    def test_an_entry_whose_bytes_changed(self, folder: Path) -> None:
        path = self.write(folder / "spkrec-xvect.zip")
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("spkrec-xvect/cmu_us_slt_arctic-wav-arctic_a0508.npy").header_offset
        data[start + 90] ^= 0xFF
        path.write_bytes(data)
        assert_refused(folder, "spkrec-xvect.zip", "damaged")

    def test_a_zip_of_something_else(self, folder: Path) -> None:
        with zipfile.ZipFile(folder / "spkrec-xvect.zip", "w") as archive:
            archive.writestr("notes.txt", "text")
        assert_refused(folder, "spkrec-xvect.zip", "cmu_us_slt")


class TestSeed:
    def test_a_seed_gives_networks_tokenizer_and_speakers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = ({"model": {}}, SpeechT5ForTextToSpeech(tiny_config(81)), SpeechT5HifiGan, {"a": np.ones(512)})
        monkeypatch.setattr(
            "jtts_export.models.speecht5.checkpoint.random_checkpoint", lambda seed: (seed, *made[1:])
        )
        info = MODELS["speecht5"]
        loaded = load(locate("random:7", info.files, info.companions))
        assert (loaded.config, loaded.model, loaded.vocoder, loaded.speakers) == (7, *made[1:])
        assert len(loaded.tokenizer["model"]["vocab"]) == 81
