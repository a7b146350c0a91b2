"""The loader takes every form of the authors' files, and names what is wrong with any other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from t3_files import (
    LANGUAGES,
    VOICE,
    tiny_config,
    tiny_voices,
    tokenizer_json,
    write_checkpoint,
    write_json,
    write_voice,
    write_weights,
)
from tokenizers import Tokenizer
from torch import Tensor

from jtts_export.errors import CheckpointError
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.models.t3.checkpoint import Checkpoint, load
from jtts_export.models.t3.conditioning import read_voice
from jtts_export.models.t3.config import T3Config
from jtts_export.models.t3.model import T3
from jtts_export.models.t3.sizes import config_of

FILES = MODELS["t3"].files
State = dict[str, Tensor]
WEIGHTS, TOKENIZER, VOICES = "t3_cfg.safetensors", "tokenizer.json", f"voices/{VOICE}.safetensors"
MERGED = "grapheme_mtl_merged_expanded_v1.json"
KEY = "tfmr.layers.1.self_attn.k_proj.weight"  # [128, 128]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t3")
    write_checkpoint(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, whole: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def load_folder(folder: Path | str) -> Checkpoint:
    """`folder`: a folder, a file of weights, or FOLDER#FILE."""
    return load(locate(str(folder), FILES))


def assert_refused(folder: Path, *named: str) -> None:
    """Loading must raise one line that names the file, and the key if there is one; exit code 4."""
    with pytest.raises(CheckpointError) as caught:
        load_folder(folder)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    for part in named:
        assert part in message


def assert_same(model: T3, expected: State) -> None:
    assert not model.training
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for key, value in state.items():
        assert value.dtype == torch.float32, key
        assert torch.equal(value, expected[key].float()), key


def edit_weights(folder: Path, change: Callable[[State], object]) -> None:
    state = {key: value.clone() for key, value in load_file(folder / WEIGHTS).items()}
    change(state)
    (folder / WEIGHTS).unlink()  # what others read is mapped into their memory
    save_file(state, folder / WEIGHTS)


def is_mapped(tensor: Tensor, path: Path) -> bool:
    """Whether the tensor's bytes are those of the file, in no copy."""
    spans = re.findall(rf"^(\w+)-(\w+) .* {path}$", Path("/proc/self/maps").read_text(), re.M)
    return any(int(first, 16) <= tensor.data_ptr() < int(last, 16) for first, last in spans)


class TestWeights:
    def test_the_authors_layout_loads(self, whole: Path) -> None:
        loaded = load_folder(whole)
        assert_same(loaded.model, load_file(whole / WEIGHTS))
        assert loaded.config == loaded.model.config == tiny_config()
        assert not loaded.config.is_multilingual

    def test_the_multilingual_model_loads(self, tmp_path: Path) -> None:
        model = write_checkpoint(tmp_path, 1, multilingual=True)
        loaded = load_folder(tmp_path)
        assert_same(loaded.model, model.state_dict())
        assert loaded.config.is_multilingual
        assert f"[{LANGUAGES[0]}]" in loaded.tokenizer["model"]["vocab"]

    @pytest.mark.parametrize("nested", [False, True])
    @pytest.mark.parametrize("name", ["t3_cfg.pt", "t3_finetuned.pt"])
    def test_a_pt_file_loads(self, folder: Path, name: str, nested: bool) -> None:
        state = load_file(folder / WEIGHTS)
        write_weights(folder / name, state, nested=nested)
        (folder / WEIGHTS).unlink()
        assert_same(load_folder(folder).model, state)

    def test_a_pt_file_of_torchs_older_format_loads(self, folder: Path) -> None:
        state = load_file(folder / WEIGHTS)
        torch.save(state, folder / "t3_cfg.pt", _use_new_zipfile_serialization=False)
        (folder / WEIGHTS).unlink()
        assert_same(load_folder(folder).model, state)

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
    @pytest.mark.parametrize("name", [WEIGHTS, "t3_cfg.pt"])
    def test_float32_weights_stay_in_their_file(self, tmp_path: Path, name: str) -> None:
        write_checkpoint(tmp_path, weights=name)
        for key, value in load_folder(tmp_path).model.state_dict().items():
            assert is_mapped(value, tmp_path / name), key

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("name", [WEIGHTS, "t3_cfg.pt"])
    def test_other_float_types_load_as_float32(self, folder: Path, dtype: torch.dtype, name: str) -> None:
        state = {key: value.to(dtype) for key, value in load_file(folder / WEIGHTS).items()}
        (folder / WEIGHTS).unlink()
        write_weights(folder / name, state)
        assert_same(load_folder(folder).model, state)

    @pytest.mark.parametrize(
        ("others", "chosen"),
        [
            (["t3_mtl23ls_v2.safetensors", "t3_cfg.pt"], WEIGHTS),
            (["t3_23lang.safetensors", "t3_mine.safetensors"], WEIGHTS),
            (["t3_mine.safetensors", "t3_cfg.pt"], "t3_mine.safetensors"),
            (["t3_23lang.safetensors", "t3_mine.safetensors"], "t3_23lang.safetensors"),
            (["t3_23lang.safetensors", "t3_mtl23ls_v2.safetensors"], "t3_mtl23ls_v2.safetensors"),
            (["t3_cfg.pt", "t3_other.pt"], "t3_cfg.pt"),
        ],
    )
    def test_of_several_files_the_first_by_rank_is_read(self, folder: Path, others: list[str], chosen: str) -> None:
        state = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        for name in {*others, chosen}:
            write_weights(folder / name, state | {KEY: state[KEY] * (2 if name == chosen else 1)})
        assert_same(load_folder(folder).model, state | {KEY: state[KEY] * 2})

    @pytest.mark.parametrize("between", ["#", "/"])
    @pytest.mark.parametrize("name", ["t3_23lang.safetensors", "t3_mine.safetensors", "t3_cfg.pt", "t3_mine.pt"])
    def test_a_file_may_be_chosen(self, folder: Path, name: str, between: str) -> None:
        state = load_file(folder / WEIGHTS)
        write_weights(folder / name, state | {KEY: state[KEY] * 2})
        assert_same(load_folder(f"{folder}{between}{name}").model, state | {KEY: state[KEY] * 2})
        assert_same(load_folder(folder).model, state)

    def test_each_choice_has_its_own_tokenizer(self, folder: Path, tmp_path: Path) -> None:
        """As in the authors' repository, which holds both models."""
        multilingual = write_checkpoint(tmp_path / "multilingual", 1, multilingual=True)
        for name in ("t3_mtl23ls_v2.safetensors", MERGED):
            shutil.copyfile(tmp_path / "multilingual" / name, folder / name)
        english, chosen = load_folder(folder), load_folder(f"{folder}#t3_mtl23ls_v2.safetensors")
        assert_same(chosen.model, multilingual.state_dict())
        assert [made.config.is_multilingual for made in (english, chosen)] == [False, True]
        tags = [f"[{LANGUAGES[0]}]" in made.tokenizer["model"]["vocab"] for made in (english, chosen)]
        assert tags == [False, True]

    def test_two_files_together_are_no_checkpoint(self, folder: Path) -> None:
        source = locate(str(folder), FILES)
        both = replace(source, files=source.files | {"t3_cfg.pt": folder / "t3_cfg.pt"})
        with pytest.raises(CheckpointError, match=r"one T3; found: .*t3_cfg\.safetensors, t3_cfg\.pt"):
            load(both)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_several_files_of_no_rank_are_listed(self, folder: Path, suffix: str) -> None:
        (folder / WEIGHTS).rename(folder / f"t3_a{suffix}")
        (folder / f"t3_b{suffix}").write_bytes(b"")
        assert_refused(folder, f"t3_a{suffix}", f"t3_b{suffix}", str(folder))

    def test_no_weights(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        assert_refused(folder, "t3_cfg.safetensors", str(folder))

    @pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99, 0.999999])
    @pytest.mark.parametrize("name", [WEIGHTS, "t3_cfg.pt"])
    def test_a_truncated_file(self, tmp_path: Path, kept: float, name: str) -> None:
        write_checkpoint(tmp_path, weights=name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
        assert_refused(tmp_path, name)

    def test_a_git_lfs_pointer(self, folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        assert_refused(folder, WEIGHTS, "not a safetensors file")

    @pytest.mark.parametrize("key", [KEY, "speech_emb.weight", "tfmr.embed_tokens.weight", "text_pos_emb.emb.weight"])
    def test_a_missing_tensor(self, folder: Path, key: str) -> None:
        edit_weights(folder, lambda state: state.pop(key))
        assert_refused(folder, WEIGHTS, "missing key", key)

    @pytest.mark.parametrize("key", ["tfmr.layers.0.self_attn.q_proj.bias", "tfmr.wpe.weight"])
    def test_a_tensor_too_many(self, folder: Path, key: str) -> None:
        edit_weights(folder, lambda state: state.update({key: torch.ones(128)}))
        assert_refused(folder, WEIGHTS, "unexpected key", key)

    @pytest.mark.parametrize(
        "key", [KEY, "tfmr.norm.weight", "cond_enc.perceiver.attn.to_q.bias", "text_head.weight"]
    )
    def test_a_tensor_of_another_shape(self, folder: Path, key: str) -> None:
        edit_weights(folder, lambda state: state.update({key: state[key][:-1].clone()}))
        assert_refused(folder, WEIGHTS, key, "expected")

    def test_a_tensor_of_another_rank(self, folder: Path) -> None:
        edit_weights(folder, lambda state: state.update({"speech_emb.weight": torch.ones(8194)}))
        assert_refused(folder, WEIGHTS, "speech_emb.weight", "[8194]")

    def test_a_layer_left_out(self, folder: Path) -> None:
        def drop(state: State) -> None:
            for key in [key for key in state if key.startswith("tfmr.layers.0.")]:
                del state[key]

        edit_weights(folder, drop)
        assert_refused(folder, WEIGHTS, "tfmr.layers.0.")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_a_value_that_is_no_number(self, folder: Path, value: float) -> None:
        edit_weights(folder, lambda state: state[KEY][3, 5].fill_(value))
        assert_refused(folder, WEIGHTS, KEY, "NaN or infinite")

    def test_a_tensor_of_integers(self, folder: Path) -> None:
        edit_weights(folder, lambda state: state.update({KEY: state[KEY].to(torch.int8)}))
        assert_refused(folder, WEIGHTS, KEY, "int8")

    def test_a_t3_of_another_architecture(self, folder: Path) -> None:
        """The authors' turbo model is a GPT-2."""

        def rename(state: State) -> None:
            for key in [key for key in state if key.startswith("tfmr.layers.")]:
                state[key.replace("tfmr.layers.", "tfmr.h.")] = state.pop(key)

        edit_weights(folder, rename)
        assert_refused(folder, WEIGHTS, "Llama")

    @pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"a": {"b": torch.ones(1)}}, {"model": []}])
    def test_a_pt_file_of_something_else(self, folder: Path, content: object) -> None:
        (folder / WEIGHTS).unlink()
        torch.save(content, folder / "t3_cfg.pt")
        assert_refused(folder, "t3_cfg.pt", "not a state dict")

    def test_a_pt_file_that_would_run_code(self, folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        torch.save({"model": Path("here")}, folder / "t3_cfg.pt")
        assert_refused(folder, "t3_cfg.pt", "pickled objects")


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Size]:
    """Shapes of the official English model's tensors."""
    with torch.device("meta"):
        return {key: value.shape for key, value in T3(T3Config()).state_dict().items()}


class TestConfig:
    def test_the_official_model_has_292_tensors(self, official: dict[str, torch.Size]) -> None:
        assert len(official) == 292
        assert config_of(official, {}) == T3Config()

    def test_alignment_heads_are_those_that_the_depth_has(self, official: dict[str, torch.Size]) -> None:
        shallow = {k: v for k, v in official.items() if not re.match(r"tfmr\.layers\.(1[3-9]|2\d)\.", k)}
        config = config_of(shallow, {})
        assert (config.layers, config.alignment_heads) == (13, ((12, 15), (9, 2)))

    def test_without_the_file_sizes_are_the_tensors(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        assert load_folder(folder).config == tiny_config(alignment_heads=())

    def test_what_the_file_says_counts(self, folder: Path) -> None:
        fields = {"num_attention_heads": 4, "perceiver_heads": 2, "start_speech": 8192, "stop_speech": 8193}
        write_json(folder / "config.json", {**fields, "alignment_heads": [[1, 3]], "hidden_act": "silu"})
        del fields["num_attention_heads"]
        expected = tiny_config(heads=4, head_size=32, alignment_heads=((1, 3),), **fields)
        assert load_folder(folder).config == expected

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"num_attention_heads": 0}, "num_attention_heads"),
            ({"num_attention_heads": "many"}, "num_attention_heads"),
            ({"num_attention_heads": 3}, "3 attention heads"),
            ({"num_attention_heads": 128}, "128 attention heads"),  # of one element: no pair to rotate
            ({"perceiver_heads": 3}, "3 perceiver_heads"),
            ({"alignment_heads": [[2, 0]]}, "layer 2"),
            ({"alignment_heads": [[0, 2]]}, "head 2"),
            ({"alignment_heads": [3]}, "alignment_heads"),
            ({"alignment_heads": [[0, -1]]}, "alignment_heads"),
            ({"start_speech": 8194}, "8194"),
            ({"stop_text": 704}, "704"),
            ({"start_text": -1}, "start_text"),
        ],
    )
    def test_a_wrong_value(self, folder: Path, fields: dict[str, Any], named: str) -> None:
        write_json(folder / "config.json", fields)
        assert_refused(folder, named)

    @pytest.mark.parametrize("content", ["{", "[]", "null", "[" * 100_000])
    def test_a_file_that_is_no_object(self, folder: Path, content: str) -> None:
        (folder / "config.json").write_text(content, encoding="utf-8")
        assert_refused(folder, "config.json")


class TestTokenizer:
    def test_a_post_processors_ids_may_be_others(self, folder: Path) -> None:
        made = Tokenizer.from_str(json.dumps(load_folder(folder).tokenizer))
        ids = made.encode("ab", add_special_tokens=False).ids
        assert made.encode("ab").ids == [6563, 255, *ids, 0, 6561, 6561]
        assert max(ids) < 704

    def test_text_becomes_characters(self, folder: Path) -> None:
        made = Tokenizer.from_str(json.dumps(load_folder(folder).tokenizer))
        text = 'The Quick[SPACE]"fox", 0123: isn\'t it?'
        tokens = made.encode(text.replace(" ", "[SPACE]"), add_special_tokens=False).tokens
        assert "".join(tokens) == text.replace(" ", "[SPACE]")
        assert "[SPACE]" in tokens
        assert "[UNK]" not in tokens
        assert made.encode("ΩΩ", add_special_tokens=False).ids == [1, 1]

    def test_the_english_model_takes_no_other(self, folder: Path) -> None:
        multilingual = tiny_config(text_vocab=2454)
        write_json(folder / MERGED, tokenizer_json(multilingual, multilingual=True))
        assert f"[{LANGUAGES[0]}]" not in load_folder(folder).tokenizer["model"]["vocab"]
        (folder / TOKENIZER).unlink()
        assert_refused(folder, TOKENIZER, str(folder))

    @pytest.mark.parametrize(
        ("text_vocab", "chosen"), [(2454, MERGED), (2352, "mtl_tokenizer.json"), (1000, TOKENIZER)]
    )
    def test_others_take_the_first_that_they_have_tokens_for(
        self, tmp_path: Path, text_vocab: int, chosen: str
    ) -> None:
        write_checkpoint(tmp_path, config={"text_vocab": text_vocab})
        for name, size in ((MERGED, 2454), ("mtl_tokenizer.json", 2352)):
            write_json(tmp_path / name, tokenizer_json(tiny_config(text_vocab=size), multilingual=True))
        expected = Tokenizer.from_file(str(tmp_path / chosen)).get_vocab()
        assert Tokenizer.from_str(json.dumps(load_folder(tmp_path).tokenizer)).get_vocab() == expected

    def test_a_token_that_the_model_does_not_have(self, folder: Path) -> None:
        content = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
        content["model"]["vocab"]["~"] = 703
        write_json(folder / TOKENIZER, content)
        load_folder(folder)
        content["model"]["vocab"]["~"] = 704
        write_json(folder / TOKENIZER, content)
        assert_refused(folder, TOKENIZER, "'~' has id 704", "704")

    @pytest.mark.parametrize(("field", "token"), [("start_text", "[START]"), ("stop_text", "[STOP]")])
    def test_a_token_that_the_model_has_elsewhere(self, folder: Path, field: str, token: str) -> None:
        write_json(folder / TOKENIZER, tokenizer_json(tiny_config(**{field: 300})))
        assert_refused(folder, TOKENIZER, token, "300", str(getattr(T3Config(), field)))
        write_json(folder / "config.json", {field: 300})
        assert getattr(load_folder(folder).config, field) == 300

    @pytest.mark.parametrize("token", ["[START]", "[STOP]", "[SPACE]"])
    def test_a_token_that_is_not_there(self, folder: Path, token: str) -> None:
        content = (folder / TOKENIZER).read_text(encoding="utf-8").replace(token, "[OTHER]")
        (folder / TOKENIZER).write_text(content, encoding="utf-8")
        assert_refused(folder, TOKENIZER, token)

    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_a_truncated_file(self, folder: Path, kept: float) -> None:
        text = (folder / TOKENIZER).read_text(encoding="utf-8")
        (folder / TOKENIZER).write_text(text[: int(len(text) * kept)], encoding="utf-8")
        assert_refused(folder, TOKENIZER)

    def test_a_table_that_makes_the_library_panic(self, folder: Path) -> None:
        content = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))
        content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
        write_json(folder / TOKENIZER, content)
        assert_refused(folder, TOKENIZER)


class TestVoices:
    def test_they_come_from_conds_and_from_a_folder(self, whole: Path) -> None:
        voices = load_folder(whole).voices
        expected = tiny_voices()
        assert voices.keys() == expected.keys() == {"default", VOICE}
        for name, voice in voices.items():
            assert voice.speaker_emb.dtype == voice.exaggeration.dtype == np.float32
            assert voice.cond_prompt_speech_tokens.dtype == np.int64
            assert np.array_equal(voice.speaker_emb, expected[name].speaker_emb)
            assert np.array_equal(voice.cond_prompt_speech_tokens, expected[name].cond_prompt_speech_tokens)
            assert voice.exaggeration.tolist() == [0.5]
        assert voices["default"].cond_prompt_speech_tokens.shape == (1, 150)
        assert voices[VOICE].cond_prompt_speech_tokens.shape == (1, 0)

    @pytest.mark.parametrize("prefix", ["t3.", ""])
    def test_conds_may_be_safetensors(self, folder: Path, prefix: str) -> None:
        (folder / "conds.pt").unlink()
        voice = tiny_voices(4)["default"]
        arrays = {"speaker_emb": voice.speaker_emb, "cond_prompt_speech_tokens": voice.cond_prompt_speech_tokens}
        others = {"gen.embedding": np.ones((1, 80), np.float32)}
        save_arrays({f"{prefix}{key}": v for key, v in arrays.items()} | others, folder / "conds.safetensors")
        loaded = load_folder(folder).voices["default"]
        assert np.array_equal(loaded.speaker_emb, voice.speaker_emb)
        assert np.array_equal(loaded.cond_prompt_speech_tokens, voice.cond_prompt_speech_tokens)
        assert loaded.exaggeration.tolist() == [0.5]

    @pytest.mark.parametrize(
        "emotion", [0.75, np.full(1, 0.75, np.float32), np.full((1, 1, 1), 0.75, np.float16), np.array(0.75)]
    )
    def test_emotion_has_several_forms(self, folder: Path, emotion: Any) -> None:
        write_voice(folder / "conds.pt", tiny_voices()["default"], emotion_adv=emotion)
        assert load_folder(folder).voices["default"].exaggeration.tolist() == [0.75]

    def test_without_batch_axes_and_in_other_types(self, folder: Path) -> None:
        voice = tiny_voices()["default"]
        tokens = voice.cond_prompt_speech_tokens[0].astype(np.int32)
        speaker = voice.speaker_emb[0].astype(np.float16)
        write_voice(folder / "conds.pt", voice, speaker_emb=speaker, cond_prompt_speech_tokens=tokens)
        loaded = load_folder(folder).voices["default"]
        assert np.array_equal(loaded.speaker_emb, speaker.astype(np.float32)[None])
        assert np.array_equal(loaded.cond_prompt_speech_tokens, voice.cond_prompt_speech_tokens)

    def test_a_voice_alone_as_its_class_saves_it(self, folder: Path) -> None:
        voice = tiny_voices()["default"]
        t3 = {"speaker_emb": torch.from_numpy(voice.speaker_emb), "cond_prompt_speech_tokens": None}
        torch.save(t3, folder / "voices/third.pt")
        assert load_folder(folder).voices["third"].cond_prompt_speech_tokens.shape == (1, 0)

    @pytest.mark.parametrize("file", ["conds.pt", VOICES])
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"speaker_emb": np.ones((1, 192), np.float32)}, ["speaker_emb", "[1, 192]", "[1, 256]"]),
            ({"speaker_emb": np.ones((2, 256), np.float32)}, ["speaker_emb", "[2, 256]", "[1, 256]"]),
            ({"speaker_emb": np.ones((1, 256), np.int64)}, ["speaker_emb", "int64"]),
            ({"speaker_emb": np.full((1, 256), np.nan, np.float32)}, ["speaker_emb", "NaN"]),
            ({"speaker_emb": None}, ["speaker_emb"]),
            ({"cond_prompt_speech_tokens": np.array([[5, 8194]])}, ["8194", "0..8193"]),
            ({"cond_prompt_speech_tokens": np.array([[5, -1]])}, ["-1", "0..8193"]),
            ({"cond_prompt_speech_tokens": np.ones((2, 5), np.int64)}, ["[2, 5]", "[1, 5]"]),
            ({"cond_prompt_speech_tokens": np.ones((1, 5), np.float32)}, ["float", "integers"]),
            ({"cond_prompt_speech_tokens": np.ones((1, 1025), np.int64)}, ["1025", "1024"]),
            ({"emotion_adv": np.ones(2, np.float32)}, ["emotion_adv", "[2]"]),
            ({"emotion_adv": np.full(1, np.inf, np.float32)}, ["emotion_adv", "infinite"]),
        ],
    )
    def test_a_voice_that_the_model_cannot_take(
        self, folder: Path, file: str, changes: dict[str, Any], named: list[str]
    ) -> None:
        write_voice(folder / file, tiny_voices()["default"], **changes)
        assert_refused(folder, file, *named)

    def test_a_prompt_may_fill_the_table(self, folder: Path) -> None:
        tokens = np.ones((1, 1024), np.int64)
        write_voice(folder / "conds.pt", tiny_voices()["default"], cond_prompt_speech_tokens=tokens)
        assert load_folder(folder).voices["default"].cond_prompt_speech_tokens.shape == (1, 1024)

    @pytest.mark.parametrize("file", ["conds.pt", VOICES])
    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_a_truncated_file(self, folder: Path, file: str, kept: float) -> None:
        data = (folder / file).read_bytes()
        (folder / file).write_bytes(data[: int(len(data) * kept)])
        assert_refused(folder, file)

    @pytest.mark.parametrize("content", [[1], {"t3": 3}, {"t3": {"speaker_emb": "loud"}}, {"gen": {}}])
    def test_a_pt_file_of_something_else(self, folder: Path, content: object) -> None:
        torch.save(content, folder / "conds.pt")
        assert_refused(folder, "conds.pt")

    def test_a_pt_file_that_would_run_code(self, folder: Path) -> None:
        torch.save({"t3": Path("here")}, folder / "conds.pt")
        assert_refused(folder, "conds.pt", "pickled objects")

    @pytest.mark.parametrize("file", ["conds.safetensors", "voices/default.pt"])
    def test_a_voice_in_two_files(self, folder: Path, file: str) -> None:
        write_voice(folder / file, tiny_voices()["default"])
        assert_refused(folder, "another", "'default'")

    def test_no_voice(self, folder: Path) -> None:
        (folder / "conds.pt").unlink()
        (folder / VOICES).unlink()
        assert_refused(folder, "conds.pt", "conds.safetensors", "voices/*.pt", "voices/*.safetensors", str(folder))

    def test_safetensors_are_read_without_torch(self, whole: Path) -> None:
        code = (
            "import sys; from pathlib import Path\n"
            "from jtts_export.models.t3.conditioning import read_voice\n"
            "from jtts_export.models.t3.config import T3Config\n"
            "voice = read_voice(Path(sys.argv[1]), 'voice', T3Config())\n"
            "assert voice.speaker_emb.shape == (1, 256) and 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code, str(whole / VOICES)], check=True)

    def test_checks_are_of_the_models_sizes(self, whole: Path) -> None:
        config = replace(tiny_config(), speaker_size=192)
        with pytest.raises(CheckpointError, match=r"a voice: speaker_emb .*\[1, 256\], expected \[1, 192\]"):
            read_voice(whole / VOICES, "a voice", config)


def test_a_seed_gives_a_whole_checkpoint_of_official_size() -> None:
    loaded = load(locate("random:7", FILES))
    assert loaded.config == loaded.model.config == T3Config()
    assert sum(p.numel() for p in loaded.model.parameters()) == 532_405_248
    assert loaded.voices.keys() == {"random_a", "random_b"}
    made = Tokenizer.from_str(json.dumps(loaded.tokenizer))
    assert [made.token_to_id(t) for t in ("[STOP]", "[UNK]", "[SPACE]", "[START]")] == [0, 1, 2, 255]
