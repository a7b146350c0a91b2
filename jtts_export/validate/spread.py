"""The reference's own spread: how far it lies from itself when only what should not matter changes.

A limit on an absolute distance means one thing on trained weights and another on random ones. These
distances move with the checkpoint, and so serve as its yardstick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .audio import log_mel_l1, snr_db
from .parity import Metrics, Parity, Stage
from .runner import Arrays, Case, Runner

_RESEED, _FP64 = "spread_reseed_", "spread_fp64_"


@dataclass(frozen=True)
class Spread:
    """Of one checkpoint, by name: log-mel distance (nepers) to another draw, and of fp32 to fp64, timing forced;
    SNRs (dB) of the stages that its Parity names, on another draw and in fp64."""

    metrics: Mapping[str, float]

    def relate(self, metrics: Metrics) -> Metrics:
        """Metrics, and beside them those relative to this spread."""
        widest = max(self.metrics[f"{_RESEED}log_mel_l1"], self.metrics[f"{_FP64}log_mel_l1"], 1e-9)
        related = {**metrics, **self.metrics, "parity_log_mel_ratio": metrics["parity_log_mel_l1"] / widest}
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
    case, taps = cases[0], expected[0]

    def snr(runner: Runner, stage: Stage) -> float:
        forced = {name: taps[name] for name in stage.forced}
        return snr_db(taps[stage.tap], runner.taps(case.inputs, [stage.tap], forced)[stage.tap])

    def distance(runner: Runner, case: Case, taps: Arrays) -> float:
        timing = {name: taps[name] for name in parity.timing}
        audio = runner.taps(case.inputs, [parity.audio], timing)[parity.audio]
        return log_mel_l1(audio.reshape(-1), taps[parity.audio].reshape(-1), parity.sample_rate_hz)

    pairs = list(zip(cases, expected, strict=True))
    return Spread(
        {
            f"{_RESEED}log_mel_l1": sum(distance(reseeded, c, t) for c, t in pairs) / len(pairs),
            f"{_FP64}log_mel_l1": distance(double, case, taps),
            **{f"{_FP64}{name}_snr_db": snr(double, parity.stage(name)) for name in parity.fp64},
            **{f"{_RESEED}{name}_snr_db": snr(reseeded, parity.stage(name)) for name in parity.reseed},
        }
    )
