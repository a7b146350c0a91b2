"""T3's text against the authors' functions, where the chatterbox-tts wheel is installed."""

from __future__ import annotations

import ast
import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from t3_files import authors_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jtts_export.errors import BadInput
from jtts_export.runtime.t3_text import LANGUAGES, encode, normalize

TEXTS = (
    "hello there.",
    "Hello",
    " leading space, so no capital",
    "two  spaces\tand\na line",
    "wait... what\u2026 now: then; there - here \u2014 and \u2013 so , yes",
    "\u201cQuoted\u201d and \u2018single\u2019",
    "ends with a colon:",
    "ends with an ellipsis...",
    "ends with a question? ",
    "a quote at the end.\u201d",
    "....",
    "-",
    ":",
    "\u00dfharp and \u0149 grow when capitalized",
    "\u00e9cole, na\u00efve, \ufb01ne, \u00bd, \u2460, \u01c6",
    "\u4f60\u597d\u3002",
    "\u3053\u3093\u306b\u3061\u306f\uff01",
    "\uc548\ub155\ud558\uc138\uc694, \u00a8\ubc18\uac11\uc2b5\ub2c8\ub2e4",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440\u3001",
    "\u0130stanbul\u2019da",
    "\u00a0no-break\u00a0spaces\u00a0",
)
CHARACTERS = (
    "ab Z .,:;!?-\u2026\u2014\u2013\u201c\u201d\u2018\u2019\u3001\uff0c\u3002\uff1f\uff01\u00a0\t\u00df\uac00\u0451"
)


def authors_function(path: Path, name: str) -> Callable[..., Any]:
    """One function of a file whose imports are not installed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    found: dict[str, Any] = {}
    exec(compile(tree, str(path), "exec"), found)  # noqa: S102 - the authors' own
    return found[name]


@pytest.fixture(scope="module")
def authors() -> ModuleType:
    """Their tokenizer.py alone."""
    path = authors_file("tokenizers", "tokenizer.py")
    spec = importlib.util.spec_from_file_location("chatterbox_tokenizer", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_tokenizer(languages: tuple[str, ...]) -> Tokenizer:
    """As the authors' are built: byte pairs of words, with start, stop, space and language tags."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *(f"[{code}]" for code in languages)]
    tokenizer.train_from_iterator([*TEXTS, CHARACTERS], trainers.BpeTrainer(special_tokens=special, vocab_size=400))
    return tokenizer


@pytest.fixture(scope="module")
def english() -> Tokenizer:
    return make_tokenizer(())


@pytest.fixture(scope="module")
def multilingual() -> Tokenizer:
    return make_tokenizer(LANGUAGES)


# --- normalize -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "multilingual"), [("tts.py", False), ("mtl_tts.py", True)])
def test_punctuation_is_that_of_the_authors(name: str, multilingual: bool) -> None:
    expected = authors_function(authors_file("chatterbox", name), "punc_norm")
    rng = random.Random(0)
    drawn = ["".join(rng.choices(CHARACTERS, k=rng.randint(1, 30))) for _ in range(2000)]
    for text in (*TEXTS, *(text for text in drawn if text.strip())):
        assert normalize(text, multilingual) == expected(text), repr(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", "Hello."),
        ("Wait... what", "Wait,  what."),
        ("so:", "So,"),
        ("one - two; three", "One, two,  three."),
        (" hello", "hello."),
        ("\u201cyes\u201d", '"yes".'),
    ],
)
def test_normalized(text: str, expected: str) -> None:
    assert normalize(text) == expected


def test_ends_of_other_scripts_count_for_the_multilingual_checkpoint_only() -> None:
    assert normalize("\u4f60\u597d\u3002", multilingual=True) == "\u4f60\u597d\u3002"
    assert normalize("\u4f60\u597d\u3002") == "\u4f60\u597d\u3002."


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0\u3000", "\udcff", " \ud800\udcff "])
def test_an_empty_text_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="the text is empty"):
        normalize(text)


# --- encode ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", [None, "en", "EN"])
def test_english_tokens_are_those_of_the_authors(
    authors: ModuleType, english: Tokenizer, tmp_path: Path, language: str | None
) -> None:
    english.save(str(tmp_path / "tokenizer.json"))
    theirs = authors.EnTokenizer(str(tmp_path / "tokenizer.json"))
    for text in map(normalize, TEXTS):
        assert encode(english, text, language) == theirs.encode(text)


@pytest.mark.parametrize("language", [None, *(code for code in LANGUAGES if code not in ("ja", "zh"))])
def test_multilingual_tokens_are_those_of_the_authors(
    authors: ModuleType, multilingual: Tokenizer, language: str | None
) -> None:
    theirs = authors.MTLTokenizer.__new__(authors.MTLTokenizer)  # its __init__ downloads a table for Chinese
    theirs.tokenizer = multilingual
    for text in TEXTS:
        spoken = normalize(text, multilingual=True)
        made = encode(multilingual, spoken, language)
        assert made == theirs.encode(spoken, language_id=language), repr(text)
        assert (made[0] == multilingual.token_to_id(f"[{language}]")) == (language is not None)


def test_the_languages_are_the_authors() -> None:
    tree = ast.parse(authors_file("chatterbox", "mtl_tts.py").read_text(encoding="utf-8"))
    (node,) = (
        n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "SUPPORTED_LANGUAGES"
    )
    assert tuple(ast.literal_eval(node.value)) == LANGUAGES


def test_spaces_and_case(english: Tokenizer, multilingual: Tokenizer) -> None:
    space = english.token_to_id("[SPACE]")
    assert encode(english, "Wait,  what.").count(space) == 2
    assert encode(english, "Hello.") != encode(english, "hello.")
    assert encode(multilingual, "Hello.", "EN") == encode(multilingual, "hello.", "en")
    assert encode(multilingual, "caf\u00e9", "fr") == encode(multilingual, "cafe\u0301", "fr")
    assert not {english.token_to_id("[START]"), english.token_to_id("[STOP]")} & set(encode(english, "Hello."))


def test_halves_of_surrogates_are_left_out(english: Tokenizer, multilingual: Tokenizer) -> None:
    """What a shell passes that is no UTF-8."""
    assert normalize("\udcffhello\udcc3 there\ud800") == "Hello there."
    assert encode(english, "Hel\udcfflo.") == encode(english, "Hello.")
    assert encode(multilingual, "Hel\udcfflo.", "fr") == encode(multilingual, "Hello.", "fr")


def test_korean_is_spelled_in_jamo(multilingual: Tokenizer) -> None:
    assert encode(multilingual, "\ud55c", "ko") == encode(multilingual, "\u1112\u1161\u11ab", "ko")
    tag, rest = encode(multilingual, "\u00a8\ud55c", "ko"), encode(multilingual, "\u00a8\ud55c", "de")
    space = multilingual.token_to_id("[SPACE]")
    assert (tag.count(space), rest.count(space)) == (0, 1)  # a diaeresis decomposes into a space and a mark


@pytest.mark.parametrize("language", ["xx", "english", "[en]", "en-US"])
def test_an_unknown_language_is_refused_with_those_there_are(multilingual: Tokenizer, language: str) -> None:
    with pytest.raises(BadInput) as caught:
        encode(multilingual, "Hello.", language)
    assert str(caught.value) == f"unknown language '{language.lower()}'; languages: {', '.join(LANGUAGES)}"


def test_a_checkpoint_speaks_the_languages_it_has_tags_for() -> None:
    tokenizer = make_tokenizer(("en", "fr"))
    assert encode(tokenizer, "Oui.", "fr")[0] == tokenizer.token_to_id("[fr]")
    with pytest.raises(BadInput, match=r"unknown language 'de'; languages: en, fr$"):
        encode(tokenizer, "Ja.", "de")


@pytest.mark.parametrize("language", ["fr", "zh", "xx"])
def test_the_english_checkpoint_speaks_english_only(english: Tokenizer, language: str) -> None:
    with pytest.raises(BadInput, match=f"language '{language}' is not spoken by this release; it speaks en"):
        encode(english, "Hello.", language)


@pytest.mark.parametrize(("language", "script"), [("ja", "hiragana"), ("zh", "Cangjie codes")])
def test_languages_whose_script_is_not_converted_are_refused(
    multilingual: Tokenizer, language: str, script: str
) -> None:
    with pytest.raises(
        BadInput, match=f"language '{language}' cannot be spoken: nothing here turns it into {script}"
    ):
        encode(multilingual, "\u4f60\u597d\u3002", language)
