"""SpeechT5's graphs: encoder, decoder step, and vocoder with the postnet ahead of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import torch

from jtts_export.models.source import Source
from jtts_export.models.speecht5 import checkpoint
from jtts_export.models.speecht5.checkpoint import Checkpoint
from jtts_export.models.speecht5.reference import Reference, mask_of
from jtts_export.quantize.schemes import BlockMatMul, DynamicMatMul, Recipe, Rule, StaticConv, StoredFp16, StoredInt
from jtts_export.runtime.speecht5 import CONTEXT, DECODER, ENCODER, GRAPHS, VOCODER, Engine, read_assets
from jtts_export.runtime.speecht5_taps import CLIENT_DECODER, SpeechT5Runner
from jtts_export.runtime.taps import Graphs
from jtts_export.validate.parity import Parity, Stage
from jtts_export.validate.runner import Case

from . import onnx, sentences, speecht5_sentences
from .coreml.speecht5 import EXPORT as COREML
from .graph import Graph
from .model import Config, Loaded, Model, Speak, Voices
from .speecht5_clients import client_decoder, write_client_files
from .speecht5_decoder import decoder_step
from .speecht5_networks import Encoder, Vocoder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_AUDIO = ("parity_waveform_snr_db", "parity_log_mel_l1", "parity_log_mel_ratio")
_MEL = ("parity_mel_snr_db", "parity_mel_reseed_margin_db")
PARITY = Parity(
    stages=(
        Stage("encoder", "encoder_outputs", gates=("parity_encoder_snr_db", *_MEL, *_AUDIO)),
        Stage(
            "decoder_steps",
            "spectrogram",
            forced=("encoder_outputs", "steps"),
            gates=("parity_decoder_steps_snr_db", *_MEL, *_AUDIO),
        ),
        Stage("vocoder", "waveform", forced=("spectrogram",), gates=("parity_vocoder_snr_db", *_AUDIO)),
        Stage("mel", "mel", forced=("steps",)),
        Stage("waveform", "waveform", forced=("steps",)),
        Stage("stop", "prob", forced=("steps",)),
    ),
    exact={"stop_steps": "steps"},
    audio="waveform",
    timing=("steps",),
    sample_rate_hz=16_000,
    fp64=("vocoder", "mel"),
    reseed=("mel",),
    derived=(Stage("client", "client_spectrogram", forced=("steps",)),),
)

# Products and most convolutions run in integers. What makes the waveform's first and last samples stays in
# float, as do the upsamplers, a tenth of the vocoder's time and half of its error.
INT8 = Recipe(
    rules=(
        Rule(pattern="encoder.relative.*", scheme=StoredFp16()),
        Rule(pattern="encoder.embed.*", scheme=StoredFp16()),
        Rule(pattern="encoder.positions", scheme=StoredInt(bits=8)),
        Rule(pattern="encoder.*", scheme=DynamicMatMul()),
        Rule(pattern="decoder.feat_out.*", scheme=StoredFp16()),
        Rule(pattern="decoder.prob_out.*", scheme=StoredFp16()),
        Rule(pattern="decoder.prenet.positions", scheme=StoredInt(bits=8)),
        Rule(pattern="decoder.*", scheme=BlockMatMul(block=64)),
        Rule(pattern="vocoder.postnet.*", scheme=StoredFp16()),
        Rule(pattern="vocoder.pre.*", scheme=StoredFp16()),
        Rule(pattern="vocoder.post.*", scheme=StoredFp16()),
        Rule(pattern="vocoder.ups.*", scheme=StoredFp16()),
        Rule(pattern="vocoder.*", scheme=StaticConv(table_levels=0, channels=False)),
    )
)
FP16 = Recipe(rules=(Rule(pattern="*", scheme=StoredFp16()),))

EXAMPLE_TOKENS, EXAMPLE_FRAMES = 20, 20
TIMED_SECONDS = (1.5, 3, 6)
BRIEF_SECONDS = 1
CALL_TENTHS = (4, 16)  # of a second
# A vocabulary that knows fewer of the built-in characters (another alphabet's) is given its own tokens instead.
KNOWN_SHARE = 0.5


def load(source: Source) -> Loaded:
    found = checkpoint.load(source)
    config = {
        "model": {**found.model.config.to_dict(), **found.config["model"]},
        "vocoder": {**found.vocoder.config.to_dict(), **found.config["vocoder"]},
        "tokenizer": found.tokenizer,
    }
    return Loaded(config, found, found.speakers)


def export(loaded: Loaded, folder: Path, opset: int) -> None:
    """fp32 ONNX of the three graphs, with dynamic lengths and the dropout's mask baked in."""
    found: Checkpoint = loaded.module
    model, vocoder = found.model, found.vocoder
    layers = range(model.config.decoder_layers)
    cross = {f"{part}.{i}": {2: "tokens"} for i in layers for part in ("key", "value")}
    tokens = {1: "tokens"}
    encoder = Graph(
        ENCODER,
        inputs={"input_ids": tokens},
        outputs={"encoder_outputs": tokens, "encoder_attention_mask": tokens, **cross},
        taps={"encoder_states": tokens},
    )
    ids = torch.arange(EXAMPLE_TOKENS) % model.config.vocab_size
    onnx.export(encoder, onnx.Scoped(encoder=Encoder(model)), {"input_ids": ids[None]}, folder, opset)
    onnx.save(decoder_step(model, mask_of(found), opset), folder / f"{DECODER}.onnx")
    frames = {0: "frames"}
    graph = Graph(VOCODER, {"spectrogram": frames}, {"waveform": {0: "samples"}}, taps={"mel": frames})
    network = Vocoder(model, vocoder)
    example = {"spectrogram": torch.zeros(EXAMPLE_FRAMES, model.config.num_mel_bins)}
    onnx.export(graph, onnx.Scoped(vocoder=network), example, folder, opset, metadata(loaded)[VOCODER])


def metadata(loaded: Loaded) -> dict[str, dict[str, str]]:
    model, vocoder = loaded.module.model, loaded.module.vocoder
    context = Vocoder(model, vocoder).context_frames
    return {VOCODER: {CONTEXT: str(context), "sample_rate": str(vocoder.config.sampling_rate)}}


def draws(loaded: Loaded) -> dict[str, Mapping[str, np.ndarray]]:
    return {DECODER: {"prenet_mask": mask_of(loaded.module)}}


def derive(graphs: Mapping[str, ir.Model]) -> dict[str, ir.Model]:
    return {CLIENT_DECODER: client_decoder(graphs[DECODER])}


def reference(loaded: Loaded, threads: int, mask_seed: int, double: bool) -> Reference:
    return Reference(loaded.module, threads, mask_seed, double)


def runner(graphs: Graphs, threads: int, optimize: bool) -> SpeechT5Runner:
    return SpeechT5Runner(graphs, threads, optimize)


def cases(config: Config, voices: Voices, purpose: str) -> list[Case]:
    """Utterances for "calibration", "search" or "validation", by speakers taken by turns; "timed" ones last
    TIMED_SECONDS, a "brief" one BRIEF_SECONDS, and those of a "sequence", all by one speaker, some of CALL_TENTHS,
    whatever the checkpoint would say."""
    seconds = _seconds(purpose)
    texts = [speecht5_sentences.LONG[: int(s * speecht5_sentences.CHARACTERS_PER_SECOND)] for s in seconds]
    texts = texts or list(getattr(speecht5_sentences, purpose.upper()))
    steps = [_steps(config, s) for s in seconds]
    steps = steps and sentences.within(steps, config["model"]["max_speech_positions"])
    names = sorted(voices)[: 1 if purpose == "sequence" else None]
    tokenizer, made = _tokenizer(config), []
    for i, text in enumerate(texts):
        name = names[i * len(names) // len(texts)]
        tokens = _tokens(config["model"], tokenizer, text, 0 if purpose == "sequence" else i)
        inputs = {"input_ids": tokens, "speaker_embeddings": voices[name][None]}
        label = f"{tokens.shape[1]} tokens, {name}"
        if steps:
            inputs |= {"min_steps": np.array(steps[i]), "max_steps": np.array(steps[i])}
            label = f"{seconds[i]:g} s, {label}"
        made.append(Case(f"{sentences.LENGTHS[i]}, {label}" if purpose == "timed" else label, inputs, text))
    if purpose == "validation":
        made.append(_every_token(config["model"], tokenizer, names[0], voices[names[0]]))
    return made


def _every_token(model: Config, tokenizer: Tokenizer, voice: str, vector: np.ndarray) -> Case:
    """So that no row of the table goes unheard; of its special tokens, the end alone."""
    ids = sorted(i for token, i in tokenizer.get_vocab().items() if not token.startswith("<"))
    tokens = np.array([[*ids, model["eos_token_id"]][-model["max_text_positions"] :]], np.int64)
    inputs = {"input_ids": tokens, "speaker_embeddings": vector[None]}
    return Case(f"every token, {tokens.shape[1]} tokens, {voice}", inputs)


def spoken(config: Config, voices: Voices, texts: Sequence[str]) -> list[Case]:
    """Utterances of texts, for as long as the checkpoint speaks. Raises BadInput naming a text of which nothing can
    be said."""
    tokenizer, most = _tokenizer(config), config["model"]["max_text_positions"]

    def said(text: str, voice: str) -> list[tuple[str, dict[str, np.ndarray]]]:
        pieces = sentences.pieces(text, lambda piece: len(tokenizer.encode(piece).ids), most)
        made = [tokenizer.encode(piece).ids for piece in pieces]
        speaker = voices[voice][None]
        return [
            (f"{len(ids)} tokens", {"input_ids": np.array([ids], np.int64), "speaker_embeddings": speaker})
            for ids in made
            if sentences.says(map(tokenizer.id_to_token, ids))
        ]

    return sentences.spoken(voices, texts, said)


def _seconds(purpose: str) -> tuple[float, ...]:
    """How long utterances for a purpose last; nothing where their texts say it."""
    if purpose == "sequence":
        return tuple(tenths / 10 for tenths in sentences.sequence(CALL_TENTHS)[0])
    return {"timed": TIMED_SECONDS, "brief": (BRIEF_SECONDS,)}.get(purpose, ())


def _tokenizer(config: Config) -> Tokenizer:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(config["tokenizer"]))


def _tokens(model: Config, tokenizer: Tokenizer, text: str, seed: int) -> np.ndarray:
    """A text's tokens; of another alphabet's vocabulary, as many tokens at random."""
    ids, unknown = tokenizer.encode(text).ids, tokenizer.token_to_id("<unk>")
    if sum(i != unknown for i in ids) < KNOWN_SHARE * len(text):  # unknown characters in a row are one token
        letters = [i for t, i in tokenizer.get_vocab().items() if not t.startswith("<")]
        ids = [*np.random.default_rng(seed).choice(sorted(letters), len(text)).tolist(), model["eos_token_id"]]
    return np.array([ids[-model["max_text_positions"] :]], np.int64)


def _steps(config: Config, seconds: float) -> int:
    hop = int(np.prod(config["vocoder"]["upsample_rates"]))
    return round(seconds * config["vocoder"]["sampling_rate"] / hop / config["model"]["reduction_factor"])


def feeds(graphs: Graphs, case: Case, threads: int) -> dict[str, dict[str, np.ndarray]]:
    """See Model. The decoder is half-way through the utterance."""
    return SpeechT5Runner(graphs, threads).feeds(case.inputs)


def speaker(files: Mapping[str, Path], config: Config, voices: Voices, threads: int) -> Speak:
    engine, (*_, case) = Engine(files, threads), cases(config, voices, "timed")
    tokenizer = _tokenizer(config)
    return lambda: engine.stream(
        {**case.inputs, "input_ids": _tokens(config["model"], tokenizer, case.text, len(TIMED_SECONDS) - 1)}
    )


MODEL = Model(
    graphs=GRAPHS,
    derived=(CLIENT_DECODER,),
    load=load,
    export=export,
    derive=derive,
    reference=reference,
    runner=runner,
    cases=cases,
    spoken=spoken,
    client_files=write_client_files,
    assets=read_assets,
    speaker=speaker,
    feeds=feeds,
    metadata=metadata,
    draws=draws,
    parity=PARITY,
    recipes={"int8": INT8, "fp16": FP16},
    coreml=COREML,
)
