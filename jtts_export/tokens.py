"""Speech tokens from a release of a model that makes those: the shortest way to try one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import BadInput
from .say import opened
from .store import writing


def make_tokens(
    release: Path, text: str, output: Path | None, variant: str | None, tell: Callable[[int], None], **request: Any
) -> dict[str, Any]:
    """Speech tokens of a text, each told as it is made, and written as int64 .npy where there is an output.

    `request` is what the runtime's stream() takes; None is its default. Returns tokens, variant, voice, speech_s,
    first_ms (to the first token), seconds and rtf. Checksums are verified first.
    """
    import numpy as np

    if output is not None and output.suffix != ".npy":
        raise BadInput(f"{output}: tokens are written as .npy")
    speaker, chosen, _ = opened(release, variant, "speech_tokens", output)
    given = {name: value for name, value in request.items() if value is not None}
    start = time.perf_counter()
    tokens, first = [], 0.0
    for token in speaker.stream(text, **given):
        first = first or time.perf_counter() - start
        tokens.append(token)
        tell(token)
    seconds, speech_s = time.perf_counter() - start, len(tokens) / speaker.tokens_per_second
    if output is not None:
        with writing(output):
            np.save(output, np.array(tokens, np.int64))
    return {
        "tokens": tokens,
        "variant": chosen,
        "voice": given.get("voice") or next(iter(speaker.voices)),
        "speech_s": speech_s,
        "first_ms": 1e3 * first,
        "seconds": seconds,
        "rtf": seconds / speech_s if tokens else None,
    }
