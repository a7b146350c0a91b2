"""What is printed of a release, and its model card as a Markdown parser reads it."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from markdown_it import MarkdownIt
from report.releases import measured

from jtts_export import card
from jtts_export.models import MODELS

MADE = {"ladder": {"steps": [{"gate": "g >= 20", "promoted": {"w": "stored-fp16"}, "error_share": {"w": 0.75}}]}}


def of(source: str) -> dict[str, Any]:
    validation = measured(("fp32", "int8"))
    return {**validation, "checkpoint": {**validation["checkpoint"], "source": source, "revision": None}}


def origin(source: str) -> str:
    """What the card says that a release was made from, as it is read."""
    html = MarkdownIt("commonmark", {"html": True}).render(card.render(of(source), MODELS["kokoro"]))
    (paragraph,) = re.findall(r"<p>Made by jtts-export \S+ from (.*?) \(sha256", html)
    (code,) = re.fullmatch(r"<code>([^<]*)</code>", paragraph).groups()  # type: ignore[union-attr]
    return unescape(code)


@pytest.mark.parametrize("source", ["hub:hexgrad/Kokoro-82M", "hub:a/b_c_d@v1.0", "random:0"])
def test_the_card_says_where_a_checkpoint_is_from(source: str) -> None:
    assert origin(source) == source


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Kokoro-82M", "Kokoro-82M"),
        ("a`b`c", "a'b'c"),
        ("*bold* _it_ <b> [x](y) ![z] &amp; $e$", "*bold* _it_ <b> [x](y) ![z] &amp; $e$"),
        ("two\n\n# lines", "two # lines"),
        ("right\u202eot\u200btfel", "right\ufffdot\ufffdtfel"),
    ],
)
def test_the_card_shows_the_name_of_a_folder_as_it_is_and_no_other_folder(name: str, shown: str) -> None:
    assert origin(f"/home/somebody/{name}") == shown


@pytest.mark.parametrize(("measured_", "shown"), [("-inf", "-inf"), ("inf", "inf"), (12.3456, "12.3"), (-4, "-4")])
def test_a_promotion_is_told_whatever_was_measured(measured_: object, shown: str) -> None:
    (step,) = MADE["ladder"]["steps"]
    (line,) = card.ladder_lines("int8", {"ladder": {"steps": [{**step, "measured": measured_}]}})
    assert line == f"int8: g >= 20 was {shown}: promoted w to stored-fp16 (75% of the error)"


def test_weights_are_counted_by_scheme_the_most_frequent_first() -> None:
    schemes = {"a": "stored-fp16", "b": "static-conv", "c": "static-conv", "d": "float32", "e": "static-conv"}
    lines = card.scheme_lines("int8", {"schemes": {**schemes, "f": "stored-fp16"}})
    assert lines == ["int8: 3 static-conv, 2 stored-fp16, 1 float32"]
    assert card.scheme_lines("fp32", {"files": []}) == []
