"""SpeechT5's table of positions, the same on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def settle(model: Any) -> None:
    """Replace the tables that transformers computed for a SpeechT5ForTextToSpeech, whose last bits depend on the
    processor, and with them angles at far positions."""
    for prenet in (model.speecht5.encoder.prenet, model.speecht5.decoder.prenet):
        table = prenet.encode_positions.pe
        table.copy_(positions(table))


def positions(table: Tensor) -> Tensor:
    """What transformers' SpeechT5ScaledPositionalEncoding makes, [1, positions, size] as `table`: rates and angles in
    float32 as there, but each exponential, sine and cosine rounded from float64."""
    _, count, size = table.shape
    steps = np.arange(0, size, 2, dtype=np.float32) * np.float32(-(np.log(10000.0) / size))
    rates = np.exp(steps.astype(np.float64)).astype(np.float32)
    angles = (np.arange(count, dtype=np.float32)[:, None] * rates).astype(np.float64)
    made = np.empty((count, size), np.float32)
    made[:, 0::2], made[:, 1::2] = np.sin(angles), np.cos(angles)
    return torch.from_numpy(made)[None]
