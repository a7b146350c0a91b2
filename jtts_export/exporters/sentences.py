"""What the models' utterances have in common: their lengths, their names, and how a user's texts become some."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jtts_export.errors import BadInput
from jtts_export.runtime.frontend import encodable, split_phonemes
from jtts_export.validate.runner import Case

LENGTHS = ("short", "medium", "long")  # of "timed" utterances, in this order
CALLS = 61  # of a "sequence": the first pays for what later ones find, slopes are those of sixty
EQUAL_CALLS = slice(1, None, 6)  # of these: the same utterance, so that only their place differs
_STRIDES = (0.6180339887498949, 0.41421356237309515)  # of the golden ratio and the square root of 2, what is behind 1
SHOWN = 24  # characters of a text in a case's name
_SPECIAL = re.compile(r"<.+>|\[.+\]")  # tokens that stand for no character

Inputs = Mapping[str, np.ndarray]
Said = Callable[[str, str], Sequence[tuple[str, Inputs]]]


def within(sizes: Sequence[int], most: int) -> list[int]:
    """Sizes, all made smaller by one factor where the largest is beyond `most`, so that they still differ."""
    largest = max(sizes)
    return [max(1, size * min(most, largest) // largest) for size in sizes]


def sequence(*ranges: tuple[int, int]) -> list[list[int]]:
    """Sizes of a "sequence": for each range, ends included, one of each of CALLS utterances.

    The first has the largest, so that what grows after it is none of its buffers; EQUAL_CALLS have the middle ones.
    The others are multiples of an irrational number, modulo 1: spread evenly over the range (Weyl 1916), at no time
    longer than at another.
    """
    low, high = np.transpose(ranges)
    places = np.outer(np.arange(CALLS), _STRIDES[: len(ranges)]) % 1
    sizes = low + (places * (high - low + 1)).astype(int)
    sizes[0] = high
    sizes[EQUAL_CALLS] = (low + high) // 2
    return sizes.T.tolist()


def beginning(text: str) -> str:
    """What a name shows of a text: one line of characters that can be printed, and no markup of a table."""
    looked_at = text[: 8 * SHOWN]
    line = " ".join("".join(c if c.isprintable() and c != "|" else " " for c in looked_at).split())
    return line if len(line) <= SHOWN and looked_at == text else line[:SHOWN].rstrip() + "…"


def says(tokens: Iterable[str | None]) -> bool:
    """Whether any token stands for a letter or a digit."""
    return any(c.isalnum() for token in tokens if token and not _SPECIAL.fullmatch(token) for c in token)


def pieces(text: str, count: Callable[[str], int], most: int) -> list[str]:
    """A text whole where it has at most `most` tokens, else cut as split_phonemes() cuts. count: tokens of a text.
    Raises BadInput where a character has more."""

    def cut(part: str, limit: int) -> list[str]:
        if count(part) <= most:
            return [part]
        if limit < 1:
            raise BadInput(f"this checkpoint takes no more than {most} tokens")
        return [piece for longer in split_phonemes(part, limit) for piece in cut(longer, limit // 2)]

    return cut(text, max(1, most - 2))  # often a character is a token, with one ahead or behind all


def spoken(voices: Iterable[str], texts: Sequence[str], said: Said) -> list[Case]:
    """Utterances of texts, by voices taken by turns; of a long text several.

    said(text, voice): the inputs of each piece, and its length in words. Raises BadInput naming the text of which
    nothing can be said.
    """
    names, made = sorted(voices), []
    for i, text in enumerate(texts):
        number, shown, voice = i + 1, beginning(text), names[i % len(names)]
        try:
            parts = said(encodable(text), voice)
        except BadInput as error:
            raise BadInput(f"sentence {number}, '{shown}': {error}") from error
        if not parts:
            raise BadInput(f"sentence {number}, '{shown}': it holds nothing that this checkpoint can say")
        for part, (length, inputs) in enumerate(parts, 1):
            place = f"{number}.{part}" if len(parts) > 1 else f"{number}"
            made.append(Case(f"{place}. {shown}, {length}, {voice}", inputs, text))
    return made
