"""Where two files that should be the same differ, in a few words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

_PACKAGE = ".mlpackage"
_DATA = "_data"
_CHUNK = 1 << 20


def explain(released: Path, made: Path) -> str:
    """The first difference of two files: of graphs and packages the node or tensor, and by how much; of JSON the key;
    of anything else, and of what cannot be read, the byte."""
    try:
        return _meaning(released, made) or _bytes(released, made)
    except Exception:  # of a file that is damaged; there is no telling what reading it raises
        return _bytes(released, made)


def _meaning(released: Path, made: Path) -> str:
    if released.name.endswith(_DATA):
        released, made = (path.with_name(path.name.removesuffix(_DATA)) for path in (released, made))
    if released.suffix == ".onnx":
        return graphs(released, made)
    package = next((parent for parent in released.parents if parent.suffix == _PACKAGE), None)
    if package and released.suffix in (".mlmodel", ".bin"):
        inside = released.relative_to(package).parts
        return packages(package, made.parents[len(inside) - 1])
    if released.suffix == ".json":
        one, other = (json.loads(path.read_text(encoding="utf-8")) for path in (released, made))
        return next(_values(one, other, ""), "")
    return ""


def graphs(released: Path, made: Path) -> str:
    """The first node, tensor or declaration that differs between two ONNX files, or nothing."""
    import onnx_ir as ir

    one, other = ir.load(released), ir.load(made)
    for number, (node, again) in enumerate(zip_longest(one.graph, other.graph)):
        if node is None or again is None:
            known = node or again
            assert known is not None
            return f"node {number}, {known.op_type} '{known.name}', is in one of them alone"
        if found := _nodes(node, again):
            return f"node {number}, {node.op_type} '{node.name}': {found}"
    tensors = _tensors(_initializers(one), _initializers(other))
    return tensors or next(_values(_declared(one), _declared(other), ""), "")


def packages(released: Path, made: Path) -> str:
    """The first weight that differs between two CoreML packages, or nothing."""
    from . import mil

    one, other = (mil.load(path) for path in (released, made))
    if list(one.functions) != list(other.functions):
        return f"functions {', '.join(one.functions)} against {', '.join(other.functions)}"
    for name, function in one.functions.items():
        if found := _tensors(dict(function.weights()), dict(other.functions[name].weights())):
            return f"function {name}: {found}"
    return ""


def _nodes(one: ir.Node, other: ir.Node) -> str:
    if (one.domain, one.op_type) != (other.domain, other.op_type):
        return f"{one.op_type} against {other.op_type}"
    return next(_values(_ends(one), _ends(other), "tensors"), "") or next(
        _values(_attributes(one), _attributes(other), "attributes"), ""
    )


def _ends(node: ir.Node) -> list[str]:
    return [(value.name or "") if value else "" for value in (*node.inputs, *node.outputs)]


def _attributes(node: ir.Node) -> dict[str, Any]:
    return {name: _plain(attribute.value) for name, attribute in sorted(node.attributes.items())}


def _plain(value: Any) -> Any:
    """An attribute's value, as what can be compared."""
    return value.numpy().tolist() if hasattr(value, "numpy") else list(value) if isinstance(value, tuple) else value


def _initializers(model: ir.Model) -> Mapping[str, Any]:
    return {name: value.const_value for name, value in model.graph.initializers.items() if value.const_value}


def _declared(model: ir.Model) -> dict[str, Any]:
    ends = {"inputs": model.graph.inputs, "outputs": model.graph.outputs}
    shapes = {kind: [[v.name, str(v.type), str(v.shape)] for v in values] for kind, values in ends.items()}
    about = {"metadata": dict(model.metadata_props), "opsets": dict(model.opset_imports)}
    return {**shapes, **about, "producer": [model.producer_name, model.producer_version]}


def _tensors(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first that differs, by how much, and how many more do. Values are arrays, or what has some by numpy()."""
    if alone := next((name for name in (*one, *other) if name not in one or name not in other), ""):
        return f"tensor '{alone}' is in one of them alone"
    differing = (name for name in one if not _same(_array(one[name]), _array(other[name])))
    if (first := next(differing, None)) is None:
        return ""
    more = sum(1 for _ in differing)
    words = f"tensor '{first}' {_apart(_array(one[first]), _array(other[first]))}"
    return words + (f"; and {more} other tensors" if more else "")


def _array(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else np.asarray(value.numpy())


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _apart(one: np.ndarray, other: np.ndarray) -> str:
    kinds = [f"{array.dtype} {list(array.shape)}" for array in (one, other)]
    if kinds[0] != kinds[1]:
        return f"is {kinds[0]} against {kinds[1]}"
    wide, wide_other = (np.asarray(array, np.float64) for array in (one, other))
    off = np.abs(wide - wide_other)
    count = int(np.sum(off != 0))
    return (
        f"({kinds[0]}): {count} of {off.size} values differ, by at most {off.max():.3g} "
        f"where the largest is {np.abs(wide).max():.3g}"
    )


def _values(one: Any, other: Any, place: str) -> Iterator[str]:
    """Places in nested values where they differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        yield from _items(((key, one.get(key), other.get(key)) for key in {**one, **other}), place)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        yield from _items(((i, a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))), place)
    elif one != other:
        yield f"{place or 'content'}: {_short(one)} against {_short(other)}"


def _items(items: Iterable[tuple[object, Any, Any]], place: str) -> Iterator[str]:
    for key, one, other in items:
        yield from _values(one, other, f"{place}.{key}" if place else str(key))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bytes(released: Path, made: Path) -> str:
    sizes = [path.stat().st_size for path in (released, made)]
    start = 0
    with released.open("rb") as one, made.open("rb") as other:
        while True:
            pair = one.read(_CHUNK), other.read(_CHUNK)
            if pair[0] != pair[1] or not pair[0]:
                break
            start += _CHUNK
    at = next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair)))
    length = f"{sizes[0]} bytes" if sizes[0] == sizes[1] else f"{sizes[0]} against {sizes[1]} bytes"
    return f"from byte {start + at} of {length}"
