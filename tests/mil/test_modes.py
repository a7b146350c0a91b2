"""The modes exact and fp16, and the errors of a value that leaves fp16."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mil.programs import convert
from torch import nn

from jtts_export import mil

WEIGHT = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


class Net(nn.Module):
    """A matrix product named `first`, an exponential, a product named `second`."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.first.weight.data = torch.from_numpy(WEIGHT)
        self.first.bias.data.zero_()
        self.second.weight.data = torch.eye(3) * scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.exp(self.first(x)))


def _function(tmp_path: Path, scale: float = 1.0) -> mil.Function:
    path = convert(Net(scale), (torch.zeros(2, 4),), tmp_path / "net.mlpackage", precision="FLOAT16")
    return mil.load(path).functions["main"]


def _half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


def test_exact_mode_does_not_round_and_fp16_mode_rounds_after_each_op(tmp_path: Path) -> None:
    function = _function(tmp_path)
    x = _half(np.random.default_rng(1).standard_normal((2, 4)))
    product = x @ _half(WEIGHT).T
    (exact,) = function.run({"x0": x}).values()
    np.testing.assert_allclose(exact, np.exp(product), rtol=1e-6)
    (rounded,) = function.run({"x0": x}, mode="fp16").values()
    expected = _half(torch.from_numpy(_half(product)).exp().numpy())
    np.testing.assert_array_equal(rounded, expected)
    assert rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)


def test_an_inner_value_can_be_wanted(tmp_path: Path) -> None:
    function = _function(tmp_path)
    inner = next(step.outputs[0].name for step in function.program.block.steps if step.op_type == "linear")
    x = np.ones((2, 4), np.float32)
    taps = function.run({"x0": x}, wanted=[inner, "x0", *function.outputs])
    assert list(taps) == [inner, "x0", *function.outputs]
    np.testing.assert_allclose(taps[inner], x @ _half(WEIGHT).T, rtol=1e-6)
    with pytest.raises(mil.BadInput, match="no values named nothing"):
        function.run({"x0": x}, wanted=["nothing"])


def test_overflow_names_op_output_and_layer(tmp_path: Path) -> None:
    function = _function(tmp_path, scale=60000.0)
    x = np.linalg.pinv(WEIGHT) @ np.full(3, 2.0, np.float32)
    inputs = {"x0": np.stack((x, x))}
    assert np.isfinite(next(iter(function.run(inputs).values()))).all()
    with pytest.raises(mil.Overflow, match="values up to") as caught:
        function.run(inputs, mode="fp16")
    assert caught.value.op_type == "linear"
    assert caught.value.value in function.outputs
    assert caught.value.layer is not None
    assert "second_weight" in caught.value.layer
    assert caught.value.value in str(caught.value)


def test_an_op_without_weights_names_the_layer_before_it(tmp_path: Path) -> None:
    function = _function(tmp_path)
    x = np.linalg.pinv(WEIGHT) @ np.full(3, 12.0, np.float32)
    with pytest.raises(mil.Overflow) as caught:
        function.run({"x0": np.stack((x, x))}, mode="fp16")
    assert caught.value.op_type == "exp"
    assert caught.value.layer is not None
    assert "first_weight" in caught.value.layer


def test_an_input_past_fp16_is_an_overflow(tmp_path: Path) -> None:
    with pytest.raises(mil.Overflow, match="x0"):
        _function(tmp_path).run({"x0": np.full((2, 4), 1e6)}, mode="fp16")


class Masked(nn.Module):
    """Softmax under a mask of -inf, which is no overflow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.full((3, 3), float("-inf")).triu(1)
        return (x + mask).softmax(-1)


def test_a_mask_of_infinities_is_no_overflow(tmp_path: Path) -> None:
    path = convert(Masked(), (torch.zeros(3, 3),), tmp_path / "mask.mlpackage", precision="FLOAT16")
    (result,) = mil.load(path).functions["main"].run({"x0": np.zeros((3, 3))}, mode="fp16").values()
    np.testing.assert_allclose(result, np.tril(np.ones((3, 3))) / np.arange(1, 4)[:, None], atol=1e-3)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "missing x0"),
        ({"x0": np.zeros((2, 4)), "x1": np.zeros(1)}, "unknown x1"),
        ({"x0": np.zeros((2, 5))}, "shape"),
        ({"x0": np.zeros(4)}, "shape"),
        ({"x0": np.zeros((2, 4), np.complex64)}, "without loss"),
    ],
)
def test_wrong_inputs_are_refused_with_what_is_wrong(inputs: dict, message: str, tmp_path: Path) -> None:
    function = _function(tmp_path)
    with pytest.raises(ValueError, match=message):
        function.run(inputs)


def test_another_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mil.BadInput, match="fp8"):
        _function(tmp_path).run({"x0": np.zeros((2, 4))}, mode="fp8")  # type: ignore[arg-type]
