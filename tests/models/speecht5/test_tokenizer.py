"""tokenizer.json gives the ids of transformers' SpeechT5Tokenizer, and nothing else is written."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from speecht5_files import spm_model, write_tokenizer
from tokenizers import Tokenizer
from transformers import SpeechT5Tokenizer

from jtts_export.errors import CheckpointError
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.models.speecht5.tokenizer import character_tokenizer, read_tokenizer

RULES = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "identity")
TEXTS = [
    "",
    " ",
    "The lazy dog.",
    "CAPITALS and 0123 digits",
    "  leading,  repeated   and trailing  ",
    "tabs\tand\nlines, no-break\u00a0and wide\u3000spaces",
    "αβγ in a row, δ alone, 日本語",
    "naïve cafe\u0301 café",
    "ﬁne ½ Ｆｕｌｌ ①",
    "\u2581 \u2581a\u2581",
    "<s>The</s> <pad><unk>",
    "a <mask> b <ctc_blank> c<mask>d",
    "<mask>",
    "\u200b zero \ufeff width",
]
ALPHABET = "abcXYZ 123,.!é~< \t\u00a0\u2581\u3000ﬁ½ΩЖ日Ｈ"


def read(folder: Path, vocab_size: int = 1000) -> Tokenizer:
    content = read_tokenizer(locate(str(folder), MODELS["speecht5"].files), vocab_size)
    return Tokenizer.from_str(json.dumps(content))


def assert_refused(folder: Path, *named: str, vocab_size: int = 1000) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(folder, vocab_size)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    for part in named:
        assert part in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path)
    return tmp_path


class TestIds:
    @pytest.mark.parametrize("rule", RULES)
    def test_they_are_those_of_transformers(self, tmp_path: Path, rule: str) -> None:
        write_tokenizer(tmp_path, spm_model(rule))
        ours, theirs = read(tmp_path), SpeechT5Tokenizer.from_pretrained(tmp_path)
        chance = random.Random(0)
        fuzz = ["".join(chance.choices(ALPHABET, k=chance.randrange(12))) for _ in range(2000)]
        for text in [*TEXTS, "line\r\n\r\nbreaks\r\n", *fuzz]:
            assert ours.encode(text).ids == theirs(text).input_ids, ascii(text)
        assert ours.encode("one", "two").ids == theirs("one", "two").input_ids

    @pytest.mark.parametrize("rule", RULES)
    def test_of_every_character_of_the_first_plane_too(self, tmp_path: Path, rule: str) -> None:
        write_tokenizer(tmp_path, spm_model(rule))
        ours, theirs = read(tmp_path), SpeechT5Tokenizer.from_pretrained(tmp_path)
        for code in [*range(1, 0x3400), *range(0xF900, 0x10000)]:
            text = f"a{chr(code)}e"
            assert ours.encode(text).ids == theirs(text).input_ids, hex(code)

    @pytest.mark.parametrize("spec", [{"add_dummy_prefix": False}, {"remove_extra_whitespaces": False}])
    def test_the_file_says_how_spaces_are_handled(self, tmp_path: Path, spec: dict[str, bool]) -> None:
        write_tokenizer(tmp_path, spm_model(**spec))
        ours, theirs = read(tmp_path), SpeechT5Tokenizer.from_pretrained(tmp_path)
        for text in TEXTS:
            assert ours.encode(text).ids == theirs(text).input_ids, ascii(text)

    def test_special_tokens_that_are_no_pieces_follow_them(self, tmp_path: Path) -> None:
        """sentencepiece's own defaults: no <pad>, and <unk> first."""
        data = spm_model(bos_id=1, pad_id=-1, eos_id=2, unk_id=0)
        (tmp_path / "spm_char.model").write_bytes(data)
        ours, theirs = read(tmp_path), SpeechT5Tokenizer.from_pretrained(tmp_path)
        assert ours.token_to_id("<pad>") == theirs.pad_token_id == len(theirs) - 1
        for text in TEXTS:
            assert ours.encode(text).ids == theirs(text).input_ids, ascii(text)

    def test_ids_in_the_newer_tokenizer_config_count(self, folder: Path) -> None:
        SpeechT5Tokenizer.from_pretrained(folder).save_pretrained(folder / "saved")
        saved = json.loads((folder / "saved/tokenizer_config.json").read_text(encoding="utf-8"))
        assert "added_tokens_decoder" in saved
        (folder / "saved/added_tokens.json").unlink(missing_ok=True)
        assert read(folder / "saved").to_str() == read(folder).to_str()

    def test_tokens_may_take_the_spaces_before_them(self, tmp_path: Path) -> None:
        """As <mask> does where tokenizer_config.json says so; without it the spaces would stay."""
        write_tokenizer(tmp_path, spm_model(remove_extra_whitespaces=False))
        SpeechT5Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
        path = tmp_path / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        (mask,) = (t for t in config["added_tokens_decoder"].values() if t["content"] == "<mask>")
        mask["lstrip"] = mask["rstrip"] = True
        path.write_text(json.dumps(config), encoding="utf-8")
        ours, theirs = read(tmp_path), SpeechT5Tokenizer.from_pretrained(tmp_path)
        text = "a  <mask>  b"
        assert ours.encode(text).ids == theirs(text).input_ids
        assert ours.encode(text).ids == ours.encode("a<mask>b").ids


class TestRefusals:
    def test_one_of_the_two_files_must_be_there(self, tmp_path: Path) -> None:
        assert_refused(tmp_path, "spm_char.model", "tokenizer.json", str(tmp_path))

    @pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99, "all but one byte"])
    def test_a_truncated_model(self, folder: Path, kept: float | str) -> None:
        data = spm_model()
        (folder / "spm_char.model").write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else -1])
        assert_refused(folder, "spm_char.model")

    def test_a_model_cut_between_two_fields(self, folder: Path) -> None:
        """That parses, and has lost its table of normalization."""
        from sentencepiece.sentencepiece_model_pb2 import ModelProto

        proto = ModelProto.FromString(spm_model())
        proto.ClearField("normalizer_spec")
        (folder / "spm_char.model").write_bytes(proto.SerializeToString())
        assert_refused(folder, "spm_char.model", "truncated")

    def test_a_piece_that_is_no_text(self, folder: Path) -> None:
        model = spm_model("identity").replace("▁".encode(), b"\xff\xff\xff", 1)
        (folder / "spm_char.model").write_bytes(model)
        assert_refused(folder, "spm_char.model", "damaged")

    @pytest.mark.parametrize(
        ("model", "named"),
        [
            (spm_model(model_type="unigram", vocab_size=80, use_all_vocab=False), "unigram"),
            (spm_model(user_defined_symbols="ing"), "'ing'"),
            (spm_model(user_defined_symbols="Ａ"), "'Ａ'"),
            (spm_model(user_defined_symbols="ing").replace(b"\x18\x04", b"\x18\x01", 1), "'ing'"),
            (spm_model(control_symbols="<lang>"), "'<lang>'"),
            (spm_model(treat_whitespace_as_suffix=True), "treat_whitespace_as_suffix"),
            (b"version https://git-lfs.github.com/spec/v1\n", "not a sentencepiece model"),
        ],
        ids=["unigram", "symbol", "protected character", "word", "control", "suffix", "git-lfs pointer"],
    )
    def test_another_model(self, folder: Path, model: bytes, named: str) -> None:
        (folder / "spm_char.model").write_bytes(model)
        assert_refused(folder, "spm_char.model", named)

    @pytest.mark.parametrize(
        ("config", "named"),
        [
            ("{", "Expecting"),
            ("[]", "tokenizer_config.json"),
            ('{"added_tokens_decoder": 3}', "tokenizer_config.json"),
            ('{"added_tokens_decoder": {"300": {"content": "<far>"}}}', "'<far>' has id 300"),
            ('{"legacy": false}', "legacy"),
            ('{"split_special_tokens": true}', "split_special_tokens"),
            ('{"added_tokens_decoder": {}, "eos_token": null}', "eos_token"),
        ],
    )
    def test_a_tokenizer_config_that_cannot_be_followed(self, folder: Path, config: str, named: str) -> None:
        (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
        assert_refused(folder, "tokenizer_config.json", named)

    def test_more_tokens_than_the_network_has(self, folder: Path) -> None:
        size = read(folder).get_vocab_size()
        read(folder, size)
        assert_refused(folder, "<ctc_blank>", str(size - 1), "vocab_size", vocab_size=size - 1)


class TestTokenizerJson:
    @pytest.fixture
    def whole(self, folder: Path) -> str:
        """The folder holds no spm_char.model then, but what was made from it."""
        text = read(folder).to_str()
        (folder / "spm_char.model").unlink()
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        return text

    def test_it_is_taken_where_the_model_is_not_there(self, folder: Path, whole: str) -> None:
        assert json.loads(read(folder).to_str()) == json.loads(whole)
        assert_refused(folder, "tokenizer.json", "vocab_size", vocab_size=10)

    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_a_truncated_one(self, folder: Path, whole: str, kept: float) -> None:
        (folder / "tokenizer.json").write_text(whole[: int(len(whole) * kept)], encoding="utf-8")
        assert_refused(folder, "tokenizer.json")

    @pytest.mark.parametrize("content", ["[]", "null", '{"model": {"vocab": {"a": 0}}}'])
    def test_another_structure(self, folder: Path, whole: str, content: str) -> None:
        (folder / "tokenizer.json").write_text(content, encoding="utf-8")
        assert_refused(folder, "tokenizer.json")

    def test_a_table_that_makes_the_library_panic(self, folder: Path, whole: str) -> None:
        damaged = json.loads(whole)
        damaged["normalizer"]["normalizers"][0]["precompiled_charsmap"] = "AAAA"
        (folder / "tokenizer.json").write_text(json.dumps(damaged), encoding="utf-8")
        assert_refused(folder, "tokenizer.json")


class TestSeeded:
    def test_it_knows_letters_digits_and_punctuation(self) -> None:
        made = Tokenizer.from_str(json.dumps(character_tokenizer(81)))
        assert made.get_vocab_size() == 81
        assert [made.id_to_token(i) for i in range(6)] == ["<s>", "<pad>", "</s>", "<unk>", "\u2581", "e"]
        assert made.encode("").ids == [2]
        text = 'The Quick  (brown) "fox", 0123456789: isn\'t it? Yes - no; well! a/b [c].'
        assert 3 not in made.encode(text).ids
        assert made.decode(made.encode(text).ids) == text.replace("  ", " ")
        assert made.encode("ΩΩ\n").tokens == ["\u2581", "ΩΩ", "</s>"]

    def test_a_smaller_vocabulary_holds_the_most_frequent(self) -> None:
        made = Tokenizer.from_str(json.dumps(character_tokenizer(40)))
        assert made.get_vocab_size() == 40
        assert 3 not in made.encode("the lazy dog").ids
