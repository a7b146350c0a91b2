"""Data types and tensor types of MIL, and the torch types that compute them."""

from dataclasses import dataclass

import numpy as np
import torch

from jtts_export.mil.errors import BadPackage


@dataclass(frozen=True)
class Dtype:
    """One data type of MIL.

    `name` is MIL's own name, `bits` the size of one element on disk, `stored` the type of the bytes on disk
    (one element a byte after unpacking, where `bits` is below 8) and `compute` the type of torch tensors.
    Unsigned types wider than a byte are computed in the next wider signed type: torch has few ops for them.
    """

    name: str
    bits: int
    stored: np.dtype
    compute: torch.dtype

    @property
    def is_fp16(self) -> bool:
        return self.name == "fp16"


def _dtype(name: str, bits: int, stored: type, compute: torch.dtype) -> Dtype:
    return Dtype(name, bits, np.dtype(stored), compute)


# Numbers of the enum DataType in MIL.proto.
DTYPES = {
    1: _dtype("bool", 8, np.bool_, torch.bool),
    10: _dtype("fp16", 16, np.float16, torch.float32),
    11: _dtype("fp32", 32, np.float32, torch.float32),
    21: _dtype("int8", 8, np.int8, torch.int8),
    22: _dtype("int16", 16, np.int16, torch.int16),
    23: _dtype("int32", 32, np.int32, torch.int32),
    25: _dtype("int4", 4, np.int8, torch.int8),
    31: _dtype("uint8", 8, np.uint8, torch.uint8),
    32: _dtype("uint16", 16, np.uint16, torch.int32),
    33: _dtype("uint32", 32, np.uint32, torch.int64),
    35: _dtype("uint4", 4, np.uint8, torch.uint8),
    36: _dtype("uint2", 2, np.uint8, torch.uint8),
    37: _dtype("uint1", 1, np.uint8, torch.uint8),
    38: _dtype("uint6", 6, np.uint8, torch.uint8),
    39: _dtype("uint3", 3, np.uint8, torch.uint8),
}
STRING = 2


def dtype_of(number: int) -> Dtype:
    """The data type for a number of the enum; `BadPackage` for one that no op here computes."""
    if number not in DTYPES:
        raise BadPackage(f"data type {number} of MIL is not one that this interpreter computes")
    return DTYPES[number]


@dataclass(frozen=True)
class DimRange:
    """A flexible dimension with its allowed sizes; `high` is None without a limit."""

    low: int
    high: int | None


Dim = int | DimRange | None


@dataclass(frozen=True)
class TensorType:
    """Type of an input, output or state.

    `dtype` is MIL's name ("fp16", "fp32", "int32", "bool", ...). A dimension is an int where it is fixed, a
    `DimRange` where the package gives a range, None where nothing is known. `enumerated` lists the only
    shapes allowed, if the package does.
    """

    dtype: str
    shape: tuple[Dim, ...]
    enumerated: tuple[tuple[int, ...], ...] = ()


def dims_of(tensor_type: object) -> tuple[int | None, ...]:
    """Dimensions of a protobuf TensorType, None where unknown."""
    return tuple(
        dim.constant.size if dim.WhichOneof("dimension") == "constant" else None
        for dim in tensor_type.dimensions  # type: ignore[attr-defined]
    )
