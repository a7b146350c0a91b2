"""Plans of tiny checkpoints, and what makes a build of one crash."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from command import Built

POISON = "poison"  # a checkpoint folder of this name is what crashes
_SITE = """
import os, signal, sys

def hook(event, args):
    if event == "open" and isinstance(args[0], str) and "/{name}/" in args[0]:
        {crash}

if "jtts_export.plan.task" in sys.orig_argv:
    sys.addaudithook(hook)
"""


def build_table(name: str, built: Built, variants: Sequence[str], checkpoint: Path | None = None) -> str:
    """A [[build]] of the checkpoint and profile that `built` was made of."""
    rows = {
        "name": name,
        "model": built.release.name,
        "checkpoint": str(checkpoint or built.checkpoint),
        "profile": str(built.profile),
        "variants": list(variants),
    }
    return "[[build]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in rows.items())


def poison(folder: Path, crash: str) -> Path:
    """A folder for PYTHONPATH: a task's process runs `crash` when it opens a file of a POISON folder."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(_SITE.format(name=POISON, crash=crash))
    return folder


def on_path(folder: Path) -> dict[str, str]:
    """The environment of a process that imports from there first."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}


def events(log: Path) -> list[dict[str, Any]]:
    """Of a --log so far; a last line may not be whole yet."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
