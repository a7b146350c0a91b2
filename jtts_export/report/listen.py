"""What can be heard and seen of a release: a case for each sentence, with every contender's clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from .facts import text

if TYPE_CHECKING:
    from markupsafe import Markup

    from .media import Clip

REFERENCE = "reference"


@dataclass(frozen=True)
class Sound:
    """A contender of a case: where its file is, None where there is none."""

    name: str
    style: int
    path: Path | None


@dataclass(frozen=True)
class Case:
    """A sentence, its reference first among the sounds."""

    name: str
    said: str
    sounds: Sequence[Sound]


@dataclass(frozen=True)
class Track:
    """A sound as the page shows it. difference: to the case's first; None for that one itself."""

    name: str
    style: int
    seconds: str
    sound: str
    spectrogram: Markup
    waveform: Markup
    difference: Markup | None


@dataclass(frozen=True)
class Drawn:
    """A case as the page shows it."""

    name: str
    said: str
    tracks: Sequence[Track]


def cases(validation: Mapping[str, Any], samples: Path | None, styles: Mapping[str, int]) -> list[Case]:
    """Every sample of a release with the reference's file and at least one variant's."""
    found = []
    for row in validation.get("samples") or [] if samples else []:
        sounds = [
            Sound(text(name, 40), style, file_of(samples, row, name))
            for name, style in {REFERENCE: 0, **styles}.items()
        ]
        there = [s for s in sounds if s.path]
        if len(there) > 1 and there[0].name == REFERENCE:
            found.append(Case(text(row.get("case", ""), 60), text(row.get("text") or "", 400), there))
    return found


def file_of(samples: Path | None, row: Mapping[str, Any], name: str) -> Path | None:
    """A sample's file, which must lie in the samples' folder."""
    given = (row.get("files") or {}).get(name)
    if samples is None or not isinstance(given, str) or "\0" in given:
        return None
    path = samples.parent / PurePosixPath(given)
    inside = path.resolve().is_relative_to(samples.resolve())
    return path if inside and path.is_file() else None


def draw(case: Case) -> Drawn | None:
    """Encode and plot a case; None where fewer than two of its files can be read."""
    from .media import read

    clips = [(sound, clip) for sound in case.sounds if sound.path and (clip := read(sound.path))]
    if len(clips) < 2:
        return None
    first = clips[0][1]
    top_db = float(first.level_db.max())
    peak = max(1e-4, *(float(abs(clip.audio).max()) for _, clip in clips))
    tracks = [_track(case.name, sound, clip, first, top_db, peak) for sound, clip in clips]
    return Drawn(case.name, case.said, tracks)


def _track(case: str, sound: Sound, clip: Clip, first: Clip, top_db: float, peak: float) -> Track:
    from .media import OUTLINE, ticks
    from .plots import outline, spectrogram

    up, of = ticks(clip.sample_rate_hz), f"of {sound.name}, case {case}"
    difference = None
    if clip is not first and clip.sample_rate_hz == first.sample_rate_hz:
        shared = min(clip.seconds, first.seconds)
        difference = spectrogram(clip.difference(first), shared, up, f"log-mel {of}, less the reference's")
    return Track(
        name=sound.name,
        style=sound.style,
        seconds=f"{clip.seconds:.2f} s",
        sound=clip.sound(),
        spectrogram=spectrogram(clip.picture(top_db), clip.seconds, up, f"log-mel {of}"),
        waveform=outline(clip.outline(peak), OUTLINE, f"waveform {of}"),
        difference=difference,
    )
