"""The models this tool exports. No torch here: listing them, and finding a cached build, must be quick."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from .source import Companion

if TYPE_CHECKING:
    from jtts_export.exporters.model import Model


@dataclass(frozen=True)
class Info:
    """A model's name on the command line, and where its checkpoints come from.

    files: patterns of the files that make a checkpoint, a tuple among them those of which it has one, best first (see
    source.locate); licence: SPDX id of the default checkpoint's;
    companions: files that its authors publish elsewhere; variants: those it can be made in, besides fp32;
    example: a command that tries a release in its own folder; demo: whether the checkpoint of that name is one of it.
    """

    name: str
    title: str
    checkpoint: str
    files: tuple[str | tuple[str, ...], ...]
    licence: str
    companions: tuple[Companion, ...] = ()
    variants: tuple[str, ...] = ("int8", "fp16")
    example: str = 'say . "Hello there." -o ../hello.wav'
    demo: bool = False

    def load(self) -> Model:
        """The exporter. Imports torch."""
        return import_module(f"jtts_export.exporters.{self.name}").MODEL


# As transformers' save_pretrained names weights, in one file or in several with an index.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model-*-of-*.bin",
)
_SPEAKERS = (
    *("*.npy", "speaker*.bin", "speaker*.pt", "xvector*.bin", "xvector*.pt", "spkrec-xvect.zip"),
    *(
        f"{folder}/*{suffix}"
        for folder in ("speakers", "speaker_embeddings", "xvectors", "voices")
        for suffix in (".npy", ".bin", ".pt", ".zip")
    ),
)

MODELS = {
    info.name: info
    for info in [
        Info(
            name="kokoro",
            title="Kokoro-82M (StyleTTS 2 + iSTFTNet), 24 kHz",
            checkpoint="hub:hexgrad/Kokoro-82M",
            files=("config.json", "*.pth", "*.safetensors", "voices/*.pt", "voices/*.bin"),
            licence="Apache-2.0",
            demo=True,
        ),
        Info(
            name="speecht5",
            title="SpeechT5 TTS + HiFi-GAN, 16 kHz",
            checkpoint="hub:microsoft/speecht5_tts",
            files=(
                "config.json",
                *_WEIGHTS,
                "spm_char.model",
                "tokenizer.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "added_tokens.json",
                *_SPEAKERS,
            ),
            licence="MIT",
            companions=(
                Companion(
                    name="vocoder",
                    hub="microsoft/speecht5_hifigan",
                    files=("config.json", *_WEIGHTS),
                    folders=("speecht5_hifigan", "vocoder"),
                ),
                Companion(
                    name="speakers",
                    hub="Matthijs/cmu-arctic-xvectors",
                    files=("spkrec-xvect.zip",),
                    unless=_SPEAKERS,
                    repo_type="dataset",
                ),
            ),
        ),
        Info(
            name="t3",
            title="T3 (Chatterbox), text to speech tokens, 25 Hz",
            checkpoint="hub:ResembleAI/chatterbox",
            files=(
                "config.json",
                (
                    "t3_cfg.safetensors",
                    "t3_mtl23ls_v2.safetensors",
                    "t3_23lang.safetensors",
                    "t3*.safetensors",
                    "t3_cfg.pt",
                    "t3*.pt",
                ),
                "tokenizer.json",
                "grapheme_mtl_merged_expanded_v1.json",
                "mtl_tokenizer.json",
                "conds.pt",
                "conds.safetensors",
                "voices/*.pt",
                "voices/*.safetensors",
            ),
            licence="MIT",
            variants=("int8", "int8-fast", "int4", "fp16"),
            example='tokens . "Hello there."',
        ),
    ]
}
