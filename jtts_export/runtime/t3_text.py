"""Text to T3's (Chatterbox's) text tokens, as the authors' tts.py, mtl_tts.py and tokenizer.py do (0.1.7)."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from jtts_export.errors import BadInput

from .frontend import encodable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "[SPACE]"
LANGUAGES = tuple("ar da de el en es fi fr he hi it ja ko ms nl no pl pt ru sv sw tr zh".split())  # noqa: SIM905
CONVERTED = {"ja": "hiragana", "zh": "Cangjie codes"}  # what the checkpoint reads instead of the script
REPLACED = (  # one after the other
    ("...", ", "),
    ("\u2026", ", "),
    (":", ","),
    (" - ", ", "),
    (";", ", "),
    ("\u2014", "-"),
    ("\u2013", "-"),
    (" ,", ","),
    ("\u201c", '"'),
    ("\u201d", '"'),
    ("\u2018", "'"),
    ("\u2019", "'"),
)
ENDS = (".", "!", "?", "-", ",")
MULTILINGUAL_ENDS = (*ENDS, "\u3001", "\uff0c", "\u3002", "\uff1f", "\uff01")


def normalize(text: str, multilingual: bool = False) -> str:
    """Punctuation that the checkpoint knows, a capital at the start, an end. Raises BadInput for an empty text."""
    text = encodable(text)
    if not text.strip():
        raise BadInput("the text is empty")
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    for old, new in REPLACED:
        text = text.replace(old, new)
    text = text.rstrip(" ")
    return text if text.endswith(MULTILINGUAL_ENDS if multilingual else ENDS) else text + "."


def encode(tokenizer: Tokenizer, text: str, language: str | None = None) -> list[int]:
    """Text tokens of a normalized text, without those of start and end.

    language: one of those that the tokenizer has a tag for; None, no tag. Raises BadInput for another one, and for
    those whose script would have to be converted first.
    """
    known = [code for code in LANGUAGES if tokenizer.token_to_id(f"[{code}]") is not None]
    language = language.lower() if language else None
    if len(known) > 1:
        text = _localize(text, language, known)
    elif language not in (None, "en"):
        raise BadInput(f"language '{language}' is not spoken by this release; it speaks en")
    return tokenizer.encode(encodable(text).replace(" ", SPACE), add_special_tokens=False).ids


def _localize(text: str, language: str | None, known: list[str]) -> str:
    """What the multilingual checkpoint reads: decomposed lower case, its language's tag ahead.

    Hebrew and Russian stay without vowel points and stress marks, as with the authors' where the packages that add
    them are not installed.
    """
    if language is not None and language not in known:
        raise BadInput(f"unknown language '{language}'; languages: {', '.join(known)}")
    if language in CONVERTED:
        raise BadInput(f"language '{language}' cannot be spoken: nothing here turns it into {CONVERTED[language]}")
    text = unicodedata.normalize("NFKD", text.lower())  # takes Korean syllables apart into Jamo too
    if language == "ko":
        text = text.strip()
    return f"[{language}]{text}" if language else text
