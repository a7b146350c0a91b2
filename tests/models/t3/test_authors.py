"""Our model and the authors' code (chatterbox-tts 0.1.7) compute the same from the same weights.

Official widths, which the authors' perceiver hard-codes, at a depth of two layers (JTTS_FULL=1: of thirty). Their
own inference() runs: what it samples is fed to ours, or both are given the same draws.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from jtts_export.models.t3.conditioning import Voice
from jtts_export.models.t3.config import ALIGNMENT_HEADS, MULTILINGUAL_VOCAB, T3Config
from jtts_export.models.t3.model import T3, Cache
from jtts_export.models.t3.random import random_model, random_voices
from jtts_export.models.t3.reference import Reference
from jtts_export.runtime.t3_sampling import choose

RELATIVE = 1e-4  # of the largest value; float32 rounding of the same mathematics, and their float32 rotary angles
STEPS = 60
TEXT_TOKENS = 30
FULL = bool(os.environ.get("JTTS_FULL"))
LAYERS = 30 if FULL else 2
HEADS = ALIGNMENT_HEADS if FULL else ((0, 15), (1, 11), (1, 2))  # the authors' are in layers that two do not have
SIZE = "Llama_of_this_depth"
ENGLISH = T3Config(layers=LAYERS, alignment_heads=HEADS)
VOICES = random_voices(0, ENGLISH)

pytestmark = pytest.mark.filterwarnings("ignore:.*sdp_kernel.* is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def authors() -> Iterator[SimpleNamespace]:
    """Modules of chatterbox, imported without chatterbox/__init__.py, which needs all that its vocoder does."""
    if "chatterbox" not in sys.modules:
        spec = importlib.util.find_spec("chatterbox")
        if spec is None or spec.submodule_search_locations is None:
            pytest.fail("not installed: pip install --no-deps chatterbox-tts==0.1.7 einops", pytrace=False)
        package = ModuleType("chatterbox")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["chatterbox"] = package
    names = {"t3": "t3", "config": "modules.t3_config", "cond_enc": "modules.cond_enc", "sizes": "llama_configs"}
    found = {key: importlib.import_module(f"chatterbox.models.t3.{name}") for key, name in names.items()}
    analyzer = importlib.import_module("chatterbox.models.t3.inference.alignment_stream_analyzer")
    sizes = found["sizes"].LLAMA_CONFIGS
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sizes, SIZE, sizes["Llama_520M"] | {"num_hidden_layers": LAYERS})
        patch.setattr(analyzer, "LLAMA_ALIGNED_HEADS", list(HEADS))
        yield SimpleNamespace(**found, analyzer=analyzer.AlignmentStreamAnalyzer)


@pytest.fixture(scope="module", params=["english", "multilingual"])
def pair(request: pytest.FixtureRequest, authors: SimpleNamespace) -> tuple[T3, Any]:
    """One set of weights in both implementations."""
    config = ENGLISH if request.param == "english" else replace(ENGLISH, text_vocab=MULTILINGUAL_VOCAB)
    ours = random_model(3, config)
    hp = authors.config.T3Config(config.text_vocab)
    hp.llama_config_name = SIZE
    theirs = authors.t3.T3(hp).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def conditionals(authors: SimpleNamespace, voice: Voice) -> Any:
    tokens = torch.from_numpy(voice.cond_prompt_speech_tokens)
    return authors.cond_enc.T3Cond(
        speaker_emb=torch.from_numpy(voice.speaker_emb),
        cond_prompt_speech_tokens=tokens if tokens.numel() else None,
        emotion_adv=torch.from_numpy(voice.exaggeration).view(1, 1, 1),
    )


def text_tokens(config: T3Config) -> Tensor:
    """int64 [1, TEXT_TOKENS]"""
    inner = torch.randint(1, config.text_vocab, (TEXT_TOKENS - 2,), generator=torch.Generator().manual_seed(5))
    inner[inner == config.start_text] = 1
    return torch.tensor([[config.start_text, *inner.tolist(), config.stop_text]])


def conditioning(ours: T3, voice: Voice) -> tuple[Tensor, Tensor]:
    speaker_emb, tokens = torch.from_numpy(voice.speaker_emb), torch.from_numpy(voice.cond_prompt_speech_tokens)
    return ours.condition(speaker_emb, tokens), ours.emotion(torch.from_numpy(voice.exaggeration))


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= RELATIVE * expected.abs().max()


@torch.inference_mode()
def theirs_run(
    authors: SimpleNamespace, theirs: Any, config: T3Config, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """inference() with what goes into and comes out of it.

    embeds: what it feeds, per step; logits: [2, speech_vocab] per step; tokens: those it samples;
    attention: the mean of what its analyzer's hooks took, per step (of the multilingual model only).
    """
    run = SimpleNamespace(embeds=[], logits=[], attention=[])

    class Observed(authors.analyzer):
        def step(self, logits: Tensor, next_token: int | None = None) -> Tensor:
            run.attention.append(torch.stack(self.last_aligned_attns).mean(0))
            return logits  # theirs would end speech that does not follow the text

    monkeypatch.setattr(authors.t3, "AlignmentStreamAnalyzer", Observed)
    hooks = [
        theirs.tfmr.register_forward_pre_hook(
            lambda _, args, kwargs: run.embeds.append(kwargs["inputs_embeds"]), with_kwargs=True
        ),
        theirs.speech_head.register_forward_hook(lambda _, args, output: run.logits.append(output[:, -1])),
    ]
    torch.manual_seed(0)
    sampled = theirs.inference(
        t3_cond=conditionals(authors, voice),
        text_tokens=text_tokens(config).expand(2, -1),
        max_new_tokens=STEPS,
        cfg_weight=0.5,
    )
    for hook in hooks:
        hook.remove()
    run.tokens = sampled[0].tolist()
    return run


@pytest.mark.parametrize("name", VOICES)
def test_the_conditioning(authors: SimpleNamespace, pair: tuple[T3, Any], name: str) -> None:
    ours, theirs = pair
    voice = VOICES[name]
    with torch.inference_mode():
        expected = theirs.prepare_conditioning(conditionals(authors, voice))
        cond, emotion = conditioning(ours, voice)
    assert cond.shape[1] == (33 if voice.cond_prompt_speech_tokens.size else 1)
    assert_close(torch.cat([cond, emotion], 1), expected)


@pytest.mark.parametrize("name", VOICES)
def test_every_step_of_an_inference(
    authors: SimpleNamespace, pair: tuple[T3, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    run = theirs_run(authors, theirs, ours.config, VOICES[name], monkeypatch)
    assert len(run.tokens) == STEPS
    assert len(set(run.tokens)) > STEPS // 2
    cache, embeds = Cache(), ours.prompt_embeds(*conditioning(ours, VOICES[name]), text_tokens(ours.config), True)
    for step, token in enumerate(run.tokens):
        assert_close(embeds, run.embeds[step])
        attention: list[Tensor] = []
        with torch.inference_mode():
            logits = ours.speech_head(ours(embeds, cache, attention)[:, -1])
            embeds = ours.embed_speech(torch.tensor([[token], [token]]), torch.tensor([step + 1]))
        assert_close(logits, run.logits[step])
        if ours.config.is_multilingual:
            assert_close(attention[0], run.attention[step])
    assert len(run.attention) == (STEPS if ours.config.is_multilingual else 0)


@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.9, "temperature": 1.0}, {"min_p": 0.0, "cfg_weight": 1.5}])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_draws_give_the_same_tokens(
    authors: SimpleNamespace,
    pair: tuple[T3, Any],
    monkeypatch: pytest.MonkeyPatch,
    sampling: dict[str, float],
    seed: int,
) -> None:
    """Theirs with their processors and, if multilingual, their analyzer; their generator's draws alone are ours."""
    ours, theirs = pair
    voice, draws = VOICES["random_a"], np.random.default_rng(seed)

    def multinomial(probabilities: Tensor, num_samples: int) -> Tensor:
        assert num_samples == 1
        return torch.tensor([[choose(probabilities[0].double().numpy(), draws.random())]])

    monkeypatch.setattr(torch, "multinomial", multinomial)
    chosen = {
        "temperature": 0.8,
        "min_p": 0.05,
        "top_p": 1.0,
        "repetition_penalty": 1.2,
        "cfg_weight": 0.5,
        **sampling,
    }
    text = text_tokens(ours.config)
    made = theirs.inference(
        t3_cond=conditionals(authors, voice), text_tokens=text.expand(2, -1), max_new_tokens=STEPS, **chosen
    )
    expected = [token for token in made[0].tolist() if token != ours.config.stop_speech]
    given = {name: np.array(value) for name, value in chosen.items()}
    inputs = {"text_tokens": text.numpy(), **vars(voice), **given, "seed": np.array(seed)}
    tokens = Reference(ours, torch.get_num_threads()).speak({**inputs, "max_tokens": np.array(STEPS)})
    assert tokens.tolist() == expected
    assert len(expected) > 2
