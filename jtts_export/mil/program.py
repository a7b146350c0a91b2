"""A function's protobuf turned into steps that can be run: names resolved, constants found, lifetimes known."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from jtts_export.mil.errors import BadPackage, UnknownOp
from jtts_export.mil.ops import CONTROL, REGISTRY
from jtts_export.mil.types import Dtype, dims_of, dtype_of

# The parameters that hold a layer's weights, in the ops that have any.
_WEIGHTS = ("weight", "weight_ih", "gamma")
# Parameters that are tuples even when the program binds one value.
_TUPLES = {"values", "ref_tensors", "begins", "ends", "end_masks", "loop_vars"}


@dataclass(frozen=True)
class Output:
    """A value that a step makes; `shape` has None where the program leaves a dimension open."""

    name: str
    dtype: Dtype
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Reference:
    """The value `name`, made by an earlier step, an input or a constant."""

    name: str


@dataclass(frozen=True, eq=False)  # compared by identity, by which it is kept once decoded
class Literal:
    """A protobuf Value, of a constant or in the place of an argument; an int for a parameter that MIL has not."""

    value: Any


Argument = Reference | Literal | tuple[Reference | Literal, ...]


@dataclass(frozen=True)
class Step:
    """One op. `drops` are the names that no later step reads; `layer` names the nearest weights (see `Overflow`)."""

    op_type: str
    run: Callable[..., Any] | None
    arguments: tuple[tuple[str, Argument], ...]
    outputs: tuple[Output, ...]
    blocks: tuple["Block", ...]
    drops: tuple[str, ...]
    layer: str | None


@dataclass(frozen=True)
class Block:
    """Steps in order; `inputs` are bound by a loop, `outputs` are the names of the results."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Program:
    """A function's block, its constants (`Literal`s and `constexpr_` steps) and its steps' outputs, both by name."""

    block: Block
    constants: dict[str, Literal | Step]
    outputs: dict[str, Output]


def compile_function(function: Any) -> Program:
    """The steps of a protobuf Function. Raises `UnknownOp` for ops and parameters without a definition."""
    block = function.block_specializations.get(function.opset)
    if block is None:
        raise BadPackage(f"a function without a block for its opset {function.opset!r}")
    constants: dict[str, Literal | Step] = {}
    made: dict[str, Output] = {}
    return Program(_block(block, constants, made, opset_number(function.opset)), constants, made)


def opset_number(opset: str) -> int:
    """Number of an opset's name: "CoreML7" (iOS 17) is 7."""
    digits = opset.removeprefix("CoreML")
    if not digits.isdigit():
        raise BadPackage(f"an opset named {opset!r}, not CoreML and a number")
    return int(digits)


def _block(block: Any, constants: dict[str, Literal | Step], made: dict[str, Output], opset: int) -> Block:
    layer: str | None = None
    steps: list[Step] = []
    for operation in block.operations:
        if operation.type == "const":
            constants[operation.outputs[0].name] = Literal(operation.attributes["val"])
            continue
        step = _step(operation, constants, made, opset)
        if operation.type.startswith("constexpr_"):
            constants.update((output.name, step) for output in step.outputs)
            continue
        layer = _weights(step, constants) or layer
        steps.append(replace(step, layer=layer))
    outputs = tuple(block.outputs)
    return Block(tuple(named.name for named in block.inputs), outputs, _lifetimes(steps, outputs))


def _step(operation: Any, constants: dict[str, Literal | Step], made: dict[str, Output], opset: int) -> Step:
    first = operation.outputs[0].name if operation.outputs else ""
    run = REGISTRY.get(operation.type)
    if run is None and operation.type not in CONTROL:
        raise UnknownOp(operation.type, first)
    arguments = dict(_arguments(operation))
    if run is not None:
        known = inspect.signature(run).parameters
        _check_parameters(operation.type, first, arguments, known)
        if "opset" in known:
            arguments["opset"] = Literal(opset)
    outputs = tuple(_output(named) for named in operation.outputs)
    made.update((output.name, output) for output in outputs)
    blocks = tuple(_block(inner, constants, made, opset) for inner in operation.blocks)
    return Step(operation.type, run, tuple(arguments.items()), outputs, blocks, (), None)


def _check_parameters(op_type: str, made: str, arguments: Iterable[str], known: Any) -> None:
    for name in arguments:
        if name not in known:
            raise UnknownOp(op_type, made, f"no parameter {name!r} is known")
    for name, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and name != "opset" and name not in arguments:
            raise UnknownOp(op_type, made, f"the parameter {name!r} is missing")


def _arguments(operation: Any) -> Iterator[tuple[str, Argument]]:
    for name, argument in operation.inputs.items():
        bound = tuple(_binding(binding) for binding in argument.arguments)
        yield name, bound if name in _TUPLES or len(bound) != 1 else bound[0]
    for name, value in operation.attributes.items():
        if name != "name":
            yield name, Literal(value)


def _binding(binding: Any) -> Reference | Literal:
    return Reference(binding.name) if binding.WhichOneof("binding") == "name" else Literal(binding.value)


def _output(named: Any) -> Output:
    if named.type.WhichOneof("type") != "tensorType":
        raise UnknownOp("list", named.name, "only tensors are computed")
    tensor_type = named.type.tensorType
    return Output(named.name, dtype_of(tensor_type.dataType), dims_of(tensor_type))


def _weights(step: Step, constants: dict[str, Literal | Step]) -> str | None:
    """Name of the constant that holds a step's weights."""
    for parameter, argument in step.arguments:
        if parameter in _WEIGHTS and isinstance(argument, Reference) and argument.name in constants:
            return argument.name
    return None


def _lifetimes(steps: list[Step], outputs: tuple[str, ...]) -> tuple[Step, ...]:
    kept = set(outputs)
    seen: set[str] = set()
    reversed_steps = []
    for step in reversed(steps):
        names = {*_reads(step), *(output.name for output in step.outputs)}
        drops = tuple(sorted(names - seen - kept))
        seen |= names
        reversed_steps.append(replace(step, drops=drops))
    return tuple(reversed(reversed_steps))


def steps_of(block: Block) -> Iterator[Step]:
    """Every step of a block, those of the blocks inside it among them."""
    for step in block.steps:
        yield step
        for inner in step.blocks:
            yield from steps_of(inner)


def _reads(step: Step) -> Iterator[str]:
    for _, argument in step.arguments:
        for item in argument if isinstance(argument, tuple) else (argument,):
            if isinstance(item, Reference):
                yield item.name
    for block in step.blocks:
        yield from block.outputs
        for inner in block.steps:
            yield from _reads(inner)
