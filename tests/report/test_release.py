"""The report in the release that the command makes of a tiny checkpoint, and two releases compared by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from command import Built, assert_refused, run
from report.browser import Browser

from jtts_export.compare import labels


def test_a_release_brings_its_page(built: Built, browser: Browser) -> None:
    validation = json.loads((built.release / "validation.json").read_text(encoding="utf-8"))
    page = built.release / "report" / "index.html"
    browser.open(page, 390, 844)
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.run("document.documentElement.scrollWidth") == 390
    shown = browser.run("document.querySelector('.main').textContent")
    assert all(variant in shown for variant in ("fp32", "int8"))
    said = len(validation["samples"]) * (1 + len(validation["variants"]))
    assert browser.run("document.querySelectorAll('audio').length") == said  # of a tiny model, all fit
    gates = sum(len(v["gates"]) for v in validation["variants"].values())
    assert browser.run("document.querySelectorAll('.gates tbody tr').length") == gates


def test_the_command_compares_releases(built: Built, browser: Browser, tmp_path: Path) -> None:
    other = shutil.copytree(built.release, tmp_path / "candidate" / "kokoro")
    done = run(tmp_path, "compare", str(built.release), str(other), "--report", str(tmp_path / "compared"))
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["variant", "metric", "out", "candidate", "change"]
    assert {row[-1] for row in rows[1:]} == {"="}
    page = tmp_path / "compared" / "index.html"
    browser.open(page, 390, 844)
    assert browser.complaints() == []
    assert browser.run("document.querySelectorAll('audio').length") > 0
    printed = run(tmp_path, "compare", str(built.release), str(other), "--json")
    content = json.loads(printed.stdout)
    content = json.loads(printed.stdout)
    assert content["gates"] == []
    assert all(first == second for first, second in (metric["values"] for metric in content["metrics"]))


def test_a_release_that_was_changed_is_not_compared(built: Built, tmp_path: Path) -> None:
    other = shutil.copytree(built.release, tmp_path / "kokoro")
    (other / "validation.json").write_text("{}")
    assert_refused(run(tmp_path, "compare", str(built.release), str(other)), 3, "validation.json")


def test_labels_are_the_parts_of_the_paths_that_differ(tmp_path: Path) -> None:
    assert labels(tmp_path / "old" / "kokoro", tmp_path / "new" / "kokoro") == ("old", "new")
    assert labels(tmp_path / "kokoro", tmp_path / "kokoro.failed") == ("kokoro", "kokoro.failed")
    assert labels(tmp_path, tmp_path) == ("A", "B")
