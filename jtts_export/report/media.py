"""Audio as a page can hold it: MP3, a log-mel picture, an outline. Numbers in, data: URIs out."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from jtts_export.validate.audio import MELS, log_mel, mel_filters

BITRATE_KBPS = 32  # speech at 24 kHz without anything that is heard beside the variants' differences
_FRAMES = 480  # columns of a picture at most, of a phone's width in its pixels
OUTLINE = 180  # columns of a waveform
_DB = 20 / np.log(10)  # a neper of amplitude
RANGE_DB, DIFFERENCE_DB = 80.0, 20.0
_TICKS_KHZ = (0.5, 1, 2, 4, 8, 16)
_KBPS = {1: (32, 320), 2: (8, 160), 3: (8, 64)}  # MPEG-1, -2, -2.5: least and most kbit/s of layer III

# Levels from dark to light: magma (N. Smith, S. van der Walt, CC0) at eighths; and blue to orange through
# near black, so that nothing looks like nothing.
_MAGMA = ("000004", "1d1147", "51127c", "832681", "b73779", "e75263", "fc8961", "fec488", "fcfdbf")
_DIVERGING = ("9fd3ff", "3b8fd6", "1b4a7a", "14161a", "85430f", "e08330", "ffd5a0")


@dataclass(frozen=True)
class Clip:
    """Mono audio, float [samples]."""

    audio: np.ndarray
    sample_rate_hz: int

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.sample_rate_hz

    @cached_property
    def level_db(self) -> np.ndarray:
        """Log-mel amplitude, [MELS, frames]: what the log-mel metrics compare."""
        return _DB * log_mel(self.audio, self.sample_rate_hz)

    def sound(self) -> str:
        """data: URI of the audio, MP3 at BITRATE_KBPS; Ogg Vorbis where MP3 has no such rate."""
        return _encoded(self.audio, self.sample_rate_hz)

    def picture(self, top_db: float) -> str:
        """data: URI of the log-mel, from RANGE_DB below top_db to it, low frequencies at the bottom."""
        return _webp(_narrow(self.level_db), top_db - RANGE_DB, top_db, _MAGMA)

    def difference(self, reference: Clip) -> str:
        """data: URI of this log-mel less the reference's over the frames that both have, within +-DIFFERENCE_DB."""
        frames = min(self.level_db.shape[1], reference.level_db.shape[1])
        # What is inaudible in both would fill the picture with the difference of two noise floors.
        floor = reference.level_db.max() - RANGE_DB
        ours, theirs = (np.maximum(level[:, :frames], floor) for level in (self.level_db, reference.level_db))
        return _webp(_narrow(ours - theirs), -DIFFERENCE_DB, DIFFERENCE_DB, _DIVERGING)

    def outline(self, peak: float) -> str:
        """SVG path of the waveform, OUTLINE wide and 40 high, full scale at `peak`."""
        edges = np.linspace(0, len(self.audio), OUTLINE + 1).astype(int)
        bars = [self.audio[a : max(b, a + 1)] for a, b in pairwise(edges)]
        ends = [(20 - 19 * float(b.max()) / peak, 20 - 19 * float(b.min()) / peak) for b in bars if len(b)]
        return "".join(f"M{x} {top:.1f}V{max(low, top + 0.4):.1f}" for x, (top, low) in enumerate(ends))


def read(path: Path) -> Clip | None:
    """A sound file's first channel; None where it is missing, empty, or none."""
    import soundfile

    try:
        audio, sample_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError):
        return None
    return Clip(np.nan_to_num(audio[:, 0]), sample_rate_hz) if len(audio) else None


def ticks(sample_rate_hz: int) -> list[tuple[str, float]]:
    """kHz as text, and how far up the picture it lies, 0 to 1."""
    centres = mel_filters(sample_rate_hz).argmax(1) * sample_rate_hz / 1024 / 1e3
    shown = [t for t in _TICKS_KHZ if t < 0.9 * sample_rate_hz / 2e3]
    return [(f"{t:g}", float(np.interp(t, centres, np.arange(MELS)) / MELS)) for t in shown]


def _encoded(audio: np.ndarray, sample_rate_hz: int) -> str:
    import soundfile

    least, most = _KBPS[1 if sample_rate_hz >= 32000 else 2 if sample_rate_hz >= 16000 else 3]
    # libsndfile turns a level from 0 to 1 into a rate from the most down to the least of its kind.
    level = (most - min(BITRATE_KBPS, most)) / (most - least)
    packed = io.BytesIO()
    try:
        soundfile.write(
            packed,
            audio,
            sample_rate_hz,
            format="MP3",
            subtype="MPEG_LAYER_III",
            bitrate_mode="CONSTANT",  # a browser finds a time in it without reading all of it
            compression_level=min(level, 0.999),
        )
        kind = "audio/mpeg"
    except soundfile.LibsndfileError:
        packed = io.BytesIO()
        soundfile.write(packed, audio, sample_rate_hz, format="OGG", subtype="VORBIS", compression_level=0.9)
        kind = "audio/ogg"
    return _uri(kind, packed.getvalue())


def _narrow(values: np.ndarray) -> np.ndarray:
    """[MELS, frames] -> at most _FRAMES columns, means of neighbours."""
    step = -(-values.shape[1] // _FRAMES)
    if step == 1:
        return values
    starts = np.arange(0, values.shape[1], step)
    return np.add.reduceat(values, starts, axis=1) / np.diff([*starts, values.shape[1]])


def _webp(values: np.ndarray, low: float, high: float, colours: tuple[str, ...]) -> str:
    from PIL import Image

    steps = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in colours], float)
    place = np.clip((values - low) / (high - low), 0, 1) * (len(colours) - 1)
    pixels = np.stack([np.interp(place, np.arange(len(colours)), steps[:, i]) for i in range(3)], -1)
    packed = io.BytesIO()
    Image.fromarray(pixels[::-1].round().astype(np.uint8)).save(packed, "WEBP", quality=60, method=6)
    return _uri("image/webp", packed.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
