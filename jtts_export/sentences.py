"""Sentences of a user's own, from a file."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import BadInput

MOST_SENTENCES = 100  # each is spoken by PyTorch and by every variant, several times
MOST_CHARACTERS = 500  # half a minute of speech
MOST_BYTES = 1_000_000
_LINE_END = re.compile(r"\r\n?|\n")  # as editors count; splitlines() knows seven more


def read(path: Path) -> list[str]:
    """One sentence a line, UTF-8; blank lines and those that begin with # are none.

    Raises BadInput, naming the line where it is one's fault: a file that cannot be read, is not such text, has no
    sentence or more than MOST_SENTENCES, or one of more than MOST_CHARACTERS.
    """
    found: list[str] = []
    for number, line in enumerate(_LINE_END.split(_text(path)), 1):
        sentence = line.strip()
        if not sentence or sentence.startswith("#"):
            continue
        if "\0" in sentence:
            raise BadInput(f"{path}, line {number}: it holds a NUL; a text in UTF-8 is wanted")
        if len(sentence) > MOST_CHARACTERS:
            raise BadInput(f"{path}, line {number}: {len(sentence)} characters; at most {MOST_CHARACTERS} are taken")
        if len(found) == MOST_SENTENCES:
            raise BadInput(f"{path}, line {number}: more than {MOST_SENTENCES} sentences")
        found.append(sentence)
    if not found:
        raise BadInput(f"{path} holds no sentence")
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)  # a device may have no end
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise BadInput(f"{path} cannot be read: {reason}") from error
    if len(content) > MOST_BYTES:
        raise BadInput(f"{path} is larger than {MOST_BYTES:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: it is not UTF-8") from error
