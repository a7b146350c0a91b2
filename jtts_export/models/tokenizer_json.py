"""tokenizer.json files that others wrote. No torch here."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from jtts_export.errors import CheckpointError, first_line


def read_tokenizer_json(path: Path, name: str) -> Tokenizer:
    """Raises CheckpointError naming the file, `name`."""
    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # of damaged tables the tokenizers library makes a panic, no Exception
        raise CheckpointError(f"{name} cannot be read: {first_line(error)}") from error


def check_ids(made: Tokenizer, name: str, size: int, what: str) -> None:
    """Raises CheckpointError where a token's id is not below `size`, which is that of `what`."""
    token, index = max(made.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if index >= size:
        raise CheckpointError(f"{name}: '{token}' has id {index}, but {what} is {size}")
