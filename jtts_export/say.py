"""Speak with a release: the shortest way to hear one."""

from __future__ import annotations

import time
from inspect import signature
from pathlib import Path
from typing import Any

from . import artifact
from .errors import BadInput
from .models import MODELS
from .runtime import engines
from .store import writing

SMALLEST_FIRST = ("int8", "int8-fast", "int4", "fp16", "fp32")
COMMANDS = {"synthesize": "say", "speech_tokens": "tokens"}  # by what they ask of a runtime


def opened(release: Path, variant: str | None, method: str, output: Path | None) -> tuple[Any, str, str]:
    """The runtime on a variant of a release, int8 before others; which variant; which model. Checksums are verified.

    Raises BadInput for a model that is unknown here, or has no such method in its runtime; for a variant that the
    release does not have; for an output inside the release.
    """
    manifest, _ = artifact.verify(release)
    if output is not None:
        artifact.outside(output, release)
    if manifest.model not in MODELS:
        raise BadInput(f"{release} is a release of {manifest.model}, which this version does not know")
    runtime = engines.runtime(manifest.model)
    if not hasattr(runtime, method):
        command = next(command for made, command in COMMANDS.items() if hasattr(runtime, made))
        raise BadInput(f"{manifest.model} is for `jtts-export {command} {release} TEXT`")
    chosen = variant or next(v for v in SMALLEST_FIRST if v in manifest.variants)
    if chosen not in manifest.variants:
        raise BadInput(f"{release} has no variant {chosen}; variants: {', '.join(manifest.variants)}")
    return runtime.open(release, chosen), chosen, manifest.model


def say_to_file(release: Path, text: str, output: Path, variant: str | None, **request: Any) -> dict[str, Any]:
    """Synthesize and write 16-bit WAV. `request` is what the runtime's synthesize() takes; None is its default.

    Returns output, variant, voice, what was spoken, audio_s, seconds and rtf. Checksums are verified first.
    """
    import numpy as np
    from scipy.io import wavfile

    speaker, chosen, model = opened(release, variant, "synthesize", output)
    given = {name: value for name, value in request.items() if value is not None}
    if unknown := sorted(set(given) - set(signature(speaker.synthesize).parameters)):
        raise BadInput(f"{model} takes no --{unknown[0]}")
    start = time.perf_counter()
    speech = speaker.synthesize(text, **given)
    seconds = time.perf_counter() - start
    with writing(output):
        pcm = np.round(np.clip(speech.audio, -1, 1) * 32767).astype(np.int16)
        wavfile.write(output, speaker.sample_rate_hz, pcm)
    audio_s = len(speech.audio) / speaker.sample_rate_hz
    return {
        "output": str(output),
        "variant": chosen,
        "voice": given.get("voice") or next(iter(speaker.voices)),
        **{name: value for name, value in vars(speech).items() if name != "audio"},
        "audio_s": audio_s,
        "seconds": seconds,
        "rtf": seconds / audio_s,
    }
