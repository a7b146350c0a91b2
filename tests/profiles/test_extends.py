"""Profiles over others: what is inherited, what is replaced, what is taken away, and from where."""

from __future__ import annotations

from pathlib import Path

import pytest

from jtts_export.errors import BadInput
from jtts_export.profiles.schema import Gate, built_in, load_profile

BASE = """
name = "base"
description = "extended by others"
threads = 3
schemes = ["stored-int8"]

[gates.kokoro.all]
size_mb = "<= 100"
rss_peak_mb = "<= 900"

[gates.kokoro.int8]
size_mb = "<= 50"
"""
HEAD = 'name = "mine"\ndescription = "a test"\n'


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def gates(folder: Path, own: str, variant: str) -> dict[str, float]:
    """Metric -> limit of a profile over BASE."""
    write(folder / "base.toml", BASE)
    profile = load_profile(str(write(folder / "mine.toml", f'{HEAD}extends = "base.toml"\n{own}')))
    return {gate.metric: gate.limit for gate in profile.gates_for("kokoro", variant)}


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as error:
        load_profile(str(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_a_file_does_not_say_is_as_in_the_one_it_extends(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", BASE)
    mine = load_profile(str(write(tmp_path / "mine.toml", f'{HEAD}extends = "base.toml"\nthreads = 1\n')))
    assert (mine.name, mine.description) == ("mine", "a test")
    assert (mine.threads, mine.schemes) == (1, ("stored-int8",))
    assert mine.gates_for("kokoro", "int8") == [Gate("size_mb", "<=", 50), Gate("rss_peak_mb", "<=", 900)]


def test_a_built_in_profile_can_be_extended(tmp_path: Path) -> None:
    path = write(tmp_path / "m.toml", f'{HEAD}extends = "cpu"\n[gates.kokoro.all]\nrtf_warm_p50 = "<= 0.1"\n')
    mine, cpu = load_profile(str(path)), load_profile("cpu")
    changed = {gate: Gate("rtf_warm_p50", "<=", 0.1) for gate in [Gate("rtf_warm_p50", "<=", 1)]}
    assert mine.gates_for("t3", "int4") == cpu.gates_for("t3", "int4")
    assert mine.gates_for("kokoro", "int8") == [changed.get(g, g) for g in cpu.gates_for("kokoro", "int8")]


def test_a_name_of_ones_own_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", BASE)
    assert "name: " in refusal(write(tmp_path / "mine.toml", 'extends = "base.toml"\ndescription = "a test"\n'))


def test_gates_are_replaced_one_by_one(tmp_path: Path) -> None:
    own = '[gates.kokoro.all]\nsize_mb = "<= 80"\n[gates.kokoro.fp16]\nrss_peak_mb = "<= 500"\n'
    assert gates(tmp_path, own, "fp32") == {"size_mb": 80, "rss_peak_mb": 900}
    assert gates(tmp_path, own, "fp16") == {"size_mb": 80, "rss_peak_mb": 500}
    assert gates(tmp_path, own, "int8") == {"size_mb": 50, "rss_peak_mb": 900}


def test_off_takes_a_gate_of_all_away_and_leaves_a_variants_own(tmp_path: Path) -> None:
    own = '[gates.kokoro.all]\nsize_mb = "off"\n'
    assert gates(tmp_path, own, "fp32") == {"rss_peak_mb": 900}
    assert gates(tmp_path, own, "int8") == {"rss_peak_mb": 900, "size_mb": 50}


@pytest.mark.parametrize("metric", ["size_mb", "rss_peak_mb"])  # of its own, and of all
def test_off_under_a_variant_takes_the_gate_away_from_it_alone(tmp_path: Path, metric: str) -> None:
    own = f'[gates.kokoro.int8]\n{metric} = "off"\n'
    assert set(gates(tmp_path, own, "int8")) == {"size_mb", "rss_peak_mb"} - {metric}
    assert gates(tmp_path, own, "fp32") == {"size_mb": 100, "rss_peak_mb": 900}


def test_off_takes_away_what_only_a_variant_had(tmp_path: Path) -> None:
    own = '[gates.kokoro.all]\nsize_mb = "off"\n[gates.kokoro.int8]\nsize_mb = "off"\n'
    assert gates(tmp_path, own, "int8") == {"rss_peak_mb": 900}


def test_off_holds_over_three_files_and_can_be_undone(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", BASE)
    off = '[gates.kokoro.int8]\nrss_peak_mb = "off"\n'
    write(tmp_path / "middle.toml", f'name = "m"\ndescription = "m"\nextends = "base.toml"\n{off}')
    top = f'{HEAD}extends = "middle.toml"\n'
    for own, expected in (
        ("", {"size_mb"}),
        ('[gates.kokoro.all]\nrss_peak_mb = "off"\n', {"size_mb"}),
        ('[gates.kokoro.int8]\nrss_peak_mb = "<= 1"\n', {"size_mb", "rss_peak_mb"}),
    ):
        profile = load_profile(str(write(tmp_path / "top.toml", top + own)))
        assert {g.metric for g in profile.gates_for("kokoro", "int8")} == expected


def test_off_works_without_another_file(tmp_path: Path) -> None:
    path = write(tmp_path / "base.toml", BASE + 'rss_peak_mb = "off"\n')
    assert load_profile(str(path)).gates_for("kokoro", "int8") == [Gate("size_mb", "<=", 50)]


@pytest.mark.parametrize("where", ["all", "int8"])
def test_off_for_a_gate_that_is_not_there_is_refused(tmp_path: Path, where: str) -> None:
    write(tmp_path / "base.toml", BASE)
    own = f'{HEAD}extends = "base.toml"\n[gates.kokoro.{where}]\nrtf_cold = "off"\n'
    message = refusal(write(tmp_path / "mine.toml", own))
    assert f"mine.toml: gates.kokoro.{where}.rtf_cold: there is no gate to be switched off" in message


def test_a_file_in_a_folder_below_can_be_extended_and_extends_from_there(tmp_path: Path) -> None:
    write(tmp_path / "below/base.toml", BASE)
    write(tmp_path / "below/next.toml", 'name = "next"\ndescription = "n"\nextends = "base.toml"\n')
    mine = load_profile(str(write(tmp_path / "mine.toml", f'{HEAD}extends = "below/next.toml"\n')))
    assert mine.threads == 3


@pytest.mark.parametrize(
    "name", ["../base.toml", "{outside}", "below/../../base.toml", "link.toml", "linked/base.toml"]
)
def test_a_file_outside_of_the_profiles_folder_is_refused(tmp_path: Path, name: str) -> None:
    outside = write(tmp_path / "base.toml", BASE)
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "link.toml").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    path = write(folder / "mine.toml", f'{HEAD}extends = "{name.format(outside=outside)}"\n')
    assert "lies outside of this profile's folder" in refusal(path)


@pytest.mark.parametrize(
    ("name", "named"), [("mine.toml", "mine.toml -> mine.toml"), ("other.toml", "-> other.toml ->")]
)
def test_circles_are_refused(tmp_path: Path, name: str, named: str) -> None:
    write(tmp_path / "other.toml", 'name = "other"\ndescription = "o"\nextends = "mine.toml"\n')
    message = refusal(write(tmp_path / "mine.toml", f'{HEAD}extends = "{name}"\n'))
    assert "extends: a circle: mine.toml" in message
    assert named in message


@pytest.mark.parametrize("name", ["no-such", "missing.toml", "base.json", "below", ""])
def test_what_is_no_profile_is_answered_with_those_there_are(tmp_path: Path, name: str) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "base.json").write_text("{}")
    message = refusal(write(tmp_path / "mine.toml", f'{HEAD}extends = "{name}"\n'))
    assert f"mine.toml: extends: no profile '{name}'; built in: apple, cpu" in message


@pytest.mark.parametrize("name", ["a\\u0000.toml", "loop.toml", "a" * 300 + ".toml"], ids=["NUL", "loop", "long"])
def test_what_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    assert "mine.toml: extends: " in refusal(write(tmp_path / "mine.toml", f'{HEAD}extends = "{name}"\n'))


def test_what_extends_says_is_a_name(tmp_path: Path) -> None:
    assert "extends: '3' is not the name" in refusal(write(tmp_path / "mine.toml", f"{HEAD}extends = 3\n"))


def test_an_error_names_the_file_that_it_is_in(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", BASE + 'size_gb = "<= 1"\n')
    message = refusal(write(tmp_path / "mine.toml", f'{HEAD}extends = "base.toml"\n'))
    assert "profile base.toml: gates.kokoro.int8: unknown metric 'size_gb'" in message


@pytest.mark.parametrize(
    "own", ["gates = 3\n", "gates.kokoro = 3\n", "gates.kokoro.all = 3\n", "gates.kokoro.all.size_mb = 3\n"]
)
def test_gates_of_another_form_are_refused_as_without_extends(tmp_path: Path, own: str) -> None:
    write(tmp_path / "base.toml", BASE)
    assert "gates" in refusal(write(tmp_path / "mine.toml", f'{HEAD}extends = "base.toml"\n{own}'))


def test_the_example_in_the_documentation_is_a_profile(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/profiles.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    profile = load_profile(str(write(tmp_path / "example.toml", example)))
    limits = {gate.metric: str(gate) for gate in profile.gates_for("kokoro", "int8")}
    assert limits["rtf_warm_p50"] == "rtf_warm_p50 <= 0.5"
    assert limits["size_mb"] == "size_mb <= 120"
    assert "speedup_vs_fp32" in limits
    assert "speedup_vs_reference" not in limits


def test_the_documentation_lists_the_built_in_profiles() -> None:
    page = (Path(__file__).parents[2] / "docs/profiles.md").read_text(encoding="utf-8")
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(built_in())
