"""Random draws shared by references and runtimes, so that both can be given the same one. numpy only."""

from __future__ import annotations

import numpy as np

NOISE_PERIOD = 65_536  # samples: 2.7 s at 24 kHz, longer than any unvoiced stretch
NOISE_HARMONICS = 9
NOISE_SCALE = 1 / 32


def source_noise(seed: int = 0) -> np.ndarray:
    """Unit normal noise for Kokoro's harmonic source, int8 [NOISE_PERIOD, NOISE_HARMONICS].

    Values are in steps of NOISE_SCALE and clip at 3.97 standard deviations: as int8 it costs a released
    graph 0.6 MB, and every variant bakes in exactly the same draw.
    """
    draw = np.random.default_rng(seed).standard_normal((NOISE_PERIOD, NOISE_HARMONICS))
    return np.clip(np.round(draw / NOISE_SCALE), -127, 127).astype(np.int8)


def prenet_mask(steps: int, layers: int, units: int, keep: float, seed: int = 0) -> np.ndarray:
    """Dropout of SpeechT5's decoder prenet, which is never off: u8 [steps, layers, units], 1 keeps a unit."""
    return (np.random.default_rng(seed).random((steps, layers, units)) < keep).astype(np.uint8)
