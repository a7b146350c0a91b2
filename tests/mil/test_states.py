"""States over several runs, and functions that share weights and states."""

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
from mil.programs import convert
from torch import nn

from jtts_export import mil


class Cache(nn.Module):
    """Writes a row into a cache at a position and sums the cache up to it."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("cache", torch.zeros(1, 6, 4))

    def forward(self, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        past = position.shape[-1]
        self.cache[:, past - 1 : past] = row * self.factor
        return self.cache[:, :past].sum(1)


def _cache_package(path: Path, factor: float = 1.0) -> Path:
    traced = torch.jit.trace(Cache(factor).eval(), (torch.zeros(1, 1, 4), torch.zeros(1, 2)))
    model = ct.convert(
        traced,
        inputs=[
            ct.TensorType(name="row", shape=(1, 1, 4), dtype=np.float16),
            ct.TensorType(name="position", shape=(1, ct.RangeDim(1, 6, 2)), dtype=np.float16),
        ],
        states=[ct.StateType(wrapped_type=ct.TensorType(shape=(1, 6, 4), dtype=np.float16), name="cache")],
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    )
    model.save(str(path))
    return path


def test_a_state_is_kept_from_run_to_run(tmp_path: Path) -> None:
    function = mil.load(_cache_package(tmp_path / "cache.mlpackage")).functions["main"]
    assert function.states == {"cache": mil.TensorType("fp16", (1, 6, 4))}
    state = function.new_state()
    assert state["cache"].shape == (1, 6, 4)
    rows = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    for step in range(6):
        inputs = {"row": rows[None, step : step + 1], "position": np.zeros((1, step + 1))}
        (total,) = function.run(inputs, state).values()
        np.testing.assert_allclose(total[0], rows[: step + 1].sum(0), rtol=1e-5)
    np.testing.assert_array_equal(state["cache"][0], rows)
    state["cache"][:] = 0
    (total,) = function.run(inputs, state).values()
    np.testing.assert_allclose(total[0], rows[5], rtol=1e-6)


def test_fp16_mode_rounds_what_goes_into_a_state(tmp_path: Path) -> None:
    function = mil.load(_cache_package(tmp_path / "cache.mlpackage")).functions["main"]
    state = function.new_state()
    row = np.full((1, 1, 4), 0.1, np.float32)
    function.run({"row": row, "position": np.zeros((1, 1))}, state, mode="fp16")
    np.testing.assert_array_equal(state["cache"][0, 0], np.float16(0.1).astype(np.float32))


def test_a_run_without_its_states_or_with_others_is_refused(tmp_path: Path) -> None:
    function = mil.load(_cache_package(tmp_path / "cache.mlpackage")).functions["main"]
    inputs = {"row": np.zeros((1, 1, 4)), "position": np.zeros((1, 1))}
    with pytest.raises(mil.BadInput, match="cache"):
        function.run(inputs)
    with pytest.raises(mil.BadInput, match="lacks cache"):
        function.run(inputs, {})
    with pytest.raises(mil.BadInput, match="cache: shape"):
        function.run(inputs, {"cache": np.zeros((1, 6, 5))})


def test_a_failing_run_leaves_the_state(tmp_path: Path) -> None:
    function = mil.load(_cache_package(tmp_path / "cache.mlpackage")).functions["main"]
    state = function.new_state()
    row = np.full((1, 1, 4), 60000.0, np.float32)
    function.run({"row": row, "position": np.zeros((1, 1))}, state, mode="fp16")
    with pytest.raises(mil.Overflow):
        function.run({"row": row, "position": np.zeros((1, 2))}, state, mode="fp16")
    np.testing.assert_array_equal(state["cache"][0, 1], 0)


def test_functions_with_the_same_states_share_them(tmp_path: Path) -> None:
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, factor in (("prefill", 1.0), ("decode", 2.0)):
        descriptor.add_function(str(_cache_package(tmp_path / f"{name}.mlpackage", factor)), "main", name)
    descriptor.default_function_name = "decode"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    functions = mil.load(tmp_path / "both.mlpackage").functions
    assert functions["prefill"].states == functions["decode"].states
    state = functions["prefill"].new_state()
    row = np.ones((1, 1, 4), np.float32)
    functions["prefill"].run({"row": row, "position": np.zeros((1, 1))}, state)
    (total,) = functions["decode"].run({"row": row, "position": np.zeros((1, 2))}, state).values()
    np.testing.assert_array_equal(total, 1 + 2 * row[:, 0])


class Shared(nn.Module):
    """One large matrix, used in two ways by two functions."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 64)
        self.sign = sign

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sign * self.layer(x)


def test_functions_of_a_package_share_their_weights(tmp_path: Path) -> None:
    x = torch.randn(1, 64)
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, sign in (("plus", 1.0), ("minus", -1.0)):
        path = convert(Shared(sign), (x,), tmp_path / f"{name}.mlpackage", target=ct.target.iOS18)
        descriptor.add_function(str(path), "main", name)
    descriptor.default_function_name = "minus"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    package = mil.load(tmp_path / "both.mlpackage")
    assert set(package.functions) == {"plus", "minus"}
    assert package.default_function == "minus"
    (plus,), (minus,) = (package.functions[name].run({"x0": x.numpy()}).values() for name in ("plus", "minus"))
    np.testing.assert_array_equal(plus, -minus)
    expected = Shared(1.0)(x).detach().numpy()
    np.testing.assert_allclose(plus, expected, atol=1e-5)
