"""T3 in PyTorch as a runner."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from jtts_export.runtime.t3 import request_of
from jtts_export.runtime.t3_generation import Output, generate, greedy
from jtts_export.runtime.t3_sampling import guide
from jtts_export.runtime.t3_taps import every_token

from .config import T3Config
from .model import T3, Cache


class Reference:
    """Voice and text to speech tokens; see runtime.t3.Engine for the inputs, runtime.t3_taps.TAPS for the taps."""

    def __init__(self, model: T3, threads: int, double: bool = False) -> None:
        self.model = copy.deepcopy(model).double() if double else model
        self.config: T3Config = model.config
        self.dtype = torch.float64 if double else torch.float32
        self.threads = threads

    @torch.no_grad()
    def taps(
        self, inputs: Mapping[str, np.ndarray], wanted: Sequence[str], forced: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """`tokens` can be forced."""
        torch.set_num_threads(self.threads)
        made = dict(forced or {})
        if "embeddings" in wanted:
            made["embeddings"] = self._embeddings
        if "emotion" in wanted:
            made["emotion"] = self._emotion(inputs)[0].numpy()
        if "cond_emb" in wanted:
            made["cond_emb"] = self._condition(inputs).numpy()
        if "tokens" not in made and {"tokens", "logits", "alignment"} & set(wanted):
            made["tokens"] = self.speak(inputs)
        if "greedy" in wanted:
            made["greedy"] = self.speak(greedy(inputs))
        if {"logits", "alignment"} & set(wanted):
            made |= self._along(inputs, made["tokens"])
        return {name: made[name] for name in wanted}

    @torch.no_grad()
    def speak(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """One utterance step by step, int64 [tokens]."""
        request = request_of(inputs, self.config, bool(self.config.alignment_heads))
        cache = Cache()

        def run(embeds: Tensor) -> Output:
            attention: list[Tensor] | None = [] if request.analyzer else None
            hidden = self.model(embeds, cache, attention)
            logits = self.model.speech_head(hidden[:, -1]).numpy()
            return Output(logits, attention[0][-2:].numpy() if attention else None)

        def feed(token: int, position: int) -> Output:
            embeds = self.model.embed_speech(torch.tensor([[token]]), torch.tensor([position]))
            return run(embeds.expand(rows, -1, -1))

        prompt = self._prompt(inputs, request.sampling.cfg_weight != 0)
        rows = len(prompt)
        return np.fromiter(generate(run(prompt), feed, request), np.int64)

    def _along(self, inputs: Mapping[str, np.ndarray], tokens: np.ndarray) -> dict[str, np.ndarray]:
        """Everything that can be said of given tokens, in one pass."""
        request = request_of(inputs, self.config, True)
        weight = request.sampling.cfg_weight
        prompt = self._prompt(inputs, weight != 0)
        past = self.model.embed_speech(torch.from_numpy(tokens[None, :-1]), torch.arange(1, len(tokens)))
        attention: list[Tensor] | None = [] if self.config.alignment_heads else None
        embeds = torch.cat([prompt, past.expand(len(prompt), -1, -1)], 1)
        hidden = self.model(embeds, None, attention)[:, -len(tokens) :]
        logits = self.model.speech_head(hidden).numpy()
        guided = np.stack([guide(logits[:, i], weight) for i in range(len(tokens))])
        alignment = attention[0][-len(tokens) :, request.text].numpy() if attention else np.zeros((0,), np.float32)
        return {"logits": guided, "alignment": alignment}

    def _condition(self, inputs: Mapping[str, np.ndarray]) -> Tensor:
        speaker = torch.from_numpy(inputs["speaker_emb"]).to(self.dtype)
        return self.model.condition(speaker, torch.from_numpy(inputs["cond_prompt_speech_tokens"]))

    def _prompt(self, inputs: Mapping[str, np.ndarray], guided: bool) -> Tensor:
        text = torch.from_numpy(inputs["text_tokens"])
        return self.model.prompt_embeds(self._condition(inputs), self._emotion(inputs), text, guided)

    def _emotion(self, inputs: Mapping[str, np.ndarray]) -> Tensor:
        return self.model.emotion(torch.from_numpy(inputs["exaggeration"]).to(self.dtype))

    @cached_property
    def _embeddings(self) -> np.ndarray:
        tokens = {kind: map(torch.from_numpy, both) for kind, both in every_token(self.config).items()}
        text, places = tokens["text"]
        said = self.model.text_emb(text) + self.model.text_pos_emb(places)
        return torch.cat([said, self.model.embed_speech(*tokens["speech"])]).numpy()
