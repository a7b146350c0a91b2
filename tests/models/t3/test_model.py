"""The model's passes agree with each other, and seeded weights make a model that behaves like one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from t3_files import tiny_config, tiny_voices
from torch import Tensor

from jtts_export.models.t3.conditioning import Voice
from jtts_export.models.t3.model import T3, Cache
from jtts_export.models.t3.random import random_model

TEXT = torch.tensor([[255, *range(10, 60), 0]])
TOKENS = (5, 4000, 77, 6000, 123)
VOICES = tiny_voices()


@pytest.fixture(scope="module")
def model() -> T3:
    return random_model(0, tiny_config())


def embeds(
    model: T3,
    voice: Voice = VOICES["default"],
    exaggeration: float = 0.5,
    text: Tensor = TEXT,
    tokens: tuple[int, ...] = TOKENS,
    first_position: int = 1,
) -> Tensor:
    """[2, positions, hidden]"""
    dtype = model.speech_head.weight.dtype
    cond = model.condition(
        torch.from_numpy(voice.speaker_emb).to(dtype), torch.from_numpy(voice.cond_prompt_speech_tokens)
    )
    prompt = model.prompt_embeds(cond, model.emotion(torch.tensor([exaggeration], dtype=dtype)), text, True)
    positions = torch.arange(len(tokens)) + first_position
    return torch.cat([prompt, model.embed_speech(torch.tensor([tokens] * 2, dtype=torch.long), positions)], 1)


def logits(model: T3, **changes: Any) -> Tensor:
    """[2, speech_vocab]"""
    return model.speech_head(model(embeds(model, **changes))[:, -1])


@pytest.mark.parametrize("chunks", [[1] * 40, [7, 1, 30, 2], [39, 1], [40]])
def test_parts_give_what_the_whole_does(model: T3, chunks: list[int]) -> None:
    exact = random_model(0, tiny_config()).double()
    inputs = embeds(exact)[:, :40]
    cache, attention, expected_attention = Cache(), [], []
    expected = exact(inputs, attention=expected_attention)
    parts = [exact(part, cache, attention) for part in inputs.split(chunks, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=1e-9, atol=1e-9)
    assert cache.positions == 40
    rows = torch.cat([torch.nn.functional.pad(part, (0, 40 - part.shape[1])) for part in attention])
    torch.testing.assert_close(rows, expected_attention[0], rtol=1e-9, atol=1e-12)
    assert torch.equal(rows, rows.tril())
    torch.testing.assert_close(rows.sum(1), torch.ones(40, dtype=torch.float64))


def test_without_guidance_there_is_one_row(model: T3) -> None:
    cond, emotion = model.condition(torch.ones(1, 256), torch.ones(1, 0, dtype=torch.long)), torch.ones(1, 1, 128)
    one, two = (model.prompt_embeds(cond, emotion, TEXT, cfg) for cfg in (False, True))
    assert one.shape == (1, 1 + 1 + TEXT.shape[1] + 2, 128)
    assert torch.equal(one, two[:1])
    positions = model.text_pos_emb(torch.arange(TEXT.shape[1]))
    assert torch.equal(two[1, 2:-2], positions)
    assert torch.equal(two[0, -1], two[0, -2])


class TestSeeded:
    def test_a_seed_decides(self, model: T3) -> None:
        again, other = random_model(0, tiny_config()).state_dict(), random_model(1, tiny_config()).state_dict()
        for key, value in model.state_dict().items():
            assert torch.equal(value, again[key]), key
            assert not torch.equal(value, other[key]), key

    def test_the_global_generator_is_left_as_it_was(self) -> None:
        before = torch.get_rng_state()
        random_model(0, tiny_config())
        assert torch.equal(torch.get_rng_state(), before)

    def test_some_thousands_of_tokens_are_likely(self, model: T3) -> None:
        row = logits(model)[:1]
        assert 0.8 < row.std() < 2.5
        perplexity = torch.distributions.Categorical(logits=row).entropy().exp()
        assert 20 < perplexity < 7000

    @pytest.mark.parametrize(
        ("changes", "least"),
        [
            ({"text": torch.tensor([[255, *range(60, 10, -1), 0]])}, 0.1),
            ({"voice": VOICES["second"]}, 0.1),
            ({"voice": replace(VOICES["default"], speaker_emb=VOICES["second"].speaker_emb)}, 0.03),
            ({"exaggeration": 1.0}, 0.003),  # one row of some hundred, that one layer of two sees change
            ({"tokens": (*TOKENS[:-1], 9)}, 0.3),
            ({"tokens": (9, *TOKENS[1:])}, 0.003),
            ({"first_position": 2}, 0.3),
        ],
        ids=["text", "voice", "speaker", "exaggeration", "last token", "first token", "positions"],
    )
    def test_everything_matters(self, model: T3, changes: dict[str, Any], least: float) -> None:
        """By the deviation of logits, where 1.4 is that of unrelated ones."""
        expected = logits(model)[0]
        assert (logits(model, **changes)[0] - expected).std() > least * expected.std()

    def test_speech_varies_and_ends(self) -> None:
        model = random_model(0, tiny_config())
        cache, sampled = Cache(), []
        generator = torch.Generator().manual_seed(0)
        inputs = embeds(model, tokens=())
        for step in range(600):
            row = model.speech_head(model(inputs, cache)[:, -1])
            guided = row[0] + 0.5 * (row[0] - row[1])
            sampled.append(int(torch.multinomial((guided / 0.8).softmax(0), 1, generator=generator)))
            if sampled[-1] == model.config.stop_speech:
                break
            inputs = model.embed_speech(torch.tensor([sampled[-1:]] * 2), torch.tensor([step + 1]))
        assert 50 < len(sampled) < 600
        assert len(set(sampled)) > len(sampled) // 2
