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
    "rtf_short_p50": "real-time factor of the short timed utterance, median",
    "rtf_short_p95": "the same, 95th percentile",
    "rtf_medium_p50": "real-time factor of the medium timed utterance, median",
    "rtf_medium_p95": "the same, 95th percentile",
    "rtf_long_p50": "real-time factor of the long timed utterance, median",
    "rtf_long_p95": "the same, 95th percentile",
    "rtf_cold": "real-time factor of the first call in a fresh process, session creation included",
    "rtf_sequential_std": "standard deviation of the real-time factor of one utterance said again and again",
    "rtf_sequential_range": "its largest less its smallest, the first call left out",
    "warmup_ratio": "time of the first of these calls over the median of the others",
    "warmup_calls": "how many of these calls go by before one is within a tenth of that median",
    "concurrent_1_rtf": "seconds for one request after another over the seconds of audio made",
    "concurrent_2_rtf": "the same where two requests are served at a time by one loaded model",
    "concurrent_4_rtf": "the same where four are",
    "concurrent_4_slowest_rtf": "time of the slowest request of those over its audio",
    "speedup_vs_fp32": "fp32 ONNX's time over this one's, median over interleaved rounds",
    "speedup_vs_reference": "PyTorch eager's time over this one's, median over interleaved rounds",
    "ttfa_warm_p50_ms": "time to first audio (T3: first token) of stream(), median",
    "ttfa_warm_p95_ms": "time to first audio (T3: first token) of stream(), 95th percentile",
    "ttfa_cold_ms": "time to first audio (T3: of a first utterance) in a fresh process, session creation included",
    "chunk_gap_max_ms": "longest wait between two chunks of stream()",
    "chunk_gap_p95_ms": "the same, 95th percentile",
    "stream_underruns": "times that playback from the first chunk on would run dry before the next one is there",
    "stream_underrun_ms": "how long it would be silent, in all",
    "frontend_ms": "from the request to the first graph: text to tokens",
    "graphs_ms": "time inside the graphs",
    "rest_ms": "time between and behind the graphs",
    "jitter_ratio": "what this machine does of itself: slowest over median time of a fixed piece of work, run between",
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
    "audio_mrstft": "multi-resolution STFT distance of whole syntheses, durations forced",
    "audio_mrstft_ratio": "that distance over the reference's own spread",
    "audio_f0_rmse_cents": "F0 of the audio against the reference's, where both are voiced, root mean square",
    "audio_f0_rmse_ratio": "that over the reference's own spread",
    "audio_voicing_error_ratio": "share of frames voiced in one and not in the other",
    "audio_stoi": "short-time objective intelligibility, the reference's audio being the clean speech",
    "audio_stoi_ratio": "what it lacks of 1, over what the reference's own spread lacks of 1",
    "audio_si_sdr_db": "scale-invariant signal-to-distortion ratio, aligned by DTW where lengths differ",
    "audio_pesq": "PESQ, wideband, mean opinion score; measured where the pesq package is installed",
    "audio_dtw_log_mel": "log-mel distance along the best alignment, free-running, nepers",
    "audio_length_error_ratio": "how far the length, free-running, is off the reference's, worst utterance",
    "audio_loudness_change_lu": "how far the loudness (BS.1770) is off the reference's, worst utterance",
    "audio_clipped_ratio": "share of samples at full scale beyond that of the reference, worst utterance",
    "audio_dc_ratio": "shift of the mean over the reference's RMS, worst utterance",
    "audio_silence_change_ratio": "difference in the share of silent frames, worst utterance",
    "audio_not_finite": "samples that are NaN or infinite",
    "audio_stutter_score": "repeated and dropped segments and stuck frames beyond the reference's; docs/metrics.md",
    "audio_join_score": "discontinuities at chunk joins of stream(); docs/metrics.md",
    "layer_worst_snr_db": "least SNR of a layer's output against fp32's, given fp32's inputs",
    "layer_channel_snr_db": "the same of one output channel",
    "layer_gain_error": "largest deviation from 1 of a layer's output channel regressed on fp32's, given fp32's inputs",
    "client_files_equal_ratio": "share of the files beside the graphs that are what this checkpoint gives",
    "metadata_equal_ratio": "share of the graphs' metadata entries that are what this checkpoint gives",
    "operators_missing": "operators of the graphs that the profile's runtime does not have",
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
