"""What training makes small: distances of spectra, in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.validate.audio.spectral import FLOOR, HOP, MELS, N_FFT, mel_filters

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256), (2048, 512))  # window, hop
_MAGNITUDE_FLOOR = 2e-4
MEL_WEIGHT = 2.0


class SpectralLoss(nn.Module):
    """Spectral convergence and log-magnitude L1 at four resolutions (Yamamoto et al. 2020, eqs. 4-6), and
    MEL_WEIGHT times the log-mel L1 of validate/audio/spectral.py."""

    def __init__(self) -> None:
        super().__init__()
        self.filters: Tensor
        self.register_buffer("filters", torch.from_numpy(mel_filters(SAMPLE_RATE_HZ, N_FFT, MELS)).float())
        self.windows = {size: torch.hann_window(size) for size, _ in RESOLUTIONS}

    def forward(self, made: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples] both -> the loss, and the log-mel L1 in it."""
        total, mel = torch.zeros(()), torch.zeros(())
        for size, hop in RESOLUTIONS:
            x, y = self._magnitude(made, size, hop), self._magnitude(exact, size, hop)
            convergence = (x - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1).clamp(min=1.0)
            total = total + (convergence.mean() + F.l1_loss(x.log(), y.log())) / len(RESOLUTIONS)
            if (size, hop) == (N_FFT, HOP):
                mel = F.l1_loss(self._log_mel(x), self._log_mel(y))
        return total + MEL_WEIGHT * mel, mel

    def _magnitude(self, audio: Tensor, size: int, hop: int) -> Tensor:
        spectrum = torch.stft(audio, size, hop, window=self.windows[size], return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return power.clamp(min=_MAGNITUDE_FLOOR**2).sqrt()

    def _log_mel(self, magnitude: Tensor) -> Tensor:
        return (self.filters @ magnitude).clamp(min=FLOOR).log()


def duration_loss(logits: Tensor, durations: Tensor) -> Tensor:
    """StyleTTS 2's: each of max_dur sigmoids says whether a token lasts longer, and their sum is how long.

    logits: [tokens, max_dur]; durations: int64 [tokens].
    """
    longer = (torch.arange(logits.shape[1]) < durations.unsqueeze(1)).float()
    error = (torch.sigmoid(logits).sum(dim=1) - durations).abs().mean()
    return F.binary_cross_entropy_with_logits(logits, longer) + error
