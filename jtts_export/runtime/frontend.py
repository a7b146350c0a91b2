"""Text to Kokoro's phonemes, phonemes to token ids, and long phonemes to pieces the model can take.

The mapping from espeak-ng's IPA to Kokoro's alphabet is that of `misaki/espeak.py` (misaki 0.9.4, by the
authors of Kokoro): `EspeakFallback` for English, `EspeakG2P` for the other languages.
"""

from __future__ import annotations

import functools
import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.util import find_spec
from typing import Any

from jtts_export.errors import BadInput, OutsideError

PHONEME_LIMIT = 510  # PL-BERT has 512 positions, two of them for the boundary tokens
FIRST_PIECE_LONG = 100  # phonemes: a longer first sentence delays the first audio
FIRST_PIECE_SHORT = 20  # phonemes: a shorter piece is spoken at another rate

LANGUAGES = ("en-us", "en-gb", "es", "fr-fr", "hi", "it", "pt-br")
_ALIASES = dict(zip("abefhip", LANGUAGES, strict=True))  # the first letter of a Kokoro voice's name

_ESPEAK_PATH_BYTES = 160  # N_PATH_HOME of espeak-ng 1.52; with a longer path it exits the process
# espeak-ng 1.52 joins "x.x.x." into one word in a buffer of 160 bytes, and past that aborts the process.
_LONG_INITIALS = re.compile(r"(?:\w\W?\.){16,}")
# It also crashes on some hyphens at a letter of another script ("-षक") or at the start of a word.
_UNSAFE_HYPHEN = re.compile(r"-(?=[^ -\u02af])|(?<=[^ -\u02af])-|(?<![^\W_])-(?!\d)")
_ESPEAK_WORDS = 100  # espeak silently drops words after the 300th of a clause (N_CLAUSE_WORDS)
_espeak_lock = threading.Lock()  # espeak-ng keeps its state in process-wide globals

# --- espeak's IPA -> Kokoro's alphabet; applied in order -----------------------------------------------

_TIE = "\u0361"  # joins the letters of one phoneme: a͡ɪ
_SYLLABIC = "\u0329"  # under a consonant that is a syllable: n̩

_ENGLISH = (
    ("ʔˌn" + _SYLLABIC, "ʔn"),
    ("ʔn" + _SYLLABIC, "ʔn"),
    ("a͡ɪ", "I"),
    ("a͡ʊ", "W"),
    ("d͡ʒ", "ʤ"),
    ("e͡ɪ", "A"),
    ("t͡ʃ", "ʧ"),
    ("ɔ͡ɪ", "Y"),
    ("ə͡l", "ᵊl"),
    ("ʲo", "jo"),
    ("ʲə", "jə"),
    ("ʲ", ""),
    ("e", "A"),
    ("ɚ", "əɹ"),
    ("r", "ɹ"),
    ("x", "k"),
    ("ç", "k"),
    ("ɐ", "ə"),
    ("ɬ", "l"),
    ("\u0303", ""),
)
_AMERICAN = (
    *_ENGLISH,
    ("o͡ʊ", "O"),
    ("ɜːɹ", "ɜɹ"),
    ("ɜː", "ɜɹ"),
    ("ɪə", "iə"),
    ("ː", ""),
    ("o", "ɔ"),
    ("ɾ", "T"),
    ("ʔ", "t"),
)
# misaki's order loses two of its own rules (`e` goes before `e͡ə`, and `iə` never matches the tied `i͡ə`): its
# "fair" is fˈAə, its "near" nˈiə. Its British lexicon has fˈɛː and nˈɪə, so the two come first here.
_BRITISH = (
    ("e͡ə", "ɛː"),
    ("i͡ə", "ɪə"),
    *_ENGLISH,
    ("iə", "ɪə"),
    ("ə͡ʊ", "Q"),
    ("o", "ɔ"),
    ("ɾ", "T"),
    ("ʔ", "t"),
)
_OTHER = (
    ("a͡ɪ", "I"),
    ("a͡ʊ", "W"),
    ("d͡z", "ʣ"),
    ("d͡ʒ", "ʤ"),
    ("e͡ɪ", "A"),
    ("o͡ʊ", "O"),
    ("s͡s", "S"),
    ("t͡s", "ʦ"),
    ("t͡ʃ", "ʧ"),
    ("ɔ͡ɪ", "Y"),
    ("ə͡ʊ", "Q"),
)

# --- text ----------------------------------------------------------------------------------------------

_MARKS = ';:,.!?—…"()“”'
_REPLACED = dict(zip("‘’‛ʼ«»„‟–―‐‑[]{}¡¿।॥。、،؛؟", "''''“”““——--()()  ...,,;?", strict=True))
# Latin, IPA, Greek (read as symbols), Devanagari and its joiners, ligatures, raised and lowered digits,
# currencies, fractions and a few signs. Emoji, arrows and other scripts stay out: espeak names each.
_READ_BY_ESPEAK = re.compile(
    r"[ -~¡-¬®-\u02af\u0370-\u03ff\u0900-\u097f\u1e00-\u1eff\u200c\u200d\ufb00-\ufb06"
    r"⁰-₉\u20a0-\u20c0⅐-⅞—…“”‰℃℉№™−√∞≈≠≤≥∂∆∑∏∫]"
)
# Abbreviations whose full stop ends no sentence, and what espeak is to read instead: before a name,
_TITLES = {
    "en": {"Mr": "Mr", "Mrs": "Mrs", "Ms": "Miz", "Dr": "Dr", "Prof": "Professor", "St": "St", "Mt": "Mount"}
    | {"Gen": "General", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Sen": "Senator"},
    "es": {"Sr": "Señor", "Sra": "Señora", "Srta": "Señorita", "Dr": "Doctor", "Dra": "Doctora"},
    "fr": {"M": "Monsieur", "MM": "Messieurs", "Dr": "Docteur"},
    "hi": {"डॉ": "डॉक्टर"},
    "it": {"Sig": "Signor", "Dott": "Dottor", "Prof": "Professor"},
    "pt": {"Sr": "Senhor", "Sra": "Senhora", "Dr": "Doutor", "Dra": "Doutora"},
}
# and in the middle of a sentence.
_SHORTENED = {"vs": "versus", "etc": "etc", "approx": "approximately", "Jr": "Junior", "Sr": "Senior"}
_SHORTENED |= {"Inc": "Inc", "Ltd": "Limited", "Co": "Co"}

_CAPITAL = "A-ZÀ-ÖØ-Þ"
_INITIALS = re.compile(  # "U.S. law", "5 p.m. on Monday", "J. Smith"
    rf"(?<![\w.])(?:((?:[A-Z]\.)+[A-Z])\.(?=\s\w|[,;:])"
    rf"|((?:[a-z]\.)+[a-z])\.(?=\s[a-z\d]|[,;:])"
    rf"|([A-HJ-Z])\.(?=\s[{_CAPITAL}]))"
)
_NUMBER_SIGN = re.compile(r"\bN(?:o|os)\.(?=\s?\d)")
_MONEY = re.compile(r"([$£€])(\d++(?:,\d{3})*+)(\.\d++)?( (?:thousand|million|billion|trillion))?(?!\w)")
_MONEY_NAMES = {"$": ("dollar", "cents"), "£": ("pound", "pence"), "€": ("euro", "cents")}

# In an address, a dotted word or a number ("a.b@c.org", "3.14", "10:30") a mark is read aloud, not a pause.
_CLAUSE_PARTS = re.compile(
    r'(?P<spoken>(?<!\w)(?:\w++://|www\.)[^\s"“”()]*[\w/]'
    rf"|(?<!\w)\w++(?:(?:[@.](?![{_CAPITAL}][a-zß-ÿ])|(?<=\d)[,:](?=\d))\w++)+)"
    rf"|(?P<mark>[{re.escape(_MARKS)}])"
)

# --- where phonemes may be cut -------------------------------------------------------------------------

_SENTENCE_END = re.compile(r'[.!?…]+["”)]*')
_CLAUSE_END = re.compile(r'[;:,—]+["”)]*')
_WORD_END = re.compile(r"(?=\s)")
_STRESSES = "ˈˌ"
_LENGTHS_AND_MODIFIERS = "ːʰʲ\u0303"  # belong to the phoneme before them


def is_installed() -> bool:
    """Whether the `phonemes` extra is there."""
    return all(find_spec(module) for module in ("phonemizer", "espeakng_loader"))


def encodable(text: str) -> str:
    """Without halves of surrogates, which is what bytes that are no UTF-8 become; no tokenizer takes them."""
    return text.encode("utf-8", "ignore").decode()


def phonemize(text: str, language: str = "en-us") -> str:
    """The phonemes of `text` in Kokoro's alphabet, offline, through espeak-ng; punctuation stays in place.

    `language` is one of `LANGUAGES` or misaki's letter for it (a b e f h i p). Runs of white space count as
    one space; emoji and letters other than Latin, Greek and Devanagari are left out. The same text gives the
    same phonemes from any thread; calls run one at a time.

    Raises BadInput: unknown language, empty text, text without a phoneme, the `phonemes` extra not installed.
    Raises OutsideError: espeak-ng itself cannot be loaded.
    Source of the mapping: misaki 0.9.4, `misaki/espeak.py`.
    """
    language = _known_language(language)
    if not text.strip():
        raise BadInput("the text is empty")
    readable = _readable(text, language)
    with _espeak_lock:
        espeak = _espeak(language)
        spoken = "".join(_clauses(readable, espeak))
    phonemes = _tidy("".join(c for c in spoken if c in _alphabet()))
    if not _has_phoneme(phonemes):
        raise BadInput("the text has nothing to pronounce: no phoneme comes out of it")
    return phonemes


def encode(phonemes: str, vocab: Mapping[str, int], strict: bool = True) -> list[int]:
    """Token ids `[tokens]` of `phonemes`, one a character, without the boundary token 0 at either end.

    A character outside `vocab` raises BadInput, or is dropped when not `strict`, as the authors'
    `KModel.forward` does. Raises BadInput too when no token is left.
    """
    unknown = dict.fromkeys(c for c in phonemes if c not in vocab)
    if strict and unknown:
        names = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown)
        raise BadInput(f"not in the model's phoneme vocabulary: {names}")
    ids = [vocab[c] for c in phonemes if c in vocab]
    if not ids:
        raise BadInput("no phonemes to speak")
    return ids


def split_phonemes(phonemes: str, limit: int = PHONEME_LIMIT) -> list[str]:
    """Cuts `phonemes` into balanced pieces of at most `limit` characters; white space at the cuts is dropped.

    A cut is at a sentence end where one is near enough to an even division, else at a clause mark, else at a
    space, and within a word only where there is no space. No piece is below a quarter of `limit` unless a
    long word forces it. Input within the limit is one piece, as it is. Raises BadInput for a limit below 1.
    """
    if limit < 1:
        raise BadInput(f"the limit of a piece is at least 1 phoneme, not {limit}")
    if len(phonemes) <= limit:
        return [phonemes] if phonemes.strip() else []
    pieces = []
    rest = phonemes.strip()
    while len(rest) > limit:
        cut = _balanced_cut(rest, limit)
        pieces.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*pieces, rest] if rest else pieces


def split_sentences(phonemes: str, limit: int = PHONEME_LIMIT) -> list[str]:
    """One piece a sentence, for streaming; one longer than `limit` characters is cut as in `split_phonemes`.

    A first sentence above 100 phonemes is cut at its first clause mark that leaves 20 on either side, so that
    the first audio comes early. Raises BadInput for a limit below 1.
    """
    sentences = _sentences(phonemes)
    if sentences and len(sentences[0]) > FIRST_PIECE_LONG:
        sentences[:1] = _early_clause(sentences[0])
    return [piece for sentence in sentences for piece in split_phonemes(sentence, limit)]


def _known_language(language: str) -> str:
    name = _ALIASES.get(language.lower(), language.lower())
    if name not in LANGUAGES:
        known = ", ".join(f"{name} ({alias})" for alias, name in _ALIASES.items())
        raise BadInput(f"unknown language {language!r}; known are {known}")
    return name


@functools.cache
def _alphabet() -> frozenset[str]:
    config = resources.files("jtts_export") / "models" / "kokoro" / "config.json"
    return frozenset(json.loads(config.read_text(encoding="utf-8"))["vocab"])


@functools.cache
def _espeak(language: str) -> Any:
    """An espeak-ng of its own for each language, so that no state of one voice reaches another."""
    try:
        import espeakng_loader
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise BadInput("text needs the phonemes extra: pip install 'jtts-export[phonemes]'") from error
    try:
        data_path = espeakng_loader.get_data_path()
        if len(os.fsencode(data_path)) >= _ESPEAK_PATH_BYTES:
            raise OutsideError(f"espeak-ng cannot read data below so long a path: {data_path}")
        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(data_path)
        espeak = EspeakWrapper()
        espeak.set_voice(language)
    except (RuntimeError, OSError) as error:
        raise OutsideError(f"espeak-ng cannot be loaded: {error}") from error
    return espeak


def _readable(text: str, language: str) -> str:
    """The text in characters and words that espeak reads well, with only Kokoro's marks as punctuation."""
    text = "".join(map(_readable_character, unicodedata.normalize("NFC", text)))
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\.{2,}", "…", text)
    text = re.sub(r"(?<=\s)-+(?=\s)|--+", "—", text)
    text = _UNSAFE_HYPHEN.sub(" ", text)
    return _without_abbreviations(text, language.split("-")[0])


@functools.lru_cache(maxsize=4096)
def _readable_character(character: str) -> str:
    # Full-width and mathematical letters, which espeak would read as code points.
    if unicodedata.decomposition(character).startswith(("<wide>", "<font>")):
        character = unicodedata.normalize("NFKC", character)
    if character in _REPLACED:
        return _REPLACED[character]
    if character.isspace() or unicodedata.category(character) == "Cc":
        return " "
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return character if _READ_BY_ESPEAK.fullmatch(character) else ""


def _without_abbreviations(text: str, language: str) -> str:
    """Takes away full stops that end no sentence, and in English writes sums of money as they are read."""
    titles = _TITLES[language]
    before_name = rf"(?<!\w)({'|'.join(titles)})\.(?=\s*[^\W\d_])"
    text = re.sub(before_name, lambda m: titles[m[1]], text)
    if language != "en":
        return text
    text = re.sub(rf"(?<!\w)({'|'.join(_SHORTENED)})\.(?=\s[a-z\d]|[,;:])", lambda m: _SHORTENED[m[1]], text)
    text = _INITIALS.sub(lambda m: m[0][:-1], text)
    text = _NUMBER_SIGN.sub("Number", text)
    return _MONEY.sub(_money_in_words, text)


def _money_in_words(match: re.Match[str]) -> str:
    symbol, whole, decimals, scale = match.groups(default="")
    unit, hundredths = _MONEY_NAMES[symbol]
    if scale or len(decimals) not in (0, len(".00")):
        return f"{whole}{decimals}{scale} {unit}s"
    sums = [f"{whole} {unit}" if whole == "1" else f"{whole} {unit}s"]
    if decimals.strip(".0"):
        sums.append(f"{int(decimals[1:])} {hundredths}")
    return " and ".join(sums if whole != "0" else sums[-1:])


def _clauses(text: str, espeak: Any) -> Iterator[str]:
    """Phonemes and marks in turn. espeak drops and moves punctuation, so it sees only what is between."""
    start = 0
    for part in _CLAUSE_PARTS.finditer(text):
        if part["mark"]:
            yield _clause(text[start : part.start()], espeak)
            yield part["mark"]
            start = part.end()
    yield _clause(text[start:], espeak)


def _clause(text: str, espeak: Any) -> str:
    words = _LONG_INITIALS.sub(lambda m: m[0].replace(".", " "), text).split()
    if not words:
        return text
    spans = (words[i : i + _ESPEAK_WORDS] for i in range(0, len(words), _ESPEAK_WORDS))
    ipa = " ".join(espeak.text_to_phonemes(" ".join(span), tie=True) for span in spans)
    ipa = re.sub(r"\([^()]*\)", "", ipa)  # "(fr)": espeak's mark of a change of language
    before = " " if text[0].isspace() else ""
    after = " " if text[-1].isspace() else ""
    return before + _from_ipa(ipa, espeak.voice.language) + after


def _from_ipa(ipa: str, language: str) -> str:
    mapping = {"en-us": _AMERICAN, "en-gb": _BRITISH}.get(language, _OTHER)
    for old, new in mapping:
        ipa = ipa.replace(old, new)
    if mapping is not _OTHER:
        ipa = re.sub(rf"(\S){_SYLLABIC}", r"ᵊ\1", ipa)
    return ipa.replace(_TIE, "")


def _tidy(phonemes: str) -> str:
    """Single spaces; none before a closing mark or after an opening one, as the training text has it."""
    phonemes = re.sub(r"\s+", " ", phonemes)
    phonemes = re.sub(r" (?=[;:,.!?…)”])", "", phonemes)
    return re.sub(r"(?<=[(“]) ", "", phonemes).strip()


def _has_phoneme(phonemes: str) -> bool:
    return any(c.isalpha() for c in phonemes)


def _balanced_cut(rest: str, limit: int) -> int:
    """Where to end the first piece of `rest`, which is longer than `limit`."""
    pieces = -(-len(rest) // limit)
    target = len(rest) / pieces
    smallest = max(1, int(target / 2))
    largest = min(limit, len(rest) - smallest)
    for ends in (_SENTENCE_END, _CLAUSE_END, _WORD_END):
        cuts = _cuts(ends, rest, smallest, largest)
        if cuts:
            return min(cuts, key=lambda cut: abs(cut - target))
    return max(_cuts(_WORD_END, rest, 1, limit), default=None) or _cut_in_word(rest, round(target))


def _cuts(ends: re.Pattern[str], text: str, smallest: int, largest: int) -> list[int]:
    # One character more is looked at, to see whether the marks go on beyond `largest`.
    found = (match.end() for match in ends.finditer(text, 0, largest + 1))
    return [end for end in found if smallest <= end <= largest]


def _cut_in_word(word: str, cut: int) -> int:
    """The nearest place up to `cut` that parts no phoneme from the stress before or the length after it."""
    for place in range(cut, 0, -1):
        if word[place] not in _LENGTHS_AND_MODIFIERS and word[place - 1] not in _STRESSES:
            return place
    return cut


def _sentences(phonemes: str) -> list[str]:
    """Each with the marks that close it; marks without a phoneme go with a neighbour."""
    sentences = []
    start = seen = 0
    spoken = False
    for end in (match.end() for match in _SENTENCE_END.finditer(phonemes)):
        spoken = spoken or _has_phoneme(phonemes[seen:end])
        seen = end
        if spoken:
            sentences.append(phonemes[start:end])
            start = end
            spoken = False
    tail = phonemes[start:]
    if _has_phoneme(tail) or not sentences:
        sentences.append(tail)
    else:
        sentences[-1] += tail
    return [sentence.strip() for sentence in sentences if sentence.strip()]


def _early_clause(sentence: str) -> list[str]:
    largest = len(sentence) - FIRST_PIECE_SHORT
    cuts = _cuts(_CLAUSE_END, sentence, FIRST_PIECE_SHORT, largest)
    if not cuts:
        return [sentence]
    return [sentence[: cuts[0]], sentence[cuts[0] :].strip()]
