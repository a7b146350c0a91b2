"""Packages compressed with coremltools, against the weights that it says it stored."""

from pathlib import Path

import coremltools as ct
import coremltools.optimize as cto
import numpy as np
import pytest
import torch
from mil.programs import convert
from torch import nn

from jtts_export import mil

CONFIGS = {
    "int8-channel": cto.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=0),
    "int8-block": cto.coreml.OpLinearQuantizerConfig(
        mode="linear_symmetric", granularity="per_block", block_size=8, weight_threshold=0
    ),
    "int4-block": cto.coreml.OpLinearQuantizerConfig(
        mode="linear", dtype="int4", granularity="per_block", block_size=8, weight_threshold=0
    ),
    "lut8": cto.coreml.OpPalettizerConfig(mode="uniform", nbits=8, weight_threshold=0),
    "lut4": cto.coreml.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0),
    "pruned": cto.coreml.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0),
}
# Half a step of the coarsest grid (4 bits over a range of about 0.25), summed over 32 products of numbers near 1.
TOLERANCE = 0.3


def _compress(model: ct.models.MLModel, name: str) -> ct.models.MLModel:
    config = cto.coreml.OptimizationConfig(global_config=CONFIGS[name])
    if name.startswith("lut"):
        return cto.coreml.palettize_weights(model, config)
    return (
        cto.coreml.prune_weights(model, config)
        if name == "pruned"
        else cto.coreml.linear_quantize_weights(model, config)
    )


@pytest.fixture(scope="module")
def layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(32, 16)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(name, target, id=f"{name}-{target.name}")
        for name in CONFIGS
        for target in (ct.target.iOS17, ct.target.iOS18)
        if "block" not in name or target != ct.target.iOS17  # blocks need iOS 18
    ],
)
def test_a_compressed_package_computes_with_the_weights_it_stores(
    name: str, target: object, layer: nn.Module, tmp_path: Path
) -> None:
    x = torch.eye(32)
    path = convert(layer, (x,), tmp_path / "plain.mlpackage", target=target)
    model = _compress(ct.models.MLModel(str(path), skip_model_load=True), name)
    model.save(str(tmp_path / "small.mlpackage"))
    (result,) = mil.load(tmp_path / "small.mlpackage").functions["main"].run({"x0": x.numpy()}).values()
    stored = cto.coreml.decompress_weights(model)
    stored.save(str(tmp_path / "stored.mlpackage"))
    (expected,) = mil.load(tmp_path / "stored.mlpackage").functions["main"].run({"x0": x.numpy()}).values()
    np.testing.assert_allclose(result, expected, atol=1e-6)
    original = layer(x).detach().numpy()
    assert 0 < np.abs(result - original).max() < TOLERANCE


def test_a_small_budget_changes_nothing_but_speed(layer: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(2, 32)
    path = convert(layer, (x,), tmp_path / "plain.mlpackage", precision="FLOAT16")
    runs = [mil.load(path, cache_bytes=size).functions["main"].run({"x0": x.numpy()}) for size in (0, 1 << 20)]
    np.testing.assert_array_equal(*(next(iter(run.values())) for run in runs))
