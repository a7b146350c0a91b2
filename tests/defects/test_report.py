"""What the command writes, and the neighbours that it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.defects import alarms, report
from bench.defects.catalogue import DEFECTS
from bench.defects.trial import Good, Trial, attempt


def test_the_report_names_the_gate_and_both_values(goods: Callable[[str], Good], tmp_path: Path) -> None:
    good = goods("t3")
    caught, missed = (
        next(d for d in DEFECTS["t3"] if d.name == name)
        for name in ("sign of one weight, conditioning", "token's embedding")
    )
    trial = attempt(good, caught)
    lines = report.of_model(good, "random:0", [trial, Trial(missed, metrics=dict(good.metrics["fp32"]))])
    assert "**1 of 2 caught.** Without a defect all gates pass." in lines
    (row,) = (line for line in lines if line.startswith(f"| {caught.name} "))
    first = trial.failing[0]
    fine = good.metrics["fp32"][first["metric"]]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[3].startswith(f"`{first['metric']}`")
    assert cells[4:] == [f"{first['value']:.4g}", f"{fine:.4g}", f"{first['op']} {first['limit']:g}", "yes"]
    assert f"- {missed.name} (fp32): none" in lines

    path = tmp_path / "defects.md"
    report.write(path, "t3", lines)
    report.write(path, "kokoro", ["## other"])
    report.write(path, "t3", ["## again"])
    text = path.read_text(encoding="utf-8")
    assert text.index("## other") < text.index("## again")
    assert "**1 of 2 caught.**" not in text
    assert text.count("Measured ") == 2


def test_rows_of_defects_that_are_planted_again_replace_theirs(goods: Callable[[str], Good], tmp_path: Path) -> None:
    good, path = goods("t3"), tmp_path / "defects.md"
    names = ("sign of one weight, conditioning", "token's embedding")
    first, second = (next(d for d in DEFECTS["t3"] if d.name == name and d.variant == "fp32") for name in names)
    caught, missed = attempt(good, first), Trial(second, metrics=dict(good.metrics["fp32"]))
    again = report.of_model(good, "random:0", [attempt(good, second)])
    report.write(path, "t3", report.of_model(good, "random:0", [caught, missed], ["4 bits: none here"]))
    lines = report.replanted(path, "t3", again)
    assert "**2 of 2 caught.** Without a defect all gates pass." in lines
    rows = [line for line in report.of_model(good, "random:0", [caught]) if line.startswith(f"| {first.name} ")]
    rows += [line for line in again if line.startswith(f"| {second.name} ")]
    assert lines[-2:] == rows
    assert "What no gate caught" not in "\n".join(lines)
    assert "Left out: 4 bits: none here." in lines
    report.write(path, "t3", report.of_model(good, "random:0", [caught]))
    with pytest.raises(LookupError, match="token's embedding"):
        report.replanted(path, "t3", again)


def test_verdicts_are_counted() -> None:
    lines = report.of_alarms(["kokoro"], False, True, ["pass", "inconclusive", "pass"])
    assert "| pass | 2 |" in lines
    assert "| inconclusive | 1 |" in lines
    assert "| fail | 0 |" in lines


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_neighbours_compute_until_they_are_no_longer_wanted() -> None:
    with alarms.neighbours():
        mine = _children()
        assert len(mine) == os.cpu_count()
    assert not mine & _children()


def _children() -> set[int]:
    """Processes of this one that spin."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                command = (folder / "cmdline").read_bytes()
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == os.getpid() and alarms.SPIN.encode() in command:
                found.add(int(folder.name))
    return found
