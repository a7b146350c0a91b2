"""The reference's own spread: how far it lies from itself when only what should not matter changes.

A limit on an absolute distance means one thing on trained weights and another on random ones. These
distances move with the checkpoint, and so serve as its yardstick.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .audio import log_mel_l1, snr_db
from .parity import Metrics, Parity
from .runner import Arrays, Case, Runner


@dataclass(frozen=True)
class Spread:
    """Of one checkpoint: log-mel distance (nepers) to another noise draw, and of fp32 to fp64, durations
    forced; and decoder SNR of fp32 against fp64, all its inputs forced."""

    spread_reseed_log_mel_l1: float
    spread_fp64_log_mel_l1: float
    spread_fp64_decoder_snr_db: float

    def relate(self, metrics: Metrics) -> Metrics:
        """Metrics, and beside them those relative to this spread."""
        widest = max(self.spread_reseed_log_mel_l1, self.spread_fp64_log_mel_l1, 1e-9)
        return {
            **metrics,
            **asdict(self),
            "parity_log_mel_ratio": metrics["parity_log_mel_l1"] / widest,
            "parity_decoder_margin_db": metrics["parity_decoder_snr_db"] - self.spread_fp64_decoder_snr_db,
        }


def measure_spread(
    parity: Parity, expected: Sequence[Arrays], reseeded: Runner, double: Runner, cases: Sequence[Case]
) -> Spread:
    """`reseeded`: the reference with another noise draw; `double`: the reference in float64."""
    decoder = next(s for s in parity.stages if s.tap == parity.audio)

    def distance(runner: Runner, case: Case, taps: Arrays) -> float:
        timing = {name: taps[name] for name in parity.timing}
        audio = runner.taps(case.inputs, [parity.audio], timing)[parity.audio]
        return log_mel_l1(audio[0], taps[parity.audio][0], parity.sample_rate_hz)

    pairs = list(zip(cases, expected, strict=True))
    case, taps = pairs[0]
    exact = double.taps(case.inputs, [decoder.tap], {name: taps[name] for name in decoder.forced})[decoder.tap]
    return Spread(
        spread_reseed_log_mel_l1=sum(distance(reseeded, c, t) for c, t in pairs) / len(pairs),
        spread_fp64_log_mel_l1=distance(double, case, taps),
        spread_fp64_decoder_snr_db=snr_db(taps[decoder.tap], exact),
    )
