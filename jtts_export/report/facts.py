"""What a validation.json says, as words and numbers that are safe to show: its texts come from anywhere."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from jtts_export.card import error_lines, table
from jtts_export.models import MODELS
from jtts_export.validate.gates import FAIL, INCONCLUSIVE, PASS

OUTCOMES = (FAIL, INCONCLUSIVE, PASS)  # in the order of interest
NO_GATE = "no gate in the profile"
NAMED_GATES = 3  # a sentence names as many of each outcome, and counts the rest

# Controls, separators, what takes no room, marks that turn the direction of what follows them, halves of surrogates,
# and what XML has no character for. Joiners stay: emoji and some scripts are written with them.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_SPACE = re.compile(r"[\t\n\r ]+")
_SIGNS = {">=": "≥", "<=": "≤", "==": "="}
_UNITS = {"_db": "dB", "_ms": "ms", "_mb": "MB", "_cents": "cents", "_lu": "LU", "_gb_s": "GB/s"}
Validation = Mapping[str, Any]


def text(value: object, limit: int = 120) -> str:
    """One line of at most `limit` characters; what would be invisible, or reorder its neighbours, is U+FFFD."""
    line = _INVISIBLE.sub("\ufffd", _SPACE.sub(" ", str(value)[: 4 * limit])).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def real(value: object) -> float | None:
    """A number of the JSON, infinities (strings there) included; None for anything else, NaN too."""
    if isinstance(value, str) and value in {"inf", "-inf"}:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def finite(values: object) -> list[float]:
    """The finite numbers of a list."""
    numbers = map(real, values) if isinstance(values, list | tuple) else ()
    return [n for n in numbers if n is not None and math.isfinite(n)]


def number(value: float) -> str:
    """Four digits that count."""
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = f"{value:.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g}"
    return shown.replace("-", "−", 1) if shown.startswith("-") else shown


def unit(metric: str) -> str:
    """Of a metric, from the end of its name; empty for ratios and counts."""
    return next((name for suffix, name in _UNITS.items() if metric.endswith(suffix)), "")


def figure(metric: str, value: object) -> str:
    """A metric's value with its unit."""
    known = real(value)
    if known is None:
        return "not measured" if value is None else text(value, 24)
    return f"{number(known)} {unit(metric)}".rstrip()


@dataclass(frozen=True)
class Gate:
    """A gate of a variant and what came of it. interval: ends of the value's, where it has one."""

    variant: str
    metric: str
    op: str
    limit: float
    value: object
    interval: tuple[float, float] | None
    outcome: str

    @property
    def measured(self) -> str:
        return figure(self.metric, self.value)

    @property
    def wanted(self) -> str:
        return f"{_SIGNS.get(self.op, self.op)} {figure(self.metric, self.limit)}" if self.op else ""

    @property
    def between(self) -> str:
        """The interval as text, empty without one."""
        if self.interval is None:
            return ""
        low, high = self.interval
        return f"{number(low)} to {figure(self.metric, high)}"

    def __str__(self) -> str:
        return f"{self.variant} {self.metric} {self.measured} (limit {self.wanted})" if self.op else self.variant


def gates(validation: Validation, variant: str) -> list[Gate]:
    """Of one variant: failing first, then inconclusive; a variant without gates fails one of that name."""
    found = [_gate(variant, g) for g in validation["variants"][variant].get("gates", [])]
    if not found:
        return [Gate(text(variant), NO_GATE, "", math.nan, None, None, FAIL)]
    return sorted(found, key=lambda g: OUTCOMES.index(g.outcome))


def all_gates(validation: Validation) -> list[Gate]:
    """Of all variants: failing first."""
    found = [g for variant in validation["variants"] for g in gates(validation, variant)]
    return sorted(found, key=lambda g: OUTCOMES.index(g.outcome))


def _gate(variant: str, row: Mapping[str, Any]) -> Gate:
    ends = [real(end) for end in row.get("interval") or ()]
    outcome = row.get("outcome") or (PASS if row.get("passed") else FAIL)
    limit = real(row.get("limit"))
    return Gate(
        variant=text(variant),
        metric=text(row.get("metric", "")),
        op=text(row.get("op", ""), 4),
        limit=math.nan if limit is None else limit,
        value=row.get("value"),
        interval=(ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None,
        outcome=outcome if outcome in OUTCOMES else FAIL,
    )


def why(validation: Validation) -> str:
    """One sentence behind the verdict: what does not run, which gates fail, then which could not be judged."""
    found = all_gates(validation)
    failing, open_, held = ([g for g in found if g.outcome == outcome] for outcome in OUTCOMES)
    broken = [text(line, 240) for line in error_lines(validation)]
    if not failing and not open_ and not broken:
        variants = len(validation["variants"])
        gates_, of = ("gate", "holds") if len(held) == 1 else ("gates", "hold")
        return f"All {len(held)} {gates_} of {variants} variant{'s' * (variants != 1)} {of}."
    bare = [g for g in failing if not g.op]
    missed = [g for g in failing if g.op]
    parts = [*broken]
    if missed:
        parts.append(f"{len(missed)} of {len(found)} gates fail{'s' * (len(missed) == 1)}: {_names(missed)}")
    parts += [f"the profile has no gate for {_names(bare)}"] if bare else []
    parts += [f"{len(open_)} inconclusive: {_names(open_)}"] if open_ else []
    sentence = "; ".join(parts)
    return (sentence if broken else sentence[0].upper() + sentence[1:]) + "."  # a variant's name stays as it is


def _names(found: Sequence[Gate]) -> str:
    more = f" and {len(found) - NAMED_GATES} more" if len(found) > NAMED_GATES else ""
    return ", ".join(map(str, found[:NAMED_GATES])) + more


def title(validation: Validation) -> str:
    """The model's full name, where it is one of ours."""
    name = validation.get("model", "")
    return MODELS[name].title if isinstance(name, str) and name in MODELS else text(name) or "A release"


def public(source: str) -> str:
    """A checkpoint's source without the folders of somebody's machine."""
    return source if source.startswith(("hub:", "random:")) else PurePath(source).name


def checkpoint(validation: Validation) -> str:
    """Where the weights come from, without the folders of somebody's machine."""
    given = validation.get("checkpoint") or {}
    source = str(given.get("source") or "")
    shown = public(source)
    return text(f"{shown}@{str(given['revision'])[:12]}" if given.get("revision") else shown)


def _coreml(validation: Validation) -> str:
    """How packages were checked, where there are any."""
    for variant in validation["variants"].values():
        if found := variant.get("coreml"):
            return f"for {found.get('target', '')}; numbers checked {found.get('checked', '')}"
    return ""


def about(validation: Validation) -> list[tuple[str, str]]:
    """Terms and what they are in this release: checkpoint, profile, machine, tool."""
    machine, profile = validation.get("machine") or {}, validation.get("profile") or {}
    sha256 = str((validation.get("checkpoint") or {}).get("sha256") or "")[:16]
    noise = validation.get("noise") or {}
    jitter = real(noise.get("jitter_ratio"))
    disturbed = ", disturbed" if noise.get("disturbed") else ""
    cores = f", {machine['cores']} cores" if machine.get("cores") else ""
    threads = f", {profile['threads']} thread{'s' * (profile['threads'] != 1)}" if profile.get("threads") else ""
    return [
        (term, text(said))
        for term, said in (
            ("Checkpoint", checkpoint(validation)),
            ("sha256", sha256 and f"{sha256}…"),
            ("Profile", f"{profile.get('name', '')}{threads}".strip(", ")),
            ("Machine", f"{machine.get('cpu', '')}{cores}".strip(", ")),
            ("System", ", ".join(_system(machine))),
            (
                "Machine's jitter",
                jitter is not None and f"{number(jitter)}{disturbed}: slowest over median of a fixed piece of work",
            ),
            ("CoreML", _coreml(validation)),
            ("Made by", f"jtts-export {validation.get('tool_version', '')}".strip()),
        )
        if said
    ]


def _system(machine: Mapping[str, Any]) -> Iterator[str]:
    if machine.get("system"):
        yield str(machine["system"])
    if machine.get("python"):
        yield f"Python {machine['python']}"


def main_table(validation: Validation) -> tuple[list[str], list[list[str]]]:
    """Header and rows: variant, the main figures that its model has, verdict."""
    header, rows = table(validation)
    return header, [[text(cell, 60) for cell in row] for row in rows]
