"""SpeechT5's packages chained as an app chains them. numpy only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jtts_export.errors import BadInput
from jtts_export.runtime.draws import prenet_mask
from jtts_export.runtime.speecht5_decoder import MAX_STEPS_PER_TOKEN, STOP_THRESHOLD

from .stage import MAIN, Networks, State, has

ENCODER, DECODER, VOCODER = "encoder", "decoder", "vocoder"
SHORT = "short"
MULTIPLE = 32  # what the Neural Engine wants axes of states to be
MOST_STEPS = 2048  # 65 s, twice what the longest text takes
WINDOW_FRAMES = 288  # of audio that a window gains, 4.6 s
EDGE_KERNEL = 7  # of HiFi-GAN's first and last convolution: SpeechT5HifiGan

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Room:
    """How much a function of each package takes."""

    tokens: int
    steps: int
    frames: int


BRIEF = Room(tokens=256, steps=512, frames=96)


def rooms(config: Mapping[str, Any]) -> dict[str, Room]:
    """By function, of a checkpoint's config: "model" and "vocoder"."""
    model = config["model"]
    whole = Room(
        tokens=_rounded(model["max_text_positions"]),
        steps=_rounded(min(model["max_speech_positions"], MOST_STEPS)),
        frames=_rounded(2 * context_frames(config) + WINDOW_FRAMES),
    )
    fits = BRIEF.tokens < whole.tokens and BRIEF.steps < whole.steps and BRIEF.frames < whole.frames
    return {MAIN: whole, SHORT: BRIEF} if fits else {MAIN: whole}


def context_frames(config: Mapping[str, Any]) -> int:
    """On each side, what the audio of a frame depends on: speecht5_networks.Vocoder.context_frames."""
    model, vocoder = config["model"], config["vocoder"]
    blocks = zip(vocoder["resblock_kernel_sizes"], vocoder["resblock_dilation_sizes"], strict=True)
    block = max(sum((kernel - 1) // 2 * (dilation + 1) for dilation in dilations) for kernel, dilations in blocks)
    reach, rate = 0.0, 1
    for stride, kernel in zip(vocoder["upsample_rates"], vocoder["upsample_kernel_sizes"], strict=True):
        padding = (kernel - stride) // 2
        reach += max((kernel - 1 - padding) // stride, (stride - 1 + padding) // stride) / rate
        rate *= stride
        reach += block / rate
    postnet = model["speech_decoder_postnet_layers"] * (model["speech_decoder_postnet_kernel"] // 2)
    return postnet + EDGE_KERNEL // 2 + math.ceil(reach + (EDGE_KERNEL // 2) / rate)


class SpeechT5Chain:
    """Encoder, decoder step by step, and vocoder window by window. Every tap of an utterance is made once."""

    def __init__(self, networks: Networks, config: Mapping[str, Any]) -> None:
        self._networks, self._model = networks, config["model"]
        self._rooms = rooms(config)
        self._context, self._hop = context_frames(config), math.prod(config["vocoder"]["upsample_rates"])
        self._made: dict[tuple, dict[str, np.ndarray]] = {}

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        """Tensors by the names in speecht5_taps.TAPS, but for `encoder_states` and what is for other clients.
        `steps`, `encoder_outputs` and `spectrogram` can be forced."""
        return {name: self._tap(name, inputs, forced or {}) for name in wanted}

    def _tap(self, name: str, inputs: Arrays, forced: Arrays) -> np.ndarray:
        if name in forced:
            return forced[name]
        if name in ("encoder_outputs", "speaker"):
            return self._once("encoder", inputs, {}, self._encode)[name]
        forced = self._binding(inputs, forced)
        if name in ("steps", "spectrogram", "prob"):
            return self._once("decoder", inputs, forced, self._decode)[name]
        return self._once("vocoder", inputs, forced, self._vocode)[name]

    def _once(self, part: str, inputs: Arrays, forced: Arrays, make: Any) -> dict[str, np.ndarray]:
        key = (part, _digest(inputs), _digest(forced))
        if key not in self._made:
            self._made[key] = make(inputs, forced)
        return self._made[key]

    def _binding(self, inputs: Arrays, forced: Arrays) -> Arrays:
        """Without a length that the utterance is known to have by itself."""
        free = self._made.get(("decoder", _digest(inputs), ()))
        if "steps" not in forced or free is None or not np.array_equal(free["steps"], forced["steps"]):
            return forced
        return {name: value for name, value in forced.items() if name != "steps"}

    def _encode(self, inputs: Arrays, forced: Arrays) -> dict[str, np.ndarray]:
        tokens = inputs["input_ids"].shape[1]
        if tokens > self._rooms[MAIN].tokens:
            raise BadInput(f"a text of {tokens} tokens is too long; the encoder takes {self._rooms[MAIN].tokens}")
        function = self._smallest(ENCODER, "tokens", tokens)
        room = self._rooms[function].tokens
        made = self._networks[ENCODER].run(
            {
                "input_ids": _padded(inputs["input_ids"].astype(np.int32), room),
                "mask": _mask(tokens, room),
                "speaker_embeddings": inputs["speaker_embeddings"].astype(np.float32),
            },
            function,
        )
        memory = made["memory"].astype(np.float32)[:, :, :tokens]
        outputs = memory.reshape(-1, tokens).T[None]  # layer by layer, keys ahead of values
        return {"encoder_outputs": np.ascontiguousarray(outputs), "speaker": made["speaker"].astype(np.float32)}

    def _decode(self, inputs: Arrays, forced: Arrays) -> dict[str, np.ndarray]:
        outputs = self._tap("encoder_outputs", inputs, forced)
        memory = outputs[0].T.reshape(self._model["decoder_layers"], -1, outputs.shape[1]).astype(np.float32)
        limits = {"min_steps": forced["steps"][0], "max_steps": forced["steps"][0]} if "steps" in forced else {}
        steps = self._steps(memory, self._tap("speaker", inputs, {}), {**inputs, **limits})
        frames, probs = zip(*steps, strict=True)
        return {"spectrogram": np.concatenate(frames), "prob": np.stack(probs), "steps": np.array([len(frames)])}

    def _steps(
        self, memory: np.ndarray, speaker: np.ndarray, inputs: Arrays
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Spectrum f32 [reduction, mels] and stop probability f32 [reduction] of each step, to the last: see
        runtime.speecht5_decoder.Decoder.steps(). memory: f32 [layers, 2 x hidden, tokens]."""
        tokens, reduction = memory.shape[2], self._model["reduction_factor"]
        least = int(inputs.get("min_steps", 0))
        most = max(int(inputs.get("max_steps", tokens * MAX_STEPS_PER_TOKEN // reduction)), least, 1)
        threshold = float(inputs.get("threshold", STOP_THRESHOLD))
        history, kept = inputs.get("spectrogram"), self._kept(inputs)
        frame = np.zeros((1, self._model["num_mel_bins"]), np.float32)
        room = self._rooms[function := self._smallest(DECODER, "tokens", tokens)]
        text = self._text(speaker, memory, room)
        cache = _Cache(self._networks, self._model, function, room.steps)
        end = min(len(kept), self._rooms[MAIN].steps)
        for number in range(most):
            if number == end:
                raise BadInput(f"the speech has not ended after {number} steps, the most the decoder can speak")
            if number == room.steps:
                room = self._rooms[MAIN]
                text, cache = self._text(speaker, memory, room), cache.grown(MAIN, room.steps)
            kept_now, position = kept[number].astype(np.float32), np.array([number], np.int32)
            spectrum, prob = cache.run({**text, "frame": frame, "kept": kept_now, "position": position})
            yield spectrum, prob
            if number + 1 >= least and prob.sum() >= threshold:
                return
            frame = spectrum[-1:] if history is None else history[(number + 1) * reduction - 1][None]

    def _text(self, speaker: np.ndarray, memory: np.ndarray, room: Room) -> Arrays:
        """What goes into every step of a function."""
        mask = _mask(memory.shape[2], room.tokens)
        return {"speaker": speaker, "memory": _padded(memory, room.tokens), "mask": mask}

    def _kept(self, inputs: Arrays) -> np.ndarray:
        """u8 [steps, layers, units] of the prenet's dropout: a caller's, or the one that releases are made with."""
        model = self._model
        size = (
            model["max_speech_positions"],
            model["speech_decoder_prenet_layers"],
            model["speech_decoder_prenet_units"],
        )
        drawn = inputs.get("prenet_mask")
        return prenet_mask(*size, keep=model["speech_decoder_prenet_dropout"]) if drawn is None else drawn

    def _vocode(self, inputs: Arrays, forced: Arrays) -> dict[str, np.ndarray]:
        """Window by window, each but the first with the context that it needs ahead."""
        spectrogram = self._tap("spectrogram", inputs, forced).astype(np.float32)
        total = len(spectrogram)
        function = self._smallest(VOCODER, "frames", total)
        room = self._rooms[function].frames
        made: dict[str, list[np.ndarray]] = {"waveform": [], "mel": []}
        start = 0
        while start < total:
            first = max(0, start - self._context)
            end = total if first + room >= total else first + room - self._context
            window = spectrogram[first : first + room]
            feed = {"spectrogram": _padded(window.T, room).T, "mask": _mask(len(window), room)}
            outputs = self._networks[VOCODER].run(feed, function)
            for name, per_frame in (("waveform", self._hop), ("mel", 1)):
                made[name].append(outputs[name][(start - first) * per_frame : (end - first) * per_frame])
            start = end
        return {name: np.concatenate(parts).astype(np.float32) for name, parts in made.items()}

    def _smallest(self, stage: str, axis: str, length: int) -> str:
        """The function of a stage with the least room that takes so much, else the one with the most."""
        fitting = {n: size for n, room in self._rooms.items() if (size := getattr(room, axis)) >= length}
        return min((n for n in fitting if has(self._networks[stage], n)), key=fitting.__getitem__, default=MAIN)


class _Cache:
    """Keys and values of one utterance: a state, or arrays that go in with every step."""

    def __init__(self, networks: Networks, model: Mapping[str, Any], function: str, steps: int) -> None:
        self._networks, self._model, self._function = networks, model, function
        self.state: State | None = networks[DECODER].new_state(function) or None
        shape = (model["decoder_layers"], model["hidden_size"], steps)
        self.arrays = {} if self.state else {name: np.zeros(shape, np.float32) for name in ("keys", "values")}

    def run(self, feed: Arrays) -> tuple[np.ndarray, np.ndarray]:
        made = self._networks[DECODER].run({**feed, **self.arrays}, self._function, self.state)
        for name, array in self.arrays.items():
            array[:, :, int(feed["position"][0])] = made[name.removesuffix("s")]
        return made["spectrum"], np.exp(-np.logaddexp(0, -made["end"]))  # its sigmoid

    def grown(self, function: str, steps: int) -> _Cache:
        """The same in a function with more room."""
        larger = _Cache(self._networks, self._model, function, steps)
        assert self.state is not None and larger.state is not None, "without states there is one function"
        for name, array in self.state.items():
            larger.state[name][:, :, : array.shape[2]] = array
        return larger


def _rounded(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE


def _padded(array: np.ndarray, length: int) -> np.ndarray:
    """Zeros at the end of the last axis, up to a length."""
    widths = [(0, 0)] * (array.ndim - 1) + [(0, length - array.shape[-1])]
    return np.pad(array, widths)


def _mask(length: int, room: int) -> np.ndarray:
    """f32 [1, room]: so many ones, and zeros."""
    return (np.arange(room) < length).astype(np.float32)[None]


def _digest(arrays: Arrays) -> tuple:
    return tuple((name, hash(arrays[name].tobytes())) for name in sorted(arrays))
