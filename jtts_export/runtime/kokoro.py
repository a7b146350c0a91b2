"""Kokoro from a release: text to audio with numpy and onnxruntime.

tts = Kokoro.open(Path("release/kokoro"), "int8")
audio = tts.synthesize("Hello there.", voice="af_heart")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jtts_export.errors import BadInput, OutsideError

from . import frontend
from .names import released
from .session import session

GRAPH = "onnx/model"
GRAPHS = (GRAPH,)
SAMPLE_RATE_HZ = 24_000
BOUNDARY_TOKEN = 0
SPEEDS = (0.1, 10.0)  # beyond, a few words take gigabytes, or every sound is cut to one frame


@dataclass(frozen=True)
class Speech:
    """Audio, float32 [samples] at SAMPLE_RATE_HZ, and the phonemes that it speaks."""

    audio: np.ndarray
    phonemes: str


class Engine:
    """The graph alone: inputs as it declares them, audio out."""

    def __init__(self, files: Mapping[str, Path], threads: int = 0) -> None:
        self._session = session(files[GRAPH], threads)

    def speak(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """float32 [samples]."""
        (waveform,) = self._session.run(["waveform"], dict(inputs))
        return waveform[0]

    def stream(self, inputs: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
        """The same: one pass is one piece."""
        yield self.speak(inputs)


class Kokoro:
    """One graph, its vocabulary and its voices. Loading takes a second; keep and reuse the object."""

    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(
        self, files: Mapping[str, Path], vocab: Mapping[str, int], voices: Mapping[str, np.ndarray], threads: int = 0
    ) -> None:
        """voices: name -> float32 [rows, 1, style]; row i styles an utterance of i + 1 tokens."""
        self.vocab, self.voices = vocab, voices
        self.max_tokens = min(len(v) for v in voices.values())
        self._files, self._threads = files, threads
        self._engine = Engine(files, threads)

    @classmethod
    def open(cls, release: Path, variant: str = "int8", threads: int = 0) -> Kokoro:
        """A variant of a release folder. Raises OutsideError where it has none."""
        files = released(release, GRAPHS, variant)
        config, voices = read_assets(release)
        return cls(files, config["vocab"], voices, threads)

    def synthesize(
        self,
        text: str = "",
        *,
        phonemes: str = "",
        voice: str = "",
        speed: float = 1.0,
        language: str = "en-us",
    ) -> Speech:
        """Speak a text, or phonemes, whole. A text of any length: more than a pass's tokens is split at
        sentence ends, and the pieces joined.

        voice: a voice's name, the first one by default; speed: 1 is the voice's own, 2 twice as fast.
        Raises BadInput for a request that cannot be served.
        """
        spoken = self._phonemes(text, phonemes, language)
        pieces = frontend.split_phonemes(spoken, self.max_tokens)
        parts = [self._speak(piece, voice, speed, strict=bool(phonemes)) for piece in pieces]
        return Speech(np.concatenate(parts), spoken)

    def stream(
        self,
        text: str = "",
        *,
        phonemes: str = "",
        voice: str = "",
        speed: float = 1.0,
        language: str = "en-us",
    ) -> Iterator[Speech]:
        """Speak sentence by sentence; the first piece is short, so that audio starts soon.

        Arguments and errors as synthesize(); errors in the request are raised before the first piece.
        """
        spoken = self._phonemes(text, phonemes, language)
        pieces = frontend.split_sentences(spoken, self.max_tokens)
        for piece in pieces:
            frontend.encode(piece, self.vocab, strict=bool(phonemes))
        self.style(voice, 1)
        check_speed(speed)
        return (Speech(self._speak(p, voice, speed, strict=bool(phonemes)), p) for p in pieces)

    def taps(
        self, wanted: Sequence[str], *, phonemes: str, voice: str = "", speed: float = 1.0
    ) -> dict[str, np.ndarray]:
        """Named tensors inside the synthesis of one pass: frames, duration, f0, n, har, waveform.

        Shapes as the reference's. Loads the graph anew; needs the onnx package.
        """
        from .taps import OnnxRunner

        return OnnxRunner(GRAPH, self._files[GRAPH], self._threads).taps(self.feeds(phonemes, voice, speed), wanted)

    def style(self, voice: str, tokens: int) -> np.ndarray:
        """A voice's style for a number of tokens, float32 [1, style]."""
        name = voice or next(iter(self.voices))
        if name not in self.voices:
            raise BadInput(f"unknown voice '{name}'; voices: {', '.join(sorted(self.voices))}")
        rows = self.voices[name]
        return rows[min(tokens, len(rows)) - 1]

    def feeds(self, phonemes: str, voice: str, speed: float, strict: bool = True) -> dict[str, np.ndarray]:
        """The graph's inputs for one pass of at most `max_tokens` phonemes."""
        check_speed(speed)
        tokens = frontend.encode(phonemes, self.vocab, strict)
        return {
            "input_ids": np.array([[BOUNDARY_TOKEN, *tokens, BOUNDARY_TOKEN]], np.int64),
            "style": self.style(voice, len(tokens)),
            "speed": np.array([speed], np.float32),
        }

    def _phonemes(self, text: str, phonemes: str, language: str) -> str:
        if text and phonemes:
            raise BadInput("give a text or phonemes, not both")
        if phonemes:
            if not phonemes.strip():
                raise BadInput("the phonemes are empty")
            frontend.encode(phonemes, self.vocab)
            return phonemes
        return frontend.phonemize(text, language)

    def _speak(self, phonemes: str, voice: str, speed: float, strict: bool) -> np.ndarray:
        return self._engine.speak(self.feeds(phonemes, voice, speed, strict))


Runtime = Kokoro


def read_assets(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """config.json, and voices/*.bin as float32 [rows, 1, style]. Raises OutsideError where they are not there."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        width = 2 * int(config["style_dim"])
        voices = {
            path.stem: np.fromfile(path, dtype="<f4").reshape(-1, 1, width)
            for path in sorted((folder / "voices").glob("*.bin"))
        }
    except (OSError, ValueError, KeyError) as error:
        raise OutsideError(f"{folder} is not a Kokoro release: {error}") from error
    if not voices:
        raise OutsideError(f"{folder} has no voices")
    return config, voices


def check_speed(speed: float) -> None:
    """Raises BadInput unless `speed` lies within SPEEDS."""
    slowest, fastest = SPEEDS
    if not slowest <= speed <= fastest:
        raise BadInput(f"speed must be a number from {slowest:g} to {fastest:g}, not {speed:g}")
