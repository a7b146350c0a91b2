"""Trains the demo voice; goes on where it was stopped.

    python -m demo.train DATA.npz OUT_FOLDER [--steps N] [--threads N]

The decoder learns from segments of speech with true durations, F0 and energy, and later with the predicted ones; the
predictor from whole utterances. A run that is started again with another number of steps follows the schedule of that
number from where it stands.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jtts_export.models.kokoro.model import Kokoro
from jtts_export.models.kokoro.prosody import token_of_frame

from .data import FRAME, VOICES, Utterance, load
from .losses import SpectralLoss, duration_loss
from .network import network, noise, trainable

RATE, LAST_RATE, BETAS, CLIP, WARM_UP = 1.5e-3, 4.5e-5, (0.8, 0.99), 10.0, 200
AVERAGE = 0.998  # of the weights that are kept, per step
SAVE_SECONDS, LOG_STEPS, CHECK_STEPS, CHECKED = 120, 100, 1000, 12
TEXTS = 1  # utterances a step that the predictor learns from


@dataclass(frozen=True)
class Phase:
    """until: share of all steps; segments: of `frames` each; predicted: share of those that are given predicted F0
    and energy."""

    until: float
    segments: int
    frames: int
    predicted: float


PHASES = (Phase(0.30, 2, 48, 0.0), Phase(0.60, 2, 96, 0.0), Phase(0.85, 1, 96, 0.4), Phase(1.00, 1, 144, 0.5))


@dataclass
class State:
    """Everything that a run needs to go on."""

    step: int
    net: nn.ModuleDict
    average: dict[str, Tensor]
    optimizer: torch.optim.Optimizer


class Trainer:
    """One network, its data and its losses."""

    def __init__(self, data: Path, folder: Path, steps: int, low_precision: bool) -> None:
        self.folder, self.steps, self.low_precision = folder, steps, low_precision
        self.utterances = load(data)
        self.unseen = load(data.with_name("held_out.npz"))
        self.spectral = SpectralLoss()
        torch.manual_seed(0)
        net = network(len(VOICES))
        optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], RATE, BETAS, fused=True)
        self.state = State(0, net, {}, optimizer)
        self._resume()
        self.model: Kokoro = net["kokoro"]  # type: ignore[assignment]
        trainable(self.model)
        self.logits: list[Tensor] = []
        self.model.predictor.duration_proj.register_forward_hook(lambda _, __, out: self.logits.append(out))
        frames = np.array([u.durations.sum() for u in self.utterances], float)
        self.chance = frames / frames.sum()

    @property
    def file(self) -> Path:
        return self.folder / "training.pt"

    def _resume(self) -> None:
        state = self.state
        if self.file.exists():
            saved: dict[str, Any] = torch.load(self.file, weights_only=True)
            state.step = saved["step"]
            state.net.load_state_dict(saved["net"])
            state.optimizer.load_state_dict(saved["optimizer"])
            state.average = saved["average"]
        else:
            state.average = {k: v.clone() for k, v in state.net.state_dict().items()}

    def save(self) -> None:
        """At once or not at all."""
        state = self.state
        temporary = self.file.with_suffix(".tmp")
        kept = {"step": state.step, "net": state.net.state_dict(), "average": state.average}
        torch.save(kept | {"optimizer": state.optimizer.state_dict()}, temporary)
        temporary.replace(self.file)

    def run(self) -> None:
        """To the last step, or to a SIGTERM; a line of losses every LOG_STEPS, of unseen speech every CHECK_STEPS."""
        state, sums = self.state, dict[str, list[float]]()
        saved = logged = time.monotonic()
        stopped: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
        while state.step < self.steps and not stopped:
            phase = next(p for p in PHASES if state.step < p.until * self.steps)
            for name, value in self.advance(phase).items():
                sums.setdefault(name, []).append(value)
            now = time.monotonic()
            if state.step % LOG_STEPS == 0:
                figures = ", ".join(f"{name} {np.mean(values):.4f}" for name, values in sums.items())
                rate = state.optimizer.param_groups[0]["lr"]
                seconds = (now - logged) / LOG_STEPS
                print(f"step {state.step}: {figures}, rate {rate:.2e}, {seconds:.2f} s", flush=True)
                sums.clear()
                logged = now
            if state.step % CHECK_STEPS == 0:
                print(f"step {state.step}: unseen: {self.check()}", flush=True)
            if now - saved > SAVE_SECONDS:
                self.save()
                saved = now
        self.save()

    def advance(self, phase: Phase) -> dict[str, float]:
        """One step, and its losses. What is drawn in it depends on its number alone."""
        torch.manual_seed(self.state.step)
        losses = self._step(phase, np.random.default_rng(self.state.step))
        self.state.step += 1
        return losses

    def _step(self, phase: Phase, draw: np.random.Generator) -> dict[str, float]:
        state = self.state
        progress = state.step / self.steps
        rate = LAST_RATE + (RATE - LAST_RATE) * (1 + math.cos(math.pi * progress)) / 2
        for group in state.optimizer.param_groups:
            group["lr"] = rate * min(1.0, (state.step + 1) / WARM_UP)
        state.optimizer.zero_grad(set_to_none=True)
        losses: dict[str, float] = {}
        for i in draw.integers(0, len(self.utterances), TEXTS):
            parts = self._text(self.utterances[i])
            (sum(parts.values(), torch.zeros(())) / TEXTS).backward()
            for name, value in parts.items():
                losses[name] = losses.get(name, 0.0) + float(value.detach()) / TEXTS
        loss, mel = self._speech(phase, draw)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(state.net.parameters(), CLIP)
        if not torch.isfinite(norm):
            print(f"step {state.step}: a gradient is not finite; the step is left out", flush=True)
            return losses
        state.optimizer.step()
        keep = min(AVERAGE, (state.step + 1) / (state.step + 10))
        with torch.no_grad():
            now = state.net.state_dict()
            torch._foreach_lerp_(list(state.average.values()), [now[k] for k in state.average], 1 - keep)
        return losses | {"speech": float(loss.detach()), "mel": float(mel.detach()), "norm": float(norm)}

    def _choose(self, draw: np.random.Generator) -> Utterance:
        return self.utterances[draw.choice(len(self.utterances), p=self.chance)]

    def _style(self, utterance: Utterance) -> tuple[Tensor, Tensor]:
        """Decoder's and predictor's half, [1, style_dim] each."""
        style = self.state.net["voices"].style[utterance.voice : utterance.voice + 1]  # type: ignore[index]
        return style.chunk(2, dim=1)

    def _predict(self, utterance: Utterance) -> tuple[Tensor, Tensor, Tensor]:
        """Duration logits [tokens, max_dur], F0 and energy [1, 2 * frames], with true durations."""
        ids, durations = torch.from_numpy(utterance.ids)[None], torch.from_numpy(utterance.durations)[None]
        self.logits.clear()
        text = self.model.bert_encoder(self.model.bert(ids))
        _, _, _, f0, n = self.model.predictor(text, self._style(utterance)[1], torch.ones(1), durations)
        return self.logits[0][0], f0, n

    def _text(self, utterance: Utterance) -> dict[str, Tensor]:
        logits, f0, n = self._predict(utterance)
        return {
            "duration": duration_loss(logits, torch.from_numpy(utterance.durations)),
            "f0": F.smooth_l1_loss(f0[0] / 10, torch.from_numpy(utterance.f0) / 10),
            "n": F.smooth_l1_loss(n[0], torch.from_numpy(utterance.n)),
        }

    def _speech(self, phase: Phase, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        wholes = [self._whole(self._choose(draw), draw.random() < phase.predicted) for _ in range(phase.segments)]
        frames = min(phase.frames, *(asr.shape[2] for asr, *_ in wholes), phase.frames)
        cut = []
        for asr, f0, n, style, audio in wholes:
            first = int(draw.integers(0, asr.shape[2] - frames + 1))
            curve = slice(2 * first, 2 * (first + frames))
            wave = audio[:, first * FRAME : (first + frames) * FRAME]
            cut.append((asr[:, :, first : first + frames], f0[:, curve], n[:, curve], style, wave))
        asr, f0, n, style, exact = (torch.cat(parts) for parts in zip(*cut, strict=True))
        made = self._decode(asr, f0, n, style, self.low_precision)
        return self.spectral(made, exact)

    def _whole(self, utterance: Utterance, predicted: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the decoder is given for a whole utterance, and the audio, each with a batch of one."""
        owner = token_of_frame(torch.from_numpy(utterance.durations)[None])
        asr = self.model.text_encoder(torch.from_numpy(utterance.ids)[None])[:, :, owner]
        if predicted:
            with torch.no_grad():
                _, f0, n = self._predict(utterance)
        else:
            f0, n = torch.from_numpy(utterance.f0)[None], torch.from_numpy(utterance.n)[None]
        return asr, f0, n, self._style(utterance)[0], torch.from_numpy(utterance.audio)[None]

    def _decode(self, asr: Tensor, f0: Tensor, n: Tensor, style: Tensor, low_precision: bool) -> Tensor:
        with torch.no_grad():
            har = torch.cat([self.model.decoder.source(curve[None], noise()) for curve in f0])
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            return self.model.decoder(asr, f0, n, style, har).float()

    @torch.no_grad()
    def check(self) -> str:
        """Of averaged weights on a few whole unseen utterances: log-mel L1 with true F0 and energy and with predicted
        ones, and errors of what is predicted."""
        now = {k: v.clone() for k, v in self.state.net.state_dict().items()}
        self.state.net.load_state_dict(self.state.average)
        figures: dict[str, list[float]] = {"mel": [], "mel of predicted": [], "frames": [], "f0": [], "voicing": []}
        for utterance in self.unseen[:: len(self.unseen) // CHECKED]:
            for predicted in (False, True):
                asr, f0, n, style, exact = self._whole(utterance, predicted)
                made = self._decode(asr, f0, n, style, False)
                _, mel = self.spectral(made, exact)
                figures["mel of predicted" if predicted else "mel"].append(float(mel))
            logits, f0, _ = self._predict(utterance)
            exact_f0 = torch.from_numpy(utterance.f0)
            both = (f0[0] > 10) & (exact_f0 > 10)
            lasting = torch.sigmoid(logits).sum(dim=1)
            figures["frames"].append(float((lasting - torch.from_numpy(utterance.durations)).abs().mean()))
            figures["f0"].append(float((f0[0] - exact_f0)[both].abs().mean()))
            figures["voicing"].append(float(((f0[0] > 10) != (exact_f0 > 10)).float().mean()))
        self.state.net.load_state_dict(now)
        return ", ".join(f"{name} {np.mean(values):.4f}" for name, values in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=16_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--exact", action="store_true", help="no bfloat16")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.folder.mkdir(parents=True, exist_ok=True)
    Trainer(given.data, given.folder, given.steps, not given.exact).run()


if __name__ == "__main__":
    main()
