"""AlignmentAnalyzer against the authors' class, step by step, where the chatterbox-tts wheel is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from t3_files import authors_file

from jtts_export.models.t3.config import ALIGNMENT_HEADS
from jtts_export.runtime.t3_alignment import AlignmentAnalyzer

VOCAB, START, STOP = 50, 48, 49
CONDITIONING = 3  # positions before the text
FORCED = 2.0**15


@pytest.fixture(scope="module")
def authors() -> ModuleType:
    """Their module alone: the package's own __init__ imports what is not installed."""
    path = authors_file("inference", "alignment_stream_analyzer.py")
    spec = importlib.util.spec_from_file_location("alignment_stream_analyzer", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SelfAttention(torch.nn.Module):
    """Passes on the weights that it is given, in the place where transformers' layers return theirs."""

    def forward(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return weights.sum(-1), weights


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = SelfAttention()


class Backbone(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer() for _ in range(14))


class Theirs:
    """The authors' analyzer, fed through the hooks that it adds to a transformer."""

    def __init__(self, authors: ModuleType, text_length: int) -> None:
        self.backbone = Backbone()
        self.end = CONDITIONING + text_length
        self.analyzer = authors.AlignmentStreamAnalyzer(self.backbone, None, (CONDITIONING, self.end), eos_idx=STOP)
        self.first = True

    def apply(self, logits: np.ndarray, heads: np.ndarray, last_token: int) -> np.ndarray:
        """heads: f32 [3, rows, text_length]."""
        rows = heads.shape[1]
        # At the first step the attention of all positions is there, later that of one.
        weights = torch.full((2, 16, rows + self.first * self.end, self.end + rows), 0.7)
        self.first = False
        for (layer, head), attention in zip(ALIGNMENT_HEADS, heads, strict=True):
            weights[0, head, -rows:, CONDITIONING : self.end] = torch.from_numpy(attention)
            self.backbone.layers[layer].self_attn(weights.clone())
        return self.analyzer.step(torch.from_numpy(logits.copy())[None], next_token=last_token)[0].numpy()


Stream = list[tuple[np.ndarray, int]]  # of each step the heads' attention f32 [3, rows, text_length], the token fed


def compare(authors: ModuleType, stream: Stream, seed: int = 0) -> AlignmentAnalyzer:
    """Runs both, and on after a forced stop; returns ours."""
    text_length = stream[0][0].shape[2]
    ours, theirs = AlignmentAnalyzer(text_length, STOP), Theirs(authors, text_length)
    rng = np.random.default_rng(seed)
    for number, (heads, token) in enumerate(stream):
        logits = rng.standard_normal(VOCAB).astype(np.float32)
        given = logits.copy()
        expected = theirs.apply(logits, heads, token)
        made = ours.apply(logits, heads.mean(axis=0), token)
        np.testing.assert_array_equal(made, expected, err_msg=f"step {number}")
        assert made.dtype == np.float32
        np.testing.assert_array_equal(logits, given)
        state = theirs.analyzer
        found = ours.position, ours.complete, ours.started
        assert found == (int(state.text_position), bool(state.complete), bool(state.started)), f"step {number}"
        forced = made[STOP] == FORCED and bool((np.delete(made, STOP) == -FORCED).all())
        assert forced == (ours.stop_reason is not None)
    return ours


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def stream(path: list[int], text_length: int, seed: int, sharpness: float = 8.0, tokens: str = "distinct") -> Stream:
    """Attention around the given positions, two rows at the first step; each head has its own noise."""
    rng = np.random.default_rng(seed)
    columns = np.arange(text_length)
    steps: Stream = []
    for number, position in enumerate(path):
        rows = 2 if number == 0 else 1
        peak = sharpness * np.exp(-((columns - position) ** 2) / 2)
        heads = softmax(peak + rng.standard_normal((3, rows, text_length)))
        # Distinct ones never repeat; random ones of six often do.
        token = START if number == 0 else (number % 40 if tokens == "distinct" else int(rng.integers(6)))
        steps.append((heads, token))
    return steps


def diagonal(text_length: int, steps: int) -> list[int]:
    return [round(i * (text_length - 1) / max(steps - 1, 1)) for i in range(steps)]


PATHS: dict[str, Callable[[int, np.random.Generator], list[int]]] = {
    "diagonal": lambda n, rng: diagonal(n, 3 * n),
    "stuck": lambda n, rng: diagonal(n // 2 + 1, n) + [n // 2] * 30,
    "stuck at the end": lambda n, rng: diagonal(n, 3 * n) + [n - 1] * 30,
    "jumping back": lambda n, rng: diagonal(n, 3 * n) + diagonal(n, 3 * n),
    "small steps back": lambda n, rng: [max(0, p - int(rng.integers(8))) for p in diagonal(n, 3 * n)] + [0] * 10,
    "skipping ahead": lambda n, rng: [min(n - 1, p + int(rng.integers(12))) for p in diagonal(n, 3 * n)],
    "finishing early": lambda n, rng: diagonal(n, n) + [int(rng.integers(n)) for _ in range(30)],
    "false start": lambda n, rng: [n - 1] * 10 + [0] * 10 + diagonal(n, 3 * n),
    "never starting": lambda n, rng: [n // 2] * 40,
    "random": lambda n, rng: rng.integers(0, n, 80).tolist(),
    "random walk": lambda n, rng: np.clip(np.cumsum(rng.integers(-3, 6, 90)), 0, n - 1).tolist(),
}


@pytest.mark.parametrize("tokens", ["distinct", "random"])
@pytest.mark.parametrize("name", PATHS)
def test_every_step_is_as_the_authors(authors: ModuleType, name: str, tokens: str) -> None:
    for text_length, sharpness in ((6, 8.0), (7, 2.0), (9, 9.0), (20, 4.0), (33, 8.0), (60, 14.0)):
        for seed in range(2):
            path = PATHS[name](text_length, np.random.default_rng(seed))
            compare(authors, stream(path, text_length, seed, sharpness, tokens), seed)


def test_those_streams_start_complete_and_stop_in_every_way(authors: ModuleType) -> None:
    found: set[str | None] = set()
    ends = []
    for seed, path in enumerate(PATHS.values()):
        steps = stream(path(33, np.random.default_rng(seed)), 33, seed, 8.0, "random" if seed % 2 else "distinct")
        found.update(reasons(33, steps))
        ends.append(compare(authors, steps, seed))
    assert found == {None, "long_tail", "repetition", "token_repetition"}
    assert {(e.started, e.complete) for e in ends} >= {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize("seed", range(100))
def test_attention_without_any_structure(authors: ModuleType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    text_length = int(rng.integers(6, 40))
    sharpness = rng.choice([0.5, 3.0, 10.0])
    steps: Stream = []
    for number in range(70):
        scores = sharpness * rng.standard_normal((3, 1 + (number == 0), text_length))
        steps.append((softmax(scores), START if number == 0 else int(rng.integers(30))))
    compare(authors, steps, seed)


def one_hot(path: list[int], text_length: int, weight: float = 1.0) -> Stream:
    """All three heads give `weight`, exact in float32, to one token of the text."""
    steps: Stream = []
    for number, position in enumerate(path):
        heads = np.zeros((3, 1 + (number == 0), text_length), np.float32)
        heads[:, :, position] = weight
        steps.append((heads, START if number == 0 else number % 40))
    return steps


def reasons(text_length: int, steps: Stream) -> list[str | None]:
    analyzer = AlignmentAnalyzer(text_length, STOP)
    found = []
    for heads, token in steps:
        analyzer.apply(np.zeros(VOCAB, np.float32), heads.mean(axis=0), token)
        found.append(analyzer.stop_reason)
    return found


@pytest.mark.parametrize(("weight", "steps"), [(1.0, 5), (0.5, 10), (0.25, 20)])
def test_a_long_tail_is_five_steps_of_attention_to_a_last_token(
    authors: ModuleType, weight: float, steps: int
) -> None:
    path = [*range(20), *[19] * 30]
    complete = 17  # the step at which the position is one of the last three
    rows = one_hot(path, 20, weight)
    compare(authors, rows)
    # The steps at 18 and 19 count for other tokens than the rest: the sum is each token's own.
    expected = complete + 1 + steps
    found = reasons(20, rows)
    assert found[: expected + 1] == [None] * expected + ["long_tail"]


@pytest.mark.parametrize(("weight", "steps"), [(1.0, 6), (0.5, 11), (0.25, 21)])
def test_a_repetition_is_more_than_five_steps_of_attention_to_earlier_text(
    authors: ModuleType, weight: float, steps: int
) -> None:
    path = [*range(18), *range(3, 6), *range(3, 60)]
    path = [p % 15 if i >= 18 else p for i, p in enumerate(path)]
    rows = one_hot(path, 20, weight)
    compare(authors, rows)
    expected = 17 + steps
    found = reasons(20, rows)
    assert found[: expected + 1] == [None] * expected + ["repetition"]


def test_sums_of_nearly_saturated_attention_round_as_the_authors(authors: ModuleType) -> None:
    least = np.float32(np.nextafter(np.float32(1), np.float32(0)))
    for nearly in range(6):
        rows = one_hot([*range(18), *[18] * 12], 20)
        for heads, _ in rows[18 : 18 + nearly]:
            heads *= least
        compare(authors, rows)
        repeated = one_hot([*range(18), *[4] * 12], 20)
        for heads, _ in repeated[18 : 18 + nearly]:
            heads *= least
        compare(authors, repeated)


def test_a_trace_of_attention_is_lost_beside_five_steps_of_it(authors: ModuleType) -> None:
    steps = one_hot([*range(18), *[4] * 9], 20)
    for heads, _ in steps[23:26]:
        heads *= np.float32(1e-8)
    compare(authors, steps)
    assert reasons(20, steps)[22:] == [None] * 4 + ["repetition"]


def test_two_equal_tokens_stop_it_from_the_third_step_on(authors: ModuleType) -> None:
    def with_tokens(tokens: list[int]) -> Stream:
        return [(heads, token) for (heads, _), token in zip(one_hot([0] * 12, 12), tokens, strict=False)]

    cases = {
        (START, 5, 5): [None, None, "token_repetition"],
        (START, START, 5, 6): [None] * 4,  # the first two are not compared
        (START, 5, 6, 5, 6): [None] * 5,
        (START, 5, 6, 7, 8, 9, 10, 11, 12, 12): [None] * 9 + ["token_repetition"],
        (7, 7, 7): [None, None, "token_repetition"],
    }
    for tokens, expected in cases.items():
        compare(authors, with_tokens(list(tokens)))
        assert reasons(12, with_tokens(list(tokens))) == expected


def test_a_stop_is_held_back_until_the_text_is_nearly_read(authors: ModuleType) -> None:
    for text_length, held_back in ((6, [True] * 3 + [False] * 3), (20, [True] * 17 + [False] * 3)):
        rows = one_hot(list(range(text_length)), text_length)
        compare(authors, rows)
        analyzer = AlignmentAnalyzer(text_length, STOP)
        logits = np.zeros(VOCAB, np.float32)
        made = [analyzer.apply(logits, heads.mean(axis=0), token) for heads, token in rows]
        assert [m[STOP] == -FORCED for m in made] == held_back
        assert not any(m[:STOP].any() for m in made)


@pytest.mark.parametrize(("first", "last", "started"), [(0.5, 0.1, True), (0.4999, 0.1, False), (0.5, 0.1001, False)])
def test_the_borders_of_a_start_are_float32(authors: ModuleType, first: float, last: float, started: bool) -> None:
    steps = one_hot([0] * 13, 12, 0.0)
    steps[-1][0][:, :, 1] = first
    steps[-1][0][:, :, -1] = last
    assert steps[-1][0].mean(axis=0).max() == np.float32(first)
    assert compare(authors, steps).started == started


@pytest.mark.parametrize("text_length", [3, 4, 5])
def test_a_text_of_five_tokens_or_fewer_ends_where_the_authors_fails(authors: ModuleType, text_length: int) -> None:
    """They take the maximum over the text before the last five tokens, which has none."""
    steps = one_hot([*range(text_length), *[text_length - 1] * 8], text_length)
    theirs = Theirs(authors, text_length)
    with pytest.raises(IndexError, match="non-zero size"):
        for heads, token in steps:
            theirs.apply(np.zeros(VOCAB, np.float32), heads, token)
    found = reasons(text_length, steps)
    assert found.index("long_tail") > text_length
    assert set(found) == {None, "long_tail"}


def sizes(analyzer: AlignmentAnalyzer) -> Iterator[int]:
    for value in vars(analyzer).values():
        yield value.size if isinstance(value, np.ndarray) else len(value) if isinstance(value, list) else 1


def test_state_does_not_grow_with_the_speech() -> None:
    analyzer = AlignmentAnalyzer(30, STOP)
    rows = stream(diagonal(30, 600), 30, 0)
    logits = np.zeros(VOCAB, np.float32)
    grown = []
    for heads, token in rows:
        analyzer.apply(logits, heads.mean(axis=0), token)
        grown.append(sum(sizes(analyzer)))
    assert max(grown[5:]) == grown[5]


def test_attention_that_is_given_is_left_unchanged() -> None:
    analyzer = AlignmentAnalyzer(8, STOP)
    attention = np.full((2, 8), 0.125, np.float32)
    analyzer.apply(np.zeros(VOCAB, np.float32), attention, START)
    assert (attention == 0.125).all()
