"""Tasks of a plan: what is shared is one, and comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from jtts_export.plan.graph import Task, tasks
from jtts_export.plan.schema import read

SHARED = ("export", "spread", "optimize")


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> list[Task]:
    (tmp_path / "plan.toml").write_text(request.param)
    return tasks(read(tmp_path / "plan.toml", tmp_path / "out", tmp_path / "cache"))


def plan(text: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("made", [text], indirect=True, ids=[""])


def seen(made: list[Task]) -> list[tuple[tuple[str, ...], tuple[str, ...], bool]]:
    return [(task.builds, task.stages, task.last) for task in made]


@plan('[[build]]\nmodels = ["kokoro", "t3"]\nvariants = ["int8"]\n')
def test_builds_that_share_nothing_are_a_task_each(made: list[Task]) -> None:
    assert seen(made) == [(("kokoro",), (), True), (("t3",), (), True)]
    assert [task.needs for task in made] == [(), ()]


@plan('[[build]]\nmodel = "kokoro"\nvariants = [["int8"], ["fp16"], ["int8", "fp16"]]\n')
def test_one_export_serves_all_variants_and_a_variant_all_builds_that_hold_it(made: list[Task]) -> None:
    every = ("kokoro-int8", "kokoro-fp16", "kokoro-int8-fp16")
    int8, fp16 = ("kokoro-int8", "kokoro-int8-fp16"), ("kokoro-fp16", "kokoro-int8-fp16")
    assert seen(made) == [
        (every, SHARED, False),
        (int8, ("quantize-int8",), False),
        (fp16, ("quantize-fp16",), False),
        (("kokoro-int8",), (*SHARED, "quantize-int8"), True),
        (("kokoro-fp16",), (*SHARED, "quantize-fp16"), True),
        (("kokoro-int8-fp16",), (*SHARED, "quantize-int8", "quantize-fp16"), True),
    ]
    first = made[0].name
    assert [task.needs for task in made[:3]] == [(), (first,), (first,)]
    assert set(made[-1].needs) == {task.name for task in made[:3]}
    assert len({task.name for task in made}) == len(made)


@plan('[[build]]\nmodel = "kokoro"\nprofiles = ["cpu", "cpu-streaming", "apple"]\nvariants = ["int8"]\n')
def test_profiles_share_an_export_and_each_quantizes_by_its_own_gates_where_they_differ(made: list[Task]) -> None:
    shared = [task for task in made if not task.last]
    assert set(SHARED) <= set(shared[0].stages)
    assert len(shared[0].builds) == 3
    assert all("validate" not in task.stages for task in made)


@plan('[[build]]\nname = "a"\nmodel = "t3"\n[[build]]\nname = "b"\nmodel = "t3"\n')
def test_two_builds_of_the_same_are_measured_once(made: list[Task]) -> None:
    assert seen(made)[0] == (("a", "b"), (*SHARED, "validate"), False)


@plan('[[build]]\nmodel = "t3"\ncheckpoints = ["random:0", "random:1"]\n')
def test_checkpoints_share_nothing(made: list[Task]) -> None:
    assert all(task.last for task in made)


@plan('[[build]]\nname = "a"\nmodel = "t3"\n[[build]]\nname = "b"\nmodel = "t3"\nopset = 20\n')
def test_nor_do_opsets(made: list[Task]) -> None:
    assert all(task.last for task in made)


@plan('[[build]]\nname = "a"\nmodel = "kokoro"\ncoreml = true\n[[build]]\nname = "b"\nmodel = "kokoro"\n')
def test_packages_belong_to_the_build_that_wants_them(made: list[Task]) -> None:
    assert seen(made)[0] == (("a", "b"), SHARED, False)
    assert [task.stages for task in made[1:]] == [SHARED, SHARED]
