"""From a training run to the checkpoint that travels with the package.

    python -m demo.export RUN_FOLDER [OUT_FOLDER]

Writes what Kokoro's authors publish: config.json, weights in their key names (weight norm folded, half precision, as
safetensors) and voices/*.pt, one style for every number of tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save

from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.source import DEMO_FOLDER, DEMO_WEIGHTS

from .network import config

NAMES = ("am_demo", "af_demo")  # of data.VOICES, as Kokoro names voices: American, male and female


def write(run: Path, out: Path) -> None:
    """The averaged weights of a run, in OUT."""
    state = torch.load(run / "training.pt", weights_only=True)["average"]
    raw = config()
    cfg = KokoroConfig.model_validate(raw)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    prefix = "kokoro."
    weights = {k.removeprefix(prefix): v.half().contiguous() for k, v in state.items() if k.startswith(prefix)}
    (out / DEMO_WEIGHTS).write_bytes(save(weights))
    (out / "voices").mkdir(exist_ok=True)
    for name, style in zip(NAMES, state["voices.style"], strict=True):
        torch.save(style.expand(cfg.max_tokens, 1, -1).contiguous(), out / "voices" / f"{name}.pt")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else DEMO_FOLDER)
