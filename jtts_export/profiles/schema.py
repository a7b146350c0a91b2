"""Profiles: a target and the gates that an artifact for it must pass. TOML, validated."""

from __future__ import annotations

import operator
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from jtts_export.errors import BadInput
from jtts_export.models import MODELS
from jtts_export.runtime.names import VARIANT_SUFFIX

OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "==": operator.eq}

# Every metric that a gate can name, and what it says. validate/ measures exactly these.
METRICS = {
    "size_mb": "size of the graphs that one client loads, 10^6 bytes",
    "size_ratio_vs_fp32": "that size over fp32's",
    "rtf_warm_p50": "real-time factor, median over warm calls",
    "rtf_warm_p95": "real-time factor, 95th percentile over warm calls",
    "rtf_cold": "real-time factor of the first call in a fresh process, session creation included",
    "speedup_vs_fp32": "fp32 ONNX's time over this one's, median over interleaved rounds",
    "speedup_vs_reference": "PyTorch eager's time over this one's, median over interleaved rounds",
    "ttfa_warm_p50_ms": "time to first audio (T3: first token) of stream(), median",
    "ttfa_warm_p95_ms": "time to first audio (T3: first token) of stream(), 95th percentile",
    "ttfa_cold_ms": "time to first audio (T3: of a first utterance) in a fresh process, session creation included",
    "rss_peak_mb": "peak resident memory of a process that only loads and speaks, 10^6 bytes",
    "durations_equal_ratio": "share of tokens whose duration equals the reference's, free-running",
    "parity_frames_snr_db": "durations before rounding against the reference's",
    "parity_f0_snr_db": "F0 against the reference's, durations forced",
    "parity_n_snr_db": "energy against the reference's, durations forced",
    "parity_decoder_snr_db": "waveform against the reference's, durations, F0, energy and source forced",
    "parity_decoder_margin_db": "decoder SNR less that of the reference's own rounding (fp32 against fp64)",
    "stop_steps_equal_ratio": "share of utterances that end at the reference's step, free-running",
    "parity_encoder_snr_db": "keys and values of the cross-attention against the reference's",
    "parity_decoder_steps_snr_db": "spectrogram against the reference's, encoder and length forced",
    "parity_mel_snr_db": "spectrogram behind the postnet against the reference's, length forced",
    "parity_stop_snr_db": "stop probabilities against the reference's, length forced",
    "parity_vocoder_snr_db": "waveform against the reference's, spectrogram forced",
    "parity_waveform_snr_db": "waveform against the reference's, length forced",
    "parity_vocoder_margin_db": "vocoder SNR less that of the reference's own rounding (fp32 against fp64)",
    "parity_mel_margin_db": "mel SNR less that of the reference's own rounding (fp32 against fp64)",
    "parity_mel_reseed_margin_db": "mel SNR less that of the reference against itself on another dropout mask",
    "parity_conditioning_snr_db": "a voice's embeddings against the reference's",
    "parity_logits_snr_db": "guided logits against the reference's, along the same speech tokens",
    "parity_logits_kl": "divergence of the next token's distribution from the reference's, mean, nats",
    "parity_logits_top1_ratio": "share of tokens whose likeliest successor is the reference's",
    "parity_logits_max_abs": "largest difference of a guided logit from the reference's",
    "parity_alignment_snr_db": "attention to the text that follows the speech, against the reference's",
    "greedy_tokens_equal_ratio": "share of tokens that equal the reference's, both decoding greedily",
    "step_ms": "one speech token under guidance, two rows, median",
    "step_rtf": "that time over the 40 ms that the token lasts",
    "tokens_per_s": "speech tokens a second at that rate",
    "step_speedup_vs_fp32": "fp32 ONNX's time of a step over this one's, median over interleaved rounds",
    "read_gb_s": "what this machine read in the same run, 10^9 bytes a second",
    "bandwidth_ratio": "bytes of weights, keys and values that a step reads, over its time, over that bandwidth",
    "call_first_ms": "first of several calls of different lengths on one loaded model",
    "call_later_ms": "mean of the others",
    "call_slope_ms": "change of their time from call to call, length accounted for",
    "call_slope_margin_ms": "how far off that may be, at 95 % confidence",
    "call_growth_ratio": "what is certain of that change over all calls, over their mean time",
    "rss_slope_mb": "change of resident memory from call to call, 10^6 bytes",
    "rss_slope_margin_mb": "how far off that may be, at 95 % confidence",
    "rss_growth_mb": "what is certain of that change over all calls, 10^6 bytes",
    "parity_client_snr_db": "spectrogram of the graph for transformers.js against the reference's, length forced",
    "parity_log_mel_l1": "log-mel distance of whole syntheses, durations forced, nepers",
    "parity_log_mel_ratio": "that distance over the reference's own spread: another noise draw, or fp32 against fp64",
}


@dataclass(frozen=True)
class Gate:
    """A metric and the limit it must keep."""

    metric: str
    op: str
    limit: float

    def passes(self, metrics: Mapping[str, float]) -> bool:
        """False as well where the metric was not measured or is NaN."""
        value = metrics.get(self.metric)
        return value is not None and bool(OPERATORS[self.op](value, self.limit))

    def __str__(self) -> str:
        return f"{self.metric} {self.op} {self.limit:g}"


class Profile(BaseModel):
    """A named target. `gates`: model -> variant -> metric -> "OP LIMIT"; variant `all` applies to each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    threads: PositiveInt = 2
    gates: dict[str, dict[str, dict[str, str]]]

    @field_validator("gates")
    @classmethod
    def _known(cls, gates: dict[str, dict[str, dict[str, str]]]) -> dict[str, dict[str, dict[str, str]]]:
        for model, variants in gates.items():
            _check_known("model", model, MODELS)
            for variant, limits in variants.items():
                _check_known("variant", variant, ("all", *VARIANT_SUFFIX))
                for metric, limit in limits.items():
                    parse_gate(metric, limit)
        return gates

    def gates_for(self, model: str, variant: str) -> list[Gate]:
        """The gates of a variant, in order; a limit of its own replaces one under `all`."""
        variants = self.gates.get(model, {})
        limits = {**variants.get("all", {}), **variants.get(variant, {})}
        return [parse_gate(metric, limit) for metric, limit in limits.items()]


def parse_gate(metric: str, limit: str) -> Gate:
    """`parity_f0_snr_db`, `>= 20` -> Gate. Raises ValueError listing what is known."""
    _check_known("metric", metric, METRICS)
    op, _, number = limit.partition(" ")
    try:
        if op not in OPERATORS:
            raise ValueError
        return Gate(metric, op, float(number))
    except ValueError:
        known = ", ".join(OPERATORS)
        raise ValueError(f"{metric}: '{limit}' is not a limit such as '>= 20'; operators: {known}") from None


def _check_known(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ValueError(f"unknown {what} '{name}'; {what}s: {', '.join(known)}")


def built_in() -> dict[str, Path]:
    """Name -> file of the profiles that come with the package."""
    return {p.stem: p for p in sorted(Path(__file__).parent.glob("*.toml"))}


def load_profile(name: str) -> Profile:
    """A built-in profile, or one from a .toml file. Raises BadInput naming the key at fault."""
    path = built_in().get(name) or Path(name)
    if path.suffix != ".toml" or not path.is_file():
        raise BadInput(f"no profile '{name}'; built in: {', '.join(built_in())}, or a .toml file")
    try:
        return Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        known = f"; keys: {', '.join(Profile.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise BadInput(f"profile {path.name}: {where}: {first['msg']}{known}") from error
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise BadInput(f"profile {path.name} cannot be read: {error}") from error
