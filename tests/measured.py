"""The metrics that validation measures of a model: as profiles/metrics.py has them, and read off what it declares."""

from __future__ import annotations

from jtts_export.exporters.model import Model
from jtts_export.models import MODELS
from jtts_export.profiles import metrics

OF_IDS = {"encoder", "embeddings", "emotion"}  # stages whose inputs are no float arrays


def metrics_of(model: Model) -> set[str]:
    """Those that every variant of this model has, fp32 too, whatever is installed."""
    name = next(name for name, info in MODELS.items() if info.load() is model)
    return {metric for metric in metrics.metrics_of(name) if metrics.TABLE[metric].always}


def declared(model: Model) -> set[str]:
    """Metrics of the taps that a model's Parity names, of its audio and of its steps, if any."""
    parity = model.parity
    return {
        *(("parity_log_mel_l1", "parity_log_mel_ratio", "audio_stoi", "audio_join_score") if parity.audio else ()),
        *(("derived_equal_ratio",) if model.derived else ()),
        *(("draws_equal_ratio",) if model.parity.audio else ()),
        *(("step_ms", "step_rtf", "tokens_per_s", "bandwidth_ratio") if model.steps else ()),
        *(f"parity_{stage.name}_snr_db" for stage in (*parity.stages, *parity.derived)),
        *(f"parity_{name}_{what}" for name in parity.distributions for what in ("kl", "top1_ratio", "max_abs")),
        *(f"parity_{stage.name}_input_snr_db" for stage in parity.stages if stage.name not in OF_IDS),
        *(f"{name}_equal_ratio" for name in parity.exact),
        *(f"parity_{name}_margin_db" for name in parity.fp64),
        *(f"parity_{name}_reseed_margin_db" for name in parity.reseed),
    }
