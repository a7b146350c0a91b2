"""Texts that want to be more than text, in every place where a validation takes one."""

from __future__ import annotations

import copy
from typing import Any

MARK = "PWNED"
MARKUP = f"<script>window.{MARK}=1;alert(1)</script><img src=x onerror=window.{MARK}=1>"
NAMES = (
    MARKUP,
    f"\"'><svg onload=window.{MARK}=1>",
    "right\u202eot tfel",
    "long" * 2500,
    "a|b`c`*d*\n# e\r\x00\x1b[31m\ud800",
    "{{ 7 * 7 }}{% raw %}",
    "]]></failure><x>&amp;",
)


def hostile(validation: dict[str, Any], name: str) -> dict[str, Any]:
    """The same with `name` in place of every free text."""
    made = copy.deepcopy(validation)
    made |= {"model": name, "tool_version": name, "verdict": "fail"}
    made["checkpoint"] = dict.fromkeys(("source", "revision", "sha256"), name)
    made["profile"] |= {"name": name, "description": name}
    made["machine"] = dict.fromkeys(("cpu", "cores", "system", "python"), name)
    variant = made["variants"].pop("int8")
    made["variants"][name] = variant
    variant["verdict"] = name
    variant["metrics"][name] = name
    variant["gates"].append({"metric": name, "op": name, "limit": 1.0, "value": name, "outcome": name})
    for row in [*variant["layers"], *variant["stages"], *variant["timings"], *variant["rows"]]:
        row |= {key: name for key, value in row.items() if isinstance(value, str)}
    for sample in made.get("samples", []):
        sample["files"][name] = sample["files"]["int8"]
        sample |= {"case": name, "text": name}
    return made
