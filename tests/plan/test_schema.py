"""PLAN.toml: which builds it lists, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from jtts_export.errors import BadInput
from jtts_export.models import MODELS
from jtts_export.plan.schema import Build, read

ONE = '[[build]]\nname = "one"\nmodel = "kokoro"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "mine.toml").write_text(
        'name = "mine"\ndescription = "x"\nextends = "parity"\nvariants = ["int8"]\n'
    )
    (tmp_path / "plans" / "said.txt").write_text("Hello.\n")
    return tmp_path


def builds(folder: Path, text: str, **more: object) -> list[Build]:
    (folder / "plans" / "plan.toml").write_text(text, encoding="utf-8")
    return read(folder / "plans" / "plan.toml", folder / "out", folder / "cache", **more)  # type: ignore[arg-type]


def test_a_build_takes_the_defaults_of_the_command(folder: Path) -> None:
    (one,) = builds(folder, ONE)
    assert (one.name, one.repo) == ("one", None)
    assert one.job.checkpoint == MODELS["kokoro"].checkpoint
    assert (one.job.profile.name, one.job.variants, one.job.opset, one.job.coreml) == ("cpu", (), 17, None)
    assert (one.job.out, one.job.cache) == (folder / "out" / "one", folder / "cache")


def test_every_key_of_a_build(folder: Path) -> None:
    (one,) = builds(
        folder,
        ONE + 'checkpoint = "random:3"\nvariants = ["int8"]\nprofile = "mine.toml"\ncoreml = "iOS17"\nopset = 20\n'
        'sentences = "said.txt"\nrepo = "me/{name}-{model}"\n',
        store="file:///store",
        force=True,
    )
    assert (one.job.checkpoint, one.job.variants, one.job.profile.name) == ("random:3", ("int8",), "mine")
    assert (one.job.coreml, one.job.opset, one.job.sentences) == ("iOS17", 20, ("Hello.",))
    assert (one.repo, one.job.store, one.job.force) == ("me/one-kokoro", "file:///store", True)


def test_paths_are_relative_to_the_plan_wherever_it_is_read_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "plans" / "plan.toml").write_text(ONE + 'checkpoint = "../weights#t3.pt"\nprofile = "mine.toml"\n')
    (one,) = read(Path("plans/plan.toml"), Path("out"), Path("cache"))
    assert one.job.checkpoint == str(folder / "plans" / ".." / "weights#t3.pt")
    assert one.job.profile.name == "mine"


def test_defaults_hold_for_every_build_that_does_not_say_otherwise(folder: Path) -> None:
    text = '[defaults]\nmodels = ["kokoro", "t3"]\nvariants = ["int8"]\nrepo = "me/{name}"\n\n'
    found = builds(folder, text + '[[build]]\n\n[[build]]\nmodel = "speecht5"\nvariants = ["fp16"]\n')
    assert [(b.name, b.job.variants, b.repo) for b in found] == [
        ("kokoro", ("int8",), "me/kokoro"),
        ("t3", ("int8",), "me/t3"),
        ("speecht5", ("fp16",), "me/speecht5"),
    ]


def test_lists_are_a_build_for_each_combination_and_names_tell_them_apart(folder: Path) -> None:
    found = builds(
        folder,
        '[[build]]\nmodels = ["kokoro", "t3"]\nprofiles = ["cpu", "mine.toml"]\nvariants = [["int8"]]\n'
        'checkpoints = ["random:0", "hub:a/b@v1"]\n',
    )
    assert [build.name for build in found] == [
        *("kokoro-random-0-cpu", "kokoro-random-0-mine", "kokoro-b-v1-cpu", "kokoro-b-v1-mine"),
        *("t3-random-0-cpu", "t3-random-0-mine", "t3-b-v1-cpu", "t3-b-v1-mine"),
    ]


def test_lists_of_lists_are_builds_of_their_own(folder: Path) -> None:
    found = builds(folder, '[[build]]\nmodel = "t3"\nvariants = [["int8", "fp16"], ["int4"], []]\n')
    assert [(b.name, b.job.variants) for b in found] == [
        ("t3-int8-fp16", ("int8", "fp16")),
        ("t3-int4", ("int4",)),
        ("t3-fp32", ()),
    ]


def test_a_template_names_them(folder: Path) -> None:
    found = builds(
        folder, '[[build]]\nname = "{model}.of.{checkpoint}"\nmodel = "t3"\ncheckpoints = ["a b/c:d", "e"]'
    )
    assert [build.name for build in found] == ["t3.of.c-d", "t3.of.e"]


def test_only_some(folder: Path) -> None:
    text = '[[build]]\nmodels = ["kokoro", "t3", "speecht5"]\n'
    assert [b.name for b in builds(folder, text, only=["speecht5", "kokoro"])] == ["kokoro", "speecht5"]
    with pytest.raises(BadInput, match=r"unknown build 'koko'; did you mean 'kokoro'\? builds: kokoro, t3, sp"):
        builds(folder, text, only=["koko"])


MISTAKES = {
    "": "build is missing",
    "build = []": "has no build",
    "[[build": "cannot be read: ",
    "[default]\n" + ONE: "unknown key 'default'; did you mean 'defaults'? keys: defaults, build",
    '[defaults]\nnmae = "x"\n' + ONE: "defaults: unknown key 'nmae'; keys: model, models, checkpoint",
    '[defaults]\nname = "x"\n' + ONE: "defaults: unknown key 'name'",
    ONE + 'profil = "cpu"': "build.1: unknown key 'profil'; did you mean 'profile'?",
    ONE + "opset = 9": "build 1 ('one'): opset: 9 is not in 17 to 20",
    ONE + 'opset = "17"': "build.1.opset: Input should be a valid integer",
    ONE + "model = 3": "cannot be read: ",
    '[[build]]\nname = "x"': "build 1 ('x'): model is missing; models: kokoro, speecht5, t3",
    '[[build]]\nmodel = "kokro"': "unknown model 'kokro'; did you mean 'kokoro'? models: kokoro, speecht5, t3",
    "[[build]]\nmodels = []": "build.1: models: it is empty",
    ONE + 'models = ["t3"]': "build.1: model and models: one of them",
    ONE
    + 'variants = ["int4"]': "unknown variant 'int4' of kokoro; did you mean 'int8'? variants of kokoro: int8, fp16",
    ONE + 'variants = "int8"': "build.1.variants: names of variants are wanted, or lists of names",
    ONE + 'variants = ["int8", ["fp16"]]': "build.1.variants: names of variants are wanted",
    ONE + 'profile = "mine.toml"\nvariants = ["fp16"]': "profile mine has no variant 'fp16'; variants: int8",
    ONE + 'profile = "cpus"': "no profile 'cpus'; built in: ",
    ONE + 'profile = "none.toml"': "plans/none.toml'; built in: ",
    ONE + 'coreml = "iOS16"': "coreml: unknown target 'iOS16'; did you mean 'iOS1",
    ONE + 'sentences = "none.txt"': "none.txt cannot be read: No such file",
    ONE + 'repo = "me"': "repo: 'me' is not of the form ORG/NAME",
    ONE + 'repo = "me/{modle}"': "repo: unknown placeholder 'modle'; did you mean 'model'?",
    '[[build]]\nname = "{model.__class__}"\nmodel = "t3"': "name: unknown placeholder 'model.__class__'",
    '[[build]]\nname = "{model"\nmodel = "t3"': "name: '{model': expected '}'",
    '[[build]]\nname = "../up"\nmodel = "t3"': "name: '../up' is not safe as a folder's",
    '[[build]]\nname = ".hidden"\nmodel = "t3"': "name: '.hidden' is not safe",
    f'[[build]]\nname = "{"n" * 101}"\nmodel = "t3"': "is not safe",
    ONE + ONE: "two builds are called 'one'; names may hold {model}",
    ONE + ONE.replace("one", "One"): "two builds are called 'One' or 'one'",
    '[[build]]\nmodel = "t3"\ncheckpoints = ["a/x", "b/x"]': "two builds are called 't3-x'",
    '[[build]]\nname = "t3"\nmodel = "t3"\nprofiles = ["cpu", "parity"]': "two builds are called 't3'",
    ONE + 'checkpoint = "~nobody-of-this-name/x"': "build 1 ('one'): '~nobody-of-this-name/x': ",
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_line_that_names_the_key_and_what_could_be_there(folder: Path, text: str) -> None:
    with pytest.raises(BadInput) as refused:
        builds(folder, text)
    said = str(refused.value)
    assert said.startswith("plan plan.toml")
    assert MISTAKES[text] in said
    assert "\n" not in said


def test_a_plan_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.toml cannot be read: No such file"):
        read(tmp_path / "none.toml", tmp_path, tmp_path)
    (tmp_path / "plan.toml").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="cannot be read: 'utf-8' codec"):
        read(tmp_path / "plan.toml", tmp_path, tmp_path)


def test_the_plans_of_this_repository_are_plans(tmp_path: Path) -> None:
    plans = sorted((Path(__file__).parents[2] / "plans").glob("*.toml"))
    assert plans
    for plan in plans:
        assert read(plan, tmp_path, tmp_path)
