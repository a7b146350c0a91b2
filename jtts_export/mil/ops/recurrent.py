"""Recurrent layers. All sequences are `[steps, batch, features]`.

A layer of direction "reverse" reads the last step first and gives its outputs in the order in which it makes
them; the reverse half of a bidirectional layer gives them in the order of the input. Both as in coremltools'
tests on devices (mil/ops/tests/iOS14/test_recurrent.py).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from jtts_export.mil.errors import UnknownParameter
from jtts_export.mil.ops.arguments import choose

Tensor = torch.Tensor
Activation = Callable[[Tensor], Tensor]
# Those whose constants MIL leaves unsaid (scaled_tanh, hard_sigmoid) are not defined here.
_ACTIVATIONS: dict[str, Activation] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    direction: str = "forward",
    output_sequence: Tensor | bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs (or the last one), the last hidden and the last cell state; gates in the order i, f, o, z."""
    if peephole is not None or peephole_back is not None:
        raise UnknownParameter("peepholes are not defined here")
    gates = [_activation(name) for name in (recurrent_activation, cell_activation, activation)]
    limit = None if clip is None else float(clip)
    if direction != "bidirectional":
        ordered = x.flip(0) if _is_reverse(direction) else x
        sequence, h, c = _lstm(ordered, initial_h, initial_c, weight_ih, weight_hh, bias, gates, limit)
        return sequence if bool(output_sequence) else h[None], h, c
    if weight_ih_back is None or weight_hh_back is None:
        raise UnknownParameter("a bidirectional layer without weights for the way back")
    (h, h_back), (c, c_back) = initial_h.chunk(2, 1), initial_c.chunk(2, 1)
    sequence, h, c = _lstm(x, h, c, weight_ih, weight_hh, bias, gates, limit)
    back, h_back, c_back = _lstm(x.flip(0), h_back, c_back, weight_ih_back, weight_hh_back, bias_back, gates, limit)
    last_h = torch.cat((h, h_back), 1)
    whole = torch.cat((sequence, back.flip(0)), 2) if bool(output_sequence) else last_h[None]
    return whole, last_h, torch.cat((c, c_back), 1)


def _lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    activations: list[Activation],
    clip: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    gate, cell, out = activations
    size = h.shape[1]
    outputs = []
    for projected in F.linear(x, weight_ih, bias):
        total = torch.addmm(projected, h, weight_hh.T)
        i, f, o = gate(total[:, : 3 * size]).chunk(3, 1)
        z = cell(total[:, 3 * size :])
        if clip is not None:
            z = z.clamp(-clip, clip)
        c = f * c + i * z
        h = o * out(c)
        outputs.append(h)
    return torch.stack(outputs), h, c


def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: Tensor | bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: Tensor | bool = False,
) -> tuple[Tensor, Tensor]:
    """The outputs (or the last one) and the last hidden state; gates in the order r, o, z, with reset before."""
    if bool(reset_after):
        raise UnknownParameter("reset_after = True is not defined here")
    gate, out = _activation(recurrent_activation), _activation(activation)
    size = initial_h.shape[1]
    h, outputs = initial_h, []
    for projected in F.linear(x.flip(0) if _is_reverse(direction) else x, weight_ih, bias):
        r = gate(projected[:, :size] + h @ weight_hh[:size].T)
        z = gate(projected[:, 2 * size :] + h @ weight_hh[2 * size :].T)
        o = out(projected[:, size : 2 * size] + (r * h) @ weight_hh[size : 2 * size].T)
        h = (1 - z) * o + z * h
        outputs.append(h)
    return torch.stack(outputs) if bool(output_sequence) else h[None], h


def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    direction: str = "forward",
    output_sequence: Tensor | bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """The outputs (or the last one) and the last hidden state of a plain recurrent layer."""
    out = _activation(activation)
    h, outputs = initial_h, []
    for projected in F.linear(x.flip(0) if _is_reverse(direction) else x, weight_ih, bias):
        h = out(projected + h @ weight_hh.T)
        outputs.append(h)
    return torch.stack(outputs) if bool(output_sequence) else h[None], h


def _activation(name: str) -> Activation:
    return choose("activation", name, _ACTIVATIONS)


def _is_reverse(direction: str) -> bool:
    return choose("direction", direction, {"forward": False, "reverse": True})


OPS: dict[str, Callable[..., Any]] = {"gru": gru, "lstm": lstm, "rnn": rnn}
