"""Weight files of a package: Apple's blob storage format, version 2, read through a memory map.

Layout as written by coremltools (MILBlob): a header of 64 bytes (uint32 count, uint32 version); at each
offset that a program names a record of 64 bytes (uint32 sentinel, uint32 data type, uint64 size in bytes,
uint64 offset of the data, uint64 unused bits at the end of the data).
"""

import math
import struct
from pathlib import Path, PurePosixPath

import numpy as np

from jtts_export.mil.errors import BadPackage
from jtts_export.mil.types import Dtype

_RECORD = struct.Struct("<IIQQQ")
_RECORD_BYTES = 64
_SENTINEL = 0xDEADBEEF
_VERSION = 2
_PREFIX = "@model_path/"
# Numbers of the enum BlobDataType in MILBlob.
_BLOB_DTYPES = {
    1: "fp16", 2: "fp32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 8: "int4", 9: "uint1", 10: "uint2",
    11: "uint4", 12: "uint3", 13: "uint6", 14: "int32", 15: "uint32",
}  # fmt: skip


def unpack_bits(packed: np.ndarray, bits: int, count: int, *, signed: bool = False) -> np.ndarray:
    """`count` integers of `bits` bits each from a uint8 array, lowest bits first; uint8 `[count]`, or int8."""
    flat = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    values = np.packbits(flat, axis=1, bitorder="little")[:, 0]
    if not signed:
        return values
    shift = 8 - bits
    return (values << shift).view(np.int8) >> shift


class BlobFiles:
    """The weight files under one model file; each is mapped once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, np.ndarray] = {}

    def read(self, name: str, offset: int, dtype: Dtype, shape: tuple[int, ...]) -> np.ndarray:
        """The array that a program stores at `offset` of the file `name` ("@model_path/weights/weight.bin").

        Types of less than a byte come unpacked, one element a byte; all others are views of the file.
        Raises `BadPackage` naming the file.
        """
        data = self._map(name)
        if offset < 0 or offset + _RECORD_BYTES > data.size:
            raise BadPackage(f"{self._path(name)}: a weight's record at byte {offset} is past the end of the file")
        sentinel, number, size, start, _ = _RECORD.unpack(data[offset : offset + _RECORD.size].tobytes())
        if sentinel != _SENTINEL:
            raise BadPackage(f"{self._path(name)}: no weight record at byte {offset}")
        if _BLOB_DTYPES.get(number) != dtype.name:
            found = _BLOB_DTYPES.get(number, f"type {number}")
            raise BadPackage(f"{self._path(name)}: byte {offset} holds {found}, the program expects {dtype.name}")
        count = math.prod(shape)
        if size != (count * dtype.bits + 7) // 8:
            raise BadPackage(f"{self._path(name)}: byte {offset} holds {size} bytes, too many or few for {shape}")
        if start + size > data.size:
            raise BadPackage(f"{self._path(name)}: cut short: a weight ends at byte {start + size} of {data.size}")
        raw = data[start : start + size]
        if dtype.bits < 8:
            return unpack_bits(raw, dtype.bits, count, signed=dtype.name == "int4").reshape(shape)
        return raw.view(dtype.stored).reshape(shape)

    def _path(self, name: str) -> Path:
        parts = PurePosixPath(name.removeprefix(_PREFIX)).parts
        if not name.startswith(_PREFIX) or not parts or ".." in parts or parts[0] == "/":
            raise BadPackage(f"{self._folder}: the program names a weight file outside the package: {name!r}")
        path = self._folder.joinpath(*parts)
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise BadPackage(f"{path}: a link that leads outside the package")
        return path

    def _map(self, name: str) -> np.ndarray:
        if name not in self._maps:
            path = self._path(name)
            try:
                # Copy-on-write: torch wants writable memory, and nothing may reach the file.
                data = np.memmap(path, np.uint8, mode="c")
            except (OSError, ValueError) as error:
                raise BadPackage(f"{path}: cannot be read: {error}") from error
            if data.size < _RECORD_BYTES or struct.unpack("<I", data[4:8].tobytes())[0] != _VERSION:
                raise BadPackage(f"{path}: not a weight file of blob storage version {_VERSION}")
            self._maps[name] = data
        return self._maps[name]
