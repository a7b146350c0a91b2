"""Seeded weights with sane statistics, in the official English configuration or any other.

They speak noise, but noise that depends on text, voice and what was said before, and that ends by its stop token.
"""

from __future__ import annotations

import json
import string
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor

from jtts_export.models.exact import exp

from .conditioning import EXAGGERATION, Voice
from .config import T3Config
from .model import T3

# Mild gains: noise of 1 % in every weight comes out as 1 % of the logits (with a score gain of 1.6, as 4 %), while
# text, voice and what was said before all matter: another text moves the logits by a quarter of their spread.
TOKEN_STD, POSITION_STD = 1.0, 0.4  # of embeddings
SCORE_GAIN = 1.2  # of queries and keys each, so that attention picks out positions
MIX_GAIN = 1.2  # of what attention adds
LOGIT_STD = 1.3
STOP_RAMP = -0.3, 0.6, 600  # along the stop direction at the first speech position, at the last, and which that is
STOP_GAIN = 40.0  # of the stop token's logit: it is -12 at first, and passes the largest after some 300 tokens
PROMPT_TOKENS = 150  # the authors' speech_cond_prompt_len
THREADS = 2  # a generator fills one tensor, and takes 13 ns for a number
FIRST_LETTER = 3


def random_checkpoint(seed: int, config: T3Config | None = None) -> tuple[T3Config, T3, dict, dict[str, Voice]]:
    """The configuration, the model in eval mode, the content of a tokenizer.json, and voices."""
    config = config or T3Config()
    return config, random_model(seed, config), character_tokenizer(config), random_voices(seed, config)


@torch.no_grad()
def random_model(seed: int, config: T3Config) -> T3:
    """Filled in place: no second copy of the weights is made."""
    with torch.device("meta"):
        model = T3(config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    state = model.state_dict()
    seeds = torch.randint(2**62, (len(state),), generator=torch.Generator().manual_seed(seed)).tolist()

    def fill(item: tuple[str, int]) -> None:
        generator = torch.Generator().manual_seed(item[1])
        _fill(state[item[0]], item[0], config, generator)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill, zip(state, seeds, strict=True)))
    _place_stop(model, torch.Generator().manual_seed(seed))
    return model


def _fill(weight: Tensor, name: str, config: T3Config, generator: torch.Generator) -> None:
    """Unit gain through every linear layer; what the 2 * layers residual branches add has that of one."""
    weight.normal_(generator=generator)
    if "norm" in name and weight.dim() == 1 and name.endswith("weight"):
        weight.copy_(exp(weight.mul_(0.2)))
    elif weight.dim() == 1:
        weight.mul_(0.02)
    elif "_pos_emb" in name:
        weight.mul_(POSITION_STD)
    elif "_emb." in name or "embed_tokens" in name:
        weight.mul_(TOKEN_STD)
    elif "pre_attention_query" not in name:
        weight.mul_(_gain(name, config) * weight.shape[1] ** -0.5)


def _gain(name: str, config: T3Config) -> float:
    if name.endswith(("self_attn.q_proj.weight", "self_attn.k_proj.weight")):
        return SCORE_GAIN
    if name.endswith("self_attn.o_proj.weight"):
        return MIX_GAIN * (2 * config.layers) ** -0.5
    if name.endswith("mlp.down_proj.weight"):
        return (2 * config.layers) ** -0.5
    if name == "speech_head.weight":
        return LOGIT_STD
    return 1.0


def _place_stop(model: T3, generator: torch.Generator) -> None:
    """Speech positions go along a direction, and the stop token's logit reads how far."""
    config = model.config
    first, last, count = STOP_RAMP
    way = torch.randn(config.hidden_size, generator=generator)
    steps = torch.arange(config.speech_positions).clamp(max=count) / count
    model.speech_pos_emb.emb.weight += torch.outer(first + (last - first) * steps, way)
    model.speech_head.weight[config.stop_speech] = STOP_GAIN / config.hidden_size * way / model.tfmr.norm.weight


def random_voices(seed: int, config: T3Config) -> dict[str, Voice]:
    """One with a prompt and one without; speaker embeddings have unit length, as the voice encoder's."""
    random = np.random.default_rng(seed)
    voices = {}
    for name, count in (("random_a", PROMPT_TOKENS), ("random_b", 0)):
        speaker = random.standard_normal((1, config.speaker_size), np.float32)
        prompt = random.integers(0, config.start_speech, (1, count), np.int64)
        exaggeration = np.array([EXAGGERATION], np.float32)
        voices[name] = Voice(speaker / np.linalg.norm(speaker), prompt, exaggeration)
    return voices


def character_tokenizer(config: T3Config) -> dict:
    """[STOP] [UNK] [SPACE], then letters, digits and punctuation, a token each; [START] has its own id."""
    vocab = {"[STOP]": config.stop_text, "[UNK]": 1, "[SPACE]": 2, "[START]": config.start_text}
    characters = string.ascii_letters + string.digits + "!\"'(),-./:;?"
    vocab |= {c: FIRST_LETTER + i for i, c in enumerate(characters)}
    made = Tokenizer(WordLevel(vocab, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.add_special_tokens([AddedToken(t, normalized=False) for t in ("[STOP]", "[UNK]", "[SPACE]", "[START]")])
    return json.loads(made.to_str())
