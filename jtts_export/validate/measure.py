"""Everything that a gate can name, measured on the bytes of the files."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from jtts_export.exporters.model import Loaded, Model
from jtts_export.models.source import sha256_file
from jtts_export.profiles.schema import Profile
from jtts_export.runtime.engines import engine
from jtts_export.runtime.names import stored

from .calls import call_metrics
from .gates import FAIL, PASS, judge
from .parity import compare, reference_taps
from .probe import probe, save_cases
from .runner import Case
from .speed import Timings, interleave
from .spread import Spread, measure_spread

ROUNDS = 5
FIRST_AUDIO_CALLS = 7
OTHER_NOISE_SEED = 1
REFERENCE = "reference"

Tell = Callable[[str], None]
Files = Mapping[str, Path]  # graph -> file


def spread_of(model: Model, loaded: Loaded, threads: int) -> Spread:
    """The reference's own spread on a search sentence: the yardstick of ladder and validation alike. Empty for a
    model that makes no audio."""
    if model.parity.audio is None:  # distances between distributions need none
        return Spread({})
    cases = model.cases(loaded.config, loaded.voices, "search")[:1]
    expected = reference_taps(model.parity, model.reference(loaded, threads, 0, False), cases)
    reseeded = model.reference(loaded, threads, OTHER_NOISE_SEED, False)
    double = model.reference(loaded, threads, 0, True)
    return measure_spread(model.parity, expected, reseeded, double, cases)


def validate(
    model: Model,
    loaded: Loaded,
    files: Mapping[str, Files],
    name: str,
    spread: Spread,
    profile: Profile,
    tell: Tell,
) -> dict:
    """Measure each variant's files against the reference and against fp32, and judge it.

    files: variant -> graph -> file; must hold fp32. name: the model's, under which the profile has its gates.
    Returns the content of validation.json.
    """
    threads = profile.threads
    hashes = {
        variant: {
            (PurePosixPath(graph).parent / path.name).as_posix(): sha256_file(path)
            for graph, main in graphs.items()
            for path in stored(main)
        }
        for variant, graphs in files.items()
    }
    cases = model.cases(loaded.config, loaded.voices, "validation")
    reference, parity = model.reference(loaded, threads, 0, False), model.parity.whole
    tell("reference")
    expected = reference_taps(parity, reference, cases)
    variants: dict[str, dict] = {}
    for variant, graphs in files.items():
        tell(f"parity of {variant}")
        metrics, rows = compare(parity, expected, model.runner(graphs, threads, True), cases)
        variants[variant] = {"metrics": spread.relate(metrics), "rows": rows}
    timed = model.cases(loaded.config, loaded.voices, "timed")
    utterances: Sequence[Case] = [timed[0], *cases, timed[-1]]
    if model.steps:
        utterances = model.cases(loaded.config, loaded.voices, "sequence")
    for variant, measured in _resources(name, model, files, utterances, threads, tell).items():
        variants[variant]["metrics"] |= measured
    for variant, measured in _speeds(name, model, loaded, files, timed, threads, tell).items():
        variants[variant]["metrics"] |= measured["metrics"]
        variants[variant]["timings"] = measured["timings"]
    for variant in files:
        variants[variant]["files"] = hashes[variant]
        variants[variant] |= judge(profile.gates_for(name, variant), variants[variant]["metrics"])
    passed = all(v["verdict"] == PASS for v in variants.values())
    return {"verdict": PASS if passed else FAIL, "variants": variants}


def _resources(
    name: str, model: Model, files: Mapping[str, Files], utterances: Sequence[Case], threads: int, tell: Tell
) -> dict[str, dict[str, float]]:
    """Sizes, and cold times and memory, each in a process of its own."""
    sizes = {
        variant: sum(path.stat().st_size for g in model.graphs for path in stored(graphs[g]))
        for variant, graphs in files.items()
    }
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        fed = Path(folder) / "cases.npz"
        save_cases(utterances, fed)
        for variant, graphs in files.items():
            tell(f"cold start of {variant}")
            cold = probe(name, graphs, fed, threads)
            measured[variant] = {
                "size_mb": sizes[variant] / 1e6,
                "size_ratio_vs_fp32": sizes[variant] / sizes["fp32"],
                "load_ms": cold["load_ms"],
                "rtf_cold": cold["first_ms"] / 1e3 / (cold["samples"][0] / model.parity.sample_rate_hz),
                "ttfa_cold_ms": cold["first_ms"],
                "rss_peak_mb": cold["rss_peak_mb"],
            }
            if model.steps:
                measured[variant] |= call_metrics(cold["seconds"], cold["rss_mb"], cold["samples"], cold["given"])
    return measured


def _speeds(
    name: str,
    model: Model,
    loaded: Loaded,
    files: Mapping[str, Files],
    timed: Sequence[Case],
    threads: int,
    tell: Tell,
) -> dict[str, dict]:
    """Warm times: PyTorch eager and every variant by turns, in this process."""
    reference = model.reference(loaded, threads, 0, False)
    output = model.parity.output
    calls: dict[str, list[Callable[[], object]]] = {
        REFERENCE: [lambda c=c: reference.taps(c.inputs, [output]) for c in timed]  # type: ignore[misc]
    }
    engines = {variant: engine(name, graphs, threads) for variant, graphs in files.items()}
    for variant, opened in engines.items():
        calls[variant] = [lambda e=opened, c=c: e.speak(c.inputs) for c in timed]  # type: ignore[misc]
    done = iter(range(ROUNDS + 1))
    seconds = [len(engines["fp32"].speak(c.inputs)) / model.parity.sample_rate_hz for c in timed]
    timings = interleave(calls, seconds, ROUNDS, lambda: tell(f"speed, round {next(done)} of {ROUNDS}"))
    steps = model.steps(files, engines, timed[0], threads) if model.steps else {}
    del calls, engines
    first = {variant: _first_audio(model, loaded, graphs, threads) for variant, graphs in files.items()}
    return {
        variant: {
            "metrics": {
                "rtf_warm_p50": timings.rtf(variant, 0.5),
                "rtf_warm_p95": timings.rtf(variant, 0.95),
                "speedup_vs_fp32": timings.speedup(variant, "fp32"),
                "speedup_vs_reference": timings.speedup(variant, REFERENCE),
                "ttfa_warm_p50_ms": float(np.quantile(first[variant], 0.5)),
                "ttfa_warm_p95_ms": float(np.quantile(first[variant], 0.95)),
                **steps.get(variant, {}),
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


def _first_audio(model: Model, loaded: Loaded, files: Files, threads: int) -> np.ndarray:
    """Milliseconds from a request to the first audio of stream(), warm."""
    speak = model.speaker(files, loaded.config, loaded.voices, threads)
    speak()
    times = np.zeros(FIRST_AUDIO_CALLS)
    for i in range(FIRST_AUDIO_CALLS):
        start = time.perf_counter()
        speak()
        times[i] = 1e3 * (time.perf_counter() - start)
    return times
