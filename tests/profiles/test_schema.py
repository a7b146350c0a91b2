"""Profiles: what they may say, and what they answer where they say something else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from measured import declared

from jtts_export.errors import BadInput
from jtts_export.models import MODELS
from jtts_export.profiles.allowed import SCHEMES, check_schemes
from jtts_export.profiles.metrics import TABLE, is_timed, metrics_of
from jtts_export.profiles.schema import (
    METRICS,
    OPERATORS,
    PROVIDERS,
    VARIANTS,
    Gate,
    Profile,
    built_in,
    load_profile,
    parse_gate,
    rows,
)
from jtts_export.runtime.names import COREML, COREML_INT8

ENDLESS = ("<= inf", ">= -inf", "<= nan", "== Infinity", "<= 1e999")  # every value passes such a limit, or none

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
def test_built_in_profiles_share_the_gates_of_parity(name: str) -> None:
    """A target adds to them; what is wrong anywhere is wrong on each."""
    profile, parity = load_profile(name), load_profile("parity")
    for model, info in MODELS.items():
        for variant in ("fp32", *info.variants):
            assert set(parity.gates_for(model, variant)) <= set(profile.gates_for(model, variant))


@pytest.mark.parametrize("name", built_in())
def test_built_in_profiles_allow_what_they_build_and_every_scheme_of_it(name: str) -> None:
    profile = load_profile(name)
    assert set(profile.default_variants) <= set(profile.variants)
    for info in MODELS.values():
        for variant in profile.variants_for(info.name, ()):
            check_schemes(profile, variant, info.load().recipes[variant])


AGAINST_EXPORT, AGAINST_FP32 = ("exported_", "structure_"), ("layer_", "structure_")  # fp32 has; every other has
OF_PACKAGES = re.compile("coreml_.*|.*_vs_coreml")


@pytest.mark.parametrize("name", built_in())
def test_built_in_profiles_gate_only_what_is_measured_of_every_variant(name: str) -> None:
    """A gate on anything else fails, whatever the artifact is."""
    for model, variant, metric, _, _ in rows(load_profile(name)):
        if variant in (COREML, COREML_INT8):
            assert TABLE[metric].always or OF_PACKAGES.fullmatch(metric)
        else:
            others = AGAINST_EXPORT if variant == "fp32" else AGAINST_FP32
            assert TABLE[metric].always or (variant != "all" and metric.startswith(others))
        assert model in TABLE[metric].models


@pytest.mark.parametrize("model", MODELS)
def test_a_models_metrics_are_those_of_what_it_declares(model: str) -> None:
    """Those that every model has aside: parity of its own taps, and audio or steps only where it has them."""
    everyones = set.intersection(*(set(metrics_of(name)) for name in MODELS))
    own = declared(MODELS[model].load())
    assert own <= set(metrics_of(model)) - everyones
    parity = {m for m in metrics_of(model) if m.startswith("parity_") or m.endswith("_equal_ratio")} - everyones
    assert parity <= own
    assert any(m.startswith("audio_") for m in metrics_of(model)) is (MODELS[model].load().parity.audio is not None)
    assert any(m.startswith("step_") for m in metrics_of(model)) is (MODELS[model].load().steps is not None)


def test_metrics_of_time_are_told_from_others() -> None:
    timed = {"rtf_warm_p50", "ttfa_cold_ms", "speedup_vs_fp32", "step_rtf", "concurrent_4_slowest_rtf"}
    timed |= {"chunk_gap_p95_ms", "stream_underruns", "call_growth_ratio", "warmup_calls", "read_gb_s"}
    others = {"size_mb", "rss_peak_mb", "rss_growth_mb", "parity_log_mel_ratio", "audio_stutter_score"}
    others |= {"operators_missing", "audio_length_error_ratio", "no_such_metric"}
    assert all(map(is_timed, timed))
    assert not any(map(is_timed, others))


def test_a_ladder_can_climb_for_metrics_of_its_model_only() -> None:
    """Stages name the gates that they can improve; a name that nobody measures would never be seen to fail."""
    for name, info in MODELS.items():
        assert {gate for stage in info.load().parity.stages for gate in stage.gates} <= set(metrics_of(name))


def test_the_built_in_profiles() -> None:
    assert {"apple", "cpu", "cpu-streaming", "jabbertts", "parity", "server", "web"} == set(built_in())


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
    assert "threads, schemes, variants, default_variants, gates, extends" in message


def test_a_key_that_is_nearly_right_is_answered_with_the_right_one(tmp_path: Path) -> None:
    assert "did you mean 'threads'?" in refusal(tmp_path, "thread = 1\n" + MINIMAL)
    assert "did you mean 'size_mb'?" in refusal(tmp_path, MINIMAL + 'sizemb = "<= 3"\n')


def test_an_unknown_metric_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(tmp_path, MINIMAL + 'loudness = "> 3"\n')
    assert "gates.kokoro.int8: unknown metric 'loudness' of kokoro" in message
    assert f"metrics of kokoro: {', '.join(metrics_of('kokoro'))}" in message


@pytest.mark.parametrize(
    ("model", "metric"),
    [
        *(("t3", "audio_stoi"), ("t3", "parity_log_mel_ratio"), ("t3", "parity_f0_snr_db")),
        *(("kokoro", "step_rtf"), ("kokoro", "parity_mel_snr_db"), ("speecht5", "bandwidth_ratio")),
    ],
)
def test_a_metric_that_a_model_cannot_have_is_answered_with_those_it_has(
    tmp_path: Path, model: str, metric: str
) -> None:
    assert metric in METRICS
    message = refusal(tmp_path, MINIMAL + f'[gates.{model}.fp32]\n{metric} = "> 1"\n')
    assert f"gates.{model}.fp32: unknown metric '{metric}' of {model}" in message
    assert message.endswith(f"metrics of {model}: {', '.join(metrics_of(model))}")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ('gates.kokoo.all = { size_mb = "<= 1" }', "did you mean 'kokoro'? models: kokoro, speecht5, t3"),
        (
            'gates.kokoro.int-8 = { size_mb = "<= 1" }',
            "did you mean 'int8'? variants of kokoro: all, fp32, int8, fp16",
        ),
        ('gates.kokoro.int4 = { size_mb = "<= 1" }', "variants of kokoro: all, fp32, int8, fp16"),
        ('schemes = ["static"]', f"schemes: {', '.join(SCHEMES)}"),
        ('schemes = ["block-matmul48"]', "did you mean 'block-matmul"),
        ('variants = ["int9"]', f"variants: {', '.join(VARIANTS)}"),
        (
            'variants = ["int8"]\ndefault_variants = ["fp16"]',
            "default_variants: unknown variant 'fp16' of this profile",
        ),
        ('runtime = "tensorrt"', "runtime: Input should be 'onnxruntime', 'onnxruntime-web' or 'coreml'"),
        (
            'provider = "CpuExecutionProvider"',
            f"did you mean 'CPUExecutionProvider'? providers of onnxruntime: {', '.join(PROVIDERS['onnxruntime'])}",
        ),
        (
            'runtime = "onnxruntime-web"\nprovider = "CPUExecutionProvider"',
            "providers of onnxruntime-web: wasm, webgpu",
        ),
        (
            'runtime = "onnxruntime-web"\nprovider = "wasm"\nruntime_version = "1.2"',
            "versions of onnxruntime-web: 1.22",
        ),
        ('runtime_version = "1.30.0"', "runtime_version: only versions of onnxruntime-web"),
        ("threads = true", "threads: "),
        ('threads = "2"', "threads: "),
        ("schemes = 3", "schemes: "),
    ],
)
def test_what_is_not_known_is_answered_with_what_is(tmp_path: Path, key: str, message: str) -> None:
    assert message in refusal(tmp_path, f"{key}\n{MINIMAL}")


@pytest.mark.parametrize("limit", ["~ 20", "=> 20", ">=20", "20", "", ">=", ">= many", ">= 1 2", *ENDLESS])
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


@pytest.mark.parametrize("name", ["no-such-profile", "missing.toml", "", "schema.py", "a" * 300 + ".toml"])
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


@pytest.mark.parametrize("target", ['provider = "CoreMLExecutionProvider"', 'runtime = "coreml"\nprovider = "ALL"'])
def test_times_of_this_machine_are_no_gates_of_another_runtime(tmp_path: Path, target: str) -> None:
    load_profile(write(tmp_path, f"{target}\n{MINIMAL}"))
    message = refusal(tmp_path, f'{target}\n{MINIMAL}rtf_warm_p50 = "<= 1"\n')
    assert "gates.kokoro.int8.rtf_warm_p50: times are measured with onnxruntime and CPUExecutionProvider" in message


def test_variants_are_those_asked_for_or_the_default_ones_that_the_model_has(tmp_path: Path) -> None:
    keys = 'variants = ["int8", "int4"]\ndefault_variants = ["int4", "int8"]\n'
    profile = load_profile(write(tmp_path, keys + MINIMAL))
    assert profile.variants_for("kokoro", ()) == ("int8",)
    assert profile.variants_for("t3", ()) == ("int8", "int4")
    assert profile.variants_for("t3", ("int4",)) == ("int4",)
    with pytest.raises(BadInput, match="profile mine has no variant 'fp16'; variants: int8, int4"):
        profile.variants_for("kokoro", ("int8", "fp16"))
    assert load_profile(write(tmp_path, MINIMAL)).variants_for("kokoro", ()) == ()


@pytest.mark.parametrize("name", built_in())
def test_a_profile_reads_back_from_the_json_of_a_manifest(name: str) -> None:
    profile = load_profile(name)
    assert Profile.model_validate(json.loads(profile.model_dump_json())) == profile


def test_rows_say_every_gate_and_what_it_means(tmp_path: Path) -> None:
    assert rows(load_profile(write(tmp_path, MINIMAL)))[::3] == [
        ("kokoro", "all", "size_mb", "<= 100", METRICS["size_mb"]),
        ("kokoro", "int8", "parity_f0_snr_db", "> 20", METRICS["parity_f0_snr_db"]),
    ]
    shown = rows(load_profile("cpu-streaming"))
    assert ("kokoro", "all", "parity_log_mel_ratio", "<= 1", METRICS["parity_log_mel_ratio"]) in shown  # of parity
    assert ("kokoro", "all", "rtf_warm_p50", "<= 1", METRICS["rtf_warm_p50"]) in shown  # of cpu
    assert ("kokoro", "int8", "ttfa_warm_p95_ms", "<= 500", METRICS["ttfa_warm_p95_ms"]) in shown
