"""A hash of a checkpoint in memory: of every weight, and of what else it was loaded with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import nn


def sha256(loaded: Any) -> str:
    """Hex sha256 of modules' states, arrays, and plain values, in dataclasses, mappings and sequences."""
    whole = hashlib.sha256()
    _add(whole, "", loaded)
    return whole.hexdigest()


def _add(whole: Any, name: str, value: Any) -> None:
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _add(whole, f"{name}/{key}", value[key])
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _add(whole, f"{name}/{number}", item)
    elif isinstance(value, np.ndarray):
        whole.update(f"{name}\0{value.dtype.str}{value.shape}\0".encode())
        whole.update(np.ascontiguousarray(value).data)
    else:
        whole.update(f"{name}\0{value!r}\n".encode())
