"""Reductions along axes."""

from collections.abc import Callable
from typing import Any

import torch

from jtts_export.mil.ops.arguments import ints

Tensor = torch.Tensor
Reduce = Callable[[Tensor, list[int], bool], Tensor]


def _along_axes(reduce: Reduce) -> Callable[..., Tensor]:
    def op(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | bool = False) -> Tensor:
        return reduce(x, ints(axes, list(range(x.ndim))), bool(keep_dims))

    return op


def _prod(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep_dims)
    return x


def _mean(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return (x if x.is_floating_point() else x.double()).mean(axes, keepdim=keep_dims)


def _l2_norm(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    return (x if x.is_floating_point() else x.double()).square().sum(axes, keepdim=keep_dims).sqrt()


def _arg(reduce: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def op(
        x: Tensor, axis: Tensor | int = -1, keep_dims: Tensor | bool = False, output_dtype: str = "int32"
    ) -> Tensor:
        return reduce(x, dim=int(axis), keepdim=bool(keep_dims))

    return op


OPS: dict[str, Callable[..., Any]] = {
    "reduce_argmax": _arg(torch.argmax),
    "reduce_argmin": _arg(torch.argmin),
    "reduce_l1_norm": _along_axes(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "reduce_l2_norm": _along_axes(_l2_norm),
    "reduce_log_sum": _along_axes(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "reduce_log_sum_exp": _along_axes(lambda x, axes, keep: x.logsumexp(axes, keepdim=keep)),
    "reduce_max": _along_axes(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "reduce_mean": _along_axes(_mean),
    "reduce_min": _along_axes(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "reduce_prod": _along_axes(_prod),
    "reduce_sum": _along_axes(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "reduce_sum_square": _along_axes(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
}
