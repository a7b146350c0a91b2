"""Distances between distributions over tokens. numpy and scipy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import log_softmax

Row = Mapping[str, float]


def compare(measured: np.ndarray, reference: np.ndarray, prefix: str) -> dict[str, float]:
    """Of one utterance, logits [tokens, vocabulary]: <prefix>_kl, the mean divergence in nats of what is measured
    from the reference, KL(reference || measured); <prefix>_top1_ratio, the share of tokens that both hold likeliest;
    <prefix>_max_abs, the largest difference; <prefix>_tokens. inf and 0 where shapes differ or logits are no
    numbers, of whichever side."""
    tokens = {f"{prefix}_tokens": float(len(reference))}
    if measured.shape != reference.shape or any((np.isnan(x) | np.isposinf(x)).any() for x in (measured, reference)):
        return {f"{prefix}_kl": np.inf, f"{prefix}_top1_ratio": 0.0, f"{prefix}_max_abs": np.inf, **tokens}
    exact, made = (log_softmax(x.astype(np.float64), axis=-1) for x in (reference, measured))
    with np.errstate(invalid="ignore"):
        divergence = np.where(np.isneginf(exact), 0, np.exp(exact) * (exact - made)).sum(-1)
        distance = np.where(measured == reference, 0, np.abs(measured.astype(np.float64) - reference))
    return {
        f"{prefix}_kl": float(divergence.mean()),
        f"{prefix}_top1_ratio": float((measured.argmax(-1) == reference.argmax(-1)).mean()),
        f"{prefix}_max_abs": float(distance.max()),
        **tokens,
    }


def overall(rows: Sequence[Row], prefix: str) -> dict[str, float]:
    """Of several utterances: means over all their tokens, and the largest difference."""
    tokens = [row[f"{prefix}_tokens"] for row in rows]
    means = {f"{prefix}_{name}": _mean(rows, f"{prefix}_{name}", tokens) for name in ("kl", "top1_ratio")}
    return {**means, f"{prefix}_max_abs": max(row[f"{prefix}_max_abs"] for row in rows)}


def _mean(rows: Sequence[Row], name: str, weights: Sequence[float]) -> float:
    return float(np.average([row[name] for row in rows], weights=weights))
