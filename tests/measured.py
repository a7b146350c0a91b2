"""The metrics that validation measures of a model, read off what it declares."""

from __future__ import annotations

from jtts_export.exporters.model import Model

# Of every model, whatever its taps are.
COMMON = {
    *("size_mb", "size_ratio_vs_fp32", "rss_peak_mb", "rtf_warm_p50", "rtf_warm_p95", "rtf_cold"),
    *("ttfa_warm_p50_ms", "ttfa_warm_p95_ms", "ttfa_cold_ms", "speedup_vs_fp32", "speedup_vs_reference"),
}
AUDIO = {"parity_log_mel_l1", "parity_log_mel_ratio"}
STEPS = {
    *("step_ms", "step_rtf", "step_speedup_vs_fp32", "tokens_per_s", "read_gb_s", "bandwidth_ratio"),
    *("call_first_ms", "call_later_ms", "call_slope_ms", "call_slope_margin_ms", "call_growth_ratio"),
    *("rss_slope_mb", "rss_slope_margin_mb", "rss_growth_mb"),
}


def metrics_of(model: Model) -> set[str]:
    """Every metric that a gate of this model may name."""
    parity = model.parity
    return {
        *COMMON,
        *(AUDIO if parity.audio else ()),
        *(STEPS if model.steps else ()),
        *(f"parity_{stage.name}_snr_db" for stage in (*parity.stages, *parity.derived)),
        *(f"parity_{name}_{what}" for name in parity.distributions for what in ("kl", "top1_ratio", "max_abs")),
        *(f"{name}_equal_ratio" for name in parity.exact),
        *(f"parity_{name}_margin_db" for name in parity.fp64),
        *(f"parity_{name}_reseed_margin_db" for name in parity.reseed),
    }
