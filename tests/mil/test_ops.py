"""Every op against a reference."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import pytest
from mil.cases import compressed, elementwise, networks, tensors
from mil.programs import Array, run_all

from jtts_export import mil
from jtts_export.mil.ops import CONTROL

CASES = [(family, case) for family in (compressed, elementwise, networks, tensors) for case in family.cases()]
# Tested with programs of their own: test_control.py and test_states.py.
ELSEWHERE = {"const", *CONTROL}


@cache
def _results(family: ModuleType, target: object) -> dict[int, list[Array]]:
    numbers = [n for n, (owner, case) in enumerate(CASES) if owner is family and case.target == target]
    with TemporaryDirectory() as folder:
        results = run_all([CASES[number][1] for number in numbers], Path(folder) / "ops.mlpackage")
    return dict(zip(numbers, results, strict=True))


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{case.op}-{n}" for n, (_, case) in enumerate(CASES)])
def test_op_agrees_with_its_reference(number: int) -> None:
    family, case = CASES[number]
    results = _results(family, case.target)[number]
    assert len(results) == len(case.expected)
    for result, expected in zip(results, case.expected, strict=True):
        wanted = np.asarray(expected)
        assert result.shape == wanted.shape
        if wanted.dtype.kind not in "b" and wanted.itemsize > 1:  # a package gives out other types as one of these
            assert result.dtype == (np.int32 if wanted.dtype.kind == "i" else np.float32)
        np.testing.assert_allclose(result, wanted, rtol=case.tolerance, atol=case.tolerance)


def test_every_op_has_a_case() -> None:
    assert {case.op for _, case in CASES} | ELSEWHERE == set(mil.supported_ops())
