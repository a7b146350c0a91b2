"""Calibration as a file: what is written comes back, and what is far is told from what is near."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, normal

from jtts_export.errors import OutsideError
from jtts_export.quantize.apply import fit_convs, integers
from jtts_export.quantize.calibrate import sample
from jtts_export.quantize.calibration import Calibration, distances, read, write
from jtts_export.quantize.schemes import Recipe, Rule, StaticConv, StoredFp16
from jtts_export.quantize.static_conv import Ranges
from jtts_export.quantize.weights import find_weights

IN, OUT, TIME = 8, 12, 2000
WEIGHTS = ("w", "w2")


def chain() -> ir.Model:
    """Two convolutions with a leaky ReLU between them, so that the second has a lead."""
    text = f"(float[1,{IN},N] x) => (float[1,{OUT},M] y) {{"
    body = " h = Conv(x, w, b) r = LeakyRelu<alpha=0.1>(h) y = Conv(r, w2) }"
    weights = {"w": normal(0, OUT, IN, 17) / 12, "b": normal(1, OUT), "w2": normal(2, OUT, OUT, 9) / 10}
    return graph(text + body, weights)


def ranges(model: ir.Model, seed: int = 3) -> dict[str, Ranges]:
    weights = {n: w for n, w in find_weights(model).items() if n in WEIGHTS}
    assert set(weights) == set(WEIGHTS)
    return fit_convs(model, sample(model, weights, [{"x": normal(seed, 1, IN, TIME)}] * 8))


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return chain()


@pytest.fixture(scope="module")
def found(model: ir.Model) -> Calibration:
    return Calibration(ranges(model), {"past_key_values.0.key": np.abs(normal(4, 2, 16))})


def assert_same(one: object, other: object) -> None:
    for name in vars(one):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)


def test_what_is_written_comes_back_and_gives_the_same_integers(
    model: ir.Model, found: Calibration, tmp_path: Path
) -> None:
    path = tmp_path / "calibration" / "int8.safetensors"
    write(found, path)
    again = read(path)
    assert again.convs["w"].lead is None
    assert again.convs["w2"].lead is not None
    for name in WEIGHTS:
        for part in ("scale", "step", "shift", "out_scale", "out_zero"):
            before, after = getattr(found.convs[name], part), getattr(again.convs[name], part)
            np.testing.assert_array_equal(before, after, strict=True)
        one, two = integers(model, found.convs)[name], integers(model, again.convs)[name]
        assert_same(one, two)
    np.testing.assert_array_equal(again.reach["past_key_values.0.key"], found.reach["past_key_values.0.key"])


def test_the_same_calibration_is_the_same_file(found: Calibration, tmp_path: Path) -> None:
    write(found, tmp_path / "one")
    write(Calibration(dict(reversed(found.convs.items())), found.reach), tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("damage", [b"", b"no safetensors", "cut", "without a part"])
def test_a_damaged_file_is_refused_by_its_name(found: Calibration, tmp_path: Path, damage: bytes | str) -> None:
    path = tmp_path / "int8.safetensors"
    write(found, path)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        path.write_bytes(path.read_bytes().replace(b"w2/zeros", b"w2/z_ros"))
    with pytest.raises(OutsideError, match=r"int8\.safetensors is no calibration"):
        read(path)


def test_a_recipe_needs_what_it_holds_as_integers(found: Calibration) -> None:
    recipe = Recipe(rules=(Rule(pattern="w2", scheme=StaticConv()), Rule(pattern="*", scheme=StoredFp16())))
    assert set(found.of(recipe).convs) == {"w2"}
    assert not Calibration().of(recipe)


def test_what_other_samples_give_is_near(model: ir.Model, found: Calibration) -> None:
    other = Calibration(ranges(model, seed=5), found.reach)
    apart = distances(found, other)
    assert found.fits(other)
    assert set(apart) == {*WEIGHTS, "past_key_values.0.key"}
    assert 0 < max(d.scales_db for d in apart.values()) < 3
    assert 0 < max(d.levels for d in apart.values()) < 24
    same = distances(found, found)
    assert all((d.scales_db, d.levels) == (0, 0) for d in same.values())


@pytest.mark.parametrize("part", ["scale", "step", "out_scale"])
def test_scales_twice_as_large_are_six_decibels_off(found: Calibration, part: str) -> None:
    changed = {**found.convs, "w": replace(found.convs["w"], **{part: 2 * getattr(found.convs["w"], part)})}
    apart = distances(found, Calibration(changed, found.reach))
    assert apart["w"].scales_db == pytest.approx(6.02, abs=0.01)
    assert apart["w2"].scales_db == 0


def test_another_zero_point_is_so_many_levels_off(found: Calibration) -> None:
    changed = {**found.convs, "w": replace(found.convs["w"], zero=found.convs["w"].zero - 7)}
    assert distances(found, Calibration(changed, found.reach))["w"].levels == 7


def test_of_other_weights_or_shapes_it_does_not_fit(found: Calibration) -> None:
    fewer = Calibration({"w": found.convs["w"]}, found.reach)
    narrow = replace(found.convs["w"], scale=found.convs["w"].scale[:-1])
    for other in (fewer, Calibration({**found.convs, "w": narrow}, found.reach), Calibration(found.convs)):
        assert not found.fits(other)
        assert not other.fits(found)


def test_a_lead_may_be_there_for_nothing_but_may_not_be_missing(found: Calibration) -> None:
    """Where the ladder has promoted the convolution ahead, nobody fits one again."""
    unled = Calibration({**found.convs, "w2": replace(found.convs["w2"], lead=None)}, found.reach)
    assert found.fits(unled)
    assert not unled.fits(found)
