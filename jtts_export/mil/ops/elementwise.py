"""Arithmetic, comparisons and functions of single elements."""

from collections.abc import Callable
from typing import Any

import torch

from jtts_export.mil.errors import UnknownParameter
from jtts_export.mil.ops.arguments import along, choose


def real_div(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x / y; integers stay integers, rounded toward zero."""
    if x.is_floating_point() or y.is_floating_point():
        return x / y
    return torch.div(x, y, rounding_mode="trunc")


def floor_div(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """floor(x / y), also for floats."""
    return torch.div(x, y, rounding_mode="floor")


def mod(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x - floor(x / y) y: the sign is that of y."""
    return torch.remainder(x, y)


def clip(x: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor) -> torch.Tensor:
    """x between alpha and beta."""
    return x.maximum(alpha.to(x.dtype)).minimum(beta.to(x.dtype))


def threshold(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """The larger of x and alpha."""
    return x.maximum(alpha.to(x.dtype))


def inverse(x: torch.Tensor, epsilon: torch.Tensor | float = 1e-4) -> torch.Tensor:
    """1 / (x + epsilon)."""
    return 1 / (x + epsilon)


def log(x: torch.Tensor, epsilon: torch.Tensor | float = 1e-45) -> torch.Tensor:
    """log(x + epsilon)."""
    return torch.log(x + epsilon)


def rsqrt(x: torch.Tensor, epsilon: torch.Tensor | float = 1e-12) -> torch.Tensor:
    """1 / sqrt(x + epsilon)."""
    return 1 / torch.sqrt(x + epsilon)


_CASTS = {
    "bool": torch.bool,
    "fp16": torch.float32,
    "fp32": torch.float32,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "uint16": torch.int32,
}


def cast(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """x in another type; floats become integers toward zero, and fp16 is rounded by the run's mode alone."""
    return x.to(choose("dtype", dtype, _CASTS))


def quantize(
    input: torch.Tensor,
    scale: torch.Tensor,
    output_dtype: str,
    zero_point: torch.Tensor | None = None,
    axis: torch.Tensor | None = None,
) -> torch.Tensor:
    """clip(round(input / scale) + zero_point) of int8 or uint8."""
    low, high = choose("output_dtype", output_dtype, {"int8": (-128, 127), "uint8": (0, 255)})
    scale, zero = _affine(input, scale, zero_point, axis)
    return (torch.round(input / scale) + zero).clamp(low, high)


def dequantize(
    input: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None = None,
    axis: torch.Tensor | None = None,
) -> torch.Tensor:
    """scale * (input - zero_point)."""
    scale, zero = _affine(input, scale, zero_point, axis)
    return scale * (input.float() - zero)


def _affine(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, axis: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    if scale.ndim and axis is None:
        raise UnknownParameter("a vector of scales without an axis")
    position = int(axis) if axis is not None else 0
    zero = torch.zeros(()) if zero_point is None else zero_point.float()
    return along(scale, x.ndim, position), along(zero, x.ndim, position)


OPS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": real_div,
    "floor_div": floor_div,
    "mod": mod,
    "pow": lambda x, y: torch.pow(x, y),
    "maximum": lambda x, y: torch.maximum(x, y),
    "minimum": lambda x, y: torch.minimum(x, y),
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "greater_equal": lambda x, y: x >= y,
    "logical_and": lambda x, y: torch.logical_and(x, y),
    "logical_or": lambda x, y: torch.logical_or(x, y),
    "logical_xor": lambda x, y: torch.logical_xor(x, y),
    "logical_not": lambda x: torch.logical_not(x),
    "abs": lambda x: torch.abs(x),
    "ceil": lambda x: torch.ceil(x),
    "floor": lambda x: torch.floor(x),
    "round": lambda x: torch.round(x),
    "sign": lambda x: torch.sign(x),
    "square": lambda x: x * x,
    "sqrt": lambda x: torch.sqrt(x),
    "exp": lambda x: torch.exp(x),
    "exp2": lambda x: torch.exp2(x),
    "erf": lambda x: torch.erf(x),
    "sin": lambda x: torch.sin(x),
    "cos": lambda x: torch.cos(x),
    "tan": lambda x: torch.tan(x),
    "asin": lambda x: torch.asin(x),
    "acos": lambda x: torch.acos(x),
    "atan": lambda x: torch.atan(x),
    "sinh": lambda x: torch.sinh(x),
    "cosh": lambda x: torch.cosh(x),
    "tanh": lambda x: torch.tanh(x),
    "atanh": lambda x: torch.atanh(x),
    "identity": lambda x: x,
    "cast": cast,
    "clip": clip,
    "dequantize": dequantize,
    "inverse": inverse,
    "log": log,
    "quantize": quantize,
    "rsqrt": rsqrt,
    "threshold": threshold,
}
