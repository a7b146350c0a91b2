"""Nested blocks: conditions and loops."""

from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder
from coremltools.converters.mil.mil import types
from mil.programs import save

from jtts_export import mil

TARGET = ct.target.iOS17
COUNT = Builder.TensorSpec((1,), types.int32)


def test_cond_runs_the_branch_that_its_predicate_names(tmp_path: Path) -> None:
    @Builder.program(input_specs=[Builder.TensorSpec((2,)), Builder.TensorSpec((1,))], opset_version=TARGET)
    def program(x: Any, limit: Any) -> Any:
        doubled = Builder.mul(x=x, y=np.float32(2))
        predicate = Builder.squeeze(x=Builder.greater(x=limit, y=np.float32(0)), axes=[0])
        return Builder.cond(
            pred=predicate,
            _true_fn=lambda: Builder.add(x=doubled, y=x),
            _false_fn=lambda: Builder.sub(x=x, y=doubled),
        )

    main = mil.load(save(program, tmp_path / "cond.mlpackage")).functions["main"]
    x = np.array([1.0, -2.0], np.float32)
    for limit, factor in ((1.0, 3), (-1.0, -1)):
        (result,) = main.run({"x": x, "limit": np.array([limit])}).values()
        np.testing.assert_array_equal(result, factor * x)


def test_while_loop_runs_until_its_condition_fails(tmp_path: Path) -> None:
    @Builder.program(input_specs=[Builder.TensorSpec((2,)), COUNT], opset_version=TARGET)
    def program(x: Any, count: Any) -> Any:
        factor = Builder.add(x=x, y=np.float32(1))
        return Builder.while_loop(
            _cond=lambda value, index: Builder.squeeze(x=Builder.less(x=index, y=count), axes=[0]),
            _body=lambda value, index: (
                Builder.mul(x=value, y=factor),
                Builder.add(x=index, y=np.array([1])),
            ),
            loop_vars=(x, np.array([0], np.int32)),
        )

    main = mil.load(save(program, tmp_path / "loop.mlpackage")).functions["main"]
    x = np.array([1.0, 2.0], np.float32)
    for count in (0, 3):
        value, index = main.run({"x": x, "count": np.array([count])}).values()
        np.testing.assert_allclose(value, x * (x + 1) ** count)
        assert index == count


@pytest.mark.parametrize("bad", [-1, 4])
def test_an_index_out_of_range_is_an_error_that_names_the_op(bad: int, tmp_path: Path) -> None:
    @Builder.program(input_specs=[Builder.TensorSpec((4,)), COUNT], opset_version=TARGET)
    def program(x: Any, index: Any) -> Any:
        return Builder.gather(x=x, indices=index, axis=0, name="picked")

    main = mil.load(save(program, tmp_path / "gather.mlpackage")).functions["main"]
    with pytest.raises(mil.BadIndex, match=r"gather 'picked'.*dimension of 4"):
        main.run({"x": np.zeros(4), "index": np.array([bad])})
