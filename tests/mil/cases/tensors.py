"""Cases of reductions, reorderings, slices, gathers, scatters and made tensors; references in numpy."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import coremltools as ct
import numpy as np
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder
from mil.programs import Array, Case
from scipy import special

RNG = np.random.default_rng(2)


def _floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def _ints(low: int, high: int, *shape: int) -> Array:
    return RNG.integers(low, high, shape).astype(np.int32)


def cases() -> Iterator[Case]:
    """All cases of tensors."""
    yield from _reductions()
    yield from _sorting()
    yield from _shapes()
    yield from _joins()
    yield from _paddings()
    yield from _slices()
    yield from _updates()
    yield from _gathers()
    yield from _scatters()
    yield from _made()


REDUCTIONS: dict[str, Callable[..., Array]] = {
    "reduce_sum": np.sum,
    "reduce_mean": np.mean,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_l1_norm": lambda x, axis, keepdims: np.abs(x).sum(axis, keepdims=keepdims),
    "reduce_l2_norm": lambda x, axis, keepdims: np.sqrt(np.square(x).sum(axis, keepdims=keepdims)),
    "reduce_sum_square": lambda x, axis, keepdims: np.square(x).sum(axis, keepdims=keepdims),
    "reduce_log_sum_exp": special.logsumexp,
    "reduce_log_sum": lambda x, axis, keepdims: np.log(x.sum(axis, keepdims=keepdims)),
}


def _reductions() -> Iterator[Case]:
    for op, function in REDUCTIONS.items():
        x = np.abs(_floats(2, 3, 4)) + np.float32(0.1)
        for axes, keep in (([-1], False), ([0, 2], True)):
            expected = function(x.astype(np.float64), axis=tuple(axes), keepdims=keep)
            yield Case(op, {"x": x}, (expected,), {"axes": axes, "keep_dims": keep})
        yield Case(
            op, {"x": x}, (function(x.astype(np.float64), axis=(0, 1, 2), keepdims=True),), {"keep_dims": True}
        )
    x = _floats(3, 4)
    for op, arg in (("reduce_argmax", np.argmax), ("reduce_argmin", np.argmin)):
        yield Case(op, {"x": x}, (arg(x, -1).astype(np.int32),))
        expected = arg(x, 0)[None].astype(np.int32)
        yield Case(op, {"x": x}, (expected,), {"axis": 0, "keep_dims": True})


def _sorting() -> Iterator[Case]:
    x = _floats(3, 6)
    for exclusive, reverse in itertools.product((False, True), repeat=2):
        ordered = x[:, ::-1] if reverse else x
        sums = np.cumsum(ordered, 1) - (ordered if exclusive else 0)
        params = {"axis": 1, "exclusive": exclusive, "reverse": reverse}
        yield Case("cumsum", {"x": x}, (sums[:, ::-1] if reverse else sums,), params)
    for ascending in (False, True):
        order = np.argsort(x if ascending else -x, 1)
        yield Case("argsort", {"x": x}, (order.astype(np.int32),), {"ascending": ascending})
        best = order[:, :2]
        values = np.take_along_axis(x, best, 1)
        yield Case("topk", {"x": x}, (values, best.astype(np.int32)), {"k": 2, "axis": 1, "ascending": ascending})
    yield Case("topk", {"x": x}, (np.max(x, -1, keepdims=True),), {"k": 1, "return_indices": False})
    ties = np.array([1.0, 3.0, 3.0, 1.0], np.float32)
    yield Case("argsort", {"x": ties}, (np.array([1, 2, 0, 3], np.int32),))


def _shapes() -> Iterator[Case]:
    x = _floats(2, 3, 4)
    yield Case("reshape", {"x": x}, (x.reshape(4, 6),), {"shape": [4, -1]})
    yield Case("reshape", {"x": x}, (x.reshape(2, 12, 1),), {"shape": [0, -1, 1]}, ct.target.iOS15)
    # From iOS 17 on zeros are counted from the right: the documentation's own example.
    yield Case("reshape", {"x": _MATRIX}, (_MATRIX.reshape(1, 1, 2, 50),), {"shape": [1, 0, -1, 0]})
    other = (_floats(2, 3, 4), _floats(1, 2, 2))
    yield Case(
        "reshape_like",
        {"x": x, "ref_tensors": other},
        (x.reshape(2, 3, 2, 2),),
        {"begins": (0, 1), "ends": (2, 0), "end_masks": (False, True)},
    )
    yield Case("transpose", {"x": x}, (x.transpose(2, 0, 1),), {"perm": [-1, 0, 1]})
    yield Case("expand_dims", {"x": x}, (x[:, None, :, :, None],), {"axes": [1, -1]})
    single = _floats(1, 3, 1)
    yield Case("squeeze", {"x": single}, (single[:, :, 0],), {"axes": [-1]})
    yield Case("squeeze", {"x": single}, (single[0, :, 0],))
    yield Case("flatten2d", {"x": x}, (x.reshape(6, 4),), {"axis": -1})
    yield Case("shape", {"x": x}, (np.array([2, 3, 4], np.int32),))
    yield Case("tile", {"x": x}, (np.tile(x, (2, 1, 3)),), {"reps": [2, 1, 3]})
    yield Case("reverse", {"x": x}, (x[:, ::-1, ::-1],), {"axes": [1, -1]})
    yield Case("reverse", {"x": x}, (x[::-1, ::-1, ::-1],))
    expected = x.copy()
    expected[0, :2], expected[1, :3] = x[0, :2][::-1], x[1, :3][::-1]
    params = {"lengths": [2, 3], "seq_axis": 1, "batch_axis": 0}
    yield Case("reverse_sequence", {"x": x}, (expected,), params)
    windows = np.stack([x[:, :, start : start + 2] for start in (0, 2)], 2)
    yield Case("sliding_windows", {"x": x}, (windows,), {"axis": 2, "size": 2, "stride": 2})
    image = _floats(1, 8, 2, 3)
    shuffled = F.pixel_shuffle(torch.from_numpy(image), 2).numpy()
    yield Case("pixel_shuffle", {"x": image}, (shuffled,), {"upscale_factor": 2})
    yield Case("pixel_unshuffle", {"x": shuffled}, (image,), {"downscale_factor": np.uint32(2)})
    deep = np.zeros((1, 2, 4, 6), np.float32)
    for row, column in itertools.product(range(2), repeat=2):
        first = (row * 2 + column) * 2
        deep[:, :, row::2, column::2] = image[:, first : first + 2]
    yield Case("depth_to_space", {"x": image}, (deep,), {"block_size": 2})
    yield Case("space_to_depth", {"x": deep}, (image,), {"block_size": 2})


_MATRIX = _floats(2, 50)


def _joins() -> Iterator[Case]:
    a, b, c = _floats(2, 3), _floats(2, 3), _floats(2, 1)
    yield Case("concat", {"values": (a, c)}, (np.concatenate((a, c), -1),), {"axis": -1})
    yield Case("concat", {"values": (a,)}, (a,), {"axis": 0})
    taken = np.stack((a, b), 1).reshape(4, 3)
    yield Case("concat", {"values": (a, b)}, (taken,), {"axis": 0, "interleave": True})
    yield Case("stack", {"values": (a, b)}, (np.stack((a, b), -1),), {"axis": -1})
    wide = _floats(2, 6)
    yield Case("split", {"x": wide}, tuple(np.split(wide, 3, 1)), {"num_splits": 3, "axis": 1})
    yield Case("split", {"x": wide}, tuple(np.split(wide, [1, 3], 1)), {"split_sizes": [1, 2, 3], "axis": -1})


def _paddings() -> Iterator[Case]:
    x = _floats(2, 3, 4)
    for mode, numpy_mode in (("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")):
        expected = np.pad(x, ((0, 0), (1, 2), (0, 3)), numpy_mode)  # type: ignore[call-overload]
        yield Case("pad", {"x": x}, (expected,), {"pad": [1, 2, 0, 3], "mode": mode})
    expected = np.pad(x, ((1, 0), (0, 1), (2, 0)), constant_values=-np.inf)
    yield Case("pad", {"x": x}, (expected,), {"pad": [1, 0, 0, 1, 2, 0], "constant_val": np.float32(-np.inf)})


def _slices() -> Iterator[Case]:
    x = _floats(4, 5, 6)
    table: list[tuple[dict, tuple]] = [
        ({"begin": [1, 0, 2], "end": [3, 5, 6]}, np.s_[1:3, :, 2:]),
        ({"begin": [-3, 0, 0], "end": [-1, 5, 6], "stride": [1, 2, 4]}, np.s_[-3:-1, ::2, ::4]),
        ({"begin": [3, 4, 5], "end": [0, 1, 0], "stride": [-1, -2, -3]}, np.s_[3:0:-1, 4:1:-2, 5:0:-3]),
        (
            {"begin": [9, 9, 9], "end": [9, 9, 9], "begin_mask": [True] * 3, "end_mask": [True] * 3},
            np.s_[:, :, :],
        ),
        (
            {
                "begin": [0, 0, 0],
                "end": [0, 0, 0],
                "stride": [-1, 1, -2],
                "begin_mask": [True] * 3,
                "end_mask": [True] * 3,
            },
            np.s_[::-1, :, ::-2],
        ),
        (
            {"begin": [-1, 1, 0], "end": [0, 4, 6], "squeeze_mask": [True, False, False]},
            np.s_[-1, 1:4, :],
        ),
        ({"begin": [0, 1, 0], "end": [4, 9, -2], "begin_mask": [False, False, True]}, np.s_[:, 1:, :-2]),
    ]
    for params, index in table:
        yield Case("slice_by_index", {"x": x}, (x[index],), params)
    first, last = np.array([1, 0, 2], np.int32), np.array([3, 5, 6], np.int32)
    yield Case("slice_by_index", {"x": x, "begin": first, "end": last}, (x[1:3, :, 2:],))
    yield Case("slice_by_size", {"x": x}, (x[1:3, :, -2:],), {"begin": [1, 0, -2], "size": [2, -1, 2]})


def _updates() -> Iterator[Case]:
    x, update = _floats(4, 5), _floats(2, 5)
    expected = x.copy()
    expected[1:3] = update
    params = {"begin": [1, 0], "end": [3, 0], "end_mask": [False, True]}
    yield Case("slice_update", {"x": x, "update": update}, (expected,), params, ct.target.iOS18)
    expected = x.copy()
    expected[3:1:-1] = update
    params = {"begin": [3, 0], "end": [1, 5], "stride": [-1, 1]}
    yield Case("slice_update", {"x": x, "update": update}, (expected,), params, ct.target.iOS18)
    expected = x.copy()
    expected[-2] = update[0]
    params = {"begin": [-2, 0], "end": [0, 5], "squeeze_mask": [True, False]}
    yield Case("slice_update", {"x": x, "update": update[0]}, (expected,), params, ct.target.iOS18)


def _gathers() -> Iterator[Case]:
    x = _floats(3, 4, 5)
    positions = _ints(0, 4, 2, 3)
    inputs = {"x": x, "indices": positions}
    yield Case("gather", inputs, (np.take(x, positions, 1),), {"axis": 1})
    yield Case("gather", {"x": x}, (np.take(x, [2, 0], -1),), {"axis": -1, "indices": [2, 0]})
    yield Case("gather", {"x": x}, (x[1],), {"axis": 0, "indices": np.int32(1)})
    vector = _floats(4)
    yield Case("gather", {"x": vector}, (vector[3:],), {"indices": np.int32(3)}, finish=_as_vector)
    yield Case("gather_nd", {"x": vector}, (vector[2:3],), {"indices": np.array([2], np.int32)}, finish=_as_vector)
    negative = np.array([-1, 0, -4], np.int32)
    yield Case("gather", {"x": x, "indices": negative}, (np.take(x, negative, 1),), {"axis": 1}, ct.target.iOS16)
    batched = _ints(0, 4, 3, 2)
    expected = np.stack([row[picks] for row, picks in zip(x, batched, strict=True)])
    yield Case("gather", {"x": x, "indices": batched}, (expected,), {"axis": 1, "batch_dims": 1})
    expected = np.stack([row[:, picks] for row, picks in zip(x, batched, strict=True)])
    yield Case("gather", {"x": x, "indices": batched}, (expected,), {"axis": 2, "batch_dims": 1})
    along = _ints(0, 4, 3, 2, 5)
    yield Case("gather_along_axis", {"x": x, "indices": along}, (np.take_along_axis(x, along, 1),), {"axis": 1})
    pairs = np.stack((_ints(0, 3, 6), _ints(0, 4, 6)), -1).reshape(2, 3, 2)
    yield Case("gather_nd", {"x": x, "indices": pairs}, (x[pairs[..., 0], pairs[..., 1]],))
    singles = _ints(0, 4, 3, 2, 1)
    expected = np.stack([row[picks[:, 0]] for row, picks in zip(x, singles, strict=True)])
    yield Case("gather_nd", {"x": x, "indices": singles}, (expected,), {"batch_dims": 1})


def _as_vector(scalar: Any) -> Any:
    """A scalar, which a package cannot give out, as a vector of one."""
    return Builder.expand_dims(x=scalar, axes=[0])


MODES: dict[str, Callable[[float, float], float]] = {
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new,
    "max": max,
    "min": min,
}


def _scatters() -> Iterator[Case]:
    for mode, combine in MODES.items():
        data = _floats(4, 3)
        # Repeated positions, but for "update", where the order of the writes is left open.
        rows = np.array([2, 0] if mode == "update" else [2, 2], np.int32)
        updates = np.abs(_floats(2, 3)) + np.float32(0.5)
        expected = data.copy()
        for (number, row), column in itertools.product(enumerate(rows), range(3)):
            expected[row, column] = combine(expected[row, column], updates[number, column])
        inputs = {"data": data, "indices": rows, "updates": updates}
        yield Case("scatter", inputs, (expected,), {"axis": 0, "mode": mode})
        yield Case("scatter_nd", inputs | {"indices": rows[:, None]}, (expected,), {"mode": mode})
        whole = np.repeat(rows[:, None], 3, 1)
        yield Case("scatter_along_axis", inputs | {"indices": whole}, (expected,), {"axis": 0, "mode": mode})
    data, updates = _floats(3, 4), _floats(2)
    points = np.array([[0, 1], [2, 3]], np.int32)
    expected = data.copy()
    expected[[0, 2], [1, 3]] += updates
    yield Case("scatter_nd", {"data": data, "indices": points, "updates": updates}, (expected,))


def _made() -> Iterator[Case]:
    x = _floats(2, 4, 5)
    for lower, upper in ((-1, 0), (1, 2), (0, -1)):
        offset = np.arange(4)[:, None] - np.arange(5)
        inside = ((lower < 0) | (offset <= lower)) & ((upper < 0) | (-offset <= upper))
        yield Case("band_part", {"x": x}, (x * inside,), {"lower": lower, "upper": upper})
    positions = np.array([1, 0, 7, -1], np.int32)
    hot = np.zeros((4, 3), np.int32)
    hot[0, 1] = hot[1, 0] = 1
    yield Case("one_hot", {"indices": positions}, (hot,), {
        "one_hot_vector_size": 3, "on_value": np.int32(1), "off_value": np.int32(0),
    })  # fmt: skip
    params = {
        "one_hot_vector_size": 3,
        "axis": 0,
        "on_value": np.float32(2),
        "off_value": np.float32(-1),
    }
    yield Case("one_hot", {"indices": positions}, (np.where(hot.T, 2.0, -1.0),), params)
    size = np.array([2, 3], np.int32)
    yield Case("fill", {"shape": size}, (np.full((2, 3), 1.5),), {"value": np.float32(1.5)})
    yield Case("fill_like", {"ref_tensor": x}, (np.full((2, 4, 5), 7, np.int32),), {"value": np.int32(7)})
    end = np.array(9, np.int32)
    yield Case("range_1d", {"end": end}, (np.arange(1, 9, 3, dtype=np.int32),), {"start": 1, "step": 3})
    stop = np.array(1.0, np.float32)
    params = {"start": np.float32(0), "step": np.float32(0.25)}
    yield Case("range_1d", {"end": stop}, (np.arange(0, 1, 0.25),), params)
    cond = RNG.integers(0, 2, (4, 1)).astype(bool)
    yield Case("select", {"cond": cond, "a": x, "b": x * 2}, (np.where(cond, x, x * 2),))
    sparse = np.array([[0.0, 2.0], [3.0, 0.0]], np.float32)
    yield Case("non_zero", {"x": sparse}, (np.array([[0, 1], [1, 0]], np.int32),))
