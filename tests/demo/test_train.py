"""Training computes what the reference computes, goes on where it was stopped, and its checkpoint loads."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from demo.data import FRAME, Utterance, save
from demo.export import NAMES, write
from demo.losses import SpectralLoss, duration_loss
from demo.network import network, noise, trainable
from demo.norm_snake import norm_snake
from demo.phone_classifier import PhoneClassifier, labels, owner_of_value
from demo.train import Phase, Trainer
from jtts_export.models import MODELS
from jtts_export.models.kokoro import checkpoint
from jtts_export.models.kokoro.adain import snake
from jtts_export.models.kokoro.random import official_config
from jtts_export.models.source import locate

VOCAB = official_config()["vocab"]


def _utterance(tokens: str, voice: int, seed: int) -> Utterance:
    draw = np.random.default_rng(seed)
    durations = draw.integers(1, 4, len(tokens) + 2)
    frames = int(durations.sum())
    audio = 0.1 * draw.standard_normal(frames * FRAME).astype(np.float32)
    f0 = draw.uniform(0, 200, 2 * frames).astype(np.float32)
    ids = np.array([0, *(VOCAB[c] for c in tokens), 0])
    return Utterance(tokens, voice, ids, durations, audio, f0, np.zeros(2 * frames, np.float32))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    made = [_utterance("hˈW ɹ ju", i % 2, i) for i in range(3)]
    save(folder / "data.npz", made)
    save(folder / "held_out.npz", made * 4)
    return folder / "data.npz"


def test_the_network_that_is_trained_computes_what_is_exported() -> None:
    """In batches, channels last, norm and activation in one: float32's rounding apart, the reference's audio."""
    torch.manual_seed(0)
    exact = network(2)["kokoro"]
    made = copy.deepcopy(exact)
    trainable(made)
    asr, n, style = torch.randn(2, 96, 6), torch.randn(2, 12), 0.2 * torch.randn(2, 32)
    f0 = torch.tensor([[120.0], [0.0]]).expand(-1, 12)
    with torch.no_grad():
        har = torch.cat([exact.decoder.source(curve[None], noise()) for curve in f0])
        both = made.decoder(asr, f0, n, style, har)
        for i in range(2):
            one = (slice(i, i + 1),)
            alone = exact.decoder(asr[one], f0[one], n[one], style[one], har[one])
            assert torch.allclose(both[one], alone, atol=2e-5)


@pytest.mark.parametrize("channels", [16, 32, 64])  # 16: by torch alone; the others where there is a C++ compiler
def test_norm_and_snake_in_one_have_the_values_and_gradients_of_both(channels: int) -> None:
    torch.manual_seed(0)
    given = (2 * torch.randn(2, 300, channels) + 0.5, 0.4 * torch.randn(2, 2 * channels))
    x, affine, alpha = (t.requires_grad_() for t in (*given, torch.exp(0.3 * torch.randn(1, channels, 1))))
    gamma, beta = affine.chunk(2, dim=1)
    normed = F.instance_norm(x.transpose(1, 2)) * (1 + gamma[:, :, None]) + beta[:, :, None]
    weight = torch.randn(2, 300, channels)
    for made, exact in zip(
        *(
            (y, *torch.autograd.grad(y, (x, affine, alpha), weight, retain_graph=True))
            for y in (norm_snake(x, affine, alpha), snake(normed, alpha).transpose(1, 2))
        ),
        strict=True,
    ):
        assert (made - exact).abs().max() < 1e-4 * exact.abs().max()
    assert float(torch.tensor(2e-40) / 2) > 0  # the library leaves the process's arithmetic as it was


def test_losses_are_nothing_for_what_is_right_and_something_for_what_is_not() -> None:
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(1, 12_000)
    spectral = SpectralLoss()
    loss, mel = spectral(audio, audio)
    assert float(loss) == pytest.approx(0, abs=1e-5)
    louder, mel = spectral(2 * audio, audio)
    assert float(mel) == pytest.approx(np.log(2), abs=1e-3)
    assert float(louder) > 1
    durations = torch.tensor([1, 4])
    logits = torch.where(torch.arange(50) < durations[:, None], 20.0, -20.0)
    assert float(duration_loss(logits, durations)) == pytest.approx(0, abs=1e-5)
    assert float(duration_loss(-logits, durations)) > 10


def _trained(data: Path, folder: Path, *stops: int) -> Trainer:
    folder.mkdir(exist_ok=True)
    for stop in stops:
        trainer = Trainer(data, folder, 4, low_precision=False)
        while trainer.state.step < stop:
            trainer.advance(Phase(1.0, 2, 4, 0.5))
        trainer.save()
    return trainer


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    _trained(data, folder, 3)
    return folder


def test_a_stopped_run_goes_on_as_if_it_had_not_been(data: Path, run: Path, tmp_path: Path) -> None:
    _trained(data, tmp_path, 1, 3)
    whole, parts = (torch.load(folder / "training.pt", weights_only=True) for folder in (run, tmp_path))
    assert whole["step"] == parts["step"] == 3
    for name, value in whole["net"].items():
        assert torch.equal(value, parts["net"][name]), name
    assert any(not torch.equal(value, whole["net"][name]) for name, value in whole["average"].items())


def test_what_is_exported_loads_as_any_checkpoint(run: Path, tmp_path: Path) -> None:
    write(run, tmp_path)
    _, model, voices = checkpoint.load(locate(str(tmp_path), MODELS["kokoro"].files))
    average = torch.load(run / "training.pt", weights_only=True)["average"]
    for name, value in model.state_dict().items():
        assert torch.allclose(value, average[f"kokoro.{name}"], rtol=1e-3, atol=1e-6), name  # half precision
    for i, name in enumerate(NAMES):
        assert np.array_equal(voices[name][17, 0], average["voices.style"][i].numpy())


def test_a_stress_is_heard_in_the_vowel_behind_it_and_a_space_in_what_is_before() -> None:
    ids = [0, VOCAB["s"], VOCAB[" "], VOCAB["ˈ"], VOCAB["A"], VOCAB["."], 0]
    assert owner_of_value(ids, [1, 1, 1, 1, 2, 1, 1]).tolist() == [
        -1,
        -1,
        1,
        1,
        1,
        1,
        4,
        4,
        4,
        4,
        4,
        4,
        -1,
        -1,
        -1,
        -1,
    ]


def test_the_classifier_hears_a_value_every_300_samples() -> None:
    spoken = _utterance("hˈW ɹ ju", 0, 0)
    classifier = PhoneClassifier(official_config()["n_token"])
    mel = classifier.log_mel(torch.from_numpy(spoken.audio)[None])
    assert mel.shape == (1, 80, len(labels(spoken)))
    right, count = classifier.recognized(spoken.audio, spoken.ids.tolist(), spoken.durations.tolist())
    assert count == 5
    assert 0 <= right <= count
