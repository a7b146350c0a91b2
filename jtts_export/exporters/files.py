"""Files that clients read beside the graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write each path below `folder`, and return them in that order."""
    paths = []
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        paths.append(path)
    return paths


def as_json(content: Mapping[str, Any]) -> bytes:
    """A JSON file's bytes, indented."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
