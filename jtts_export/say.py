"""Speak with a release: the shortest way to hear one."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

from . import artifact
from .errors import BadInput
from .models import MODELS
from .store import writing

SMALLEST_FIRST = ("int8", "fp16", "fp32")


def say_to_file(release: Path, text: str, output: Path, variant: str | None, **request: Any) -> dict[str, Any]:
    """Synthesize and write 16-bit WAV. `request` is what the runtime's synthesize() takes.

    Returns output, variant, voice, phonemes, audio_s, seconds and rtf. Checksums are verified first.
    """
    import numpy as np
    from scipy.io import wavfile

    manifest, _ = artifact.verify(release)
    if manifest.model not in MODELS:
        raise BadInput(f"{release} is a release of {manifest.model}, which this version does not know")
    chosen = variant or next(v for v in SMALLEST_FIRST if v in manifest.variants)
    runtime = import_module(f"jtts_export.runtime.{manifest.model}")
    speaker = runtime.Kokoro.open(release, chosen)
    start = time.perf_counter()
    speech = speaker.synthesize(text, **request)
    seconds = time.perf_counter() - start
    with writing(output):
        pcm = np.round(np.clip(speech.audio, -1, 1) * 32767).astype(np.int16)
        wavfile.write(output, runtime.SAMPLE_RATE_HZ, pcm)
    audio_s = len(speech.audio) / runtime.SAMPLE_RATE_HZ
    return {
        "output": str(output),
        "variant": chosen,
        "voice": request.get("voice") or next(iter(speaker.voices)),
        "phonemes": speech.phonemes,
        "audio_s": audio_s,
        "seconds": seconds,
        "rtf": seconds / audio_s,
    }
