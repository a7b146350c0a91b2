"""Kokoro from a release with numpy and onnxruntime, on a tiny graph."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jtts_export.errors import BadInput, OutsideError
from jtts_export.exporters.kokoro import MODEL
from jtts_export.models.source import locate
from jtts_export.runtime import frontend
from jtts_export.runtime.kokoro import Kokoro, read_assets

PATTERNS = ("config.json", "*.pth", "voices/*.pt")
SENTENCES = ("ðə bˈOt dɹˈɪftᵻd slˈOli pˈæst.", "plˈiz lˈiv jʊɹ ʃˈuz bI ðə dˈɔɹ.", "kˈɔl mˌi bˈæk!")
LONG = " ".join(SENTENCES)

# Speaks phonemes and a text, and says which of the packages that a runtime must not need were imported.
SPEAK = """
import sys
from pathlib import Path
from jtts_export.runtime.kokoro import Kokoro
tts = Kokoro.open(Path(sys.argv[1]), "fp32", threads=1)
assert len(tts.synthesize(phonemes="həlˈO").audio) and len(tts.synthesize("Hello.").audio)
assert len(list(tts.stream("Hello. Goodbye."))) == 2
print(*sorted({"torch", "transformers", "scipy", "onnx", "onnx_ir", "pydantic"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def release(kokoro_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As much of a release as the runtime reads."""
    folder = tmp_path_factory.mktemp("release")
    loaded = MODEL.load(locate(str(kokoro_folder), PATTERNS))
    MODEL.client_files(folder, loaded.config, loaded.voices)
    MODEL.export(loaded, folder, 17)
    return folder


@pytest.fixture(scope="module")
def tts(release: Path) -> Kokoro:
    return Kokoro.open(release, "fp32", threads=1)


def test_speaking_imports_numpy_and_onnxruntime_only(release: Path) -> None:
    command = [sys.executable, "-c", SPEAK, str(release)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_audio_is_float32_in_range_and_the_same_every_time(tts: Kokoro) -> None:
    speech = tts.synthesize(phonemes=SENTENCES[0])
    assert speech.phonemes == SENTENCES[0]
    assert (speech.audio.dtype, speech.audio.ndim) == (np.float32, 1)
    assert np.isfinite(speech.audio).all()
    assert len(speech.audio) % 600 == 0  # samples per frame
    np.testing.assert_array_equal(tts.synthesize(phonemes=SENTENCES[0]).audio, speech.audio)


def test_a_text_is_its_phonemes(tts: Kokoro) -> None:
    speech = tts.synthesize("The boat drifted slowly past.")
    assert speech.phonemes == frontend.phonemize("The boat drifted slowly past.")
    np.testing.assert_array_equal(tts.synthesize(phonemes=speech.phonemes).audio, speech.audio)


def test_more_than_a_pass_is_split_and_joined(tts: Kokoro) -> None:
    assert len(LONG) > tts.max_tokens
    pieces = frontend.split_phonemes(LONG, tts.max_tokens)
    assert len(pieces) > 1
    assert all(len(piece) <= tts.max_tokens for piece in pieces)
    speech = tts.synthesize(phonemes=LONG)
    assert speech.phonemes == LONG
    joined = np.concatenate([tts.synthesize(phonemes=piece).audio for piece in pieces])
    np.testing.assert_array_equal(speech.audio, joined)


def test_stream_gives_sentence_by_sentence_what_synthesize_gives(tts: Kokoro) -> None:
    pieces = list(tts.stream(phonemes=LONG))
    assert [piece.phonemes for piece in pieces] == list(SENTENCES)
    for piece in pieces:
        np.testing.assert_array_equal(piece.audio, tts.synthesize(phonemes=piece.phonemes).audio)


def test_stream_raises_before_the_first_piece(tts: Kokoro) -> None:
    for wrong in ({"voice": "nobody"}, {"speed": 0.0}, {"phonemes": "@"}, {"text": "both"}):
        with pytest.raises(BadInput):
            tts.stream(**{"phonemes": LONG, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("tokens", [1, 2, 20, 62])
def test_the_style_is_the_voices_row_of_the_number_of_tokens(tts: Kokoro, release: Path, tokens: int) -> None:
    _, voices = read_assets(release)
    feeds = tts.feeds(LONG[:tokens], "random_c", 1.25)
    assert feeds["input_ids"].shape == (1, tokens + 2)
    assert feeds["input_ids"][0, 0] == feeds["input_ids"][0, -1] == 0
    np.testing.assert_array_equal(feeds["style"], voices["random_c"][tokens - 1])
    np.testing.assert_array_equal(feeds["speed"], np.array([1.25], np.float32))


def test_more_tokens_than_rows_take_the_last_row(tts: Kokoro) -> None:
    np.testing.assert_array_equal(tts.style("random_a", 1000), tts.voices["random_a"][-1])


def test_the_first_voice_is_the_default(tts: Kokoro) -> None:
    np.testing.assert_array_equal(tts.style("", 5), tts.voices["random_a"][4])


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf"), -float("inf"), 0.05, 11])
def test_a_speed_out_of_range_is_refused(tts: Kokoro, speed: float) -> None:
    with pytest.raises(BadInput, match=r"speed must be a number from 0.1 to 10"):
        tts.synthesize(phonemes="həlˈO", speed=speed)


@pytest.mark.parametrize("speed", [0.1, 0.5, 1.5, 10])
def test_a_speed_in_range_is_spoken(tts: Kokoro, speed: float) -> None:
    frames = len(tts.synthesize(phonemes=SENTENCES[0], speed=speed).audio) / 600
    own = len(tts.synthesize(phonemes=SENTENCES[0]).audio) / 600
    tokens = len(SENTENCES[0]) + 2
    # Each token is rounded to whole frames, and takes one at least.
    assert own / speed - tokens / 2 - 0.5 * tokens / speed <= frames <= own / speed + tokens * (1 + 0.5 / speed)
    assert frames >= tokens


@pytest.mark.parametrize(
    "request_",
    [{}, {"text": " "}, {"phonemes": " "}, {"text": "a", "phonemes": "a"}, {"phonemes": "həl@"}, {"text": "🎉"}],
)
def test_a_request_with_nothing_to_speak_is_refused(tts: Kokoro, request_: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        tts.synthesize(**request_)  # type: ignore[arg-type]
    with pytest.raises(BadInput):
        tts.stream(**request_)  # type: ignore[arg-type]


def test_threads_can_share_one_object(tts: Kokoro) -> None:
    alone = [tts.synthesize(phonemes=sentence, speed=1.5).audio for sentence in SENTENCES]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda s: tts.synthesize(phonemes=s, speed=1.5).audio, SENTENCES * 8))
    for i, audio in enumerate(together):
        np.testing.assert_array_equal(audio, alone[i % len(SENTENCES)])


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("int8", "no int8 variant"),
        ("fp16", "no fp16 variant"),
        ("int2", "no variant 'int2'; variants: fp32, fp16, int8"),
    ],
)
def test_a_variant_that_is_not_there_is_refused(release: Path, variant: str, said: str) -> None:
    with pytest.raises(OutsideError, match=said):
        Kokoro.open(release, variant)


def test_a_folder_without_voices_is_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(OutsideError, match="not a Kokoro release"):
        read_assets(tmp_path)
    (tmp_path / "config.json").write_bytes((release / "config.json").read_bytes())
    with pytest.raises(OutsideError, match="no voices"):
        read_assets(tmp_path)
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "cut.bin").write_bytes(b"\0" * 100)
    with pytest.raises(OutsideError, match="not a Kokoro release"):
        read_assets(tmp_path)


def test_taps_are_those_of_the_synthesis(tts: Kokoro) -> None:
    taps = tts.taps(["duration", "f0", "waveform"], phonemes="həlˈO.", speed=1.25)
    spoken = tts.synthesize(phonemes="həlˈO.", speed=1.25)
    np.testing.assert_array_equal(taps["waveform"][0], spoken.audio)
    assert len(spoken.audio) == 600 * taps["duration"].sum() == 300 * taps["f0"].shape[1]
