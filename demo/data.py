"""Speech of espeak-ng with the model's tokens, how many frames each lasts, F0 and energy: what the voice learns from.

    python -m demo.data OUT.npz

Durations are exact: espeak says at which sample each phoneme begins. An utterance whose phonemes are not those that
the runtime's frontend gives for the same text is left out.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.models.kokoro.random import official_config
from jtts_export.runtime.frontend import phonemize
from jtts_export.validate.audio.spectral import mel_filters

from .espeak import VARIANTS, Espeak, Phoneme
from .sentences import HELD_OUT, TRAIN, read

FRAME, F0_HOP = 600, 300  # samples
EDGE_FRAMES = 2  # of silence at either end, which the boundary tokens last
VOICES = tuple(VARIANTS)
PASSAGES, MOST_TOKENS = 160, 510
N_FLOOR = 1e-4  # of the mel spectrum's norm
PITCH_HZ = {"demo_m": (50.0, 260.0), "demo_f": (90.0, 480.0)}
SEED = 7
_STRESSES, _SPACE = "ˈˌ", " "
_MARKS = ';:,.!?—…"()“”'
# Kokoro's alphabet, as jtts_export/runtime/frontend.py maps espeak's words; here a phoneme at a time.
_WHOLE = {"tʃ": "ʧ", "dʒ": "ʤ", "eɪ": "A", "aɪ": "I", "oʊ": "O", "aʊ": "W", "ɔɪ": "Y", "ɜː": "ɜɹ", "əl": "ᵊl"}
_WHOLE |= {"ɚ": "əɹ", "r": "ɹ", "x": "k", "ɐ": "ə", "ɾ": "T", "ʔ": "t", "e": "A", "o": "ɔ", "iə": "iə", "aɪə": "Iə"}
_WHOLE |= {"aɪɚ": "Iəɹ", "n̩": "ᵊn", "ɬ": "l", "ç": "k"}
_WEAK, _WEAKER = 0.3, 0.1  # how firmly a boundary holds that is no phoneme's own onset


@dataclass(frozen=True)
class Utterance:
    """ids, durations: int [tokens], boundary tokens included; audio: float32 [FRAME * frames]; f0 (Hz), energy
    n: float32 [2 * frames]."""

    text: str
    voice: int
    ids: np.ndarray
    durations: np.ndarray
    audio: np.ndarray
    f0: np.ndarray
    n: np.ndarray


def symbols(phonemes: list[Phoneme]) -> list[str]:
    """Each of espeak's phonemes in Kokoro's alphabet, without stress; empty for a pause."""
    made: list[str] = []
    for phoneme in phonemes:
        ipa = phoneme.ipa.strip(_STRESSES).replace("\u0303", "")
        if ipa == "n̩" and made and made[-1] == "t":
            made.append("n")
        elif ipa in _WHOLE:
            made.append(_WHOLE[ipa])
        elif ipa.removesuffix("ɹ") in _WHOLE and ipa != "ɜːɹ":
            made.append(_WHOLE[ipa.removesuffix("ɹ")] + "ɹ")
        else:
            made.append("".join(_WHOLE.get(c, c) for c in ipa.replace("ɜːɹ", "ɜɹ").replace("ː", "")))
    return made


def durations(tokens: str, phonemes: list[Phoneme], sample_rate_hz: int) -> np.ndarray | None:
    """Frames of each of `tokens` and of the boundary tokens around them, at least 1 each; None where what espeak said
    is not what the tokens say."""
    said = symbols(phonemes)
    heard = "".join(c for c in tokens if c not in _STRESSES + _MARKS + _SPACE)
    if heard != "".join(said):
        return None
    rate = SAMPLE_RATE_HZ / FRAME / sample_rate_hz
    onsets: list[float] = []  # of each sounding token, in frames
    ends: list[float] = []
    for phoneme, made in zip(phonemes, said, strict=True):
        for i in range(len(made)):
            length = (phoneme.end - phoneme.start) / len(made)
            onsets.append((phoneme.start + i * length) * rate + EDGE_FRAMES)
            ends.append((phoneme.start + (i + 1) * length) * rate + EDGE_FRAMES)
    wanted, weights = [0.0], [1e6]
    sound = 0
    for i, token in enumerate(tokens):
        following = onsets[sound] if sound < len(onsets) else ends[-1]
        if token in _STRESSES:
            wanted.append(following)
            weights.append(_WEAK)
        elif token == _SPACE:
            wanted.append(following - 1)
            weights.append(_WEAKER)
        elif token in _MARKS:
            wanted.append(ends[sound - 1] if sound else EDGE_FRAMES)
            weights.append(_WEAK)
        else:
            shared = i > 0 and tokens[i - 1] in _STRESSES
            wanted.append(following + shared)
            weights.append(_WEAK if shared else 1.0)
            sound += 1
    last = phonemes[-1].end * rate + EDGE_FRAMES
    wanted += [last, last + EDGE_FRAMES]
    weights += [1.0, 1.0]
    starts = _apart(np.array(wanted), np.array(weights))
    return np.diff(starts)


def _apart(wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The whole numbers, each at least 1 above the one before, that lie nearest to `wanted` (isotonic regression)."""
    blocks: list[tuple[float, float, int]] = []
    for i, (value, weight) in enumerate(zip(wanted, weights, strict=True)):
        mean, mass, size = value - i, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, other_mass, other_size = blocks.pop()
            mean = (mean * mass + other * other_mass) / (mass + other_mass)
            mass, size = mass + other_mass, size + other_size
        blocks.append((mean, mass, size))
    flat = np.concatenate([np.full(size, round(mean)) for mean, _, size in blocks])
    return flat.astype(int) + np.arange(len(wanted))


def utterance(espeak: Espeak, text: str, voice: int, vocab: dict[str, int]) -> Utterance | None:
    """None where espeak's phonemes are not the frontend's."""
    from scipy.signal import resample_poly

    audio, phonemes = espeak.speak(text, VOICES[voice])
    tokens = phonemize(text)
    while phonemes and not phonemes[0].ipa:
        phonemes = phonemes[1:]
    start = phonemes[0].start
    phonemes = [Phoneme(p.ipa, p.start - start, p.end - start) for p in phonemes]
    frames = durations(tokens, phonemes, espeak.sample_rate_hz)
    if frames is None or len(tokens) > MOST_TOKENS:
        return None
    common = np.gcd(SAMPLE_RATE_HZ, espeak.sample_rate_hz)
    up, down = SAMPLE_RATE_HZ // common, espeak.sample_rate_hz // common
    spoken = resample_poly(audio[start:], up, down, window=("kaiser", 8.0)).astype(np.float32)
    whole = np.zeros(int(frames.sum()) * FRAME, np.float32)
    begin = EDGE_FRAMES * FRAME
    count = min(len(spoken), len(whole) - begin)
    whole[begin : begin + count] = spoken[:count]
    ids = np.array([0, *(vocab[c] for c in tokens), 0])
    return Utterance(text, voice, ids, frames, whole, pitch(whole, *PITCH_HZ[VOICES[voice]]), energy(whole))


def pitch(audio: np.ndarray, floor_hz: float, ceiling_hz: float) -> np.ndarray:
    """F0 in Hz in the middle of every F0_HOP samples, 0 where unvoiced (Boersma 1993)."""
    import parselmouth

    step = F0_HOP / SAMPLE_RATE_HZ
    margin = int(4 / floor_hz * SAMPLE_RATE_HZ)
    sound = parselmouth.Sound(np.pad(audio.astype(np.float64), margin), SAMPLE_RATE_HZ)
    found = sound.to_pitch_ac(time_step=step, pitch_floor=floor_hz, pitch_ceiling=ceiling_hz)
    values = np.asarray(found.selected_array["frequency"])
    at = (np.arange(len(audio) // F0_HOP) + 0.5) * step + margin / SAMPLE_RATE_HZ
    place = np.clip((at - found.x1) / found.dx, 0, len(values) - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, len(values) - 1)
    part = place - low
    mixed = values[low] * (1 - part) + values[high] * part
    nearest = np.where(part < 0.5, values[low], values[high])
    return np.where((values[low] > 0) & (values[high] > 0), mixed, nearest).astype(np.float32)


def energy(audio: np.ndarray) -> np.ndarray:
    """Log of the norm of the mel amplitude spectrum in the middle of every F0_HOP samples."""
    size = 1024
    padded = np.pad(audio, ((size - F0_HOP) // 2, size))
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::F0_HOP][: len(audio) // F0_HOP]
    magnitude = np.abs(np.fft.rfft(windows * np.hanning(size + 1)[:-1]))
    mel = magnitude @ mel_filters(SAMPLE_RATE_HZ, size).T
    return np.log(np.maximum(np.linalg.norm(mel, axis=1), N_FLOOR)).astype(np.float32)


def texts() -> list[str]:
    """Every sentence of train.txt, and PASSAGES of several, up to the longest that the model takes."""
    draw = random.Random(SEED)
    sentences = read(TRAIN)
    draw.shuffle(sentences)
    passages = []
    for i in range(PASSAGES):
        most = MOST_TOKENS * (i + 1) // PASSAGES
        passage = draw.choice(sentences)
        while len(longer := f"{passage} {draw.choice(sentences)}") < 0.95 * most:
            passage = longer
        passages.append(passage)
    return sentences + passages


def utterances(spoken: list[str], voices: list[int]) -> Iterator[Utterance | None]:
    espeak = Espeak()
    vocab = official_config()["vocab"]
    for text, voice in zip(spoken, voices, strict=True):
        yield utterance(espeak, text, voice, vocab)


def save(path: Path, made: list[Utterance]) -> None:
    """Arrays one behind another, and where each ends."""
    arrays = {
        "audio": np.concatenate([np.round(np.clip(u.audio, -1, 1) * 32767).astype(np.int16) for u in made]),
        "f0": np.concatenate([u.f0 for u in made]),
        "n": np.concatenate([u.n for u in made]),
        "ids": np.concatenate([u.ids for u in made]).astype(np.int16),
        "durations": np.concatenate([u.durations for u in made]).astype(np.int16),
        "tokens": np.array([len(u.ids) for u in made]),
        "frames": np.array([u.durations.sum() for u in made]),
        "voice": np.array([u.voice for u in made]),
        "texts": np.array(json.dumps([u.text for u in made])),
    }
    np.savez(path, **arrays)


def load(path: Path) -> list[Utterance]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    texts = json.loads(str(arrays["texts"]))
    tokens, frames = np.cumsum(arrays["tokens"]), np.cumsum(arrays["frames"])
    made = []
    for i, text in enumerate(texts):
        t = slice(tokens[i] - arrays["tokens"][i], tokens[i])
        first, last = frames[i] - arrays["frames"][i], frames[i]
        curve, wave = slice(2 * first, 2 * last), slice(FRAME * first, FRAME * last)
        audio = arrays["audio"][wave].astype(np.float32) / 32767
        ids, lasting = arrays["ids"][t].astype(np.int64), arrays["durations"][t].astype(np.int64)
        voice, f0, n = int(arrays["voice"][i]), arrays["f0"][curve], arrays["n"][curve]
        made.append(Utterance(text, voice, ids, lasting, audio, f0, n))
    return made


def main() -> None:
    """OUT.npz with what to train on, and beside it held_out.npz: each of those sentences in both voices."""
    out = Path(sys.argv[1])
    out.parent.mkdir(parents=True, exist_ok=True)
    spoken, unseen = texts(), read(HELD_OUT)
    sets = {
        out.with_name("held_out.npz"): (unseen * 2, [0] * len(unseen) + [1] * len(unseen)),
        out: (spoken, [i % len(VOICES) for i in range(len(spoken))]),
    }
    for path, (lines, voices) in sets.items():
        made = [u for u in utterances(lines, voices) if u is not None]
        save(path, made)
        minutes = sum(len(u.audio) for u in made) / SAMPLE_RATE_HZ / 60
        print(f"{path}: {len(made)} of {len(lines)} utterances, {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
