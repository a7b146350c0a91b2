"""Small packages for the tests: one op built with coremltools' Builder, or a traced torch module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import torch
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import Function, Program, types

from jtts_export import mil

Array = np.ndarray
_TYPES = {
    np.dtype(np.float32): types.fp32,
    np.dtype(np.float16): types.fp16,
    np.dtype(np.int32): types.int32,
    np.dtype(np.bool_): types.bool,
}


@dataclass(frozen=True)
class Case:
    """One op with run-time `inputs` (a tuple of arrays for a tuple parameter), constant `params` and its results.

    `finish` makes results that a package can give, where the op's own are of a type that it cannot.
    """

    op: str
    inputs: Mapping[str, Array | tuple[Array, ...]]
    expected: tuple[Any, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    target: Any = ct.target.iOS17
    tolerance: float = 1e-5
    finish: Callable[[Any], Any] = lambda made: made


def flat_inputs(case: Case, prefix: str) -> dict[str, Array]:
    """The case's inputs under names of their own, a tuple's arrays one by one."""
    flat: dict[str, Array] = {}
    for name, value in case.inputs.items():
        items = value if isinstance(value, tuple) else (value,)
        flat.update({f"{prefix}_{name}_{number}": np.asarray(item) for number, item in enumerate(items)})
    return flat


def run_all(cases: Sequence[Case], path: Path) -> list[list[Array]]:
    """The results of cases of one target, from one package that holds them all: building takes most of the time."""
    inputs: dict[str, Array] = {}
    for number, case in enumerate(cases):
        inputs |= flat_inputs(case, f"in{number}")
    placeholders = {
        name: Builder.placeholder(shape=array.shape or (1,), dtype=_TYPES[array.dtype])
        for name, array in inputs.items()
    }
    counts = []
    with Function(placeholders, opset_version=cases[0].target) as function:
        outputs: list[Any] = []
        for number, case in enumerate(cases):
            made = _add(case, function.inputs, number)
            counts.append(len(made))
            outputs += made
        function.set_outputs(outputs)
    program = Program()
    program.add_function("main", function)
    main = mil.load(save(program, path, target=cases[0].target)).functions["main"]
    results = iter(main.run({name: array.reshape(array.shape or (1,)) for name, array in inputs.items()}).values())
    return [[next(results) for _ in range(count)] for count in counts]


def _add(case: Case, inputs: Mapping[str, Any], number: int) -> list[Any]:
    values = [
        inputs[name] if array.ndim else Builder.squeeze(x=inputs[name], axes=[0])
        for name, array in flat_inputs(case, f"in{number}").items()
    ]
    arguments = {
        name: tuple(values.pop(0) for _ in value) if isinstance(value, tuple) else values.pop(0)
        for name, value in case.inputs.items()
    }
    made = case.finish(getattr(Builder, case.op)(**arguments, **case.params, name=f"out{number}"))
    return list(made) if isinstance(made, tuple | list) else [made]


def save(program: Any, path: Path, *, target: Any = ct.target.iOS17) -> Path:
    """Saves a MIL program as it is, without any pass over it."""
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.save(str(path))
    return path


def convert(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, **options: Any) -> Path:
    """Saves a traced torch module; its inputs are named x0, x1, ... Options are those of `save_model`."""
    return save_model(module, {f"x{number}": tensor for number, tensor in enumerate(inputs)}, path, **options)


def save_model(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    path: Path,
    *,
    precision: str = "FLOAT32",
    target: Any = ct.target.iOS17,
) -> Path:
    """Saves a traced torch module with the passes of coremltools."""
    traced = torch.jit.trace(module.eval(), tuple(inputs.values()), check_trace=False)
    half = precision == "FLOAT16"
    model = ct.convert(
        traced,
        inputs=[
            ct.TensorType(name=name, shape=tensor.shape, dtype=np.float16 if half else tensor.numpy().dtype)
            for name, tensor in inputs.items()
        ],
        convert_to="mlprogram",
        minimum_deployment_target=target,
        compute_precision=getattr(ct.precision, precision),
        skip_model_load=True,
    )
    model.save(str(path))
    return path
