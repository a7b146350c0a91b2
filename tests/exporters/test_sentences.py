"""The built-in utterances of every model, and those of a user's own texts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kokoro_graph
import numpy as np
import pytest
import speecht5_files
import t3_files
from kokoro_files import tiny_config as tiny_kokoro
from tokenizers import Tokenizer

from jtts_export.errors import BadInput
from jtts_export.exporters import kokoro_sentences, sentences, speecht5_sentences, t3_sentences
from jtts_export.exporters.kokoro import TIMED_TOKENS
from jtts_export.models import MODELS
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.random import official_config, random_voices
from jtts_export.models.source import locate
from jtts_export.models.t3.config import MULTILINGUAL_VOCAB
from jtts_export.models.t3.random import character_tokenizer
from jtts_export.runtime import frontend
from jtts_export.runtime.names import graph_file
from jtts_export.runtime.t3_taps import T3Runner
from jtts_export.validate.audio import snr_db
from jtts_export.validate.runner import Case

NAMES = ("kokoro", "speecht5", "t3")
SETS = ("calibration", "search", "validation")
PURPOSES = (*SETS, "timed", "brief", "sequence")
CYRILLIC = ("Съешь же ещё этих мягких французских булок, да выпей чаю.", "В чащах юга жил бы цитрус?")
every_model = pytest.mark.parametrize("name", NAMES)


@cache
def checkpoint(name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Config and voices of a small checkpoint; Kokoro's has the official vocabulary and positions."""
    if name == "kokoro":
        return kokoro(official_config()["plbert"]["max_position_embeddings"])
    return speecht5() if name == "speecht5" else t3()


def kokoro(positions: int, vocab: Mapping[str, int] | None = None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    raw = tiny_kokoro()
    raw["plbert"] |= {"max_position_embeddings": positions}
    voices = random_voices(0, KokoroConfig.model_validate(raw))
    return {**raw, "vocab": vocab or raw["vocab"]}, {name: voice.numpy() for name, voice in voices.items()}


def speecht5(**options: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return _read("speecht5", speecht5_files.write_checkpoint, **options)


def t3(**options: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return _read("t3", t3_files.write_checkpoint, **options)


def _read(name: str, write: Any, **options: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    info = MODELS[name]
    with TemporaryDirectory() as folder:
        write(Path(folder), **options)
        loaded = info.load().load(locate(folder, info.files, info.companions))
    return loaded.config, loaded.voices


def few_positions(name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A checkpoint that can take and say little."""
    if name == "kokoro":
        return kokoro(12)
    if name == "speecht5":
        return speecht5(config={"max_text_positions": 12, "max_speech_positions": 20})
    config, voices = checkpoint("t3")
    return {**config, "model": {**config["model"], "max_text_tokens": 20, "max_speech_tokens": 40}}, voices


def foreign(name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A checkpoint of another alphabet."""
    if name == "kokoro":
        return kokoro(512, {"ж": 5, "ѳ": 9, ".": 4, " ": 16})
    if name == "speecht5":
        return speecht5(spm=speecht5_files.spm_model(lines=CYRILLIC))
    config, voices = checkpoint("t3")
    content = character_tokenizer(t3_files.tiny_config())
    kept = {token: i for token, i in content["model"]["vocab"].items() if len(token) > 1}
    content["model"]["vocab"] = kept | {"ж": 9}
    return {**config, "tokenizer": content}, voices


def cases(name: str, purpose: str, made: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None) -> list[Case]:
    return list(MODELS[name].load().cases(*(made or checkpoint(name)), purpose))


def spoken(name: str, *texts: str, made: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None) -> list[Case]:
    speak = MODELS[name].load().spoken
    assert speak is not None
    return list(speak(*(made or checkpoint(name)), texts))


def tokens(case: Case) -> np.ndarray:
    """What is said, [tokens]."""
    return next(case.inputs[key] for key in ("input_ids", "text_tokens") if key in case.inputs)[0]


def sizes(case: Case) -> tuple[int, ...]:
    """How much is said, and where that is chosen, for how long."""
    return (len(tokens(case)), *(int(case.inputs[key]) for key in ("max_steps", "max_tokens") if key in case.inputs))


def same(a: Case, b: Case) -> bool:
    return a.inputs.keys() == b.inputs.keys() and all(np.array_equal(a.inputs[k], b.inputs[k]) for k in a.inputs)


# --- what there is built in ---------------------------------------------------------------------------------


@every_model
def test_no_utterance_serves_two_ends(name: str) -> None:
    said = [tokens(case).tobytes() for purpose in SETS for case in cases(name, purpose)]
    assert len(set(said)) == len(said) >= 9


@every_model
@pytest.mark.parametrize("purpose", PURPOSES)
def test_utterances_are_the_same_each_time(name: str, purpose: str) -> None:
    for case, again in zip(cases(name, purpose), cases(name, purpose), strict=True):
        assert case.name == again.name
        assert same(case, again)


@every_model
def test_validation_has_short_and_long_utterances_in_several_voices_and_stays_short(name: str) -> None:
    made = cases(name, "validation")
    lengths = [len(tokens(case)) for case in made]
    assert len(made) == 6
    assert max(lengths) > 2 * min(lengths)
    voice = "style" if name == "kokoro" else "speaker_emb" if name == "t3" else "speaker_embeddings"
    assert len({case.inputs[voice].tobytes() for case in made}) >= 2
    # A word more is a word more to PyTorch and to every variant. A token of Kokoro's lasts as its speed has it.
    speeds = [float(case.inputs.get("speed", [1.0])[0]) for case in made]
    assert sum(n / speed for n, speed in zip(lengths, speeds, strict=True)) < (300 if name == "t3" else 250)
    assert sum(int(case.inputs.get("max_tokens", 0)) for case in made) <= 120


@pytest.mark.parametrize("name", ["kokoro", "speecht5"])
def test_every_token_is_said_once(name: str) -> None:
    """A row of a table that nobody says could be anything. T3's tables are compared row by row."""
    config, _ = checkpoint(name)
    *_, tokens = cases(name, "validation")
    said = tokens.inputs["input_ids"][0].tolist()
    if name == "kokoro":
        assert said == [*range(config["n_token"]), 0]
    else:
        known = Tokenizer.from_str(json.dumps(config["tokenizer"])).get_vocab()
        wanted = {i for token, i in known.items() if not token.startswith("<")}
        assert set(said) == {*wanted, config["model"]["eos_token_id"]}


@every_model
def test_validation_has_names_numbers_and_marks(name: str) -> None:
    held = {
        "kokoro": [s.text for s in kokoro_sentences.VALIDATION],
        "speecht5": speecht5_sentences.VALIDATION,
        "t3": [u.text for u in t3_sentences.VALIDATION],
    }[name]
    text = " ".join(held)
    assert "Nguyen" in text
    assert "Bus" in text
    assert set(text) > set("!?,.") | ({"“", "”"} if name != "t3" else {";", ":"})


@every_model
def test_timed_utterances_are_short_medium_and_long(name: str) -> None:
    made = cases(name, "timed")
    assert [case.name.split(",")[0] for case in made] == ["short", "medium", "long"]
    for rising in zip(*map(sizes, made), strict=True):
        assert sorted(set(rising)) == list(rising)


def test_kokoros_timed_utterances_have_as_many_tokens_as_they_say() -> None:
    assert tuple(len(tokens(case)) - 2 for case in cases("kokoro", "timed")) == TIMED_TOKENS


@every_model
def test_a_sequence_is_many_calls_of_many_lengths_the_longest_first(name: str) -> None:
    made = cases(name, "sequence")
    assert len(made) >= 61
    for column in zip(*map(sizes, made), strict=True):
        assert column[0] == max(column)
        assert len(set(column)) >= 12
        # A trend of lengths would look like one of time and memory.
        assert abs(np.corrcoef(column[1:], range(1, len(column)))[0, 1]) < 0.1


@every_model
def test_every_sixth_call_of_a_sequence_is_the_second_again_and_all_are_by_one_voice(name: str) -> None:
    made = cases(name, "sequence")
    equal = [place for place, case in enumerate(made) if same(case, made[1])]
    assert set(range(1, len(made), 6)) <= set(equal)
    assert len(equal) < len(made) / 4
    assert len({case.name.split(", ")[-1] for case in made}) == 1


@every_model
def test_a_sequence_is_over_soon(name: str) -> None:
    """By the time that full-size fp32 takes on two cores: see docs/benchmarks.md."""
    made = cases(name, "sequence")
    if name == "t3":
        assert sum(0.25 + 0.041 * int(case.inputs["max_tokens"]) for case in made) < 75
    elif name == "speecht5":
        step_s = 2 * 256 / 16_000
        assert 0.2 * step_s * sum(int(case.inputs["max_steps"]) for case in made) < 35
    else:
        token_s = 4.5 * 600 / 24_000  # of seeded weights; trained ones are faster
        assert 0.17 * token_s * sum(len(tokens(case)) for case in made) < 35


# --- Kokoro's speeds and phonemes ---------------------------------------------------------------------------


def test_a_speed_cut_to_an_integer_does_not_pass_validation() -> None:
    made = kokoro_graph.cases("validation")
    assert {0.8, 1.25, 1.5} <= {round(float(case.inputs["speed"][0]), 2) for case in made}
    reference = MODELS["kokoro"].load().reference(kokoro_graph.loaded(), 1, 0, False)
    equal = total = 0
    for case in made:
        cut = {**case.inputs, "speed": np.maximum(np.trunc(case.inputs["speed"]), 1)}
        right, wrong = (reference.taps(inputs, ["duration"])["duration"] for inputs in (case.inputs, cut))
        equal, total = equal + int((right == wrong).sum()), total + right.size
    assert equal / total < 0.9  # the profile asks for 0.98


def test_the_stored_phonemes_are_those_of_their_texts() -> None:
    for sentence in (s for purpose in SETS for s in getattr(kokoro_sentences, purpose.upper())):
        assert frontend.phonemize(sentence.text) == sentence.phonemes
    assert frontend.phonemize(speecht5_sentences.LONG) == kokoro_sentences.SPOKEN


# --- T3's guidance and emotion ------------------------------------------------------------------------------


def test_reference_and_graphs_alike_heed_guidance_and_emotion(tmp_path: Path) -> None:
    loaded = t3_files.write_release(tmp_path)
    model = MODELS["t3"].load()
    made = model.cases(loaded.config, loaded.voices, "validation")
    changed = [case for case in made if {"exaggeration", "cfg_weight"} & set(_asked(case))]
    weights = {float(case.inputs["cfg_weight"]) for case in changed if "cfg_weight" in case.inputs}
    assert 0 in weights  # one row instead of two
    assert any(weight not in (0, 0.5) for weight in weights)
    assert sum("exaggeration" in _asked(case) for case in changed) >= 2
    reference = model.reference(loaded, 1, 0, False)
    runner = T3Runner({name: tmp_path / graph_file(name, "fp32") for name in model.graphs}, 1)
    for case in changed:
        plain = {**case.inputs, "exaggeration": np.array([0.5], np.float32)}
        plain.pop("cfg_weight", None)
        spoken = reference.taps(case.inputs, ["tokens", "logits"])
        forced = {"tokens": spoken["tokens"]}
        assert snr_db(reference.taps(plain, ["logits"], forced)["logits"], spoken["logits"]) < 60
        assert snr_db(runner.taps(case.inputs, ["logits"], forced)["logits"], spoken["logits"]) > 90  # as fp32's gate


def _asked(case: Case) -> list[str]:
    """Options that the case's name tells of."""
    return [part.split()[0] for part in case.name.split(", ")[3:]]


# --- other checkpoints --------------------------------------------------------------------------------------


@every_model
def test_few_positions_are_not_exceeded_and_lengths_still_differ(name: str) -> None:
    made = few_positions(name)
    text, speech = {"kokoro": (12, 0), "speecht5": (12, 20), "t3": (22, 40)}[name]
    for purpose in PURPOSES:
        for case in cases(name, purpose, made):
            assert 3 <= len(tokens(case)) <= text
            assert all(1 <= n <= speech for n in sizes(case)[1:])
    last = [sizes(case)[-1] for case in cases(name, "timed", made)]
    assert sorted(set(last)) == last
    called = [sizes(case)[-1] for case in cases(name, "sequence", made)]
    assert called[0] == max(called)
    assert len(set(called)) >= 6


def test_sizes_beyond_what_there_is_shrink_alike() -> None:
    assert sentences.within((20, 60, 150), 1) == [1, 1, 1]
    assert sentences.within((20, 60, 150), 75) == [10, 30, 75]
    assert sentences.within((20, 60, 150), 150) == [20, 60, 150]


@every_model
def test_a_foreign_vocabulary_is_given_its_own_tokens(name: str) -> None:
    made = foreign(name)
    for purpose in PURPOSES:
        for case in cases(name, purpose, made):
            said = tokens(case)
            assert len(set(said.tolist())) >= min(4, len(said) - 2)
    repeated = cases(name, "sequence", made)
    assert all(same(case, repeated[1]) for case in repeated[sentences.EQUAL_CALLS])


@pytest.mark.parametrize("vocab", [{" ": 1, "ж": 2, "щ": 3}, {" ": 1, ",": 2, "1": 3}])
def test_kokoros_stream_says_something_of_any_vocabulary(vocab: dict[str, int], tmp_path: Path) -> None:
    model, loaded = MODELS["kokoro"].load(), kokoro_graph.loaded()
    path = tmp_path / "model.onnx"
    path.write_bytes(kokoro_graph.exported())
    speak = model.speaker({model.graphs[0]: path}, {**loaded.config, "vocab": vocab}, loaded.voices, 1)
    assert len(next(speak())) > 0


@every_model
def test_a_text_that_a_foreign_vocabulary_cannot_say_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match=r"^sentence 1, 'Hello there\.': it holds nothing"):
        spoken(name, "Hello there.", made=foreign(name))


# --- a user's own texts -------------------------------------------------------------------------------------

TEXTS = ("Hello there.", "The quick brown fox jumps over the lazy dog.", "Why not, Joe?")


@every_model
def test_texts_are_spoken_by_voices_in_turn_under_names_that_show_them(name: str) -> None:
    voices = sorted(checkpoint(name)[1])
    made = spoken(name, *TEXTS)
    assert [case.name.split(", ")[-1] for case in made] == [voices[i % len(voices)] for i in range(3)]
    beginnings = ["1. Hello there., ", "2. The quick brown fox jump…, ", "3. Why not, Joe?, "]
    for case, begun in zip(made, beginnings, strict=True):
        assert case.name.startswith(begun)


@every_model
def test_the_same_text_has_the_inputs_of_a_built_in_case(name: str) -> None:
    """So that what is judged on a user's texts is what is judged on ours."""
    (built_in, *_) = cases(name, "brief")
    (made,) = spoken(name, TEXTS[0])
    chosen = {"min_steps", "max_steps"}  # SpeechT5 stops by itself
    assert made.inputs.keys() == built_in.inputs.keys() - chosen
    for key, array in made.inputs.items():
        assert array.dtype == built_in.inputs[key].dtype
        assert array.ndim == built_in.inputs[key].ndim


def test_kokoro_speaks_what_the_front_end_makes_of_a_text() -> None:
    config, voices = checkpoint("kokoro")
    (case,) = spoken("kokoro", TEXTS[1])
    ids = frontend.encode(frontend.phonemize(TEXTS[1]), config["vocab"])
    assert tokens(case).tolist() == [0, *ids, 0]
    np.testing.assert_array_equal(case.inputs["style"], voices[sorted(voices)[0]][len(ids) - 1])
    assert case.inputs["speed"].tolist() == [1.0]


def test_speecht5_speaks_what_its_tokenizer_makes_of_a_text() -> None:
    config, _ = checkpoint("speecht5")
    (case,) = spoken("speecht5", TEXTS[1])
    assert tokens(case).tolist() == Tokenizer.from_str(json.dumps(config["tokenizer"])).encode(TEXTS[1]).ids


def test_t3_speaks_as_long_as_a_text_is() -> None:
    made = spoken("t3", "Hello there, you.", "Hello there, you. " * 4)
    assert [int(case.inputs["max_tokens"]) for case in made] == [28, 120]  # 15 characters and 25 tokens a second
    assert all(case.inputs["min_tokens"] == case.inputs["max_tokens"] for case in made)


def test_t3s_multilingual_checkpoint_is_told_that_texts_are_english() -> None:
    made = t3(multilingual=True)
    (case,) = spoken("t3", "Hello.", made=made)
    assert tokens(case)[1] == MULTILINGUAL_VOCAB - len(t3_files.LANGUAGES)


@every_model
def test_a_text_beyond_the_positions_is_said_in_pieces_and_nothing_is_lost(name: str) -> None:
    made, ends = few_positions(name), 3  # at most, of a piece: start, end and a full stop
    cut, whole = spoken(name, *TEXTS, made=made), spoken(name, *TEXTS)
    assert max(len(tokens(case)) for case in cut) <= {"kokoro": 12, "speecht5": 12, "t3": 22}[name]
    for place, case in enumerate(whole, 1):
        parts = [piece for piece in cut if piece.name.startswith(f"{place}.")]
        assert len({piece.name.split(", ")[-1] for piece in parts}) == 1
        said = sum(len(tokens(piece)) for piece in parts)
        assert len(tokens(case)) - len(parts) - ends <= said <= len(tokens(case)) + ends * len(parts)
    longest = [piece.name for piece in cut if piece.name.startswith("2.")]
    assert [name.split()[0] for name in longest] == [f"2.{part}." for part in range(1, len(longest) + 1)]
    assert len(longest) >= 3


HOSTILE = {
    "emoji": "😀 hello 😀",
    "right to left": "مرحبا hello",
    "override": "\u202ehello there",
    "NUL": "nul\0nul",
    "half a character": "\ud800 hello",
    "table": "a|b | hello\nthere",
    "long": "word " * 2000,
    "one word": "a" * 10_000,
}


@every_model
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_make_cases_with_names_of_one_line(name: str, text: str) -> None:
    made = spoken(name, "Fine.", text)[1:]
    assert made
    for case in made:
        assert case.name.startswith("2.")
        assert case.name.isprintable()
        assert "|" not in case.name
        assert len(case.name) < 100
        assert len(tokens(case)) <= 512


@every_model
@pytest.mark.parametrize("text", ["", " \n", "😀", "\0", "…", "?!", "مرحبا", "\ud800"])
def test_a_text_of_which_nothing_can_be_said_is_named_in_one_line(name: str, text: str) -> None:
    with pytest.raises(BadInput, match=r"^sentence 2, '[^\n]*': [^\n]+$"):
        spoken(name, "Fine.", text)


@pytest.fixture
def without_espeak(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    frontend._espeak.cache_clear()
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    yield
    frontend._espeak.cache_clear()


@pytest.mark.usefixtures("without_espeak")
def test_without_the_phonemes_extra_no_text_is_blamed() -> None:
    with pytest.raises(BadInput, match=r"^text needs the phonemes extra: pip install"):
        spoken("kokoro", "Hello.")
    assert cases("kokoro", "validation")
