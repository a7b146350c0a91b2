"""Normalizations."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from jtts_export.mil.ops.arguments import along, ints

Tensor = torch.Tensor


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    """x `[batch, channels, ...]` by the given statistics of the channels."""
    normal = (x - along(mean, x.ndim, 1)) / torch.sqrt(along(variance, x.ndim, 1) + epsilon)
    return _affine(normal, gamma, beta)


def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: Tensor | float = 1e-5
) -> Tensor:
    """x `[batch, channels, *sizes]` by the statistics of each channel of each item."""
    return _affine(_standard(x, list(range(2, x.ndim)), epsilon), gamma, beta)


def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | float = 1e-5,
) -> Tensor:
    """x by its statistics over `axes` (all by default); gamma and beta have the sizes of these axes."""
    over = sorted(axis % x.ndim for axis in ints(axes, list(range(x.ndim))))
    shape = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    normal = _standard(x, over, epsilon)
    scaled = normal if gamma is None else normal * gamma.reshape(shape)
    return scaled if beta is None else scaled + beta.reshape(shape)


def l2_norm(x: Tensor, epsilon: Tensor | float = 1e-6) -> Tensor:
    """x divided by the L2 norm over its last three axes."""
    return x / torch.sqrt(x.square().sum((-3, -2, -1), keepdim=True) + epsilon)


def local_response_norm(
    x: Tensor, size: Tensor, alpha: Tensor | float = 1e-4, beta: Tensor | float = 0.75, k: Tensor | float = 1.0
) -> Tensor:
    """x `[batch, channels, ...]` divided by (k + alpha / size * sum of squares of `size` channels) ^ beta."""
    return F.local_response_norm(x, int(size), float(alpha), float(beta), float(k))


def _standard(x: Tensor, axes: list[int], epsilon: Tensor | float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt(centred.square().mean(axes, keepdim=True) + epsilon)


def _affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    scaled = x if gamma is None else x * along(gamma, x.ndim, 1)
    return scaled if beta is None else scaled + along(beta, x.ndim, 1)


OPS: dict[str, Callable[..., Any]] = {
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "l2_norm": l2_norm,
    "layer_norm": layer_norm,
    "local_response_norm": local_response_norm,
}
