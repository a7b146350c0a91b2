"""The loader takes every form of the authors' files, and names what is wrong with any other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from kokoro_files import (
    FORMS,
    WEIGHTS,
    Affine,
    Form,
    authors_state,
    tiny_config,
    tiny_model,
    write_checkpoint,
)
from torch import Tensor

from jtts_export.errors import CheckpointError
from jtts_export.models import MODELS
from jtts_export.models.kokoro.adain import AdaIN1d
from jtts_export.models.kokoro.checkpoint import load
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.decoder import HARMONICS, VOICED_THRESHOLD_HZ
from jtts_export.models.kokoro.model import Kokoro
from jtts_export.models.kokoro.random import VOICES, official_config, random_model, random_voices
from jtts_export.models.source import locate

State = dict[str, dict[str, Any]]
VOICE = f"voices/{VOICES[0]}"
NORMED = "F0_conv"  # a weight-normed convolution of the decoder, weight [1, 1, 3]
ADAIN = "encode.norm1"  # of the decoder, over hidden_dim + 2 = 34 channels


@pytest.fixture
def folder(tmp_path: Path, kokoro_folder: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(kokoro_folder, tmp_path / "checkpoint"))


def load_folder(folder: Path) -> tuple[dict, Kokoro, dict[str, np.ndarray]]:
    return load(locate(str(folder), MODELS["kokoro"].files))


def edit_weights(folder: Path, change: Callable[[State], object]) -> None:
    state = torch.load(folder / WEIGHTS, weights_only=True)
    change(state)
    torch.save(state, folder / WEIGHTS)


def assert_refused(folder: Path, *named: str) -> None:
    """Loading must raise one line that names the file, and the key if there is one; exit code 4."""
    with pytest.raises(CheckpointError) as caught:
        load_folder(folder)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    for part in named:
        assert part in message


class TestForms:
    @pytest.mark.parametrize("affine", ["none", "identity", "learned"])
    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_loads_to_the_same_weights(
        self, tmp_path: Path, form: Form, prefix: str, affine: Affine
    ) -> None:
        expected = write_checkpoint(tmp_path, 3, form=form, prefix=prefix, affine=affine).state_dict()
        _, model, _ = load_folder(tmp_path)
        assert not model.training
        for key, value in model.state_dict().items():
            # g v / |v| and (1 + gamma) w round a few times each, on values up to 20.
            torch.testing.assert_close(value, expected[key], rtol=2e-6, atol=1e-6, msg=key)

    def test_plain_weights_are_copied_bit_for_bit(self, tmp_path: Path) -> None:
        expected = write_checkpoint(tmp_path, 3, form="plain").state_dict()
        for key, value in load_folder(tmp_path)[1].state_dict().items():
            assert torch.equal(value, expected[key]), key

    def test_the_raw_config_and_the_voices_come_along(self, folder: Path) -> None:
        raw, model, voices = load_folder(folder)
        assert raw == tiny_config()
        assert model.cfg == KokoroConfig.model_validate(raw)
        expected = random_voices(0, model.cfg)
        assert voices.keys() == expected.keys()
        for name, voice in voices.items():
            assert voice.dtype == np.float32
            assert np.array_equal(voice, expected[name].numpy())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_float_types_load_as_float32(self, folder: Path, dtype: torch.dtype) -> None:
        def convert(state: State) -> None:
            for part in state.values():
                part.update({key: value.to(dtype) for key, value in part.items()})

        edit_weights(folder, convert)
        bias = tiny_model(0).decoder.asr_res[0].bias.to(dtype).float()
        assert torch.equal(load_folder(folder)[1].decoder.asr_res[0].bias, bias)

    def test_tensors_that_take_part_in_no_computation_are_ignored(self, folder: Path) -> None:
        def add(state: State) -> None:
            state["bert"]["embeddings.position_ids"] = torch.arange(64)[None]
            state["decoder"]["generator.stft.weight_forward_real"] = torch.ones(11, 1, 20)

        edit_weights(folder, add)
        load_folder(folder)

    def test_parameters_that_require_gradients_load(self, folder: Path) -> None:
        torch.save(torch.load(folder / f"{VOICE}.pt").requires_grad_(), folder / f"{VOICE}.pt")
        edit_weights(folder, lambda s: [v.requires_grad_() for part in s.values() for v in part.values()])
        load_folder(folder)

    def test_the_seldom_used_serialization_of_torch_1_5_loads(self, folder: Path) -> None:
        torch.save(authors_state(tiny_model(0)), folder / WEIGHTS, _use_new_zipfile_serialization=False)
        load_folder(folder)

    def test_a_config_of_another_size_shapes_the_model(self, tmp_path: Path) -> None:
        """As Kokoro-82M-v1.1-zh, which has another vocabulary, and might have other sizes."""
        config = tiny_config() | {"vocab": {"ㄅ": 1, "ㄆ": 199}, "n_token": 200, "max_dur": 60}
        write_checkpoint(tmp_path, config=config)
        raw, model, _ = load_folder(tmp_path)
        assert raw["vocab"] == {"ㄅ": 1, "ㄆ": 199}
        assert model.text_encoder.embedding.num_embeddings == 200
        assert model.predictor.duration_proj.linear_layer.out_features == 60


class TestAffineInstanceNorms:
    @torch.no_grad()
    def test_they_are_folded_as_the_authors_compute_them(self, tmp_path: Path, authors: SimpleNamespace) -> None:
        model = write_checkpoint(tmp_path, affine="learned")
        state = authors_state(model, affine="learned")["decoder"]
        style_dim, channels = model.cfg.style_dim, len(state[f"{ADAIN}.norm.weight"])
        theirs = authors.istftnet.AdaIN1d(style_dim, channels)
        theirs.load_state_dict({k.removeprefix(f"{ADAIN}."): v for k, v in state.items() if ADAIN in k})
        assert theirs.norm.weight.std() > 0.1
        assert theirs.norm.bias.std() > 0.1
        ours = load_folder(tmp_path)[1].decoder.get_submodule(ADAIN)
        assert isinstance(ours, AdaIN1d)

        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, channels, 50, generator=generator)
        style = torch.randn(1, style_dim, generator=generator)
        torch.testing.assert_close(ours(x, style), theirs(x, style), rtol=1e-5, atol=1e-5)  # values up to 5

    def test_a_half_of_them_is_refused(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path, affine="learned")
        edit_weights(tmp_path, lambda s: s["decoder"].pop(f"{ADAIN}.norm.bias"))
        assert_refused(tmp_path, WEIGHTS, f"unexpected key decoder.{ADAIN}.norm.weight")

    @pytest.mark.parametrize("key", ["norm.weight", "norm.bias", "fc.weight", "fc.bias"])
    def test_shapes_that_would_broadcast_are_refused(self, tmp_path: Path, key: str) -> None:
        write_checkpoint(tmp_path, affine="learned")
        edit_weights(tmp_path, lambda s: s["decoder"].update({f"{ADAIN}.{key}": torch.ones(2)}))
        assert_refused(tmp_path, WEIGHTS, f"decoder.{ADAIN}.{key} has shape [2]")


def put(part: str, key: str, change: Callable[[Tensor], object]) -> Callable[[State], object]:
    """A change of one tensor."""
    return lambda state: state[part].update({key: change(state[part][key])})


def filled(value: float) -> Callable[[Tensor], Tensor]:
    """A change of one element."""

    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return change


EMBEDDING = "embedding.weight"
BAD_WEIGHTS: dict[str, tuple[Callable[[State], object], tuple[str, ...]]] = {
    "missing part": (lambda s: s.pop("predictor"), ("missing part predictor",)),
    "extra part": (lambda s: s.update(vocoder={}), ("unexpected part vocoder",)),
    "missing key": (
        lambda s: s["decoder"].pop("asr_res.0.bias"),
        ("missing key decoder.asr_res.0.bias",),
    ),
    "every key missing": (lambda s: s["bert"].clear(), ("missing keys bert.", "more")),
    "extra key": (
        lambda s: s["predictor"].update(surprise=torch.ones(1)),
        ("unexpected key predictor.surprise",),
    ),
    "other vocabulary": (
        put("text_encoder", EMBEDDING, lambda t: t[:-1]),
        ("text_encoder.embedding.weight", "[177, 32]", "[178, 32]"),
    ),
    "transposed": (
        put("bert_encoder", "weight", lambda t: t[:, :5]),
        ("bert_encoder.weight", "[32, 5]", "[32, 32]"),
    ),
    "no magnitude": (
        lambda s: s["decoder"].pop(f"{NORMED}.weight_g"),
        (f"missing key decoder.{NORMED}.weight_g",),
    ),
    "no direction": (
        lambda s: s["decoder"].pop(f"{NORMED}.weight_v"),
        (f"missing key decoder.{NORMED}.weight_v",),
    ),
    "magnitude of another shape": (
        put("decoder", f"{NORMED}.weight_g", lambda t: t.flatten()),
        (f"decoder.{NORMED}.weight_g", "[1]", "[1, 1, 1]"),
    ),
    "direction of another shape": (
        put("decoder", f"{NORMED}.weight_v", lambda t: t[..., :2]),
        (f"decoder.{NORMED}.weight_v", "[1, 1, 2]", "[1, 1, 3]"),
    ),
    "scalar direction": (
        put("decoder", f"{NORMED}.weight_v", lambda t: t.sum()),
        (f"decoder.{NORMED}.weight_v", "[]", "[1, 1, 3]"),
    ),
    "direction of length zero": (
        put("decoder", f"{NORMED}.weight_v", torch.zeros_like),
        (f"decoder.{NORMED}.weight_v", "zero"),
    ),
    "weight in two forms": (
        lambda s: s["decoder"].update({f"{NORMED}.weight": torch.ones(1, 1, 3)}),
        (f"decoder.{NORMED}", "two forms"),
    ),
    "key with and without module.": (
        lambda s: s["bert_encoder"].update({"module.bias": torch.ones(32)}),
        ("bert_encoder.bias", "twice"),
    ),
    "NaN": (put("text_encoder", EMBEDDING, filled(torch.nan)), ("text_encoder.embedding.weight", "NaN")),
    "infinity": (put("text_encoder", EMBEDDING, filled(torch.inf)), ("text_encoder.embedding.weight",)),
    "NaN in a magnitude": (
        put("decoder", f"{NORMED}.weight_g", filled(torch.nan)),
        (f"decoder.{NORMED}.weight_g",),
    ),
    "beyond float32": (
        put("text_encoder", EMBEDDING, lambda t: filled(1e300)(t.double())),
        ("text_encoder.embedding.weight",),
    ),
    "integers": (
        put("text_encoder", EMBEDDING, lambda t: t.to(torch.int8)),
        ("text_encoder.embedding.weight", "int8"),
    ),
    "complex numbers": (
        put("text_encoder", EMBEDDING, lambda t: t.to(torch.complex64)),
        ("text_encoder.embedding.weight", "complex64"),
    ),
    "sparse": (
        put("text_encoder", EMBEDDING, lambda t: t.to_sparse()),
        ("text_encoder.embedding.weight", "dense"),
    ),
    "without data": (
        put("text_encoder", EMBEDDING, lambda t: t.to("meta")),
        ("text_encoder.embedding.weight", "dense"),
    ),
    "not a tensor": (
        put("text_encoder", EMBEDDING, lambda _: 1.5),
        ("text_encoder.embedding.weight", "not a tensor"),
    ),
}


class TestBadWeights:
    @pytest.mark.parametrize("case", BAD_WEIGHTS)
    def test_the_message_names_the_key(self, folder: Path, case: str) -> None:
        change, named = BAD_WEIGHTS[case]
        edit_weights(folder, change)
        assert_refused(folder, WEIGHTS, *named)

    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("kept", [0.0, 1e-4, 0.01, 0.5, 0.9, 0.999, "all but one byte"])
    def test_a_truncated_file_is_refused(self, folder: Path, kept: float | str, zipped: bool) -> None:
        path = folder / WEIGHTS
        torch.save(authors_state(tiny_model(0)), path, _use_new_zipfile_serialization=zipped)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else -1])
        assert_refused(folder, WEIGHTS)

    @pytest.mark.parametrize("seed", range(10))
    def test_random_bytes_are_refused(self, folder: Path, seed: int) -> None:
        (folder / WEIGHTS).write_bytes(np.random.default_rng(seed).bytes(10_000))
        assert_refused(folder, WEIGHTS, "not a PyTorch file")

    @pytest.mark.parametrize(
        "text",
        [
            "<!DOCTYPE html><title>404</title>",
            "version https://git-lfs.github.com/spec/v1\noid sha256:496dba\nsize 327212226\n",
        ],
        ids=["error page", "git-lfs pointer"],
    )
    def test_what_is_often_downloaded_instead_is_refused(self, folder: Path, text: str) -> None:
        (folder / WEIGHTS).write_text(text, encoding="utf-8")
        assert_refused(folder, WEIGHTS, "not a PyTorch file")

    @pytest.mark.parametrize(
        "content",
        [torch.ones(3), [torch.ones(3)], {"decoder.F0_conv.bias": torch.ones(1)}, {}, None],
        ids=["tensor", "list", "flat", "empty", "none"],
    )
    def test_another_structure_is_refused(self, folder: Path, content: object) -> None:
        torch.save(content, folder / WEIGHTS)
        assert_refused(folder, WEIGHTS)


class RunsCommand:
    """Unpickling this, as plain pickle does it, makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"echo > '{self.marker}'",)


class TestPickledObjects:
    @pytest.mark.parametrize("file", [WEIGHTS, f"{VOICE}.pt"])
    def test_nothing_in_a_file_is_executed(self, folder: Path, file: str) -> None:
        marker = folder / "executed"
        torch.save({"decoder": RunsCommand(marker)}, folder / file)
        torch.load(folder / file, weights_only=False)
        assert marker.exists()  # the payload works where it is let
        marker.unlink()

        assert_refused(folder, file, "pickled objects")
        assert not marker.exists()

    @pytest.mark.parametrize("file", [WEIGHTS, f"{VOICE}.pt"])
    def test_a_whole_module_is_refused(self, folder: Path, file: str) -> None:
        torch.save(tiny_model(0), folder / file)
        assert_refused(folder, file, "pickled objects")


def without(key: str) -> dict[str, Any]:
    config = tiny_config()
    del config[key]
    return config


class TestConfig:
    def test_it_must_be_there(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        assert_refused(folder, "config.json", str(folder))

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[1, 2]", b"null", b'"text"'])
    def test_it_must_be_a_json_object(self, folder: Path, content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        assert_refused(folder, "config.json")

    @pytest.mark.parametrize(
        ("config", "named"),
        [
            (without("plbert"), "plbert"),
            (without("vocab"), "vocab"),
            (without("hidden_dim"), "hidden_dim"),
            (tiny_config() | {"style_dim": "wide"}, "style_dim"),
            (tiny_config() | {"n_layer": 0}, "n_layer"),
            (tiny_config() | {"hidden_dim": 33}, "hidden_dim"),
            (tiny_config() | {"n_token": 100}, "n_token"),
            (tiny_config() | {"istftnet": {}}, "istftnet.resblock_kernel_sizes"),
            (tiny_config() | {"plbert": tiny_config()["plbert"] | {"num_attention_heads": 3}}, "num_attention"),
            (tiny_config() | {"plbert": tiny_config()["plbert"] | {"hidden_act": "relu"}}, "plbert.hidden_act"),
        ],
    )
    def test_a_bad_field_is_named(self, folder: Path, config: dict[str, Any], named: str) -> None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert_refused(folder, "config.json", named)

    def test_weights_of_another_size_are_refused(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(tiny_config() | {"max_dur": 60}), encoding="utf-8")
        assert_refused(folder, WEIGHTS, "predictor.duration_proj.linear_layer", "60")


class TestFiles:
    def test_weights_must_be_there(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        assert_refused(folder, ".pth", str(folder))

    def test_two_sets_of_weights_are_refused(self, folder: Path) -> None:
        shutil.copy(folder / WEIGHTS, folder / "another.pth")
        assert_refused(folder, WEIGHTS, "another.pth")

    def test_voices_must_be_there(self, folder: Path) -> None:
        shutil.rmtree(folder / "voices")
        assert_refused(folder, "voices/", str(folder))

    def test_an_empty_folder_is_refused(self, tmp_path: Path) -> None:
        assert_refused(tmp_path, str(tmp_path))


class TestVoices:
    def test_raw_floats_load_as_the_tensors_do(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path, voice_suffix=".bin")
        _, model, voices = load_folder(tmp_path)
        for name, expected in random_voices(0, model.cfg).items():
            assert np.array_equal(voices[name], expected.numpy())

    @pytest.mark.parametrize("cut", [1, 4, 128, "all"])  # bytes; a row is 32 floats, 128 bytes
    def test_truncated_raw_floats_are_refused(self, tmp_path: Path, cut: int | str) -> None:
        write_checkpoint(tmp_path, voice_suffix=".bin")
        path = tmp_path / f"{VOICE}.bin"
        path.write_bytes(b"" if cut == "all" else path.read_bytes()[:-cut])
        assert_refused(tmp_path, f"{VOICE}.bin")

    def test_nan_in_raw_floats_is_refused(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path, voice_suffix=".bin")
        np.full((62, 1, 32), np.nan, dtype="<f4").tofile(tmp_path / f"{VOICE}.bin")
        assert_refused(tmp_path, f"{VOICE}.bin", "NaN")

    @pytest.mark.parametrize(
        ("voice", "named"),
        [
            (torch.zeros(62, 1, 30), "[62, 1, 30]"),
            (torch.zeros(62, 32), "[62, 32]"),
            (torch.zeros(0, 1, 32), "[0, 1, 32]"),
            (torch.zeros(61, 1, 32), "[62, 1, 32]"),
            (torch.full((62, 1, 32), torch.nan), "NaN"),
            (torch.full((62, 1, 32), torch.inf), "infinite"),
            (torch.zeros(62, 1, 32, dtype=torch.int64), "int64"),
            ({"voice": torch.zeros(62, 1, 32)}, "not a tensor"),
        ],
        ids=["width", "axes", "empty", "rows", "nan", "inf", "integers", "dict"],
    )
    def test_a_bad_voice_is_named(self, folder: Path, voice: object, named: str) -> None:
        torch.save(voice, folder / f"{VOICE}.pt")
        assert_refused(folder, f"{VOICE}.pt", named)

    def test_a_damaged_voice_is_named(self, folder: Path) -> None:
        path = folder / f"{VOICE}.pt"
        path.write_bytes(path.read_bytes()[:-100])
        assert_refused(folder, f"{VOICE}.pt")

    def test_a_voice_in_two_files_is_refused(self, folder: Path) -> None:
        np.zeros((62, 1, 32), dtype="<f4").tofile(folder / f"{VOICE}.bin")
        assert_refused(folder, VOICES[0])


class TestRandomWeights:
    def test_a_seed_gives_the_official_model_and_its_voices(self) -> None:
        raw, model, voices = load(locate("random:7", MODELS["kokoro"].files))
        assert raw == official_config()
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(82e6, rel=0.01)  # its name
        assert all(voice.shape == (510, 1, 256) for voice in voices.values())
        expected = random_model(7, model.cfg).state_dict()
        assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())

    def test_weights_depend_on_the_seed_and_on_nothing_else(self) -> None:
        cfg = KokoroConfig.model_validate(tiny_config())
        torch.manual_seed(1)
        first, first_voices = random_model(5, cfg).state_dict(), random_voices(5, cfg)
        torch.manual_seed(2)
        again, again_voices = random_model(5, cfg).state_dict(), random_voices(5, cfg)
        assert all(torch.equal(first[k], again[k]) for k in first)
        assert all(torch.equal(first_voices[k], again_voices[k]) for k in first_voices)
        other = random_model(6, cfg).state_dict()
        assert not torch.equal(first["bert_encoder.weight"], other["bert_encoder.weight"])

    def test_the_global_generator_is_left_as_it_was(self) -> None:
        cfg = KokoroConfig.model_validate(tiny_config())
        before = torch.get_rng_state()
        random_model(5, cfg)
        random_voices(5, cfg)
        assert torch.equal(torch.get_rng_state(), before)

    @torch.no_grad()
    def test_random_weights_speak_at_a_plausible_rate(self) -> None:
        """Gates measured on random weights mean something only while they make audio of speech's shape."""
        cfg = KokoroConfig.model_validate(official_config())
        model, voice = random_model(0, cfg), random_voices(0, cfg)[VOICES[0]]
        input_ids = torch.randint(1, cfg.n_token, (1, 102), generator=torch.Generator().manual_seed(0))
        with mock.patch.object(model.decoder, "forward", lambda *_: torch.zeros(1)):  # the audio is not needed
            taps = model(input_ids, voice[99], torch.ones(1), torch.zeros(1, HARMONICS))
        assert 2 < taps["duration"].double().mean() < 8  # frames a token; 4.5 was aimed at, and seeds differ
        assert (taps["f0"] > VOICED_THRESHOLD_HZ).double().mean() > 0.3
