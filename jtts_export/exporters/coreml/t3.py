"""T3 (Chatterbox) as CoreML packages: conditioning, embeddings of tokens, and the language model."""

from __future__ import annotations

from jtts_export.errors import CheckpointError
from jtts_export.exporters.model import Loaded
from jtts_export.models.t3.config import T3Config
from jtts_export.models.t3.model import T3

from .stage import MAIN, Export, Function, Length, Stage, Target, Tensor, cache_names
from .t3_chain import (
    CONDITIONING,
    DECODE,
    EMBED,
    LANGUAGE_MODEL,
    PREFILL,
    ROWS,
    SIZES,
    STATELESS,
    Chain,
    Sizes,
)
from .t3_modules import Conditioning, Decoder, Embed, Stateful, Stateless, states

NEITHER_STATES_NOR_FUNCTIONS: tuple[Target, ...] = ("iOS17",)
TABLES = ("decoder_cos", "decoder_sin")  # no weights: where a position is

CHAIN = """\
Numbers are those of the official English checkpoint: hidden size 1024, 30 layers of 16 heads of size 64, a speech
vocabulary of 8194, start of text 255, stop of text 0, start of speech 6561, stop of speech 6562. 25 speech tokens
are a second.

1. **Tokens.** The text to ids with tokenizer.json, start of text before them and stop of text behind: t ids.
2. **Embeddings** (`embed`). `tokens`, `positions` and `is_text` (1 of text, 0 of speech), int32 [1, n], to `embeds`
   fp16 [2, n, 1024]. Positions of text and of speech begin at 0 each. The second row is for guidance: of text it has
   the positions alone, of speech it is the same as the first. More than 1024 tokens take several calls.
3. **Voice** (`conditioning`), once for each voice and exaggeration. `prompt` fp16 [1, 160, 1024]: the first row of
   `embed` of the voice's speech tokens, at positions 0, 1, 2, ..., then zeros; `prompt_length`: how many they are.
   `cond_emb` [1, 33, 1024] is the voice. Of a voice without such tokens, take the first of its 33 rows alone.
4. **Prompt** fp16 [2, p, 1024]: `cond_emb`, `emotion` (the same in both rows), `embed` of the text, and `embed` of
   the start of speech **twice, both times at position 0**. So p = 33 + 1 + t + 2, and the text begins at v = 34.
5. **Prefill** (function `prefill` of `language_model`). The prompt in chunks of 64: `embeds` [2, 64, 1024], the last
   ones padded with zeros; `position`, where the chunk begins in the context: 0, 64, 128, ...; `count`, how many of
   its 64 are there. `logits` [2, 8194] behind the last chunk are of the first speech token. `alignment` [64, 1024]
   says where each of the 64 looks, by position in the context.
6. **Choose a token**, in this order: guidance, c + cfg_weight (c - u) with c and u the rows of `logits`; of
   multilingual checkpoints the alignment analysis, which reads columns v to v + t of `alignment` (the rows of both
   starts of speech, which may lie in two chunks; later the one row there is); repetition penalty; temperature;
   min-p; top-p; the draw. End at the stop of speech.
7. **Decode** (function `decode`, with the same state). Speech token number i, 1 for the first: `embed` at position i
   of speech, to `decode` as `embeds` [2, 1, 1024] at `position` p + i - 1. Go on with 6. End where `position` would
   be 1024.

**Without guidance** make the same calls, and take the first row of `logits`.

**States.** Load the package once for each function (`functionName`); both work on the state that one of them made,
and their weights are shared. Nothing at positions behind the one being fed is read. So a state need not be cleared,
and the next text by the same voice and exaggeration can begin its prefill at v, with the rows behind the voice's.

**iOS 17** has neither states nor functions that share weights. `language_model_stateless` takes the prompt in chunks
of 8, and a speech token as a chunk with a `count` of 1. `key_N` and `value_N`, fp16 [2, 16, 1024, 64] and zeros at
first, are inputs of every call; of its outputs `new_key_N` and `new_value_N`, [2, 16, 8, 64], copy the first `count`
positions into those arrays, from `position` on.
"""


def stages(loaded: Loaded, target: Target, sizes: Sizes = SIZES) -> list[Stage]:
    """Packages of a checkpoint. Raises CheckpointError for a voice whose prompt is too long for them."""
    model: T3 = loaded.module.model
    for name, voice in loaded.voices.items():
        count = voice.cond_prompt_speech_tokens.size
        if count > sizes.prompt:
            raise CheckpointError(f"voice {name} has a prompt of {count} tokens; a package takes {sizes.prompt}")
    made = _stateless(model, sizes) if target in NEITHER_STATES_NOR_FUNCTIONS else _stateful(model, sizes)
    return [_conditioning(model, sizes), _embed(model, sizes), made]


def _conditioning(model: T3, sizes: Sizes) -> Stage:
    config = model.config
    inputs = (
        Tensor("speaker_emb", (1, config.speaker_size), "Of the voice"),
        Tensor(
            "prompt",
            (1, sizes.prompt, config.hidden_size),
            "Embeddings of the voice's speech tokens, then anything finite",
            "fp16",
        ),
        Tensor("prompt_length", (1,), "Tokens in the prompt, 0 of none", "int32"),
        Tensor("exaggeration", (1,), "Of the emotion; 0.5 is neutral"),
    )
    rows = (1, 1 + config.queries, config.hidden_size)
    outputs = (
        Tensor("cond_emb", rows, "The voice; without a prompt only the first row means something", "fp16"),
        Tensor("emotion", (1, 1, config.hidden_size), "The emotion's row", "fp16"),
    )
    return Stage(
        name=CONDITIONING,
        description="a voice and an emotion to rows of the prompt",
        functions={MAIN: Function(Conditioning(model), inputs, outputs)},
        schemes=(),
    )


def _embed(model: T3, sizes: Sizes) -> Stage:
    config = model.config
    tokens = (1, Length(1, sizes.embed, min(sizes.prefill, sizes.embed)))
    inputs = (
        Tensor("tokens", tokens, "Of text or of speech", "int32"),
        Tensor("positions", tokens, "Of each token, in the text or in the speech, from 0 on", "int32"),
        Tensor("is_text", tokens, "1 for a token of text, 0 for one of speech", "int32"),
    )
    shape = (ROWS, "tokens", config.hidden_size)
    outputs = (Tensor("embeds", shape, "The request's row, and that of guidance, which knows no text", "fp16"),)
    return Stage(
        name=EMBED,
        description="tokens of text and of speech to rows of the prompt",
        functions={MAIN: Function(Embed(model), inputs, outputs)},
        units="CPU_ONLY",
        schemes=(),  # 31 MB; in 8 bits they add two thirds of the divergence that all products do
    )


def _stateful(model: T3, sizes: Sizes) -> Stage:
    decoder, held = Decoder(model, sizes.context), states(model, sizes.context)
    caches = tuple(
        Tensor(name, tuple(value.shape), "[row, head, context position, head size]", "fp16")
        for name, value in held.items()
    )
    functions = {}
    for name, chunk in ((PREFILL, sizes.prefill), (DECODE, 1)):
        embeds, position, count = _chunk(model.config, chunk)
        inputs = (embeds, position, count) if chunk > 1 else (embeds, position)
        functions[name] = Function(
            Stateful(decoder, held), inputs, _spoken(model.config, chunk, sizes.context), caches
        )
    return Stage(
        name=LANGUAGE_MODEL,
        description="rows of the prompt, then of speech token after speech token, to logits of the next",
        functions=functions,
        schemes=("linear8", "block8-64", "block8-32"),
        skip=TABLES,
    )


def _stateless(model: T3, sizes: Sizes) -> Stage:
    config, chunk = model.config, sizes.chunk
    names = [name for pair in cache_names(config.layers) for name in pair]
    shape = (ROWS, config.heads, sizes.context, config.head_size)
    past = [Tensor(name, shape, "[row, head, context position, head size]", "fp16") for name in names]
    fresh = (ROWS, config.heads, chunk, config.head_size)
    new = [Tensor(f"new_{name}", fresh, "The chunk's part of it", "fp16") for name in names]
    inputs, outputs = (*_chunk(config, chunk), *past), (*_spoken(config, chunk, sizes.context), *new)
    return Stage(
        name=STATELESS,
        description=f"up to {chunk} rows of the prompt, or one of a speech token, to logits of the next",
        functions={MAIN: Function(Stateless(Decoder(model, sizes.context)), inputs, outputs)},
        skip=TABLES,
    )


def _chunk(config: T3Config, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        Tensor("embeds", (ROWS, chunk, config.hidden_size), "Rows to go on with, then anything finite", "fp16"),
        Tensor("position", (1,), "In the context, of the first of them", "int32"),
        Tensor("count", (1,), "How many rows there are, from 1 on", "int32"),
    )


def _spoken(config: T3Config, chunk: int, context: int) -> tuple[Tensor, ...]:
    logits = Tensor("logits", (ROWS, config.speech_vocab), "Of the token behind the last row")
    if not config.alignment_heads:
        return (logits,)
    looks = "Where each row of the request looks, by context position: the mean of the alignment heads"
    return logits, Tensor("alignment", (chunk, context), looks)


EXPORT = Export(stages=stages, runner=Chain, chain=CHAIN)
