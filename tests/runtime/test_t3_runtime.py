"""T3 from a release with numpy and onnxruntime, on tiny graphs."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from t3_files import LANGUAGES, VOICE, add_variant, request, tiny_voices, write_release, write_voice

from jtts_export.errors import BadInput, OutsideError
from jtts_export.exporters.model import Loaded
from jtts_export.exporters.onnx import save
from jtts_export.exporters.t3 import MODEL, key_value_reach
from jtts_export.models.t3.reference import Reference
from jtts_export.quantize.key_values import quantize_key_values
from jtts_export.runtime import t3 as runtime
from jtts_export.runtime.session import session
from jtts_export.runtime.t3 import GRAPHS, LANGUAGE_MODEL, MAX_TOKENS, T3, TEXT_BLOCK, VOICES, Engine, read_assets
from jtts_export.runtime.t3_decoder import BLOCK, Decoder, KeyValues
from jtts_export.runtime.t3_taps import T3Runner
from jtts_export.validate.logits import compare

TEXTS = ("Why not?", "The dog jumps over my box.", "Judge my vow, quick: five dozen jugs of quartz.")
LONG = "It was a quiet evening, and the harbour lay still under a thin cover of mist. Two boats came in late."
MOST = 60

# Speaks a text, and says which of the packages that a runtime must not need were imported.
SPEAK = """
import sys
from pathlib import Path
from jtts_export.runtime.t3 import T3
t3 = T3.open(Path(sys.argv[1]), "fp32", threads=1)
assert len(list(t3.stream("Why not?", max_tokens=20)))
print(*sorted({"torch", "transformers", "scipy", "onnx", "onnx_ir", "pydantic", "sentencepiece"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Loaded]:
    folder = tmp_path_factory.mktemp("release")
    loaded = write_release(folder)
    add_variant(folder, "int8")
    return folder, loaded


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Loaded]:
    folder = tmp_path_factory.mktemp("multilingual")
    return folder, write_release(folder, multilingual=True)


@pytest.fixture(scope="module")
def release(made: tuple[Path, Loaded]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def reference(made: tuple[Path, Loaded]) -> Reference:
    return Reference(made[1].module.model, 1)


@pytest.fixture(scope="module")
def t3(release: Path) -> T3:
    return T3.open(release, "fp32", threads=1)


@pytest.fixture(scope="module")
def files(release: Path) -> dict[str, Path]:
    return {name: release / f"{name}.onnx" for name in GRAPHS}


@pytest.fixture
def engine(files: dict[str, Path]) -> Engine:
    """Fresh: with no voice kept and no buffers."""
    return Engine(files, 1)


def test_speaking_imports_numpy_and_onnxruntime_only(release: Path) -> None:
    command = [sys.executable, "-c", SPEAK, str(release)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# --- tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voice", ["default", VOICE])
@pytest.mark.parametrize(
    "options",
    [
        *({"seed": seed} for seed in range(4)),
        *({"cfg_weight": 0.0, "seed": seed} for seed in range(2)),
        {"temperature": 0.0},
        {"temperature": 0.0, "cfg_weight": 0.0},
        # Cool, so that few tokens are left to draw from: of thousands, some edge lies within rounding of a draw.
        {"temperature": 0.1, "min_p": 0.0, "top_p": 0.9, "repetition_penalty": 2.0, "cfg_weight": 1.5, "seed": 1},
        {"analyze": True, "seed": 5},
        {"analyze": True, "cfg_weight": 0.0},
    ],
    ids=str,
)
def test_speech_tokens_are_those_of_the_reference(
    t3: T3, reference: Reference, voice: str, options: dict[str, Any]
) -> None:
    for text in TEXTS:
        spoken = t3.speech_tokens(text, voice=voice, max_tokens=MOST, **options)
        assert spoken.dtype == np.int64
        inputs = request(t3.text_tokens(text), t3.voices[voice], max_tokens=MOST, **options)
        expected = reference.speak(inputs)
        np.testing.assert_array_equal(spoken, expected[expected < t3.config.start_speech])
        assert len(spoken)


def test_most_speech_ends_by_its_stop_token(t3: T3, reference: Reference) -> None:
    """And not where the tests above end it."""
    for text in TEXTS:
        spoken = t3.speech_tokens(text, max_tokens=1000)
        inputs = request(t3.text_tokens(text), t3.voices["default"], max_tokens=1000)
        expected = reference.speak(inputs)
        assert len(expected) < 1000
        np.testing.assert_array_equal(spoken, expected[expected < t3.config.start_speech])


def test_every_part_of_a_request_matters(t3: T3) -> None:
    requests: list[dict[str, Any]] = [
        *({"text": text} for text in TEXTS),
        *({"text": TEXTS[0], "seed": seed} for seed in (1, 2)),
        *({"text": TEXTS[0], "voice": VOICE}, {"text": TEXTS[0], "exaggeration": 1.5}),
        *({"text": TEXTS[0], "cfg_weight": 0}, {"text": TEXTS[0], "temperature": 2}),
    ]
    spoken = [t3.speech_tokens(max_tokens=30, **r).tobytes() for r in requests]
    assert len(set(spoken)) == len(requests)
    assert [t3.speech_tokens(max_tokens=30, **r).tobytes() for r in requests] == spoken


def test_the_emotion_is_the_voices_unless_another_is_given(t3: T3) -> None:
    own = float(t3.voices["default"].exaggeration[0])
    given = t3.speech_tokens(TEXTS[0], exaggeration=own, max_tokens=30)
    np.testing.assert_array_equal(given, t3.speech_tokens(TEXTS[0], max_tokens=30))


def test_the_first_voice_is_the_default(t3: T3) -> None:
    assert list(t3.voices) == ["default", VOICE]
    spoken = t3.speech_tokens(TEXTS[0], voice="default", max_tokens=30)
    np.testing.assert_array_equal(t3.speech_tokens(TEXTS[0], max_tokens=30), spoken)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_voice_can_be_a_file(t3: T3, tmp_path: Path, suffix: str) -> None:
    for name in ("default", VOICE):
        path = tmp_path / f"{name}{suffix}"
        write_voice(path, t3.voices[name])
        spoken = t3.speech_tokens(TEXTS[0], voice=str(path), max_tokens=30)
        np.testing.assert_array_equal(spoken, t3.speech_tokens(TEXTS[0], voice=name, max_tokens=30))


def test_text_tokens_are_the_normalized_texts(t3: T3) -> None:
    tokens = t3.text_tokens("why  not - joe")
    np.testing.assert_array_equal(tokens, t3.text_tokens("Why not, joe."))
    assert tokens.dtype == np.int64
    assert (tokens[0, 0], tokens[0, -1]) == (255, 0)
    assert 255 not in tokens[0, 1:]


def test_tokens_that_mean_nothing_to_a_vocoder_are_left_out(t3: T3) -> None:
    """A checkpoint may say them, and goes on from there."""
    inputs = request(t3.text_tokens(TEXTS[0]), t3.voices["default"], max_tokens=200, temperature=5.0, min_p=0.0)
    everything = t3._engine.speak(inputs)
    assert (everything >= t3.config.start_speech).sum() > 5
    spoken = t3.speech_tokens(TEXTS[0], max_tokens=200, temperature=5.0, min_p=0.0)
    np.testing.assert_array_equal(spoken, everything[everything < t3.config.start_speech])


def test_at_least_as_many_tokens_as_asked_for_are_made(engine: Engine, reference: Reference, t3: T3) -> None:
    inputs = request(t3.text_tokens(TEXTS[0]), t3.voices["default"], max_tokens=1000)
    free = len(reference.speak(inputs))
    for least, most in ((free + 20, 1000), (free + 20, free + 20), (0, free), (0, free - 1)):
        limits = {"min_tokens": np.array(least), "max_tokens": np.array(most)}
        spoken = engine.speak(inputs | limits)
        assert len(spoken) >= least
        assert len(spoken) <= most
        np.testing.assert_array_equal(spoken, reference.speak(inputs | limits))


def test_int8_speaks_too(release: Path) -> None:
    t3 = T3.open(release, threads=1)
    spoken = t3.speech_tokens(TEXTS[0], max_tokens=30)
    assert len(spoken)
    np.testing.assert_array_equal(T3.open(release, "int8", threads=1).speech_tokens(TEXTS[0], max_tokens=30), spoken)


# --- streams --------------------------------------------------------------------------------------------------


def test_a_stream_is_the_speech_token_by_token(t3: T3) -> None:
    for text, voice in itertools.product(TEXTS, t3.voices):
        streamed = list(t3.stream(text, voice=voice, max_tokens=MOST, seed=2))
        assert all(type(token) is int for token in streamed)
        assert streamed == t3.speech_tokens(text, voice=voice, max_tokens=MOST, seed=2).tolist()


def test_streams_can_be_read_by_turns(t3: T3) -> None:
    streams = [t3.stream(text, max_tokens=MOST) for text in TEXTS]
    turns = list(itertools.zip_longest(*streams))
    for text, tokens in zip(TEXTS, zip(*turns, strict=True), strict=True):
        spoken = [token for token in tokens if token is not None]
        assert spoken == t3.speech_tokens(text, max_tokens=MOST).tolist()


def test_a_cancelled_stream_ends(t3: T3) -> None:
    whole = t3.speech_tokens(TEXTS[0], max_tokens=30).tolist()
    cancel = threading.Event()
    stream = t3.stream(TEXTS[0], max_tokens=30, cancel=cancel)
    heard = [next(stream) for _ in range(5)]
    cancel.set()
    assert list(stream) == []
    assert heard == whole[:5]
    assert list(t3.stream(TEXTS[0], max_tokens=30, cancel=cancel)) == []
    assert list(t3.stream(TEXTS[0], max_tokens=30, cancel=threading.Event())) == whole


def test_buffers_come_back_however_a_stream_ends(engine: Engine, t3: T3) -> None:
    inputs = request(t3.text_tokens(TEXTS[0]), t3.voices["default"], max_tokens=30)
    assert idle(engine) == []
    engine.speak(inputs)
    assert idle(engine) == [1, 2]  # of the voice's prefix, and of the utterance
    first, second = engine.tokens(inputs), engine.tokens(inputs)
    next(first)
    assert idle(engine) == [1]
    next(second)
    assert idle(engine) == [1]
    first.close()
    assert idle(engine) == [1, 2]
    del second
    assert idle(engine) == [1, 2, 2]
    unread = engine.tokens(inputs)
    unread.close()
    assert idle(engine) == [1, 2, 2]


def test_buffers_come_back_from_a_stream_that_is_cancelled_or_dropped(release: Path) -> None:
    t3, cancel = T3.open(release, "fp32", threads=1), threading.Event()
    t3.speech_tokens(TEXTS[0], max_tokens=5)
    for end in (cancel.set, lambda: None):
        cancel.clear()
        stream = t3.stream(TEXTS[0], max_tokens=30, cancel=cancel)
        next(stream)
        assert idle(t3._engine) == [1]
        end()
        if cancel.is_set():
            assert list(stream) == []
        else:
            stream.close()
        assert idle(t3._engine) == [1, 2]


def test_buffers_come_back_from_an_error(engine: Engine, t3: T3) -> None:
    inputs = request(t3.text_tokens(TEXTS[0]), t3.voices["default"], max_tokens=30)
    expected = engine.speak(inputs)
    for _ in range(2):
        with pytest.raises(OutsideError, match="not finite"):
            engine.speak(inputs | {"speaker_emb": np.full_like(inputs["speaker_emb"], np.nan)})
        assert idle(engine) == [1, 2]
        np.testing.assert_array_equal(engine.speak(inputs), expected)


def test_threads_can_share_one_object(release: Path) -> None:
    t3 = T3.open(release, "fp32", threads=1)
    requests: list[dict[str, Any]] = [
        {"text": text, "voice": voice, "seed": seed, "cfg_weight": weight, "max_tokens": 20 + 7 * seed}
        for text, voice, (seed, weight) in itertools.product(TEXTS, t3.voices, [(1, 0.5), (2, 0.0), (3, 0.5)])
    ]
    alone = [T3.open(release, "fp32", threads=1).speech_tokens(**r).tolist() for r in requests]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda r: t3.speech_tokens(**r).tolist(), requests * 3))
    assert together == alone * 3
    assert len(idle(t3._engine)) <= 2 * 4  # no more than were ever in use at once


# --- voices' prefixes -----------------------------------------------------------------------------------------


def test_a_kept_voice_says_what_a_new_one_does(files: dict[str, Path], t3: T3) -> None:
    """After shorter texts and longer ones, guided and not, by other voices and other emotions."""
    lengths = [5, 3, 61, 62, 63, 64, 65, 10, 127, 128, 129, 200, 2]
    warm = Engine(files, 1)
    for number, length in enumerate(lengths):
        for voice, weight in itertools.product(t3.voices, (0.5, 0.0)):
            inputs = request(text_of(length, number), t3.voices[voice], max_tokens=12, cfg_weight=weight, seed=number)
            assert warm.speak(inputs).tolist() == Engine(files, 1).speak(inputs).tolist(), (length, voice, weight)
    assert len(warm._prefixes) == 2


def test_a_longer_text_after_a_shorter_one_by_the_same_voice(engine: Engine, reference: Reference, t3: T3) -> None:
    for length in (10, TEXT_BLOCK, TEXT_BLOCK + 1, 256, 10):
        inputs = request(text_of(length, 0), t3.voices["default"], max_tokens=12)
        assert engine.speak(inputs).tolist() == reference.speak(inputs).tolist(), length


def test_a_guided_text_after_an_unguided_one_by_the_same_voice(engine: Engine, reference: Reference, t3: T3) -> None:
    for weight in (0.0, 0.5, 0.0, 2.0):
        inputs = request(t3.text_tokens(LONG), t3.voices["default"], max_tokens=12, cfg_weight=weight)
        assert engine.speak(inputs).tolist() == reference.speak(inputs).tolist(), weight


def test_the_last_voices_are_kept_and_no_more(engine: Engine, reference: Reference, t3: T3) -> None:
    voices = [tiny_voices(seed)["default"] for seed in range(VOICES + 2)]
    for voice in [*voices, *voices[:2], voices[-1]]:
        inputs = request(t3.text_tokens(TEXTS[0]), voice, max_tokens=12)
        assert engine.speak(inputs).tolist() == reference.speak(inputs).tolist()
        assert len(engine._prefixes) <= VOICES
    assert len(engine._prefixes) == VOICES


def test_a_kept_voice_is_not_conditioned_again(engine: Engine, t3: T3, monkeypatch: pytest.MonkeyPatch) -> None:
    conditioned: list[int] = []
    condition = Engine.condition

    def counted(self: Engine, inputs: Any) -> np.ndarray:
        conditioned.append(inputs["cond_prompt_speech_tokens"].shape[1])
        return condition(self, inputs)

    monkeypatch.setattr(Engine, "condition", counted)
    first, second = (request(t3.text_tokens(TEXTS[0]), t3.voices[v], max_tokens=3) for v in ("default", VOICE))
    for inputs in (first, first, first | {"seed": np.array(3)}, second, first):
        engine.speak(inputs)
    assert conditioned == [150, 0]
    engine.speak(first | {"exaggeration": np.array([0.9], np.float32)})
    assert conditioned == [150, 0, 150]
    for seed in range(1, VOICES):  # the oldest is forgotten, which is not the first, asked for since
        engine.speak(request(t3.text_tokens(TEXTS[0]), tiny_voices(seed)["default"], max_tokens=3))
        engine.speak(first)
    conditioned.clear()
    engine.speak(first)
    assert conditioned == []
    engine.speak(second)
    assert conditioned == [0]


def test_voices_that_differ_in_one_part_are_told_apart(engine: Engine, reference: Reference, t3: T3) -> None:
    voice = t3.voices["default"]
    tokens = voice.cond_prompt_speech_tokens
    others = [
        voice,
        replace(voice, speaker_emb=-voice.speaker_emb),
        replace(voice, cond_prompt_speech_tokens=tokens[:, :-1]),
        replace(voice, cond_prompt_speech_tokens=np.roll(tokens, 1)),
        replace(voice, exaggeration=voice.exaggeration + 1),
    ]
    spoken = []
    for other in others:
        inputs = request(t3.text_tokens(TEXTS[0]), other, max_tokens=20)
        spoken.append(engine.speak(inputs).tolist())
        assert spoken[-1] == reference.speak(inputs).tolist()
    assert len({str(tokens) for tokens in spoken}) == len(others)


# --- keys and values ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder(files: dict[str, Path]) -> Decoder:
    return Decoder(session(files[LANGUAGE_MODEL], 1))


def test_a_decoder_knows_its_graph(decoder: Decoder, made: tuple[Path, Loaded]) -> None:
    config = made[1].module.config
    assert decoder.past == [f"past_key_values.{n}.{part}" for n in range(2) for part in ("key", "value")]
    assert (decoder.heads, decoder.head_size, decoder.hidden) == (config.heads, config.head_size, config.hidden_size)
    assert (decoder.vocabulary, decoder.dtype, decoder.aligns) == (config.speech_vocab, np.float32, True)


@pytest.fixture(scope="module")
def small(files: dict[str, Path], made: tuple[Path, Loaded], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Files of graphs that hold keys and values in 8 bits, and everything else as it was."""
    graph, loaded = ir.load(files[LANGUAGE_MODEL]), made[1]
    reach = key_value_reach(files, MODEL.cases(loaded.config, loaded.voices, "calibration"), 1)
    quantize_key_values(graph, reach)
    path = tmp_path_factory.mktemp("small") / "language_model.onnx"
    save(graph, path, external=True)
    return {**files, LANGUAGE_MODEL: path}


def test_keys_and_values_of_8_bits_are_recognized(small: dict[str, Path], engine: Engine) -> None:
    decoder = Decoder(session(small[LANGUAGE_MODEL], 1))
    assert decoder.dtype == np.int8
    assert {array.dtype for array in KeyValues(decoder, 1, 5).arrays} == {np.dtype(np.int8)}
    assert Engine(small, 1).bytes_per_position * 4 == engine.bytes_per_position


@pytest.mark.parametrize("voice", ["default", VOICE])
@pytest.mark.parametrize("cfg_weight", [0.0, 0.5])
def test_keys_and_values_of_8_bits_say_nearly_the_same(
    small: dict[str, Path], files: dict[str, Path], t3: T3, voice: str, cfg_weight: float
) -> None:
    inputs = request(t3.text_tokens(TEXTS[2]), t3.voices[voice], cfg_weight=cfg_weight)
    tokens = {"tokens": np.random.default_rng(0).integers(0, 6561, 60)}
    made, exact = (T3Runner(f, 1).taps(inputs, ["logits"], tokens)["logits"] for f in (small, files))
    assert 0 < compare(made, exact, "logits")["logits_kl"] < 2e-3


def test_a_kept_voice_in_8_bits_says_what_a_new_one_does(small: dict[str, Path], t3: T3) -> None:
    warm = Engine(small, 1)
    for number, length in enumerate((5, 63, 65, 10)):
        for voice, weight in itertools.product(t3.voices, (0.5, 0.0)):
            inputs = request(text_of(length, number), t3.voices[voice], max_tokens=12, cfg_weight=weight)
            assert warm.speak(inputs).tolist() == Engine(small, 1).speak(inputs).tolist(), (length, voice, weight)


def test_bytes_of_a_position_are_of_both_rows_of_every_layer(engine: Engine) -> None:
    assert engine.bytes_per_position == 2 * 2 * 2 * 128 * 4  # rows, layers, key and value, hidden, float32


@pytest.mark.parametrize(
    ("positions", "capacity"), [(1, BLOCK), (BLOCK, BLOCK), (BLOCK + 1, 2 * BLOCK), (1300, 3 * BLOCK)]
)
@pytest.mark.parametrize("rows", [1, 2])
def test_buffers_have_whole_blocks_of_positions(decoder: Decoder, rows: int, positions: int, capacity: int) -> None:
    held = KeyValues(decoder, rows, positions)
    assert (held.rows, held.capacity) == (rows, capacity)
    assert [array.shape for array in held.arrays] == [(rows, 2, capacity, 64)] * 4


def test_what_lies_in_buffers_from_before_does_not_matter(decoder: Decoder) -> None:
    random = np.random.default_rng(0)
    prompt, step = (random.standard_normal((1, n, decoder.hidden), np.float32) for n in (9, 1))
    fresh = KeyValues(decoder, 2, 20)
    used = KeyValues(decoder, 2, 20)
    for array in used.arrays:
        array[:] = np.nan
    results = []
    for held in (fresh, used):
        logits = [held.fill(row, prompt, 0).logits.copy() for row in range(2)]
        attention = held.fill(0, prompt, 0).attention
        stepped = held.step(step, 9)
        results.append([*logits, attention, stepped.logits.copy(), stepped.attention])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    assert results[0][2].shape == (9, 9)
    assert results[0][4].shape == (1, 10)
    np.testing.assert_array_equal(results[0][0], results[0][1])


def test_rows_are_filled_and_copied_each_on_its_own(decoder: Decoder) -> None:
    random = np.random.default_rng(0)
    prompts = [random.standard_normal((1, 9, decoder.hidden), np.float32) for _ in range(2)]
    step = random.standard_normal((1, 1, decoder.hidden), np.float32)
    alone = [KeyValues(decoder, 1, 20) for _ in prompts]
    expected = []
    for held, prompt in zip(alone, prompts, strict=True):
        held.fill(0, prompt, 0)
        expected.append(held.step(step, 9).logits.copy())
    together = KeyValues(decoder, 2, 20)
    together.fill(1, prompts[1], 0)
    alone[0].fill(0, prompts[0], 0)
    together.copy_from([array[0] for array in alone[0].arrays], 0, 9)
    np.testing.assert_allclose(together.step(step, 9).logits, np.concatenate(expected), atol=1e-5)


def test_buffers_grow_when_a_longer_request_comes(files: dict[str, Path], reference: Reference, t3: T3) -> None:
    engine = Engine(files, 1)
    for most, capacity in ((20, BLOCK), (BLOCK, 2 * BLOCK), (20, 2 * BLOCK)):
        inputs = request(t3.text_tokens(TEXTS[0]), t3.voices["default"], max_tokens=most)
        assert engine.speak(inputs).tolist() == reference.speak(inputs).tolist()
        assert [h.capacity for h in engine._idle if h.rows == 2] == [capacity]


def test_the_longest_request_can_be_served(engine: Engine, reference: Reference, t3: T3) -> None:
    """Every position of the text, and every one of speech."""
    config = t3.config
    most, prompt = config.max_speech_tokens, np.arange(config.speech_positions)[None]
    voice = replace(t3.voices["default"], cond_prompt_speech_tokens=prompt)
    limits = {"max_tokens": most, "min_tokens": most}
    inputs = request(text_of(config.text_positions, 1), voice, **limits)
    spoken = engine.speak(inputs)
    assert len(spoken) == most
    assert spoken.tolist() == reference.speak(inputs).tolist()


# --- what cannot be served ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": ""}, "the text is empty"),
        ({"text": " \n\t"}, "the text is empty"),
        ({"voice": "nobody"}, r"unknown voice 'nobody'; voices: default, second, or a \.pt or \.safetensors file"),
        ({"voice": "no/such.pt"}, "unknown voice"),
        ({"voice": "/"}, "unknown voice"),
        ({"voice": "x" * 5000}, "unknown voice"),
        ({"voice": "x" * 5000 + ".pt"}, "unknown voice"),
        ({"voice": "nul\0.pt"}, "unknown voice"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be from 1 to 1020"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"max_tokens": 1021}, "max_tokens is 1021; it must be from 1 to 1020"),
        ({"temprature": 1.0}, "unknown option temprature; sampling options: cfg_weight, "),
        ({"min_tokens": 5}, "unknown option min_tokens"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"cfg_weight": float("nan")}, "cfg_weight is nan"),
        ({"text": "a" * 255}, "a text of 258 tokens; this checkpoint takes 1 to 256"),
        ({"language": "fr"}, "language 'fr' is not spoken by this release; it speaks en"),
        ({"seed": -1}, "seed"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_what_cannot_be_spoken_is_refused_at_once(t3: T3, changes: dict[str, Any], message: str) -> None:
    asked = {"text": TEXTS[0], **changes}
    for speak in (t3.stream, t3.speech_tokens):  # neither is read from
        with pytest.raises(BadInput, match=message) as caught:
            speak(**asked)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("exaggeration", [float("nan"), float("inf")])
def test_an_emotion_that_is_no_number_is_refused_at_once(t3: T3, exaggeration: float) -> None:
    with pytest.raises(BadInput, match="exaggeration"):
        t3.stream(TEXTS[0], exaggeration=exaggeration)


def test_english_is_the_language_of_an_english_release(t3: T3) -> None:
    np.testing.assert_array_equal(t3.text_tokens(TEXTS[0], "en"), t3.text_tokens(TEXTS[0]))


def test_a_text_of_as_many_tokens_as_there_are_positions_is_spoken(t3: T3) -> None:
    text = "A" * 253 + "."
    assert t3.text_tokens(text).shape == (1, 256)
    assert len(t3.speech_tokens(text, max_tokens=3))
    with pytest.raises(BadInput, match="257 tokens"):
        t3.stream(text + ".", max_tokens=3)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[255, 704, 0]], "text tokens must be from 0 to 703"),
        ([[255, -1, 0]], "text tokens must be from 0 to 703"),
        ([[6561]], "text tokens must be"),
        (np.zeros((1, 0), np.int64), "a text of 0 tokens"),
        (np.zeros((1, 257), np.int64), "a text of 257 tokens"),
    ],
)
def test_an_engine_refuses_tokens_that_there_are_none_of(engine: Engine, t3: T3, tokens: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        engine.speak(request(np.asarray(tokens), t3.voices["default"]))
    assert not engine._prefixes


def test_without_a_limit_speech_has_the_authors_or_the_tables(engine: Engine, t3: T3) -> None:
    inputs = request(t3.text_tokens(TEXTS[0]), t3.voices["default"])
    assert engine.request(inputs).max_tokens == MAX_TOKENS
    short = replace(t3.config, max_speech_tokens=70)
    assert runtime.request_of(inputs, short, True).max_tokens == 70


@pytest.mark.parametrize(
    ("name", "content"), [("empty.pt", b""), ("text.safetensors", b"not a voice"), ("cut.pt", b"PK\x03\x04")]
)
def test_a_file_that_is_no_voice_is_named(t3: T3, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=name) as caught:
        t3.stream(TEXTS[0], voice=str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_voice_of_another_width_is_refused(t3: T3, tmp_path: Path) -> None:
    write_voice(tmp_path / "wide.pt", t3.voices["default"], speaker_emb=np.zeros((1, 192), np.float32))
    with pytest.raises(BadInput, match=r"wide.pt: speaker_emb has shape \[1, 192\], expected \[1, 256\]"):
        t3.stream(TEXTS[0], voice=str(tmp_path / "wide.pt"))


@pytest.mark.parametrize("variant", ["fp16", "int4", "int3"])
def test_a_variant_that_is_not_there_is_refused(release: Path, variant: str) -> None:
    with pytest.raises(OutsideError, match=f"no {variant} variant|no variant '{variant}'"):
        T3.open(release, variant)


def damaged(content: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(content)) and None


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "tokenizer.json").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        damaged([]),
        damaged({}),
        damaged({"t3_config": {"layers": 2, "what": 1}}),
        lambda folder: (folder / f"voices/{VOICE}.safetensors").write_bytes(b"\0" * 100),
    ],
)
def test_a_folder_that_is_no_release_is_refused(
    release: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copy_assets(release, tmp_path)
    assert read_assets(tmp_path)[1].keys() == {"default", VOICE}
    damage(tmp_path)
    with pytest.raises(OutsideError, match="is not a T3 release"):
        read_assets(tmp_path)


def test_a_release_without_voices_is_refused(release: Path, tmp_path: Path) -> None:
    copy_assets(release, tmp_path)
    for path in (tmp_path / "voices").iterdir():
        path.unlink()
    with pytest.raises(OutsideError, match="has no voices"):
        read_assets(tmp_path)


# --- of many languages ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def polyglot(multilingual: tuple[Path, Loaded]) -> T3:
    return T3.open(multilingual[0], "fp32", threads=1)


def test_a_multilingual_checkpoint_is_analyzed_unless_switched_off(
    multilingual: tuple[Path, Loaded], polyglot: T3, t3: T3
) -> None:
    reference, asked = Reference(multilingual[1].module.model, 1), {"max_tokens": 150, "repetition_penalty": 2.0}
    differ = 0
    for text, seed in itertools.product(TEXTS, range(2)):
        inputs = request(polyglot.text_tokens(text), polyglot.voices["default"], seed=seed, **asked)
        spoken = {
            analyze: polyglot.speech_tokens(text, seed=seed, analyze=analyze, **asked).tolist()
            for analyze in (None, True, False)
        }
        for analyze in (True, False):
            expected = reference.speak(inputs | {"analyze": np.array(analyze)})
            assert spoken[analyze] == expected[expected < polyglot.config.start_speech].tolist()
        assert spoken[None] == spoken[True]
        differ += spoken[True] != spoken[False]
    assert differ
    assert t3._engine.request(request(t3.text_tokens("a"), t3.voices["default"])).analyzer is None


def test_the_repetition_penalty_is_the_authors_for_its_languages(polyglot: T3, t3: T3) -> None:
    for speaks, authors, other in ((t3, 1.2, 2.0), (polyglot, 2.0, 1.2)):
        free = speaks.speech_tokens(TEXTS[2], max_tokens=MOST).tolist()
        assert speaks.speech_tokens(TEXTS[2], max_tokens=MOST, repetition_penalty=authors).tolist() == free
        assert speaks.speech_tokens(TEXTS[2], max_tokens=MOST, repetition_penalty=other).tolist() != free


def test_a_checkpoint_without_alignment_heads_is_never_analyzed(tmp_path: Path) -> None:
    write_release(tmp_path, multilingual=True, config={"alignment_heads": ()})
    t3 = T3.open(tmp_path, "fp32", threads=1)
    assert not t3._engine._decoder.aligns
    spoken = [t3.speech_tokens(TEXTS[0], analyze=a, max_tokens=30).tolist() for a in (None, True, False)]
    assert spoken[0] == spoken[1] == spoken[2]


def test_a_language_has_its_tag_and_english_is_the_default(polyglot: T3) -> None:
    first = polyglot.config.text_vocab - len(LANGUAGES)
    for number, language in enumerate(LANGUAGES):
        assert polyglot.text_tokens(TEXTS[0], language)[0, :2].tolist() == [255, first + number]
    np.testing.assert_array_equal(polyglot.text_tokens(TEXTS[0]), polyglot.text_tokens(TEXTS[0], "en"))
    spoken = {polyglot.speech_tokens(TEXTS[0], language=x, max_tokens=30).tobytes() for x in LANGUAGES}
    assert len(spoken) == len(LANGUAGES)


@pytest.mark.parametrize("language", ["xx", "ja", "english"])
def test_a_language_without_a_tag_is_refused_at_once(polyglot: T3, language: str) -> None:
    with pytest.raises(BadInput, match=f"language '{language}'"):
        polyglot.stream(TEXTS[0], language=language)


# --- helpers --------------------------------------------------------------------------------------------------


def idle(engine: Engine) -> list[int]:
    """Rows of the buffers in the pool."""
    return sorted(held.rows for held in engine._idle)


def text_of(length: int, seed: int) -> np.ndarray:
    """Tokens of a text, start and stop among them."""
    return np.random.default_rng(seed).integers(1, 700, (1, length))


def copy_assets(release: Path, folder: Path) -> None:
    (folder / "voices").mkdir()
    for path in (*(release / "voices").iterdir(), release / "config.json", release / "tokenizer.json"):
        (folder / path.relative_to(release)).write_bytes(path.read_bytes())
