"""Contents of validation.json as releases have them, with audio of speech's shape beside them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter

SAMPLE_RATE_HZ = 24000
SENTENCES = (
    "Nothing leaves that was not measured.",
    "The quick brown fox jumps over the lazy dog.",
    "She sells sea shells by the sea shore.",
    "How much wood would a woodchuck chuck?",
    "A late train crossed the bridge in the rain.",
    "Seven silver swans swam silently seaward.",
)
ERROR_DB = {"fp32": 95, "fp16": 62, "int8": 21, "int8-fast": 17}
GATES = {
    "parity_decoder_snr_db": (">=", 20),
    "size_ratio_vs_fp32": ("<=", 0.4),
    "rtf_warm_p50": ("<=", 0.5),
    "ttfa_warm_p95_ms": ("<=", 400),
    "parity_log_mel_ratio": ("<=", 1.5),
    "durations_equal_ratio": (">=", 0.95),
    "audio_stoi": (">=", 0.97),
}


def speech(seed: int, seconds: float) -> np.ndarray:
    """Voiced syllables, fricatives and pauses, float32 [samples]; nobody's voice."""
    rng = np.random.default_rng(seed)
    count = int(seconds * SAMPLE_RATE_HZ)
    audio, start = np.zeros(count), 0
    while start < count:
        length = int(rng.uniform(0.12, 0.3) * SAMPLE_RATE_HZ)
        pitch = rng.uniform(90, 180) * np.linspace(1, rng.uniform(0.8, 1.2), length)
        phase = np.cumsum(pitch / SAMPLE_RATE_HZ)
        voiced = rng.random() < 0.75
        source = np.diff(np.floor(phase), prepend=0) if voiced else 0.06 * rng.standard_normal(length)
        formants = (rng.uniform(300, 800), rng.uniform(900, 2300), 2700, 3600) if voiced else (4500, 7000)
        for centre in formants:
            width = 0.06 * centre + 40
            radius = np.exp(-np.pi * width / SAMPLE_RATE_HZ)
            turn = 2 * np.cos(2 * np.pi * centre / SAMPLE_RATE_HZ) * radius
            source = lfilter([1 - radius], [1, -turn, radius**2], source)
        piece = source * np.hanning(length) / (np.abs(source).max() + 1e-9) * rng.uniform(0.25, 0.7)
        end = min(count, start + length)
        audio[start:end] += piece[: end - start]
        start += length + int(rng.choice([0, 0, 0.02, 0.12]) * SAMPLE_RATE_HZ)
    return audio.astype(np.float32)


def measured(variants: tuple[str, ...] = ("fp32", "int8", "fp16"), seed: int = 0) -> dict[str, Any]:
    """Every part that a validation may have, but no audio. int8 fails a gate and has another in doubt."""
    rng = np.random.default_rng(seed)
    made = {name: _variant(name, rng) for name in variants}
    verdicts = [v["verdict"] for v in made.values()]
    return {
        "schema_version": 3,
        "tool_version": "0.1.0",
        "model": "kokoro",
        "checkpoint": {"source": "hub:hexgrad/Kokoro-82M", "revision": "f3ff3571791e39611d31", "sha256": "ab" * 32},
        "profile": {"name": "cpu", "description": "two cores", "threads": 2},
        "machine": {
            "cpu": "A processor with a long name @ 2.50GHz",
            "cores": 4,
            "system": "Linux",
            "python": "3.11.2",
        },
        "verdict": "fail" if "fail" in verdicts else "pass",
        "noise": {"jitter_ratio": 1.08, "probe_ms": (50 * rng.lognormal(0, 0.03, 24)).tolist()},
        "variants": made,
    }


def _variant(name: str, rng: np.random.Generator) -> dict[str, Any]:
    int8 = name.startswith("int8")
    speed = {"fp32": 0.21, "fp16": 0.22}.get(name, 0.11)
    audio_s = (1.2, 4.1, 11.8)
    seconds = [(speed * a + 0.03) * rng.lognormal(0, 0.03, 5) for a in audio_s]
    calls_s = rng.uniform(1.5, 8, 20)
    cost = speed * calls_s * rng.lognormal(0, 0.04, 20)
    cost[:2] *= (2.6, 1.2)
    metrics = {
        "size_mb": {"fp32": 326.4, "fp16": 163.9}.get(name, 91.2),
        "size_ratio_vs_fp32": {"fp32": 1.0, "fp16": 0.502}.get(name, 0.279),
        "rtf_warm_p50": speed,
        "rtf_warm_p95": speed * 1.12,
        "speedup_vs_fp32": 0.21 / speed,
        "speedup_vs_reference": 0.34 / speed,
        "ttfa_warm_p95_ms": 391.0 if int8 else 420.5,
        "parity_decoder_snr_db": float(ERROR_DB[name]) - 4,
        "parity_f0_snr_db": float(ERROR_DB[name]) + 8,
        "durations_equal_ratio": 0.992 if int8 else 1.0,
        "parity_log_mel_l1": 0.031 if int8 else 0.0004,
        "parity_log_mel_ratio": 0.41 if int8 else 0.005,
        "audio_stoi": 0.981 if int8 else 0.9999,
        "audio_si_sdr_db": "inf" if name == "fp32" else 18.4,
    }
    wanted = {m: g for m, g in GATES.items() if int8 or m not in {"size_ratio_vs_fp32", "ttfa_warm_p95_ms"}}
    gates = [_gate(metric, op, limit, metrics[metric]) for metric, (op, limit) in wanted.items()]
    outcomes = {g["outcome"] for g in gates}
    return {
        "verdict": "fail" if "fail" in outcomes else "inconclusive" if "inconclusive" in outcomes else "pass",
        "gates": gates,
        "metrics": metrics,
        "rows": [{"case": f"sentence-{i}", "metrics": {}} for i in range(3)],
        "files": {f"onnx/model_{name}.onnx": "cd" * 32},
        "timings": [
            {"case": n, "length": n, "audio_s": a, "seconds": s.tolist(), "reference_seconds": (s * 1.7).tolist()}
            for n, a, s in zip(("short", "medium", "long"), audio_s, seconds, strict=True)
        ],
        "calls": {
            "seconds": cost.tolist(),
            "audio_s": calls_s.tolist(),
            "rss_mb": ((400 if int8 else 700) + 30 * (1 - np.exp(-np.arange(20) / 3))).tolist(),
        },
        "repeated": {"seconds": (0.5 * speed * np.array([2.4, 1.1, *np.ones(8)])).tolist(), "audio_s": 0.5},
        "stages": [
            {"name": "frontend", "ms": 1.8},
            {"name": "text_encoder", "ms": 40 * speed},
            {"name": "decoder", "ms": 3500 * speed},
            {"name": "rest", "ms": 6.0},
        ],
        "stream": [{"at_ms": 380 + 420 * i * (1 + speed), "audio_s": 1.0 + 0.1 * i} for i in range(6)],
        "layers": [
            {
                "graph": "model",
                "layer": f"/decoder/generator/resblocks.{i % 6}/convs{1 + i % 2}.{i % 3}/Conv_{i}",
                "scheme": "static-conv" if i % 3 else "dynamic-matmul",
                "isolated_snr_db": float(24 + 1.1 * i + rng.uniform(0, 2)),
                "cumulative_snr_db": float(19 + 0.5 * i),
                "channel_snr_db": 12.0,
                "gain_error": 0.02,
            }
            for i in range(40)
        ]
        if int8
        else [],
    }


def _gate(metric: str, op: str, limit: float, value: float) -> dict[str, Any]:
    holds = value >= limit if op == ">=" else value <= limit
    gate: dict[str, Any] = {"metric": metric, "op": op, "limit": limit, "value": value}
    if metric in {"rtf_warm_p50", "ttfa_warm_p95_ms"}:
        gate["interval"] = [0.94 * value, 1.07 * value]
    low, high = gate.get("interval", (value, value))
    outcome = "inconclusive" if low <= limit <= high and low < high else "pass" if holds else "fail"
    return {**gate, "outcome": outcome, "passed": outcome == "pass"}


def with_audio(validation: dict[str, Any], folder: Path, cases: int = 6, seconds: float = 4) -> dict[str, Any]:
    """The same with samples, whose files are written into `folder`, named `samples` or otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for i in range(cases):
        reference = speech(i, seconds)
        rng = np.random.default_rng(100 + i)
        files = {}
        for name in ("reference", *validation["variants"]):
            audio = reference
            if name != "reference":
                loudness = uniform_filter1d(np.abs(reference), 2400)  # errors of a network follow its signal
                noise = 1.4 * rng.standard_normal(len(reference)) * loudness
                audio = reference + noise * 10 ** (-ERROR_DB.get(name, 30) / 20)
            file = f"{i}-{name}.flac"
            soundfile.write(folder / file, np.clip(audio, -1, 1), SAMPLE_RATE_HZ, subtype="PCM_16")
            files[name] = f"{folder.name}/{file}"
        said = {"text": SENTENCES[i % len(SENTENCES)]}
        listed.append({"case": f"sentence-{i}", **said, "sample_rate_hz": SAMPLE_RATE_HZ, "files": files})
    return {**copy.deepcopy(validation), "samples": listed}
