"""Cases of compressed weights; references by the loops of MIL's documentation."""

from collections.abc import Iterator
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import types
from mil.programs import Array, Case

RNG = np.random.default_rng(3)
IOS16, IOS18 = ct.target.iOS16, ct.target.iOS18


def _typed(array: Array, name: str) -> Array:
    """An array that coremltools stores in a type of less than a byte."""
    return array.astype(types.nptype_from_builtin(types.string_to_builtin(name)))


def _packed(values: Array, bits: int) -> Array:
    spread = [(int(value) >> bit) & 1 for value in values.reshape(-1) for bit in range(bits)]
    return np.packbits(np.array(spread, np.uint8), bitorder="little")


def cases() -> Iterator[Case]:
    """All cases of compressed weights."""
    yield from _affine()
    yield from _blockwise()
    yield from _tables()
    yield from _sparse()
    half = np.array([1.5, -2.25], np.float16)
    yield Case("constexpr_cast", {}, (half.astype(np.float32),), {"source_val": half, "output_dtype": "fp32"}, IOS16)


def _affine() -> Iterator[Case]:
    data = RNG.integers(-128, 128, (3, 4)).astype(np.int8)
    scale, zero = np.array([0.1, 0.2, 0.5], np.float32), np.array([0, -3, 100], np.int8)
    expected = scale[:, None] * (data.astype(np.float32) - zero[:, None])
    params = {"quantized_data": data, "scale": scale, "zero_point": zero, "axis": 0}
    yield Case("constexpr_affine_dequantize", {}, (expected,), params, IOS16)
    params = {"quantized_data": data, "scale": np.float32(0.5), "zero_point": np.int8(2), "axis": 0}
    yield Case("constexpr_affine_dequantize", {}, (0.5 * (data.astype(np.float32) - 2),), params, IOS16)
    flat = data.astype(np.float32)
    yield Case("quantize", {"input": flat * scale[:, None]}, (data,), {
        "scale": scale, "zero_point": np.zeros(3, np.int8), "axis": 0, "output_dtype": "int8",
    })  # fmt: skip


def _blockwise() -> Iterator[Case]:
    for name, low, high in (("int8", -128, 128), ("int4", -8, 8), ("uint4", 0, 16), ("uint8", 0, 256)):
        data = RNG.integers(low, high, (4, 6))
        scale = RNG.uniform(0.1, 2, (2, 3)).astype(np.float32)
        offset = RNG.integers(low, high, (2, 3))
        expected = np.array(
            [[scale[i // 2, j // 2] * (data[i, j] - offset[i // 2, j // 2]) for j in range(6)] for i in range(4)]
        )
        params = {"data": _typed(data, name), "scale": scale, "offset": _typed(offset, name)}
        yield Case("constexpr_blockwise_shift_scale", {}, (expected,), params, IOS18)
    data = RNG.integers(-128, 128, (4, 6)).astype(np.int8)
    scale = np.full((1, 6), 0.5, np.float32)
    yield Case("constexpr_blockwise_shift_scale", {}, (data * 0.5,), {"data": data, "scale": scale}, IOS18)


def _tables() -> Iterator[Case]:
    for bits in (1, 2, 4, 6, 8):
        indices = RNG.integers(0, 2**bits, (3, 5))
        lut = RNG.standard_normal(2**bits).astype(np.float32)
        params = {"indices": _packed(indices, bits), "lut": lut, "shape": np.array([3, 5], np.uint32)}
        yield Case("constexpr_lut_to_dense", {}, (lut[indices],), params, IOS16)
    for bits in (1, 2, 3, 4, 6, 8):
        indices = RNG.integers(0, 2**bits, (6, 2))
        lut = RNG.standard_normal((2, 1, 2**bits, 1)).astype(np.float32)
        expected = np.array([[lut[i // 3, 0, indices[i, j], 0] for j in range(2)] for i in range(6)])
        params = {"indices": _typed(indices, f"uint{bits}"), "lut": lut}
        yield Case("constexpr_lut_to_dense", {}, (expected,), params, IOS18)
    # The documentation's example of vectors of three numbers along axis 1.
    indices = _typed(np.array([[[0, 0], [1, 0]], [[1, 1], [0, 0]]]), "uint1")
    lut = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 2, 3)
    a, b = [0, 1, 2], [3, 4, 5]
    columns = [[a + b, a + a], [b + a, b + a]]
    expected = np.array(columns, np.float32).transpose(0, 2, 1)
    params = {"indices": indices, "lut": lut, "vector_axis": 1}
    yield Case("constexpr_lut_to_dense", {}, (expected,), params, IOS18)


def _sparse() -> Iterator[Case]:
    mask = RNG.integers(0, 2, (3, 7))
    values = RNG.standard_normal(int(mask.sum())).astype(np.float32)
    dense = np.zeros((3, 7), np.float32)
    dense[mask != 0] = values
    params = {"nonzero_data": values, "mask": _packed(mask, 1), "shape": np.array([3, 7], np.uint32)}
    yield Case("constexpr_sparse_to_dense", {}, (dense,), params, IOS16)
    bits = _typed(mask, "uint1")
    yield Case("constexpr_sparse_to_dense", {}, (dense,), {"nonzero_data": values, "mask": bits}, IOS18)
    indices = RNG.integers(0, 4, int(mask.sum()))
    lut = RNG.standard_normal((1, 1, 4, 1)).astype(np.float32)
    params = {"indices_mask": bits, "indices_nonzero_data": _typed(indices, "uint2"), "lut": lut}
    looked_up = dense.copy()
    looked_up[mask != 0] = lut.reshape(-1)[indices]
    yield Case("constexpr_lut_to_sparse", {}, (looked_up,), params, IOS18, finish=_dense)
    data = RNG.integers(-128, 128, int(mask.sum())).astype(np.int8)
    scale = RNG.uniform(0.1, 2, (1, 7)).astype(np.float32)
    dequantized = dense.copy()
    dequantized[mask != 0] = data * np.broadcast_to(scale, (3, 7))[mask != 0]
    params = {"data_mask": bits, "nonzero_data": data, "scale": scale}
    yield Case("constexpr_sparse_blockwise_shift_scale", {}, (dequantized,), params, IOS18, finish=_dense)


def _dense(sparse: Any) -> Any:
    mask, values = sparse
    return Builder.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)
