"""Decoding of the constants in a program: protobuf values to torch tensors and strings."""

import math
from typing import Any

import numpy as np
import torch

from jtts_export.mil.blobs import BlobFiles, unpack_bits
from jtts_export.mil.errors import BadPackage
from jtts_export.mil.types import STRING, Dtype, dims_of, dtype_of

Value = torch.Tensor | str | tuple["Value", ...]


def decode(value: Any, blobs: BlobFiles) -> Value:
    """A protobuf Value as a tensor of its compute dtype, a string, or a tuple of these.

    fp16 constants become float32 with the same values. Raises `BadPackage` for a damaged value.
    """
    kind = value.type.WhichOneof("type")
    if kind == "tensorType":
        return _tensor(value, blobs)
    if kind == "listType":
        return tuple(decode(item, blobs) for item in value.immediateValue.list.values)
    if kind == "tupleType":
        return tuple(decode(item, blobs) for item in value.immediateValue.tuple.values)
    raise BadPackage(f"a constant of kind {kind!r} is not one that this interpreter reads")


def _tensor(value: Any, blobs: BlobFiles) -> Value:
    tensor_type = value.type.tensorType
    shape = dims_of(tensor_type)
    fixed = tuple(dim for dim in shape if dim is not None)
    if len(fixed) != len(shape):
        raise BadPackage("a constant without a fixed shape")
    if tensor_type.dataType == STRING:
        texts = value.immediateValue.tensor.strings.values
        return texts[0] if not shape else tuple(texts)
    dtype = dtype_of(tensor_type.dataType)
    if value.WhichOneof("value") == "blobFileValue":
        blob = value.blobFileValue
        array = blobs.read(blob.fileName, blob.offset, dtype, fixed)
    else:
        array = _immediate(value.immediateValue.tensor, dtype, fixed)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(fixed)).to(dtype.compute)


def _immediate(tensor: Any, dtype: Dtype, shape: tuple[int, ...]) -> np.ndarray:
    count = math.prod(shape)
    field = tensor.WhichOneof("value")
    if field is None:
        array = np.zeros(0, dtype.stored)
    elif field == "bytes":
        packed = np.frombuffer(tensor.bytes.values, np.uint8)
        if dtype.bits < 8:
            array = unpack_bits(packed, dtype.bits, count, signed=dtype.name == "int4")
        else:
            array = packed.view(dtype.stored).copy()
    else:
        array = np.array(getattr(tensor, field).values).astype(dtype.stored)
    if array.size != count:
        raise BadPackage(f"a constant of shape {shape} holds {array.size} numbers")
    return array.reshape(shape)
