"""SpeechT5 from a release with numpy and onnxruntime, on tiny graphs."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from speecht5_files import SPEAKERS, write_checkpoint

from jtts_export.errors import BadInput, OutsideError
from jtts_export.exporters.model import Loaded
from jtts_export.exporters.speecht5 import MODEL
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.models.speecht5.reference import Reference, mask_of
from jtts_export.runtime import speecht5, speecht5_decoder
from jtts_export.runtime.frontend import split_phonemes
from jtts_export.runtime.speecht5 import FIRST_FRAMES, GRAPHS, Engine, Speech, SpeechT5, read_assets
from jtts_export.runtime.speecht5_taps import TAPS
from jtts_export.validate.audio import snr_db

INFO = MODELS["speecht5"]
HOP, REDUCTION = 256, 2
TEXTS = ("The dog jumps over my box.", "Why not?", "Judge my vow, quick: five dozen jugs of quartz.")
LONG = "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs! Judge my vow; why not?"

# Speaks a text, and says which of the packages that a runtime must not need were imported.
SPEAK = """
import sys
from pathlib import Path
from jtts_export.runtime.speecht5 import SpeechT5
tts = SpeechT5.open(Path(sys.argv[1]), "fp32", threads=1)
assert len(tts.synthesize("Why not?").audio)
assert len(list(tts.stream("The quick brown fox jumps."))) > 1
print(*sorted({"torch", "transformers", "scipy", "onnx", "onnx_ir", "pydantic", "sentencepiece"} & set(sys.modules)))
"""


def make_release(folder: Path, **options) -> Loaded:
    """As much of a release as the runtime reads."""
    options["config"] = {"max_speech_positions": 600, **options.get("config", {})}
    write_checkpoint(folder / "checkpoint", 3, **{"ends": True, **options})
    loaded = MODEL.load(locate(str(folder / "checkpoint"), INFO.files, INFO.companions))
    MODEL.client_files(folder, loaded.config, loaded.voices)
    MODEL.export(loaded, folder, 17)
    return loaded


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Loaded]:
    folder = tmp_path_factory.mktemp("release")
    return folder, make_release(folder)


@pytest.fixture(scope="module")
def release(made: tuple[Path, Loaded]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def tts(release: Path) -> SpeechT5:
    return SpeechT5.open(release, "fp32", threads=1)


@pytest.fixture
def steps_run(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many steps decoders have run since."""
    count = itertools.count()
    seen = [0]
    step = speecht5_decoder._Run.step

    def counted(self, number: int):
        seen[0] = next(count) + 1
        return step(self, number)

    monkeypatch.setattr(speecht5_decoder._Run, "step", counted)
    return lambda: seen[0]


def test_speaking_imports_numpy_and_onnxruntime_only(release: Path) -> None:
    command = [sys.executable, "-c", SPEAK, str(release)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# --- synthesize ------------------------------------------------------------------------------------------------


def test_audio_is_that_of_the_reference(made: tuple[Path, Loaded], tts: SpeechT5) -> None:
    for text, speaker in itertools.product(TEXTS, SPEAKERS):
        speech = tts.synthesize(text, voice=speaker)
        assert (speech.text, speech.audio.dtype, speech.audio.ndim) == (text, np.float32, 1)
        inputs = {"input_ids": tts.tokens(text), "speaker_embeddings": made[1].voices[speaker][None]}
        expected = Reference(made[1].module, 1).taps(inputs, ["waveform"])["waveform"]
        assert snr_db(speech.audio, expected) >= 100
        np.testing.assert_array_equal(tts.synthesize(text, voice=speaker).audio, speech.audio)


def test_speakers_and_texts_differ(tts: SpeechT5) -> None:
    spoken = {tts.synthesize(t, voice=s).audio.tobytes() for t, s in itertools.product(TEXTS, SPEAKERS)}
    assert len(spoken) == len(TEXTS) * len(SPEAKERS)


def test_the_first_speaker_is_the_default(tts: SpeechT5) -> None:
    np.testing.assert_array_equal(tts.synthesize(TEXTS[0]).audio, tts.synthesize(TEXTS[0], voice="first").audio)


def test_tokens_are_those_of_transformers(release: Path, tts: SpeechT5) -> None:
    from transformers import SpeechT5Tokenizer

    theirs = SpeechT5Tokenizer.from_pretrained(release / "checkpoint", local_files_only=True)
    for text in (*TEXTS, "Two  spaces ", "naïve café", "A dog… @ 50 %"):
        np.testing.assert_array_equal(tts.tokens(text), [theirs(text).input_ids])


def test_unknown_characters_are_one_token_and_spoken_over(tts: SpeechT5) -> None:
    ids = tts.tokens("the 犬🐕 dog")[0].tolist()
    assert ids.count(3) == 1
    assert len(tts.synthesize("the 犬🐕 dog").audio) > 0


def test_halves_of_surrogates_are_left_out(tts: SpeechT5) -> None:
    """What a shell passes that is no UTF-8."""
    for text in ("Why\udcff not?", "\ud83dWhy not?\udcc3", f"{chr(0xDCFF) * 300}Why not?"):
        np.testing.assert_array_equal(tts.tokens(text), tts.tokens("Why not?"))
    expected = tts.synthesize("Why not?").audio
    np.testing.assert_array_equal(tts.synthesize("Why\udcff not?").audio, expected)


def test_more_than_the_checkpoint_takes_is_split_and_joined(tts: SpeechT5) -> None:
    assert len(LONG) > tts.max_tokens == 100
    pieces = split_phonemes(LONG, tts.max_tokens - 2)
    assert len(pieces) == 2
    assert all(tts.tokens(piece).shape[1] <= 100 for piece in pieces)
    speech = tts.synthesize(LONG)
    assert speech.text == LONG
    joined = np.concatenate([tts.synthesize(piece).audio for piece in pieces])
    np.testing.assert_array_equal(speech.audio, joined)
    streamed = np.concatenate([piece.audio for piece in tts.stream(LONG)])
    assert snr_db(streamed, joined) >= 100


def test_as_much_as_the_checkpoint_takes_is_one_pass(tts: SpeechT5) -> None:
    words = ("dog " * 25)[:98]  # a mark ahead, an end behind
    assert tts.tokens(words).shape == (1, 100)
    speech = tts.synthesize(words)
    pieces = [tts.synthesize(piece).audio for piece in split_phonemes(words, 50)]
    assert len(speech.audio) != sum(map(len, pieces))


def test_characters_that_become_several_are_counted_as_such(tts: SpeechT5) -> None:
    """NFKC: an ellipsis is three full stops."""
    text = "so… " * 24
    assert len(text) < tts.max_tokens
    with pytest.raises(BadInput, match="145 tokens is too long; this checkpoint takes 100"):
        tts.tokens(text)
    halves = [tts.synthesize(half).audio for half in split_phonemes(text, 49)]
    np.testing.assert_array_equal(tts.synthesize(text).audio, np.concatenate(halves))


def test_a_piece_that_cannot_be_said_is_left_out(tts: SpeechT5) -> None:
    said = ("The lazy dog jumps over the five dozen.", "The quick brown fox jumps over the lazy dog, why not?")
    text = f"{said[0]} {'犬 ' * 120}{said[1]}"
    pieces = split_phonemes(text, 98)
    sayable = [piece for piece in pieces if set(piece) - {"犬", " "}]
    assert 2 <= len(sayable) < len(pieces)
    joined = np.concatenate([tts.synthesize(piece).audio for piece in sayable])
    np.testing.assert_array_equal(tts.synthesize(text).audio, joined)


# --- stream ----------------------------------------------------------------------------------------------------


def test_pieces_are_the_audio_of_one_pass(tts: SpeechT5) -> None:
    for text, speaker in itertools.product(TEXTS, SPEAKERS):
        whole = tts.synthesize(text, voice=speaker).audio
        pieces = list(tts.stream(text, voice=speaker))
        assert all(isinstance(piece, Speech) and piece.text == text for piece in pieces)
        assert all(piece.audio.dtype == np.float32 and len(piece.audio) % HOP == 0 for piece in pieces)
        assert sum(len(piece.audio) for piece in pieces) == len(whole)
        # Rounding: sums are taken in another order where an array has another length.
        assert snr_db(np.concatenate([piece.audio for piece in pieces]), whole) >= 100


@pytest.mark.parametrize("reduction", [1, 3])
def test_pieces_of_other_reductions(tmp_path: Path, reduction: int) -> None:
    make_release(tmp_path, reduction_factor=reduction, ends=False)
    tts = SpeechT5.open(tmp_path, "fp32", threads=1)
    whole = tts.synthesize(TEXTS[1]).audio
    pieces = [piece.audio for piece in tts.stream(TEXTS[1])]
    assert len(pieces) > 3
    assert snr_db(np.concatenate(pieces), whole) >= 100


def test_the_first_piece_is_short_and_early_and_the_next_are_longer(
    tts: SpeechT5, steps_run: Callable[[], int]
) -> None:
    stream = tts.stream(TEXTS[2])
    assert steps_run() == 0
    first = next(stream).audio
    assert len(first) == FIRST_FRAMES * HOP
    assert steps_run() == math.ceil((FIRST_FRAMES + tts._engine.context) / REDUCTION)
    sizes = [len(first) // HOP, *(len(piece.audio) // HOP for piece in stream)]
    assert sum(sizes) == steps_run() * REDUCTION
    assert steps_run() * REDUCTION > 3 * (FIRST_FRAMES + tts._engine.context)
    assert sizes[:-1] == [FIRST_FRAMES * 2**i for i in range(len(sizes) - 1)]


def test_pieces_grow_to_a_limit(tts: SpeechT5, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speecht5, "MOST_FRAMES", 20)
    whole = tts.synthesize(TEXTS[2]).audio
    pieces = [piece.audio for piece in tts.stream(TEXTS[2])]
    sizes = [len(piece) // HOP for piece in pieces[:-1]]
    assert sizes == [min(FIRST_FRAMES * 2**i, 20) for i in range(len(sizes))]
    assert sizes.count(20) > 2
    assert snr_db(np.concatenate(pieces), whole) >= 100


@pytest.mark.parametrize("steps", [1, 2, 6, 7, 8, 20, 21, 22, 23, 24, 40])
def test_an_utterance_of_any_length_streams(release: Path, tts: SpeechT5, steps: int) -> None:
    """Shorter than a piece, than a piece's context, and around them."""
    inputs = tts._requests(TEXTS[0], "")[0] | {"min_steps": np.int64(steps), "max_steps": np.int64(steps)}
    whole = tts._engine.speak(inputs)
    pieces = list(tts._engine.stream(inputs))
    assert len(whole) == steps * REDUCTION * HOP == sum(map(len, pieces))
    assert all(len(piece) for piece in pieces)
    if steps * REDUCTION < FIRST_FRAMES + tts._engine.context:
        assert len(pieces) == 1
    assert snr_db(np.concatenate(pieces), whole) >= 100


def test_two_streams_can_be_read_by_turns(tts: SpeechT5) -> None:
    streams = [tts.stream(text) for text in TEXTS[1:]]
    pieces: list[list[np.ndarray]] = [[], []]
    for turn in itertools.zip_longest(*streams):
        for mine, piece in zip(pieces, turn, strict=True):
            mine += [piece.audio] if piece else []
    for text, mine in zip(TEXTS[1:], pieces, strict=True):
        assert snr_db(np.concatenate(mine), tts.synthesize(text).audio) >= 100


# --- what cannot be served -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty"),
        (" \n\t", "the text is empty"),
        ("犬", "nothing that this checkpoint can say"),
        ("🐕🐕 犬", "nothing that this checkpoint can say"),
        ("犬 " * 300, "nothing that this checkpoint can say"),
        ("</s>", "nothing that this checkpoint can say"),
        ("\udcff\ud800 ", "the text is empty"),
        ("\udcff犬", "nothing that this checkpoint can say"),
    ],
)
def test_a_text_with_nothing_to_say_is_refused(tts: SpeechT5, text: str, message: str) -> None:
    for speak in (tts.synthesize, tts.stream):
        with pytest.raises(BadInput, match=message) as caught:
            speak(text)
        assert "\n" not in str(caught.value)


def test_a_speaker_can_be_a_file(tts: SpeechT5, tmp_path: Path) -> None:
    vector = tts.voices["second"]
    np.save(tmp_path / "a.npy", vector)
    np.save(tmp_path / "row.npy", vector[None].astype(np.float64))
    vector.astype("<f4").tofile(tmp_path / "b.bin")
    expected = tts.synthesize(TEXTS[0], voice="second").audio
    for name in ("a.npy", "row.npy", "b.bin"):
        np.testing.assert_array_equal(tts.synthesize(TEXTS[0], voice=str(tmp_path / name)).audio, expected)


def npy(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def raw(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


GOOD = np.random.default_rng(0).standard_normal(512).astype(np.float32)


def saved(array: np.ndarray, kept: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.save(path, array)
        path.write_bytes(path.read_bytes()[:kept])

    return write


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("short.npy", npy(GOOD[:511])),
        ("long.npy", npy(np.zeros(513) + 1)),
        ("nan.npy", npy(np.where(np.arange(512) == 7, np.nan, GOOD))),
        ("inf.npy", npy(np.where(np.arange(512) == 7, np.inf, GOOD))),
        ("large.npy", npy(np.where(np.arange(512) == 7, 1e300, GOOD.astype(float)))),
        ("zero.npy", npy(np.zeros(512))),
        ("words.npy", npy(np.array(["a"] * 512))),
        ("objects.npy", npy(np.array([{}] * 512, dtype=object))),
        ("complex.npy", npy(GOOD * (1 + 1j))),
        ("empty.npy", raw(b"")),
        ("text.npy", raw(b"not an array")),
        *((f"cut{kept}.npy", saved(GOOD, kept)) for kept in (1, 6, 7, 9, 30, 60, 127, 128, 2000)),
        ("archive.npy", lambda path: np.savez(path.open("wb"), a=GOOD)),
        ("short.bin", raw(GOOD[:511].tobytes())),
        ("odd.bin", raw(GOOD.tobytes() + b"ab")),
        ("empty.bin", raw(b"")),
        ("nan.bin", raw(np.full(512, np.nan, "<f4").tobytes())),
    ],
)
def test_a_file_that_is_no_speaker_is_named(
    tts: SpeechT5, tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    write(tmp_path / name)
    with pytest.raises(BadInput, match=r"holds no x-vector") as caught:
        tts.synthesize(TEXTS[0], voice=str(tmp_path / name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("voice", ["nobody", "/", "no/such.npy", "x" * 5000, "nul\0.npy"])
def test_an_unknown_speaker_is_refused_with_those_there_are(tts: SpeechT5, voice: str) -> None:
    for speak in (tts.synthesize, tts.stream):
        with pytest.raises(BadInput, match=r"unknown voice '.*'; voices: first, second, or an x-vector's file"):
            speak(TEXTS[0], voice=voice)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> SpeechT5:
    """Never says that it has ended, and has few positions."""
    folder = tmp_path_factory.mktemp("endless")
    make_release(folder, ends=False, config={"max_speech_positions": 30})
    return SpeechT5.open(folder, "fp32", threads=1)


def test_speech_beyond_the_last_position_is_refused(endless: SpeechT5, steps_run: Callable[[], int]) -> None:
    with pytest.raises(BadInput, match=r"has not ended after 30 steps, the most this checkpoint can speak"):
        endless.synthesize("Why not?")
    assert steps_run() == 30
    heard: list[Speech] = []
    with pytest.raises(BadInput, match=r"30 steps"):
        heard.extend(endless.stream("Why not?"))
    assert len(endless.synthesize("a").audio) == 3 * 20 // 2 * REDUCTION * HOP  # three tokens: ended by its length


def test_as_many_steps_as_positions_can_be_spoken(endless: SpeechT5) -> None:
    inputs = endless._requests("Why not?", "")[0] | {"max_steps": np.int64(30)}
    assert len(endless._engine.speak(inputs)) == 30 * REDUCTION * HOP


@pytest.mark.parametrize("variant", ["int8", "fp16", "int4"])
def test_a_variant_that_is_not_there_is_refused(release: Path, variant: str) -> None:
    with pytest.raises(OutsideError, match=f"no {variant} variant|no variant '{variant}'"):
        SpeechT5.open(release, variant)


def test_a_folder_that_is_no_release_is_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match="not a SpeechT5 release"):
        read_assets(tmp_path)
    (tmp_path / "vocoder").mkdir()
    for name in ("config.json", "vocoder/config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((release / name).read_bytes())
    with pytest.raises(OutsideError, match="no speakers"):
        read_assets(tmp_path)
    (tmp_path / "speakers").mkdir()
    (tmp_path / "speakers" / "cut.bin").write_bytes(b"\0" * 100)
    with pytest.raises(OutsideError, match="not a SpeechT5 release"):
        read_assets(tmp_path)
    (tmp_path / "speakers" / "cut.bin").write_bytes(GOOD.tobytes())
    assert read_assets(tmp_path)[1].keys() == {"cut"}
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(OutsideError, match="not a SpeechT5 release"):
        read_assets(tmp_path)


def test_assets_are_what_was_written(made: tuple[Path, Loaded]) -> None:
    folder, loaded = made
    config, speakers = read_assets(folder)
    assert speakers.keys() == set(SPEAKERS)
    for name in SPEAKERS:
        np.testing.assert_array_equal(speakers[name], loaded.voices[name])
    assert config == json.loads(json.dumps(loaded.config)) | {
        "model": {**json.loads(json.dumps(loaded.config["model"])), "model_type": "speecht5"},
        "vocoder": {**json.loads(json.dumps(loaded.config["vocoder"])), "model_type": "hifigan"},
    }


# --- the decoder's loop ----------------------------------------------------------------------------------------


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The capacities that buffers were given since, in steps."""
    sizes: list[int] = []
    grow = speecht5_decoder._Run.grow

    def counted(self: speecht5_decoder._Run, size: int) -> None:
        sizes.append(size)
        grow(self, size)

    monkeypatch.setattr(speecht5_decoder._Run, "grow", counted)
    return sizes


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 64])
def test_buffers_grow_without_a_trace(
    tts: SpeechT5, monkeypatch: pytest.MonkeyPatch, grown: list[int], capacity: int
) -> None:
    expected = tts.synthesize(TEXTS[2]).audio
    steps = len(expected) // HOP // REDUCTION
    grown.clear()
    monkeypatch.setattr(speecht5_decoder, "FIRST_CAPACITY", capacity)
    made = tts.synthesize(TEXTS[2]).audio
    assert grown == [capacity * 2**i for i in range(len(grown))]
    assert grown[-2] < steps <= grown[-1]
    assert snr_db(made, expected) >= 110


def test_buffers_grow_to_the_last_position_and_no_further(
    endless: SpeechT5, monkeypatch: pytest.MonkeyPatch, grown: list[int]
) -> None:
    inputs = endless._requests("Why not?", "")[0] | {"max_steps": np.int64(30)}
    expected = endless._engine.speak(inputs)
    assert grown == [30]
    monkeypatch.setattr(speecht5_decoder, "FIRST_CAPACITY", 4)
    assert snr_db(endless._engine.speak(inputs), expected) >= 110
    assert grown == [30, 4, 8, 16, 30]
    with pytest.raises(BadInput, match="30 steps"):
        endless.synthesize("Why not?")


def test_threads_can_share_one_object(tts: SpeechT5) -> None:
    requests = [(text, speaker) for text in TEXTS for speaker in SPEAKERS]
    alone = [tts.synthesize(text, voice=speaker).audio for text, speaker in requests]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda r: tts.synthesize(r[0], voice=r[1]).audio, requests * 4))
    for i, audio in enumerate(together):
        np.testing.assert_array_equal(audio, alone[i % len(requests)])
    with ThreadPoolExecutor(4) as pool:
        streamed = list(pool.map(lambda r: [p.audio for p in tts.stream(r[0], voice=r[1])], requests * 2))
    for i, pieces in enumerate(streamed):
        assert snr_db(np.concatenate(pieces), alone[i % len(requests)]) >= 100


def test_taps_are_those_of_the_synthesis(tts: SpeechT5) -> None:
    names = [name for name in TAPS if name != "client_spectrogram"]  # its graph is in no release of this test
    taps = tts.taps(TEXTS[0], names, voice="second")
    spoken = tts.synthesize(TEXTS[0], voice="second").audio
    np.testing.assert_array_equal(taps["waveform"], spoken)
    (steps,) = taps["steps"]
    assert len(spoken) == steps * REDUCTION * HOP
    assert taps["mel"].shape == taps["spectrogram"].shape == (steps * REDUCTION, 80)
    assert taps["prob"].shape == (steps, REDUCTION)
    tokens = tts.tokens(TEXTS[0]).shape[1]
    assert taps["encoder_states"].shape == (1, tokens, 32)
    assert taps["encoder_outputs"].shape == (1, tokens, 2 * 2 * 32)


def test_another_mask_is_another_reading(made: tuple[Path, Loaded], tts: SpeechT5) -> None:
    inputs = tts._requests(TEXTS[0], "")[0] | {"min_steps": np.int64(50), "max_steps": np.int64(50)}
    own = tts._engine.speak(inputs)
    masks = [mask_of(made[1].module, seed) for seed in (0, 1)]
    np.testing.assert_array_equal(tts._engine.speak(inputs | {"prenet_mask": masks[0]}), own)
    other = tts._engine.speak(inputs | {"prenet_mask": masks[1]})
    assert snr_db(other, own) < 20
    expected = Reference(made[1].module, 1, 1).taps(inputs, ["waveform"])["waveform"]
    assert snr_db(other, expected) >= 100
    # A strided or boolean mask is the same mask.
    strided = np.asfortranarray(masks[1].astype(bool))
    np.testing.assert_array_equal(tts._engine.speak(inputs | {"prenet_mask": strided}), other)


@pytest.fixture
def from_table(made: tuple[Path, Loaded], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Lets transformers' generate_speech draw its dropout from the mask of seed 0, from its start."""
    mask = torch.from_numpy(mask_of(made[1].module)).float()

    def begin() -> None:
        layers = itertools.cycle(range(mask.shape[1]))
        monkeypatch.setattr(torch, "bernoulli", lambda like, p: mask[: len(like), next(layers)])

    yield begin


@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.5, 0.9, 1.5, 2.0, 1e9])
@pytest.mark.parametrize("ratios", [(0, 20), (0, 0.01), (0, 1.99), (2.5, 5), (3, 1), (6.05, 20)])
def test_it_ends_where_transformers_does(
    made: tuple[Path, Loaded],
    tts: SpeechT5,
    from_table: Callable[[], None],
    ratios: tuple[float, float],
    threshold: float,
) -> None:
    least, most = ratios
    model, text = made[1].module.model, TEXTS[1]
    inputs = tts._requests(text, "")[0]
    from_table()
    mel = model.generate_speech(
        torch.from_numpy(inputs["input_ids"]),
        torch.from_numpy(inputs["speaker_embeddings"]),
        threshold=threshold,
        minlenratio=least,
        maxlenratio=most,
    )
    tokens = inputs["input_ids"].shape[1]
    limits = {name: np.int64(tokens * r / REDUCTION) for name, r in (("min_steps", least), ("max_steps", most))}
    if most == 20:
        del limits["max_steps"]  # the default
    inputs |= limits | {"threshold": np.float32(threshold)}
    assert len(tts._engine.speak(inputs)) == len(mel) * HOP
    steps = Reference(made[1].module, 1).taps(inputs, ["steps"])["steps"]
    assert steps[0] * REDUCTION == len(mel)


def test_engines_on_files_and_the_class_agree(release: Path, tts: SpeechT5) -> None:
    engine = Engine({name: release / f"{name}.onnx" for name in GRAPHS}, 1)
    np.testing.assert_array_equal(engine.speak(tts._requests(TEXTS[0], "")[0]), tts.synthesize(TEXTS[0]).audio)
