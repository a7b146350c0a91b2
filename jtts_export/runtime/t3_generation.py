"""The loop that makes T3 (Chatterbox) speak, whatever computes its logits. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from .t3_alignment import AlignmentAnalyzer
from .t3_sampling import Sampling, choose, guide, probabilities


@dataclass(frozen=True)
class Output:
    """What the model says behind one token or more: logits f32 [rows, vocabulary], and where the conditional row
    attends to, f32 [tokens, positions]."""

    logits: np.ndarray
    attention: np.ndarray | None = None


@dataclass(frozen=True)
class Request:
    """How to choose tokens, and when to stop.

    start, stop: speech tokens. At least min_tokens are made, and at most max_tokens; the stop token is none of them.
    seed: of the uniform draws, one a token. analyzer: sees `text`, a slice of the positions, being read, and may
    hold the stop back or force it.
    """

    start: int
    stop: int
    max_tokens: int
    min_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    text: slice = field(default_factory=lambda: slice(0))
    analyzer: AlignmentAnalyzer | None = None


def generate(first: Output, feed: Callable[[int, int], Output], request: Request) -> Iterator[int]:
    """Speech tokens, one by one.

    first: the model's output behind the prompt; feed(token, position): its output behind one more token.
    """
    uniforms = np.random.default_rng(request.seed)
    seen, output = np.full(1 + request.max_tokens, request.start), first
    for made in range(request.max_tokens):
        if made:
            output = feed(int(seen[made]), made)
        logits = guide(output.logits, request.sampling.cfg_weight)
        if request.analyzer and output.attention is not None:
            logits = request.analyzer.apply(logits, output.attention[:, request.text], int(seen[made]))
        if made < request.min_tokens:
            logits = np.where(np.arange(len(logits)) == request.stop, -np.inf, logits)
        token = choose(probabilities(logits, seen[: made + 1], request.sampling), uniforms.random())
        if token == request.stop:
            return
        seen[made + 1] = token
        yield token


def follow(first: Output, feed: Callable[[int, int], Output], tokens: np.ndarray) -> Iterator[Output]:
    """What the model says ahead of each of `tokens`, whatever it would have chosen."""
    yield first
    for position, token in enumerate(tokens[:-1], 1):
        yield feed(int(token), position)


def greedy(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same request, always for the likeliest token."""
    return {**inputs, "temperature": np.zeros(())}
