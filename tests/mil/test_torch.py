"""Traced torch modules, converted, against torch."""

import math
from collections.abc import Callable
from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mil.programs import convert
from torch import nn

from jtts_export import mil

Tensor = torch.Tensor


class Plain(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class Vocoder(nn.Module):
    """The layers of a small HiFi-GAN: weight-normed and transposed convolutions, leaky ReLUs, tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 8, 7, padding=3))
        self.up = nn.ConvTranspose1d(8, 4, 6, stride=3, padding=2, output_padding=1)
        self.dilated = nn.Conv1d(4, 4, 3, dilation=3, padding=3, groups=2)
        self.leave = nn.Conv1d(4, 1, 5, padding=2)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.up(F.leaky_relu(self.enter(mel), 0.1))
        return torch.tanh(self.leave(x + self.dilated(F.leaky_relu(x, 0.1))))


class Encoder(nn.Module):
    """Embedding, convolution, two bidirectional LSTMs, attention, norms."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.conv = nn.Conv1d(8, 8, 5, padding=2)
        self.norm = nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(8, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(F.relu(self.conv(self.embed(tokens.long()).transpose(1, 2)))).transpose(1, 2)
        x, _ = self.lstm(x)
        return self.attention(x)


def _causal(query: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, query, query, is_causal=True)


MODULES: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "vocoder": (Vocoder(), (torch.randn(1, 4, 9),)),
    "encoder": (Encoder(), (torch.randint(0, 11, (1, 7), dtype=torch.int32),)),
    "interpolate": (Plain(lambda x: F.interpolate(x, scale_factor=3.0, mode="nearest")), (torch.randn(1, 2, 5),)),
    "linear-up": (
        Plain(lambda x: F.interpolate(x, size=20, mode="linear", align_corners=False)),
        (torch.randn(1, 2, 5),),
    ),
    "phase": (Plain(lambda x: torch.sin(torch.cumsum(x, 1) % 0.5 * 2 * math.pi)), (torch.rand(1, 9, 3),)),
    "attention": (Plain(_causal), (torch.randn(1, 2, 5, 4),)),
    "roll": (Plain(lambda x: torch.cat((-x[..., 2:], x[..., :2]), -1)[:, -1]), (torch.randn(1, 3, 4),)),
    "reflect": (Plain(lambda x: F.pad(x, (3, 2), mode="reflect")), (torch.randn(1, 2, 6),)),
    "tril": (Plain(lambda x: x.masked_fill(torch.ones(4, 4).tril() == 0, -1e4).softmax(-1)), (torch.randn(2, 4, 4),)),
    "index": (
        Plain(lambda x, i: x[:, i.long()].square().mean(-1)),
        (torch.randn(2, 5, 3), torch.tensor([4, 0]).int()),
    ),
}


@pytest.mark.parametrize("target", [ct.target.iOS17, ct.target.iOS18], ids=["iOS17", "iOS18"])
@pytest.mark.parametrize("name", MODULES)
def test_a_converted_module_agrees_with_torch(name: str, target: object, tmp_path: Path) -> None:
    module, inputs = MODULES[name]
    path = convert(module, inputs, tmp_path / "module.mlpackage", target=target)
    with torch.no_grad():
        expected = module(*inputs).numpy()
    run_inputs = {f"x{number}": tensor.numpy() for number, tensor in enumerate(inputs)}
    (result,) = mil.load(path).functions["main"].run(run_inputs).values()
    np.testing.assert_allclose(result, expected, atol=2e-5)


def test_atan2_of_coremltools_is_wrong_on_the_negative_axis(tmp_path: Path) -> None:
    """coremltools has no op for atan2; its composite gives 0 for atan2(0, x < 0), where the angle is pi.

    The interpreter computes what the package says, so that the difference shows here and not on a device.
    """
    angles = np.radians(np.arange(-170, 181, 10)).astype(np.float32)
    y, x = np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)
    on_axes = np.array([[0, 2], [3, 0], [-3, 0], [0, -2]], np.float32)
    y, x = np.append(y[:-1], on_axes[:, 0]), np.append(x[:-1], on_axes[:, 1])
    inputs = (torch.from_numpy(y), torch.from_numpy(x))
    path = convert(Plain(torch.atan2), inputs, tmp_path / "atan2.mlpackage")
    (result,) = mil.load(path).functions["main"].run({"x0": y, "x1": x}).values()
    expected = np.arctan2(y, x)
    np.testing.assert_allclose(result[:-1], expected[:-1], atol=1e-5)
    assert expected[-1] == np.float32(math.pi)
    assert result[-1] == 0


def test_remainder_by_one_of_coremltools_is_zero(tmp_path: Path) -> None:
    """x % 1 is converted to x - floor_div(x, 1), and a pass takes floor_div by 1 for no operation.

    The package computes x - x. A harmonic source that wraps its phase so has none; x - floor(x) is converted right.
    """
    x = np.array([0.25, 1.75, -0.5], np.float32)
    inputs = (torch.from_numpy(x),)
    (wrong,) = _run(convert(Plain(lambda x: x % 1), inputs, tmp_path / "mod.mlpackage"), x)
    np.testing.assert_array_equal(wrong, 0)
    (right,) = _run(convert(Plain(lambda x: x - torch.floor(x)), inputs, tmp_path / "floor.mlpackage"), x)
    np.testing.assert_array_equal(right, np.mod(x, 1))


def _run(path: Path, x: np.ndarray) -> list[np.ndarray]:
    return list(mil.load(path).functions["main"].run({"x0": x}).values())


def _flexible(shape: object, path: Path) -> mil.Function:
    traced = torch.jit.trace(Vocoder().eval(), torch.randn(1, 4, 9))
    model = ct.convert(
        traced, inputs=[ct.TensorType(name="mel", shape=shape)], convert_to="mlprogram", skip_model_load=True
    )
    model.save(str(path))
    return mil.load(path).functions["main"]


def test_flexible_dimensions_are_ranges_and_checked(tmp_path: Path) -> None:
    shape = (1, 4, ct.RangeDim(lower_bound=5, upper_bound=20, default=9))
    main = _flexible(shape, tmp_path / "flexible.mlpackage")
    assert main.inputs["mel"].shape == (1, 4, mil.DimRange(5, 20))
    assert all(
        next(iter(main.run({"mel": np.zeros((1, 4, size))}).values())).shape[-1] == 3 * size for size in (5, 20)
    )
    with pytest.raises(mil.BadInput, match="mel: shape"):
        main.run({"mel": np.zeros((1, 4, 21))})


def test_enumerated_shapes_are_the_only_ones_taken(tmp_path: Path) -> None:
    shapes = ct.EnumeratedShapes(shapes=[(1, 4, 9), (1, 4, 12)], default=(1, 4, 9))
    main = _flexible(shapes, tmp_path / "enumerated.mlpackage")
    assert set(main.inputs["mel"].enumerated) == {(1, 4, 9), (1, 4, 12)}
    (wave,) = main.run({"mel": np.zeros((1, 4, 12))}).values()
    assert wave.shape == (1, 1, 36)
    with pytest.raises(mil.BadInput, match="does not fit"):
        main.run({"mel": np.zeros((1, 4, 10))})
