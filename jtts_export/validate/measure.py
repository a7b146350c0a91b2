"""Everything that a gate can name, measured on the bytes of the files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from jtts_export.exporters.model import Loaded, Model
from jtts_export.models.source import sha256_file
from jtts_export.profiles.schema import Profile
from jtts_export.runtime.names import graph_file
from jtts_export.runtime.session import session
from jtts_export.runtime.taps import OnnxRunner

from .gates import FAIL, PASS, judge
from .parity import compare, reference_taps
from .probe import probe
from .runner import Case
from .speed import Timings, interleave
from .spread import Spread, measure_spread

ROUNDS = 5
FIRST_AUDIO_CALLS = 7
OTHER_NOISE_SEED = 1
REFERENCE = "reference"

Tell = Callable[[str], None]


def spread_of(model: Model, loaded: Loaded, threads: int) -> Spread:
    """The reference's own spread on a search sentence: the yardstick of ladder and validation alike."""
    cases = model.cases(loaded.config, loaded.voices, "search")[:1]
    expected = reference_taps(model.parity, model.reference(loaded, threads, 0, False), cases)
    reseeded = model.reference(loaded, threads, OTHER_NOISE_SEED, False)
    double = model.reference(loaded, threads, 0, True)
    return measure_spread(model.parity, expected, reseeded, double, cases)


def validate(
    model: Model,
    loaded: Loaded,
    files: Mapping[str, Path],
    name: str,
    spread: Spread,
    profile: Profile,
    tell: Tell,
) -> dict:
    """Measure each variant's file against the reference and against fp32, and judge it.

    files: variant -> graph file; must hold fp32. name: the model's, under which the profile has its gates.
    Returns the content of validation.json.
    """
    threads = profile.threads
    hashes = {variant: sha256_file(path) for variant, path in files.items()}
    cases = model.cases(loaded.config, loaded.voices, "validation")
    reference = model.reference(loaded, threads, 0, False)
    tell("reference")
    expected = reference_taps(model.parity, reference, cases)
    variants: dict[str, dict] = {}
    for variant, path in files.items():
        tell(f"parity of {variant}")
        metrics, rows = compare(model.parity, expected, OnnxRunner(path, threads), cases)
        variants[variant] = {"metrics": spread.relate(metrics), "rows": rows}
    for variant, measured in _resources(model, loaded, files, threads, tell).items():
        variants[variant]["metrics"] |= measured
    timed = model.cases(loaded.config, loaded.voices, "timed")
    for variant, measured in _speeds(model, loaded, files, timed, threads, tell).items():
        variants[variant]["metrics"] |= measured["metrics"]
        variants[variant]["timings"] = measured["timings"]
    for variant in files:
        variants[variant] |= {"file": graph_file(model.graph, variant), "sha256": hashes[variant]}
        variants[variant] |= judge(profile.gates_for(name, variant), variants[variant]["metrics"])
    passed = all(v["verdict"] == PASS for v in variants.values())
    return {"verdict": PASS if passed else FAIL, "variants": variants}


def _resources(
    model: Model, loaded: Loaded, files: Mapping[str, Path], threads: int, tell: Tell
) -> dict[str, dict[str, float]]:
    """Sizes, and cold times and memory, each in a process of its own."""
    fp32_bytes = files["fp32"].stat().st_size
    timed = model.cases(loaded.config, loaded.voices, "timed")
    utterances = [timed[0], *model.cases(loaded.config, loaded.voices, "validation"), timed[-1]]
    seconds = _audio_seconds(model, files["fp32"], timed[:1], threads)[0]
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        fed = Path(folder) / "cases.npz"
        np.savez(fed, **{f"{i}/{k}": v for i, c in enumerate(utterances) for k, v in c.inputs.items()})  # type: ignore[arg-type]
        for variant, path in files.items():
            tell(f"cold start of {variant}")
            cold = probe(path, fed, threads)
            measured[variant] = {
                "size_mb": path.stat().st_size / 1e6,
                "size_ratio_vs_fp32": path.stat().st_size / fp32_bytes,
                "load_ms": cold["load_ms"],
                "rtf_cold": cold["first_ms"] / 1e3 / seconds,
                "ttfa_cold_ms": cold["first_ms"],
                "rss_peak_mb": cold["rss_peak_mb"],
            }
    return measured


def _speeds(
    model: Model, loaded: Loaded, files: Mapping[str, Path], timed: Sequence[Case], threads: int, tell: Tell
) -> dict[str, dict]:
    """Warm times: PyTorch eager and every variant by turns, in this process."""
    reference = model.reference(loaded, threads, 0, False)
    audio = model.parity.audio
    calls: dict[str, list[Callable[[], object]]] = {
        REFERENCE: [lambda c=c: reference.taps(c.inputs, [audio]) for c in timed]  # type: ignore[misc]
    }
    for variant, path in files.items():
        opened = session(path, threads)
        calls[variant] = [lambda s=opened, c=c: s.run([audio], dict(c.inputs)) for c in timed]  # type: ignore[misc]
    done = iter(range(ROUNDS + 1))
    seconds = _audio_seconds(model, files["fp32"], timed, threads)
    timings = interleave(calls, seconds, ROUNDS, lambda: tell(f"speed, round {next(done)} of {ROUNDS}"))
    del calls
    first = {variant: _first_audio(model, loaded, path, threads) for variant, path in files.items()}
    return {
        variant: {
            "metrics": {
                "rtf_warm_p50": timings.rtf(variant, 0.5),
                "rtf_warm_p95": timings.rtf(variant, 0.95),
                "speedup_vs_fp32": timings.speedup(variant, "fp32"),
                "speedup_vs_reference": timings.speedup(variant, REFERENCE),
                "ttfa_warm_p50_ms": float(np.quantile(first[variant], 0.5)),
                "ttfa_warm_p95_ms": float(np.quantile(first[variant], 0.95)),
            },
            "timings": _rows(timings, variant, timed),
        }
        for variant in files
    }


def _rows(timings: Timings, variant: str, timed: Sequence[Case]) -> list[dict]:
    return [
        {
            "case": case.name,
            "audio_s": float(timings.audio_s[i]),
            "seconds": timings.seconds[variant][:, i].tolist(),
            "reference_seconds": timings.seconds[REFERENCE][:, i].tolist(),
        }
        for i, case in enumerate(timed)
    ]


def _first_audio(model: Model, loaded: Loaded, path: Path, threads: int) -> np.ndarray:
    """Milliseconds from a request to the first audio of stream(), warm."""
    speak = model.speaker(path, loaded.config, loaded.voices, threads)
    speak()
    times = np.zeros(FIRST_AUDIO_CALLS)
    for i in range(FIRST_AUDIO_CALLS):
        start = time.perf_counter()
        speak()
        times[i] = 1e3 * (time.perf_counter() - start)
    return times


def _audio_seconds(model: Model, path: Path, cases: Sequence[Case], threads: int) -> list[float]:
    runner = OnnxRunner(path, threads)
    audio, rate = model.parity.audio, model.parity.sample_rate_hz
    return [runner.taps(c.inputs, [audio])[audio].shape[-1] / rate for c in cases]
