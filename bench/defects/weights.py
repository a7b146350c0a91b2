"""Damage to single weights and tensors, in whatever form a variant holds them.

Integers of MatMulNBits and nibbles stand around a zero point: 128, or 8.
"""

from __future__ import annotations

import numpy as np

from .graph_file import GraphFile


def flip_sign(graph: GraphFile, name: str) -> None:
    """Of one element of typical magnitude: the one nearest to the root mean square."""
    array = graph.array(name)
    flat = array.reshape(-1)
    if name.endswith(".pairs"):
        upper = (flat >> 4).astype(int) - 8
        at = _typical(upper.astype(np.float64))
        flat[at] = (8 - upper[at]) % 16 << 4 | flat[at] & 15
    else:
        zero = _zero(array)
        at = _typical(flat.astype(np.float64) - zero)
        flat[at] = flat.dtype.type(2 * zero - int(flat[at])) if zero else -flat[at]
    graph.set(name, array)


def flip_nibble(graph: GraphFile, name: str) -> None:
    """The same, of the lower four bits of a byte of MatMulNBits' 4-bit weights."""
    array = graph.array(name)
    flat = array.reshape(-1)
    low = (flat & 15).astype(int) - 8
    at = _typical(low.astype(np.float64))
    flat[at] = flat[at] & 240 | (8 - low[at]) % 16
    graph.set(name, array)


def zero_channel(graph: GraphFile, name: str, axis: int = 0, channel: int | None = None) -> None:
    """channel: the middle one by default."""
    array = graph.array(name)
    np.moveaxis(array, axis, 0)[array.shape[axis] // 2 if channel is None else channel] = _zero(array)
    graph.set(name, array)


def swap_channels(graph: GraphFile, name: str, axis: int = 0) -> None:
    """The first two."""
    array = graph.array(name)
    view = np.moveaxis(array, axis, 0)
    view[[0, 1]] = view[[1, 0]]
    graph.set(name, array)


def multiply(graph: GraphFile, name: str, factor: float) -> None:
    array = graph.array(name)
    graph.set(name, (array * array.dtype.type(factor)).astype(array.dtype))


def exchange(graph: GraphFile, pattern: str) -> None:
    """Of those that match, the largest pair of one shape: each in the other's place."""
    names = sorted(graph.matching(pattern), key=lambda n: -graph.array(n).size)
    first, second = next(
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :] if graph.array(a).shape == graph.array(b).shape
    )
    a, b = graph.array(first), graph.array(second)
    graph.set(first, b)
    graph.set(second, a)


def clear(graph: GraphFile, name: str) -> None:
    """All of it zero."""
    array = graph.array(name)
    graph.set(name, np.full_like(array, _zero(array)))


def poison(graph: GraphFile, name: str, value: float) -> None:
    """One element of typical magnitude becomes `value`, which may be no number."""
    array = graph.array(name)
    array.reshape(-1)[_typical(array.reshape(-1).astype(np.float64))] = value
    graph.set(name, array)


def overflow(graph: GraphFile, name: str, factor: float = 1e5) -> None:
    """One element times `factor`, stored again in its own type."""
    array = graph.array(name)
    flat = array.reshape(-1)
    at = _typical(flat.astype(np.float64))
    with np.errstate(over="ignore"):
        flat[at] = np.float32(flat[at]) * np.float32(factor)
    graph.set(name, array)


def set_attribute(graph: GraphFile, op: str, name: str, value: float, pattern: str = "*") -> None:
    """Of every such node."""
    nodes = graph.nodes(op, pattern)
    assert nodes, f"no {op}"
    for node in nodes:
        attribute = next((a for a in node.attribute if a.name == name), None) or node.attribute.add(
            name=name, type=1 if isinstance(value, float) else 2
        )
        if isinstance(value, float):
            attribute.f = value
        else:
            attribute.i = value


def _zero(array: np.ndarray) -> int:
    return 128 if array.dtype == np.uint8 else 0


def _typical(values: np.ndarray) -> int:
    """Where a magnitude is nearest to the root mean square."""
    size = np.abs(values)
    return int(np.abs(size - np.sqrt((size**2).mean())).argmin())
