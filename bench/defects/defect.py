"""What a defect is, and the copy of an artifact that it is planted in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from jtts_export.exporters.model import Model
from jtts_export.runtime.names import data_file, stored

from .graph_file import GraphFile, damaging

Files = Mapping[str, Path]  # graph -> file
WEIGHTS = data_file(Path("graph.onnx")).suffix


@dataclass
class Planting:
    """A copy of an artifact. Planting changes the files in it, or `model` where the defect is one of the runtime.

    graphs: of the variant in question; clients: the folder of what clients read beside them; good: variant -> graph
    -> file of the artifact that it was copied from, not to be touched; other: graphs of another checkpoint, in the
    same variant; release: a copy of the whole release folder, if there is one.
    """

    variant: str
    graphs: Files
    clients: Path
    model: Model
    good: Mapping[str, Files]
    other: Callable[[str], Files]
    release: Path | None = None

    @contextmanager
    def graph(self, suffix: str) -> Iterator[GraphFile]:
        """The variant's graph whose name ends so, written when the block ends."""
        (path,) = (path for name, path in self.graphs.items() if name.endswith(suffix))
        with damaging(path) as found:
            yield found


@dataclass(frozen=True)
class Defect:
    """One thing wrong. variant: where it is planted; what: for people. of_release: it is planted in the release
    folder, and verify() must refuse that."""

    name: str
    model: str
    variant: str
    what: str
    plant: Callable[[Planting], None] = field(repr=False)
    of_release: bool = False


def linked(source: Path, target: Path) -> Path:
    """A copy of a file or a folder by hard links; by content across file systems, and of files of weights: onnx
    opens none that has two names."""

    def link(old: str, new: str) -> str:
        if not old.endswith(WEIGHTS):
            with suppress(OSError):
                os.link(old, new)
                return new
        shutil.copyfile(old, new)
        return new

    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link)
    else:
        link(str(source), str(target))
    return target


def linked_graphs(files: Files, folder: Path) -> dict[str, Path]:
    """Copies of a variant's graphs, with the files beside them, below a folder."""
    made = {}
    for graph, main in files.items():
        for path in stored(main):
            linked(path, (folder / graph).parent / path.name)
        made[graph] = (folder / graph).parent / main.name
    return made
