"""Damage to single weights and tensors, in whatever form a variant holds them.

Every function takes patterns of a weight's name (see GraphFile.pick) and returns what does the damage. Integers of
MatMulNBits and nibbles stand around a zero point: 128, or 8.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .graph_file import GraphFile

Damage = Callable[[GraphFile], None]
PAIRS = ".pairs"  # of two weights in 4 bits


def _changed(change: Callable[[str, np.ndarray], None], patterns: tuple[str, ...]) -> Damage:
    """change: in place, given the weight's name and content."""

    def damage(graph: GraphFile) -> None:
        name = graph.pick(*patterns)
        array = graph.array(name)
        change(name, array)
        graph.set(name, array)

    return damage


def flip_sign(*patterns: str) -> Damage:
    """Of one element of typical magnitude: the one nearest to the root mean square. Of 4-bit pairs, an upper one."""

    def change(name: str, array: np.ndarray) -> None:
        flat = array.reshape(-1)
        if name.endswith(PAIRS):
            upper = (flat >> 4).astype(int) - 8
            at = _typical(upper)
            flat[at] = (8 - upper[at]) % 16 << 4 | flat[at] & 15
        else:
            zero = _zero(array)
            at = _typical(flat.astype(np.float64) - zero)
            flat[at] = 2 * zero - int(flat[at]) if zero else -flat[at]

    return _changed(change, patterns)


def flip_nibble(*patterns: str) -> Damage:
    """The same, of the lower four bits of a byte of MatMulNBits' 4-bit weights."""

    def change(_: str, array: np.ndarray) -> None:
        flat = array.reshape(-1)
        low = (flat & 15).astype(int) - 8
        at = _typical(low)
        flat[at] = flat[at] & 240 | (8 - low[at]) % 16

    return _changed(change, patterns)


def zero_channel(*patterns: str, axis: int = 0) -> Damage:
    """The middle one."""

    def change(_: str, array: np.ndarray) -> None:
        np.moveaxis(array, axis, 0)[array.shape[axis] // 2] = _zero(array)

    return _changed(change, patterns)


def swap_channels(*patterns: str, axis: int = 0) -> Damage:
    """The first two."""

    def change(_: str, array: np.ndarray) -> None:
        view = np.moveaxis(array, axis, 0)
        view[[0, 1]] = view[[1, 0]]

    return _changed(change, patterns)


def negate_row(row: int, *patterns: str) -> Damage:
    def change(_: str, array: np.ndarray) -> None:
        array[row] = -array[row]

    return _changed(change, patterns)


def multiply(factor: float, *patterns: str) -> Damage:
    def change(_: str, array: np.ndarray) -> None:
        array *= array.dtype.type(factor)

    return _changed(change, patterns)


def add(value: float, *patterns: str) -> Damage:
    def change(_: str, array: np.ndarray) -> None:
        array += array.dtype.type(value)

    return _changed(change, patterns)


def clear(*patterns: str) -> Damage:
    """All of it zero."""

    def change(_: str, array: np.ndarray) -> None:
        array[...] = _zero(array)

    return _changed(change, patterns)


def roll(rows: int, *patterns: str) -> Damage:
    """Every row so many places further."""

    def change(_: str, array: np.ndarray) -> None:
        array[...] = np.roll(array, rows, axis=0)

    return _changed(change, patterns)


def poison(value: float, *patterns: str) -> Damage:
    """One element of typical magnitude becomes `value`, which may be no number."""

    def change(_: str, array: np.ndarray) -> None:
        array.reshape(-1)[_typical(array)] = value

    return _changed(change, patterns)


def overflow(factor: float, *patterns: str) -> Damage:
    """One element of typical magnitude times `factor`, stored again in its own type."""

    def change(_: str, array: np.ndarray) -> None:
        flat = array.reshape(-1)
        at = _typical(array)
        with np.errstate(over="ignore"):
            flat[at] = np.float32(flat[at]) * np.float32(factor)

    return _changed(change, patterns)


def exchange(pattern: str) -> Damage:
    """Of those that match, the largest pair of one shape: each in the other's place."""

    def damage(graph: GraphFile) -> None:
        arrays = {name: graph.array(name) for name in graph.matching(pattern)}
        names = sorted(arrays, key=lambda name: -arrays[name].size)
        pairs = ((a, b) for i, a in enumerate(names) for b in names[i + 1 :] if arrays[a].shape == arrays[b].shape)
        first, second = next(pairs)
        graph.set(first, arrays[second])
        graph.set(second, arrays[first])

    return damage


def attribute(op: str, name: str, value: float | int, pattern: str = "*") -> Damage:
    """Of every such node."""

    def damage(graph: GraphFile) -> None:
        nodes = graph.nodes(op, pattern)
        assert nodes, f"no {op}"
        for node in nodes:
            graph.set_attribute(node, name, value)

    return damage


def _zero(array: np.ndarray) -> int:
    return 128 if array.dtype == np.uint8 else 0


def _typical(values: np.ndarray) -> int:
    """Where, in the order of elements, a magnitude is nearest to the root mean square."""
    size = np.abs(values.reshape(-1).astype(np.float64))
    return int(np.abs(size - np.sqrt((size**2).mean())).argmin())
