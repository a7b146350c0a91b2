"""Write docs/coreml/MODEL.md: how an app chains the packages of the published checkpoints.

    python -m bench.coreml_pages

Of the architectures alone, their weights zero: what a stage takes and gives depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TypeVar

import torch
from torch import nn
from transformers import SpeechT5Config, SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5HifiGanConfig

from bench.common import ROOT
from jtts_export.exporters.coreml import kokoro, speecht5, t3
from jtts_export.exporters.coreml.build import interface
from jtts_export.exporters.coreml.stage import DEFAULT_TARGET, Export
from jtts_export.exporters.coreml.swift import page
from jtts_export.exporters.model import Loaded
from jtts_export.models import MODELS
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.model import Kokoro
from jtts_export.models.kokoro.random import official_config
from jtts_export.models.t3.config import T3Config
from jtts_export.models.t3.model import T3

PAGES = ROOT / "docs/coreml"
M = TypeVar("M", bound=nn.Module)


def pages() -> dict[str, str]:
    """By model."""
    return {name: _page(name, *make()) for name, make in (("kokoro", _kokoro), ("speecht5", _speecht5), ("t3", _t3))}


def _page(name: str, export: Export, loaded: Loaded) -> str:
    return page(MODELS[name].title, interface(export, export.stages(loaded, DEFAULT_TARGET), DEFAULT_TARGET))


def _zero(make: Callable[[], M]) -> M:
    """A network without the time that drawing its weights takes."""
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.detach().zero_()
    return network


def _kokoro() -> tuple[Export, Loaded]:
    config = official_config()
    return kokoro.EXPORT, Loaded(config, _zero(lambda: Kokoro(KokoroConfig.model_validate(config))), {})


def _speecht5() -> tuple[Export, Loaded]:
    model, vocoder = SpeechT5Config(**speecht5.PUBLISHED["model"]), SpeechT5HifiGanConfig()
    networks = SimpleNamespace(
        model=_zero(lambda: SpeechT5ForTextToSpeech(model)), vocoder=_zero(lambda: SpeechT5HifiGan(vocoder))
    )
    return speecht5.EXPORT, Loaded({"model": model.to_dict(), "vocoder": vocoder.to_dict()}, networks, {})


def _t3() -> tuple[Export, Loaded]:
    config = T3Config()
    return t3.EXPORT, Loaded({"model": vars(config)}, SimpleNamespace(model=_zero(lambda: T3(config))), {})


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PAGES / f"{name}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
