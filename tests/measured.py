"""The metrics that validation measures of a model, read off its Parity."""

from __future__ import annotations

from jtts_export.validate.parity import Parity

# Of every model, whatever its taps are.
COMMON = {
    *("size_mb", "size_ratio_vs_fp32", "rss_peak_mb", "rtf_warm_p50", "rtf_warm_p95", "rtf_cold"),
    *("ttfa_warm_p50_ms", "ttfa_warm_p95_ms", "ttfa_cold_ms", "speedup_vs_fp32", "speedup_vs_reference"),
    *("parity_log_mel_l1", "parity_log_mel_ratio"),
}


def metrics_of(parity: Parity) -> set[str]:
    """Every metric that a gate of this model may name."""
    return COMMON | {
        *(f"parity_{stage.name}_snr_db" for stage in (*parity.stages, *parity.derived)),
        *(f"{name}_equal_ratio" for name in parity.exact),
        *(f"parity_{name}_margin_db" for name in parity.fp64),
        *(f"parity_{name}_reseed_margin_db" for name in parity.reseed),
    }
