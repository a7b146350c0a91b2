"""What the demo voice says: any text, in both voices, at any ordinary speed."""

from __future__ import annotations

import numpy as np
import pytest

from demo.data import FRAME
from demo.sentences import HELD_OUT, read
from jtts_export.runtime.frontend import phonemize
from jtts_export.runtime.kokoro import SAMPLE_RATE_HZ, Kokoro
from jtts_export.validate.audio.levels import frame_rms

VOICES = ("af_demo", "am_demo")
SPEEDS = (0.7, 1.0, 1.5)
UNSEEN = "Quick zebras jumped over 17 lazy foxes, didn't they?"
TEXTS = (
    UNSEEN,
    "Hi!",
    "No. 7: pay $12.50 by 3:45 p.m., or else…",
    "“Well,” she said; “that's it — (almost) done!”",
    "It was 1969, 2,048 days later, at -3.5 degrees.",
)
FRAMES_A_TOKEN = (1.5, 5.0)  # espeak-ng's at speed 1, of sentences and single words alike: 2.2 to 4
LONGEST_SOUND, LONGEST_PAUSE = 20, 40  # frames at speed 1; in the training data 14 and 20
CLICK = 30  # espeak-ng's own audio reaches 18
MARKS = ';:,.!?—…"()“” '


def _durations(voice: Kokoro, phonemes: str, name: str, speed: float) -> np.ndarray:
    return voice.taps(["duration"], phonemes=phonemes, voice=name, speed=speed)["duration"][0]


def _click(audio: np.ndarray) -> float:
    """How far a bend of the waveform stands out of the others within 2 ms, at most: a click is one sample's or two, a
    plosive's burst goes on."""
    bends, peak = np.abs(np.diff(audio, 2)), float(np.abs(audio).max())
    near, own = (np.convolve(bends**2, np.ones(size), "same") for size in (97, 7))
    others = np.sqrt(np.maximum(near - own, 0) / 90)
    audible = bends > 0.05 * peak
    return float((bends / (others + 1e-3 * peak))[audible].max(initial=0))


def _assert_clean(audio: np.ndarray) -> None:
    """Finite, of a speaking level, not clipped, without a click, and silent at either end."""
    assert np.isfinite(audio).all()
    peak = float(np.abs(audio).max())
    assert 0.1 < peak < 1.0
    edge = SAMPLE_RATE_HZ // 50
    assert max(np.abs(audio[:edge]).max(), np.abs(audio[-edge:]).max()) < 0.03 * peak
    assert _click(audio) < CLICK


@pytest.mark.parametrize("name", VOICES)
@pytest.mark.parametrize("text", TEXTS)
def test_says_numbers_and_marks(voice: Kokoro, name: str, text: str) -> None:
    speech = voice.synthesize(text, voice=name)
    _assert_clean(speech.audio)
    low, high = FRAMES_A_TOKEN
    assert low < len(speech.audio) / FRAME / (len(speech.phonemes) + 2) < high


@pytest.mark.parametrize("name", VOICES)
@pytest.mark.parametrize("speed", SPEEDS)
def test_no_sound_lasts_too_long(voice: Kokoro, name: str, speed: float) -> None:
    phonemes = phonemize(UNSEEN)
    lasting = _durations(voice, phonemes, name, speed)[1:-1]
    for phoneme, frames in zip(phonemes, lasting, strict=True):
        most = LONGEST_PAUSE if phoneme in MARKS else LONGEST_SOUND
        assert 1 <= frames <= most / speed, phoneme


@pytest.mark.parametrize("name", VOICES)
def test_speed_scales_the_length(voice: Kokoro, name: str) -> None:
    slow, ordinary, fast = (len(voice.synthesize(UNSEEN, voice=name, speed=s).audio) for s in SPEEDS)
    assert ordinary / slow == pytest.approx(0.7, abs=0.05)
    assert ordinary / fast == pytest.approx(1.5, abs=0.25)  # no token lasts less than a frame


@pytest.mark.parametrize("tokens", [1, 40, 200, 510])
def test_any_number_of_tokens(voice: Kokoro, tokens: int) -> None:
    text = phonemize(" ".join(read(HELD_OUT)))
    phonemes = "ˈA"[:tokens] if tokens < 2 else text[:tokens]
    durations = _durations(voice, phonemes, "am_demo", 1.0)
    assert durations.shape[0] == len(phonemes) + 2
    assert durations.max() <= LONGEST_PAUSE
    if tokens > 1:
        low, high = FRAMES_A_TOKEN
        assert low < durations.mean() < high
        _assert_clean(voice.synthesize(phonemes=phonemes, voice="am_demo").audio)


def test_a_long_passage_is_spoken_to_its_end(voice: Kokoro) -> None:
    """The last of 510 tokens are as loud, and as long, as the same tokens are alone."""
    text = phonemize(" ".join(read(HELD_OUT)))
    whole, last = text[:510], text[450:510]
    long = voice.synthesize(phonemes=whole, voice="af_demo").audio
    alone = voice.synthesize(phonemes=last, voice="af_demo").audio
    frames = int(_durations(voice, whole, "af_demo", 1.0)[-61:].sum())
    assert frames == pytest.approx(len(alone) / FRAME, rel=0.15)
    tail = long[-frames * FRAME :]
    assert np.percentile(frame_rms(tail, SAMPLE_RATE_HZ), 90) == pytest.approx(
        np.percentile(frame_rms(alone, SAMPLE_RATE_HZ), 90), rel=0.3
    )


def test_a_click_would_be_noticed(voice: Kokoro) -> None:
    """A jump of a tenth of the peak, in a pause."""
    audio = voice.synthesize(UNSEEN, voice="am_demo").audio
    loudness = frame_rms(audio, SAMPLE_RATE_HZ)
    frame = SAMPLE_RATE_HZ // 50
    quiet = int(np.argmin(loudness[10:-10])) + 10
    torn = audio.copy()
    torn[int((quiet + 0.5) * frame) :] += 0.1 * np.abs(audio).max()
    assert _click(torn) > CLICK


def test_voices_differ_in_pitch(voice: Kokoro) -> None:
    phonemes = phonemize(UNSEEN)
    f0 = {name: voice.taps(["f0"], phonemes=phonemes, voice=name)["f0"][0] for name in VOICES}
    high, low = (np.median(f0[name][f0[name] > 60]) for name in VOICES)
    assert 150 < high < 260
    assert 70 < low < 140
