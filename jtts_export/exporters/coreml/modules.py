"""A stage run by the module that it is converted from, in PyTorch: what a package is compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch

from .stage import MAIN, Stage, State


class ModuleNetwork:
    """See stage.Network. dtype: what floats are computed in."""

    def __init__(self, stage: Stage, dtype: torch.dtype = torch.float32) -> None:
        self._functions = stage.functions
        self._modules = {
            name: (function.module if dtype == torch.float32 else copy.deepcopy(function.module).to(dtype)).eval()
            for name, function in stage.functions.items()
        }
        self._dtype = dtype

    @torch.no_grad()
    def run(
        self, inputs: Mapping[str, np.ndarray], function: str = MAIN, state: State | None = None
    ) -> dict[str, np.ndarray]:
        declared, module = self._functions[function], self._modules[function]
        for tensor in declared.states:
            module.get_buffer(tensor.name).copy_(torch.from_numpy((state or {})[tensor.name]))
        outputs = module(*(self._tensor(inputs[tensor.name]) for tensor in declared.inputs))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for tensor in declared.states:
            assert state is not None
            state[tensor.name][...] = module.get_buffer(tensor.name).float().numpy()
        return {
            tensor.name: (value.float() if value.is_floating_point() else value).numpy().copy()
            for tensor, value in zip(declared.outputs, outputs, strict=True)
        }

    def new_state(self, function: str = MAIN) -> State:
        shapes = {tensor.name: tensor.shape for tensor in self._functions[function].states}
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}  # type: ignore[arg-type]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor
