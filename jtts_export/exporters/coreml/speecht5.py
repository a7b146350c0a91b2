"""SpeechT5 as CoreML packages of fixed shapes: encoder, decoder step, and vocoder with the postnet ahead of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jtts_export.exporters.model import Config, Loaded

from .speecht5_modules import (
    DecoderStep,
    Encoder,
    EncoderWeights,
    StatefulDecoder,
    StatelessDecoder,
    Vocoder,
)
from .speecht5_runner import DECODER, ENCODER, VOCODER, Room, SpeechT5Chain, rooms
from .stage import MAIN, Export, Function, Stage, Target, Tensor, cache_names

SCHEMES = ("linear8", "block8-64")  # the first leaves all stages of random:0 above 31 dB
PUBLISHED = {  # of microsoft/speecht5_tts and its vocoder, what lengths depend on
    "model": {
        **{"max_text_positions": 600, "max_speech_positions": 1876},
        **{"speech_decoder_postnet_layers": 5, "speech_decoder_postnet_kernel": 5},
    },
    "vocoder": {
        **{"upsample_rates": [4, 4, 4, 4], "upsample_kernel_sizes": [8, 8, 8, 8]},
        **{"resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3},
    },
}


def stages(loaded: Loaded, target: Target) -> list[Stage]:
    model, vocoder = loaded.module.model, loaded.module.vocoder
    made = rooms(loaded.config)
    if target == "iOS17":  # a package has one function there
        made = {MAIN: made[MAIN]}
    sizes = _Sizes.of(loaded.config)
    described: list[tuple[str, str, dict[str, Function]]] = [
        (ENCODER, "text and speaker to what the decoder reads at every step", _encoder(model, made, sizes)),
        (DECODER, "one step of the decoder, which makes a few frames", _decoder(model, made, sizes, target)),
        (VOCODER, "postnet and HiFi-GAN, spectrogram to waveform", _vocoder(model, vocoder, made, sizes)),
    ]
    return [Stage(name, text, functions, schemes=SCHEMES) for name, text, functions in described]


@dataclass(frozen=True)
class _Sizes:
    """Axes that a checkpoint's config gives."""

    layers: int
    hidden: int
    speaker: int
    mels: int
    reduction: int
    prenet: tuple[int, int]  # layers, units
    hop: int

    @classmethod
    def of(cls, config: Config) -> _Sizes:
        model: Mapping[str, Any] = config["model"]
        return cls(
            layers=model["decoder_layers"],
            hidden=model["hidden_size"],
            speaker=model["speaker_embedding_dim"],
            mels=model["num_mel_bins"],
            reduction=model["reduction_factor"],
            prenet=(model["speech_decoder_prenet_layers"], model["speech_decoder_prenet_units"]),
            hop=math.prod(config["vocoder"]["upsample_rates"]),
        )


def _memory(room: Room, sizes: _Sizes) -> Tensor:
    shape = (sizes.layers, 2 * sizes.hidden, room.tokens)
    return Tensor("memory", shape, "keys and values of the text, [layers, 2 x hidden, tokens]", "fp16")


def _speaker(sizes: _Sizes) -> Tensor:
    return Tensor("speaker", (1, sizes.hidden), "what the speaker adds to every step", "fp16")


def _encoder(model: Any, made: Mapping[str, Room], sizes: _Sizes) -> dict[str, Function]:
    weights = EncoderWeights(model)
    return {
        name: Function(
            Encoder(weights, room.tokens),
            inputs=(
                Tensor("input_ids", (1, room.tokens), "tokens, the end token last, then any", "int32"),
                Tensor("mask", (1, room.tokens), "1 at tokens, 0 behind them"),
                Tensor("speaker_embeddings", (1, sizes.speaker), "the speaker's x-vector"),
            ),
            outputs=(_memory(room, sizes), _speaker(sizes)),
        )
        for name, room in made.items()
    }


def _decoder(model: Any, made: Mapping[str, Room], sizes: _Sizes, target: Target) -> dict[str, Function]:
    step = DecoderStep(model, made[MAIN].steps)
    return {name: _step(step, room, sizes, target) for name, room in made.items()}


def _step(step: DecoderStep, room: Room, sizes: _Sizes, target: Target) -> Function:
    inputs = (
        Tensor("frame", (1, sizes.mels), "the last frame made, zeros at first"),
        Tensor("kept", sizes.prenet, "of the prenet's units, 1 for each that dropout keeps, else 0"),
        _speaker(sizes),
        _memory(room, sizes),
        Tensor("mask", (1, room.tokens), "1 at tokens, 0 behind them"),
        Tensor("position", (1,), "steps made so far", "int32"),
    )
    outputs = (
        Tensor("spectrum", (sizes.reduction, sizes.mels), "frames, one after the other"),
        Tensor("end", (sizes.reduction,), "logits of the end of speech in each frame"),
    )
    if target != "iOS17":
        states = tuple(
            Tensor(name, (1, sizes.hidden, room.steps), f"{name.split('_')[0]}s of earlier steps, of a layer", "fp16")
            for pair in cache_names(sizes.layers)
            for name in pair
        )
        return Function(StatefulDecoder(step, room.steps), inputs, outputs, states)
    whole, new = (sizes.layers, sizes.hidden, room.steps), (sizes.layers, sizes.hidden)
    parts = ("key", "value")
    return Function(
        StatelessDecoder(step),
        (
            *inputs,
            *(Tensor(f"{part}s", whole, f"{part}s of earlier steps, zeros at first", "fp16") for part in parts),
        ),
        (*outputs, *(Tensor(part, new, f"{part}s of this step", "fp16") for part in parts)),
    )


def _vocoder(model: Any, vocoder: Any, made: Mapping[str, Room], sizes: _Sizes) -> dict[str, Function]:
    module = Vocoder(model, vocoder)
    return {
        name: Function(
            module,
            inputs=(
                Tensor("spectrogram", (room.frames, sizes.mels), "frames of the decoder, zeros behind them"),
                Tensor("mask", (1, room.frames), "1 at frames, 0 behind them"),
            ),
            outputs=(
                Tensor("waveform", (room.frames * sizes.hop,), "samples, valid where the mask is 1"),
                Tensor("mel", (room.frames, sizes.mels), "log-mel spectrogram behind the postnet"),
            ),
        )
        for name, room in made.items()
    }


def _lengths() -> dict[str, dict[str, int]]:
    made = rooms(PUBLISHED)
    return {
        ENCODER: {name: room.tokens for name, room in made.items()},
        DECODER: {name: room.steps for name, room in made.items()},
        VOCODER: {name: room.frames for name, room in made.items()},
    }


CHAIN = """\
All shapes are fixed; what is shorter is padded, and a mask says how much of it counts. On iOS 18 and macOS 15 every
package has two functions that share weights, `main` and `short` (`MLModelConfiguration.functionName`): `short` where
the text, the speech or the window fits it, `main` otherwise. On iOS 17 there is `main` alone.

1. **Tokens.** `tokenizer.json`, one token per character, the end token last. Split longer texts at sentence ends.
2. **encoder**, once per text. `input_ids` int32 [1, T], tokens and then anything; `mask` float32 [1, T], 1 at tokens
   and 0 behind them; `speaker_embeddings` float32 [1, 512], an x-vector of `speakers/`. Keep `memory` float16
   [layers, 2 x hidden, T] and `speaker` float16 [1, hidden]. If encoder and decoder run functions of different T,
   copy `memory` into zeros of the decoder's [layers, 2 x hidden, T].
3. **decoder**, step by step from `position` 0. iOS 18, macOS 15: `let state = decoder.makeState()`, a new one for
   each text, and `prediction(from:using:)`. Inputs: `frame` float32 [1, 80], zeros at first, then the last row of the
   `spectrum` before; `kept` float32 [2, 256], each unit drawn anew at every step, 1 with the probability of
   `speech_decoder_prenet_dropout` (0.5), else 0 (this dropout is never off: without it speech is broken); `speaker`
   and `memory` as they came; `mask` as the encoder's; `position` int32 [1], how many steps were made before.
   - iOS 17 has no state: give `keys` and `values` float16 [layers, hidden, steps], zeros at first, and after each
     step write `key` and `value` [layers, hidden] of every layer to column `position`.
   - `short` is full after its number of steps. Make a state of `main`, copy each of `key_N` and `value_N` to the
     first columns of the same one there (`withMultiArray(for:)`), pad `memory` and `mask`, and go on.
   - Collect `spectrum` float32 [2, 80]. Stop after a step where 1 / (1 + exp(-x)), summed over the two
     x of `end`, is 0.5 or more, or after 20 x tokens / 2 steps.
4. **vocoder** on windows of W frames. `spectrogram` float32 [W, 80], frames and zeros behind them; `mask` float32
   [1, W]. Result: `waveform` float32 [256 W] at 16 kHz, 256 samples a frame, and `mel` [W, 80].
   - Up to W frames are one window. More: the first window's audio is right up to its last 35 frames, on which what
     follows has an effect; let each next window begin 35 frames ahead of what is still wanted, and drop those. The
     same while the decoder still runs gives the first sound early: 61 frames of a `short` window, 1 s.
"""

EXPORT = Export(stages=stages, runner=SpeechT5Chain, chain=CHAIN, lengths=_lengths())
