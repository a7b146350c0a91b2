"""Products of matrices and attention."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x `[..., in]` times weight `[out, in]` transposed, plus bias `[out]`."""
    if x.is_floating_point():
        return F.linear(x, weight, bias)
    product = torch.matmul(x, weight.T)
    return product if bias is None else product + bias


def matmul(x: Tensor, y: Tensor, transpose_x: Tensor | bool = False, transpose_y: Tensor | bool = False) -> Tensor:
    """The product of matrices with broadcast batches; a transposition has no effect on vectors."""
    left = x.transpose(-1, -2) if bool(transpose_x) and x.ndim > 1 else x
    right = y.transpose(-1, -2) if bool(transpose_y) and y.ndim > 1 else y
    return torch.matmul(left, right)


def einsum(values: tuple[Tensor, ...], equation: str) -> Tensor:
    """Einstein's sum of two tensors."""
    return torch.einsum(equation, *values)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Attention `[..., L, EV]` of query `[..., L, E]`, key `[..., S, E]`, value `[..., S, EV]`.

    A bool mask says who takes part, a float mask is added; both broadcast to `[..., L, S]`.
    """
    scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, -1), value)


OPS: dict[str, Callable[..., Any]] = {
    "einsum": einsum,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
