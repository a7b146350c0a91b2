"""Profiles: what they may say, and what they answer where they say something else."""

from __future__ import annotations

from pathlib import Path

import pytest
from measured import metrics_of

from jtts_export.errors import BadInput
from jtts_export.models import MODELS
from jtts_export.profiles.schema import METRICS, OPERATORS, Gate, built_in, load_profile, parse_gate

MINIMAL = """
name = "mine"
description = "a test"

[gates.kokoro.all]
size_mb = "<= 100"
durations_equal_ratio = ">= 0.9"

[gates.kokoro.int8]
size_mb = "<= 50"
parity_f0_snr_db = "> 20"
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(BadInput) as error:
        load_profile(write(folder, text))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", built_in())
def test_built_in_profiles_load_under_their_file_names(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description


@pytest.mark.parametrize("name", built_in())
def test_built_in_profiles_gate_every_variant_of_every_model(name: str) -> None:
    """A variant without a gate fails."""
    profile = load_profile(name)
    assert set(profile.gates) == set(MODELS)
    for model in MODELS:
        for variant in ("fp32", *MODELS[model].load().recipes):
            assert profile.gates_for(model, variant)


@pytest.mark.parametrize("name", built_in())
def test_built_in_profiles_gate_only_what_is_measured_of_a_model(name: str) -> None:
    """A gate on anything else fails, whatever the artifact is."""
    for model, variants in load_profile(name).gates.items():
        measured = metrics_of(MODELS[model].load())
        for variant, limits in variants.items():
            assert set(limits) <= measured, (model, variant)


def test_a_metric_is_what_some_model_measures_and_nothing_else() -> None:
    assert set(METRICS) == set.union(*(metrics_of(info.load()) for info in MODELS.values()))


def test_a_ladder_can_climb_for_metrics_of_its_model_only() -> None:
    """Stages name the gates that they can improve; a name that nobody measures would never be seen to fail."""
    for info in MODELS.values():
        model = info.load()
        assert {gate for stage in model.parity.stages for gate in stage.gates} <= metrics_of(model)


def test_the_cpu_profile_is_built_in() -> None:
    assert "cpu" in built_in()


def test_a_profile_is_read_from_a_file(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, MINIMAL))
    assert (profile.name, profile.description, profile.threads) == ("mine", "a test", 2)


def test_a_variants_own_limit_replaces_that_of_all(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, MINIMAL))
    common = [Gate("size_mb", "<=", 100), Gate("durations_equal_ratio", ">=", 0.9)]
    assert profile.gates_for("kokoro", "fp16") == common
    assert profile.gates_for("kokoro", "int8") == [
        Gate("size_mb", "<=", 50),
        Gate("durations_equal_ratio", ">=", 0.9),
        Gate("parity_f0_snr_db", ">", 20),
    ]
    assert profile.gates_for("other", "int8") == []


def test_an_unknown_key_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, "colour = 'red'\n" + MINIMAL)
    assert "mine.toml" in message
    assert "colour" in message
    assert "name, description" in message
    assert "threads, gates" in message


def test_an_unknown_metric_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + 'loudness = "> 3"\n')
    assert "loudness" in message
    assert ", ".join(METRICS) in message


@pytest.mark.parametrize("limit", ["~ 20", "=> 20", ">=20", "20", "", ">=", ">= many", ">= 1 2"])
def test_a_limit_that_cannot_be_read_is_answered_with_the_operators(tmp_path: Path, limit: str) -> None:
    message = refusal(tmp_path, MINIMAL + f'rss_peak_mb = "{limit}"\n')
    assert f"rss_peak_mb: '{limit}'" in message
    assert ", ".join(OPERATORS) in message


@pytest.mark.parametrize(
    ("was", "becomes", "where"),
    [
        ('name = "mine"', "", "name: "),
        ('name = "mine"', 'name = "a name/with more"', "name: "),
        ('name = "mine"', 'name = "mine"\nthreads = 0', "threads: "),
        ('size_mb = "<= 50"', "size_mb = 50", "gates.kokoro.int8.size_mb: "),
        ("[gates.kokoro.int8]", "[gates.kokoro.int8.more]", "gates.kokoro.int8.more: "),
    ],
)
def test_a_wrong_value_is_named_by_its_key(tmp_path: Path, was: str, becomes: str, where: str) -> None:
    assert where in refusal(tmp_path, MINIMAL.replace(was, becomes))


def test_a_profile_without_gates_is_refused(tmp_path: Path) -> None:
    assert "gates: " in refusal(tmp_path, 'name = "mine"\ndescription = "a test"\n')


@pytest.mark.parametrize(
    "content", [b"name = ", b"name = '\xff'", b"\x00\x01"], ids=["broken", "not UTF-8", "binary"]
)
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"mine\.toml cannot be read"):
        load_profile(str(path))


@pytest.mark.parametrize("name", ["no-such-profile", "missing.toml", "", "schema.py"])
def test_an_unknown_profile_is_answered_with_the_built_in_ones(name: str) -> None:
    with pytest.raises(BadInput, match="cpu"):
        load_profile(name)


def test_a_folder_or_another_kind_of_file_is_no_profile(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "mine.json").write_text("{}")
    for name in ("folder.toml", "mine.json"):
        with pytest.raises(BadInput, match="no profile"):
            load_profile(str(tmp_path / name))


@pytest.mark.parametrize(
    ("limit", "passing", "failing"),
    [
        (">= 2", (2, 3, float("inf")), (1.9, float("-inf"))),
        ("> 2", (2.1,), (2,)),
        ("<= 2", (2, -5), (2.1,)),
        ("< 2", (1.9,), (2, 3)),
        ("== 1", (1, 1.0), (0.999, 1.001)),
    ],
)
def test_a_gate_compares(limit: str, passing: tuple[float, ...], failing: tuple[float, ...]) -> None:
    gate = parse_gate("size_mb", limit)
    assert str(gate) == f"size_mb {limit}"
    assert all(gate.passes({"size_mb": value}) for value in passing)
    assert not any(gate.passes({"size_mb": value}) for value in failing)


@pytest.mark.parametrize("op", OPERATORS)
def test_a_gate_fails_what_was_not_measured_or_is_not_a_number(op: str) -> None:
    gate = Gate("size_mb", op, 0.0)
    assert not gate.passes({})
    assert not gate.passes({"size_mb": float("nan")})
    assert not gate.passes({"rss_peak_mb": 0.0})
