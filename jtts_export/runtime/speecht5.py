"""SpeechT5 from a release: text to audio with numpy and onnxruntime.

tts = SpeechT5.open(Path("release/speecht5"), "int8")
audio = tts.synthesize("Hello there.", voice="slt").audio
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jtts_export.errors import BadInput, OutsideError

from .frontend import encodable, split_phonemes
from .names import released
from .session import session
from .speecht5_decoder import Decoder

if TYPE_CHECKING:
    import onnxruntime as ort

GRAPHS = ENCODER, DECODER, VOCODER = "onnx/encoder_model", "onnx/decoder", "vocoder/onnx/model"
CONTEXT = "context_frames"  # in the vocoder's metadata: on each side, what a frame's audio depends on
FIRST_FRAMES, MOST_FRAMES = 6, 192  # of a streamed chunk: the first is short, each next one twice as long
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Speech:
    """Audio, float32 [samples] at the release's sample rate, and the text that it speaks."""

    audio: np.ndarray
    text: str


class Engine:
    """Encoder, decoder and vocoder: tokens and x-vector in, audio out."""

    def __init__(self, files: Mapping[str, Path], threads: int = 0) -> None:
        self._encoder, decoder, self._vocoder = (session(files[g], threads, among_others=True) for g in GRAPHS)
        self._decoder = Decoder(decoder)
        self.context = int(self._vocoder.get_modelmeta().custom_metadata_map[CONTEXT])

    def speak(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """One utterance, float32 [samples]. inputs: see Decoder.steps()."""
        frames = [spectrum for spectrum, _ in self.steps(inputs)]
        return self._vocode(np.concatenate(frames))

    def stream(self, inputs: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
        """The same in pieces, float32 [samples], each as soon as the frames that it depends on are there."""
        frames: list[np.ndarray] = []
        made, spoken, size = 0, 0, FIRST_FRAMES
        for spectrum, _ in self.steps(inputs):
            frames.append(spectrum)
            made += len(spectrum)
            if made >= spoken + size + self.context:
                yield self.piece(frames, spoken, spoken + size)
                spoken, size = spoken + size, min(2 * size, MOST_FRAMES)
        yield self.piece(frames, spoken, made)

    def steps(self, inputs: Mapping[str, np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Spectrum and stop probabilities, step by step: see Decoder.steps()."""
        return self._decoder.steps(self._encode(inputs), inputs)

    def piece(self, frames: list[np.ndarray], start: int, end: int) -> np.ndarray:
        """Audio of frames `start` to `end`, with the context they need around them."""
        reduction = self._decoder.reduction
        first = max(0, start - self.context) // reduction
        last = -(-(end + self.context) // reduction)
        around = np.concatenate(frames[first:last])
        audio = self._vocode(around)
        hop = len(audio) // len(around)
        return audio[(start - first * reduction) * hop : (end - first * reduction) * hop]

    def _encode(self, inputs: Mapping[str, np.ndarray]) -> dict[str, ort.OrtValue]:
        """Keys and values of the cross-attention, left where onnxruntime made them."""
        binding = self._encoder.io_binding()
        binding.bind_cpu_input("input_ids", inputs["input_ids"])
        for name in self._decoder.memory:
            binding.bind_output(name, "cpu")
        self._encoder.run_with_iobinding(binding)
        return dict(zip(self._decoder.memory, binding.get_outputs(), strict=True))

    def _vocode(self, spectrogram: np.ndarray) -> np.ndarray:
        (waveform,) = self._vocoder.run(["waveform"], {"spectrogram": spectrogram})
        return waveform


class SpeechT5:
    """Graphs, tokenizer and speakers. Loading takes a second; keep and reuse the object."""

    def __init__(
        self,
        files: Mapping[str, Path],
        config: Mapping[str, Any],
        speakers: Mapping[str, np.ndarray],
        threads: int = 0,
    ) -> None:
        """config: "model" and "vocoder", the checkpoint's own, and "tokenizer", a tokenizer.json.
        speakers: name -> x-vector, float32 [size]."""
        from tokenizers import Tokenizer

        self.voices = speakers
        self.sample_rate_hz = int(config["vocoder"]["sampling_rate"])
        self.max_tokens = int(config["model"]["max_text_positions"])
        self._tokenizer = Tokenizer.from_str(json.dumps(config["tokenizer"]))
        # What is left of a text of which nothing can be said.
        silent = self._tokenizer.token_to_id("<unk>"), self._tokenizer.token_to_id("\u2581")
        self._silent = {*silent, int(config["model"]["eos_token_id"])}
        self._width = int(config["model"]["speaker_embedding_dim"])
        self._files, self._threads = files, threads
        self._engine = Engine(files, threads)

    @classmethod
    def open(cls, release: Path, variant: str = "int8", threads: int = 0) -> SpeechT5:
        """A variant of a release folder. Raises OutsideError where it has none."""
        return cls(released(release, GRAPHS, variant), *read_assets(release), threads)

    def synthesize(self, text: str, *, voice: str = "") -> Speech:
        """Speak a text whole. One with more tokens than the checkpoint has positions is split at sentence ends.

        voice: a speaker's name, the first by default, or a file with an x-vector. Raises BadInput for a request
        that cannot be served.
        """
        requests = self._requests(text, voice)
        return Speech(np.concatenate([self._engine.speak(inputs) for inputs in requests]), text)

    def stream(self, text: str, *, voice: str = "") -> Iterator[Speech]:
        """The same audio in pieces, the first after a tenth of the time. Errors in the request are raised before
        the first piece."""
        requests = self._requests(text, voice)
        return (Speech(piece, text) for inputs in requests for piece in self._engine.stream(inputs))

    def taps(self, text: str, wanted: list[str], *, voice: str = "") -> dict[str, np.ndarray]:
        """Named tensors inside the synthesis of a text of one pass: see speecht5_taps.TAPS. Loads the graphs anew;
        needs the onnx package."""
        from .speecht5_taps import SpeechT5Runner

        (inputs,) = self._requests(text, voice)
        return SpeechT5Runner(self._files, self._threads).taps(inputs, wanted)

    def tokens(self, text: str) -> np.ndarray:
        """int64 [1, tokens], the end token last. Raises BadInput where nothing is left to say."""
        ids = self._ids(text)
        if self._silent.issuperset(ids):
            raise BadInput("the text holds nothing that this checkpoint can say")
        if len(ids) > self.max_tokens:
            raise BadInput(f"a sentence of {len(ids)} tokens is too long; this checkpoint takes {self.max_tokens}")
        return np.array([ids], np.int64)

    def speaker(self, voice: str) -> np.ndarray:
        """A speaker's x-vector, float32 [1, size], by name or from a .npy or .bin file."""
        name = voice or next(iter(self.voices))
        if name in self.voices:
            return self.voices[name][None]
        if not os.path.isfile(name):  # noqa: PTH113 - a name of any length
            raise BadInput(f"unknown voice '{name}'; voices: {', '.join(sorted(self.voices))}, or an x-vector's file")
        return read_speaker(Path(name), self._width)[None]

    def _requests(self, text: str, voice: str) -> list[dict[str, np.ndarray]]:
        if not encodable(text).strip():
            raise BadInput("the text is empty")
        speaker = self.speaker(voice)
        # A character is a token; a mark ahead, an end behind.
        pieces = [p for p in self._pieces(text, self.max_tokens - 2) if not self._silent.issuperset(self._ids(p))]
        return [{"input_ids": self.tokens(piece), "speaker_embeddings": speaker} for piece in pieces or [text]]

    def _pieces(self, text: str, limit: int) -> list[str]:
        """The text whole if it fits, else in pieces of at most `limit` characters: of fewer where some, as an
        ellipsis, are several tokens."""
        if len(self._ids(text)) <= self.max_tokens or limit < 1:
            return [text]
        return [part for piece in split_phonemes(text, limit) for part in self._pieces(piece, limit // 2)]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer.encode(encodable(text)).ids


Runtime = SpeechT5


def read_speaker(path: Path, size: int) -> np.ndarray:
    """An x-vector float32 [size] from a .npy file, or one of raw little-endian float32. Raises BadInput naming it."""
    try:
        raw = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.frombuffer(path.read_bytes(), "<f4")
        with np.errstate(over="ignore"):
            vector = raw.astype(np.float32, casting="same_kind").reshape(-1)
    except Exception as error:  # there is no telling what damaged bytes raise
        raise BadInput(f"{path} holds no x-vector: {error}") from error
    if len(vector) != size or not np.isfinite(vector).all() or not vector.any():
        raise BadInput(f"{path} holds no x-vector: {size} finite numbers are wanted, it has {len(vector)}")
    return vector


def read_assets(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Configs and tokenizer, and speakers/*.bin. Raises OutsideError where they are not there."""
    try:
        parts = {"model": "config.json", "vocoder": "vocoder/config.json", "tokenizer": TOKENIZER}
        config = {part: json.loads((folder / name).read_text(encoding="utf-8")) for part, name in parts.items()}
        width = int(config["model"]["speaker_embedding_dim"])
        paths = sorted((folder / "speakers").glob("*.bin"))
        speakers = {path.stem: np.fromfile(path, "<f4").reshape(width) for path in paths}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutsideError(f"{folder} is not a SpeechT5 release: {error}") from error
    if not speakers:
        raise OutsideError(f"{folder} has no speakers")
    return config, speakers
