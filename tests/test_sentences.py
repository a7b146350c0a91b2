"""Reading sentences of a user's own from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from jtts_export.errors import BadInput
from jtts_export.sentences import MOST_BYTES, MOST_CHARACTERS, MOST_SENTENCES, read


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "sentences.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_each_line_is_a_sentence_but_blank_ones_and_comments(tmp_path: Path) -> None:
    path = written(tmp_path, "# mine\n\nHello there.\n  How # are you?  \r\n\t\n   # none\nGood\u2028bye.\rNow.")
    assert read(path) == ["Hello there.", "How # are you?", "Good\u2028bye.", "Now."]


def test_a_byte_order_mark_is_no_part_of_the_first_sentence(tmp_path: Path) -> None:
    assert read(written(tmp_path, "\ufeff# mine\nHello.".encode())) == ["Hello."]


def test_every_script_is_read(tmp_path: Path) -> None:
    lines = ["😀 says hello", "مرحبا بالعالم", "\u202eolleh", "नमस्ते"]
    assert read(written(tmp_path, "\n".join(lines))) == lines


def test_as_many_and_as_long_as_is_said(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, "# not counted\n" + "One.\n" * MOST_SENTENCES))) == MOST_SENTENCES
    assert read(written(tmp_path, " " + "a" * MOST_CHARACTERS + "\n")) == ["a" * MOST_CHARACTERS]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no sentence"),
        ("# only\n\n   \n#comments", "holds no sentence"),
        ("fine\n\n" + "a" * 10_000, f"line 3: 10000 characters; at most {MOST_CHARACTERS} are taken"),
        ("One.\n" * (MOST_SENTENCES + 1), f"line {MOST_SENTENCES + 1}: more than {MOST_SENTENCES} sentences"),
        ("fine\r\nnot\0fine", "line 2: it holds a NUL"),
        ("Hello.".encode("utf-16-le"), "line 1: it holds a NUL"),
        (b"fine\ncaf\xe9", "line 2: it is not UTF-8"),
        (b"#" * (MOST_BYTES + 1), "is larger than 1,000,000 bytes"),
    ],
    ids=["empty", "comments", "long", "many", "NUL", "UTF-16", "Latin-1", "large"],
)
def test_what_is_no_list_of_sentences_is_refused_in_one_line(
    tmp_path: Path, content: bytes | str, words: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(BadInput) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.txt", "No such file"), ("", "Is a directory"), ("a\0b", "null byte"), ("a" * 300, "too long")],
    ids=["missing", "folder", "NUL", "long name"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


def test_a_device_without_an_end_is_refused() -> None:
    with pytest.raises(BadInput, match="larger"):
        read(Path("/dev/zero"))
