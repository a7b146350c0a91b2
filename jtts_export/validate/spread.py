"""The reference's own spread: how far it lies from itself when only what should not matter changes.

A limit on an absolute distance means one thing on trained weights and another on random ones. These
distances move with the checkpoint, and so serve as its yardstick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .audio import log_mel_l1, snr_db
from .parity import Metrics, Parity
from .runner import Arrays, Case, Runner

_RESEED, _FP64 = "spread_reseed_", "spread_fp64_"


@dataclass(frozen=True)
class Spread:
    """Of one checkpoint, by name: log-mel distance (nepers) to another draw, and of fp32 to fp64, timing forced;
    SNRs (dB) of the stages that its Parity names, on another draw and in fp64."""

    metrics: Mapping[str, float]

    def relate(self, metrics: Metrics) -> Metrics:
        """Metrics, and beside them those relative to this spread."""
        related = {**metrics, **self.metrics}
        if "parity_log_mel_l1" in metrics:
            widest = max(self.metrics[f"{_RESEED}log_mel_l1"], self.metrics[f"{_FP64}log_mel_l1"], 1e-9)
            related["parity_log_mel_ratio"] = metrics["parity_log_mel_l1"] / widest
        for prefix, margin in ((_FP64, "margin_db"), (_RESEED, "reseed_margin_db")):
            for name, value in self.metrics.items():
                if name.startswith(prefix) and name.endswith("_snr_db"):
                    stage = name.removeprefix(prefix).removesuffix("_snr_db")
                    related[f"parity_{stage}_{margin}"] = metrics[f"parity_{stage}_snr_db"] - value
        return related


def measure_spread(
    parity: Parity, expected: Sequence[Arrays], reseeded: Runner, double: Runner, cases: Sequence[Case]
) -> Spread:
    """`reseeded`: the reference with another draw; `double`: the reference in float64. The first case alone is run
    in float64."""
    assert parity.audio is not None
    timing, audio = set(parity.timing), parity.audio

    def measured(runner: Runner, case: Case, taps: Arrays, stages: Sequence[str]) -> Metrics:
        """One synthesis for what is forced alike: the whole audio, and such stages."""
        whole = [parity.stage(name) for name in stages if set(parity.stage(name).forced) == timing]
        wanted = {audio, *(stage.tap for stage in whole)}
        made = runner.taps(case.inputs, sorted(wanted), {name: taps[name] for name in timing})
        heard, exact = made[audio].reshape(-1), taps[audio].reshape(-1)
        found = {stage.name: snr_db(taps[stage.tap], made[stage.tap]) for stage in whole}
        for stage in (parity.stage(name) for name in stages if name not in found):
            forced = {name: taps[name] for name in stage.forced}
            found[stage.name] = snr_db(taps[stage.tap], runner.taps(case.inputs, [stage.tap], forced)[stage.tap])
        distance = log_mel_l1(heard, exact, parity.sample_rate_hz)
        return {"log_mel_l1": distance, **{f"{name}_snr_db": value for name, value in found.items()}}

    drawn = [measured(reseeded, c, t, parity.reseed) for c, t in zip(cases, expected, strict=True)]
    exact = measured(double, cases[0], expected[0], parity.fp64)
    return Spread(
        {
            **{f"{_RESEED}{name}": sum(row[name] for row in drawn) / len(drawn) for name in drawn[0]},
            **{f"{_FP64}{name}": value for name, value in exact.items()},
        }
    )
