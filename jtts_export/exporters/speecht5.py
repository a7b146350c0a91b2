"""SpeechT5's graphs: encoder, decoder step, and vocoder with the postnet ahead of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

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

from . import onnx, speecht5_sentences
from .graph import Graph
from .model import Config, Loaded, Model, Voices
from .speecht5_clients import client_decoder, write_client_files
from .speecht5_decoder import decoder_step
from .speecht5_networks import Encoder, Vocoder

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
TIMED_SECONDS = (3, 8)
BRIEF_SECONDS = 1
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
    metadata = {CONTEXT: str(network.context_frames), "sample_rate": str(vocoder.config.sampling_rate)}
    onnx.export(graph, onnx.Scoped(vocoder=network), example, folder, opset, metadata)


def derive(graphs: Mapping[str, ir.Model]) -> dict[str, ir.Model]:
    return {CLIENT_DECODER: client_decoder(graphs[DECODER])}


def reference(loaded: Loaded, threads: int, mask_seed: int, double: bool) -> Reference:
    return Reference(loaded.module, threads, mask_seed, double)


def runner(graphs: Graphs, threads: int, optimize: bool) -> SpeechT5Runner:
    return SpeechT5Runner(graphs, threads, optimize)


def cases(config: Config, voices: Voices, purpose: str) -> list[Case]:
    """Utterances for "calibration", "search" or "validation", by speakers taken by turns; "timed" ones last
    TIMED_SECONDS, a "brief" one BRIEF_SECONDS, whatever the checkpoint would say."""
    seconds: tuple[float, ...] = ()
    if purpose in ("timed", "brief"):
        seconds = TIMED_SECONDS if purpose == "timed" else (BRIEF_SECONDS,)
        texts = [speecht5_sentences.LONG[: int(s * speecht5_sentences.CHARACTERS_PER_SECOND)] for s in seconds]
    else:
        texts = list(getattr(speecht5_sentences, purpose.upper()))
    names = sorted(voices)
    made = []
    for i, text in enumerate(texts):
        name = names[i * len(names) // len(texts)]
        inputs = {"input_ids": _tokens(config, text, i), "speaker_embeddings": voices[name][None]}
        label = f"{inputs['input_ids'].shape[1]} tokens, {name}"
        if seconds:
            steps = min(_steps(config, seconds[i]), config["model"]["max_speech_positions"])
            inputs |= {"min_steps": np.array(steps), "max_steps": np.array(steps)}
            label = f"{seconds[i]} s, {label}"
        made.append(Case(label, inputs))
    return made


def _tokens(config: Config, text: str, number: int) -> np.ndarray:
    """A text's tokens; of another alphabet's vocabulary, as many tokens at random."""
    from tokenizers import Tokenizer

    model = config["model"]
    tokenizer = Tokenizer.from_str(json.dumps(config["tokenizer"]))
    ids, unknown = tokenizer.encode(text).ids, tokenizer.token_to_id("<unk>")
    if sum(i != unknown for i in ids) < KNOWN_SHARE * len(text):  # unknown characters in a row are one token
        letters = [i for t, i in tokenizer.get_vocab().items() if not t.startswith("<")]
        ids = [*np.random.default_rng(number).choice(sorted(letters), len(text)).tolist(), model["eos_token_id"]]
    return np.array([ids[-model["max_text_positions"] :]], np.int64)


def _steps(config: Config, seconds: float) -> int:
    hop = int(np.prod(config["vocoder"]["upsample_rates"]))
    return round(seconds * config["vocoder"]["sampling_rate"] / hop / config["model"]["reduction_factor"])


def speaker(files: Mapping[str, Path], config: Config, voices: Voices, threads: int) -> Callable[[], object]:
    engine, (*_, case) = Engine(files, threads), cases(config, voices, "timed")
    return lambda: next(engine.stream(case.inputs))


MODEL = Model(
    graphs=GRAPHS,
    derived=(CLIENT_DECODER,),
    load=load,
    export=export,
    derive=derive,
    reference=reference,
    runner=runner,
    cases=cases,
    client_files=write_client_files,
    assets=read_assets,
    speaker=speaker,
    parity=PARITY,
    recipes={"int8": INT8, "fp16": FP16},
)
