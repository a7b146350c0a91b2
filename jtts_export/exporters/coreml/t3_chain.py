"""T3's packages chained as an app would, with numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from jtts_export.errors import BadInput
from jtts_export.models.t3.config import T3Config
from jtts_export.runtime.t3 import request_of
from jtts_export.runtime.t3_generation import Output, Request, follow, generate, greedy
from jtts_export.runtime.t3_sampling import guide
from jtts_export.runtime.t3_taps import every_token
from jtts_export.validate.runner import Arrays

from .stage import Network, Networks, cache_names

CONDITIONING, EMBED, LANGUAGE_MODEL = "conditioning", "embed", "language_model"
STATELESS = "language_model_stateless"
PREFILL, DECODE = "prefill", "decode"
ROWS = 2  # the request, and the same without its text


@dataclass(frozen=True)
class Sizes:
    """What is fixed when the packages are made, all in positions.

    context: the most that prompt and speech take together. With fp16 keys and values it costs the official model
    250 kB a position, and every step reads and rewrites all of it: 1024 are 252 MB, and 33 s of speech behind a text
    of 150 tokens. prefill: of one call on the prompt; two or three such calls take an ordinary one. chunk: of one
    call where the same function serves prompt and speech. prompt: the longest of a voice, of which the authors make
    150 tokens. embed: the most that is embedded at once.
    """

    context: int = 1024
    prefill: int = 64
    chunk: int = 8
    prompt: int = 160
    embed: int = 1024


SIZES = Sizes()


class _LanguageModel(Protocol):
    """One utterance's keys and values, and what extends them."""

    chunk: int  # positions of extend(), at most

    def extend(self, embeds: np.ndarray, position: int) -> dict[str, np.ndarray]:
        """Up to `chunk` positions of a prompt [rows, n, hidden] from a context position on -> logits behind the last
        [rows, vocabulary] and, of n positions or more, alignment [n, context]."""
        ...

    def step(self, embeds: np.ndarray, position: int) -> dict[str, np.ndarray]:
        """The same of one position of speech."""
        ...


class Chain:
    """What T3Runner is to graphs: the same inputs and taps. See runtime.t3_taps.TAPS; cond_emb, emotion and tokens
    can be forced."""

    def __init__(self, networks: Networks, config: Mapping[str, object], sizes: Sizes = SIZES) -> None:
        self._networks, self._sizes = networks, sizes
        self.config = T3Config(**config["model"])  # type: ignore[arg-type]

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        made = dict(forced or {})
        if "embeddings" in wanted and "embeddings" not in made:
            made["embeddings"] = self._embeddings
        if set(wanted) - set(made):
            made = {**self._condition(inputs), **made}
        if "tokens" not in made and {"tokens", "logits", "alignment"} & set(wanted):
            made["tokens"] = self._speak(inputs, made)
        if "greedy" in wanted and "greedy" not in made:
            made["greedy"] = self._speak(greedy(inputs), made)
        if {"logits", "alignment"} & set(wanted) - set(made):
            made = {**self._along(inputs, made), **made}
        return {name: made[name] for name in wanted}

    def embed(self, tokens: np.ndarray, positions: np.ndarray, is_text: np.ndarray) -> np.ndarray:
        """Three of int [n] -> [rows, n, hidden]."""
        parts = []
        for start in range(0, len(tokens), self._sizes.embed):
            part = slice(start, start + self._sizes.embed)
            feed = {"tokens": tokens[part], "positions": positions[part], "is_text": is_text[part]}
            ids = {name: value[None].astype(np.int32) for name, value in feed.items()}
            parts.append(self._networks[EMBED].run(ids)["embeds"])
        return np.concatenate(parts, 1)

    def _speech(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return self.embed(tokens, positions, np.zeros_like(tokens))

    def _condition(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """A voice and its emotion, as taps of those names."""
        tokens, most = inputs["cond_prompt_speech_tokens"][0], self._sizes.prompt
        if len(tokens) > most:
            raise BadInput(f"a voice's prompt of {len(tokens)} tokens; the packages take {most}")
        prompt = np.zeros((1, most, self.config.hidden_size), np.float32)
        if len(tokens):
            prompt[:, : len(tokens)] = self._speech(tokens, np.arange(len(tokens)))[:1]
        feed = {
            "speaker_emb": inputs["speaker_emb"],
            "prompt": prompt,
            "prompt_length": np.array([len(tokens)], np.int32),
            "exaggeration": inputs["exaggeration"].astype(np.float32),
        }
        made = self._networks[CONDITIONING].run(feed)
        rows = made["cond_emb"] if len(tokens) else made["cond_emb"][:, :1]
        return {"cond_emb": rows, "emotion": made["emotion"][0]}

    def _prompt(self, inputs: Arrays, voice: Arrays) -> np.ndarray:
        """Everything before the first speech token, [rows, positions, hidden]."""
        text = inputs["text_tokens"][0]
        starts, places = np.full(2, self.config.start_speech), np.arange(len(text))
        parts = voice["cond_emb"], voice["emotion"][None]
        common = np.concatenate([np.broadcast_to(part, (ROWS, *part.shape[1:])) for part in parts], 1)
        said = self.embed(text, places, np.ones_like(text))
        return np.concatenate([common, said, self._speech(starts, np.zeros_like(starts))], 1)

    def _begin(self, inputs: Arrays, voice: Arrays, request: Request) -> _Spoken:
        model: _LanguageModel
        if LANGUAGE_MODEL in self._networks:
            model = _Stateful(self._networks[LANGUAGE_MODEL], self._sizes)
        else:
            model = _Stateless(self._networks[STATELESS], self._sizes, self.config)
        guided = request.sampling.cfg_weight != 0
        return _Spoken(self, model, self._prompt(inputs, voice), self._sizes.context, guided)

    def _request(self, inputs: Arrays) -> Request:
        return request_of(inputs, self.config, bool(self.config.alignment_heads))

    def _speak(self, inputs: Arrays, voice: Arrays) -> np.ndarray:
        """One utterance, int64 [tokens]; it ends where the context does."""
        request = self._request(inputs)
        spoken = self._begin(inputs, voice, request)
        request = replace(request, max_tokens=min(request.max_tokens, spoken.room))
        return np.fromiter(generate(spoken.first(), spoken.feed, request), np.int64)

    def _along(self, inputs: Arrays, made: Arrays) -> dict[str, np.ndarray]:
        """Everything that can be said of given tokens."""
        request, tokens = self._request(inputs), made["tokens"]
        spoken = self._begin(inputs, made, request)
        if len(tokens) > spoken.room:
            raise BadInput(f"{len(tokens)} speech tokens; the context has {spoken.room} positions for them")
        logits, attention = [], []
        for output in follow(spoken.first(), spoken.feed, tokens):
            logits.append(guide(output.logits, request.sampling.cfg_weight))
            if output.attention is not None:
                attention.append(output.attention[-1, request.text])
        alignment = np.stack(attention) if attention else np.zeros((0,), np.float32)
        return {"logits": np.stack(logits), "alignment": alignment}

    @cached_property
    def _embeddings(self) -> np.ndarray:
        tokens = every_token(self.config)
        (text, places), speech = tokens["text"], tokens["speech"]
        said = self.embed(text, places, np.ones_like(text))[0]
        return np.concatenate([said, self._speech(*speech)[0]])


class _Spoken:
    """An utterance: its prompt, then token by token. Without guidance the second row is left out of the outputs."""

    def __init__(self, chain: Chain, model: _LanguageModel, prompt: np.ndarray, context: int, guided: bool) -> None:
        self._chain, self._model, self._prompt, self._guided = chain, model, prompt, guided
        self._positions = prompt.shape[1]
        self.room = context - self._positions + 1  # tokens, of which the last is not fed
        if self.room < 1:
            raise BadInput(f"a prompt of {self._positions} positions; the context has {context}")

    def first(self) -> Output:
        """Behind the prompt; alignment has a row for each start of speech, which two chunks may share."""
        rows: list[np.ndarray] = []
        for start in range(0, self._positions, self._model.chunk):
            part = self._prompt[:, start : start + self._model.chunk]
            made = self._model.extend(part, start)
            rows += [made["alignment"][: part.shape[1]]] if "alignment" in made else []
        return self._output(made, np.concatenate(rows)[-2:] if rows else None)

    def feed(self, token: int, position: int) -> Output:
        """Behind one more token, at a position of speech that is 1 for the first."""
        embeds = self._chain._speech(np.array([token]), np.array([position]))
        made = self._model.step(embeds, self._positions + position - 1)
        return self._output(made, made["alignment"][:1] if "alignment" in made else None)

    def _output(self, made: Arrays, attention: np.ndarray | None) -> Output:
        return Output(made["logits"] if self._guided else made["logits"][:1], attention)


class _Stateful:
    def __init__(self, network: Network, sizes: Sizes) -> None:
        self._network, self.chunk = network, sizes.prefill
        self._state = network.new_state(PREFILL)

    def extend(self, embeds: np.ndarray, position: int) -> dict[str, np.ndarray]:
        return self._network.run(_chunk(embeds, position, self.chunk), PREFILL, self._state)

    def step(self, embeds: np.ndarray, position: int) -> dict[str, np.ndarray]:
        feed = {"embeds": embeds, "position": np.array([position], np.int32)}
        return self._network.run(feed, DECODE, self._state)


class _Stateless:
    def __init__(self, network: Network, sizes: Sizes, config: T3Config) -> None:
        self._network, self.chunk = network, sizes.chunk
        shape = (ROWS, config.heads, sizes.context, config.head_size)
        self._past = {name: np.zeros(shape, np.float32) for names in cache_names(config.layers) for name in names}

    def extend(self, embeds: np.ndarray, position: int) -> dict[str, np.ndarray]:
        made = self._network.run({**_chunk(embeds, position, self.chunk), **self._past})
        count = embeds.shape[1]
        for name, past in self._past.items():
            past[:, :, position : position + count] = made[f"new_{name}"][:, :, :count]
        return made

    def step(self, embeds: np.ndarray, position: int) -> dict[str, np.ndarray]:
        return self.extend(embeds, position)


def _chunk(embeds: np.ndarray, position: int, size: int) -> dict[str, np.ndarray]:
    count = embeds.shape[1]
    padded = np.zeros((ROWS, size, embeds.shape[2]), np.float32)
    padded[:, :count] = embeds
    return {"embeds": padded, "position": np.array([position], np.int32), "count": np.array([count], np.int32)}
