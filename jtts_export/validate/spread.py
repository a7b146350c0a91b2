"""The reference's own spread: how far it lies from itself when only what should not matter changes.

A limit on an absolute distance means one thing on trained weights and another on random ones. These
distances move with the checkpoint, and so serve as its yardstick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .audio import compare, log_mel_l1, snr_db, spread_ratios
from .audio.metrics import LEAST_LOG_MEL
from .parity import Metrics, Parity, reference_taps
from .runner import Arrays, Case, Runner

_RESEED, _FP64, _NUDGE = "spread_reseed_", "spread_fp64_", "spread_nudge_"
_HEARD = ("audio_mrstft", "audio_f0_rmse_cents", "audio_stoi")  # what spread_ratios() relates
NUDGE_DB = 80  # noise that is put on the inputs: 1e-4 of them. At 1e-6, fp32's own rounding is as loud.


@dataclass(frozen=True)
class Spread:
    """Of one checkpoint, by name: log-mel distance (nepers) to another draw, and of fp32 to fp64, timing forced;
    SNRs (dB) of the stages that its Parity names, on another draw and in fp64, and of every stage whose inputs are
    nudged by NUDGE_DB; the audio's distances to that other draw."""

    metrics: Mapping[str, float]

    def relate(self, metrics: Metrics) -> Metrics:
        """Metrics, and beside them those relative to this spread."""
        related = {**metrics, **self.metrics}
        if "parity_log_mel_l1" in metrics:
            widest = max(self.metrics[f"{_RESEED}log_mel_l1"], self.metrics[f"{_FP64}log_mel_l1"], LEAST_LOG_MEL)
            related["parity_log_mel_ratio"] = metrics["parity_log_mel_l1"] / widest
        for prefix, margin in ((_FP64, "margin_db"), (_RESEED, "reseed_margin_db")):
            for name, value in self.metrics.items():
                if name.startswith(prefix) and name.endswith("_snr_db"):
                    stage = name.removeprefix(prefix).removesuffix("_snr_db")
                    related[f"parity_{stage}_{margin}"] = metrics[f"parity_{stage}_snr_db"] - value
        for name, value in self.metrics.items():
            if name.startswith(_NUDGE):
                measured = name.removeprefix(_NUDGE).removesuffix("_snr_db")
                related[f"parity_{measured}_input_snr_db"] = metrics[f"parity_{measured}_snr_db"] + NUDGE_DB - value
        return related

    def relate_audio(self, metrics: Metrics) -> Metrics:
        """Audio's distances from the reference, and beside them those relative to this spread."""
        drawn = {k.removeprefix(_RESEED): v for k, v in self.metrics.items() if k.startswith(f"{_RESEED}audio_")}
        return metrics | spread_ratios(metrics, drawn)


def measure_spread(
    parity: Parity, expected: Sequence[Arrays], reseeded: Runner, double: Runner, cases: Sequence[Case]
) -> Spread:
    """Of a model that makes audio. `reseeded`: the reference with another draw; `double`: the reference in float64.
    The first case alone is run in float64."""
    drawn = [_distances(parity, reseeded, c, t, parity.reseed, _HEARD) for c, t in zip(cases, expected, strict=True)]
    exact = _distances(parity, double, cases[0], expected[0], parity.fp64)
    return Spread(
        {
            **{f"{_RESEED}{name}": sum(row[name] for row in drawn) / len(drawn) for name in drawn[0]},
            **{f"{_FP64}{name}": value for name, value in exact.items()},
        }
    )


def _distances(
    parity: Parity, runner: Runner, case: Case, taps: Arrays, stages: Sequence[str], signal: Sequence[str] = ()
) -> Metrics:
    """From the reference's taps, by log-mel, by the metrics named in `signal`, and stage by stage. One synthesis for
    what is forced alike: the whole audio, and such stages."""
    assert parity.audio is not None
    timing, audio = set(parity.timing), parity.audio
    whole = [parity.stage(name) for name in stages if set(parity.stage(name).forced) == timing]
    wanted = {audio, *(stage.tap for stage in whole)}
    made = runner.taps(case.inputs, sorted(wanted), {name: taps[name] for name in timing})
    heard, exact = made[audio].reshape(-1), taps[audio].reshape(-1)
    found = {stage.name: snr_db(taps[stage.tap], made[stage.tap]) for stage in whole}
    for stage in (parity.stage(name) for name in stages if name not in found):
        forced = {name: taps[name] for name in stage.forced}
        found[stage.name] = snr_db(taps[stage.tap], runner.taps(case.inputs, [stage.tap], forced)[stage.tap])
    return {
        "log_mel_l1": log_mel_l1(heard, exact, parity.sample_rate_hz),
        **({k: v for k, v in compare(heard, exact, parity.sample_rate_hz).items() if k in signal} if signal else {}),
        **{f"{name}_snr_db": value for name, value in found.items()},
    }


def measure_nudged(parity: Parity, reference: Runner, case: Case) -> Metrics:
    """SNR (dB) of each stage's tap where everything that it is given as floats carries noise NUDGE_DB below it. A
    stage that is given none is left out; of a tap that this checkpoint makes nothing of, it is NUDGE_DB."""
    taps = reference_taps(parity, reference, [case])[0]
    found: Metrics = {}
    for forced in {stage.forced for stage in parity.stages}:
        stages = [stage for stage in parity.stages if stage.forced == forced]
        given = nudge({name: taps[name] for name in forced})
        made = reference.taps(nudge(case.inputs), sorted({s.tap for s in stages}), given)
        found |= {s.name: snr_db(made[s.tap], taps[s.tap]) if taps[s.tap].size else NUDGE_DB for s in stages}
    return {f"{_NUDGE}{name}_snr_db": value for name, value in sorted(found.items()) if np.isfinite(value)}


def nudge(arrays: Arrays) -> dict[str, np.ndarray]:
    """Each float array with Gaussian noise, NUDGE_DB below its power; others as they are."""
    random = np.random.default_rng(0)

    def noisy(array: np.ndarray) -> np.ndarray:
        scale = 10 ** (-NUDGE_DB / 20) * np.sqrt(np.mean(array.astype(np.float64) ** 2))
        return (array + scale * random.standard_normal(array.shape)).astype(array.dtype)

    return {k: noisy(v) if v.dtype.kind == "f" and v.size > 1 else v for k, v in arrays.items()}
