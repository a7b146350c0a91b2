"""The ops: MIL's name to a function whose parameters have MIL's names and defaults.

Definitions follow the op documentation in coremltools 9 (converters/mil/mil/ops/defs, iOS15 to iOS18). Every
function takes tensors (also for MIL's scalar and list parameters) and strings, and returns a tensor or a tuple.
A parameter named `opset` receives the number of the function's opset (7 for iOS 17).
"""

from collections.abc import Callable
from typing import Any

from jtts_export.mil.ops import (
    activation,
    constexpr,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    recurrent,
    reduction,
    resizing,
    shapes,
    slicing,
    sorting,
    tensors,
)

REGISTRY: dict[str, Callable[..., Any]] = (
    activation.OPS
    | constexpr.OPS
    | convolution.OPS
    | elementwise.OPS
    | indexing.OPS
    | linear.OPS
    | normalization.OPS
    | pooling.OPS
    | recurrent.OPS
    | reduction.OPS
    | resizing.OPS
    | shapes.OPS
    | slicing.OPS
    | sorting.OPS
    | tensors.OPS
)

# Ops with blocks or states, which the interpreter runs itself.
CONTROL = ("cond", "while_loop", "read_state", "write_state")


def supported_ops() -> list[str]:
    """MIL's names of all ops that the interpreter runs, sorted."""
    return sorted({*REGISTRY, *CONTROL, "const"})
