"""The report of what the command makes of a tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from command import PROFILE, run
from report.browser import Browser

from jtts_export import report


def test_a_real_validation_has_a_quiet_page(kokoro_folder: Path, browser: Browser, tmp_path: Path) -> None:
    profile = tmp_path / "tiny.toml"
    profile.write_text(PROFILE)
    where = ["--checkpoint", str(kokoro_folder), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    done = run(tmp_path, "kokoro", "--profile", str(profile), *where, "--int8")
    # A busy machine may leave gates of time undecided; the report is of whatever was measured.
    folders = [p for p in (tmp_path / "out").iterdir() if p.name.startswith("kokoro")]
    assert len(folders) == 1, (done.stdout, done.stderr)
    validation = json.loads((folders[0] / "validation.json").read_text(encoding="utf-8"))
    report.write(validation, folders[0] / "samples", tmp_path / "report")
    page = tmp_path / "report" / "index.html"
    browser.open(page, 390, 844)
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    assert browser.run("document.documentElement.scrollWidth") == 390
    shown = browser.run("document.querySelector('.main').textContent")
    assert all(variant in shown for variant in ("fp32", "int8"))
    gates = sum(len(v["gates"]) for v in validation["variants"].values())
    assert browser.run("document.querySelectorAll('.gates tbody tr').length") == gates
