"""What the demo voice learns from: sentences, espeak-ng's speech, and how tokens and audio belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from demo import sentences
from demo.data import EDGE_FRAMES, FRAME, Utterance, durations, load, pitch, save, symbols, utterance
from demo.espeak import VARIANTS, Espeak, Phoneme
from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.models.kokoro.random import official_config
from jtts_export.runtime.frontend import phonemize

TEXT = "Bus 42 costs a lot, my friend: they judge each thing's measure."


@pytest.fixture(scope="module")
def espeak() -> Espeak:
    return Espeak()


@pytest.fixture(scope="module")
def spoken(espeak: Espeak) -> Utterance:
    made = utterance(espeak, TEXT, 1, official_config()["vocab"])
    assert made is not None
    return made


def test_sentences_are_many_and_none_is_held_out() -> None:
    train, unseen = sentences.read(sentences.TRAIN), sentences.read(sentences.HELD_OUT)
    assert len({*train}) == len(train) >= 1500
    assert len({*unseen}) == len(unseen) >= 40
    plain = {sentences._plain(text) for text in train}
    assert not plain & {sentences._plain(text) for text in unseen}


def test_sentences_are_what_the_script_writes() -> None:
    assert sentences.sentences() == sentences.read(sentences.TRAIN)


def test_sentences_have_every_phoneme_of_american_english() -> None:
    said = "".join(phonemize(text) for text in sentences.read(sentences.TRAIN)[:600])
    missing = [c for c in "AIOWYTᵊᵻbdfhijklmnpstuvwzæðŋɑɔəɛɜɡɪɹʃʊʌʒʤʧθˈˌ" if said.count(c) < 5]
    assert not missing


def test_espeaks_phonemes_are_the_frontends(espeak: Espeak) -> None:
    _, phonemes = espeak.speak(TEXT, "demo_f")
    heard = "".join(c for c in phonemize(TEXT) if c not in "ˈˌ :,.")
    assert "".join(symbols(phonemes)) == heard


def test_each_voice_of_ours_has_its_pitch_and_no_flutter(espeak: Espeak) -> None:
    """Without espeak's random flutter the same vowel twice is the same audio."""
    medians = {}
    for name in VARIANTS:
        audio, _ = espeak.speak("Aah.", name)
        again, _ = espeak.speak("Aah.", name)
        assert np.array_equal(audio, again)
        f0 = pitch(np.interp(np.arange(0, len(audio), 22050 / 24000), np.arange(len(audio)), audio), 60, 400)
        medians[name] = np.median(f0[f0 > 0])
    assert 70 < medians["demo_m"] < 130
    assert 140 < medians["demo_f"] < 250


def test_durations_cover_the_audio_and_leave_nothing_out(spoken: Utterance) -> None:
    assert len(spoken.ids) == len(spoken.durations) == len(phonemize(TEXT)) + 2
    assert spoken.durations.min() >= 1
    assert spoken.durations[0] == EDGE_FRAMES
    assert len(spoken.audio) == FRAME * spoken.durations.sum()
    assert len(spoken.f0) == len(spoken.n) == 2 * spoken.durations.sum()


def test_what_a_token_says_is_where_its_duration_puts_it(spoken: Utterance) -> None:
    """The comma's frames are silent, a stressed vowel's are loud and voiced."""
    tokens, ends = phonemize(TEXT), np.cumsum(spoken.durations)
    comma, vowel = tokens.index(",") + 1, tokens.index("ʌ") + 1
    pause = spoken.audio[FRAME * (ends[comma] - 2) : FRAME * (ends[comma] - 1)]
    sound = slice(2 * (ends[vowel] - 2), 2 * (ends[vowel] - 1))
    assert np.abs(pause).max() < 0.01
    assert (spoken.f0[sound] > 100).all()
    assert spoken.n[sound].min() > spoken.n.max() - 3


def test_short_phonemes_take_a_frame_each_and_move_their_neighbours_least() -> None:
    """Onsets 0.2 frames apart: one frame each, around the middle of where they belong."""
    frame = FRAME  # at the rate given, samples are those of 24 kHz
    phonemes = [Phoneme("s", 0, 4 * frame), Phoneme("t", 4 * frame, int(4.2 * frame))]
    phonemes += [Phoneme("p", int(4.2 * frame), int(4.4 * frame)), Phoneme("ɹ", int(4.4 * frame), 9 * frame)]
    assert durations("stpɹ", phonemes, SAMPLE_RATE_HZ).tolist() == [2, 3, 1, 1, 4, 2]


def test_an_utterance_that_says_something_else_is_left_out() -> None:
    assert durations("st", [Phoneme("s", 0, 900), Phoneme("k", 900, 1800)], SAMPLE_RATE_HZ) is None


def test_saved_utterances_are_read_again(spoken: Utterance, tmp_path: Path) -> None:
    save(tmp_path / "data.npz", [spoken, spoken])
    _, second = load(tmp_path / "data.npz")
    assert (second.text, second.voice) == (spoken.text, spoken.voice)
    for name in ("ids", "durations", "f0", "n"):
        assert np.array_equal(getattr(second, name), getattr(spoken, name))
    assert np.abs(second.audio - spoken.audio).max() < 1e-4  # 16 bits
