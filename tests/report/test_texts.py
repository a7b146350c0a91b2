"""report.md as a Markdown parser reads it, junit.xml as an XML parser does."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from markdown_it import MarkdownIt
from report.hostile import NAMES, hostile
from report.junit_schema import parsed
from report.releases import measured

from jtts_export import report
from jtts_export.report import facts

TAGS = {"h2", "h3", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}


def rendered(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def test_junit_counts_a_gate_as_a_case_and_doubt_as_an_error(whole: dict[str, Any]) -> None:
    root = parsed(report.junit(whole))
    assert [s.attrib["name"] for s in root] == ["fp32", "int8", "fp16"]
    assert (root.attrib["tests"], root.attrib["failures"], root.attrib["errors"]) == ("17", "1", "1")
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.attrib["message"] == "measured 17 dB; limit ≥ 20 dB"
    error = root.find(".//error")
    assert error is not None
    assert error.attrib == {
        "type": "inconclusive",
        "message": "measured 391 ms, interval 367.5 to 418.4 ms; limit ≤ 400 ms",
    }


def test_junit_of_a_variant_without_gates_fails() -> None:
    validation = measured(("fp32",))
    validation["variants"]["fp32"]["gates"] = []
    root = parsed(report.junit(validation))
    assert root.attrib["failures"] == "1"


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_hostile_names_leave_junit_whole(name: str) -> None:
    text = report.junit(hostile(measured(("fp32", "int8")), name))
    root = parsed(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", text)
    assert max(len(case.attrib["name"]) for case in root.iter("testcase")) < 200


@pytest.mark.parametrize("code", [0xAD, 0x61C, 0x200B, 0x200E, 0x202E, 0x2060, 0x2066, 0xFEFF, 0xDCFF])
def test_what_cannot_be_seen_is_shown_to_be_there(code: int) -> None:
    assert facts.text(f"ab{chr(code)}cd") == "ab\ufffdcd"


@pytest.mark.parametrize("said", ["👨\u200d👩\u200d👧", "می\u200cخواهم", "مرحبا"])
def test_joiners_stay(said: str) -> None:
    assert facts.text(said) == said


def test_markdown_names_the_gates_that_do_not_hold_first(whole: dict[str, Any]) -> None:
    html = rendered(report.markdown(whole))
    assert html.startswith("<h2>❌ Kokoro-82M")
    tables = html.split("<table>")[1:]
    assert len(tables) == 3  # verdicts, gates that do not hold, main figures
    outcomes = re.findall(r">(fail|inconclusive|pass)</td>\n</tr>", tables[1])
    assert outcomes == ["fail", "inconclusive"]
    assert "parity_decoder_snr_db" in tables[1]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_hostile_names_leave_markdown_whole(name: str) -> None:
    plain = measured(("fp32", "int8"))
    bad = hostile(plain, name)
    comparison = report.compare(bad, bad, names=(name, name))
    for text in (report.markdown(bad), comparison.markdown):
        html = rendered(text)
        assert set(re.findall(r"<(\w+)", html)) <= TAGS
        for table in html.split("<table>")[1:]:
            widths = {len(re.findall("<t[hd][ >]", row)) for row in table.partition("</table>")[0].split("<tr>")[1:]}
            assert len(widths) == 1
        cells = [unescape(cell) for cell in re.findall(r"<td[^>]*>([^<]*)</td>", html)]
        assert any(cell.startswith(facts.text(name)[:30]) for cell in cells)  # whole, within one cell, as it is
