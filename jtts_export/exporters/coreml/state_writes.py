"""States that are written as a whole.

coremltools takes an assignment to a buffer, `state[:] = new`, for one to a slice. That slice is the whole state, but
the Neural Engine refuses writes of slices, and the others copy the state once more.
"""

from __future__ import annotations

from typing import Any

NAME = "whole_state_writes"


def pipeline(ct: Any) -> Any:
    """coremltools' default passes, and one behind them that makes `new` of slice_update(state, new) where the slice
    is all there is."""
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.helper import block_context_manager
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY, register_pass

    name = f"jtts_export::{NAME}"
    if name not in PASS_REGISTRY.passes:

        @block_context_manager
        def simplify(block: Any) -> None:
            for op in [op for op in block.operations if op.op_type == "slice_update" and _is_whole(op)]:
                block.replace_uses_of_var_after_op(anchor_op=op, old_var=op.outputs[0], new_var=op.update)
                block.remove_ops([op])

        class WholeStateWrites(AbstractGraphPass):  # type: ignore[misc, unused-ignore]
            def apply(self, program: Any) -> None:
                for function in program.functions.values():
                    simplify(function)

        register_pass(namespace="jtts_export", name=NAME)(WholeStateWrites)
    passes = ct.PassPipeline.DEFAULT
    passes.append_pass(name)
    return passes


def _is_whole(op: Any) -> bool:
    """Whether a slice_update replaces every element."""
    sizes, axes = op.x.shape, range(len(op.x.shape))
    if op.x.shape != op.update.shape:
        return False
    begin, end, stride = (None if v is None else v.val for v in (op.begin, op.end, op.stride))
    from_start, to_end = (None if v is None else v.val for v in (op.begin_mask, op.end_mask))

    def starts(axis: int) -> bool:
        return bool(from_start is not None and from_start[axis]) or (begin is not None and begin[axis] == 0)

    def ends(axis: int) -> bool:
        return bool(to_end is not None and to_end[axis]) or (end is not None and end[axis] >= sizes[axis])

    forward = stride is None or all(stride == 1)
    return forward and all(starts(axis) and ends(axis) for axis in axes)
