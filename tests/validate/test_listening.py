"""A variant's audio beside the reference's: what is compared in time, what free-running, and what ears are given."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import kokoro_graph
import numpy as np
import pytest
import soundfile

from jtts_export.exporters.kokoro import MODEL
from jtts_export.runtime.taps import OnnxRunner
from jtts_export.validate.listening import Heard, listen, save_samples
from jtts_export.validate.parity import reference_taps
from jtts_export.validate.runner import Case

BEST = {
    "audio_mrstft": 0,
    "audio_f0_rmse_cents": 0,
    "audio_voicing_error_ratio": 0,
    "audio_si_sdr_db": np.inf,
    "audio_loudness_change_lu": 0,
    "audio_clipped_ratio": 0,
    "audio_dc_ratio": 0,
    "audio_silence_change_ratio": 0,
    "audio_not_finite": 0,
    "audio_dtw_log_mel": 0,
    "audio_length_error_ratio": 0,
    "audio_stutter_score": 0,
}
IN_TIME = set(BEST) - {"audio_dtw_log_mel", "audio_length_error_ratio", "audio_stutter_score"}


@cache
def runner() -> OnnxRunner:
    return kokoro_graph.runner(kokoro_graph.optimized())


def cases() -> list[Case]:
    return kokoro_graph.cases("validation")[:2]


def spoken(speed: float) -> list[Case]:
    return [
        dataclasses.replace(case, inputs={**case.inputs, "speed": np.array([speed], np.float32)}) for case in cases()
    ]


@cache
def heard(speed: float) -> Heard:
    """The model itself at some speed, where speed 1 is wanted."""
    return listen(MODEL.parity, reference_taps(MODEL.parity, runner(), spoken(1)), runner(), spoken(speed))


def test_the_same_audio_has_the_best_values() -> None:
    found = heard(1)
    for name, best in BEST.items():
        assert found.metrics[name] == best, name
    assert found.metrics["audio_stoi"] == pytest.approx(1)
    assert len(found.rows) == len(found.said) == 2
    for row in found.rows:
        assert set(found.metrics) == set(row)


def test_another_timing_is_heard_free_running_and_forced_to_the_references_elsewhere() -> None:
    """Speed acts on durations alone: with the reference's, every sample is the reference's."""
    found = heard(0.8)
    for name in IN_TIME:
        assert found.metrics[name] == BEST[name], name
    lengths = [len(slow) / len(said) for slow, said in zip(found.said, heard(1).said, strict=True)]
    assert found.metrics["audio_length_error_ratio"] == pytest.approx(max(lengths) - 1)
    assert 1.1 < min(lengths) < max(lengths) < 1.4  # of 1 / 0.8, in whole frames
    assert found.metrics["audio_dtw_log_mel"] > 0


def test_what_was_said_is_said_free_running() -> None:
    for case, said in zip(spoken(0.8), heard(0.8).said, strict=True):
        alone = runner().taps(case.inputs, ["waveform"])["waveform"]
        assert (said.dtype, said.ndim) == (np.float32, 1)
        np.testing.assert_array_equal(said, alone.reshape(-1))


# --- samples for ears --------------------------------------------------------------------------------------------

RATE_HZ = 24_000
# libsndfile counts 1 as 32767 and reads 32768 as 1: half a step of rounding, and up to one of scale.
STEPS = 1.5 / 2**15


def tone(amplitude: float, seconds: float = 0.1) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def test_samples_are_what_was_said(tmp_path: Path) -> None:
    said = {"reference": [tone(0.9), tone(0.5)], "int8": [tone(0.8, 0.12), tone(0.4)[None]]}
    given = [Case("first, a", {}, "Hello."), Case("second, b", {}, "Bye.")]
    folder = tmp_path / "report" / "samples"
    listed = save_samples(folder, given, said, RATE_HZ)
    assert listed == [
        {
            "case": case.name,
            "text": case.text,
            "sample_rate_hz": RATE_HZ,
            "files": {who: f"samples/{number}-{who}.flac" for who in said},
        }
        for number, case in enumerate(given)
    ]
    assert len(list(folder.iterdir())) == 4
    for number, row in enumerate(listed):
        for who, name in row["files"].items():
            assert soundfile.info(folder.parent / name).subtype == "PCM_16"
            audio, rate = soundfile.read(folder.parent / name)
            assert rate == RATE_HZ
            np.testing.assert_allclose(audio, said[who][number].reshape(-1), rtol=0, atol=STEPS)


def test_samples_of_broken_audio_are_still_written(tmp_path: Path) -> None:
    """What cannot be a sample is silence, or full scale. Of no audio at all there is an empty file."""
    broken = tone(0.5)
    broken[[0, 10, 20, 30]] = np.nan, np.inf, -np.inf, 7
    said = {"int8": [broken], "fp16": [np.zeros(0, np.float32)]}
    (row,) = save_samples(tmp_path, [Case("broken", {})], said, RATE_HZ)
    audio, _ = soundfile.read(tmp_path / "0-int8.flac")
    assert audio[[0, 10, 20, 30]] == pytest.approx([0, 1, -1, 1], abs=STEPS)
    rest = np.delete(np.arange(len(broken)), [0, 10, 20, 30])
    np.testing.assert_allclose(audio[rest], broken[rest], rtol=0, atol=STEPS)
    assert (tmp_path / "0-fp16.flac").stat().st_size == 0
    assert set(row["files"]) == {"int8", "fp16"}


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        save_samples(tmp_path / folder, [Case("a", {})], {"fp32": [tone(0.5)]}, RATE_HZ)
    one, other = (tmp_path / folder / "0-fp32.flac" for folder in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
