"""T3 (Chatterbox) from a release: text to speech tokens, 25 a second, with numpy and onnxruntime.

t3 = T3.open(Path("release/t3"), "int8")
for token in t3.stream("Hello there.", seed=1): ...

Loading takes a second; keep and reuse the object. Threads may share it: each stream has keys and values of its own,
taken from a pool.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jtts_export.errors import BadInput, CheckpointError, OutsideError
from jtts_export.models.t3.conditioning import Voice, check_voice, read_voice
from jtts_export.models.t3.config import T3Config

from .names import released
from .session import open_graph
from .t3_alignment import AlignmentAnalyzer
from .t3_decoder import Decoder, KeyValues
from .t3_generation import Output, Request, generate
from .t3_sampling import Sampling
from .t3_text import encode, normalize

if TYPE_CHECKING:
    import onnx

GRAPHS = CONDITIONING, EMBED, LANGUAGE_MODEL = "onnx/conditioning", "onnx/embed_tokens", "onnx/language_model"
CONFIG = "t3_config"  # in the metadata of embed_tokens: what tokens mean, as JSON
TOKENS_PER_SECOND = 25
MAX_TOKENS = 1000  # as the authors' generate()
MULTILINGUAL_PENALTY = 2.0  # of repetition, likewise
NO_TEXT = -1  # embed_tokens makes it a position without a token: the row that guidance leads away from
VOICES = 4  # whose prefix is kept, each about 250 kB a position
TEXT_BLOCK = 64  # tokens that the prefix of a voice grows by
_SAMPLING = [field.name for field in fields(Sampling)]


@dataclass(frozen=True)
class Prompted:
    """An utterance that can be spoken: what the model says behind the prompt of so many positions, with a row of
    attention for each start of speech."""

    first: Output
    positions: int
    key_values: KeyValues
    embed: Callable[[np.ndarray, np.ndarray], np.ndarray]

    def feed(self, token: int, position: int) -> Output:
        """What the model says behind one more token, at a position of speech that is 1 for the first."""
        embeds = self.embed(np.array([[token]]), np.array([[position]]))
        return self.key_values.step(embeds, self.positions + position - 1)


@dataclass(frozen=True)
class _Prefix:
    """What a voice's utterances begin with: embeddings [1, positions, hidden], and keys and values [heads, positions,
    head size] of those and of text positions without text."""

    embeds: np.ndarray
    arrays: list[np.ndarray]

    @property
    def positions(self) -> int:
        return self.arrays[0].shape[1]


class Engine:
    """Conditioning, embeddings and language model: text tokens and a voice in, speech tokens out.

    inputs: text_tokens int64 [1, n] with start and stop, and a voice's speaker_emb [1, size],
    cond_prompt_speech_tokens int64 [1, m] and exaggeration [1]. As scalars, if not the defaults: max_tokens,
    min_tokens, seed, analyze, and the fields of Sampling.
    """

    def __init__(self, files: Mapping[str, Path | onnx.ModelProto], threads: int = 0) -> None:
        # A server sees every length of text: without an arena, memory stays what the longest one takes.
        self._conditioning = open_graph(files[CONDITIONING], threads, arena=False)
        self._embed = open_graph(files[EMBED], 1, arena=False)
        self._decoder = Decoder(open_graph(files[LANGUAGE_MODEL], threads, arena=False))
        self.config = T3Config(**json.loads(self._embed.get_modelmeta().custom_metadata_map[CONFIG]))
        self._lock = threading.Lock()
        self._idle: list[KeyValues] = []
        self._prefixes: OrderedDict[bytes, _Prefix] = OrderedDict()

    @property
    def bytes_per_position(self) -> int:
        """Of keys and values, under guidance."""
        held = self._decoder
        return 2 * len(held.past) * held.heads * held.head_size * np.dtype(held.dtype).itemsize

    def speak(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """One utterance, int64 [tokens]."""
        return np.fromiter(self.tokens(inputs), np.int64)

    def stream(self, inputs: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
        """The same in pieces of one token, as tokens()."""
        return (np.array([token]) for token in self.tokens(inputs))

    def tokens(self, inputs: Mapping[str, np.ndarray]) -> Iterator[int]:
        """The same one by one. Raises BadInput for inputs that the checkpoint has no positions for."""
        request = self.request(inputs)
        with self.prompted(inputs, request.sampling.cfg_weight != 0, request.max_tokens) as begun:
            yield from generate(begun.first, begun.feed, request)

    def request(self, inputs: Mapping[str, np.ndarray]) -> Request:
        """What `inputs` ask of the loop that chooses tokens."""
        return request_of(inputs, self.config, self._decoder.aligns)

    @contextmanager
    def prompted(self, inputs: Mapping[str, np.ndarray], guided: bool, max_tokens: int) -> Iterator[Prompted]:
        """The prompt taken in, with buffers for as many tokens."""
        text, config = inputs["text_tokens"], self.config
        prefix = self._prefix(inputs, text.shape[1] if guided else 0)
        begun, spoken = prefix.embeds.shape[1], prefix.embeds.shape[1] + text.shape[1]
        starts = np.full((1, 2), config.start_speech)
        positions = np.concatenate([np.arange(text.shape[1]), [0, 0]])[None]
        embeds = self.embed(np.concatenate([text, starts], 1), positions)
        with self._key_values(2 if guided else 1, spoken + 2 + max_tokens) as held:
            held.copy_from(prefix.arrays, 0, begun)
            first = held.fill(0, embeds, begun)
            rows = [first.logits]
            if guided:
                held.copy_from(prefix.arrays, 1, spoken)
                rows.append(held.fill(1, embeds[:, -2:], spoken).logits)
            attention = None if first.attention is None else first.attention[-2:]
            yield Prompted(Output(np.concatenate(rows), attention), spoken + 2, held, self.embed)

    def embed(self, tokens: np.ndarray, positions: np.ndarray, exaggeration: float = 0.0) -> np.ndarray:
        """int64 [rows, n] and [rows, n] -> [rows, n, hidden]. A token alone in its row is a speech token."""
        feed = {
            "input_ids": tokens,
            "position_ids": positions,
            "exaggeration": np.array([exaggeration], np.float32),
        }
        (embeds,) = self._embed.run(["inputs_embeds"], feed)
        return embeds

    def emotion(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of a request's exaggeration, [1, 1, hidden]."""
        tokens = np.array([[self.config.exaggeration_token, NO_TEXT]])  # alone it would be of speech
        return self.embed(tokens, np.zeros((1, 2), int), float(inputs["exaggeration"][0]))[:, :1]

    def condition(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """A voice [1, 1 + queries (none without a prompt), hidden]."""
        tokens = inputs["cond_prompt_speech_tokens"]
        # A column, so that each is a token alone: one of speech.
        prompt = self.embed(tokens.T, np.arange(tokens.size)[:, None]).swapaxes(0, 1)
        feed = {"speaker_emb": inputs["speaker_emb"], "cond_prompt_speech_emb": prompt}
        (cond,) = self._conditioning.run(["cond_emb"], feed)
        return cond

    def _prefix(self, inputs: Mapping[str, np.ndarray], text_length: int) -> _Prefix:
        """The voice's, kept from earlier calls where it has as many text positions."""
        parts = [inputs[name] for name in ("speaker_emb", "cond_prompt_speech_tokens", "exaggeration")]
        key = hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest()
        with self._lock:
            found = self._prefixes.get(key)
            if found and found.positions >= found.embeds.shape[1] + text_length:
                self._prefixes.move_to_end(key)
                return found
        made = self._made_prefix(inputs, min(-(-text_length // TEXT_BLOCK) * TEXT_BLOCK, self.config.text_positions))
        with self._lock:
            self._prefixes[key] = made
            self._prefixes.move_to_end(key)
            while len(self._prefixes) > VOICES:
                self._prefixes.popitem(last=False)
        return made

    def _made_prefix(self, inputs: Mapping[str, np.ndarray], text_length: int) -> _Prefix:
        parts = [self.condition(inputs), self.emotion(inputs)]
        voice = np.concatenate(parts, 1)
        if text_length:
            parts.append(self.embed(np.full((1, text_length), NO_TEXT), np.arange(text_length)[None]))
        embeds = np.concatenate(parts, 1)
        with self._key_values(1, embeds.shape[1]) as held:
            held.fill(0, embeds, 0)
            return _Prefix(voice, [array[0, :, : embeds.shape[1]].copy() for array in held.arrays])

    @contextmanager
    def _key_values(self, rows: int, positions: int) -> Iterator[KeyValues]:
        """Buffers of this size or larger, from the pool or new."""
        with self._lock:
            mine = next((h for h in self._idle if h.rows == rows), None)
            if mine:
                self._idle.remove(mine)
        if mine is None or mine.capacity < positions:
            mine = KeyValues(self._decoder, rows, positions)
        try:
            yield mine
        finally:
            with self._lock:
                self._idle.append(mine)


def request_of(inputs: Mapping[str, np.ndarray], config: T3Config, aligns: bool) -> Request:
    """What `inputs` (see Engine) ask of the loop that chooses tokens. Raises BadInput where the checkpoint has no
    positions for it, or no such tokens."""
    text, prompt = inputs["text_tokens"], inputs["cond_prompt_speech_tokens"]
    most = int(inputs.get("max_tokens", min(MAX_TOKENS, config.max_speech_tokens)))
    if not 1 <= most <= config.max_speech_tokens:
        raise BadInput(f"max_tokens is {most}; it must be from 1 to {config.max_speech_tokens}")
    if not 1 <= text.shape[1] <= config.text_positions:
        raise BadInput(f"a text of {text.shape[1]} tokens; this checkpoint takes 1 to {config.text_positions}")
    if not (text.min() >= 0 and text.max() < config.text_vocab):
        raise BadInput(f"text tokens must be from 0 to {config.text_vocab - 1}")
    if not np.isfinite(inputs["exaggeration"]).all():
        raise BadInput(f"exaggeration is {float(inputs['exaggeration'][0])}; it must be a finite number")
    if int(inputs.get("seed", 0)) < 0:
        raise BadInput(f"seed is {int(inputs['seed'])}; it must not be negative")
    begun = 1 + (config.queries if prompt.shape[1] else 0) + 1
    analyze = aligns and bool(inputs.get("analyze", config.is_multilingual))
    return Request(
        start=config.start_speech,
        stop=config.stop_speech,
        max_tokens=most,
        min_tokens=int(inputs.get("min_tokens", 0)),
        sampling=Sampling(**{name: float(inputs[name]) for name in _SAMPLING if name in inputs}),
        seed=int(inputs.get("seed", 0)),
        text=slice(begun, begun + text.shape[1]),
        analyzer=AlignmentAnalyzer(text.shape[1], config.stop_speech) if analyze else None,
    )


class T3:
    """Graphs, tokenizer and voices."""

    def __init__(
        self, files: Mapping[str, Path], config: Mapping[str, Any], voices: Mapping[str, Voice], threads: int = 0
    ) -> None:
        """config: "model", the fields of T3Config, and "tokenizer", a tokenizer.json."""
        from tokenizers import Tokenizer

        self.config = T3Config(**config["model"])
        self.voices = voices
        self._tokenizer = Tokenizer.from_str(json.dumps(config["tokenizer"]))
        self._engine = Engine(files, threads)

    @classmethod
    def open(cls, release: Path, variant: str = "int8", threads: int = 0) -> T3:
        """A variant of a release folder. Raises OutsideError where it has none."""
        return cls(released(release, GRAPHS, variant), *read_assets(release), threads)

    @property
    def tokens_per_second(self) -> int:
        return TOKENS_PER_SECOND

    def speech_tokens(self, text: str, **request: Any) -> np.ndarray:
        """All of stream()'s, int64 [tokens]."""
        return np.fromiter(self.stream(text, **request), np.int64)

    def stream(
        self,
        text: str,
        *,
        voice: str = "",
        language: str | None = None,
        exaggeration: float | None = None,
        seed: int = 0,
        max_tokens: int | None = None,
        analyze: bool | None = None,
        cancel: threading.Event | None = None,
        **sampling: float,
    ) -> Iterator[int]:
        """Speech tokens of the vocoder's vocabulary, one by one as they are made.

        voice: a name, the first by default, or a file (.pt, .safetensors). language: of a multilingual checkpoint.
        exaggeration: the voice's by default. max_tokens: 25 are a second. analyze: end speech that repeats itself
        or lingers, and none early; by default of multilingual checkpoints, as the authors do. cancel: ends the
        stream before the next token. sampling: fields of Sampling. Errors in the request are raised at once, as
        BadInput.
        """
        if unknown := sorted(set(sampling) - set(_SAMPLING)):
            raise BadInput(f"unknown option {unknown[0]}; sampling options: {', '.join(_SAMPLING)}")
        chosen = self._voice(voice)
        given = {"max_tokens": max_tokens, "analyze": analyze, "seed": seed, **sampling}
        if self.config.is_multilingual and given.get("repetition_penalty") is None:
            given["repetition_penalty"] = MULTILINGUAL_PENALTY
        inputs = {
            "text_tokens": self.text_tokens(text, language),
            **vars(chosen),
            **{name: np.array(value) for name, value in given.items() if value is not None},
        }
        if exaggeration is not None:
            inputs["exaggeration"] = np.array([exaggeration], np.float32)
        self._engine.request(inputs)
        return self._stream(inputs, cancel)

    def text_tokens(self, text: str, language: str | None = None) -> np.ndarray:
        """int64 [1, tokens], start and stop included."""
        multilingual = self.config.is_multilingual
        ids = encode(self._tokenizer, normalize(text, multilingual), language or ("en" if multilingual else None))
        return np.array([[self.config.start_text, *ids, self.config.stop_text]], np.int64)

    def _stream(self, inputs: Mapping[str, np.ndarray], cancel: threading.Event | None) -> Iterator[int]:
        for token in self._engine.tokens(inputs):
            if cancel is not None and cancel.is_set():
                return
            if token < self.config.start_speech:  # others mean nothing to a vocoder
                yield token

    def _voice(self, voice: str) -> Voice:
        name = voice or next(iter(self.voices))
        if name in self.voices:
            return self.voices[name]
        path = Path(name)
        if path.suffix not in {".pt", ".safetensors"} or not os.path.isfile(name):  # noqa: PTH113 - of any length
            known = ", ".join(sorted(self.voices))
            raise BadInput(f"unknown voice '{name}'; voices: {known}, or a .pt or .safetensors file")
        try:
            return read_voice(path, path.name, self.config)
        except CheckpointError as error:
            raise BadInput(str(error)) from error


Runtime = T3


def read_assets(folder: Path) -> tuple[dict[str, Any], dict[str, Voice]]:
    """Config and tokenizer, and voices/*.safetensors. Raises OutsideError where they are not there."""
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        config = T3Config(**content[CONFIG])
        paths = sorted((folder / "voices").glob("*.safetensors"))
        voices = {path.stem: read_voice(path, path.name, config) for path in paths}
        for name, voice in voices.items():
            check_voice(voice, name, config)
    except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
        raise OutsideError(f"{folder} is not a T3 release: {error}") from error
    if not voices:
        raise OutsideError(f"{folder} has no voices")
    return {"model": content[CONFIG], "tokenizer": tokenizer}, voices
