"""How T3 (Chatterbox) draws the next speech token from its logits. numpy only.

The order is the authors' (models/t3/t3.py of chatterbox-tts 0.1.7): classifier-free guidance, repetition penalty,
temperature, min-p, top-p. The last four do what transformers' logits processors of these names do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from jtts_export.errors import BadInput, OutsideError

RANGES = {  # a temperature of 0 is allowed too
    "cfg_weight": (0.0, 10.0),
    "repetition_penalty": (0.1, 10.0),
    "temperature": (0.01, 10.0),
    "min_p": (0.0, 1.0),
    "top_p": (0.0, 1.0),
}


@dataclass(frozen=True)
class Sampling:
    """The authors' defaults for English; for the multilingual checkpoint they use a repetition penalty of 2.

    A temperature of 0 is greedy decoding. Raises BadInput for a value out of its range.
    """

    cfg_weight: float = 0.5
    repetition_penalty: float = 1.2
    temperature: float = 0.8
    min_p: float = 0.05
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = _checked(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)  # a Python float keeps float32 logits float32


def guide(logits: np.ndarray, cfg_weight: float) -> np.ndarray:
    """Classifier-free guidance: f32 [2, vocab], conditional row first, to [vocab]. A single row stays as it is."""
    if len(logits) == 1:
        return logits[0]
    conditional, unconditional = logits
    return conditional + cfg_weight * (conditional - unconditional)


def probabilities(logits: np.ndarray, seen: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Probabilities f64 [vocab] of the next token, those of removed tokens zero.

    logits: f32 [vocab], left unchanged. seen: int [tokens], the tokens so far, start-of-speech included. Raises
    OutsideError for logits of which none can be drawn: with NaN or infinity, or all minus infinity.
    """
    scores = _penalize(logits, seen, sampling.repetition_penalty)
    if sampling.temperature:
        scores /= sampling.temperature
    peak = scores.max()
    if not math.isfinite(peak):
        raise OutsideError("the model's logits are not finite")
    result = np.zeros(len(scores))
    if not sampling.temperature:
        result[scores.argmax()] = 1
        return result
    scores -= peak
    # A probability below min_p times the highest is a score below log(min_p): no softmax over all is needed.
    tokens = np.flatnonzero(scores >= (math.log(sampling.min_p) if sampling.min_p else -math.inf))
    if sampling.top_p < 1:
        tokens = tokens[_nucleus(scores[tokens], sampling.top_p)]
    weights = np.exp(scores[tokens], dtype=np.float64)
    result[tokens] = weights / weights.sum()
    return result


def choose(probabilities: np.ndarray, uniform: float) -> int:
    """The token at `uniform`, in [0, 1), of the cumulative distribution. Never one of probability zero."""
    tokens = np.flatnonzero(probabilities)
    cumulative = np.cumsum(probabilities[tokens], dtype=np.float64)  # one after the other, on every machine
    # In floating point too, a number below 1 times the total is less than the total: there always is a token.
    return int(tokens[np.searchsorted(cumulative, uniform * cumulative[-1], side="right")])


def _checked(name: str, value: object) -> float:
    low, high = RANGES[name]
    greedy = name == "temperature"
    if isinstance(value, float | int | np.floating) and (low <= value <= high or (greedy and value == 0)):
        return float(value)
    raise BadInput(f"{name} is {value!r}; it must be {'0 (greedy) or ' * greedy}from {low:g} to {high:g}")


def _penalize(logits: np.ndarray, seen: np.ndarray, penalty: float) -> np.ndarray:
    """A copy of the logits, with every seen token's made less likely, once however often it was seen."""
    scores = logits.copy()
    repeated = logits[seen]
    scores[seen] = np.where(repeated < 0, repeated * penalty, repeated / penalty)
    return scores


def _nucleus(scores: np.ndarray, top_p: float) -> np.ndarray:
    """Indices of the likeliest tokens that together reach top_p. Of equal ones, the first are left out first.

    float32 like the authors' softmax, so that what lies on the border lies there for both.
    """
    order = np.argsort(scores, kind="stable")
    weights = np.exp(scores[order], dtype=np.float64)
    cumulative = np.cumsum((weights / weights.sum()).astype(np.float32), dtype=np.float64).astype(np.float32)
    removed = int(np.searchsorted(cumulative, np.float32(1 - top_p), side="right"))
    return order[min(removed, len(order) - 1) :]
