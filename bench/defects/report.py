"""docs/defects.md: a section for each model, and one for false alarms. Each says what it was made on."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.common import table
from bench.run import measured_on
from jtts_export.validate.gates import FAIL, INCONCLUSIVE, PASS

from .trial import Good, Trial, moved

HEADER = """# Planted defects

Written by `python -m bench.defects`; not by hand.

Every defect is planted in a copy of a good artifact: in the bytes of its files or, where it is one of the runtime, in
what runs them. The copy is judged by the profile's gates as the good one is, times being the good one's. A defect
counts as caught where a gate does not pass, where the graph cannot be loaded or run, or where `verify` refuses the
release. Of several gates the table names the one whose value lies farthest beyond its limit, measured by how far
within it the good artifact's lies; *and n* more did not pass either.
"""
SECTION = re.compile(r"<!-- ([\w-]+) -->\n(.*?)(?=<!-- |\Z)", re.DOTALL)
COUNT = re.compile(r"\*\*\d+ of \d+ caught\.\*\*")
ALARMS = "false-alarms", "false-alarms-busy", "false-alarms-small", "false-alarms-small-busy"
ORDER = "kokoro", "kokoro-demo", "speecht5", "t3", *ALARMS
COLUMNS = "defect", "variant", "what", "caught by", "value", "good", "limit", "caught"
MOVED = 3


def write(path: Path, section: str, lines: Sequence[str]) -> None:
    """Put a section in its place in the report."""
    found = _sections(path)
    found[section] = "\n".join([*lines, "", measured_on(), ""])
    parts = [f"<!-- {name} -->\n{found[name].strip()}\n" for name in ORDER if name in found]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([HEADER, *parts]), encoding="utf-8")


def of_model(good: Good, checkpoint: str, trials: Sequence[Trial], left_out: Sequence[str] = ()) -> list[str]:
    """The section of a model's defects; left_out: those that there is nowhere to plant, and why."""
    subject = good.subject
    caught = sum(trial.is_caught for trial in trials)
    lines = [
        f"## {subject.name}, {checkpoint}, profile {subject.profile.name}",
        "",
        f"**{caught} of {len(trials)} caught.** {_state(good)}",
        "",
        *(line for reason in left_out for line in (f"Left out: {reason}.", "")),
        *table(COLUMNS, [_row(good, trial) for trial in trials]),
    ]
    missed = [trial for trial in trials if not trial.is_caught]
    if missed:
        lines += ["", "What no gate caught, and the metrics that it moved most:", ""]
        lines += [f"- {t.defect.name} ({t.defect.variant}): {_moved(good, t)}" for t in missed]
    return lines


def replanted(path: Path, section: str, lines: Sequence[str]) -> list[str]:
    """The section as it is in a report, but for the rows that of_model() made of some of its defects. Raises
    LookupError where it has none of such a defect."""
    found = _sections(path)[section].splitlines()
    rows = {_named(line): line for line in lines if _named(line)}
    if missing := rows.keys() - set(map(_named, found)):
        raise LookupError(f"{path} has no row of {missing}")
    kept = [rows.get(_named(line), line) for line in found if not line.startswith("Measured ")]
    all_rows = [line for line in kept if _named(line)][2:]  # behind the header and the line below it
    caught = sum(line.endswith("| yes |") for line in all_rows)
    counted = [COUNT.sub(f"**{caught} of {len(all_rows)} caught.**", line) for line in kept]
    end = counted.index(all_rows[-1]) + 1 if caught == len(all_rows) else len(counted)
    return counted[:end]


def _sections(path: Path) -> dict[str, str]:
    """Of a report, by name; none where there is no report yet."""
    return dict(SECTION.findall(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _named(line: str) -> tuple[str, ...]:
    """Defect, variant and what it is, of a row of the table; of any other line nothing."""
    cells = [cell.strip() for cell in line.split(" | ")]
    return tuple(cells[:3]) if line.startswith("| ") and len(cells) == len(COLUMNS) else ()


def of_alarms(models: Sequence[str], small: bool, busy: bool, verdicts: Sequence[str]) -> list[str]:
    """The section of false alarms."""
    count = Counter(verdicts)
    size = "the tests' small checkpoints" if small else "full size, profile cpu"
    beside = "beside a process on every core that computes without end" if busy else "on an otherwise idle machine"
    rows = [[verdict, count[verdict]] for verdict in (PASS, INCONCLUSIVE, FAIL)]
    return [
        f"## False alarms: {'small' if small else 'full size'}, {'busy' if busy else 'idle'}",
        "",
        f"Good artifacts of {', '.join(models)} by turns ({size}), each rebuilt from another seed and validated, "
        f"{len(verdicts)} in all, {beside}.",
        "",
        *table(["verdict", "times"], rows),
    ]


def progress(trial: Trial) -> str:
    """A line for whoever waits."""
    how = trial.refused or ", ".join(f"{row['metric']} {shown(row['value'])}" for row in trial.failing[:3])
    return f"{'caught' if trial.is_caught else 'MISSED':6} {trial.defect.variant:7} {trial.defect.name}: {how}"


def shown(value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _row(good: Good, trial: Trial) -> list[str]:
    defect = trial.defect
    head = [defect.name, defect.variant, defect.what]
    if trial.refused:
        by, _, said = trial.refused.partition(": ")
        return [*head, _cell(f"{by}: {said}"), "", "", "", "yes"]
    if not trial.failing:
        return [*head, "", "", "", "", "**no**"]
    first, *more = trial.failing
    name = f"`{first['metric']}`" + (f" and {len(more)} more" if more else "")
    values = shown(first["value"]), shown(good.metrics[defect.variant][first["metric"]])
    return [*head, name, *values, f"{first['op']} {first['limit']:g}", "yes"]


def _state(good: Good) -> str:
    failing = {v: [row["metric"] for row in good.failing(v, m)] for v, m in good.metrics.items()}
    bad = ", ".join(f"{variant}: {', '.join(names)}" for variant, names in failing.items() if names)
    return f"The artifact without defects does not pass either: {bad}." if bad else "Without a defect all gates pass."


def _moved(good: Good, trial: Trial) -> str:
    metrics: Mapping[str, float] = good.metrics.get(trial.defect.variant, {})
    changes = moved(dict(metrics), trial.metrics, MOVED)
    return ", ".join(f"`{name}` {shown(a)} to {shown(b)}" for name, a, b in changes) or "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
