"""What others do with the same graph or the same weights, to be timed beside ours."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from jtts_export.exporters.model import Loaded


def quantize_dynamic(graph: Path, out: Path) -> None:
    """onnxruntime's own recipe, as the public Kokoro conversions use it."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    quantize(graph, out, weight_type=QuantType.QUInt8)


def authors_eager(loaded: Loaded) -> Callable[[dict[str, np.ndarray]], torch.Tensor]:
    """kokoro 0.9.4's KModel on the same weights, as users run it today."""
    if "kokoro" not in sys.modules:
        spec = find_spec("kokoro")
        assert spec is not None and spec.origin is not None, "make setup installs kokoro"
        package = types.ModuleType("kokoro")  # without its __init__, which imports spaCy
        package.__path__ = [str(Path(spec.origin).parent)]
        sys.modules["kokoro"] = package
    from kokoro.model import KModel

    state: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in loaded.module.state_dict().items():
        part, _, name = key.partition(".")
        state.setdefault(part, {})[name] = value
    with mock.patch.object(torch, "load", lambda *_, **__: {}):
        theirs = KModel(repo_id="hexgrad/Kokoro-82M", config=dict(loaded.config), model="none").eval()
    for part, tensors in state.items():
        module = getattr(theirs, part)
        wanted = module.state_dict()
        for name, value in tensors.items():
            if name in wanted:
                wanted[name] = value
            else:  # a weight in weight-norm form: its own direction, at its own length
                stem = name.removesuffix(".weight")
                axes = tuple(range(1, value.dim()))
                wanted[f"{stem}.weight_v"] = value
                wanted[f"{stem}.weight_g"] = value.norm(2, dim=axes, keepdim=True)
        module.load_state_dict(wanted)

    def run(inputs: dict[str, np.ndarray]) -> torch.Tensor:
        ids, style = torch.from_numpy(inputs["input_ids"]), torch.from_numpy(inputs["style"])
        return theirs.forward_with_tokens(ids, style, float(inputs["speed"][0]))[0]

    return run
