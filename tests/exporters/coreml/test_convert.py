"""Stages to packages: what is written, and that the same weights give the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from jtts_export import mil
from jtts_export.errors import OutsideError
from jtts_export.exporters.coreml import convert as converting
from jtts_export.exporters.coreml.convert import SPEC, WEIGHTS, About, assemble, check_installed, convert
from jtts_export.exporters.coreml.modules import ModuleNetwork
from jtts_export.exporters.coreml.stage import Function, Length, Stage, Tensor

ABOUT = About("A toy", "its author", "MIT", "1.2")
WIDTH, WIDE = 64, 128


class Running(nn.Module):
    """Half of what was, and what comes."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.register_buffer("past", torch.zeros(1, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.past.mul_(0.5)
        self.past.add_(x)
        return self.linear(self.past)


class Whole(nn.Module):
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


@pytest.fixture
def stage() -> Stage:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = nn.Linear(WIDTH, WIDE)
    made = Tensor("made", (1, WIDE), "what comes out")
    past = Tensor("past", (1, WIDTH), "what was", "fp16")
    return Stage(
        "toy",
        "half of what was",
        {
            "step": Function(Running(linear), (Tensor("given", (1, WIDTH), "what comes"),), (made,), (past,)),
            "all": Function(Whole(linear), (Tensor("given", (5, WIDTH), "all at once"),), (made,)),
        },
    )


def _built(stage: Stage, folder: Path) -> Path:
    return assemble(stage, convert(stage, "iOS18", folder / "parts"), folder, ABOUT)


def _bytes(package: Path) -> dict[str, bytes]:
    return {p.relative_to(package).as_posix(): p.read_bytes() for p in package.rglob("*") if p.is_file()}


def test_the_same_weights_give_the_same_bytes(stage: Stage, tmp_path: Path) -> None:
    first, second = (_bytes(_built(stage, tmp_path / name)) for name in "ab")
    assert first == second
    assert json.loads(first["Manifest.json"])["rootModelIdentifier"]
    assert b"conversion_date" not in first[SPEC.as_posix()]


def test_functions_of_a_package_share_their_weights(stage: Stage, tmp_path: Path) -> None:
    package = _built(stage, tmp_path)
    (weights,) = (package / WEIGHTS).iterdir()
    assert weights.stat().st_size < 1.2 * 2 * WIDTH * WIDE  # fp16, once


def test_every_tensor_is_described_and_the_origin_named(stage: Stage, tmp_path: Path) -> None:
    ct = converting.coremltools()
    spec = ct.proto.Model_pb2.Model()
    spec.ParseFromString((_built(stage, tmp_path) / SPEC).read_bytes())
    told = {
        f.name: {t.name: t.shortDescription for t in (*f.input, *f.output, *f.state)}
        for f in spec.description.functions
    }
    assert told["step"] == {"given": "what comes", "made": "what comes out", "past": "what was"}
    assert told["all"] == {"given": "all at once", "made": "what comes out"}
    assert spec.description.defaultFunctionName == "step"
    metadata = spec.description.metadata
    assert (metadata.author, metadata.license, metadata.versionString) == ("its author", "MIT", "1.2")
    assert metadata.shortDescription == "A toy: half of what was"


def test_a_package_computes_what_its_module_does(stage: Stage, tmp_path: Path) -> None:
    package = mil.load(_built(stage, tmp_path))
    module = ModuleNetwork(stage)
    random = np.random.default_rng(0)
    states = [module.new_state("step"), package.functions["step"].new_state()]
    for _ in range(3):
        given = {"given": random.standard_normal((1, WIDTH)).astype(np.float32)}
        exact = module.run(given, "step", states[0])["made"]
        made = package.functions["step"].run(given, states[1], "exact")["made"]
        np.testing.assert_allclose(made, exact, atol=2e-3)  # weights are fp16
    np.testing.assert_allclose(states[1]["past"], states[0]["past"], atol=1e-3)


def test_a_flexible_length_takes_every_length_within(tmp_path: Path) -> None:
    linear = nn.Linear(WIDTH, WIDE)
    given = Tensor("given", (Length(1, 50, 5), WIDTH), "any number of rows")
    stage = Stage(
        "any", "rows", {"main": Function(Whole(linear), (given,), (Tensor("made", ("rows", WIDE), "rows"),))}
    )
    package = mil.load(_built(stage, tmp_path))
    for rows in (1, 50):
        x = np.ones((rows, WIDTH), np.float32)
        assert package.functions["main"].run({"given": x})["made"].shape == (rows, WIDE)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "find_spec", lambda _: None)
    with pytest.raises(OutsideError, match=r"pip install jtts-export\[coreml\]"):
        check_installed()
