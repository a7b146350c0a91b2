"""Seeded weights with sane statistics, in the full official configuration or any other.

They make noise, not speech, but noise of speech's shape and level: about 4.5 frames a token, F0 around 90 Hz.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import nn

from jtts_export.models.exact import exp, rounded
from jtts_export.runtime.draws import NOISE_SCALE, source_noise

from .adain import AdainResBlk1d, AdaINResBlock1
from .config import KokoroConfig
from .decoder import Decoder, Generator
from .model import Kokoro
from .prosody import TextEncoder

OFFICIAL_CONFIG = Path(__file__).with_name("config.json")  # hexgrad/Kokoro-82M
VOICES = ("random_a", "random_b", "random_c", "random_d")
VOICE_STD = 0.15  # released voices: 0.1 to 0.2 per element
TOKENS = 30  # of what is said to find the level
LOUDEST = 3.0  # nepers from the mean of the log magnitudes to the largest
RMS = 0.05  # of the waveform, full scale 1
LEVEL_BITS = 5  # to a few hundredths


def official_config() -> dict:
    """The config.json of hexgrad/Kokoro-82M."""
    return json.loads(OFFICIAL_CONFIG.read_text(encoding="utf-8"))


def weight_normed(model: Kokoro) -> list[str]:
    """Names of the modules whose weight the authors' files hold as magnitude and direction."""
    names = []
    for name, module in model.named_modules():
        convs: list[nn.Module] = []
        if isinstance(module, AdainResBlk1d):
            convs = [c for c in module.children() if isinstance(c, nn.Conv1d | nn.ConvTranspose1d)]
        elif isinstance(module, AdaINResBlock1):
            convs = [*module.convs1, *module.convs2]
        elif isinstance(module, Generator):
            convs = [*module.ups, module.conv_post]
        elif isinstance(module, Decoder):
            convs = [module.F0_conv, module.N_conv, module.asr_res[0]]
        elif isinstance(module, TextEncoder):
            convs = [block[0] for block in module.cnn]  # type: ignore[index]
        inside = {id(c): n for n, c in module.named_modules()}
        names += [f"{name}.{inside[id(c)]}" for c in convs]
    return names


@torch.no_grad()
def random_model(seed: int, cfg: KokoroConfig) -> Kokoro:
    """torch's default initialisation from `seed`, spread and centred as a trained checkpoint's weights are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Kokoro(cfg).eval()
        for name in weight_normed(model):
            weight = model.get_submodule(name).weight
            assert isinstance(weight, torch.Tensor)
            weight *= exp(0.35 * torch.randn(weight.shape[0], *[1] * (weight.dim() - 1)))
        for block in model.modules():
            if isinstance(block, AdaINResBlock1):
                for alpha in [*block.alpha1, *block.alpha2]:
                    alpha.copy_(exp(0.3 * torch.randn_like(alpha)))
        for module in model.bert.modules():  # as transformers initialises ALBERT
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(0, 0.02)
            if isinstance(module, nn.Linear):
                module.bias.zero_()
        nn.init.xavier_uniform_(model.predictor.duration_proj.linear_layer.weight)  # the authors' LinearNorm
    predictor = model.predictor
    predictor.duration_proj.linear_layer.weight *= 6
    predictor.duration_proj.linear_layer.bias.fill_(-4.1)
    predictor.F0_proj.weight *= 300
    predictor.F0_proj.bias.fill_(90.0)  # type: ignore[union-attr]
    predictor.N_proj.weight *= 2
    _level(model, seed)
    return model


def _level(model: Kokoro, seed: int) -> None:
    """Speech of an ordinary level, without the peaks that an exponential makes of a rare large magnitude. Both are
    set in coarse steps, for what is heard depends on how a processor adds."""
    generator, cfg = torch.Generator().manual_seed(seed), model.cfg
    ids = torch.randint(1, cfg.n_token, (1, TOKENS), generator=generator)
    style = next(iter(random_voices(seed, cfg).values()))[TOKENS]
    noise = torch.from_numpy(source_noise(0)) * NOISE_SCALE
    spectrum: list[torch.Tensor] = []
    post = model.decoder.generator.conv_post
    hook = post.register_forward_hook(lambda _, __, output: spectrum.append(output))

    def speak() -> torch.Tensor:
        return model(ids, style, torch.ones(1), noise)["waveform"]

    speak()
    bins = model.decoder.generator.stft.bins
    magnitudes = spectrum[0][:, :bins]
    scale = min(1.0, float(rounded(LOUDEST / float(magnitudes.max() - magnitudes.mean()), LEVEL_BITS)))
    assert post.bias is not None
    post.weight[:bins] *= scale
    post.bias[:bins] *= scale
    hook.remove()
    post.bias[:bins] += round(math.log(RMS / float(speak().std())) * 2**LEVEL_BITS) / 2**LEVEL_BITS


def random_voices(seed: int, cfg: KokoroConfig) -> dict[str, torch.Tensor]:
    """Voices [max_tokens, 1, 2 * style_dim], one row per number of tokens."""
    generator = torch.Generator().manual_seed(seed + 1)
    shape = (cfg.max_tokens, 1, 2 * cfg.style_dim)
    rows = {name: torch.randn(1, 1, shape[2], generator=generator) for name in VOICES}
    return {
        name: VOICE_STD * (0.9 * row + (1 - 0.9**2) ** 0.5 * torch.randn(shape, generator=generator))
        for name, row in rows.items()
    }
