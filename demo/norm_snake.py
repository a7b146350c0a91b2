"""AdaIN and snake as one operation with a gradient, by norm_snake.cpp where a C++ compiler is found."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jtts_export.models.kokoro.adain import snake

_SOURCE = Path(__file__).with_suffix(".cpp")
# What -ffast-math allows, without its name: a library linked by that makes the whole process drop denormals.
_ANY_ORDER = ("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math")
_FLAGS = ("-O3", "-march=native", *_ANY_ORDER, "-shared", "-fPIC")
_WIDTHS = (32, 64)


def norm_snake(x: Tensor, affine: Tensor, alpha: Tensor) -> Tensor:
    """x: [batch, time, channels], float32 or bfloat16; affine: [batch, 2 * channels], the style's gamma and beta;
    alpha: [1, channels, 1]. Returns what x's dtype holds of it."""
    gamma, beta = affine.float().chunk(2, dim=1)
    gamma = 1 + gamma
    if _library() is not None and x.shape[2] in _WIDTHS:
        return _NormSnake.apply(x, gamma, beta, alpha.flatten())
    wide = x.float()
    var, mean = torch.var_mean(wide, dim=1, keepdim=True, correction=0)
    y = (wide - mean) * (torch.rsqrt(var + 1e-5) * gamma.unsqueeze(1)) + beta.unsqueeze(1)
    return snake(y, alpha.transpose(1, 2)).to(x.dtype)


@functools.cache
def _library() -> ctypes.CDLL | None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    folder = tempfile.mkdtemp(prefix="norm-snake")
    built = Path(folder) / "norm_snake.so"
    subprocess.run([compiler, *_FLAGS, str(_SOURCE), "-o", str(built)], check=True)
    library = ctypes.CDLL(str(built))
    shutil.rmtree(folder)
    return library


class _NormSnake(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, alpha: Tensor) -> Tensor:
        x, gamma, beta = x.contiguous(), gamma.contiguous(), beta.contiguous()
        y, mean, rstd = torch.empty_like(x), torch.empty_like(gamma), torch.empty_like(gamma)
        _call("forward", x, (x, gamma, beta, alpha, y, mean, rstd))
        ctx.save_for_backward(x, gamma, beta, alpha, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, gamma, beta, alpha, mean, rstd = ctx.saved_tensors
        dx = torch.empty_like(x)
        dgamma, dbeta, dalpha = (torch.empty_like(gamma) for _ in range(3))
        dy = grads[0].to(x.dtype).contiguous()
        _call("backward", x, (x, dy, gamma, beta, alpha, mean, rstd, dx, dgamma, dbeta, dalpha))
        return dx, dgamma, dbeta, dalpha.sum(dim=0)


def _call(name: str, x: Tensor, tensors: tuple[Tensor, ...]) -> None:
    library = _library()
    assert library is not None
    batch, time, channels = x.shape
    function = getattr(library, f"{name}_{str(x.dtype).removeprefix('torch.')}_{channels}")
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    function(*pointers, ctypes.c_int64(batch), ctypes.c_int64(time))
