"""Weights of CoreML packages in 8 bits: how close each scheme comes, what stays, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from jtts_export import mil
from jtts_export.errors import BadInput
from jtts_export.exporters.coreml.convert import convert
from jtts_export.exporters.coreml.stage import Function, Stage, Tensor
from jtts_export.quantize.coreml import SCHEMES, is_allowed, palette, quantize
from jtts_export.validate.audio import snr_db

WIDTH = 128


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Two()
    function = Function(module, (Tensor("x", (4, WIDTH), "in"),), (Tensor("y", (4, WIDTH), "out"),))
    return convert(Stage("two", "two layers", {"main": function}), "iOS18", tmp_path_factory.mktemp("parts"))


def _run(part: Path) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)
    return mil.load(part).functions["main"].run({"x": x})["y"]


def _size(part: Path) -> int:
    return sum(path.stat().st_size for path in part.rglob("*.bin"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_is_half_the_size_and_close(parts: dict[str, Path], scheme: str, tmp_path: Path) -> None:
    made = quantize(parts, scheme, (), tmp_path)["main"]
    assert _size(made) < 0.65 * _size(parts["main"])
    assert 38 < snr_db(_run(made), _run(parts["main"])) < 60


def test_what_is_skipped_stays(parts: dict[str, Path], tmp_path: Path) -> None:
    made = quantize(parts, "linear8", ("second",), tmp_path)["main"]
    assert 0.7 < _size(made) / _size(parts["main"]) < 0.85
    everything = quantize(parts, "linear8", (), tmp_path / "all")["main"]
    assert snr_db(_run(made), _run(parts["main"])) > snr_db(_run(everything), _run(parts["main"]))


def test_an_unknown_scheme_lists_the_known_ones(parts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="linear8, block8-64"):
        quantize(parts, "int7", (), tmp_path)


def test_blocks_need_newer_systems() -> None:
    assert is_allowed("linear8", "iOS17")
    assert not is_allowed("block8-64", "iOS17")
    assert is_allowed("block8-64", "macOS15")


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy"])
def test_a_palette_is_closer_than_even_steps(draw: str) -> None:
    weight = getattr(np.random.default_rng(0), draw)(20_000).clip(-50, 50).astype(np.float16)
    levels, which = palette(weight)
    assert levels.dtype == weight.dtype
    assert which.dtype == np.uint8
    exact = weight.astype(np.float64)
    step = np.abs(exact).max() / 127
    even = snr_db(np.round(exact / step) * step, exact)
    assert snr_db(levels.astype(np.float64)[which], exact) > even + 3
    # Each value takes the level nearest to it.
    nearest = np.abs(exact[:500, None] - levels.astype(np.float64)).min(1)
    np.testing.assert_allclose(np.abs(exact[:500] - levels.astype(np.float64)[which[:500]]), nearest, atol=2e-2)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.0], list(range(10))])
def test_few_values_are_all_kept(values: list[float]) -> None:
    weight = np.array(values, np.float16)
    levels, which = palette(weight)
    np.testing.assert_array_equal(levels[which], weight)
