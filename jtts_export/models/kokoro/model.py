"""Kokoro: phoneme tokens and a style to a waveform."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .albert import Albert
from .config import KokoroConfig
from .decoder import Decoder
from .prosody import ProsodyPredictor, TextEncoder

TAPS = ("frames", "duration", "f0", "n", "har", "waveform")


class Kokoro(nn.Module):
    """The full architecture, with the authors' parameter names (weight norm folded), for a batch of one.

    Every random draw is an argument, so that two runs, or this and a runtime, can be given the same one.
    """

    def __init__(self, cfg: KokoroConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.bert = Albert(cfg.plbert, cfg.n_token)
        self.bert_encoder = nn.Linear(cfg.plbert.hidden_size, cfg.hidden_dim)
        self.predictor = ProsodyPredictor(cfg)
        self.text_encoder = TextEncoder(cfg)
        self.decoder = Decoder(cfg)

    def forward(
        self,
        input_ids: Tensor,
        style: Tensor,
        speed: Tensor,
        noise: Tensor,
        forced: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """One synthesis, with its taps.

        input_ids: int64 [1, tokens], boundary token 0 at both ends; style: [1, 2 * style_dim] (decoder's
        half first); speed: [1]; noise: [period, HARMONICS] unit normal, read cyclically by the source.
        A tap named in `forced` takes that value instead of the computed one.

        Returns `frames` per token [1, tokens] and `duration`, the same rounded to int64, at least 1; `f0` (Hz)
        and `n` [1, 2 * frames]; `har` [1, n_fft + 2, samples / hop + 1]; `waveform` [1, samples].
        """
        forced = forced or {}
        timbre, prosody = style.split(self.cfg.style_dim, dim=1)
        text = self.bert_encoder(self.bert(input_ids))
        frames, duration, owner, f0, n = self.predictor(text, prosody, speed, forced.get("duration"))
        f0, n = forced.get("f0", f0), forced.get("n", n)
        har = forced.get("har")
        if har is None:
            har = self.decoder.source(f0, noise)
        asr = self.text_encoder(input_ids)[:, :, owner]
        waveform = self.decoder(asr, f0, n, timbre, har)
        return dict(zip(TAPS, (frames, duration, f0, n, har, waveform), strict=True))
