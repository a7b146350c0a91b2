"""The metrics together: what a pair of signals is given, and what becomes of several."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from graphs import normal

from jtts_export.profiles.schema import METRICS
from jtts_export.validate.audio import compare, compare_free, overall, spread_ratios

RATE_HZ = 24_000
Speech = Callable[..., np.ndarray]

FORCED = {
    "audio_mrstft": 0.0,
    "audio_f0_rmse_cents": 0.0,
    "audio_voicing_error_ratio": 0.0,
    "audio_stoi": 1.0,
    "audio_si_sdr_db": math.inf,
    "audio_loudness_change_lu": 0.0,
    "audio_clipped_ratio": 0.0,
    "audio_flat_top_ratio": 0.0,
    "audio_dc_ratio": 0.0,
    "audio_silence_change_ratio": 0.0,
    "audio_not_finite": 0.0,
}
FREE = {"audio_dtw_log_mel": 0.0, "audio_length_error_ratio": 0.0, "audio_stutter_score": 0.0}


def without_pesq(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "audio_pesq"}


@pytest.mark.parametrize("samples", [0, 1, 1200, 12_000, 48_000])
def test_a_signal_compared_with_itself_is_perfect(speech: Speech, samples: int) -> None:
    x = speech(0)[:samples]
    assert without_pesq(compare(x.copy(), x, RATE_HZ)) == FORCED
    assert compare_free(x.copy(), x, RATE_HZ) == FREE


def test_every_metric_has_a_meaning(speech: Speech) -> None:
    x = speech(0, 1)
    rows = [{**compare(x, x, RATE_HZ), **compare_free(x, x, RATE_HZ), "case": 1.0}]
    names = set(overall(rows)) | set(spread_ratios(overall(rows), overall(rows))) | {"audio_pesq", "audio_join_score"}
    assert names == {name for name in METRICS if name.startswith("audio_")}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_fail_everything(speech: Speech, bad: float) -> None:
    x = speech(0, 1)
    y = x.copy()
    y[[3, 700]] = bad
    row = compare(y, x, RATE_HZ)
    assert row["audio_not_finite"] == 2
    worst = ("audio_mrstft", "audio_f0_rmse_cents", "audio_loudness_change_lu", "audio_dc_ratio")
    assert all(row[name] == math.inf for name in worst)
    assert (row["audio_stoi"], row["audio_si_sdr_db"], row["audio_voicing_error_ratio"]) == (0, -math.inf, 1)
    assert compare_free(y, x, RATE_HZ) == {
        "audio_dtw_log_mel": math.inf,
        "audio_length_error_ratio": 0,
        "audio_stutter_score": math.inf,
    }


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.05, 0.3, 1])
def test_every_pair_has_numbers_at_every_rate(
    speech: Speech, with_noise: Speech, rate_hz: int, seconds: float
) -> None:
    x, n = speech(0, 2, rate_hz), round(seconds * rate_hz)
    silence, noise = np.zeros_like(x), 0.1 * normal(0, len(x))
    for made, exact in ((with_noise(x, 28), x), (silence, x), (x, silence), (noise, x), (noise[::-1], noise)):
        for y in (made[:n], made[: n + n // 7], made[: n - n // 7]):
            for dtype in (np.float32, np.float64):
                row = compare(y.astype(dtype), exact[:n], rate_hz) | compare_free(y.astype(dtype), exact[:n], rate_hz)
                assert not any(math.isnan(value) for value in row.values())
                assert all(type(value) is float for value in row.values())
                del row["audio_si_sdr_db"]  # -inf where one is silent
                assert all(math.isfinite(value) for value in row.values())


def test_the_same_pair_gives_the_same_numbers(speech: Speech, with_noise: Speech) -> None:
    x = speech(1)
    y = with_noise(x, 20)
    before = x.copy(), y.copy()
    assert compare(y, x, RATE_HZ) == compare(y, x, RATE_HZ)
    assert compare_free(y, x, RATE_HZ) == compare_free(y, x, RATE_HZ)
    assert (before[0] == x).all()
    assert (before[1] == y).all()


def test_each_fault_shows_where_it_belongs(speech: Speech) -> None:
    x = speech(0)
    peak = float(np.abs(x).max())
    quiet, offset, loud = x / 2, x + np.float32(0.01), np.clip(1.5 * x / peak, -1, 1)
    assert compare(quiet, x, RATE_HZ)["audio_loudness_change_lu"] == pytest.approx(20 * math.log10(2), abs=0.01)
    assert compare(offset, x, RATE_HZ)["audio_dc_ratio"] == pytest.approx(0.1, rel=0.01)  # RMS is 0.1
    clipped = float((np.abs(1.5 * x / peak) >= 1).mean())
    assert compare(loud, x, RATE_HZ)["audio_clipped_ratio"] == pytest.approx(clipped, abs=1e-5) != 0
    assert compare(loud, loud, RATE_HZ)["audio_clipped_ratio"] == 0  # beyond the reference's own
    shorter = compare_free(x[: -len(x) // 20], x, RATE_HZ)
    assert shorter["audio_length_error_ratio"] == pytest.approx(0.05)
    assert compare_free(x, x[: len(x) // 2], RATE_HZ)["audio_length_error_ratio"] == pytest.approx(1)
    assert compare_free(x, x[:0], RATE_HZ)["audio_length_error_ratio"] == math.inf


def test_where_lengths_differ_the_common_part_is_compared(speech: Speech) -> None:
    x = speech(0)
    row = compare(x[:-4800], x, RATE_HZ)
    apart = ("audio_si_sdr_db",)
    assert {k: v for k, v in without_pesq(row).items() if k not in apart} == {
        k: v for k, v in FORCED.items() if k not in apart
    }
    assert 3 < row["audio_si_sdr_db"] < 40


def test_distances_are_averaged_changes_taken_at_their_worst() -> None:
    rows = [
        {"audio_mrstft": 1.0, "audio_stoi": 0.8, "audio_dc_ratio": 0.1, "audio_not_finite": 2.0, "case": "a"},
        {"audio_mrstft": 2.0, "audio_stoi": 1.0, "audio_dc_ratio": 0.3, "audio_not_finite": 1.0, "audio_pesq": 3.0},
    ]
    expected = {"audio_mrstft": 1.5, "audio_stoi": 0.9, "audio_dc_ratio": 0.3, "audio_not_finite": 3, "audio_pesq": 3}
    assert overall(rows) == pytest.approx(expected)
    assert overall([]) == {}


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([20, 20], 20),
        ([10, 30], -10 * math.log10((0.1 + 0.001) / 2)),
        ([math.inf, 20], 20 + 10 * math.log10(2)),
        ([math.inf, math.inf], math.inf),
        ([-math.inf, 50], -math.inf),
        ([-4000.0, 20], -math.inf),
    ],
)
def test_si_sdr_is_averaged_as_power_of_noise(values: list[float], mean: float) -> None:
    assert overall([{"audio_si_sdr_db": float(v)} for v in values])["audio_si_sdr_db"] == pytest.approx(mean)


def test_ratios_are_to_the_references_own_spread() -> None:
    metrics = {"audio_mrstft": 0.3, "audio_f0_rmse_cents": 8.0, "audio_stoi": 0.98, "audio_dc_ratio": 1.0}
    spread = {"audio_mrstft": 1.2, "audio_f0_rmse_cents": 16.0, "audio_stoi": 0.6, "audio_dc_ratio": 1.0}
    expected = {"audio_mrstft_ratio": 0.25, "audio_f0_rmse_ratio": 0.5, "audio_stoi_ratio": 0.05}
    assert spread_ratios(metrics, spread) == pytest.approx(expected)
    assert spread_ratios({"audio_stoi": 1.0}, spread) == {"audio_stoi_ratio": 0}
    assert spread_ratios(metrics, {}) == {}


def test_a_reference_without_spread_does_not_make_the_inaudible_large() -> None:
    metrics = {"audio_mrstft": 0.05, "audio_f0_rmse_cents": 2.5, "audio_stoi": 0.9995}
    spread = {"audio_mrstft": 0.0, "audio_f0_rmse_cents": 0.0, "audio_stoi": 1.0}
    assert all(ratio == pytest.approx(0.5) for ratio in spread_ratios(metrics, spread).values())
    broken = {"audio_mrstft": math.inf, "audio_f0_rmse_cents": math.inf, "audio_stoi": 0.0}
    assert spread_ratios(broken, spread)["audio_mrstft_ratio"] == math.inf
    assert spread_ratios(broken, spread)["audio_stoi_ratio"] == pytest.approx(1000)
