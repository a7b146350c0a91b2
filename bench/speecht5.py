"""SpeechT5's sections of docs/benchmarks.md."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np

from bench.common import PROFILE, ROOT, THREADS, ratio, rtf, say, table
from bench.optimum_runner import OptimumSpeechT5
from jtts_export.exporters.model import Loaded
from jtts_export.exporters.onnx import save
from jtts_export.exporters.speecht5 import MODEL
from jtts_export.models.source import Source
from jtts_export.quantize.build import build_variant
from jtts_export.runtime.speecht5 import GRAPHS, Engine
from jtts_export.validate.audio import snr_db
from jtts_export.validate.measure import spread_of
from jtts_export.validate.parity import compare, reference_taps
from jtts_export.validate.speed import interleave

SEEDS = (0, 1)
SIDE_FRAMES = 96  # of the chunks that the vocoder takes beside the decoder
LONG_STEPS = (100, 500, 1000, 2000, 3900)
Files = Mapping[str, Path]


def int8(folder: Path, rounds: int) -> list[str]:
    """Parity, size and speed of int8 on full-size seeded checkpoints, beside PyTorch and optimum-onnx."""
    parities, speeds = zip(*(_one_seed(folder / f"speecht5-{seed}", seed, rounds) for seed in SEEDS), strict=True)
    return [
        "## SpeechT5 int8, full size, seeded weights",
        "",
        f"{THREADS} threads. Lengths forced; the same dropout masks on both sides, and every step feeds on what int8 "
        "itself made. MB: encoder, decoder, and vocoder with postnet.",
        "",
        *table(
            ["seed", "MB", "mel dB", "waveform dB", "another dropout mask: mel dB", "stop steps =", "promoted"],
            parities,
        ),
        "",
        f"Time, {rounds} interleaved rounds. PyTorch is transformers' generate_speech with its vocoder; optimum is "
        "optimum-onnx 0.1.0's export, run with bound buffers; its int8 is quantize_dynamic of the MatMuls, which is "
        "the best that this recipe can do (of the vocoder's convolutions as well, it is slower than fp32).",
        "",
        *table(
            ["seed", "audio", "int8 RTF", "fp32 RTF", "PyTorch RTF", "PyTorch / int8", "optimum fp32 / int8",
             "optimum int8 / int8", "fp32 / int8"],
            [row for rows in speeds for row in rows],
        ),
    ]  # fmt: skip


def _one_seed(folder: Path, seed: int, rounds: int) -> tuple[list, list[list]]:
    say(f"speecht5 seed {seed}: building")
    loaded = MODEL.load(Source(f"random:{seed}", "", seed=seed))
    fp32, quantized, promoted, spread = build(folder, loaded)
    cases = MODEL.cases(loaded.config, loaded.voices, "validation")
    reference = MODEL.reference(loaded, THREADS, 0, False)
    expected = reference_taps(MODEL.parity, reference, cases)
    found, _ = compare(MODEL.parity, expected, MODEL.runner(quantized, THREADS, True), cases)
    say(f"speecht5 seed {seed}: optimum's export")
    peers = {name: OptimumSpeechT5(optimum(folder, loaded), name == "int8", THREADS) for name in ("fp32", "int8")}
    timed = MODEL.cases(loaded.config, loaded.voices, "timed")
    calls: dict[str, list[Callable[[], object]]] = {
        "PyTorch": [lambda c=c: reference.taps(c.inputs, ["waveform"]) for c in timed]
    }
    for name, files in (("fp32", fp32), ("int8", quantized)):
        engine = Engine(files, THREADS)
        calls[name] = [lambda e=engine, c=c: e.speak(c.inputs) for c in timed]
    for name, peer in peers.items():
        calls[f"optimum {name}"] = [
            lambda p=peer, i=c.inputs: p.synthesize(i["input_ids"], i["speaker_embeddings"], int(i["max_steps"]))
            for c in timed
        ]
    seconds = [len(engine.speak(c.inputs)) / MODEL.parity.sample_rate_hz for c in timed]
    timings = interleave(calls, seconds, rounds, lambda: say(f"speecht5 seed {seed}: round"))
    parity = [
        seed,
        f"{sum(path.stat().st_size for path in quantized.values()) / 1e6:.1f}",
        f"{found['parity_mel_snr_db']:.1f}",
        f"{found['parity_waveform_snr_db']:.1f}",
        f"{spread['spread_reseed_mel_snr_db']:.1f}",
        f"{found['stop_steps_equal_ratio']:.2f}",
        promoted,
    ]
    speed = [
        [
            seed,
            f"{seconds[i]:.0f} s",
            *(rtf(timings, name, i) for name in ("int8", "fp32", "PyTorch")),
            *(ratio(timings, name, "int8", i) for name in ("PyTorch", "optimum fp32", "optimum int8", "fp32")),
        ]
        for i in range(len(timed))
    ]
    return parity, speed


def build(folder: Path, loaded: Loaded) -> tuple[Files, Files, int, Mapping[str, float]]:
    """Graph files of fp32 and int8, how many weights the ladder promoted, and the reference's spread."""
    MODEL.export(loaded, folder / "fp32", 17)
    spread = spread_of(MODEL, loaded, THREADS)
    files = {name: folder / "fp32" / f"{name}.onnx" for name in GRAPHS}
    gates = PROFILE.gates_for("speecht5", "int8")
    graphs, report, _ = build_variant(
        MODEL, files, MODEL.recipes["int8"], loaded.config, loaded.voices, gates, spread, THREADS, say
    )
    for name, graph in graphs.items():
        save(graph, folder / "int8" / f"{name}.onnx")
    quantized = {name: folder / "int8" / f"{name}.onnx" for name in GRAPHS}
    return files, quantized, sum(len(step["promoted"]) for step in report["ladder"]["steps"]), spread.metrics


def optimum(folder: Path, loaded: Loaded) -> Path:
    """The same weights through optimum-onnx, which needs an environment of its own."""
    out = folder / "optimum"
    if not out.exists():
        subprocess.run(["bash", "scripts/setup_optimum.sh"], cwd=ROOT, check=True)
        loaded.module.model.save_pretrained(folder / "hf")
        loaded.module.vocoder.save_pretrained(folder / "hf-vocoder")
        script = [".venv-optimum/bin/python", "bench/optimum_export.py", folder / "hf", folder / "hf-vocoder", out]
        subprocess.run(list(map(str, script)), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return out


def stream(folder: Path, rounds: int) -> list[str]:
    """Time to first audio, cost of chunks, side by side on two cores, and time per step of long utterances."""
    loaded = MODEL.load(Source("random:0", "", seed=0))
    here = folder / "speecht5-0"
    if not here.exists():
        build(here, loaded)
    files = {name: here / "int8" / f"{name}.onnx" for name in GRAPHS}
    *_, case = MODEL.cases(loaded.config, loaded.voices, "timed")
    engine, beside = Engine(files, THREADS), SideBySide(files)
    whole = engine.speak(case.inputs)
    seconds = len(whole) / MODEL.parity.sample_rate_hz
    calls: dict[str, list[Callable[[], object]]] = {
        "whole": [lambda: engine.speak(case.inputs)],
        "first": [lambda: next(engine.stream(case.inputs))],
        "stream": [lambda: list(engine.stream(case.inputs))],
        "beside": [lambda: beside.speak(case.inputs)],
    }
    timings = interleave(calls, [seconds], rounds, lambda: say("speecht5 stream: round"))
    pieces = list(engine.stream(case.inputs))
    gap = _longest_wait(engine, case.inputs)
    return [
        "## SpeechT5 streaming",
        "",
        f"random:0, int8, {seconds:.0f} s of audio, {THREADS} threads, {rounds} interleaved rounds. Side by side: "
        f"decoder on one core, vocoder on the other, in chunks of {SIDE_FRAMES} frames.",
        "",
        *table(
            ["first audio / whole", "all chunks / whole", "chunks against whole, dB", "longest wait in playback, ms",
             "side by side / whole", "its dB"],
            [
                [
                    ratio(timings, "first", "whole", 0),
                    ratio(timings, "stream", "whole", 0),
                    f"{snr_db(np.concatenate(pieces), whole):.0f}",
                    f"{1e3 * gap:.0f}",
                    ratio(timings, "beside", "whole", 0),
                    f"{snr_db(beside.speak(case.inputs), whole):.0f}",
                ]
            ],
        ),
        "",
        "Time per decoder step, by how many came before it (int8, median of 50 steps):",
        "",
        *table(["steps before", *LONG_STEPS], [["ms", *(f"{1e3 * t:.2f}" for t in _step_times(files, case.inputs))]]),
    ]  # fmt: skip


def _longest_wait(engine: Engine, inputs: Mapping[str, np.ndarray]) -> float:
    """Seconds that a listener waits for a chunk once the ones before it have been played; 0 without an underrun."""
    start = played_until = waited = 0.0
    for number, piece in enumerate(engine.stream(inputs)):
        now = time.perf_counter()
        if number == 0:
            start = played_until = now
        waited = max(waited, now - played_until)
        played_until = max(now, played_until) + len(piece) / MODEL.parity.sample_rate_hz
    assert start
    return waited


def _step_times(files: Files, inputs: Mapping[str, np.ndarray]) -> Iterator[float]:
    engine, last = Engine(files, THREADS), max(LONG_STEPS) + 50
    endless = {**inputs, "min_steps": np.array(last), "max_steps": np.array(last)}
    times, before = [], time.perf_counter()
    for _ in engine.steps(endless):
        now = time.perf_counter()
        times.append(now - before)
        before = now
    return (float(np.median(times[n : n + 50])) for n in LONG_STEPS)


class SideBySide:
    """Decoder and vocoder on a thread each, one core a session: what stream() would be, were it faster."""

    def __init__(self, files: Files) -> None:
        self.engine = Engine(files, 1)

    def speak(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        engine, todo, audio = self.engine, Queue[tuple[list[np.ndarray], int, int] | None](), []

        def vocode() -> None:
            while (chunk := todo.get()) is not None:
                audio.append(engine.piece(*chunk))

        vocoding = Thread(target=vocode)
        vocoding.start()
        frames: list[np.ndarray] = []
        made = spoken = 0
        for spectrum, _ in engine.steps(inputs):
            frames.append(spectrum)
            made += len(spectrum)
            if made >= spoken + SIDE_FRAMES + engine.context:
                todo.put((frames, spoken, spoken + SIDE_FRAMES))
                spoken += SIDE_FRAMES
        todo.put((frames, spoken, made))
        todo.put(None)
        vocoding.join()
        return np.concatenate(audio)


SECTIONS = {"speecht5": int8, "speecht5-stream": stream}
