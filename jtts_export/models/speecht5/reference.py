"""SpeechT5 in PyTorch as a runner: transformers' own generate_speech, listened in on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jtts_export.errors import CheckpointError
from jtts_export.runtime.draws import prenet_mask

from .checkpoint import Checkpoint

STOP_THRESHOLD, MAX_LENGTH_RATIO = 0.5, 20.0  # generate_speech's defaults


class Reference:
    """Encoder states to waveform, on a mask of the prenet's dropout that is drawn from a seed."""

    def __init__(self, checkpoint: Checkpoint, threads: int, mask_seed: int = 0, double: bool = False) -> None:
        self.model: Any = checkpoint.model
        self.vocoder: Any = checkpoint.vocoder
        self.threads = threads
        self.dtype = torch.float64 if double else torch.float32
        if double:
            self.model, self.vocoder = copy.deepcopy(self.model).double(), copy.deepcopy(self.vocoder).double()
        self.mask = mask_of(checkpoint, mask_seed)

    @torch.no_grad()
    def taps(
        self, inputs: Mapping[str, np.ndarray], wanted: Sequence[str], forced: Mapping[str, np.ndarray] | None = None
    ) -> dict[str, np.ndarray]:
        """See runtime.speecht5_taps.TAPS. `steps` and `spectrogram` can be forced."""
        forced = forced or {}
        torch.set_num_threads(self.threads)
        made: dict[str, Tensor] = {}
        if "spectrogram" in forced:
            made["spectrogram"] = torch.from_numpy(forced["spectrogram"]).to(self.dtype)
        else:
            made |= self._generate(inputs, forced.get("steps"))
        if {"mel", "waveform"} & set(wanted):
            made["mel"] = self.model.speech_decoder_postnet.postnet(made["spectrogram"][None])[0]
        if "waveform" in wanted:
            made["waveform"] = self.vocoder(made["mel"])
        made["client_spectrogram"] = made["spectrogram"]
        return {name: made[name].numpy() for name in wanted}

    def _generate(self, inputs: Mapping[str, np.ndarray], steps: np.ndarray | None) -> dict[str, Tensor]:
        """Everything up to the postnet."""
        config, tokens = self.model.config, inputs["input_ids"].shape[1]
        per_token = config.reduction_factor / tokens

        def ratio(limit: object) -> float:
            return (int(limit) + 0.5) * per_token  # type: ignore[call-overload]

        least = 0.0 if "min_steps" not in inputs else ratio(inputs["min_steps"])
        most = MAX_LENGTH_RATIO if "max_steps" not in inputs else ratio(inputs["max_steps"])
        threshold = float(inputs.get("threshold", STOP_THRESHOLD))
        if steps is not None:
            least = most = ratio(steps[0])
        postnet, seen = self.model.speech_decoder_postnet, _Seen()
        with ExitStack() as stack:
            stack.enter_context(_masked(self.model.speecht5.decoder.prenet, inputs.get("prenet_mask", self.mask)))
            stack.callback(postnet.feat_out.register_forward_hook(seen.keep("frames")).remove)
            stack.callback(postnet.prob_out.register_forward_hook(seen.keep("stop")).remove)
            stack.callback(self.model.speecht5.encoder.register_forward_hook(seen.keep("encoder")).remove)
            self.model.generate_speech(
                torch.from_numpy(inputs["input_ids"]),
                torch.from_numpy(inputs["speaker_embeddings"]).to(self.dtype),
                threshold=threshold,
                minlenratio=least,
                maxlenratio=most,
            )
        states = seen["encoder"][0].last_hidden_state
        cross = [layer.encoder_attn for layer in self.model.speecht5.decoder.wrapped_decoder.layers]
        memory = [project(states) for a in cross for project in (a.k_proj, a.v_proj)]
        return {
            "encoder_states": states,
            "encoder_outputs": torch.cat(memory, -1),
            "steps": torch.tensor([len(seen["frames"])]),
            "spectrogram": torch.cat(seen["frames"]).view(-1, config.num_mel_bins),
            "prob": torch.cat(seen["stop"]).sigmoid(),
        }


def mask_of(checkpoint: Checkpoint, seed: int = 0) -> np.ndarray:
    """u8 [steps, layers, units]: as many steps as the decoder has positions. Kept with the probability that
    transformers' _consistent_dropout keeps a unit with."""
    config = checkpoint.model.config
    size = config.max_speech_positions, config.speech_decoder_prenet_layers, config.speech_decoder_prenet_units
    return prenet_mask(*size, keep=config.speech_decoder_prenet_dropout, seed=seed)


class _Seen(dict):
    """What modules gave, call by call."""

    def keep(self, name: str) -> Callable[[nn.Module, object, object], None]:
        values = self[name] = []
        return lambda _, __, output: values.append(output)


@contextmanager
def _masked(prenet: Any, mask: np.ndarray) -> Iterator[None]:
    """The prenet's dropout from a table. Each step runs the whole sequence through the prenet, and only its last
    frame is used: the other frames keep everything."""
    table, call = torch.from_numpy(mask).bool(), iter(range(1 << 62))

    def dropout(x: Tensor, p: float) -> Tensor:
        if x.shape[1] > len(table):
            raise CheckpointError(
                f"the speech has not ended after {len(table)} steps, the most this checkpoint can speak"
            )
        kept = x.clone()
        kept[:, -1] = torch.where(table[x.shape[1] - 1, next(call) % table.shape[1]], x[:, -1], 0)
        return kept * 1 / (1 - p)

    prenet._consistent_dropout = dropout
    try:
        yield
    finally:
        del prenet._consistent_dropout
