"""Activations."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from jtts_export.mil.ops.arguments import along, choose

Tensor = torch.Tensor


def elu(x: Tensor, alpha: Tensor) -> Tensor:
    """x above 0, alpha (e^x - 1) below."""
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    """x from 0 up, alpha x below."""
    return torch.where(x >= 0, x, alpha * x)


def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """Leaky ReLU with one slope a channel: x `[batch, channels, ...]`, alpha `[channels]`."""
    return torch.where(x > 0, x, along(alpha, x.ndim, 1) * x)


def clamped_relu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Leaky ReLU of slope alpha, at most beta."""
    return leaky_relu(x, alpha).minimum(beta)


def thresholded_relu(x: Tensor, alpha: Tensor) -> Tensor:
    """x from alpha up, 0 below."""
    return torch.where(x >= alpha, x, torch.zeros_like(x))


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), without overflow."""
    return torch.log1p(torch.exp(-x.abs())) + x.relu()


def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha log(1 + e^(beta x)) with one alpha and beta a channel (axis 1)."""
    return along(alpha, x.ndim, 1) * softplus(along(beta, x.ndim, 1) * x)


def sigmoid_hard(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """alpha x + beta, between 0 and 1."""
    return (alpha * x + beta).clamp(0, 1)


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """GELU, exact or by one of two approximations."""
    forms = {
        "EXACT": lambda: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
        "TANH_APPROXIMATION": lambda: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "SIGMOID_APPROXIMATION": lambda: x * torch.sigmoid(1.702 * x),
    }
    return choose("mode", mode, forms)()


def softmax(x: Tensor, axis: Tensor | int = -1) -> Tensor:
    """Softmax along an axis."""
    return torch.softmax(x, int(axis))


OPS: dict[str, Callable[..., Any]] = {
    "clamped_relu": clamped_relu,
    "elu": elu,
    "gelu": gelu,
    "leaky_relu": leaky_relu,
    "linear_activation": lambda x, alpha, beta: alpha * x + beta,
    "prelu": prelu,
    "relu": lambda x: torch.relu(x),
    "relu6": lambda x: x.clamp(0, 6),
    "scaled_tanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "sigmoid": lambda x: torch.sigmoid(x),
    "sigmoid_hard": sigmoid_hard,
    "silu": lambda x: F.silu(x),
    "softmax": softmax,
    "softplus": softplus,
    "softplus_parametric": softplus_parametric,
    "softsign": lambda x: x / (1 + x.abs()),
    "thresholded_relu": thresholded_relu,
}
