"""A state that is assigned as a whole is written as one; one that is assigned in part is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jtts_export import mil
from jtts_export.exporters.coreml.convert import coremltools, quiet
from jtts_export.exporters.coreml.state_writes import pipeline

SHAPE = (2, 4, 32)


class Held(nn.Module):
    """Takes what it is given into a slice of its state, and returns the state."""

    def __init__(self, where: tuple[slice, ...]) -> None:
        super().__init__()
        self.where = where
        self.register_buffer("held", torch.zeros(SHAPE))

    def forward(self, x: Tensor) -> Tensor:
        self.held[self.where] = x * 2 + self.held[self.where]
        return self.held + 1


@pytest.mark.parametrize(
    ("where", "writes_slices"),
    (
        ((slice(None),), False),
        ((slice(0, 2), slice(None), slice(0, 32)), False),
        ((slice(0, 1),), True),
        ((slice(None), slice(1, None)), True),
    ),
)
def test_a_slice_that_is_all_there_is_is_no_slice(
    tmp_path: Path, where: tuple[slice, ...], writes_slices: bool
) -> None:
    ct, shape = coremltools(), tuple(torch.zeros(SHAPE)[where].shape)
    with quiet(), torch.no_grad():
        model = ct.convert(
            torch.jit.trace(Held(where).eval(), torch.ones(shape), check_trace=False),
            inputs=[ct.TensorType(name="x", shape=shape, dtype=np.float16)],
            outputs=[ct.TensorType(name="y", dtype=np.float16)],
            states=[ct.StateType(wrapped_type=ct.TensorType(shape=SHAPE, dtype=np.float16), name="held")],
            minimum_deployment_target=ct.target.iOS18,
            pass_pipeline=pipeline(ct),
            skip_model_load=True,
        )
        model.save(str(tmp_path / "held.mlpackage"))
    (block,) = model.get_spec().mlProgram.functions["main"].block_specializations.values()
    assert any(op.type == "slice_update" for op in block.operations) == writes_slices
    function = mil.load(tmp_path / "held.mlpackage").functions["main"]
    random = np.random.default_rng(0)
    state, held = function.new_state(), np.zeros(SHAPE, np.float32)
    for _ in range(3):
        x = random.integers(-8, 8, shape).astype(np.float32)
        held[where] += 2 * x
        np.testing.assert_array_equal(function.run({"x": x}, state)["y"], held + 1)
        np.testing.assert_array_equal(state["held"], held)
