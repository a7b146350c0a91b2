"""Taps of T3's graphs. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from jtts_export.models.t3.config import T3Config

from .t3 import CONDITIONING, EMBED, LANGUAGE_MODEL, Engine
from .t3_generation import follow, greedy
from .t3_sampling import guide
from .taps import Arrays, Graphs

TAPS = {
    "embeddings": "every token of text and of speech, at positions from 0 on, f32 [tokens, hidden]",
    "emotion": "that of a request, f32 [1, hidden]",
    "cond_emb": "a voice, f32 [1, 1 + queries, hidden]",
    "tokens": "sampled speech tokens, int64 [tokens]",
    "greedy": "the likeliest speech token each time, int64 [tokens]",
    "logits": "guided, along `tokens`, f32 [tokens, vocabulary]",
    "alignment": "what each of `tokens` attends to in the text, f32 [tokens, text tokens]",
}


def every_token(config: T3Config) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of text and of speech: int64 [n] and [n], tokens and positions, each of which is there at least once."""
    sizes = {
        "text": (config.text_vocab, config.text_positions),
        "speech": (config.speech_vocab, config.speech_positions),
    }
    return {kind: (np.arange(max(both)) % both[0], np.arange(max(both)) % both[1]) for kind, both in sizes.items()}


class T3Runner:
    """The graphs along given tokens, or in the loop that chooses them."""

    def __init__(self, graphs: Graphs, threads: int) -> None:
        self._engine = Engine(graphs, threads)
        self._made: list[tuple[Arrays, np.ndarray, dict[str, np.ndarray]]] = []

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        """Tensors by the names in TAPS. `tokens` can be forced."""
        forced = forced or {}
        return {name: forced[name] if name in forced else self._tap(name, inputs, forced) for name in wanted}

    def feeds(self, inputs: Arrays) -> dict[str, dict[str, np.ndarray]]:
        """What each graph takes: the prompt's tokens, and the whole prompt with the speech behind it."""
        engine, config = self._engine, self._engine.config
        exaggeration = inputs["exaggeration"].astype(np.float32)
        prompt, starts = inputs["cond_prompt_speech_tokens"], np.full((1, 2), config.start_speech)
        text = np.concatenate([inputs["text_tokens"], starts], 1)
        places = np.concatenate([np.arange(text.shape[1] - 2), [0, 0]])[None]
        speech = engine.speak(inputs)[:, None]  # a column: a token alone in its row is one of speech
        emotion = np.array([[config.exaggeration_token]])
        parts = [
            engine.condition(inputs),
            engine.emotion(inputs),
            engine.embed(text, places),
            engine.embed(speech, np.arange(1, len(speech) + 1)[:, None]).swapaxes(0, 1),
        ]
        embeds = np.concatenate(parts, 1)
        none = np.zeros((1, config.heads, 0, config.head_size), np.float32)
        past = {f"past_key_values.{i}.{part}": none for i in range(config.layers) for part in ("key", "value")}
        rows = engine.embed(prompt.T, np.arange(prompt.size)[:, None]).swapaxes(0, 1)
        return {
            CONDITIONING: {"speaker_emb": inputs["speaker_emb"], "cond_prompt_speech_emb": rows},
            EMBED: {
                "input_ids": np.concatenate([emotion, text], 1),
                "position_ids": np.concatenate([[[0]], places], 1),
                "exaggeration": exaggeration,
            },
            LANGUAGE_MODEL: {
                "inputs_embeds": embeds,
                "attention_mask": np.ones(embeds.shape[:2], np.int64),
                **past,
            },
        }

    def _tap(self, name: str, inputs: Arrays, forced: Arrays) -> np.ndarray:
        if name == "embeddings":
            return self._embeddings
        if name == "emotion":
            return self._engine.emotion(inputs)[0]
        if name == "cond_emb":
            return self._engine.condition(inputs)
        if name in ("tokens", "greedy"):
            return self._engine.speak(inputs if name == "tokens" else greedy(inputs))
        if "tokens" not in forced:
            return self._along(inputs, self._engine.speak(inputs))[name]
        tokens = forced["tokens"]
        # One tap is asked of several utterances, then the next.
        for known, along, made in self._made:
            if known is inputs and along is tokens:
                return made[name]
        self._made.append((inputs, tokens, self._along(inputs, tokens)))
        return self._made[-1][2][name]

    @cached_property
    def _embeddings(self) -> np.ndarray:
        engine, tokens = self._engine, every_token(self._engine.config)
        (text, places), (speech, times) = tokens["text"], tokens["speech"]
        said = engine.embed(text[None], places[None])[0]
        return np.concatenate([said, engine.embed(speech[:, None], times[:, None])[:, 0]])

    def _along(self, inputs: Arrays, tokens: np.ndarray) -> dict[str, np.ndarray]:
        request = self._engine.request(inputs)
        weight = request.sampling.cfg_weight
        logits, attention = [], []
        with self._engine.prompted(inputs, weight != 0, len(tokens)) as begun:
            for output in follow(begun.first, begun.feed, tokens):
                logits.append(guide(output.logits, weight).copy())
                if output.attention is not None:
                    attention.append(output.attention[-1, request.text])
        return {"logits": np.stack(logits), "alignment": np.array(attention)}
