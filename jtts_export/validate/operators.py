"""Whether a runtime has every operator of a graph, without running it there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from jtts_export.profiles import web
from jtts_export.profiles.schema import Profile

_ONNX = ("", "ai.onnx")  # one domain, by two names
_GRAPH, _GRAPHS = onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS


@dataclass(frozen=True)
class Table:
    """What a runtime has: opsets of onnx's domain, IR versions, and operators, named with their domain unless it is
    onnx's. Of an operator: the opsets it is known in; and where it has some forms only, those: lists of values of
    `attributes`, which maps their names to their defaults. Types of tensors are not looked at."""

    runtime: str
    opsets: tuple[int, ...]
    ir_versions: tuple[int, ...]
    operators: Mapping[str, Mapping[str, Any]]


def table_of(profile: Profile) -> Table | None:
    """Of the profile's runtime; None for the one that the graphs run in here anyway, and for one that has none."""
    if profile.runtime != "onnxruntime-web":
        return None
    version = profile.runtime_version or web.latest()
    has = web.known()[version]
    return Table(f"onnxruntime-web {version}", tuple(has["opsets"]), tuple(has["ir_versions"]), has["operators"])


def is_known(profile: Profile) -> bool:
    """Whether it can be said which operators the profile's runtime has."""
    return profile.runtime == "onnxruntime" or table_of(profile) is not None


def missing_of(profile: Profile, files: Iterable[Path]) -> list[str]:
    """What the profile's runtime lacks for any of these graphs, a line each: `model.onnx: NoSuchOp (layer.0/act)`."""
    table = table_of(profile)
    return [f"{file.name}: {line}" for file in files for line in missing(file, table)] if table else []


def missing(file: Path, table: Table) -> list[str]:
    """What the runtime lacks for a graph: operators, or forms of them, each with its first node and their number; an
    opset; an IR version. Weights in files of their own are not read."""
    model = onnx.load(file, load_external_data=False)
    opset = next((o.version for o in model.opset_import if o.domain in _ONNX), max(table.opsets))
    lines = [] if model.ir_version in table.ir_versions else [f"IR version {model.ir_version}"]
    if opset not in table.opsets:
        return [*lines, f"opset {opset}"]  # of which no operator is known
    own = {(function.domain, function.name) for function in model.functions}
    found: dict[str, list[str]] = {}
    for node in (*_nodes(model.graph.node), *(n for f in model.functions for n in _nodes(f.node))):
        if (node.domain, node.op_type) not in own and (lacking := _lacking(node, opset, table)):
            found.setdefault(lacking, []).append(node.name or next(filter(None, node.output), "no name"))
    for lacking, nodes in found.items():
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        lines.append(f"{lacking} ({nodes[0]}{more})")
    return lines


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Those of the branches and bodies of others as well."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == _GRAPH:
                yield from _nodes(attribute.g.node)
            for graph in attribute.graphs if attribute.type == _GRAPHS else ():
                yield from _nodes(graph.node)


def _lacking(node: onnx.NodeProto, opset: int, table: Table) -> str:
    """What of a node the runtime lacks; nothing, where it has all."""
    standard = node.domain in _ONNX
    name = node.op_type if standard else f"{node.domain}.{node.op_type}"
    has = table.operators.get(name)
    if has is None:
        return name
    if standard and opset not in has["opsets"]:
        return f"{name} in opset {opset}"
    if "forms" not in has:
        return ""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    form = [_plain(given.get(attribute, default)) for attribute, default in has["attributes"].items()]
    if form in has["forms"]:
        return ""
    said = ", ".join(f"{attribute}={value}" for attribute, value in zip(has["attributes"], form, strict=True))
    return f"{name} with {said}"


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
