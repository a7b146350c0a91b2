"""What was measured: in a release, listed, reported of sentences of one's own, and beside another release's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import soundfile
from command import REPORT, Built, assert_refused, brief, call, contents, run, stages
from t3_command import again

from jtts_export.exporters.kokoro_sentences import VALIDATION
from jtts_export.profiles.schema import built_in

USAGE, GATE = 2, 3


def read(release: Path, name: str) -> dict[str, Any]:
    return json.loads((release / name).read_text(encoding="utf-8"))


# --- what a release brings --------------------------------------------------------------------------------------


def test_a_release_brings_its_report(built: Built) -> None:
    validation, listed = read(built.release, "validation.json"), read(built.release, "manifest.json")["files"]
    assert set(listed) >= REPORT
    results = ElementTree.fromstring((built.release / "report/junit.xml").read_text(encoding="utf-8"))  # noqa: S314
    gates = sum(len(variant["gates"]) for variant in validation["variants"].values())
    assert len(list(results.iter("testcase"))) == gates
    assert not list(results.iter("failure"))
    summary = (built.release / "report/report.md").read_text(encoding="utf-8")
    assert all(variant in summary for variant in validation["variants"])
    assert "<html" in (built.release / "report/index.html").read_text(encoding="utf-8")


def test_a_release_brings_what_everyone_said(built: Built) -> None:
    validation, listed = read(built.release, "validation.json"), read(built.release, "manifest.json")["files"]
    rows = validation["variants"]["fp32"]["rows"]
    assert [sample["case"] for sample in validation["samples"]] == [row["case"] for row in rows]
    texts = [sample["text"] for sample in validation["samples"]]
    assert [text for text in texts if text] == [said.text for said in VALIDATION]
    assert len(texts) > len(VALIDATION)  # no text has every token
    for sample in validation["samples"]:
        assert set(sample["files"]) == {"reference", "fp32", "fp16", "int8"}
        for name in sample["files"].values():
            assert f"report/{name}" in listed
            assert soundfile.info(built.release / "report" / name).samplerate == sample["sample_rate_hz"] == 24_000


def test_inspect_lists_layers_by_the_error_that_they_add(built: Built, tmp_path: Path) -> None:
    done = call(tmp_path, "inspect", built.release, "--layers")
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split()[:3] == ["layer", "variant", "scheme"]
    rows = [line.rsplit(None, 6) for line in lines]  # a layer's name may hold spaces
    variants = read(built.release, "validation.json")["variants"]
    assert len(rows) == sum(len(variant.get("layers", [])) for variant in variants.values()) > 0
    for name in ("int8", "fp16"):
        errors_db = [float(row[3]) for row in rows if row[1] == name]
        assert errors_db == sorted(errors_db)
        assert {row[0] for row in rows if row[1] == name} == {row["layer"] for row in variants[name]["layers"]}
    assert not [row for row in rows if row[1] == "fp32"]  # what the others are measured by
    whole = json.loads(call(tmp_path, "inspect", built.release, "--layers", "--json").stdout)
    assert whole["validation"]["variants"] == variants


# --- compare ----------------------------------------------------------------------------------------------------


def test_two_builds_are_compared(built: Built, alone: Built, tmp_path: Path) -> None:
    """Of the same checkpoint: of fp32, what is not of time has not changed."""
    before = contents(built.release), contents(alone.release)
    done = call(tmp_path, "compare", built.release, alone.release, "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["verdicts"] == ["pass", "pass"]
    values = {row["metric"]: row["values"] for row in content["metrics"] if row["variant"] == "fp32"}
    for metric in ("parity_decoder_snr_db", "audio_mrstft", "size_mb", "durations_equal_ratio"):
        first, second = values[metric]
        assert first == second == read(built.release, "validation.json")["variants"]["fp32"]["metrics"][metric]
    text = call(tmp_path, "compare", built.release, alone.release, "--report", tmp_path / "compared")
    assert text.returncode == 0, text.stderr
    assert text.stdout.split()[:2] == ["variant", "metric"]
    assert set(contents(tmp_path / "compared")) == {"index.html", "report.md", "junit.xml"}
    assert (contents(built.release), contents(alone.release)) == before


def test_releases_of_different_models_are_not_compared(built: Built, t3_built: Built, tmp_path: Path) -> None:
    done = call(tmp_path, "compare", built.release, t3_built.release, "--report", tmp_path / "compared")
    assert_refused(done, USAGE, "kokoro", "t3", str(t3_built.release))
    assert not (tmp_path / "compared").exists()


def test_a_comparison_that_cannot_be_written_is_one_line(built: Built, alone: Built, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = call(tmp_path, "compare", built.release, alone.release, "--report", tmp_path / "file")
    assert_refused(done, 4, "cannot write to", str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


# --- sentences of one's own, and a report of them ---------------------------------------------------------------

SENTENCES = "# mine\nHello there.\n\nGood bye, then.\n"


def test_a_release_is_validated_on_sentences_of_ones_own(alone: Built, tmp_path: Path) -> None:
    """Into a report; the release stays as it is."""
    before = contents(alone.release)
    (tmp_path / "mine.txt").write_text(SENTENCES)
    given = ["--sentences", "mine.txt", "--report", "seen", "--json"]
    done = run(tmp_path, "validate", str(alone.release), *given)
    assert done.returncode == 0, (done.stdout, done.stderr)
    validation = json.loads(done.stdout)
    assert [sample["text"] for sample in validation["samples"]] == ["Hello there.", "Good bye, then."]
    assert len(validation["variants"]["fp32"]["rows"]) == 2
    files = {name for name in contents(tmp_path / "seen") if not name.endswith("/")}
    said = {f"samples/{number}-{who}.flac" for number in range(2) for who in ("reference", "fp32")}
    assert files == {name.removeprefix("report/") for name in REPORT} | said
    assert "Good bye, then." in (tmp_path / "seen/index.html").read_text(encoding="utf-8")
    assert contents(alone.release) == before


def test_a_build_is_validated_on_sentences_of_ones_own(t3_warm: Built, tmp_path: Path) -> None:
    """Other sentences are another validation, and nothing else is new."""
    (tmp_path / "mine.txt").write_text(SENTENCES)
    done = run(tmp_path, *again(t3_warm, tmp_path / "out", "--sentences", "mine.txt"))
    assert done.returncode == 0, (done.stdout, done.stderr)
    rows = read(tmp_path / "out/t3", "validation.json")["variants"]["fp32"]["rows"]
    assert [row["case"].split(",")[0] for row in rows] == ["1. Hello there.", "2. Good bye"]
    assert stages(done.stderr) == {
        **dict.fromkeys(("export", "spread", "optimize"), "cached"),
        **dict.fromkeys(("validate", "report"), "done"),
    }


def test_a_report_that_cannot_be_written_is_refused_in_one_line(t3_built: Built, tmp_path: Path) -> None:
    """And before the work rather than after it."""
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        done = call(tmp_path, "validate", t3_built.release, "--report", folder, *brief(tmp_path))
        assert_refused(done, 4, "cannot write to", str(folder))
        assert "validate" not in stages(done.stderr)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["build", "validate"])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, ["cannot be read"]),
        (b"", ["holds no sentence"]),
        (b"# nothing\n\n", ["holds no sentence"]),
        (b"Good.\nB\xffd.\n", ["line 2", "not UTF-8"]),
        (b"Good.\n" + b"a" * 501, ["line 2", "501 characters"]),
    ],
)
def test_bad_sentences_are_refused_in_one_line(
    t3_built: Built, tmp_path: Path, command: str, content: bytes | None, named: list[str]
) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    given = ["validate", str(t3_built.release)] if command == "validate" else again(t3_built, tmp_path / "out")
    assert_refused(call(tmp_path, *given, "--sentences", path), USAGE, str(path), *named)
    assert not (tmp_path / "out").exists()


def test_a_sentence_that_cannot_be_said_is_named(t3_warm: Built, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Hello.\n犬犬\n", encoding="utf-8")
    done = call(tmp_path, *again(t3_warm, tmp_path / "out", "--sentences", "mine.txt"))
    assert_refused(done, USAGE, "sentence 2", "犬犬")
    assert list((tmp_path / "out").iterdir()) == []


# --- profiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(built_in()))
def test_every_built_in_profile_can_be_shown(tmp_path: Path, name: str) -> None:
    text = call(tmp_path, "profiles", "show", name)
    shown = json.loads(call(tmp_path, "profiles", "show", name, "--json").stdout)
    assert text.returncode == 0
    assert text.stdout.startswith(f"{name}: ")
    assert name in json.loads(call(tmp_path, "profiles", "--json").stdout)
    for variants in shown["gates"].values():
        for limits in variants.values():
            for metric, limit in limits.items():
                assert metric in text.stdout
                assert limit in text.stdout


def test_a_variant_that_a_profile_does_not_have_is_refused(t3_built: Built, tmp_path: Path) -> None:
    profile = tmp_path / "few.toml"
    profile.write_text(t3_built.profile.read_text().replace("threads = 1", 'threads = 1\nvariants = ["int8"]'))
    done = call(tmp_path, *again(t3_built, tmp_path / "out", "--int4", "--profile", str(profile)))
    assert_refused(done, USAGE, "profile tiny", "'int4'", "variants: int8")
    assert not (tmp_path / "out").exists()


def test_a_scheme_that_a_profile_does_not_allow_is_refused_whatever_the_cache_holds(
    t3_warm: Built, tmp_path: Path
) -> None:
    """The variant was made for a profile that allows it."""
    profile = tmp_path / "strict.toml"
    profile.write_text(t3_warm.profile.read_text().replace("threads = 1", 'threads = 1\nschemes = ["stored-fp16"]'))
    done = call(tmp_path, *again(t3_warm, tmp_path / "out", "--int8", "--profile", str(profile)))
    assert_refused(done, USAGE, "profile tiny", "int8", "schemes: stored-fp16")
    assert list((tmp_path / "out").iterdir()) == []
    done = run(tmp_path, *again(t3_warm, tmp_path / "out", "--fp16", "--profile", str(profile)))
    assert done.returncode == 0, done.stderr
    assert stages(done.stderr)["quantize-fp16"] == "done"
