"""One function of a package: its types, its states and its runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from jtts_export.mil.constants import Constants
from jtts_export.mil.errors import BadInput, Overflow
from jtts_export.mil.interpret import Run
from jtts_export.mil.program import Program, Reference, steps_of
from jtts_export.mil.types import DTYPES, Dim, DimRange, TensorType

Mode = Literal["exact", "fp16"]
State = dict[str, np.ndarray]
_BY_NAME = {dtype.name: dtype for dtype in DTYPES.values()}


@dataclass(frozen=True)
class Function:
    """A function that can be run; `inputs`, `outputs` and `states` are in the order of the program."""

    name: str
    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType]
    states: dict[str, TensorType]
    program: Program
    constants: Constants

    def new_state(self) -> State:
        """Zeros for every state, as Core ML makes them: float32 or integer arrays by name."""
        return {name: _zeros(name, tensor_type) for name, tensor_type in self.states.items()}

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        state: State | None = None,
        mode: Mode = "exact",
        wanted: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Computes the outputs, or the values named in `wanted` (outputs, inner values, constants).

        Mode "exact" computes values declared fp16 in float32 without rounding; "fp16" rounds each of them to fp16
        after its op and raises `Overflow` where one leaves the range. Floats come back as float32 in both modes,
        int32 as int32. `state` is replaced entry by entry when the run is over; a run that fails leaves it.
        Raises `BadInput` for inputs, states or names that do not fit.
        """
        if mode not in ("exact", "fp16"):
            raise BadInput(f"{self.name}: a mode named {mode!r}, not exact or fp16")
        names = tuple(self.outputs if wanted is None else wanted)
        self._check_names(names)
        scope = self._tensors(inputs, mode)
        states = self._states(state, mode)
        taps = frozenset(names)
        with torch.no_grad():
            run = Run(self.program, self.constants, states, mode == "fp16", taps)
            results = dict(zip(self.program.block.outputs, run.block(self.program.block, dict(scope)), strict=True))
            # Copied: a result may share its memory with a weight or a state.
            found = {name: _array(self._result(name, results, scope, run)) for name in names}
        if state is not None:
            state.update((name, tensor.contiguous().numpy()) for name, tensor in states.items())
        return found

    def weights(self, least: int = 1) -> Iterator[tuple[str, np.ndarray]]:
        """Constants of at least so many values, dequantized, each under the name of what is computed from it and of
        the parameter that it is there: the same names whatever the weights are held by."""
        run = Run(self.program, self.constants, {}, rounds=False)
        for step in steps_of(self.program.block):
            for parameter, argument in step.arguments:
                if isinstance(argument, Reference) and argument.name in self.program.constants:
                    with torch.no_grad():
                        value = run.value(argument.name, {})
                    if isinstance(value, torch.Tensor) and value.numel() >= least:
                        yield f"{step.outputs[0].name}.{parameter}", value.numpy()

    def _result(self, name: str, results: Mapping, scope: Mapping, run: Run) -> torch.Tensor:
        for values in (results, run.tapped, scope):
            if name in values:
                return values[name]
        return run.value(name, {})

    def _check_names(self, names: Sequence[str]) -> None:
        known = (self.program.outputs, self.program.constants, self.inputs)
        unknown = [name for name in names if not any(name in group for group in known)]
        if unknown:
            raise BadInput(f"{self.name}: no values named {', '.join(unknown)}")

    def _tensors(self, inputs: Mapping[str, np.ndarray], mode: Mode) -> dict[str, torch.Tensor]:
        _check_same("inputs", self.name, inputs, self.inputs)
        # Copied: an input may go into a state, which outlives the run.
        return {name: _tensor(name, np.array(inputs[name]), self.inputs[name], mode) for name in self.inputs}

    def _states(self, state: State | None, mode: Mode) -> dict[str, torch.Tensor]:
        if not self.states:
            return {}
        if state is None:
            raise BadInput(f"{self.name}: has states ({', '.join(self.states)}); pass new_state()")
        missing = [name for name in self.states if name not in state]
        if missing:
            raise BadInput(f"{self.name}: the state lacks {', '.join(missing)}")
        return {name: _tensor(name, np.asarray(state[name]), self.states[name], mode) for name in self.states}


def _check_same(kind: str, function: str, given: Mapping, expected: Mapping) -> None:
    missing = [name for name in expected if name not in given]
    unknown = [name for name in given if name not in expected]
    if missing or unknown:
        problems = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(
            unknown
        )
        raise BadInput(f"{function}: {kind}: {'; '.join(problems)} (it takes {', '.join(expected) or 'none'})")


def _tensor(name: str, array: np.ndarray, expected: TensorType, mode: Mode) -> torch.Tensor:
    _check_shape(name, array.shape, expected)
    dtype = _BY_NAME[expected.dtype]
    kinds = "fiub" if dtype.compute.is_floating_point else "b" if dtype.name == "bool" else "iub"
    if array.dtype.kind not in kinds:
        raise BadInput(f"{name}: {array.dtype} cannot become {expected.dtype} without loss")
    if dtype.compute.is_floating_point:
        tensor = torch.from_numpy(np.ascontiguousarray(array, np.float32)).reshape(array.shape)
        return _round_input(name, tensor) if mode == "fp16" and dtype.is_fp16 else tensor
    if array.dtype != dtype.stored:
        cast = array.astype(dtype.stored)
        if not np.array_equal(cast, array):
            raise BadInput(f"{name}: numbers outside the range of {expected.dtype}")
        array = cast
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype.compute).reshape(array.shape)


def _round_input(name: str, tensor: torch.Tensor) -> torch.Tensor:
    rounded = tensor.half().float()
    lost = tensor.isfinite() & ~rounded.isfinite()
    if lost.any():
        raise Overflow("input", name, None, f"{int(lost.sum())} values up to {tensor[lost].abs().max().item():.6g}")
    return rounded


def _check_shape(name: str, shape: tuple[int, ...], expected: TensorType) -> None:
    fits = len(shape) == len(expected.shape) and all(map(_allows, expected.shape, shape))
    if not fits or (expected.enumerated and shape not in expected.enumerated):
        raise BadInput(f"{name}: shape {shape} does not fit {expected.enumerated or expected.shape}")


def _allows(dim: Dim, size: int) -> bool:
    if isinstance(dim, DimRange):
        return dim.low <= size and (dim.high is None or size <= dim.high)
    return dim is None or dim == size


def _zeros(name: str, tensor_type: TensorType) -> np.ndarray:
    shape = tuple(dim for dim in tensor_type.shape if isinstance(dim, int))
    if len(shape) != len(tensor_type.shape):
        raise BadInput(f"the state {name!r} has no fixed shape")
    return torch.zeros(shape, dtype=_BY_NAME[tensor_type.dtype].compute).numpy()


def _array(tensor: object) -> np.ndarray:
    return tensor.numpy().copy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)
