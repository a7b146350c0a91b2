"""Kokoro's packages chained as an app chains them. numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jtts_export.errors import BadInput

from .stage import MAIN, Networks, has

DURATION, PROSODY, SOURCE, DECODER, TAIL = STAGES = ("duration", "prosody", "source", "decoder", "tail")
FLEXIBLE = "_flexible"  # ends the names of stages that take any length
TOKENS = {f"tokens_{size}": size for size in (128, 256, 512)}
FRAMES = {"seconds_3": 120, "seconds_7": 280, "seconds_15": 600, "seconds_30": 1200}  # of 25 ms

Arrays = Mapping[str, np.ndarray]
Buckets = Mapping[str, int]


def token_buckets(config: Mapping[str, Any], tokens: Buckets = TOKENS) -> dict[str, int]:
    """Those that a checkpoint's positions fill, the last as far as they go."""
    most = config["plbert"]["max_position_embeddings"]
    kept, before = {}, 0
    for name, size in tokens.items():
        if before < most:
            kept[name] = min(size, most)
        before = size
    return kept


class KokoroChain:
    """See the chain's description in kokoro.py. Stages by name, made in buckets or flexible."""

    def __init__(
        self,
        networks: Networks,
        config: Mapping[str, Any],
        tokens: Buckets = TOKENS,
        frames: Buckets = FRAMES,
    ) -> None:
        self._networks = networks
        self._tokens, self._frames = token_buckets(config, tokens), dict(frames)
        net = config["istftnet"]
        self._spectra = 2 * int(np.prod(net["upsample_rates"]))  # of a frame
        self._samples = self._spectra * net["gen_istft_hop_size"]

    def taps(self, inputs: Arrays, wanted: Sequence[str], forced: Arrays | None = None) -> dict[str, np.ndarray]:
        """See models/kokoro/model.py: frames, duration, f0, n, har, waveform; all but frames and waveform can be
        forced. Raises BadInput for a text that no bucket holds."""
        forced, style = forced or {}, inputs["style"].astype(np.float32)
        said = self._say(inputs, style)
        made: dict[str, np.ndarray] = {"frames": said["frames"]}
        made["duration"] = forced.get("duration", np.maximum(np.rint(said["frames"]), 1).astype(np.int64))
        if {*wanted} <= {*made}:
            return {name: made[name] for name in wanted}

        owner = np.repeat(np.arange(made["duration"].shape[1], dtype=np.int32), made["duration"][0])
        frames = len(owner)
        if "f0" not in forced or "n" not in forced:
            curves = self._run(PROSODY, frames, features=said["features"], owner=owner, style=style)
            made |= {name: curves[name][:, : 2 * frames] for name in ("f0", "n")}
        made |= {name: forced[name] for name in ("f0", "n", "har") if name in forced}
        if "har" not in made and {"har", "waveform"} & {*wanted}:
            made["har"] = self._run(SOURCE, frames, f0=made["f0"])["har"][:, :, : self._spectra * frames + 1]
        if "waveform" in wanted:
            heard = {name: made[name] for name in ("f0", "n", "har")}
            made_of = self._run(DECODER, frames, text=said["text"], owner=owner, style=style, **heard)
            audio = self._run(TAIL, frames, spectrum=made_of["spectrum"])["waveform"]
            made["waveform"] = audio[:, : self._samples * frames]
        return {name: made[name] for name in wanted}

    def _say(self, inputs: Arrays, style: np.ndarray) -> dict[str, np.ndarray]:
        """Frames of each token, features and text."""
        ids = inputs["input_ids"].astype(np.int32)
        count = ids.shape[1]
        stage, function, size = self._place(DURATION, count, self._tokens, "tokens")
        feeds = {"input_ids": _padded(ids, 1, size), "length": np.array([count], np.int32)}
        feeds |= {"style": style, "speed": inputs["speed"].astype(np.float32)}
        made = self._networks[stage].run(feeds, function)
        most = count if stage.endswith(FLEXIBLE) else max(self._tokens.values())
        return {
            "frames": made["frames"][:, :count],
            "features": _padded(made["features"], 1, most),
            "text": _padded(made["text"], 2, most),
        }

    def _run(self, stage: str, frames: int, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """A stage, in the smallest function that holds an utterance's frames."""
        name, function, size = self._place(stage, frames, self._frames, "frames")
        axes = {"owner": (0, size), "f0": (1, 2 * size), "n": (1, 2 * size), "har": (2, self._spectra * size + 1)}
        fed = {key: _padded(value, *axes[key]) if key in axes else value for key, value in inputs.items()}
        return self._networks[name].run({**fed, "length": np.array([frames], np.int32)}, function)

    def _place(self, stage: str, length: int, buckets: Buckets, unit: str) -> tuple[str, str, int]:
        """Stage, function and the size of its axis for a length."""
        if length > max(buckets.values()):
            raise BadInput(f"{length} {unit} are too many for {stage}, which takes {max(buckets.values())}: split it")
        if stage + FLEXIBLE in self._networks:
            return stage + FLEXIBLE, MAIN, length
        fitting = (name for name, size in buckets.items() if size >= length and has(self._networks[stage], name))
        function = min(fitting, key=buckets.__getitem__)
        return stage, function, buckets[function]


def _padded(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Zeros behind it, or what is behind `size` cut."""
    kept = array.take(range(min(size, array.shape[axis])), axis)
    pad = [(0, size - kept.shape[axis] if a == axis else 0) for a in range(array.ndim)]
    return np.ascontiguousarray(np.pad(kept, pad))
