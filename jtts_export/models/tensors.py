"""Tensors from files that others wrote, strictly."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from jtts_export.errors import CheckpointError, first_line


def torch_load(path: Path, name: str, *, mmap: bool = False) -> object:
    """torch.load of tensors only: a file that would run code on loading is refused.

    mmap: leave the tensors' bytes in the file until they are used, where its format allows.
    """
    try:
        mmap = mmap and zipfile.is_zipfile(path)  # torch's older format has no place of its own for each tensor
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # the pickle operation that names a class or a function
            raise CheckpointError(f"{name} holds pickled objects besides tensors; it was not loaded") from error
        raise CheckpointError(f"{name} is damaged or not a PyTorch file") from error
    except Exception as error:  # there is no telling what unpickling damaged bytes raises
        raise CheckpointError(f"{name} is truncated or not a PyTorch file: {first_line(error)}") from error


def safetensors_load(path: Path, name: str) -> dict[str, Tensor]:
    """A safetensors file's tensors, of any dtype, still in the file until they are used."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  it is no dict
    except Exception as error:
        raise CheckpointError(f"{name} is damaged or not a safetensors file: {first_line(error)}") from error


def float32(value: Tensor, what: str) -> Tensor:
    """The values as float32, which must be dense and finite."""
    if value.layout != torch.strided or value.is_nested or value.is_meta:
        raise CheckpointError(f"{what} is not a dense tensor")
    if not value.is_floating_point():
        raise CheckpointError(f"{what} is {value.dtype}, not floating point")
    value = value.detach().float()
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{what} holds NaN or infinite values")
    return value


def check_shape(value: Tensor, expected: Sequence[int], what: str) -> None:
    if list(value.shape) != list(expected):
        raise CheckpointError(f"{what} has shape {list(value.shape)}, expected {list(expected)}")


def check_state(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: str) -> None:
    """Raises CheckpointError unless both hold the same keys, with the same shapes."""
    missing = [key for key in wanted if key not in found]
    extra = [key for key in found if key not in wanted]
    if missing or extra:
        raise CheckpointError(f"{file}: {differences(missing, extra, 'key')}")
    for key, value in found.items():
        check_shape(value, wanted[key].shape, f"{file}: {key}")


def differences(missing: list[str], extra: list[str], what: str) -> str:
    def some(names: list[str]) -> str:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names[:3])}{more}"

    return "; ".join(
        f"{word} {some(names)}" for word, names in (("missing", missing), ("unexpected", extra)) if names
    )
