"""Kokoro's sections of docs/benchmarks.md."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from bench.common import PROFILE, ROOT, THREADS, ratio, rtf, say, table
from bench.outliers import plant
from bench.peers import authors_eager, quantize_dynamic
from jtts_export import optimize
from jtts_export.exporters.graph import DEFAULT_OPSET
from jtts_export.exporters.kokoro import GRAPH, MODEL
from jtts_export.exporters.model import Loaded
from jtts_export.exporters.onnx import save
from jtts_export.models.source import Source
from jtts_export.quantize.build import build_variant
from jtts_export.runtime.session import session
from jtts_export.runtime.taps import OnnxRunner
from jtts_export.validate.measure import spread_of
from jtts_export.validate.parity import compare, reference_taps
from jtts_export.validate.speed import Timings, interleave

SEEDS = (0, 1, 2)


def kokoro_int8(folder: Path, rounds: int) -> list[str]:
    """Parity, size and speed of int8 on the full-size seeded checkpoints."""
    rows = [_one_seed(folder, seed, rounds) for seed in SEEDS]
    return [
        "## Kokoro int8, full size, seeded weights",
        "",
        f"{THREADS} threads, {rounds} interleaved rounds. dB: waveform against PyTorch with durations, F0, energy "
        "and source forced. quantize_dynamic is onnxruntime's, on the same fp32 graph.",
        "",
        *table(
            ["seed", "MB", "decoder dB", "durations =", "F0 dB", "quantize_dynamic dB", "its MB", "promoted"],
            [row["parity"] for row in rows],
        ),
        "",
        "Time over fp32 ONNX's (1.00 is equal, less is faster):",
        "",
        *table(
            [
                "seed",
                "tokens",
                "fp32 RTF",
                "int8 RTF",
                "int8 / fp32",
                "int8 / PyTorch eager",
                "int8 / kokoro 0.9.4",
                "quantize_dynamic / fp32",
                "traced graph / fp32",
            ],
            [line for row in rows for line in row["speed"]],
        ),
    ]


def _one_seed(folder: Path, seed: int, rounds: int) -> dict:
    say(f"seed {seed}: building")
    loaded = MODEL.load(Source(f"random:{seed}", "", seed=seed))
    files, promoted = _build(folder / f"seed{seed}", loaded)
    cases = MODEL.cases(loaded.config, loaded.voices, "validation")
    expected = reference_taps(MODEL.parity, MODEL.reference(loaded, THREADS, 0, False), cases)

    def parity(name: str) -> dict[str, float]:
        return compare(MODEL.parity, expected, OnnxRunner(GRAPH.name, files[name], THREADS), cases)[0]

    ours, theirs = parity("int8"), parity("dynamic")
    timed = MODEL.cases(loaded.config, loaded.voices, "timed")
    eager, kokoro = MODEL.reference(loaded, THREADS, 0, False), authors_eager(loaded)
    calls: dict[str, list[Callable[[], object]]] = {
        "PyTorch": [lambda c=c: eager.taps(c.inputs, ["waveform"]) for c in timed],
        "kokoro": [lambda c=c: kokoro(c.inputs) for c in timed],
    }
    for name, path in files.items():
        opened = session(path, THREADS)
        calls[name] = [lambda s=opened, c=c: s.run(["waveform"], c.inputs) for c in timed]
    runner = OnnxRunner(GRAPH.name, files["fp32"], THREADS)
    seconds = [runner.taps(c.inputs, ["waveform"])["waveform"].shape[1] / 24_000 for c in timed]
    timings = interleave(calls, seconds, rounds, lambda: say(f"seed {seed}: round"))

    return {
        "parity": [
            seed,
            f"{_mb(files['int8']):.1f}",
            f"{ours['parity_decoder_snr_db']:.1f}",
            f"{ours['durations_equal_ratio']:.3f}",
            f"{ours['parity_f0_snr_db']:.1f}",
            f"{theirs['parity_decoder_snr_db']:.1f}",
            f"{_mb(files['dynamic']):.1f}",
            promoted,
        ],
        "speed": [
            [
                seed,
                case.inputs["input_ids"].size - 2,
                rtf(timings, "fp32", i),
                rtf(timings, "int8", i),
                ratio(timings, "int8", "fp32", i),
                ratio(timings, "int8", "PyTorch", i),
                ratio(timings, "int8", "kokoro", i),
                ratio(timings, "dynamic", "fp32", i),
                ratio(timings, "traced", "fp32", i),
            ]
            for i, case in enumerate(timed)
        ],
    }


def _build(folder: Path, loaded: Loaded) -> tuple[dict[str, Path], int]:
    """Graph files of every contender, and how many weights the ladder promoted."""
    folder.mkdir()
    files = {"traced": _traced(folder, loaded)}
    files |= {name: folder / f"{name}.onnx" for name in ("fp32", "int8", "dynamic")}
    graph = ir.load(files["traced"])
    optimize.optimize(graph)
    save(graph, files["fp32"])
    quantize_dynamic(files["fp32"], files["dynamic"])
    report = _quantize(loaded, files["fp32"], files["int8"])
    return files, sum(len(step["promoted"]) for step in report["ladder"]["steps"])


def _traced(folder: Path, loaded: Loaded) -> Path:
    """Kokoro's one graph as the tracer made it."""
    MODEL.export(loaded, folder, DEFAULT_OPSET)
    return folder / f"{GRAPH.name}.onnx"


def _quantize(loaded: Loaded, fp32: Path, out: Path) -> dict:
    spread = spread_of(MODEL, loaded, THREADS)
    gates = PROFILE.gates_for("kokoro", "int8")
    files, recipe = {GRAPH.name: fp32}, MODEL.recipes["int8"]
    graphs, report, _ = build_variant(MODEL, files, recipe, loaded.config, loaded.voices, gates, spread, THREADS, say)
    save(graphs[GRAPH.name], out)
    return report


def outliers(folder: Path, _: int) -> list[str]:
    """Function-preserving outliers: 60x in 17 channels of every layer that admits them."""
    loaded = MODEL.load(Source("random:0", "", seed=0))
    plant(loaded.module)
    here = folder / "outliers"
    here.mkdir()
    graph = ir.load(_traced(here, loaded))
    optimize.optimize(graph)
    save(graph, here / "fp32.onnx")
    report = _quantize(loaded, here / "fp32.onnx", here / "int8.onnx")
    cases = MODEL.cases(loaded.config, loaded.voices, "validation")
    expected = reference_taps(MODEL.parity, MODEL.reference(loaded, THREADS, 0, False), cases)
    found, _rows = compare(MODEL.parity, expected, OnnxRunner(GRAPH.name, here / "int8.onnx", THREADS), cases)
    return [
        "## Planted outliers",
        "",
        "random:0 with 17 channels scaled by 60 at every layer of ALBERT, decoder and generator that admits it "
        "without changing the function (bench/outliers.py).",
        "",
        *table(
            ["MB", "decoder dB", "durations =", "F0 dB", "gates failing", "weights promoted"],
            [
                [
                    f"{_mb(here / 'int8.onnx'):.1f}",
                    f"{found['parity_decoder_snr_db']:.1f}",
                    f"{found['durations_equal_ratio']:.3f}",
                    f"{found['parity_f0_snr_db']:.1f}",
                    len(report["ladder"]["failing"]),
                    sum(len(step["promoted"]) for step in report["ladder"]["steps"]),
                ]
            ],
        ),
    ]


def rewrites(folder: Path, rounds: int) -> list[str]:
    """Each graph rewrite's worth: the fp32 graph without it, over the graph with all."""
    loaded = MODEL.load(Source("random:0", "", seed=0))
    traced = _traced(folder / "rewrites", loaded)
    timed = MODEL.cases(loaded.config, loaded.voices, "timed")
    sessions = {}
    for left_out in (None, *optimize.REWRITES):
        graph = ir.load(traced)
        optimize.optimize(graph, tuple(r for r in optimize.REWRITES if r is not left_out))
        path = folder / "one.onnx"
        save(graph, path)
        sessions[left_out.__name__ if left_out else "all"] = session(path, THREADS)
    calls = {n: [lambda s=s, c=c: s.run(["waveform"], c.inputs) for c in timed] for n, s in sessions.items()}
    timings = interleave(calls, [1.0] * len(timed), rounds, lambda: say("rewrites: round"))
    return [
        "## Graph rewrites",
        "",
        "Time of the fp32 graph without one rewrite, over its time with all of them. Those near 1.00 in fp32 are "
        "there for what they allow: scales next to the norms and convolutions that int8 folds into its own.",
        "",
        *table(
            ["without", *(f"{c.inputs['input_ids'].size - 2} tokens" for c in timed)],
            [[name, *_ratios(timings, name, "all")] for name in sessions if name != "all"],
        ),
    ]


def _ratios(timings: Timings, a: str, b: str) -> list[str]:
    return [f"{r:.3f}" for r in np.median(timings.seconds[a] / timings.seconds[b], axis=0)]


def equivalence(_: Path, __: int) -> list[str]:
    """The full matrix against the authors' code, audio included: 5 lengths, 3 seeds, 3 speeds."""
    tests = ["tests/models/kokoro/test_equivalence.py", "tests/exporters/test_kokoro_full.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stdout.strip().splitlines()[-1]
    return ["## Equivalence with kokoro 0.9.4", "", f"`JTTS_FULL=1 pytest {' '.join(tests)}`: {last}"]


def _mb(path: Path) -> float:
    return path.stat().st_size / 1e6


SECTIONS = {"kokoro": kokoro_int8, "outliers": outliers, "rewrites": rewrites, "equivalence": equivalence}
