"""Compressed weights: the `constexpr_` ops of iOS 16 (parameters as packed bytes) and iOS 18."""

import math
from collections.abc import Callable
from typing import Any

import torch

from jtts_export.mil.blobs import unpack_bits
from jtts_export.mil.errors import UnknownParameter
from jtts_export.mil.ops.arguments import along, choose, ints

Tensor = torch.Tensor


def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor) -> Tensor:
    """scale * (quantized_data - zero_point), one scale or one along `axis`."""
    rank, position = quantized_data.ndim, int(axis)
    return along(scale, rank, position) * (quantized_data.float() - along(zero_point.float(), rank, position))


def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """scale * (data - offset), one scale a block; data's sizes are whole multiples of scale's."""
    blocks, per_block = _blocked(list(data.shape), list(scale.shape))
    values = data.float().reshape(blocks)
    shifted = values if offset is None else values - offset.float().reshape(per_block)
    return (scale.reshape(per_block) * shifted).reshape(data.shape)


def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    """fp16 as fp32, the only cast there is."""
    choose("output_dtype", output_dtype, {"fp32": None})
    return source_val


def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: Tensor | None = None
) -> Tensor:
    """Values of a table at indices: of iOS 16 with `shape` and packed indices, of iOS 18 with tables by block."""
    if shape is not None:
        sizes = ints(shape)
        bits = int(math.log2(lut.numel()))
        unpacked = unpack_bits(indices.numpy(), bits, math.prod(sizes))
        return lut[torch.from_numpy(unpacked).long()].reshape(sizes)
    vector = lut.shape[-1]
    if vector > 1 and vector_axis is None:
        raise UnknownParameter("tables of vectors without an axis")
    values = _look_up(indices, lut)
    if vector == 1:
        return values[..., 0]
    position = int(vector_axis) % indices.ndim  # type: ignore[arg-type]
    return values.movedim(-1, position + 1).flatten(position, position + 1)


def constexpr_sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Tensor | None = None) -> Tensor:
    """Zeros but for `nonzero_data` where the mask is set; iOS 16 packs the mask and gives `shape`."""
    if shape is not None:
        sizes = ints(shape)
        mask = torch.from_numpy(unpack_bits(mask.numpy(), 1, math.prod(sizes))).reshape(sizes)
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


def constexpr_lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask and the values of sparse indices, looked up."""
    indices = constexpr_sparse_to_dense(indices_nonzero_data, indices_mask)
    dense = constexpr_lut_to_dense(indices, lut, None, vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = mask.repeat_interleave(lut.shape[-1], int(vector_axis))
    return mask, dense[mask != 0]


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask and the values of sparse quantized data, dequantized."""
    data = constexpr_sparse_to_dense(nonzero_data, data_mask)
    return data_mask, constexpr_blockwise_shift_scale(data, scale, offset)[data_mask != 0]


def _blocked(sizes: list[int], scales: list[int]) -> tuple[list[int], list[int]]:
    """The shape of data split into blocks, and the shape of the scales that fits it."""
    blocks, per_block = [], []
    for size, count in zip(sizes, scales, strict=True):
        blocks += [count, size // count]
        per_block += [count, 1]
    return blocks, per_block


def _look_up(indices: Tensor, lut: Tensor) -> Tensor:
    """`[*indices.shape, vector]`: each index in the table of its block; lut is `[*blocks, palettes, vector]`."""
    palettes, vector = lut.shape[-2:]
    table = torch.zeros((), dtype=torch.int64)
    for axis, (size, count) in enumerate(zip(indices.shape, lut.shape[:-2], strict=True)):
        block = torch.arange(size) // (size // count)
        table = table * count + along(block, indices.ndim, axis)
    return lut.reshape(-1, vector)[table * palettes + indices.long()]


OPS: dict[str, Callable[..., Any]] = {
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
    "constexpr_cast": constexpr_cast,
    "constexpr_lut_to_dense": constexpr_lut_to_dense,
    "constexpr_lut_to_sparse": constexpr_lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": constexpr_sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": constexpr_sparse_to_dense,
}
