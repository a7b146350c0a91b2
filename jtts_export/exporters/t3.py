"""T3's graphs: conditioning, embeddings of tokens, and the language model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch
from tokenizers import Tokenizer

from jtts_export.errors import CheckpointError
from jtts_export.models.source import Source
from jtts_export.models.t3 import checkpoint
from jtts_export.models.t3.checkpoint import Checkpoint
from jtts_export.models.t3.conditioning import Voice
from jtts_export.models.t3.config import T3Config
from jtts_export.models.t3.reference import Reference
from jtts_export.quantize.schemes import (
    BlockMatMul,
    Float32,
    Recipe,
    Rule,
    Scheme,
    StoredFp16,
)
from jtts_export.runtime.t3 import (
    CONDITIONING,
    CONFIG,
    EMBED,
    GRAPHS,
    LANGUAGE_MODEL,
    MAX_TOKENS,
    TOKENS_PER_SECOND,
    Engine,
    read_assets,
)
from jtts_export.runtime.t3_generation import generate
from jtts_export.runtime.t3_taps import T3Runner
from jtts_export.runtime.t3_text import encode, normalize
from jtts_export.runtime.taps import Graphs
from jtts_export.validate.parity import Metrics, Parity, Stage
from jtts_export.validate.runner import Case
from jtts_export.validate.steps import STEPS, Feed, step_times

from . import onnx, sentences, t3_sentences
from .coreml.t3 import EXPORT as COREML
from .graph import Graph
from .model import Config, Loaded, Model, Speak, Voices
from .t3_clients import write_client_files
from .t3_language_model import language_model
from .t3_networks import Conditioning, embed_tokens
from .t3_sentences import Utterance

PARITY = Parity(
    stages=(
        Stage("embeddings", "embeddings"),
        Stage("emotion", "emotion"),
        Stage("conditioning", "cond_emb"),
        Stage("logits", "logits", forced=("tokens",)),
        Stage("alignment", "alignment", forced=("tokens",)),
    ),
    exact={"greedy_tokens": "greedy"},
    timing=("tokens",),
    sample_rate_hz=TOKENS_PER_SECOND,
    distributions=("logits",),
)


def recipe(attention: Scheme, forward: Scheme, key_values: Literal["float32", "int8"] = "float32") -> Recipe:
    """Schemes for the products of the language model. Its tables and the conditioning, 40 MB in fp16, would add as
    much error in 8 bits as a third of all products."""
    return Recipe(
        rules=(
            Rule(pattern="rotary.*", scheme=Float32()),
            Rule(pattern="cond_enc.*", scheme=StoredFp16()),
            Rule(pattern="*_emb.*", scheme=StoredFp16()),
            Rule(pattern="*.mlp.*", scheme=forward),
            Rule(pattern="*", scheme=attention),
        ),
        key_values=key_values,
    )


RECIPES = {
    "int8": recipe(BlockMatMul(block=32), BlockMatMul(block=64)),
    "int8-fast": recipe(BlockMatMul(block=128), BlockMatMul(block=128), key_values="int8"),
    "int4": recipe(BlockMatMul(block=32, bits=4), BlockMatMul(block=32, bits=4)),
    "fp16": Recipe(rules=(Rule(pattern="rotary.*", scheme=Float32()), Rule(pattern="*", scheme=StoredFp16()))),
}

EXAMPLE_TOKENS = 5
TIMED_TOKENS = (10, 20, 35)
STEP_POSITION = 60
CALL_TOKENS, CALL_CHARACTERS = (3, 14), (20, 120)
BRIEF_TOKENS = 25
KNOWN_SHARE = 0.5  # a vocabulary that knows less of a built-in text is given tokens at random


def load(source: Source) -> Loaded:
    found = checkpoint.load(source)
    config = {"model": asdict(found.config), "tokenizer": found.tokenizer}
    return Loaded(config, found, found.voices)


def export(loaded: Loaded, folder: Path, opset: int) -> None:
    """fp32 ONNX of the three graphs."""
    found: Checkpoint = loaded.module
    config = found.config
    if config.text_vocab > config.start_speech:
        raise CheckpointError(
            f"the text vocabulary of {config.text_vocab} overlaps the start of speech, {config.start_speech}"
        )
    graph = Graph(
        CONDITIONING,
        inputs={"speaker_emb": {}, "cond_prompt_speech_emb": {1: "prompt"}},
        outputs={"cond_emb": {1: "rows"}},
    )
    example = {
        "speaker_emb": torch.zeros(1, config.speaker_size),
        "cond_prompt_speech_emb": torch.zeros(1, EXAMPLE_TOKENS, config.hidden_size),
    }
    onnx.export(graph, onnx.Scoped(cond_enc=Conditioning(found.model)), example, folder, opset)
    embed = embed_tokens(found.model, opset)
    embed.metadata_props.update(metadata(loaded)[EMBED])
    onnx.save(embed, folder / f"{EMBED}.onnx")
    onnx.save(language_model(found.model, opset), folder / f"{LANGUAGE_MODEL}.onnx", external=True)


def metadata(loaded: Loaded) -> dict[str, dict[str, str]]:
    return {EMBED: {CONFIG: json.dumps(asdict(loaded.module.config))}}


def reference(loaded: Loaded, threads: int, _: int, double: bool) -> Reference:
    return Reference(loaded.module.model, threads, double)


def runner(graphs: Graphs, threads: int, _: bool) -> T3Runner:
    return T3Runner(graphs, threads)


def cases(config: Config, voices: Voices, purpose: str) -> list[Case]:
    """Texts for "calibration", "search" or "validation", by voices taken by turns, spoken for some tokens; "timed"
    ones have TIMED_TOKENS, a "brief" one BRIEF_TOKENS, and those of a "sequence" some of CALL_TOKENS, whatever the
    checkpoint would say."""
    names = sorted(voices)[: 1 if purpose == "sequence" else None]  # another voice's first call is a first call
    model = T3Config(**config["model"])
    tokenizer = _tokenizer(config)
    said, made = _said(purpose), []
    counts = sentences.within([utterance.tokens for utterance in said], model.max_speech_tokens)
    for i, (utterance, count) in enumerate(zip(said, counts, strict=True)):
        name = names[i % len(names)]
        ids = _tokens(model, tokenizer, utterance.text, 0 if purpose == "sequence" else i)
        case = _case(model, ids, name, voices[name], count, utterance)
        made.append(replace(case, name=f"{sentences.LENGTHS[i]}, {case.name}") if purpose == "timed" else case)
    return made


def spoken(config: Config, voices: Voices, texts: Sequence[str]) -> list[Case]:
    """Utterances of English texts, as many tokens as their length asks for, at most MAX_TOKENS. Raises BadInput
    naming a text of which nothing can be said."""
    model = T3Config(**config["model"])
    tokenizer = _tokenizer(config)

    def said(text: str, voice: str) -> list[tuple[str, Mapping[str, np.ndarray]]]:
        pieces = sentences.pieces(text, lambda p: len(_ids(model, tokenizer, p)), model.text_positions - 2)
        made = []
        for piece in pieces:
            ids = _ids(model, tokenizer, piece)
            if sentences.says(map(tokenizer.id_to_token, ids)):
                wanted = max(1, len(piece) * TOKENS_PER_SECOND // t3_sentences.CHARACTERS_PER_SECOND)
                count = min(wanted, MAX_TOKENS, model.max_speech_tokens)
                case = _case(model, ids, voice, voices[voice], count, Utterance(piece, count))
                made.append((f"{len(ids) + 2} text tokens, {count} speech tokens", case.inputs))
        return made

    return sentences.spoken(voices, texts, said)


def _said(purpose: str) -> list[Utterance]:
    long = t3_sentences.LONG
    if purpose == "sequence":
        sizes = zip(*sentences.sequence(CALL_CHARACTERS, CALL_TOKENS), strict=True)
        return [Utterance(long[:characters], tokens) for characters, tokens in sizes]
    if purpose in ("timed", "brief"):
        counts = TIMED_TOKENS if purpose == "timed" else (BRIEF_TOKENS,)
        return [Utterance(long[: n * t3_sentences.CHARACTERS_PER_SECOND // TOKENS_PER_SECOND], n) for n in counts]
    return list(getattr(t3_sentences, purpose.upper()))


def _case(config: T3Config, ids: Sequence[int], name: str, voice: Voice, count: int, utterance: Utterance) -> Case:
    """ids: of the text, without start and stop. The speech has `count` tokens, neither fewer nor more."""
    inputs = {
        "text_tokens": np.array([[config.start_text, *ids, config.stop_text]], np.int64),
        **vars(voice),
        "min_tokens": np.array(count),
        "max_tokens": np.array(count),
    }
    label = f"{len(ids) + 2} text tokens, {count} speech tokens, {name}"
    if utterance.exaggeration is not None:
        inputs["exaggeration"] = np.array([utterance.exaggeration], np.float32)
        label += f", exaggeration {utterance.exaggeration:g}"
    if utterance.cfg_weight is not None:
        inputs["cfg_weight"] = np.array(utterance.cfg_weight)
        label += f", cfg_weight {utterance.cfg_weight:g}"
    return Case(label, inputs, utterance.text)


def _tokenizer(config: Config) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(config["tokenizer"]))


def _tokens(config: T3Config, tokenizer: Tokenizer, text: str, seed: int) -> list[int]:
    """A text's tokens, without start and stop; of another alphabet's vocabulary, as many tokens at random."""
    ids, unknown = _ids(config, tokenizer, text), tokenizer.token_to_id("[UNK]")
    if sum(i != unknown for i in ids) < KNOWN_SHARE * len(ids):
        ids = np.random.default_rng(seed).integers(1, config.text_vocab, len(text)).tolist()
    return ids[: config.text_positions - 2]


def _ids(config: T3Config, tokenizer: Tokenizer, text: str) -> list[int]:
    multilingual = config.is_multilingual
    return encode(tokenizer, normalize(text, multilingual), "en" if multilingual else None)


def key_value_reach(files: Graphs, utterances: Sequence[Case], threads: int) -> dict[str, np.ndarray]:
    """See Model. Under guidance, in both rows."""
    engine = Engine(files, threads)
    found: dict[str, np.ndarray] = {}
    for case in utterances:
        request = engine.request(case.inputs)
        with engine.prompted(case.inputs, True, request.max_tokens) as begun:
            spoken = sum(1 for _ in generate(begun.first, begun.feed, request))
            reach = begun.key_values.reach(begun.positions + spoken - 1)
        found = {name: np.maximum(value, found.get(name, 0)) for name, value in reach.items()}
    return found


def feeds(graphs: Graphs, case: Case, threads: int) -> dict[str, dict[str, np.ndarray]]:
    """See Model. The language model takes the prompt and the speech behind it at once."""
    return T3Runner(graphs, threads).feeds(case.inputs)


def steps(
    files: Mapping[str, Mapping[str, Path]], engines: Mapping[str, Engine], case: Case, threads: int
) -> dict[str, Metrics]:
    """Time of a step at position STEP_POSITION of speech under guidance, variants by turns, and how much of the
    read bandwidth, measured alongside, it uses."""
    with ExitStack() as stack:
        feeds, position, past = stepping(stack, engines, case)
        seconds, read = step_times(feeds, 1, position, threads)
    metrics = {}
    for name, engine in engines.items():
        taken = float(np.median(seconds[name]))
        swept = weight_bytes(files[name][LANGUAGE_MODEL]) + past * engine.bytes_per_position
        metrics[name] = {
            "step_ms": 1e3 * taken,
            "step_rtf": taken * TOKENS_PER_SECOND,
            "tokens_per_s": 1 / taken,
            "step_speedup_vs_fp32": float(np.median(seconds["fp32"] / seconds[name])),
            "read_gb_s": read / 1e9,
            "bandwidth_ratio": swept / taken / read,
        }
    return metrics


def stepping(stack: ExitStack, engines: Mapping[str, Engine], case: Case) -> tuple[dict[str, Feed], int, int]:
    """Each engine's feed() with an utterance begun, the position of speech to go on from, and how many positions lie
    before it, the prompt's included."""
    most = min(STEP_POSITION + STEPS + 1, next(iter(engines.values())).config.max_speech_tokens)
    position = max(1, most - STEPS - 1)
    started = {
        name: stack.enter_context(engine.prompted(case.inputs, True, most)) for name, engine in engines.items()
    }
    for begun in started.values():
        for token in range(1, position):
            begun.feed(token, token)
    past = next(iter(started.values())).positions + position - 1
    return {name: begun.feed for name, begun in started.items()}, position, past


def weight_bytes(graph: Path) -> int:
    """Bytes of the weights of all products in a graph, as one step reads them: those held as fp16 are unfolded."""
    weights = {}
    for node in ir.load(graph).graph:
        for value in node.inputs if "MatMul" in node.op_type else ():
            held = value.producer().inputs[0] if value and value.producer() else value  # type: ignore[union-attr]
            if held is not None and held.const_value is not None:
                unfolded = 2 if held.const_value.dtype == ir.DataType.FLOAT16 else 1
                weights[held.name] = held.const_value.nbytes * unfolded
    return sum(weights.values())


def speaker(files: Mapping[str, Path], config: Config, voices: Voices, threads: int) -> Speak:
    engine, (*_, case) = Engine(files, threads), cases(config, voices, "timed")
    tokenizer, (start, *_, stop) = _tokenizer(config), case.inputs["text_tokens"][0].tolist()

    def speak() -> Iterator[np.ndarray]:
        ids = _tokens(engine.config, tokenizer, case.text, len(TIMED_TOKENS) - 1)
        return engine.stream({**case.inputs, "text_tokens": np.array([[start, *ids, stop]], np.int64)})

    return speak


MODEL = Model(
    graphs=GRAPHS,
    external=(LANGUAGE_MODEL,),
    load=load,
    export=export,
    reference=reference,
    runner=runner,
    cases=cases,
    spoken=spoken,
    client_files=write_client_files,
    assets=read_assets,
    speaker=speaker,
    metadata=metadata,
    steps=steps,
    key_value_reach=key_value_reach,
    feeds=feeds,
    parity=PARITY,
    recipes=RECIPES,
    coreml=COREML,
)
