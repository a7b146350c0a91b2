"""The models this tool exports. No torch here: listing them, and finding a cached build, must be quick."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jtts_export.exporters.model import Model


@dataclass(frozen=True)
class Info:
    """A model's name on the command line, and where its checkpoints come from.

    files: patterns of the files that make a checkpoint; licence: SPDX id of the default checkpoint's.
    """

    name: str
    title: str
    checkpoint: str
    files: tuple[str, ...]
    licence: str

    def load(self) -> Model:
        """The exporter. Imports torch."""
        return import_module(f"jtts_export.exporters.{self.name}").MODEL


MODELS = {
    info.name: info
    for info in [
        Info(
            name="kokoro",
            title="Kokoro-82M (StyleTTS 2 + iSTFTNet), 24 kHz",
            checkpoint="hub:hexgrad/Kokoro-82M",
            files=("config.json", "*.pth", "voices/*.pt", "voices/*.bin"),
            licence="Apache-2.0",
        ),
    ]
}
