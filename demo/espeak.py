"""espeak-ng through ctypes: a text to audio and to the phonemes in it, with the sample at which each begins."""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# AUDIO_OUTPUT_SYNCHRONOUS; phoneme events, their names in IPA, no exit where something is missing.
_SYNCHRONOUS, _OPTIONS = 2, 0x8003
_PHONEME, _UTF8 = 7, 1
# Two voices of our own. Without flutter (espeak's random wavering of the pitch) and roughness, text decides all.
_STEADY = "flutter 0\nroughness 0\n"
VARIANTS = {
    "demo_m": f"language variant\nname demo_m\ngender male\n{_STEADY}pitch 82 122\n",
    "demo_f": f"language variant\nname demo_f\ngender female\n{_STEADY}pitch 145 225\n"
    + "".join(f"formant {i} {hz} 85 130\n" for i, hz in enumerate((104, 112, 114, 114, 114, 114, 110, 108, 108))),
}


@dataclass(frozen=True)
class Phoneme:
    """One of espeak's phonemes: its IPA with stress marks, empty for a pause, and the samples from where to where."""

    ipa: str
    start: int
    end: int


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """One espeak-ng; it keeps its state in the process, so that a second one would share it."""

    def __init__(self, language: str = "en-us") -> None:
        import espeakng_loader

        self.language = language
        self._folder = tempfile.TemporaryDirectory(prefix="espeak")
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = _with_variants(Path(espeakng_loader.get_data_path()), Path(self._folder.name) / "data")
        self.sample_rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _OPTIONS)
        if self.sample_rate_hz <= 0:
            raise RuntimeError("espeak-ng could not be initialized")
        self._audio: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _CALLBACK(self._received)
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: str) -> tuple[np.ndarray, list[Phoneme]]:
        """float32 [samples] at `sample_rate_hz`, and its phonemes. voice: a name in VARIANTS."""
        if self._library.espeak_SetVoiceByName(f"{self.language}+{voice}".encode()):
            raise RuntimeError(f"espeak-ng has no voice {self.language}+{voice}")
        self._audio.clear()
        self._events.clear()
        spoken = text.encode()
        self._library.espeak_Synth(spoken, len(spoken) + 1, 0, 1, 0, _UTF8, None, None)
        audio = np.concatenate(self._audio).astype(np.float32) / 32768
        ends = [start for start, _ in self._events[1:]] + [len(audio)]
        phonemes = [Phoneme(ipa, start, end) for (start, ipa), end in zip(self._events, ends, strict=True)]
        return audio, phonemes

    def _received(self, samples: object, count: int, events: object) -> int:
        if samples and count > 0:
            self._audio.append(np.ctypeslib.as_array(samples, (count,)).copy())  # type: ignore[call-overload]
        i = 0
        while (event := events[i]).type:  # type: ignore[index]
            if event.type == _PHONEME:
                name = bytes(ctypes.string_at(ctypes.addressof(event.id), 8)).split(b"\0")[0]
                self._events.append((event.sample, name.decode("utf-8", "replace")))
            i += 1
        return 0


def _with_variants(data: Path, folder: Path) -> Path:
    """espeak's data by links, and VARIANTS among its voices."""
    voices = folder / "voices" / "!v"
    voices.mkdir(parents=True)
    for source, target in ((data, folder), (data / "voices", voices.parent), (data / "voices" / "!v", voices)):
        for path in source.iterdir():
            if not (target / path.name).exists():
                (target / path.name).symlink_to(path)
    for name, text in VARIANTS.items():
        (voices / name).write_text(text, encoding="utf-8")
    return folder
