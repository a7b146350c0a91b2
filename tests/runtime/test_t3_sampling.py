"""T3's sampling against transformers' logits processors, and draws against the distribution they come from."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

from jtts_export.errors import BadInput, OutsideError
from jtts_export.runtime.t3_sampling import RANGES, Sampling, choose, guide, probabilities

VOCAB, START = 8194, 6561
NONE_SEEN = np.empty(0, np.int64)
PLAIN = Sampling(repetition_penalty=1, temperature=1, min_p=0)
BELOW_ONE = math.nextafter(1.0, 0.0)

IMPORT = """
import sys
from jtts_export.runtime import t3_alignment, t3_sampling, t3_text
print(*sorted({"torch", "transformers", "scipy", "onnx", "onnxruntime", "tokenizers"} & set(sys.modules)))
"""


def theirs(logits: np.ndarray, seen: np.ndarray, sampling: Sampling) -> np.ndarray:
    """As the authors' loop calls transformers, f32 [vocab]."""
    ids, scores = torch.from_numpy(seen)[None], torch.from_numpy(logits.copy())[None]
    scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
    if sampling.temperature != 1:
        scores = scores / sampling.temperature
    scores = MinPLogitsWarper(sampling.min_p)(ids, scores)
    scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    return torch.softmax(scores, dim=-1)[0].numpy()


def close(ours: np.ndarray, expected: np.ndarray) -> None:
    """The scores are the same float32; exponentials and their sum are float64 here, float32 there."""
    np.testing.assert_allclose(ours, expected, rtol=5e-6, atol=1e-12)
    assert ours.sum() == pytest.approx(1, abs=1e-12)


def test_numpy_is_all_that_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, encoding="utf-8", check=True, timeout=60
    )
    assert done.stdout.split() == []


SAMPLINGS = [
    Sampling(),
    Sampling(repetition_penalty=2.0),
    Sampling(repetition_penalty=0.7, temperature=1.7),
    Sampling(temperature=0.05),
    Sampling(temperature=1, min_p=0),
    Sampling(min_p=0.3, top_p=0.9),
    Sampling(min_p=0, top_p=0.8),
    Sampling(min_p=0.01, top_p=0.3),
    Sampling(top_p=1e-6),
    Sampling(top_p=0),
    Sampling(min_p=1),
    PLAIN,
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0, 12.0])
def test_probabilities_are_those_of_transformers(sampling: Sampling, spread: float) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        logits = (rng.standard_normal(VOCAB) * spread).astype(np.float32)
        # The likeliest tokens are among those that were seen, some of them several times.
        seen = np.concatenate([[START], np.argsort(logits)[-20:], rng.integers(0, VOCAB, 300), [START, START]])
        close(probabilities(logits, seen, sampling), theirs(logits, seen, sampling))


def adversarial() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(VOCAB).astype(np.float32)
    huge, masked, one = noise.copy(), noise.copy() * 4, np.full(VOCAB, -np.inf, np.float32)
    huge[77] = 1e30
    masked[rng.random(VOCAB) < 0.9] = -np.inf
    one[5] = -3
    suppressed, forced = noise.copy(), np.full(VOCAB, -(2.0**15), np.float32)
    suppressed[6562] = -(2.0**15)
    forced[6562] = 2.0**15
    return {
        "all equal": np.full(VOCAB, 2.5, np.float32),
        "all zero": np.zeros(VOCAB, np.float32),
        "all negative": np.full(VOCAB, -7, np.float32),
        "one huge": huge,
        "mostly minus infinity": masked,
        "one finite": one,
        "stop suppressed": suppressed,
        "stop forced": forced,
        "small": (noise * 1e-3).astype(np.float32),
    }


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("name", adversarial())
def test_adversarial_logits_too(name: str, sampling: Sampling) -> None:
    logits = adversarial()[name]
    seen = np.array([START, 77, 5, 6562, 5])
    ours, expected = probabilities(logits, seen, sampling), theirs(logits, seen, sampling)
    # torch sorts unstably: of equal logits, which are left out differs between processors, but not how many.
    close(np.sort(ours), np.sort(expected))
    differing = np.flatnonzero((ours > 0) != (expected > 1e-12))
    if len(differing):
        assert sampling.top_p < 1
        assert len(np.unique(logits[differing])) == 1


@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0])
def test_ties_at_the_border_of_top_p_are_counted_as_transformers_does(top_p: float) -> None:
    logits = np.repeat(np.log([1, 2, 4, 8]).astype(np.float32), 16)
    sampling = Sampling(repetition_penalty=1, temperature=1, min_p=0, top_p=top_p)
    for order in (np.arange(64), np.random.default_rng(0).permutation(64)):
        ours = probabilities(logits[order], NONE_SEEN, sampling)
        close(np.sort(ours), np.sort(theirs(logits[order], NONE_SEEN, sampling)))


@pytest.mark.parametrize(("top_p", "kept"), [(0, 1), (0.25, 256), (0.5, 512), (0.6, 615), (1, 1024)])
def test_of_equal_tokens_the_last_are_kept(top_p: float, kept: int) -> None:
    sampling = Sampling(repetition_penalty=1, temperature=1, min_p=0, top_p=top_p)
    drawn = np.flatnonzero(probabilities(np.zeros(1024, np.float32), NONE_SEEN, sampling))
    assert drawn.tolist() == list(range(1024 - kept, 1024))
    mixed = np.random.default_rng(0).integers(0, 2, 5000).astype(np.float32)
    few = np.flatnonzero(probabilities(mixed, NONE_SEEN, Sampling(1, 1, 1, 0, 0.3)))
    assert few.tolist() == np.flatnonzero(mixed)[-len(few) :].tolist()


def test_min_p_of_one_keeps_the_likeliest_and_its_equals() -> None:
    logits = np.array([3, 1, 3, 2.9999, 3], np.float32)
    sampling = Sampling(repetition_penalty=1, min_p=1)
    assert probabilities(logits, NONE_SEEN, sampling) == pytest.approx([1 / 3, 0, 1 / 3, 0, 1 / 3])


@pytest.mark.parametrize("min_p", [0.01, 0.05, 0.5])
def test_min_p_keeps_what_lies_just_above_its_border(min_p: float) -> None:
    border = math.log(min_p)
    logits = np.array([0, border - 1e-5, border + 1e-5], np.float32)
    sampling = Sampling(repetition_penalty=1, temperature=1, min_p=min_p)
    assert (probabilities(logits, NONE_SEEN, sampling) > 0).tolist() == [True, False, True]


def test_a_seen_token_is_penalized_once_and_by_its_sign() -> None:
    logits = np.array([2, -2, 2, 0], np.float32)
    sampling = Sampling(repetition_penalty=2, temperature=1, min_p=0)
    weights = np.exp([1.0, -4.0, 2.0, 0.0])
    made = probabilities(logits, np.array([0, 1, 0, 0, 3]), sampling)
    np.testing.assert_allclose(made, weights / weights.sum(), rtol=1e-6)
    assert logits.tolist() == [2, -2, 2, 0]


def test_a_temperature_of_zero_takes_the_likeliest_after_the_penalty() -> None:
    logits = np.array([1, 3, 2.8, -1], np.float32)
    greedy = Sampling(temperature=0)
    assert probabilities(logits, NONE_SEEN, greedy).tolist() == [0, 1, 0, 0]
    assert probabilities(logits, np.array([1]), greedy).tolist() == [0, 0, 1, 0]
    rng = np.random.default_rng(2)
    for _ in range(20):
        logits = rng.standard_normal(VOCAB).astype(np.float32)
        seen = rng.integers(0, VOCAB, 50)
        cold = Sampling(temperature=0.01)
        assert probabilities(logits, seen, greedy).argmax() == theirs(logits, seen, cold).argmax()


def test_guidance_is_the_authors_formula() -> None:
    logits = np.random.default_rng(0).standard_normal((2, VOCAB)).astype(np.float32)
    for weight in (0.0, 0.3, 0.5, 3.0):
        conditional, unconditional = torch.from_numpy(logits)
        expected = conditional + torch.as_tensor(weight, dtype=torch.float32) * (conditional - unconditional)
        made = guide(logits, weight)
        assert made.dtype == np.float32
        np.testing.assert_array_equal(made, expected.numpy())
    np.testing.assert_array_equal(guide(logits[:1], 0.5), logits[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, 0.8])
def test_logits_that_are_not_finite_are_refused(value: float, temperature: float) -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[3] = value
    with pytest.raises(OutsideError, match="not finite"):
        probabilities(logits, NONE_SEEN, Sampling(temperature=temperature))
    with pytest.raises(OutsideError, match="not finite"):
        probabilities(np.full(VOCAB, -np.inf, np.float32), NONE_SEEN, Sampling(temperature=temperature))


# --- choose ----------------------------------------------------------------------------------------------------


def test_draws_follow_the_distribution() -> None:
    logits = np.random.default_rng(0).standard_normal(VOCAB).astype(np.float32) * 3
    expected = probabilities(logits, NONE_SEEN, Sampling(min_p=0.1))
    likely = np.flatnonzero(expected)
    assert 5 < len(likely) < 100
    draws = np.random.default_rng(1).random(20_000)
    counts = np.bincount([choose(expected, u) for u in draws], minlength=VOCAB)
    assert counts[expected == 0].sum() == 0
    n = len(draws)
    # Chi-squared: its mean is the degrees of freedom k, its standard deviation sqrt(2 k).
    chi_squared = ((counts[likely] - n * expected[likely]) ** 2 / (n * expected[likely])).sum()
    freedom = len(likely) - 1
    assert chi_squared < freedom + 5 * math.sqrt(2 * freedom)


def test_the_intervals_are_half_open_and_in_the_order_of_tokens() -> None:
    distribution = np.array([0, 0.25, 0, 0.5, 0.25, 0])
    drawn = {0.0: 1, 0.2499: 1, 0.25: 3, 0.7499: 3, 0.75: 4, BELOW_ONE: 4}
    assert {u: choose(distribution, u) for u in drawn} == drawn
    assert {choose(distribution, u) for u in np.linspace(0, BELOW_ONE, 999)} == {1, 3, 4}


def test_the_ends_of_the_range_never_fall_on_an_impossible_token() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        distribution = rng.random(200) * (rng.random(200) < 0.3)
        distribution[[0, -1]] = 0
        distribution /= distribution.sum()  # adds up to 1 only nearly
        possible = np.flatnonzero(distribution)
        assert choose(distribution, 0.0) == possible[0]
        assert choose(distribution, BELOW_ONE) == possible[-1]
        assert choose(distribution * 1.001, BELOW_ONE) == possible[-1]


def test_one_possible_token_is_always_chosen() -> None:
    distribution = np.zeros(VOCAB)
    distribution[6562] = 1
    assert {choose(distribution, u) for u in (0.0, 0.5, BELOW_ONE)} == {6562}


# --- Sampling --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [-0.5, -1e-9, 10.01, 1e9, math.nan, math.inf, -math.inf, "0.5", None])
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadInput) as caught:
        Sampling(**{name: value})
    message, (low, high) = str(caught.value), RANGES[name]
    assert message.startswith(f"{name} is {value!r}; it must be ")
    assert message.endswith(f"from {low:g} to {high:g}")
    assert "\n" not in message


def test_the_ends_of_the_ranges_are_allowed_and_numbers_become_floats() -> None:
    for name, ends in RANGES.items():
        for value in ends:
            assert getattr(Sampling(**{name: value}), name) == value
    sampling = Sampling(1, np.float64(2), 0, np.float32(0.5), 1)
    assert [type(v) for v in vars(sampling).values()] == [float] * 5
    logits = np.zeros((2, 4), np.float32)
    assert guide(logits, sampling.cfg_weight).dtype == np.float32
    with pytest.raises(BadInput, match=r"temperature is 0.001; it must be 0 \(greedy\) or from 0.01 to 10"):
        Sampling(temperature=0.001)
    with pytest.raises(BadInput, match=r"repetition_penalty is 0; it must be from 0.1 to 10"):
        Sampling(repetition_penalty=0)
