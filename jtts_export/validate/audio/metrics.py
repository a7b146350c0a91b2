"""Audio metrics of a pair of signals, of several utterances, and relative to a reference's own spread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import levels
from .alignment import align, distance_along, mel_frames, si_sdr_db
from .intelligibility import pesq, stoi
from .pitch import pitch_error
from .spectral import finite, mrstft
from .stutter import score_of

Row = Mapping[str, float]

# Differences that nobody hears; a spread smaller than that counts as that large.
LEAST_LOG_MEL = 0.05  # nepers, 0.4 dB: less than half of the difference in level that a listener notices
LEAST_MRSTFT = 0.1
LEAST_F0_CENTS = 5.0  # listeners notice 0.3 % at best (Moore 1973)
LEAST_STOI_LACK = 1e-3

_RATIOS = {
    "audio_mrstft_ratio": ("audio_mrstft", LEAST_MRSTFT),
    "audio_f0_rmse_ratio": ("audio_f0_rmse_cents", LEAST_F0_CENTS),
}


def compare(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> dict[str, float]:
    """Of one utterance, spoken with the reference's timing; mono, [samples], full scale 1. See docs/metrics.md.

    Where lengths differ, the common part is compared, and SI-SDR aligns both first. audio_pesq is there if pesq is
    installed and finds speech.
    """
    common = min(len(measured), len(reference))
    made, exact = measured[:common], reference[:common]
    pitch = pitch_error(made, exact, sample_rate_hz)
    quality = pesq(made, exact, sample_rate_hz)
    return {
        "audio_mrstft": mrstft(made, exact, sample_rate_hz),
        "audio_f0_rmse_cents": pitch.rmse_cents,
        "audio_voicing_error_ratio": pitch.voicing_error_ratio,
        "audio_stoi": stoi(made, exact, sample_rate_hz),
        "audio_si_sdr_db": si_sdr_db(measured, reference, sample_rate_hz),
        "audio_loudness_change_lu": levels.loudness_change_lu(made, exact, sample_rate_hz),
        "audio_clipped_ratio": max(0.0, levels.clipped_ratio(measured) - levels.clipped_ratio(reference)),
        "audio_flat_top_ratio": max(0.0, levels.flat_top_ratio(made) - levels.flat_top_ratio(exact)),
        "audio_dc_ratio": levels.dc_ratio(made, exact),
        "audio_silence_change_ratio": levels.silence_change_ratio(made, exact, sample_rate_hz),
        "audio_not_finite": levels.not_finite(measured),
        **({} if quality is None else {"audio_pesq": quality}),
    }


def compare_free(measured: np.ndarray, reference: np.ndarray, sample_rate_hz: int) -> dict[str, float]:
    """Of one utterance, spoken freely; mono, [samples] each, of any lengths. audio_length_error_ratio is inf where
    the reference has no samples."""
    length = abs(len(measured) / len(reference) - 1) if len(reference) else float(len(measured) and "inf")
    row = {"audio_dtw_log_mel": float("inf"), "audio_length_error_ratio": length, "audio_stutter_score": float("inf")}
    if not finite(measured, reference):
        return row
    made, exact = mel_frames(measured, sample_rate_hz), mel_frames(reference, sample_rate_hz)
    path = align(made, exact, sample_rate_hz)
    row["audio_dtw_log_mel"] = distance_along(path, made, exact)
    row["audio_stutter_score"] = score_of(measured, reference, made, exact, path, sample_rate_hz)
    return row


def overall(rows: Sequence[Row]) -> dict[str, float]:
    """Over several utterances, each metric over the rows that have it, other keys left out: distances by mean, SI-SDR
    by mean noise power (as parity's SNRs), changes and errors by their worst, samples that are not finite by sum."""
    return {
        name: reduce([row[name] for row in rows if name in row])
        for name, reduce in _REDUCE.items()
        if any(name in row for row in rows)
    }


def spread_ratios(metrics: Row, spread: Row) -> dict[str, float]:
    """`metrics` over those of the reference against itself on another draw: audio_mrstft_ratio, audio_f0_rmse_ratio,
    and audio_stoi_ratio, of what is lacking of 1. Of those that both have.

    A spread below 0.1 (MRSTFT), 5 cents or 0.001 (STOI) counts as that much, so that a reference whose draws change
    nothing does not make an inaudible difference a large one.
    """
    related = {
        ratio: metrics[name] / max(spread[name], least)
        for ratio, (name, least) in _RATIOS.items()
        if name in metrics and name in spread
    }
    if "audio_stoi" in metrics and "audio_stoi" in spread:
        related["audio_stoi_ratio"] = (1 - metrics["audio_stoi"]) / max(1 - spread["audio_stoi"], LEAST_STOI_LACK)
    return related


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _mean_noise_db(values: Sequence[float]) -> float:
    """Mean of noise-to-signal power ratios, as dB."""
    with np.errstate(divide="ignore", over="ignore"):
        return float(-10 * np.log10(np.mean(10 ** (-np.array(values, np.float64) / 10))))


_REDUCE: Mapping[str, Callable[[Sequence[float]], float]] = {
    "audio_mrstft": _mean,
    "audio_f0_rmse_cents": _mean,
    "audio_voicing_error_ratio": _mean,
    "audio_stoi": _mean,
    "audio_si_sdr_db": _mean_noise_db,
    "audio_pesq": _mean,
    "audio_dtw_log_mel": _mean,
    "audio_loudness_change_lu": max,
    "audio_clipped_ratio": max,
    "audio_flat_top_ratio": max,
    "audio_dc_ratio": max,
    "audio_silence_change_ratio": max,
    "audio_length_error_ratio": max,
    "audio_stutter_score": max,
    "audio_not_finite": sum,
}
