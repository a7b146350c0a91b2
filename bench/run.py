"""Regenerate docs/benchmarks.md: `make bench`, on an otherwise idle machine.

Every ratio comes from contenders that take turns within one run; figures are medians. Each section is written when
it is done, and says what it was measured on; `--only NAME ...` replaces those and leaves the others.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench import audio, coreml, kokoro, speecht5, t3
from bench.common import ROOT, say, table, timed
from jtts_export.artifact import machine
from jtts_export.store import tool_versions

REPORT = ROOT / "docs/benchmarks.md"
HEADER = "# Benchmarks\n\nWritten by `make bench`; not by hand.\n"
SECTION = re.compile(r"<!-- ([\w-]+) -->\n(.*?)(?=<!-- |\Z)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", choices=list(SECTIONS), default=list(SECTIONS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            say(f"== {name}")
            lines = SECTIONS[name](Path(folder), options.rounds)
            write(name, "\n".join([*lines, "", measured_on(), ""]))
    print(REPORT.read_text(encoding="utf-8"))


def write(name: str, text: str) -> None:
    """Put a section in its place in the report."""
    found = dict(SECTION.findall(REPORT.read_text(encoding="utf-8"))) if REPORT.exists() else {}
    found[name] = text
    parts = [f"<!-- {section} -->\n{found[section].strip()}\n" for section in SECTIONS if section in found]
    REPORT.write_text("\n".join([HEADER, *parts]), encoding="utf-8")


def measured_on() -> str:
    m, day = machine(), datetime.now(UTC).date()
    versions = ", ".join(f"{k} {v}" for k, v in tool_versions().items())
    return f"Measured {day}: {m['cpu']}, {m['cores']} cores, {m['system']}, Python {m['python']}; {versions}."


def command(folder: Path, _: int) -> list[str]:
    """The whole command, as a user runs it: time, memory, and what an unchanged rerun and --help cost."""
    run = [str(Path(sys.executable).parent / "jtts-export")]
    rows = []
    for model in ("kokoro", "speecht5", "t3"):
        arguments = [model, "--int8", "--checkpoint", "random:0"]
        build = [*run, *arguments, "--out", str(folder / "out"), "--cache", str(folder / "cache")]
        first, peak = timed(build)
        again = statistics.median(timed(build)[0] for _ in range(3))
        rows.append([f"`jtts-export {' '.join(arguments)}`, nothing cached", f"{first:.0f}", f"{peak:.0f}"])
        rows.append(["the same again, nothing changed (median of 3)", f"{again:.2f}", ""])
    help_s = statistics.median(timed([*run, "--help"])[0] for _ in range(9))
    rows.append(["`jtts-export --help` (median of 9)", f"{help_s:.2f}", ""])
    return ["## The whole command", "", *table(["what", "seconds", "peak MB"], rows)]


SECTIONS = {
    **t3.SECTIONS,
    **speecht5.SECTIONS,
    **kokoro.SECTIONS,
    "audio": audio.section,
    "coreml": coreml.section,
    "command": command,
}

if __name__ == "__main__":
    main()
