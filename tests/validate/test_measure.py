"""What is measured of a variant's bytes, and what is written of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from subjects import profile

from jtts_export.models.source import sha256_file
from jtts_export.profiles import metrics as known
from jtts_export.profiles.metrics import is_timed, metrics_of
from jtts_export.runtime.names import stored
from jtts_export.validate.assets import client_files_equal_ratio, metadata_equal_ratio
from jtts_export.validate.gates import finite
from jtts_export.validate.measure import faithfulness, reference, validate
from jtts_export.validate.subject import Findings, Subject

MODELS = ("kokoro", "speecht5", "t3")
OF_OTHERS = {  # than fp32, by which they are measured
    *("layer_worst_snr_db", "layer_channel_snr_db", "layer_gain_error"),
    *("layer_weight_steps", "layer_weight_gain_error"),
}
OF_FP32 = {"exported_weight_error"}
# Of the process that is timed, and of the stream.
NOT_HERE = {"rss_peak_mb", "rss_slope_mb", "rss_slope_margin_mb", "rss_growth_mb", "audio_join_score"}
SENTENCES = ("Hello there.", "Good bye, then.")

Subjects = Callable[[str], Subject]
Found = Callable[[str, str], tuple[Findings, list[np.ndarray]]]


@pytest.mark.parametrize("name", MODELS)
def test_every_metric_that_is_not_of_time_is_measured(found: Found, name: str) -> None:
    wanted = {m for m in metrics_of(name) if known.TABLE[m].always and not is_timed(m)} - NOT_HERE
    for variant, own in (("fp32", OF_FP32), ("int8", OF_OTHERS)):
        metrics = found(name, variant)[0].metrics
        assert wanted | own | {"structure_equal_ratio"} <= set(metrics)
        assert (OF_FP32 | OF_OTHERS) & set(metrics) == own
        assert not any(is_timed(metric) or np.isnan(value) for metric, value in metrics.items())


@pytest.mark.parametrize("name", MODELS)
def test_figures_are_those_of_each_variant(subjects: Subjects, found: Found, name: str) -> None:
    fp32, int8 = (found(name, variant)[0].metrics for variant in ("fp32", "int8"))
    for metrics in (fp32, int8):
        assert metrics["client_files_equal_ratio"] == metrics["metadata_equal_ratio"] == 1
        assert metrics["operators_missing"] == 0
    assert fp32["size_ratio_vs_fp32"] == 1 > int8["size_ratio_vs_fp32"]
    assert int8["size_mb"] / fp32["size_mb"] == pytest.approx(int8["size_ratio_vs_fp32"])
    for stage in subjects(name).model.parity.whole.stages:
        exact, rounded = (metrics[f"parity_{stage.name}_snr_db"] for metrics in (fp32, int8))
        assert exact > rounded + 10 or exact == rounded == np.inf, stage.name  # as what int8 holds as fp32 does
    assert fp32["structure_equal_ratio"] == int8["structure_equal_ratio"] == 1
    assert fp32["exported_weight_error"] == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_utterance_has_a_row(subjects: Subjects, found: Found, name: str) -> None:
    for variant in ("fp32", "int8"):
        findings, said = found(name, variant)
        cases = subjects(name).cases("validation")
        assert [row["case"] for row in findings.details["rows"]] == [case.name for case in cases]
        assert len(said) == (len(cases) if subjects(name).model.parity.audio else 0)
        assert all(signal.ndim == 1 and signal.dtype == np.float32 and len(signal) for signal in said)
        assert bool(findings.details.get("layers")) is (variant != "fp32")


@pytest.mark.parametrize("name", MODELS)
def test_a_users_sentences_take_the_place_of_those_to_validate_on(subjects: Subjects, name: str) -> None:
    subject = subjects(name)
    own = replace(subject, sentences=SENTENCES)
    assert [case.text for case in own.cases("validation")] == list(SENTENCES)
    for purpose in ("timed", "brief", "sequence", "search"):
        assert [c.name for c in own.cases(purpose)] == [c.name for c in subject.cases(purpose)]


def test_a_users_sentences_are_what_is_measured(subjects: Subjects) -> None:
    own = replace(subjects("t3"), sentences=SENTENCES)
    findings, _ = faithfulness(own, "fp32", reference(own), lambda _: None)
    rows = findings.details["rows"]
    assert len(rows) == 2
    assert all(text.rstrip(".") in row["case"] for text, row in zip(SENTENCES, rows, strict=True))
    assert findings.metrics["parity_logits_snr_db"] > 90


# --- what lies beside the weights -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_swapped_voices_are_noticed(subjects: Subjects, tmp_path: Path, name: str) -> None:
    """Each is a good file, in the wrong place."""
    subject = subjects(name)
    clients = Path(shutil.copytree(subject.clients, tmp_path / "clients"))
    folder = next(path for path in (clients / "voices", clients / "speakers") if path.is_dir())
    one, other, *_ = sorted(folder.iterdir())
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)
    count = sum(path.is_file() for path in clients.rglob("*"))
    found = client_files_equal_ratio(subject.model, subject.loaded, clients)
    assert found == pytest.approx((count - 2) / count)
    one.unlink()
    assert client_files_equal_ratio(subject.model, subject.loaded, clients) == pytest.approx(found)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("change", ["changed", "lost", "added"])
def test_metadata_that_is_not_the_checkpoints_is_noticed(
    subjects: Subjects, tmp_path: Path, name: str, change: str
) -> None:
    subject = subjects(name)
    files, given = dict(subject.files["int8"]), subject.model.metadata(subject.loaded)
    count = sum(map(len, given.values()))
    graph = next(graph for graph, entries in given.items() if entries)
    proto = onnx.load(files[graph], load_external_data=False)
    if change == "changed":
        proto.metadata_props[0].value += "0"
    elif change == "lost":
        del proto.metadata_props[0]
    else:
        proto.metadata_props.add(key="more", value="1")
        count += 1
    files[graph] = tmp_path / files[graph].name
    onnx.save(proto, files[graph])
    found = metadata_equal_ratio(subject.model, subject.loaded, files)
    assert found == pytest.approx((count - 1) / count)
    assert metadata_equal_ratio(subject.model, subject.loaded, subject.files["int8"]) == 1


def test_what_lies_beside_the_weights_is_in_the_metrics(subjects: Subjects, tmp_path: Path) -> None:
    clients = Path(shutil.copytree(subjects("t3").clients, tmp_path / "clients"))
    (clients / "config.json").unlink()
    damaged = replace(subjects("t3"), clients=clients, sentences=SENTENCES[:1])
    metrics = faithfulness(damaged, "fp32", reference(damaged), lambda _: None)[0].metrics
    assert metrics["client_files_equal_ratio"] < 1 == metrics["metadata_equal_ratio"]


# --- the whole ------------------------------------------------------------------------------------------------


def strict(content: dict[str, Any]) -> dict[str, Any]:
    """As it is in validation.json."""
    return json.loads(json.dumps(finite(content), allow_nan=False))


def test_a_model_without_audio_has_no_samples(subjects: Subjects, tmp_path: Path) -> None:
    gates = {"all": {"parity_logits_kl": "<= 3"}, "int8": {"size_ratio_vs_fp32": "<= 0.01"}}
    subject = replace(subjects("t3"), profile=profile(t3=gates))
    said: list[str] = []
    content = strict(validate(subject, said.append, tmp_path / "samples"))
    assert set(content) == {"verdict", "noise", "samples", "variants"}
    assert content["samples"] == []
    assert not (tmp_path / "samples").exists()
    assert content["verdict"] == "fail"
    assert {name: variant["verdict"] for name, variant in content["variants"].items()} == {
        "fp32": "pass",
        "int8": "fail",
    }
    for name, variant in content["variants"].items():
        files = {path for graph in subject.files[name].values() for path in stored(graph)}
        assert variant["files"] == {f"onnx/{path.name}": sha256_file(path) for path in files}
        assert {gate["metric"] for gate in variant["gates"]} == set(gates["all"]) | set(gates.get(name, {}))
        wanted = {metric for metric in metrics_of("t3") if known.TABLE[metric].always}
        assert wanted <= set(variant["metrics"])
    assert {"reference", "parity of fp32", "parity of int8", "layers of int8"} <= set(said)


def test_a_variant_that_does_not_load_fails_with_the_reason_and_fp32_is_judged(
    subjects: Subjects, tmp_path: Path
) -> None:
    whole = subjects("t3")
    broken = {}
    for graph, path in whole.files["int8"].items():
        for part in stored(path):
            shutil.copyfile(part, tmp_path / part.name)
        broken[graph] = tmp_path / path.name
    last = list(broken.values())[-1]
    proto = onnx.load(last, load_external_data=False)
    proto.graph.node[-1].op_type = "Warp"
    onnx.save(proto, last)
    gates = {"all": {"parity_logits_kl": "<= 3"}}
    files = {"fp32": whole.files["fp32"], "int8": broken}
    subject = replace(whole, files=files, profile=profile(t3=gates), sentences=SENTENCES[:1])
    said: list[str] = []
    content = strict(validate(subject, said.append))
    assert content["verdict"] == "fail"
    int8 = content["variants"]["int8"]
    assert int8["verdict"] == "fail"
    assert "Warp" in int8["error"]
    assert "\n" not in int8["error"]
    assert [row["value"] for row in int8["gates"]] == [None]
    assert int8["files"] != {}
    assert f"int8 does not run: {int8['error']}" in said
    assert content["variants"]["fp32"]["verdict"] == "pass"
    assert "error" not in content["variants"]["fp32"]


def test_an_fp32_that_does_not_load_ends_the_validation(subjects: Subjects, tmp_path: Path) -> None:
    """There is nothing to measure others by."""
    whole = subjects("kokoro")
    ((graph, path),) = whole.files["fp32"].items()
    proto = onnx.load(path)
    proto.graph.node[-1].op_type = "Warp"
    onnx.save(proto, tmp_path / path.name)
    subject = replace(whole, files={"fp32": {graph: tmp_path / path.name}}, profile=profile())
    with pytest.raises(Exception, match="Warp"):
        validate(subject, lambda _: None)


def test_a_model_with_audio_has_what_everyone_said(subjects: Subjects, tmp_path: Path) -> None:
    """fp32 alone, of a user's sentences: the samples of more are no different."""
    whole = subjects("speecht5")
    gates = {"all": {"parity_mel_snr_db": ">= 90"}}
    subject = replace(
        whole, files={"fp32": whole.files["fp32"]}, profile=profile(speecht5=gates), sentences=SENTENCES
    )
    content = strict(validate(subject, lambda _: None, tmp_path / "samples"))
    assert content["verdict"] == "pass"
    assert [(row["text"], set(row["files"])) for row in content["samples"]] == [
        (text, {"reference", "fp32"}) for text in SENTENCES
    ]
    wanted = {metric for metric in metrics_of("speecht5") if known.TABLE[metric].always}
    assert wanted <= set(content["variants"]["fp32"]["metrics"])
    for row in content["samples"]:
        reference_, fp32 = (soundfile.read(tmp_path / row["files"][who]) for who in ("reference", "fp32"))
        assert reference_[1] == fp32[1] == row["sample_rate_hz"] == 16_000
        assert np.abs(reference_[0]).max() > 0.01
        np.testing.assert_allclose(fp32[0], reference_[0], atol=2 / 2**15)  # 90 dB and more, then 16 bits
