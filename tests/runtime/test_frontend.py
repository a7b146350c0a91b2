"""The text front end against real espeak-ng, and the two splitters."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import pytest

from jtts_export.errors import BadInput
from jtts_export.runtime.frontend import LANGUAGES, encode, phonemize, split_phonemes, split_sentences

CONFIG = resources.files("jtts_export") / "models" / "kokoro" / "config.json"
VOCAB = json.loads(CONFIG.read_text(encoding="utf-8"))["vocab"]

# What misaki 0.9.4's EspeakFallback gives for each word (espeak-ng 1.52).
AMERICAN = {
    "hello": "həlˈO",
    "water": "wˈɔTəɹ",
    "button": "bˈʌtn",
    "bottle": "bˈɑTᵊl",
    "day": "dˈA",
    "now": "nˈW",
    "choice": "ʧˈYs",
    "judge": "ʤˈʌʤ",
    "fire": "fˈIəɹ",
    "bird": "bˈɜɹd",
    "idea": "Idˈiə",
    "loch": "lˈɑk",
    "garden": "ɡˈɑɹdən",
    "uncertain": "ʌnsˈɜɹtn",
}
BRITISH = {
    "hello": "həlˈQ",
    "water": "wˈɔːtə",
    "bottle": "bˈɒtᵊl",
    "bird": "bˈɜːd",
    "happy": "hˈapi",
    "goat": "ɡˈQt",
    "church": "ʧˈɜːʧ",
    "poor": "pˈʊə",
    "tune": "tjˈuːn",
}
# The same of misaki's EspeakG2P, for sentences whose punctuation it keeps.
OTHER_LANGUAGES = {
    "es": ("Me llamo José, y tengo veinte años.", "me ʎˈamo xosˈe, i tˈɛŋɡo βˈAnte ˈaɲos."),
    "fr-fr": ("Portez ce vieux whisky au juge.", "pɔʁtˈe sə vjˈø wˈɪski o ʒˈyʒ."),
    "hi": ("नमस्ते, आप कैसे हैं?", "nəmˈʌsteː, ˌaːp kˈɛːseː hɛ̃?"),
    "it": ("Ciao, come stai? La pizza è buonissima.", "ʧˈao, kˌome stˈaj? la pˈiʦːa e bʊonˈiSima."),
    "pt-br": ("Olá, como você está?", "olˈa, kˌomʊ vosˌe estˌa?"),
}

SUBJECTS = ["Dr. O'Neill", "NASA", "The café", "My iPhone 15", "“Nobody”", "Zoë", "J. K. Rowling"]
PREDICATES = [
    "paid $3.50 (plus 20% tax) at 10:30 p.m. on Jan. 5, 1984",
    "met Ms. Müller and Señor Núñez in São Paulo — twice",
    "visited https://www.example.com/a?b=1&c=2 or wrote to me@example.org",
    "counted 1,000,000 bytes, 3.14 pies, 1st, 2nd, 23rd and ½ more",
    'said "WOW... really?!" and then: nothing; silence…',
    "used C++, C#, mRNA, COVID-19, e.g. A.I. vs. the Ph.D.",
    "ran 5km in 25°C on 2024-01-05, 01/05/2024, i.e. in the U.S.",
    "didn't, couldn’t & wouldn't; it's rock 'n' roll @ 7 a.m.",
    "liked naïve façades, déjà vu, smörgåsbord, Dvořák and Łódź",
    "ate [two] {three} <four> *five* _six_ ~7 ^8 | 9 \\ 10 = x + y / z",
    "saw 😀, 👨‍👩‍👧 and ❤️ in 北京, Москва and القاهرة",
    "shouted ¡Hola! ¿Qué? „Ja“ «oui» ‘no’ – maybe‽",
    "heard α, β, π, ∑, √2, x², ™, © and Ⅳ",
    "wrote MiXeD cAsE, SHOUTING, lowercase and hyphen-ated-words",
    "owes £1,000.25, €2.5 or $3 billion to Inc., Ltd. and No. 5",
]
SENTENCES = [f"{subject} {predicate}." for subject in SUBJECTS for predicate in PREDICATES]


@pytest.mark.parametrize("word", AMERICAN)
def test_american_words_are_spelled_as_the_authors_spell_espeaks(word: str) -> None:
    assert phonemize(word) == AMERICAN[word]


@pytest.mark.parametrize("word", BRITISH)
def test_british_words_are_spelled_as_the_authors_spell_espeaks(word: str) -> None:
    assert phonemize(word, "en-gb") == BRITISH[word]


def test_british_fair_and_near_follow_the_authors_lexicon() -> None:
    assert phonemize("fair", "en-gb") == "fˈɛː"
    assert phonemize("near", "en-gb") == "nˈɪə"


def test_a_sentence_keeps_its_words_and_its_punctuation() -> None:
    assert phonemize("Hello, world! How are you?") == "həlˈO, wˈɜɹld! hˈW ɑɹ ju?"


@pytest.mark.parametrize("language", OTHER_LANGUAGES)
def test_other_languages_are_spelled_as_the_authors_spell_espeaks(language: str) -> None:
    text, phonemes = OTHER_LANGUAGES[language]
    assert phonemize(text, language) == phonemes


def test_one_letter_codes_are_the_same_languages() -> None:
    text = "Radio, piano."
    assert [phonemize(text, alias) for alias in "abefhip"] == [phonemize(text, name) for name in LANGUAGES]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_phoneme_of_varied_text_is_in_the_vocabulary(language: str) -> None:
    assert len(SENTENCES) > 100
    for sentence in SENTENCES:
        encode(phonemize(sentence, language), VOCAB)


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("He said, “yes” (or no); then: go!", ",“”();:!"),
        ("Well… wait... now — or never--ever.", "……——."),
        ('"Who?" she asked.', '"?".'),
        ("«Oui» [si] {ja}", "“”()()"),
        ("Dr. Smith, of the U.S. navy, paid $3.50 at 5 p.m. on Monday.", ",,."),
        ("Write to me@example.org: it is 10:30, and 1,000.5 is big.", ":,."),
        ("See www.example.com/a?b=1.", "."),
    ],
)
def test_marks_stay_and_only_pauses_are_marks(text: str, marks: str) -> None:
    assert "".join(c for c in phonemize(text) if c in ';:,.!?—…"()“”') == marks


def test_marks_stay_beside_their_words() -> None:
    phonemes = phonemize("Stop (now) , he said : “ go ” !")
    assert phonemes == "stˈɑp (nˈW), hi sˈɛd: “ɡˈO”!"


def test_sums_of_money_are_read_with_their_unit_last() -> None:
    assert phonemize("$3.50") == phonemize("3 dollars and 50 cents")
    assert phonemize("£1 or $2 million") == phonemize("1 pound or 2 million dollars")


def test_white_space_of_any_kind_is_one_space() -> None:
    assert phonemize(" one\n\n two\t three\u00a0four\u2028five ") == phonemize("one two three four five")


def test_full_width_and_decomposed_letters_read_as_the_usual_ones() -> None:
    assert phonemize("Ｈｅｌｌｏ！") == phonemize("Hello!")
    assert phonemize("cafe\u0301") == phonemize("café")


def test_emoji_are_left_out() -> None:
    assert phonemize("I love 😀 pizza 👨‍👩‍👧❤️!") == phonemize("I love pizza!")


@pytest.mark.parametrize("text", ["", "  \n\t "])
def test_empty_text_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="the text is empty"):
        phonemize(text)


@pytest.mark.parametrize("text", ["😀👍🏽", "?!…", "“ ” — ()", "\u200b", "你好"])
def test_text_without_a_phoneme_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="nothing to pronounce"):
        phonemize(text)


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"'ja'.*en-us \(a\).*pt-br \(p\)"):
        phonemize("hello", "ja")


def test_a_missing_extra_is_one_line_and_the_module_needs_no_arrays() -> None:
    code = """if True:
        import sys
        from jtts_export.errors import BadInput
        from jtts_export.runtime import frontend
        assert not {"numpy", "torch", "phonemizer"} & set(sys.modules)
        sys.modules["espeakng_loader"] = None
        try:
            frontend.phonemize("hello")
        except BadInput as error:
            print(error)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["text needs the phonemes extra: pip install 'jtts-export[phonemes]'"]


def test_nothing_is_written_to_stderr() -> None:
    code = "from jtts_export.runtime.frontend import phonemize; phonemize('le déjà vu, weekend (one)', 'fr-fr')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""


def test_threads_get_the_phonemes_that_a_serial_run_gets() -> None:
    jobs = [(text, LANGUAGES[i % len(LANGUAGES)]) for i, text in enumerate(SENTENCES * 3)]
    serial = [phonemize(*job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda job: phonemize(*job), jobs)) == serial


def test_a_hundred_thousand_characters_come_out_whole() -> None:
    sentence = "The quick brown fox jumps over the lazy dog. "
    phonemes = phonemize(sentence * 2250)
    assert phonemes == " ".join([phonemize(sentence)] * 2250)


def test_a_clause_of_a_thousand_words_loses_none() -> None:
    # espeak alone drops those after the 300th.
    assert len(phonemize("a " * 1000).split()) == 1000


@pytest.mark.parametrize(
    ("text", "language"),
    [("x." * 2000, "en-us"), ("é." * 300, "fr-fr"), ("बृ-ॣष क-ख b-ष", "hi"), ("-कक", "es")],
)
def test_text_that_crashes_espeak_is_defused(text: str, language: str) -> None:
    assert phonemize(text, language)


def test_encode_gives_one_id_a_character_without_boundaries() -> None:
    assert encode("həlˈO!", VOCAB) == [VOCAB[c] for c in "həlˈO!"]


def test_encode_names_each_unknown_character_once() -> None:
    with pytest.raises(BadInput, match=r"'g' \(U\+0067\), '5' \(U\+0035\)$"):
        encode("ag5ag5", VOCAB)


def test_encode_drops_unknown_characters_when_told_to() -> None:
    assert encode("g5a", VOCAB, strict=False) == [VOCAB["a"]]


@pytest.mark.parametrize(("phonemes", "strict"), [("", True), ("", False), ("g5", False)])
def test_encode_refuses_to_give_no_tokens(phonemes: str, strict: bool) -> None:
    with pytest.raises(BadInput, match="no phonemes"):
        encode(phonemes, VOCAB, strict)


def random_phonemes(rng: random.Random) -> str:
    """From marks only to one long word: words of 1 to `longest` letters, and marks of every kind between."""
    longest = rng.choice([1, 5, 12, 60, 900])
    marks = rng.choice(["", " ", ",; ", '.!?… ""”)', '.,;:!?—…"()“” '])
    words = []
    for _ in range(rng.randint(0, 300)):
        words.append("".join(rng.choices("abhklɑɪʃˈˌː\u0303", k=rng.randint(1, longest))))
        words.append("".join(rng.choices(marks, k=rng.randint(0, 3))) if marks else "")
        words.append(" " * rng.choice([0, 1, 1, 1, 2]))
    return "".join(words)[: rng.choice([10, 500, 511, 2000, 20000])]


def without_space(pieces: list[str]) -> str:
    return "".join("".join(pieces).split())


@pytest.mark.parametrize("split", [split_phonemes, split_sentences])
def test_pieces_fit_the_limit_and_lose_nothing(split: Callable[[str, int], list[str]]) -> None:
    rng = random.Random(20250101)
    for _ in range(200):
        phonemes, limit = random_phonemes(rng), rng.choice([1, 2, 7, 50, 510])
        pieces = split(phonemes, limit)
        assert without_space(pieces) == without_space([phonemes])
        assert all(piece.strip() and len(piece) <= limit for piece in pieces)


def random_sentence(rng: random.Random, words: int) -> str:
    return " ".join("ˈabɪkʃə"[: rng.randint(2, 7)] for _ in range(words)) + rng.choice(".!?…")


def test_pieces_of_ordinary_sentences_end_with_sentences_and_are_balanced() -> None:
    # A sentence has at most 160 characters, so one ends wherever a third of the limit may be cut.
    rng = random.Random(7)
    for _ in range(100):
        sentences = [random_sentence(rng, rng.randint(2, 20)) for _ in range(rng.randint(8, 60))]
        phonemes = " ".join(sentences)
        pieces = split_phonemes(phonemes)
        assert all(piece[-1] in ".!?…" for piece in pieces)
        assert len(phonemes) <= 510 or min(map(len, pieces)) >= 510 // 4


def test_input_within_the_limit_is_one_piece() -> None:
    text = "a. " * 170
    assert split_phonemes(text) == [text]
    assert split_phonemes("ab cd", 5) == ["ab cd"]
    assert split_phonemes("  ") == []


def test_one_character_over_the_limit_is_cut_in_the_middle() -> None:
    assert [len(piece) for piece in split_phonemes("abcd " * 102 + "e")] == [254, 256]


def test_a_cut_prefers_sentence_then_clause_then_space() -> None:
    assert split_phonemes("aaa bbb, ccc. ddd eee", 14) == ["aaa bbb, ccc.", "ddd eee"]
    assert split_phonemes("aaa bbb, ccc ddd eee", 14) == ["aaa bbb,", "ccc ddd eee"]
    assert split_phonemes("aaa bbb ccc ddd", 10) == ["aaa bbb", "ccc ddd"]
    assert split_phonemes("aaaabbbb", 6) == ["aaaa", "bbbb"]


def test_closing_marks_stay_with_their_sentence() -> None:
    assert split_phonemes("(“aaa bbb!”) “ccc ddd?”", 14) == ["(“aaa bbb!”)", "“ccc ddd?”"]


def test_a_word_is_not_cut_between_a_stress_or_length_and_its_vowel() -> None:
    assert split_phonemes("babaˈɑːba", 6) == ["baba", "ˈɑːba"]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        split_phonemes("abc", 0)


def test_streaming_gives_a_piece_a_sentence() -> None:
    text = "həlˈO, wˈɜɹld! hˈW ɑɹ ju?” … (fˈIn.) ˌOkˈA"
    assert split_sentences(text) == ["həlˈO, wˈɜɹld!", "hˈW ɑɹ ju?”", "… (fˈIn.)", "ˌOkˈA"]


def test_a_long_first_sentence_is_cut_early_and_later_ones_are_not() -> None:
    long = "ab, " + "abcd " * 5 + "ef, " + "abcd " * 20 + "end."
    assert [len(piece) for piece in split_sentences(f"{long} {long}")] == [32, 104, len(long)]


def test_a_first_sentence_with_no_clause_stays_whole_up_to_the_limit() -> None:
    sentence = "abcd " * 60 + "end."
    assert split_sentences(sentence) == [sentence]


def test_marks_alone_make_no_piece_of_their_own() -> None:
    assert split_sentences("ab. . . ! cd. …") == ["ab.", ". . ! cd. …"]
