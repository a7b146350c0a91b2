"""Small SpeechT5 checkpoints on disk, in the authors' layout with the vocoder beside config.json."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import SpeechT5Config, SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5HifiGanConfig

from jtts_export.models.speecht5.random import hidden_states, random_checkpoint

VOCODER = "speecht5_hifigan"
SPEAKERS = ("first", "second")  # a .npy and a .bin
STOP_STEPS = 160  # of the run that places the stop token
STOP_LOGITS = -9.0, -1.0  # early in that run, and late
LINES = (
    "The quick brown fox jumps over the lazy dog.",
    "Pack my box with five dozen liquor jugs!",
    "SPHINX OF BLACK QUARTZ, JUDGE MY VOW; why not? (It's so-so: 'naïve café'.)",
)


@cache
def spm_model(rule: str = "nmt_nfkc", lines: tuple[str, ...] = LINES, **options: Any) -> bytes:
    """A character model of what occurs in `lines`, whose first ids are fairseq's, as the authors' has them."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        normalization_rule_name=rule,
        minloglevel=3,
        **{
            **{"model_type": "char", "vocab_size": 200, "hard_vocab_limit": False, "use_all_vocab": True},
            **{"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3, "character_coverage": 1.0},
            **options,
        },
    )
    return written.getvalue()


def write_tokenizer(folder: Path, model: bytes | None = None) -> int:
    """spm_char.model, with `<mask>` and `<ctc_blank>` after its pieces; returns the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    data = spm_model() if model is None else model
    (folder / "spm_char.model").write_bytes(data)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=data).get_piece_size()
    specials = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    plain = {"normalized": True, "rstrip": False, "single_word": False}
    _write_json(folder / "added_tokens.json", {"<ctc_blank>": pieces + 1, "<mask>": pieces})
    _write_json(
        folder / "special_tokens_map.json",
        {**specials, "mask_token": {"content": "<mask>", "lstrip": True, **plain}},
    )
    _write_json(
        folder / "tokenizer_config.json",
        {**specials, "normalize": False, "model_max_length": 600, "tokenizer_class": "SpeechT5Tokenizer"},
    )
    return pieces + 2


def tiny_config(vocab_size: int, /, **changes: Any) -> SpeechT5Config:
    return SpeechT5Config(
        **{
            **{"vocab_size": vocab_size, "hidden_size": 32, "architectures": ["SpeechT5ForTextToSpeech"]},
            **{"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64},
            **{"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 64},
            **{"speech_decoder_prenet_units": 16, "speech_decoder_postnet_units": 16},
            **{"max_speech_positions": 200, "max_text_positions": 100, "encoder_max_relative_position": 16},
            **changes,
        }
    )


def tiny_vocoder_config(**changes: Any) -> SpeechT5HifiGanConfig:
    return SpeechT5HifiGanConfig(
        **{
            **{"upsample_initial_channel": 16, "architectures": ["SpeechT5HifiGan"]},
            **{"resblock_kernel_sizes": [3, 7], "resblock_dilation_sizes": [[1, 3], [1, 3]]},
            **changes,
        }
    )


@torch.no_grad()
def tiny_networks(
    seed: int, config: SpeechT5Config, vocoder_config: SpeechT5HifiGanConfig, *, ends: bool = False
) -> tuple[SpeechT5ForTextToSpeech, SpeechT5HifiGan]:
    """Random weights of unit gain; the waveform's deviation is a tenth, and speech does not end at once.

    ends: most texts end by the stop token, after steps of different numbers; otherwise all go on to the limit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, vocoder = SpeechT5ForTextToSpeech(config).eval(), SpeechT5HifiGan(vocoder_config).eval()
        for module in [*model.modules(), *vocoder.modules()]:
            if isinstance(module, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
                taps = module.weight[0].numel()
                if isinstance(module, nn.ConvTranspose1d):
                    taps = module.weight[:, 0].numel() // module.stride[0]
                module.weight.normal_(0, taps**-0.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.BatchNorm1d | nn.LayerNorm):
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0, 0.1)
            elif isinstance(module, nn.Embedding):
                module.weight.normal_(0, 0.5)
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
        model.speech_decoder_postnet.prob_out.weight.mul_(0.3)
        model.speech_decoder_postnet.prob_out.bias.fill_(-6)
        vocoder.mean.normal_(0, 0.1)
        vocoder.scale.uniform_(0.8, 1.2)
        vocoder.conv_post.bias.zero_()
        spectrogram = torch.randn(50, vocoder_config.model_in_dim)
        vocoder.conv_post.weight.mul_(0.1 / float(torch.atanh(vocoder(spectrogram).clamp(-0.9999, 0.9999)).std()))
        if ends:
            _place_stop(model, torch.from_numpy(xvectors(seed, config.speaker_embedding_dim)[SPEAKERS[0]]))
    return model, vocoder


def _place_stop(model: SpeechT5ForTextToSpeech, speaker: Tensor) -> None:
    """Point the stop token's weights along the way that hidden states go with time: where speech ends depends on the
    text, and so on rounding."""
    stop = model.speech_decoder_postnet.prob_out
    hidden = hidden_states(model, speaker, 30, steps := min(STOP_STEPS, model.config.max_speech_positions))
    early, late = hidden[: steps // 3].mean(0), hidden[-steps // 3 :].mean(0)
    low, high = STOP_LOGITS
    way = (late - early) / (late - early).square().sum()
    stop.weight.copy_(stop.weight + (high - low) * way)
    stop.bias.fill_(float(low - (high - low) * way @ early))


def write_checkpoint(
    folder: Path,
    seed: int = 0,
    *,
    safetensors: bool = False,
    reduction_factor: int = 2,
    config: dict[str, Any] | None = None,
    vocoder_config: dict[str, Any] | None = None,
    vocoder: str = VOCODER,
    spm: bytes | None = None,
    ends: bool = False,
    seeded: bool = False,
) -> tuple[SpeechT5ForTextToSpeech, SpeechT5HifiGan]:
    """Write every file of a random checkpoint into `folder`; returns its networks.

    `config` and `vocoder_config` are changes to the tiny ones; `vocoder` is the path of its folder in `folder`.
    spm: a character model; ends: see tiny_networks(); seeded: weights as random:SEED has them.
    """
    vocab_size = write_tokenizer(folder, spm)
    cfg = tiny_config(vocab_size, **{"reduction_factor": reduction_factor, **(config or {})})
    vocoder_cfg = tiny_vocoder_config(**(vocoder_config or {}))
    if seeded:
        _, *networks, _ = random_checkpoint(seed, cfg, vocoder_cfg)
    else:
        networks = list(tiny_networks(seed, cfg, vocoder_cfg, ends=ends))
    # The published vocoder's config.json has this older name.
    raw_vocoder = vocoder_cfg.to_diff_dict() | {"model_type": "hifigan"}
    for place, raw, network in (
        (folder, cfg.to_diff_dict(), networks[0]),
        (folder / vocoder, raw_vocoder, networks[1]),
    ):
        place.mkdir(parents=True, exist_ok=True)
        _write_json(place / "config.json", raw)
        write_weights(place, network.state_dict(), safetensors=safetensors)
    (folder / "speakers").mkdir(exist_ok=True)
    vectors = xvectors(seed, cfg.speaker_embedding_dim)
    np.save(folder / "speakers" / f"{SPEAKERS[0]}.npy", vectors[SPEAKERS[0]])
    vectors[SPEAKERS[1]].astype("<f4").tofile(folder / "speakers" / f"{SPEAKERS[1]}.bin")
    model, vocoder_network = networks
    return model, vocoder_network


def xvectors(seed: int, width: int = 512) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(width).astype(np.float32) for name in SPEAKERS}


def write_weights(folder: Path, state: dict[str, Tensor], *, safetensors: bool = False) -> None:
    if safetensors:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        torch.save(state, folder / "pytorch_model.bin")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
