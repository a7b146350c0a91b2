"""Constants of a package: decoded on first use, dequantized, and kept within a budget of memory."""

from collections.abc import Callable, Hashable
from typing import Any

import torch

from jtts_export.mil.blobs import BlobFiles
from jtts_export.mil.program import Literal
from jtts_export.mil.values import Value, decode


class Constants:
    """Decoded constants, shared by the functions of a package that name the same bytes.

    Once `budget_bytes` are held nothing more is kept: a model reads its weights in the same order every time, so
    that throwing out the oldest would keep nothing at all.
    """

    def __init__(self, blobs: BlobFiles, budget_bytes: int) -> None:
        self._blobs = blobs
        self._free_bytes = budget_bytes
        self._kept: dict[Hashable, Any] = {}

    def literal(self, literal: Literal) -> Value:
        """The decoded value of a constant; weights of one place in a file are decoded once."""
        value = literal.value
        in_file = value.WhichOneof("value") == "blobFileValue"
        key = (value.blobFileValue.fileName, value.blobFileValue.offset) if in_file else literal
        return self.keep(key, lambda: decode(value, self._blobs))

    def keep(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once for `key` while the budget lasts."""
        if key in self._kept:
            return self._kept[key]
        made = make()
        size = _bytes(made)
        if size <= self._free_bytes:
            self._kept[key] = made
            self._free_bytes -= size
        return made


def _bytes(made: Any) -> int:
    if isinstance(made, torch.Tensor):
        return made.numel() * made.element_size()
    return sum(_bytes(item) for item in made) if isinstance(made, tuple) else len(made)
