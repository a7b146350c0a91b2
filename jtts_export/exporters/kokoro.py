"""Kokoro's graph: one network, phoneme tokens to waveform, that three public clients can load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jtts_export.models.kokoro import checkpoint
from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.models.kokoro.model import TAPS, Kokoro
from jtts_export.models.kokoro.reference import Reference
from jtts_export.models.source import Source
from jtts_export.quantize.schemes import Recipe, Rule, StaticConv, StoredFp16, StoredInt
from jtts_export.runtime import frontend
from jtts_export.runtime import kokoro as runtime_kokoro
from jtts_export.runtime.draws import NOISE_SCALE, source_noise
from jtts_export.runtime.taps import Graphs, OnnxRunner
from jtts_export.validate.parity import Parity, Stage
from jtts_export.validate.runner import Case

from . import kokoro_sentences, onnx, sentences
from .coreml.kokoro import EXPORT as COREML
from .graph import Graph
from .kokoro_clients import graph_metadata, write_client_files
from .kokoro_sentences import Sentence
from .model import Config, Loaded, Model, Speak, Voices

GRAPH = Graph(
    name=runtime_kokoro.GRAPH,
    inputs={"input_ids": {1: "tokens"}, "style": {}, "speed": {}},
    outputs={"waveform": {1: "samples"}, "duration": {1: "tokens"}},
    taps={"frames": {1: "tokens"}, "f0": {1: "curve"}, "n": {1: "curve"}, "har": {2: "spectra"}},
    draws={"source_noise": source_noise()},
)
assert {*GRAPH.outputs, *GRAPH.taps} == {*TAPS}

PARITY = Parity(
    stages=(
        Stage("frames", "frames", gates=("durations_equal_ratio",)),
        Stage("f0", "f0", forced=("duration",), gates=("parity_f0_snr_db", "parity_log_mel_ratio")),
        Stage("n", "n", forced=("duration",), gates=("parity_n_snr_db", "parity_log_mel_ratio")),
        Stage(
            "decoder",
            "waveform",
            forced=("duration", "f0", "n", "har"),
            gates=("parity_decoder_snr_db", "parity_log_mel_l1", "parity_log_mel_ratio"),
        ),
    ),
    exact={"durations": "duration"},
    audio="waveform",
    timing=("duration",),
    fp64=("decoder",),
    sample_rate_hz=SAMPLE_RATE_HZ,
)

# Where int8 arithmetic pays: the convolutions of the decoder and generator, nine tenths of the time. The
# first of the last noise branch stay in float: whatever they add passes through every block behind them, and
# on random weights these four of 58 make half of the error. What predicts durations and F0 is
# small, and its errors are amplified: fp16. What reaches the audio only through text features or before the
# blocks' norms takes 4 bits. The rest needs to be small, and no more. All that is of the full size: of a network as
# small as demo, 4 bits save 5 % and cost 20 dB, int8 arithmetic before the generator saves no time, and F0 in 8 bits
# drifts by 0.5 Hz, which nobody hears but every comparison shows.
_GENERATOR = "decoder.generator"
_SMALL = 1 << 16
INT8 = Recipe(
    rules=(
        Rule(pattern="text_encoder.*", scheme=StoredInt(bits=8), below=_SMALL),
        Rule(pattern="decoder.*code.*", scheme=StoredInt(bits=8), below=_SMALL),
        Rule(pattern=f"{_GENERATOR}.ups.0.*", scheme=StoredInt(bits=8), below=4 * _SMALL),
        Rule(pattern="predictor.*", scheme=StoredFp16(), below=_SMALL),
        Rule(pattern=f"{_GENERATOR}.noise_res.1.convs[12].[01].weight", scheme=StoredFp16()),
        Rule(pattern=f"{_GENERATOR}.noise_convs.*", scheme=StoredFp16()),
        Rule(pattern=f"{_GENERATOR}.conv_post.*", scheme=StoredFp16()),
        Rule(pattern=f"{_GENERATOR}.resblocks.*.convs[12].?.weight", scheme=StaticConv()),
        Rule(pattern=f"{_GENERATOR}.noise_res.*.convs[12].?.weight", scheme=StaticConv()),
        Rule(pattern="decoder.encode.conv[12].weight", scheme=StaticConv()),
        Rule(pattern="decoder.decode.*.conv[12].weight", scheme=StaticConv()),
        Rule(pattern="bert.*", scheme=StoredFp16()),
        Rule(pattern="bert_encoder.*", scheme=StoredFp16()),
        Rule(pattern="predictor.text_encoder.lstms.*.[WR]", scheme=StoredFp16()),
        Rule(pattern="predictor.duration_proj.*", scheme=StoredFp16()),
        Rule(pattern="text_encoder.*", scheme=StoredInt(bits=4)),
        Rule(pattern="decoder.*.conv1x1.*", scheme=StoredInt(bits=4)),
        Rule(pattern=f"{_GENERATOR}.ups.0.*", scheme=StoredInt(bits=4)),
        Rule(pattern="*", scheme=StoredInt(bits=8)),
    )
)
FP16 = Recipe(rules=(Rule(pattern="*", scheme=StoredFp16()),))

EXAMPLE_TOKENS = 20
TIMED_TOKENS = (12, 32, 72)
CALL_TOKENS = (4, 16)
BRIEF_TOKENS = 12
STREAMED = 3  # sentences
# A vocabulary that knows fewer of the built-in phonemes (another language's) is given its own tokens instead.
KNOWN_SHARE = 0.5


class _Positional(nn.Module):
    """Tensors in, tensors out, as tracing wants them."""

    def __init__(self, model: Kokoro) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, style: Tensor, speed: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        taps = self.model(input_ids, style, speed, noise.float() * NOISE_SCALE)
        return tuple(taps[name] for name in (*GRAPH.outputs, *GRAPH.taps))


def load(source: Source) -> Loaded:
    return Loaded(*checkpoint.load(source))


def export(loaded: Loaded, folder: Path, opset: int) -> None:
    """fp32 ONNX with dynamic length, float `speed`, baked noise, and the metadata clients read."""
    cfg = loaded.module.cfg
    ids = torch.arange(EXAMPLE_TOKENS) % (cfg.n_token - 1) + 1
    example = {
        "input_ids": nn.functional.pad(ids, (1, 1))[None],
        "style": torch.zeros(1, 2 * cfg.style_dim),
        "speed": torch.ones(1),
    }
    onnx.export(GRAPH, _Positional(loaded.module), example, folder, opset, metadata(loaded)[GRAPH.name])


def metadata(loaded: Loaded) -> dict[str, dict[str, str]]:
    return {GRAPH.name: graph_metadata(loaded.config, loaded.voices)}


def draws(loaded: Loaded) -> dict[str, Mapping[str, np.ndarray]]:
    return {GRAPH.name: GRAPH.draws}


def reference(loaded: Loaded, threads: int, noise_seed: int, double: bool) -> Reference:
    return Reference(loaded.module, threads, noise_seed, double)


def cases(config: Config, voices: Voices, purpose: str) -> list[Case]:
    """Utterances for "calibration", "search" or "validation", in voices taken by turns, and for the last one of every
    token that there is, so that no row of a table goes unheard; "timed" ones have
    TIMED_TOKENS tokens, a "brief" one BRIEF_TOKENS, those of a "sequence", all in one voice, some of CALL_TOKENS."""
    said = _said(purpose, min(map(len, voices.values())))
    names = sorted(voices)[: 1 if purpose == "sequence" else None]
    made = []
    for i, sentence in enumerate(said):
        name = names[i * len(names) // len(said)]
        case = _case(config["vocab"], sentence, name, voices[name], 0 if purpose == "sequence" else i)
        made.append(replace(case, name=f"{sentences.LENGTHS[i]}, {case.name}") if purpose == "timed" else case)
    if purpose == "validation":
        made += _every_token(int(config["n_token"]), names[0], voices[names[0]])
    return made


def spoken(config: Config, voices: Voices, texts: Sequence[str]) -> list[Case]:
    """Utterances of American English texts. Raises BadInput without the phonemes extra, and naming a text of which
    nothing can be said."""
    vocab = config["vocab"]
    frontend.phonemize("a")  # of a missing extra no text should be named

    def said(text: str, voice: str) -> list[tuple[str, dict[str, np.ndarray]]]:
        rows = voices[voice]
        pieces = frontend.split_phonemes(frontend.phonemize(text), len(rows))
        known = [[p for p in piece if p in vocab] for piece in pieces]
        inputs = [_inputs([vocab[p] for p in piece], rows) for piece in known if sentences.says(piece)]
        return [(f"{feed['input_ids'].size - 2} tokens", feed) for feed in inputs]

    return sentences.spoken(voices, texts, said)


def runner(graphs: Graphs, threads: int, optimize: bool) -> OnnxRunner:
    return OnnxRunner(GRAPH.name, graphs[GRAPH.name], threads, optimize)


def feeds(graphs: Graphs, case: Case, threads: int) -> dict[str, Mapping[str, np.ndarray]]:
    """See Model. The whole utterance is one call."""
    return {GRAPH.name: case.inputs}


def speaker(files: Mapping[str, Path], config: Config, voices: Voices, threads: int) -> Speak:
    vocab = config["vocab"]
    runtime = runtime_kokoro.Kokoro(files, vocab, voices, threads)
    said = kokoro_sentences.VALIDATION[:STREAMED]
    phonemes = " ".join(sentence.phonemes for sentence in said)
    known = "".join(p for p in phonemes if p in vocab)
    if not sentences.says(known) or len(known) < KNOWN_SHARE * len(phonemes):
        letters = sorted(token for token in vocab if sentences.says([token])) or sorted(vocab)
        known = "".join(np.random.default_rng(0).choice(letters, len(phonemes)))
    text = ""
    if known == phonemes and frontend.is_installed():  # the same, and its way to phonemes is measured too
        text, known = " ".join(sentence.text for sentence in said), ""
    return lambda: (speech.audio for speech in runtime.stream(text, phonemes=known))


def _said(purpose: str, most: int) -> list[Sentence]:
    """Built-in utterances; those of chosen lengths have at most `most` phonemes."""
    long = kokoro_sentences.SPOKEN
    if purpose in ("timed", "brief", "sequence"):
        wanted = {"timed": TIMED_TOKENS, "brief": (BRIEF_TOKENS,), "sequence": sentences.sequence(CALL_TOKENS)[0]}
        return [Sentence("", long[:n]) for n in sentences.within(wanted[purpose], most)]
    return list(getattr(kokoro_sentences, purpose.upper()))


def _every_token(count: int, voice: str, rows: np.ndarray) -> list[Case]:
    """Quickly, for there are many; in one utterance, if the voice has rows for it."""
    ids = list(range(1, count))  # 0 is ahead and behind
    parts = [ids[i : i + len(rows)] for i in range(0, len(ids), len(rows))]
    return [Case(f"every token, {len(part)} tokens, {voice}, speed 3", _inputs(part, rows, 3.0)) for part in parts]


def _case(vocab: Mapping[str, int], said: Sentence, voice: str, rows: np.ndarray, seed: int) -> Case:
    phonemes = said.phonemes
    tokens = [vocab[p] for p in phonemes[: len(rows)] if p in vocab]
    if len(tokens) < KNOWN_SHARE * min(len(phonemes), len(rows)):
        ids = sorted(set(vocab.values()))
        tokens = [int(t) for t in np.random.default_rng(seed).choice(ids, min(len(phonemes), len(rows)))]
    speed = f", speed {said.speed:g}" if said.speed != 1 else ""
    return Case(f"{len(tokens)} tokens, {voice}{speed}", _inputs(tokens, rows, said.speed), said.text)


def _inputs(tokens: Sequence[int], rows: np.ndarray, speed: float = 1.0) -> dict[str, np.ndarray]:
    """The graph's, without padding in `tokens`; rows: a voice's styles, by number of tokens."""
    return {
        "input_ids": np.array([[0, *tokens, 0]], np.int64),
        "style": rows[len(tokens) - 1],
        "speed": np.array([speed], np.float32),
    }


MODEL = Model(
    graphs=(GRAPH.name,),
    load=load,
    export=export,
    reference=reference,
    runner=runner,
    cases=cases,
    spoken=spoken,
    client_files=write_client_files,
    assets=runtime_kokoro.read_assets,
    speaker=speaker,
    feeds=feeds,
    metadata=metadata,
    draws=draws,
    parity=PARITY,
    recipes={"int8": INT8, "fp16": FP16},
    coreml=COREML,
)
