"""Kokoro as CoreML packages: duration, prosody, source, decoder and tail.

iOS 18 and macOS 15: each package has functions for a few lengths, which share weights; an utterance runs in the
smallest that holds it, padded. iOS 17 has no such packages, and one for each length would hold the weights as often:
there each stage is one package that takes any length, which keeps it from the Neural Engine.
"""

from __future__ import annotations

from jtts_export.exporters.model import Loaded
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.model import Kokoro

from .kokoro_modules import Decoder, Duration, Prosody, Source, Tail
from .kokoro_runner import (
    DECODER,
    DURATION,
    FLEXIBLE,
    FRAMES,
    PROSODY,
    SOURCE,
    TAIL,
    TOKENS,
    Buckets,
    KokoroChain,
    token_buckets,
)
from .stage import MAIN, Export, Function, Length, Stage, Target, Tensor, Units

LEAST = 2  # tokens, the boundaries, and so frames
EXAMPLE = 64  # tokens or frames of a flexible package


def stages(loaded: Loaded, target: Target, tokens: Buckets = TOKENS, frames: Buckets = FRAMES) -> list[Stage]:
    """tokens, frames: functions by what they hold."""
    model: Kokoro = loaded.module
    tokens = token_buckets(loaded.config, tokens)
    most = max(tokens.values())
    if target == "iOS17":
        of_tokens = {MAIN: _Axis(LEAST, most)}
        of_frames = {MAIN: _Axis(LEAST, max(frames.values()))}
        text, suffix = _Axis(LEAST, most), FLEXIBLE
    else:
        of_tokens = {name: _Axis(size, size) for name, size in tokens.items()}
        of_frames = {name: _Axis(size, size) for name, size in frames.items()}
        text, suffix = _Axis(most, most), ""

    def units(fixed: Units, flexible: Units) -> Units:
        return flexible if suffix else fixed

    duration, prosody, source = Duration(model).eval(), Prosody(model).eval(), Source(model).eval()
    decoder, tail = Decoder(model).eval(), Tail(model).eval()
    tensors = _Tensors(model.cfg, text)
    return [
        Stage(
            DURATION + suffix,
            "phoneme tokens and a style to how long each lasts, and what later stages need of them",
            {name: tensors.duration(duration, axis) for name, axis in of_tokens.items()},
            units=units("CPU_AND_NE", "CPU_ONLY"),
        ),
        Stage(
            PROSODY + suffix,
            "features of tokens, by frames, to F0 and energy",
            {name: tensors.prosody(prosody, axis) for name, axis in of_frames.items()},
            units=units("CPU_AND_NE", "CPU_ONLY"),
        ),
        Stage(
            SOURCE + suffix,
            "F0 to the spectrum of a harmonic source",
            {name: tensors.source(source, axis) for name, axis in of_frames.items()},
            precision="fp32",  # fp16 loses the phase within a few periods
            units="CPU_ONLY",
            schemes=(),
        ),
        Stage(
            DECODER + suffix,
            "text, F0, energy and source to a spectrum",
            {name: tensors.decoder(decoder, axis) for name, axis in of_frames.items()},
            units="CPU_AND_GPU",  # an axis of more than 16384, here 3.4 s, does not fit the Neural Engine
        ),
        Stage(
            TAIL + suffix,
            "a spectrum to audio",
            {name: tensors.tail(tail, axis) for name, axis in of_frames.items()},
            precision="fp32",
            units="CPU_ONLY",
            schemes=(),
        ),
    ]


class _Axis:
    """A length that a function takes: one, or a range."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def times(self, rate: int = 1, more: int = 0) -> int | Length:
        least, most, example = (n * rate + more for n in (self._least, self._most, min(EXAMPLE, self._most)))
        return most if self._least == self._most else Length(least, most, example)


class _Tensors:
    """What each stage takes and gives, by its axis; text: the axis of tokens of what all but the first take."""

    def __init__(self, cfg: KokoroConfig, text: _Axis) -> None:
        self._cfg, self._text = cfg, text
        self._spectrum = cfg.istftnet.gen_istft_n_fft + 2
        self._spectra = 2 * cfg.samples_per_f0 // cfg.istftnet.gen_istft_hop_size
        self._length = Tensor("length", (1,), "frames of the utterance; what is behind them is padding", "int32")
        self._style = Tensor("style", (1, 2 * cfg.style_dim), "the voice's row for the number of tokens")

    def duration(self, module: Duration, axis: _Axis) -> Function:
        cfg = self._cfg
        return Function(
            module,
            inputs=(
                Tensor("input_ids", (1, axis.times()), "tokens with a 0 at both ends, then zeros", "int32"),
                Tensor("length", (1,), "tokens, the two at the ends counted", "int32"),
                self._style,
                Tensor("speed", (1,), "1 is the voice's own, 2 twice as fast"),
            ),
            outputs=(
                Tensor("frames", (1, "tokens"), "25 ms frames of each token, before rounding"),
                Tensor("features", (1, "tokens", cfg.hidden_dim + cfg.style_dim), "for prosody"),
                Tensor("text", (1, cfg.hidden_dim, "tokens"), "for decoder"),
            ),
        )

    def prosody(self, module: Prosody, axis: _Axis) -> Function:
        features = (1, self._text.times(), self._cfg.hidden_dim + self._cfg.style_dim)
        return Function(
            module,
            inputs=(
                Tensor("features", features, "of duration, then zeros"),
                self._owner(axis),
                self._length,
                self._style,
            ),
            outputs=(
                Tensor("f0", (1, "2 x frames"), "F0 in Hz"),
                Tensor("n", (1, "2 x frames"), "energy"),
            ),
        )

    def source(self, module: Source, axis: _Axis) -> Function:
        return Function(
            module,
            inputs=(self._f0(axis), self._length),
            outputs=(Tensor("har", (1, self._spectrum, f"{self._spectra} x frames + 1"), "magnitude and phase"),),
        )

    def decoder(self, module: Decoder, axis: _Axis) -> Function:
        return Function(
            module,
            inputs=(
                Tensor("text", (1, self._cfg.hidden_dim, self._text.times()), "of duration, then zeros"),
                self._owner(axis),
                self._f0(axis),
                Tensor("n", (1, axis.times(2)), "energy, of prosody"),
                Tensor("har", (1, self._spectrum, axis.times(self._spectra, 1)), "of source"),
                self._length,
                self._style,
            ),
            outputs=(
                Tensor("spectrum", (1, self._spectrum, f"{self._spectra} x frames + 1"), "log magnitude and phase"),
            ),
        )

    def tail(self, module: Tail, axis: _Axis) -> Function:
        return Function(
            module,
            inputs=(
                Tensor("spectrum", (1, self._spectrum, axis.times(self._spectra, 1)), "of decoder"),
                self._length,
            ),
            outputs=(Tensor("waveform", (1, "samples"), "24 kHz; zeros behind the end"),),
        )

    @staticmethod
    def _owner(axis: _Axis) -> Tensor:
        return Tensor("owner", (axis.times(),), "the token that each frame belongs to, then zeros", "int32")

    @staticmethod
    def _f0(axis: _Axis) -> Tensor:
        return Tensor("f0", (1, axis.times(2)), "F0 in Hz, of prosody")


CHAIN = """\
All floats are float32, all integers int32. On iOS 18 and macOS 15 every package has a function for each of a few
lengths, which share weights (`MLModelConfiguration.functionName`): `tokens_N` of **duration** holds N tokens, and
`seconds_3`, `_7`, `_15` and `_30` of the others hold F = 120, 280, 600 and 1200 frames of 25 ms. Take the smallest
that holds the utterance, the same in steps 4 to 7, pad its inputs with zeros behind the end, and give the true length
as `length` int32 [1]: then padding changes nothing ahead of the end. Outputs behind the end mean nothing. On iOS 17
packages are called `..._flexible` and have one function: give every input its true length, without padding.

1. **Tokens.** `config.json` has the vocabulary, a token per phoneme. Put a 0 ahead and behind; up to 512 in all. A
   voice is a table of styles: take row *phonemes - 1*, `style` [1, 256]. Split longer texts at sentence ends.
2. **duration.** `input_ids` int32 [1, N], `length` (the tokens with both zeros), `style`, `speed` [1] (1 is the
   voice's own). Gives `frames` [1, N], `features` [1, N, 640] and `text` [1, 512, N]. Cut all three at `length`.
3. **Frames.** A token lasts `max(1, frames.rounded(.toNearestOrEven))`. `owner` int32 [F] names the token of each
   frame: token 0 as often as it lasts, then 1, and so on. Their number is `length` from here on. Where it is more
   than 1200, split the text.
4. **prosody.** `features` [1, 512, 640] (zeros behind the last token), `owner`, `length`, `style`. Gives `f0` in Hz
   and energy `n`, each [1, 2 F].
5. **source.** `f0`, `length`. Gives `har` [1, 22, 120 F + 1]. In fp32 on the CPU: fp16 loses the phase.
6. **decoder.** `text` [1, 512, 512] (zeros behind the last token), `owner`, `f0`, `n`, `har`, `length`, `style`.
   Gives `spectrum` [1, 22, 120 F + 1].
7. **tail.** `spectrum`, `length`. Gives `waveform` [1, 600 F] at 24 kHz, of which 600 x `length` samples are speech.

Between steps 4 and 7 nothing needs to be cut or padded.
"""

EXPORT = Export(
    stages=stages,
    runner=KokoroChain,
    chain=CHAIN,
    lengths={DURATION: TOKENS, PROSODY: FRAMES, SOURCE: FRAMES, DECODER: FRAMES, TAIL: FRAMES},
)
