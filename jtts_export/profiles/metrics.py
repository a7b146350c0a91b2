"""The metrics that gates can name: what each says, of which models it is measured, and whether it is of time."""

from __future__ import annotations

from dataclasses import dataclass

from jtts_export.models import MODELS

_ALL = tuple(MODELS)
_KOKORO, _SPEECHT5, _T3 = ("kokoro",), ("speecht5",), ("t3",)
_AUDIO = _KOKORO + _SPEECHT5


@dataclass(frozen=True)
class Metric:
    """models: those that have it. timed: whether it is of time, and so moves with what else the machine does. always:
    False where something may be missing that it needs. flattered: a timed one that a busy machine may also make
    better, for it compares what was measured one after the other."""

    meaning: str
    models: tuple[str, ...] = _ALL
    timed: bool = False
    always: bool = True
    flattered: bool = False


def _inputs(*stages: str, models: tuple[str, ...]) -> dict[str, Metric]:
    """Of stages that are given floats."""
    meaning = "noise on a stage's inputs, in dB below them, by which the reference would be as far off: {}"
    return {f"parity_{stage}_input_snr_db": Metric(meaning.format(stage), models) for stage in stages}


# validate/ measures these, and beside them what they are made of.
TABLE = {
    "size_mb": Metric("size of the graphs that one client loads, 10^6 bytes"),
    "size_ratio_vs_fp32": Metric("size of those graphs over fp32's"),
    "rtf_warm_p50": Metric("real-time factor, median over warm calls", timed=True),
    "rtf_warm_p95": Metric("real-time factor, 95th percentile over warm calls", timed=True),
    "rtf_short_p50": Metric("real-time factor of the short timed utterance, median", timed=True),
    "rtf_short_p95": Metric("real-time factor of the short timed utterance, 95th percentile", timed=True),
    "rtf_medium_p50": Metric("real-time factor of the medium timed utterance, median", timed=True),
    "rtf_medium_p95": Metric("real-time factor of the medium timed utterance, 95th percentile", timed=True),
    "rtf_long_p50": Metric("real-time factor of the long timed utterance, median", timed=True),
    "rtf_long_p95": Metric("real-time factor of the long timed utterance, 95th percentile", timed=True),
    "rtf_cold": Metric(
        "real-time factor of the first call in a fresh process, session creation included", timed=True
    ),
    "rtf_sequential_std": Metric(
        "standard deviation of the real-time factor of one utterance said again and again", timed=True
    ),
    "rtf_sequential_range": Metric(
        "largest less smallest real-time factor of one utterance said again and again, the first left out", timed=True
    ),
    "warmup_ratio": Metric(
        "one utterance said again and again: the first call's time over the others' median",
        timed=True,
        flattered=True,
    ),
    "warmup_calls": Metric(
        "one utterance said again and again: calls until one is within a tenth of the others' median",
        timed=True,
        flattered=True,
    ),
    "concurrent_1_rtf": Metric("seconds for one request after another over the seconds of audio made", timed=True),
    "concurrent_2_rtf": Metric(
        "seconds for requests, two at a time by one loaded model, over the seconds of audio made", timed=True
    ),
    "concurrent_4_rtf": Metric(
        "seconds for requests, four at a time by one loaded model, over the seconds of audio made", timed=True
    ),
    "concurrent_4_slowest_rtf": Metric(
        "time of the slowest request, of four at a time by one loaded model, over its audio", timed=True
    ),
    "speedup_vs_fp32": Metric("fp32 ONNX's time over this one's, median over interleaved rounds", timed=True),
    "speedup_vs_reference": Metric(
        "PyTorch eager's time over this one's, median over interleaved rounds", timed=True
    ),
    "ttfa_warm_p50_ms": Metric("time to first audio (T3: first token) of stream(), median", timed=True),
    "ttfa_warm_p95_ms": Metric("time to first audio (T3: first token) of stream(), 95th percentile", timed=True),
    "ttfa_cold_ms": Metric(
        "time to first audio (T3: of a first utterance) in a fresh process, session creation included", timed=True
    ),
    "chunk_gap_max_ms": Metric("longest wait between two chunks of stream()", timed=True),
    "chunk_gap_p95_ms": Metric("wait between two chunks of stream(), 95th percentile", timed=True),
    "stream_underruns": Metric(
        "times that playback from the first chunk on would run dry before the next one is there", timed=True
    ),
    "stream_underrun_ms": Metric("how long it would be silent, in all", timed=True),
    "frontend_ms": Metric("from the request to the first graph: text to tokens", timed=True),
    "graphs_ms": Metric("time inside the graphs", timed=True),
    "rest_ms": Metric("time between and behind the graphs", timed=True),
    "jitter_ratio": Metric(
        "what this machine does of itself: slowest over median time of a fixed piece of work, run between", timed=True
    ),
    "rss_peak_mb": Metric("peak resident memory of a process that only loads and speaks, 10^6 bytes"),
    "durations_equal_ratio": Metric("share of tokens whose duration equals the reference's, free-running", _KOKORO),
    "parity_frames_snr_db": Metric("durations before rounding against the reference's", _KOKORO),
    "parity_f0_snr_db": Metric("F0 against the reference's, durations forced", _KOKORO),
    "parity_n_snr_db": Metric("energy against the reference's, durations forced", _KOKORO),
    "parity_decoder_snr_db": Metric(
        "waveform against the reference's, durations, F0, energy and source forced", _KOKORO
    ),
    "parity_decoder_margin_db": Metric(
        "decoder SNR less that of the reference's own rounding (fp32 against fp64)", _KOKORO
    ),
    **_inputs("frames", "f0", "n", "decoder", models=_KOKORO),
    "stop_steps_equal_ratio": Metric("share of utterances that end at the reference's step, free-running", _SPEECHT5),
    "parity_encoder_snr_db": Metric("keys and values of the cross-attention against the reference's", _SPEECHT5),
    "parity_decoder_steps_snr_db": Metric(
        "spectrogram against the reference's, encoder and length forced", _SPEECHT5
    ),
    "parity_mel_snr_db": Metric("spectrogram behind the postnet against the reference's, length forced", _SPEECHT5),
    "parity_stop_snr_db": Metric("stop probabilities against the reference's, length forced", _SPEECHT5),
    "parity_vocoder_snr_db": Metric("waveform against the reference's, spectrogram forced", _SPEECHT5),
    "parity_waveform_snr_db": Metric("waveform against the reference's, length forced", _SPEECHT5),
    "parity_vocoder_margin_db": Metric(
        "vocoder SNR less that of the reference's own rounding (fp32 against fp64)", _SPEECHT5
    ),
    "parity_mel_margin_db": Metric(
        "mel SNR less that of the reference's own rounding (fp32 against fp64)", _SPEECHT5
    ),
    "parity_mel_reseed_margin_db": Metric(
        "mel SNR less that of the reference against itself on another dropout mask", _SPEECHT5
    ),
    **_inputs("decoder_steps", "mel", "stop", "vocoder", "waveform", models=_SPEECHT5),
    "parity_embeddings_snr_db": Metric("every token's and position's embedding against the reference's", _T3),
    "parity_emotion_snr_db": Metric("the emotion's embedding against the reference's", _T3),
    "parity_conditioning_snr_db": Metric("a voice's embeddings against the reference's", _T3),
    "parity_logits_snr_db": Metric("guided logits against the reference's, along the same speech tokens", _T3),
    "parity_logits_kl": Metric("divergence of the next token's distribution from the reference's, mean, nats", _T3),
    "parity_logits_top1_ratio": Metric("share of tokens whose likeliest successor is the reference's", _T3),
    "parity_logits_max_abs": Metric("largest difference of a guided logit from the reference's", _T3),
    "parity_alignment_snr_db": Metric("attention to the text that follows the speech, against the reference's", _T3),
    **_inputs("conditioning", "logits", "alignment", models=_T3),
    "greedy_tokens_equal_ratio": Metric("share of tokens that equal the reference's, both decoding greedily", _T3),
    "step_ms": Metric("one speech token under guidance, two rows, median", _T3, timed=True),
    "step_rtf": Metric("time of one such step over the 40 ms that its token lasts", _T3, timed=True),
    "tokens_per_s": Metric("speech tokens a second at that rate", _T3, timed=True),
    "step_speedup_vs_fp32": Metric(
        "fp32 ONNX's time of a step over this one's, median over interleaved rounds", _T3, timed=True
    ),
    "read_gb_s": Metric("what this machine read in the same run, 10^9 bytes a second", _T3, timed=True),
    "bandwidth_ratio": Metric(
        "bytes of weights, keys and values that a step reads, over its time, over that bandwidth",
        _T3,
        timed=True,
        flattered=True,
    ),
    "coreml_stage_snr_db": Metric(
        "CoreML packages that compute in fp16, but here exactly: the worst, on its own inputs", always=False
    ),
    "coreml_fp16_snr_db": Metric("the same with every result rounded to fp16", always=False),
    "coreml_kept_snr_db": Metric("CoreML packages that compute in fp32: the worst, on its own inputs", always=False),
    "coreml_modules_snr_db": Metric(
        "the modules that CoreML's packages are converted from, of every length, in fp32 against the reference",
        always=False,
    ),
    "coreml_weights_equal_ratio": Metric(
        "share of the constants in CoreML's packages that are the checkpoint's", always=False
    ),
    "coreml_weight_error": Metric(
        "largest change of a weight in 8 bits over the largest of its constant, of CoreML's packages", always=False
    ),
    "coreml_overflows": Metric("CoreML packages in which a result is beyond fp16", always=False),
    "size_ratio_vs_coreml": Metric(
        "size of the packages with weights in 8 bits over that of the others", always=False
    ),
    "call_mean_ms": Metric("mean of many calls of different lengths on one loaded model", timed=True),
    "call_slope_ms": Metric("change of their time from call to call, length accounted for", timed=True),
    "call_slope_margin_ms": Metric("how far off call_slope_ms may be, at 95 % confidence", timed=True),
    "call_growth_ratio": Metric(
        "what is certain of call_slope_ms, over all calls and over their mean time", timed=True, flattered=True
    ),
    "rss_slope_mb": Metric("change of resident memory from call to call, 10^6 bytes"),
    "rss_slope_margin_mb": Metric("how far off rss_slope_mb may be, at 95 % confidence"),
    "rss_growth_mb": Metric("what is certain of rss_slope_mb, over all calls, 10^6 bytes"),
    "parity_client_snr_db": Metric(
        "spectrogram of the graph for transformers.js against the reference's, length forced", _SPEECHT5
    ),
    "parity_log_mel_l1": Metric("log-mel distance of whole syntheses, durations forced, nepers", _AUDIO),
    "parity_log_mel_ratio": Metric(
        "parity_log_mel_l1 over the reference's own spread: another noise draw, or fp32 against fp64", _AUDIO
    ),
    "audio_mrstft": Metric("multi-resolution STFT distance of whole syntheses, durations forced", _AUDIO),
    "audio_mrstft_ratio": Metric("audio_mrstft over the reference's own spread", _AUDIO),
    "audio_f0_rmse_cents": Metric(
        "F0 of the audio against the reference's where both are voiced, RMS but for the worst tenth of frames", _AUDIO
    ),
    "audio_f0_rmse_ratio": Metric("audio_f0_rmse_cents over the reference's own spread", _AUDIO),
    "audio_voicing_error_ratio": Metric("share of frames voiced in one and not in the other", _AUDIO),
    "audio_stoi": Metric(
        "short-time objective intelligibility, the reference's audio being the clean speech", _AUDIO
    ),
    "audio_stoi_ratio": Metric("what it lacks of 1, over what the reference's own spread lacks of 1", _AUDIO),
    "audio_si_sdr_db": Metric(
        "scale-invariant signal-to-distortion ratio, aligned by DTW where lengths differ", _AUDIO
    ),
    "audio_pesq": Metric(
        "PESQ, wideband, mean opinion score; measured where the pesq package is installed", _AUDIO, always=False
    ),
    "audio_dtw_log_mel": Metric("log-mel distance along the best alignment, free-running, nepers", _AUDIO),
    "audio_length_error_ratio": Metric(
        "how far the length, free-running, is off the reference's, worst utterance", _AUDIO
    ),
    "audio_loudness_change_lu": Metric(
        "how far the loudness (BS.1770) is off the reference's, worst utterance", _AUDIO
    ),
    "audio_clipped_ratio": Metric(
        "share of samples at full scale beyond that of the reference, worst utterance", _AUDIO
    ),
    "audio_flat_top_ratio": Metric(
        "share of samples at the audio's own peak beyond that of the reference, worst utterance", _AUDIO
    ),
    "audio_dc_ratio": Metric("shift of the mean over the reference's RMS, worst utterance", _AUDIO),
    "audio_silence_change_ratio": Metric("difference in the share of silent frames, worst utterance", _AUDIO),
    "audio_not_finite": Metric("samples that are NaN or infinite", _AUDIO),
    "audio_stutter_score": Metric(
        "repeated and dropped segments and stuck frames beyond the reference's; docs/metrics.md", _AUDIO
    ),
    "audio_join_score": Metric("discontinuities at chunk joins of stream(); docs/metrics.md", _AUDIO),
    "layer_worst_snr_db": Metric("least SNR of a layer's output against fp32's, given fp32's inputs", always=False),
    "layer_channel_snr_db": Metric(
        "least SNR of one channel of a layer's output against fp32's, given fp32's inputs", always=False
    ),
    "layer_gain_error": Metric(
        "largest deviation from 1 of a layer's output regressed on fp32's, given fp32's inputs", always=False
    ),
    "layer_outputs_snr_db": Metric(
        "least SNR of a graph's output against fp32's, given fp32's output of every layer", always=False
    ),
    "layer_weight_steps": Metric("largest distance of a weight from fp32's, in steps of its rounding", always=False),
    "layer_weight_gain_error": Metric(
        "largest deviation from 1 of a layer's weights regressed on fp32's", always=False
    ),
    "structure_equal_ratio": Metric(
        "of the nodes that quantization leaves as they are, the share with fp32's attributes and constants; of "
        "fp32's, with a new export's",
        always=False,
    ),
    "exported_weight_error": Metric(
        "largest difference of an fp32 weight from a new export's, relative to the largest of its tensor",
        always=False,
    ),
    "draws_equal_ratio": Metric("share of the random draws in the graphs that are the reference's", _AUDIO),
    "derived_equal_ratio": Metric("share of the graphs derived for clients that are what their own give", _SPEECHT5),
    "client_files_equal_ratio": Metric("share of the files beside the graphs that are what this checkpoint gives"),
    "metadata_equal_ratio": Metric("share of the graphs' metadata entries that are what this checkpoint gives"),
    "operators_missing": Metric("operators of the graphs that the profile's runtime lacks; not known of coreml"),
}


def metrics_of(model: str) -> list[str]:
    """Those that a gate of this model may name."""
    return [name for name, metric in TABLE.items() if model in metric.models]


def is_timed(metric: str) -> bool:
    """Whether a metric is of time: a busy machine makes it worse, whatever the artifact is."""
    return metric in TABLE and TABLE[metric].timed


def is_flattered(metric: str) -> bool:
    """Whether a busy machine may also make it better."""
    return metric in TABLE and TABLE[metric].flattered
