"""What the page of a release holds, in the words of its HTML."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from report.releases import SAMPLE_RATE_HZ, measured, speech, with_audio

from jtts_export import report
from jtts_export.report import facts, listen
from jtts_export.report import page as page_module
from jtts_export.report.listen import Case
from jtts_export.report.media import BITRATE_KBPS, Clip
from jtts_export.report.page import LIMIT_BYTES, fitted


@pytest.fixture(scope="module")
def page(whole: dict[str, Any], samples: Path) -> str:
    return report.html(whole, samples)


def test_six_cases_of_four_seconds_in_three_variants_fit_into_a_megabyte(page: str) -> None:
    assert page.count("<audio ") == 6 * 4
    assert len(page.encode()) <= LIMIT_BYTES == 1_000_000
    assert "Left out" not in page


def test_cases_that_do_not_fit_are_named_and_the_page_keeps_its_limit(tmp_path: Path) -> None:
    validation = with_audio(measured(("fp32", "int8", "fp16")), tmp_path / "samples", cases=6, seconds=9)
    page = report.html(validation, tmp_path / "samples")
    assert len(page.encode()) <= LIMIT_BYTES
    kept = page.count("<audio ") // 4
    assert 0 < kept < 6
    left_out = page.partition("Left out")[2].partition("</p>")[0]
    assert re.findall(r"sentence-\d", left_out) == [f"sentence-{i}" for i in range(kept, 6)]


def test_the_same_content_is_the_same_bytes(page: str, whole: dict[str, Any], samples: Path) -> None:
    again = copy.deepcopy(whole)
    assert report.html(again, samples) == page
    assert report.markdown(again) == report.markdown(whole)
    assert report.junit(again) == report.junit(whole)


def test_sections_come_in_order_with_the_verdict_first(page: str) -> None:
    order = ["<h1>Failed", 'id="gates"', 'id="listen"', 'id="speed"', 'id="stages"', 'id="streams"', 'id="layers"']
    places = [page.index(part) for part in [*order, 'id="metrics"', 'id="about"']]
    assert places == sorted(places)


def test_gates_that_do_not_hold_come_first(page: str) -> None:
    gates = page.partition('id="gates"')[2].partition('id="listen"')[0]
    outcomes = re.findall(r'<tr><td><span class="mark (\w+)"', gates)
    assert outcomes[:2] == ["fail", "inconclusive"]
    assert set(outcomes[2:]) == {"pass"}
    assert len(outcomes) == 17


@pytest.mark.parametrize("part", ["samples", "timings", "calls", "repeated", "stages", "stream", "layers", "noise"])
def test_a_part_that_is_missing_is_left_out(part: str, page: str, whole: dict[str, Any], samples: Path) -> None:
    bare = copy.deepcopy(whole)
    bare.pop(part, None)
    for variant in bare["variants"].values():
        variant.pop(part, None)
    shown = report.html(bare, samples)
    heading = {
        "samples": "<h2>Listen",
        "timings": "Real-time factor by length",
        "calls": "Memory from call to call",
        "repeated": "One utterance said again and again",
        "stages": "<h2>Where the time goes",
        "stream": "<h2>Chunks",
        "layers": "<h2>Layers that hurt most",
        "noise": "Jitter of the machine",
    }[part]
    assert heading in page
    assert heading not in shown
    assert "<h2>Gates" in shown


def test_a_validation_of_the_oldest_form_is_enough() -> None:
    gate = {"metric": "parity_decoder_snr_db", "op": ">=", "limit": 80.0, "value": "inf", "passed": True}
    variant = {"verdict": "pass", "gates": [gate], "metrics": {"parity_decoder_snr_db": "inf"}, "files": {}}
    old = {
        "tool_version": "0.1.0",
        "model": "kokoro",
        "checkpoint": {"source": "/home/somebody/weights", "revision": None, "sha256": "0" * 64},
        "profile": {"name": "tiny", "threads": 1},
        "machine": {"cpu": "a cpu", "cores": 2},
        "verdict": "pass",
        "variants": {"fp32": variant},
    }
    page = report.html(old, None)
    assert "All 1 gate of 1 variant holds." in page
    assert "∞ dB" in page
    assert "somebody" not in page  # folders of a machine are nobody's business
    assert 'tests="1" failures="0" errors="0"' in report.junit(old)
    assert "All 1 gate" in report.markdown(old)


def test_a_token_model_has_a_page_without_sound() -> None:
    t3 = {**measured(("fp32", "int8")), "model": "t3"}
    for variant in t3["variants"].values():
        variant["metrics"] = {"step_ms": 21.5, "step_rtf": 0.54, "parity_logits_kl": 1e-4, "size_mb": 900.0}
        variant["gates"] = [
            {
                "metric": "parity_logits_kl",
                "op": "<=",
                "limit": 1e-3,
                "value": 1e-4,
                "outcome": "pass",
                "passed": True,
            }
        ]
        variant["verdict"] = "pass"
        variant["calls"].pop("audio_s")
        for part in ("stream", "timings"):
            variant.pop(part)
    page = report.html({**t3, "verdict": "pass"}, None)
    assert "<audio" not in page
    assert "T3 (Chatterbox)" in page
    assert "Seconds on one loaded model" in page
    assert "step RTF" in page


def test_a_variant_that_does_not_run_is_said_to_and_why() -> None:
    validation = measured(("fp32", "int8"))
    row = {"metric": "size_mb", "op": "<=", "limit": 9.0, "value": None, "outcome": "fail", "passed": False}
    validation["variants"]["fp32"] |= {"gates": [row | {"value": 1.0, "outcome": "pass", "passed": True}]}
    validation["variants"]["int8"] = {
        **{"verdict": "fail", "gates": [row], "metrics": {}, "files": {}},
        "error": "Fail: <b>Warp</b> is no operator",
    }
    validation["verdict"] = "fail"
    said = "int8 does not run: Fail: <b>Warp</b> is no operator; 1 of 2 gates fails: int8 size_mb not measured"
    assert facts.why(validation).startswith(said)
    page = report.html(validation, None)
    assert "&lt;b&gt;Warp&lt;/b&gt; is no operator" in page
    assert "<b>Warp" not in page


def test_a_variant_without_gates_is_said_to_have_none() -> None:
    validation = measured(("fp32",))
    validation["variants"]["fp32"] |= {"gates": [], "verdict": "fail"}
    assert facts.why({**validation, "verdict": "fail"}) == "The profile has no gate for fp32."


def test_what_was_not_measured_is_said() -> None:
    validation = measured(("fp32",))
    gate = {"metric": "audio_pesq", "op": ">=", "limit": 3.0, "value": None, "outcome": "fail", "passed": False}
    validation["variants"]["fp32"]["gates"] = [gate]
    assert "audio_pesq not measured (limit ≥ 3)" in report.html(validation, None)


def test_samples_outside_their_folder_are_not_read(tmp_path: Path) -> None:
    validation = with_audio(measured(("fp32",)), tmp_path / "release" / "samples", cases=1, seconds=0.5)
    soundfile.write(tmp_path / "secret.flac", speech(0, 0.5), SAMPLE_RATE_HZ)
    files = validation["samples"][0]["files"]
    for name in ("../secret.flac", "samples/../../secret.flac", str(tmp_path / "secret.flac"), "samples\0"):
        files["fp32"] = name
        assert "<audio" not in report.html(validation, tmp_path / "release" / "samples")


def test_a_sample_that_is_missing_or_damaged_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    validation = with_audio(measured(("fp32", "int8")), folder, cases=1, seconds=0.5)
    (folder / "0-int8.flac").write_bytes(b"no sound")
    assert report.html(validation, folder).count("<audio ") == 2
    (folder / "0-fp32.flac").unlink()
    assert report.html(validation, folder).count("<audio ") == 0


@pytest.mark.parametrize("sample_rate_hz", [8000, 16000, 22050, 24000, 48000])
def test_sound_is_mp3_at_the_stated_rate(sample_rate_hz: int) -> None:
    tone = np.sin(np.arange(4 * sample_rate_hz) * 0.05).astype(np.float32)
    uri = Clip(tone, sample_rate_hz).sound()
    assert uri.startswith("data:audio/mpeg;base64,")
    kbps = len(uri) * 3 / 4 * 8 / 4 / 1e3
    assert kbps == pytest.approx(BITRATE_KBPS, rel=0.1)  # frames of the encoder's delay, and of padding


def test_sound_at_a_rate_that_mp3_lacks_is_vorbis() -> None:
    assert Clip(speech(0, 0.5), 23456).sound().startswith("data:audio/ogg;base64,")


def test_lengths_may_differ(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    validation = with_audio(measured(("int8",)), folder, cases=1, seconds=1)
    soundfile.write(folder / "0-int8.flac", speech(0, 1.3), SAMPLE_RATE_HZ)
    page = report.html(validation, folder)
    assert "1.00 s" in page
    assert "1.30 s" in page


def test_write_leaves_three_files(tmp_path: Path) -> None:
    validation = measured(("fp32",))
    report.write(validation, None, tmp_path / "report")
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == ["index.html", "junit.xml", "report.md"]
    assert (tmp_path / "report" / "index.html").read_text(encoding="utf-8") == report.html(validation, None)


def test_importing_the_report_costs_nothing() -> None:
    heavy = {"numpy", "scipy", "jinja2", "markupsafe", "PIL", "soundfile", "torch", "matplotlib"}
    told = "import sys, jtts_export.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("mark", ["z", '"', "<", "犬"])
def test_the_page_keeps_its_limit_whatever_is_left_out(mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that come late are longer than those ahead of them, and longer yet as HTML."""
    cases = [Case("a" if i < 45 else mark * 60, "", []) for i in range(90)]
    content = {"title": "", "verdict": "", "why": "", "about": [], "main": ([""], []), "gates": [], "rtf": []}
    content |= {"calls": [], "stages": [], "streams": [], "layers": [], "metrics": {"names": [], "rows": []}}
    monkeypatch.setattr(listen, "draw", lambda case: listen.Drawn(case.name, "", []))
    base = len(fitted("release.jinja", {**content, "noise": []}, []).encode())
    for limit in range(base + 15_000, base + 40_000, 500):
        monkeypatch.setattr(page_module, "LIMIT_BYTES", limit)
        assert len(fitted("release.jinja", {**content, "noise": []}, cases).encode()) <= limit
