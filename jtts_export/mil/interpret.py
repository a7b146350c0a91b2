"""Running of a program's steps."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from jtts_export.mil.constants import Constants
from jtts_export.mil.errors import BadInput, MilError, Overflow, UnknownOp, UnknownParameter
from jtts_export.mil.program import Argument, Block, Literal, Output, Program, Reference, Step

Scope = dict[str, Any]


@dataclass
class Run:
    """One run of a program.

    `states` are the tensors of the states by name, replaced when written. `rounds` rounds values declared fp16
    and checks their range. `taps` are the inner names to keep.
    """

    program: Program
    constants: Constants
    states: dict[str, torch.Tensor]
    rounds: bool
    taps: frozenset[str] = frozenset()
    tapped: dict[str, torch.Tensor] = field(default_factory=dict)

    def block(self, block: Block, scope: Scope) -> tuple[torch.Tensor, ...]:
        """Runs `block` on the values of `scope`, to which it adds; returns the block's outputs."""
        for step in block.steps:
            made = self._control(step, scope) if step.run is None else self._op(step, scope)
            for output, tensor in zip(step.outputs, made, strict=True):
                scope[output.name] = tensor
                if output.name in self.taps:
                    self.tapped[output.name] = tensor
            for name in step.drops:
                scope.pop(name, None)
        return tuple(self.value(name, scope) for name in block.outputs)

    def value(self, name: str, scope: Scope) -> Any:
        """The value `name` of the scope or of the constants."""
        if name in scope:
            return scope[name]
        found = self.program.constants.get(name)
        if found is None:
            raise BadInput(f"the program has no value named {name!r}")
        if isinstance(found, Literal):
            return self.constants.literal(found)
        made = self.constants.keep(self._key(found), lambda: self._op(found, scope))
        return made[[output.name for output in found.outputs].index(name)]

    def _op(self, step: Step, scope: Scope) -> tuple[torch.Tensor, ...]:
        arguments = {name: self._argument(argument, scope) for name, argument in step.arguments}
        assert step.run is not None
        try:
            result = step.run(**arguments)
        except UnknownParameter as error:
            raise UnknownOp(step.op_type, step.outputs[0].name, str(error)) from error
        except MilError as error:
            raise type(error)(f"{step.op_type} {step.outputs[0].name!r}: {error}") from error
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            raise MilError(f"{step.op_type} {step.outputs[0].name!r} failed: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        return tuple(
            self._declared(step, output, tensor, arguments.values())
            for output, tensor in zip(step.outputs, results, strict=True)
        )

    def _argument(self, argument: Argument, scope: Scope) -> Any:
        if isinstance(argument, Reference):
            return self.value(argument.name, scope)
        if isinstance(argument, Literal):
            return argument.value if isinstance(argument.value, int) else self.constants.literal(argument)
        return tuple(self._argument(item, scope) for item in argument)

    def _declared(self, step: Step, output: Output, tensor: torch.Tensor, inputs: Iterable[Any]) -> torch.Tensor:
        tensor = wrap(tensor, output.dtype.name) if not output.dtype.compute.is_floating_point else tensor
        tensor = tensor.to(output.dtype.compute)
        if len(output.shape) != tensor.ndim or any(
            declared not in (None, size) for declared, size in zip(output.shape, tensor.shape, strict=True)
        ):
            shape = tuple(tensor.shape)
            raise MilError(f"{step.op_type} {output.name!r} makes {shape}, the program declares {output.shape}")
        if not (self.rounds and output.dtype.is_fp16):
            return tensor
        rounded = tensor.half().float()
        if not rounded.isfinite().all():
            _check_range(step, output, tensor, rounded, inputs)
        return rounded

    def _control(self, step: Step, scope: Scope) -> tuple[torch.Tensor, ...]:
        if step.op_type in ("read_state", "write_state"):
            return self._state(dict(step.arguments), scope)
        arguments = {name: self._argument(argument, scope) for name, argument in step.arguments}
        if step.op_type == "cond":
            return self.block(step.blocks[0 if bool(arguments["pred"]) else 1], dict(scope))
        variables = arguments["loop_vars"]
        condition, body = step.blocks
        while bool(self.block(condition, scope | dict(zip(condition.inputs, variables, strict=True)))[0]):
            variables = self.block(body, scope | dict(zip(body.inputs, variables, strict=True)))
        return variables

    def _state(self, arguments: dict[str, Argument], scope: Scope) -> tuple[torch.Tensor, ...]:
        source = arguments["input"]
        assert isinstance(source, Reference)
        if "data" not in arguments:
            return (self.states[source.name],)
        data = self._argument(arguments["data"], scope)
        # The caller may write into a state, and must not reach a weight by that.
        is_constant = isinstance(arguments["data"], Reference) and arguments["data"].name in self.program.constants
        self.states[source.name] = data.clone() if is_constant else data
        return ()

    def _key(self, step: Step) -> Any:
        """What makes two `constexpr_` steps the same: op, rounding and the bytes of their arguments."""
        return (step.op_type, self.rounds, *((name, self._argument_key(item)) for name, item in step.arguments))

    def _argument_key(self, argument: Argument) -> Any:
        if isinstance(argument, tuple):
            return tuple(self._argument_key(item) for item in argument)
        if isinstance(argument, Reference):
            found = self.program.constants[argument.name]
            if isinstance(found, Step):
                return (*self._key(found), argument.name)
            argument = found
        value = argument.value
        return value if isinstance(value, int) else value.SerializeToString(deterministic=True)


def wrap(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Values of uint16, which is computed in a wider type, brought back to its range as the machine would."""
    return tensor.to(torch.int64) & 0xFFFF if name == "uint16" else tensor


def _check_range(
    step: Step, output: Output, tensor: torch.Tensor, rounded: torch.Tensor, inputs: Iterable[Any]
) -> None:
    lost = tensor.isfinite() & ~rounded.isfinite()
    if lost.any():
        worst = tensor[lost].abs().max().item()
        raise Overflow(step.op_type, output.name, step.layer, f"{int(lost.sum())} values up to {worst:.6g}")
    if all(_finite(item) for item in inputs):
        count = int((~tensor.isfinite()).sum())
        raise Overflow(step.op_type, output.name, step.layer, f"{count} values are not finite, all inputs are")


def _finite(item: Any) -> bool:
    if isinstance(item, tuple):
        return all(_finite(inner) for inner in item)
    return not isinstance(item, torch.Tensor) or not item.is_floating_point() or bool(item.isfinite().all())
