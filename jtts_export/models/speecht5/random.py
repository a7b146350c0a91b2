"""Seeded weights with sane statistics, in the full configuration that transformers documents.

They make noise, not speech, but noise that depends on text, speaker and time, and that ends by its stop token
after one to ten seconds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import SpeechT5Config, SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5HifiGanConfig

from jtts_export.models.exact import exp

from .positions import settle

SPEAKERS = ("random_a", "random_b", "random_c", "random_d")
STEPS = 96  # of the runs that place the stop token: 3 s
TEXTS = (20, 60)  # tokens of what is said there
END = 0.4, 0.7  # of those steps, between which speech ends
STOP_LOGITS = -10.0, 10.0  # early in those runs, and late
POSITION_SCALE = 2.0  # of the decoder's positional encoding, by which hidden states tell the time
RIDGE = 1e-3
THREADS = 2  # fixed: what is fitted to a run depends on how sums are split


def random_checkpoint(
    seed: int, config: SpeechT5Config | None = None, vocoder_config: SpeechT5HifiGanConfig | None = None
) -> tuple[dict, SpeechT5ForTextToSpeech, SpeechT5HifiGan, dict[str, np.ndarray]]:
    """Config {"model": .., "vocoder": ..}, both networks in eval mode, and x-vectors [speaker_embedding_dim]."""
    config, vocoder_config = config or SpeechT5Config(), vocoder_config or SpeechT5HifiGanConfig()
    config.architectures = ["SpeechT5ForTextToSpeech"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, vocoder = SpeechT5ForTextToSpeech(config).eval(), SpeechT5HifiGan(vocoder_config).eval()
        settle(model)
        _spread(model)
        _voice(vocoder)
        speakers = {name: torch.randn(config.speaker_embedding_dim).numpy() for name in SPEAKERS}
        with _threads(THREADS):
            _place_stop(model, [torch.from_numpy(speaker) for speaker in speakers.values()])
    return {"model": config.to_dict(), "vocoder": vocoder_config.to_dict()}, model, vocoder, speakers


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def _spread(model: SpeechT5ForTextToSpeech) -> None:
    """Out of transformers' initialisation, where neither text nor what was said before matters much."""
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.normal_(0, 0.02)
        elif isinstance(module, nn.LayerNorm):
            module.weight.copy_(exp(0.2 * torch.randn_like(module.weight)))
            module.bias.normal_(0, 0.1)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, 0.5)
        elif isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.copy_(exp(0.3 * torch.randn_like(module.running_var)))
    prenet: Any = model.speecht5.decoder.prenet
    prenet.encode_positions.alpha.fill_(POSITION_SCALE)
    for layer in (*prenet.layers, prenet.final_layer):  # on another dropout mask, mels are at some 10 dB
        layer.weight.normal_(0, 0.96 / model.config.speech_decoder_prenet_units**0.5)


@torch.no_grad()
def _place_stop(model: SpeechT5ForTextToSpeech, speakers: Sequence[torch.Tensor]) -> None:
    """Make the stop token depend on time, and speech end where its logit jumps, which no rounding moves.

    Its weights are fitted to what hidden states are early and late; its bias puts the threshold within the largest
    jump over all that came before, whatever the text and speaker.
    """
    stop = model.speech_decoder_postnet.prob_out
    steps = min(STEPS, model.config.max_speech_positions)
    voices = itertools.cycle(speakers)
    runs = torch.stack([hidden_states(model, next(voices), tokens, steps) for tokens in TEXTS])
    hidden = runs.flatten(0, 1)
    low, high = STOP_LOGITS
    logits = low + (high - low) * ((torch.arange(steps) / steps - 0.3) / 0.4).clamp(0, 1)
    centred, wanted = hidden - hidden.mean(0), (logits - logits.mean()).repeat(len(runs))
    squares = centred.T @ centred
    squares.diagonal().add_(RIDGE * squares.diagonal().mean())
    way = torch.linalg.solve(squares, centred.T @ wanted)
    time = runs @ way  # [runs, steps]
    before = time.cummax(1).values.amax(0)[:-1]
    first, last = (int(steps * share) for share in END)
    at = first + int((time.amin(0)[1:] - before)[first:last].argmax())
    threshold = float(before[at] + time[:, at + 1].amin()) / 2
    factor = model.config.reduction_factor  # frames of a step, whose probabilities add up to one half
    stop.weight.copy_(way.expand_as(stop.weight))
    stop.bias.fill_(-threshold - math.log(2 * factor - 1))


def hidden_states(model: Any, speaker: torch.Tensor, tokens: int, steps: int) -> torch.Tensor:
    """What the stop token sees over a random text, [steps, hidden_size]."""
    states: list[torch.Tensor] = []
    hook = model.speech_decoder_postnet.prob_out.register_forward_pre_hook(
        lambda _, inputs: states.append(inputs[0][0])
    )
    text = torch.randint(4, model.config.vocab_size, (1, tokens))
    ratio = steps * model.config.reduction_factor / tokens
    model.generate_speech(text, speaker[None], threshold=1e9, minlenratio=ratio, maxlenratio=ratio)
    hook.remove()
    return torch.stack(states)


@torch.no_grad()
def _voice(vocoder: SpeechT5HifiGan) -> None:
    """Unit gain through every convolution, channels of different strengths, samples of about a tenth."""
    for name, module in vocoder.named_modules():
        if not isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            continue
        axis = 0 if isinstance(module, nn.Conv1d) else 1
        taps = module.weight.numel() / module.weight.shape[axis] / module.stride[0]
        gain = 0.5 if "resblocks" in name else 0.1 if name == "conv_post" else 1.4
        shape = [1, 1, 1]
        shape[axis] = module.weight.shape[axis]
        strength = exp(0.35 * torch.randn(shape))
        module.weight.copy_(torch.randn_like(module.weight) * strength * gain / taps**0.5)
        assert module.bias is not None
        module.bias.normal_(0, 0.01)
    vocoder.conv_post.weight -= vocoder.conv_post.weight.mean(2, keepdim=True)  # no constant in the waveform
    vocoder.mean.normal_(0, 0.1)
    vocoder.scale.copy_(exp(0.1 * torch.randn_like(vocoder.scale)))
