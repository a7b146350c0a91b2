"""The PyTorch reference as a runner of validation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from jtts_export.runtime.draws import NOISE_SCALE, source_noise

from .model import Kokoro


class Reference:
    """Runs the reference in eager mode; numpy in, numpy out.

    noise_seed: which draw of the source's noise; 0 is the one baked into exported graphs.
    double: compute in float64, on a copy.
    """

    def __init__(self, model: Kokoro, threads: int, noise_seed: int = 0, double: bool = False) -> None:
        self.dtype = torch.float64 if double else torch.float32
        self.model = copy.deepcopy(model).double() if double else model
        self.threads = threads
        self.noise = torch.from_numpy(source_noise(noise_seed)).to(self.dtype) * NOISE_SCALE

    @torch.no_grad()
    def taps(
        self,
        inputs: Mapping[str, np.ndarray],
        wanted: Sequence[str],
        forced: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        torch.set_num_threads(self.threads)
        given = {k: self._tensor(v) for k, v in inputs.items()}
        out = self.model(**given, noise=self.noise, forced={k: self._tensor(v) for k, v in (forced or {}).items()})
        return {name: out[name].numpy() for name in wanted}

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor
