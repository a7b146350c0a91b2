"""What comparing speech costs: every metric of audio, beside the length of what is compared."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import soundfile

from bench.common import ROOT, table
from jtts_export.validate.audio import compare, compare_free

SAMPLES = ROOT / "docs/demo-voice"
LENGTHS_S = 5, 10, 20


def section(_folder: Path, rounds: int) -> list[str]:
    """Of docs/benchmarks.md: by turns, so that no length has the quiet moments to itself."""
    reference, rate_hz = _speech("fp32")
    measured, _ = _speech("int8")
    compared = {"spoken with the reference's timing": compare, "spoken freely": compare_free}
    pairs = {s: [np.resize(audio, s * rate_hz) for audio in (measured, reference)] for s in LENGTHS_S}
    spent: dict[tuple[str, int], list[float]] = defaultdict(list)
    for how in compared:
        compared[how](*pairs[LENGTHS_S[0]], rate_hz)  # imports
    for _ in range(rounds):
        for (how, function), (seconds, pair) in product(compared.items(), pairs.items()):
            start = time.process_time()
            function(*pair, rate_hz)
            spent[how, seconds].append(time.process_time() - start)
    rows = [[how, *(f"{statistics.median(spent[how, seconds]):.2f}" for seconds in LENGTHS_S)] for how in compared]
    return [
        "## Comparing speech",
        "",
        "Processor seconds for every metric of audio of one utterance, int8's against fp32's: sentences of the "
        "demo voice, one after the other until they are as long.",
        "",
        *table(["utterance", *(f"{seconds} s" for seconds in LENGTHS_S)], rows),
    ]


def _speech(variant: str) -> tuple[np.ndarray, int]:
    """Both voices, one after the other: [samples], and samples a second."""
    read = [soundfile.read(SAMPLES / f"{voice}-{variant}.ogg", dtype="float32") for voice in ("af_demo", "am_demo")]
    return np.concatenate([audio for audio, _ in read]), read[0][1]
