"""Taps of T3's graphs. Needs onnx, not torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx

from .t3 import CONDITIONING, Engine
from .t3_generation import follow, greedy
from .t3_sampling import guide
from .taps import Arrays, Graphs, OnnxRunner

TAPS = {
    "cond_emb": "a voice, f32 [1, 1 + queries, hidden]",
    "tokens": "sampled speech tokens, int64 [tokens]",
    "greedy": "the likeliest speech token each time, int64 [tokens]",
    "logits": "guided, along `tokens`, f32 [tokens, vocabulary]",
    "alignment": "what each of `tokens` attends to in the text, f32 [tokens, text tokens]",
}


class T3Runner:
    """Conditioning on its own; the language model along given tokens, or in the loop that chooses them."""

    def __init__(self, graphs: Graphs, threads: int, optimize: bool = True) -> None:
        self._graphs, self._threads = graphs, threads
        self._conditioning = OnnxRunner(CONDITIONING, graphs[CONDITIONING], threads, optimize)
        self._engine: Engine | None = None
        self._last: tuple[Arrays, np.ndarray | None, dict[str, np.ndarray]] = {}, None, {}

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        """Tensors by the names in TAPS. `tokens` can be forced."""
        forced = forced or {}
        return {name: forced[name] if name in forced else self._tap(name, inputs, forced) for name in wanted}

    def parts(self, inputs: Iterable[str], wanted: str, forced: Iterable[str]) -> dict[str, onnx.ModelProto]:
        """Of the conditioning: what is wrong with the language model, no single weight of it tells."""
        return self._conditioning.parts(["speaker_emb", "cond_prompt_speech_tokens"], wanted, forced)

    def _tap(self, name: str, inputs: Arrays, forced: Arrays) -> np.ndarray:
        if name == "cond_emb":
            return self._conditioning.taps(inputs, [name])[name]
        if self._engine is None:
            self._engine = Engine(self._graphs, self._threads)
        if name in ("tokens", "greedy"):
            return self._engine.speak(inputs if name == "tokens" else greedy(inputs))
        tokens = forced.get("tokens")
        if self._last[0] is not inputs or self._last[1] is not tokens:
            self._last = inputs, tokens, self._along(inputs, self._engine.speak(inputs) if tokens is None else tokens)
        return self._last[2][name]

    def _along(self, inputs: Arrays, tokens: np.ndarray) -> dict[str, np.ndarray]:
        assert self._engine is not None
        request = self._engine.request(inputs)
        weight = request.sampling.cfg_weight
        logits, attention = [], []
        with self._engine.prompted(inputs, weight != 0, len(tokens)) as (first, feed):
            for output in follow(first, feed, tokens):
                logits.append(guide(output.logits, weight).copy())
                if output.attention is not None:
                    attention.append(output.attention[-1, request.text])
        return {"logits": np.stack(logits), "alignment": np.array(attention)}
