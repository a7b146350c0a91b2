"""What validation is given, of tiny checkpoints: fp32 and int8 files, and what lies beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kokoro_graph
import onnx_ir as ir
import speecht5_command
import t3_files

from jtts_export.exporters import kokoro, speecht5, t3
from jtts_export.exporters.graph import DEFAULT_OPSET
from jtts_export.exporters.model import Loaded, Model
from jtts_export.exporters.onnx import save
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.optimize import optimize
from jtts_export.profiles.schema import Profile
from jtts_export.quantize.build import build_variant
from jtts_export.runtime.names import graph_file
from jtts_export.validate.measure import spread_of
from jtts_export.validate.spread import Spread
from jtts_export.validate.subject import Subject

MODEL_OF = {"kokoro": kokoro.MODEL, "speecht5": speecht5.MODEL, "t3": t3.MODEL}


def profile(**gates: dict[str, dict[str, str]]) -> Profile:
    """One thread, and gates as model={variant: {metric: limit}}."""
    return Profile(name="tiny", description="a network of a few kilobytes", threads=1, gates=gates)


def subject(name: str, folder: Path) -> Subject:
    """A tiny checkpoint of a model: fp32, and int8 by the recipe alone; no gates. Its files lie in `folder`."""
    model, loaded, clients = MODEL_OF[name], _loaded(name, folder / "checkpoint"), folder / "clients"
    clients.mkdir()
    model.client_files(clients, loaded.config, loaded.voices)
    model.export(loaded, folder / "traced", DEFAULT_OPSET)
    exact = {graph: ir.load(folder / "traced" / graph_file(graph, "fp32")) for graph in model.graphs}
    for graph in exact.values():
        optimize(graph)
    files = {"fp32": _save(model, exact, folder, "fp32")}
    made, _, _ = build_variant(
        *(model, {graph: files["fp32"][graph] for graph in model.graphs}, model.recipes["int8"]),
        *(loaded.config, loaded.voices, [], Spread({}), 1, lambda _: None),
    )
    files["int8"] = _save(model, made, folder, "int8")
    return Subject(name, model, loaded, files, clients, profile(), spread_of(model, loaded, 1))


def _loaded(name: str, folder: Path) -> Loaded:
    if name == "kokoro":
        return kokoro_graph.loaded()
    if name == "speecht5":
        speecht5_command.write_checkpoint(folder)
    else:
        t3_files.write_checkpoint(folder)
    info = MODELS[name]
    return MODEL_OF[name].load(locate(str(folder), info.files, info.companions))


def _save(model: Model, graphs: dict[str, Any], folder: Path, variant: str) -> dict[str, Path]:
    files = {}
    for graph, made in (graphs | model.derive(graphs)).items():
        files[graph] = folder / graph_file(graph, variant)
        save(made, files[graph], graph in model.external)
    return files
