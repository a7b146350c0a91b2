"""Two releases side by side."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from report.browser import Browser
from report.junit_schema import parsed
from report.releases import measured, with_audio

from jtts_export import report
from jtts_export.report.changes import changes_of, turns


@pytest.fixture
def slower(whole: dict[str, Any]) -> dict[str, Any]:
    """The same release, int8 twice as slow, a decibel better, smaller by a tenth, and past a gate."""
    made = copy.deepcopy(whole)
    int8 = made["variants"]["int8"]
    int8["metrics"] |= {"rtf_warm_p50": 0.22, "parity_decoder_snr_db": 18.0, "size_mb": 82.08}
    for gate in int8["gates"]:
        if gate["metric"] == "rtf_warm_p50":
            gate |= {"value": 0.22, "outcome": "fail", "passed": False}
        if gate["metric"] == "ttfa_warm_p95_ms":
            gate |= {"outcome": "pass", "passed": True}
    return made


def test_changes_have_a_measure_and_the_gates_direction(whole: dict[str, Any], slower: dict[str, Any]) -> None:
    found = {(c.variant, c.metric): (c.first, c.second, c.change, c.trend) for c in changes_of(whole, slower)}
    assert found["int8", "rtf_warm_p50"] == ("0.11", "0.22", "+100.0%", "worse")
    assert found["int8", "parity_decoder_snr_db"] == ("17 dB", "18 dB", "+1 dB", "better")
    assert found["int8", "size_mb"] == ("91.2 MB", "82.08 MB", "−10.0%", "")  # no gate says which way is better
    assert found["fp32", "rtf_warm_p50"][2:] == ("=", "")
    assert found["fp32", "audio_si_sdr_db"] == ("∞ dB", "∞ dB", "=", "")


def test_gates_that_got_worse_come_first(whole: dict[str, Any], slower: dict[str, Any]) -> None:
    found = turns(whole, slower)
    assert [(t.metric, t.outcomes, t.worse) for t in found] == [
        ("rtf_warm_p50", ("pass", "fail"), True),
        ("ttfa_warm_p95_ms", ("inconclusive", "pass"), False),
    ]
    sentence = "1 gate got worse: int8 rtf_warm_p50 (pass -> fail); 1 gate got better."
    comparison = report.compare(whole, slower)
    assert sentence in comparison.html.replace("&gt;", ">")
    assert comparison.rows[-2:] == [
        ["int8", "rtf_warm_p50", "0.11", "0.22", "pass -> fail", "worse"],
        ["int8", "ttfa_warm_p95_ms", "391 ms", "391 ms", "inconclusive -> pass", "better"],
    ]
    assert all(len(row) == len(comparison.header) for row in comparison.rows)


def test_results_are_the_second_releases(whole: dict[str, Any], slower: dict[str, Any]) -> None:
    root = parsed(report.compare(whole, slower).junit)
    assert (root.attrib["tests"], root.attrib["failures"], root.attrib["errors"]) == ("17", "2", "0")
    messages = [f.attrib["message"] for f in root.iter("failure")]
    assert "measured 0.22; was 0.11, pass" in messages


def test_a_release_beside_itself_has_not_changed(whole: dict[str, Any]) -> None:
    comparison = report.compare(whole, whole)
    assert "No gate changed its outcome." in comparison.html
    assert {row[4] for row in comparison.rows} == {"="}


def test_variants_of_one_release_alone_are_said_to_be(whole: dict[str, Any]) -> None:
    less = copy.deepcopy(whole)
    del less["variants"]["fp16"]
    comparison = report.compare(whole, less, names=("old", "new"))
    assert "fp16 is only in old." in comparison.html
    assert turns(whole, less)[0].outcomes == ("pass", "no gate")


def test_the_page_plays_both_releases_of_a_case(
    whole: dict[str, Any], samples: Path, slower: dict[str, Any], browser: Browser, tmp_path: Path
) -> None:
    second = with_audio({k: v for k, v in slower.items() if k != "samples"}, tmp_path / "samples", cases=2)
    comparison = report.compare(whole, second, samples, tmp_path / "samples", ("v1", "v2"))
    assert len(comparison.html.encode()) <= 1_000_000
    comparison.write(tmp_path / "compare")
    page = tmp_path / "compare" / "index.html"
    browser.open(page, 390, 844)
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.run("document.documentElement.scrollWidth") == 390
    names = browser.run("[...document.querySelectorAll('.case')].map(c => c.querySelectorAll('audio').length)")
    assert names == [7, 7]  # the reference, which is the same file, and three variants of both
    assert "int8, v2" in browser.run("document.querySelector('.switch').textContent")


def test_releases_without_samples_or_of_other_models_compare(whole: dict[str, Any]) -> None:
    other = {**measured(("fp32",)), "model": "speecht5"}
    comparison = report.compare(whole, other)
    assert "<audio" not in comparison.html
    assert "SpeechT5" in comparison.html


def test_sentences_of_one_name_are_paired_by_their_texts_and_their_order(tmp_path: Path) -> None:
    first = with_audio(measured(("fp32",)), tmp_path / "samples", cases=3, seconds=0.5)
    for row, said in zip(first["samples"], ("One.", "Two.", "Two."), strict=True):
        row |= {"case": "sentence", "text": said}
    second = {**first, "samples": [first["samples"][i] for i in (1, 2, 0)]}
    page = report.compare(first, second, tmp_path / "samples", tmp_path / "samples", ("v1", "v2")).html
    assert page.count("<audio ") == 3 * (1 + 2)
    assert "reference of v2" not in page  # each is beside itself
    second["samples"] = [row | {"text": "Three."} for row in first["samples"]]
    assert "<audio" not in report.compare(first, second, tmp_path / "samples", tmp_path / "samples").html


def test_names_that_begin_alike_do_not_become_one(whole: dict[str, Any], slower: dict[str, Any]) -> None:
    comparison = report.compare(
        whole, slower, names=("candidate-of-the-week-2025-01", "candidate-of-the-week-2025-02")
    )
    assert comparison.header[2:4] == ["A", "B"]
    assert comparison.html == report.compare(whole, slower).html
