"""What lies beside the weights: files and metadata that clients read, against what the checkpoint gives."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

from jtts_export.errors import GateFailed
from jtts_export.exporters.model import Loaded, Model
from jtts_export.runtime.names import stored
from jtts_export.store import files_under

Files = Mapping[str, Path]


def held_in(graph: Path) -> list[Path]:
    """The files that a graph is held in. Raises GateFailed where its weights lie in any but its own data file."""
    files = stored(graph)
    weights = onnx.load(graph, load_external_data=False).graph.initializer
    named = {entry.value for tensor in weights for entry in tensor.external_data if entry.key == "location"}
    if strange := sorted(named - {path.name for path in files[1:]}):
        raise GateFailed(f"{graph.name} takes weights from {strange[0]}, which is not its own")
    return files


def client_files_equal_ratio(model: Model, loaded: Loaded, clients: Path) -> float:
    """Share of the client files, made anew, that lie byte for byte below `clients`."""
    with tempfile.TemporaryDirectory() as made:
        model.client_files(Path(made), loaded.config, loaded.voices)
        wanted = {path.relative_to(made): path.read_bytes() for path in files_under(Path(made))}
    same = [(clients / name).is_file() and (clients / name).read_bytes() == data for name, data in wanted.items()]
    return sum(same) / len(same)


def metadata_equal_ratio(model: Model, loaded: Loaded, files: Files) -> float:
    """Share of the entries that the checkpoint gives for the graphs' metadata, and that are there; and of those that
    are there and should be."""
    wanted = model.metadata(loaded)
    same = []
    for graph in model.graphs:
        proto = onnx.load(files[graph], load_external_data=False)
        there = {entry.key: entry.value for entry in proto.metadata_props}
        given = wanted.get(graph, {})
        same += [there.get(key) == given.get(key) for key in {*there, *given}]
    return sum(same) / len(same) if same else 1.0
