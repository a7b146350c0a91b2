"""Tells the phonemes in audio, having heard espeak-ng only: how clear is a voice that imitates it?

    python -m demo.phone_classifier DATA.npz OUT.pt

A network of convolutions names the phoneme in every 12.5 ms; a token is what its frames say together.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jtts_export.models.kokoro.config import SAMPLE_RATE_HZ
from jtts_export.models.kokoro.random import official_config
from jtts_export.validate.audio.spectral import FLOOR, MELS, N_FFT, mel_filters

from .data import F0_HOP, Utterance, load

WIDTH, LAYERS, KERNEL = 128, 4, 5
STEPS, BATCH, SPAN, RATE = 1500, 12, 120, 2e-3  # SPAN in F0 values
_SILENT = frozenset(';:,.!?—…"()“” ˈˌ')


class PhoneClassifier(nn.Module):
    """Log-mels [batch, MELS, values] -> log-probabilities [batch, phonemes, values]; phoneme 0 is none."""

    def __init__(self, phonemes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(LAYERS):
            layers += [nn.Conv1d(MELS if i == 0 else WIDTH, WIDTH, KERNEL, padding=KERNEL // 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv1d(WIDTH, phonemes, 1))
        self.filters: Tensor
        self.register_buffer("filters", torch.from_numpy(mel_filters(SAMPLE_RATE_HZ)).float(), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        return F.log_softmax(self.layers(mel), dim=1)

    def log_mel(self, audio: Tensor) -> Tensor:
        """[batch, samples] -> [batch, MELS, samples / F0_HOP], around 0."""
        ahead = (N_FFT - F0_HOP) // 2
        padded = F.pad(audio, (ahead, N_FFT - F0_HOP - ahead))
        window = torch.hann_window(N_FFT)
        spectrum = torch.stft(padded, N_FFT, F0_HOP, window=window, center=False, return_complex=True)
        return (self.filters @ spectrum.abs()).clamp(min=FLOOR).log() / 4 + 1

    @torch.no_grad()
    def recognized(self, audio: np.ndarray, ids: Sequence[int], durations: Sequence[int]) -> tuple[int, int]:
        """How many of the tokens that sound are told from audio [samples], and how many sound."""
        said = self(self.log_mel(torch.from_numpy(audio)[None]))[0]
        owners = owner_of_value(ids, durations)
        right = count = 0
        for token, phoneme in enumerate(ids):
            if phoneme in sounding():
                heard = said[:, torch.from_numpy(owners == token)].mean(dim=1).argmax()
                right += int(heard) == phoneme
                count += 1
        return right, count


def sounding() -> frozenset[int]:
    """Tokens that are phonemes: neither marks, nor stress, nor a space."""
    return frozenset(i for c, i in official_config()["vocab"].items() if c not in _SILENT)


def owner_of_value(ids: Sequence[int], durations: Sequence[int]) -> np.ndarray:
    """The token that sounds at every F0 value, -1 where none does: a stress belongs to what follows, a space to what
    is before."""
    stress = {official_config()["vocab"][c] for c in "ˈˌ"}
    space = official_config()["vocab"][" "]
    heard = []
    for i, phoneme in enumerate(ids):
        at = i + 1 if phoneme in stress else i - 1 if phoneme == space else i
        heard.append(at if 0 <= at < len(ids) and ids[at] in sounding() else -1)
    return np.repeat(heard, 2 * np.asarray(durations))


def labels(utterance: Utterance) -> np.ndarray:
    """The phoneme at every F0 value, 0 where none is."""
    owners = owner_of_value(utterance.ids.tolist(), utterance.durations.tolist())
    return np.where(owners >= 0, utterance.ids[owners], 0)


def train(utterances: list[Utterance]) -> PhoneClassifier:
    """The same network from the same utterances."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    classifier = PhoneClassifier(official_config()["n_token"])
    optimizer = torch.optim.AdamW(classifier.parameters(), RATE)
    long = [u for u in utterances if 2 * u.durations.sum() > SPAN]
    named = [labels(u) for u in long]
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS) + 1e-5
        waves, names = [], []
        for i in draw.integers(0, len(long), BATCH):
            first = int(draw.integers(0, len(named[i]) - SPAN + 1)) // 2 * 2
            waves.append(torch.from_numpy(long[i].audio[first * F0_HOP : (first + SPAN) * F0_HOP]))
            names.append(torch.from_numpy(named[i][first : first + SPAN]))
        said = classifier(classifier.log_mel(torch.stack(waves)))
        loss = F.nll_loss(said, torch.stack(names))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 250 == 0:
            print(f"step {step + 1}: {float(loss.detach()):.3f}", flush=True)
    return classifier.eval()


def read(path: Path) -> PhoneClassifier:
    classifier = PhoneClassifier(official_config()["n_token"])
    classifier.load_state_dict(torch.load(path, weights_only=True))
    return classifier.eval()


def accuracy(classifier: PhoneClassifier, spoken: list[tuple[np.ndarray, Sequence[int], Sequence[int]]]) -> float:
    """Share of phonemes that are told; of audio, tokens and durations each."""
    found = [classifier.recognized(*given) for given in spoken]
    return sum(right for right, _ in found) / sum(count for _, count in found)


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    classifier = train(load(data))
    torch.save(classifier.state_dict(), out)
    unseen = load(data.with_name("held_out.npz"))
    heard = accuracy(classifier, [(u.audio, u.ids.tolist(), u.durations.tolist()) for u in unseen])
    print(f"{out}: tells {heard:.1%} of the phonemes of {len(unseen)} unseen utterances of espeak-ng")


if __name__ == "__main__":
    main()
