"""SpeechT5's graphs against transformers, on networks small enough to try many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import defs
from speecht5_files import SPEAKERS, spm_model, tiny_config, tiny_networks, tiny_vocoder_config, write_checkpoint
from torch import nn

from jtts_export.exporters import speecht5_networks
from jtts_export.exporters.model import Loaded
from jtts_export.exporters.onnx import save
from jtts_export.exporters.speecht5 import MODEL
from jtts_export.exporters.speecht5_networks import PixelShuffle, Vocoder, skewed
from jtts_export.models import MODELS
from jtts_export.models.source import locate
from jtts_export.models.speecht5.reference import Reference, mask_of
from jtts_export.runtime.session import session
from jtts_export.runtime.speecht5 import DECODER, ENCODER, GRAPHS
from jtts_export.runtime.speecht5_decoder import Decoder
from jtts_export.runtime.speecht5_taps import CLIENT_DECODER, TAPS, ClientDecoder, SpeechT5Runner
from jtts_export.runtime.taps import OnnxRunner
from jtts_export.validate.audio import snr_db

INFO = MODELS["speecht5"]
COMPARED = ("encoder_states", "encoder_outputs", "spectrogram", "client_spectrogram", "mel", "waveform")
Networks = list[tuple[nn.Module, nn.Module]]
LENGTHS = (2, 20, 60)
CYRILLIC = ("Съешь же ещё этих мягких французских булок, да выпей чаю.", "В чащах юга жил бы цитрус?")
# reduction factor, opset, seed of the weights
EXPORTS = [(1, 17, 0), (2, 17, 3), (3, 17, 1), (2, 20, 1)]


class Exported:
    """A tiny checkpoint, what was loaded of it, and its fp32 graphs."""

    def __init__(self, folder: Path, seed: int = 3, opset: int = 17, **options) -> None:
        options["config"] = {"max_speech_positions": 600, **options.get("config", {})}
        write_checkpoint(folder / "checkpoint", seed, ends=True, **options)
        self.loaded: Loaded = MODEL.load(locate(str(folder / "checkpoint"), INFO.files, INFO.companions))
        self.opset, graphs = opset, folder / "graphs"
        MODEL.export(self.loaded, graphs, opset)
        made = {name: ir.load(graphs / f"{name}.onnx") for name in GRAPHS}
        for name, graph in MODEL.derive(made).items():
            save(graph, graphs / f"{name}.onnx")
        self.files = {name: graphs / f"{name}.onnx" for name in (*GRAPHS, CLIENT_DECODER)}
        self.runner = SpeechT5Runner(self.files, threads=1)
        self.reduction = self.loaded.module.model.config.reduction_factor

    def inputs(self, tokens: int, speaker: str = SPEAKERS[0]) -> dict[str, np.ndarray]:
        ids = np.random.default_rng(tokens).integers(4, self.loaded.module.model.config.vocab_size, (1, tokens))
        return {"input_ids": ids, "speaker_embeddings": self.loaded.voices[speaker][None]}


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    made: dict[tuple, Exported] = {}

    def get(reduction: int = 2, opset: int = 17, seed: int = 3) -> Exported:
        key = (reduction, opset, seed)
        if key not in made:
            folder = tmp_path_factory.mktemp("speecht5")
            made[key] = Exported(folder, seed, opset, reduction_factor=reduction)
        return made[key]

    return get


# --- graphs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", EXPORTS)
def test_every_graph_is_valid(export: Callable[..., Exported], variant: tuple[int, int, int]) -> None:
    exported = export(*variant)
    for file in exported.files.values():
        onnx.checker.check_model(str(file), full_check=True)
        model = onnx.load(file)
        opsets = {o.domain: o.version for o in model.opset_import}
        assert opsets[""] == exported.opset
        for node in model.graph.node:
            if node.domain == "":
                assert defs.get_schema(node.op_type, exported.opset, "").since_version <= exported.opset
        assert model.ir_version <= 10  # what onnxruntime 1.21 reads
        assert not [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.DOUBLE]


@pytest.mark.parametrize("speaker", SPEAKERS)
@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("mask_seed", [0, 1])
@pytest.mark.parametrize("variant", EXPORTS)
def test_fp32_equals_transformers(
    export: Callable[..., Exported], variant: tuple[int, int, int], mask_seed: int, tokens: int, speaker: str
) -> None:
    exported = export(*variant)
    inputs = exported.inputs(tokens, speaker)
    assert_equal(exported, inputs, mask_seed)


def assert_equal(exported: Exported, inputs: dict[str, np.ndarray], mask_seed: int = 0, db: float = 100) -> None:
    """Graphs against the reference, the reference on a mask of its own, the graphs on theirs where it is seed 0's."""
    reference = Reference(exported.loaded.module, 1, mask_seed)
    if mask_seed:
        inputs = inputs | {"prenet_mask": mask_of(exported.loaded.module, mask_seed)}
    expected = reference.taps(inputs, list(TAPS))
    steps = exported.runner.taps(inputs, ["steps"])["steps"]
    np.testing.assert_array_equal(steps, expected["steps"])
    # The client's graph has no loop of its own to end.
    taps = [tap for tap in COMPARED if tap != "client_spectrogram"]
    made = exported.runner.taps(inputs, taps)
    made |= exported.runner.taps(inputs, ["client_spectrogram"], {"steps": steps})
    figures = {tap: snr_db(made[tap], expected[tap]) for tap in COMPARED}
    assert min(figures.values()) >= db, figures
    assert_same_prob(exported.runner.taps(inputs, ["prob"])["prob"], expected["prob"])
    assert len(made["mel"]) == steps[0] * exported.reduction
    assert len(made["waveform"]) == len(made["mel"]) * 256


def assert_same_prob(made: np.ndarray, expected: np.ndarray) -> None:
    """By difference: onnxruntime's Sigmoid is off by some 1e-7, which is much of a probability that is as small."""
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-6)


def test_most_of_these_texts_end_by_their_stop_token(export: Callable[..., Exported]) -> None:
    """What the tests above compare would be the limit otherwise."""
    ended = 0
    for variant, tokens in itertools.product(EXPORTS, LENGTHS):
        exported = export(*variant)
        prob = exported.runner.taps(exported.inputs(tokens), ["prob"])["prob"]
        assert (prob[:-1].sum(1) < 0.5).all()
        ended += prob[-1].sum() >= 0.5
    assert ended >= 8


def test_another_vocabulary_speaks_its_own_tokens(tmp_path: Path) -> None:
    exported = Exported(tmp_path, 1, spm=spm_model(lines=CYRILLIC))
    unknown = 3
    for purpose in ("calibration", "search", "validation", "timed"):
        for case in MODEL.cases(exported.loaded.config, exported.loaded.voices, purpose):
            assert case.inputs["input_ids"].shape[1] > 15
            assert unknown not in case.inputs["input_ids"]
    (case, *_) = MODEL.cases(exported.loaded.config, exported.loaded.voices, "search")
    assert_equal(exported, dict(case.inputs))


@pytest.mark.parametrize(
    ("config", "vocoder_config"),
    [
        ({"speech_decoder_prenet_layers": 3, "speech_decoder_prenet_dropout": 0.3}, {"normalize_before": False}),
        ({"encoder_max_relative_position": 5, "speech_decoder_postnet_layers": 2}, {"leaky_relu_slope": 0.3}),
        ({"decoder_layers": 3, "decoder_attention_heads": 2, "num_mel_bins": 40}, {"model_in_dim": 40}),
        (
            {"speech_decoder_postnet_kernel": 3, "speaker_embedding_dim": 192, "speech_decoder_prenet_layers": 1},
            {
                **{"upsample_rates": [5, 4, 3], "upsample_kernel_sizes": [11, 4, 9], "sampling_rate": 24_000},
                **{"resblock_kernel_sizes": [5], "resblock_dilation_sizes": [[1, 2, 5]]},
            },
        ),
    ],
)
def test_other_sizes_equal_transformers(tmp_path: Path, config: dict, vocoder_config: dict) -> None:
    exported = Exported(tmp_path, 1, config=config, vocoder_config=vocoder_config)
    reference = Reference(exported.loaded.module, 1)
    inputs = exported.inputs(20)
    expected = reference.taps(inputs, list(TAPS))
    np.testing.assert_array_equal(exported.runner.taps(inputs, ["steps"])["steps"], expected["steps"])
    made = exported.runner.taps(inputs, ["mel", "waveform"])
    assert min(snr_db(made[tap], expected[tap]) for tap in made) >= 100
    assert_same_prob(exported.runner.taps(inputs, ["prob"])["prob"], expected["prob"])


def test_one_token_and_the_most_tokens(export: Callable[..., Exported]) -> None:
    exported = export()
    for tokens in (1, 100):
        inputs = exported.inputs(tokens) | {"min_steps": np.int64(10), "max_steps": np.int64(10)}
        expected = Reference(exported.loaded.module, 1).taps(inputs, ["encoder_outputs", "waveform"])
        made = exported.runner.taps(inputs, ["encoder_outputs", "waveform"])
        assert min(snr_db(made[tap], expected[tap]) for tap in made) >= 100


# --- the decoder that transformers.js runs -------------------------------------------------------------------


@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_the_clients_decoder_equals_ours_step_for_step(export: Callable[..., Exported], reduction: int) -> None:
    exported = export(*next(e for e in EXPORTS if e[0] == reduction))
    inputs = exported.inputs(20) | {"min_steps": np.int64(40), "max_steps": np.int64(40)}
    encoder = session(exported.files[ENCODER], 1)
    outputs = [o.name for o in encoder.get_outputs()]
    memory = dict(zip(outputs, encoder.run(outputs, {"input_ids": inputs["input_ids"]}), strict=True))
    ours = Decoder(session(exported.files[DECODER], 1)).steps(memory, inputs)
    theirs = ClientDecoder(session(exported.files[CLIENT_DECODER], 1)).steps(memory, inputs)
    for (spectrum, prob), (client_spectrum, client_prob) in zip(ours, theirs, strict=True):
        assert spectrum.shape == client_spectrum.shape == (reduction, 80)
        assert snr_db(client_spectrum, spectrum) >= 100
        assert_same_prob(client_prob.sum(), prob.sum())  # transformers ends speech by the sum


def test_the_clients_decoder_takes_another_mask(export: Callable[..., Exported]) -> None:
    exported = export()
    forced = {"steps": np.array([30])}
    inputs = exported.inputs(20)
    own, other = (
        exported.runner.taps(given, ["client_spectrogram"], forced)["client_spectrogram"]
        for given in (inputs, inputs | {"prenet_mask": mask_of(exported.loaded.module, 1)})
    )
    assert snr_db(other, own) < 30


# --- the reference -------------------------------------------------------------------------------------------


def from_table(monkeypatch: pytest.MonkeyPatch, mask: np.ndarray) -> None:
    """transformers' draws of dropout, read off a table: each layer of each step draws once, for all steps so far."""
    layers = itertools.cycle(range(mask.shape[1]))
    table = torch.from_numpy(mask).float()

    def bernoulli(like: torch.Tensor, p: float) -> torch.Tensor:
        drawn = table[: len(like), next(layers)]
        assert drawn.shape == like.shape
        return drawn

    monkeypatch.setattr(torch, "bernoulli", bernoulli)


@pytest.mark.parametrize("mask_seed", [0, 1])
@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_the_reference_is_transformers_generate_speech(
    export: Callable[..., Exported], monkeypatch: pytest.MonkeyPatch, reduction: int, mask_seed: int
) -> None:
    found = export(*next(e for e in EXPORTS if e[0] == reduction)).loaded
    inputs = export(*next(e for e in EXPORTS if e[0] == reduction)).inputs(20)
    taps = Reference(found.module, 1, mask_seed).taps(inputs, ["mel", "waveform", "steps"])
    ids, speaker = (torch.from_numpy(inputs[name]) for name in ("input_ids", "speaker_embeddings"))
    from_table(monkeypatch, mask_of(found.module, mask_seed))
    model, vocoder = found.module.model, found.module.vocoder
    mel = model.generate_speech(ids, speaker).numpy()
    assert len(mel) == taps["steps"][0] * reduction
    assert snr_db(taps["mel"], mel) >= 110
    from_table(monkeypatch, mask_of(found.module, mask_seed))
    assert snr_db(taps["waveform"], model.generate_speech(ids, speaker, vocoder=vocoder).numpy()) >= 110


def test_an_export_leaves_the_checkpoint_as_it_was(export: Callable[..., Exported], tmp_path: Path) -> None:
    """What is measured against afterwards, in the same process."""
    found = export().loaded.module
    networks = (found.model, found.vocoder)
    before = [{name: value.clone() for name, value in n.state_dict().items()} for n in networks]
    MODEL.export(export().loaded, tmp_path, 17)
    for network, state in zip(networks, before, strict=True):
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_the_reference_leaves_the_model_as_it_was(export: Callable[..., Exported]) -> None:
    exported = export()
    prenet = exported.loaded.module.model.speecht5.decoder.prenet
    Reference(exported.loaded.module, 1).taps(exported.inputs(5), ["mel"])
    assert "_consistent_dropout" not in vars(prenet)
    hooked = [m for m in exported.loaded.module.model.modules() if m._forward_hooks]
    assert not hooked


def test_masks_keep_as_many_units_as_transformers_does_and_differ_by_seed(export: Callable[..., Exported]) -> None:
    found = export().loaded.module
    prenet = found.model.speecht5.decoder.prenet
    kept = prenet._consistent_dropout(torch.ones(1, 2000, 16), found.model.config.speech_decoder_prenet_dropout)
    share = float((kept != 0).float().mean())
    for seed in (0, 1):
        assert mask_of(found, seed).mean() == pytest.approx(share, abs=0.03)
    assert (mask_of(found, 0) != mask_of(found, 1)).mean() == pytest.approx(2 * share * (1 - share), abs=0.05)
    np.testing.assert_array_equal(mask_of(found, 1), mask_of(found, 1))


def test_another_mask_changes_the_mel(export: Callable[..., Exported]) -> None:
    exported = export()
    inputs = exported.inputs(20) | {"min_steps": np.int64(50), "max_steps": np.int64(50)}
    first, again, other = (
        Reference(exported.loaded.module, 1, seed).taps(inputs, ["mel"])["mel"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert snr_db(other, first) < 30


def test_the_reference_in_double_is_the_same_but_for_rounding(export: Callable[..., Exported]) -> None:
    exported = export()
    inputs = exported.inputs(20)
    single, double = (Reference(exported.loaded.module, 1, 0, d).taps(inputs, ["mel"])["mel"] for d in (False, True))
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert 100 <= snr_db(single, double) < 200


def test_forced_steps_and_spectrogram(export: Callable[..., Exported]) -> None:
    exported = export()
    reference, inputs = Reference(exported.loaded.module, 1), exported.inputs(20)
    for steps in (1, 7, 133):
        forced = {"steps": np.array([steps])}
        expected = reference.taps(inputs, ["spectrogram", "steps", "waveform"], forced)
        assert expected["steps"] == [steps]
        made = exported.runner.taps(inputs, ["spectrogram", "steps", "waveform"], forced)
        assert made["steps"] == [steps]
        assert min(snr_db(made[tap], expected[tap]) for tap in ("spectrogram", "waveform")) >= 100
        forced = {"spectrogram": expected["spectrogram"]}
        assert snr_db(reference.taps(inputs, ["waveform"], forced)["waveform"], expected["waveform"]) >= 120
        assert snr_db(exported.runner.taps(inputs, ["waveform"], forced)["waveform"], expected["waveform"]) >= 100


def test_what_leads_to_a_tap_is_what_parts_names(export: Callable[..., Exported]) -> None:
    exported = export()
    runner, inputs = exported.runner, ["input_ids", "speaker_embeddings"]
    assert set(runner.parts(inputs, "waveform", [])) == set(GRAPHS)
    assert set(runner.parts(inputs, "waveform", ["spectrogram"])) == {GRAPHS[2]}
    assert set(runner.parts(inputs, "spectrogram", ["encoder_outputs", "steps"])) == {DECODER}
    assert set(runner.parts(inputs, "client_spectrogram", [])) == {ENCODER, CLIENT_DECODER}
    part = runner.parts(inputs, "encoder_outputs", [])[ENCODER]
    assert [o.name for o in part.graph.output] == ["encoder_outputs"]


# --- networks ------------------------------------------------------------------------------------------------

UPSAMPLERS = [(rate, kernel) for rate in (1, 2, 3, 4, 5, 8) for kernel in range(rate, 3 * rate + 4)]


@pytest.mark.parametrize(("rate", "kernel"), UPSAMPLERS)
def test_pixel_shuffle_is_a_transposed_convolution(rate: int, kernel: int) -> None:
    """Where kernel - rate is odd, which checkpoints are refused for, HiFi-GAN's padding makes one sample more."""
    torch.manual_seed(kernel)
    up = nn.ConvTranspose1d(3, 4, kernel, rate, padding=(kernel - rate) // 2)
    x = torch.randn(1, 3, 11)
    with torch.no_grad():
        expected = up(x)[0].numpy()
        made = PixelShuffle(up, 1.0)(x[:, :, None])[0, :, 0].numpy()
        halved = PixelShuffle(up, 0.5)(x[:, :, None])[0, :, 0].numpy()
    assert made.shape == (4, 11 * rate)
    assert expected.shape == (4, 11 * rate + (kernel - rate) % 2)
    assert snr_db(made, expected[:, : 11 * rate]) >= 120
    bias = up.bias.detach().numpy()[:, None]
    np.testing.assert_allclose(halved - bias, (made - bias) / 2, atol=1e-6)


@pytest.fixture
def double() -> Iterator[None]:
    """New networks and tensors in float64, where nothing but mistakes is left."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def vocoder_networks() -> list[tuple[nn.Module, nn.Module]]:
    return [
        tuple(
            network.double()
            for network in tiny_networks(
                seed, tiny_config(20), tiny_vocoder_config(upsample_initial_channel=64, **changes)
            )
        )
        for seed, changes in enumerate(
            [
                {},
                {"upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4]},
                {"upsample_rates": [5, 3], "upsample_kernel_sizes": [5, 9], "normalize_before": False},
                {"resblock_kernel_sizes": [11], "resblock_dilation_sizes": [[1, 3, 5]], "leaky_relu_slope": 0.4},
            ]
        )
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_vocoder_is_transformers(double: None, vocoder_networks: Networks, number: int) -> None:
    model, vocoder = vocoder_networks[number]
    spectrogram = torch.randn(30, 80)
    with torch.no_grad():
        mel = model.speech_decoder_postnet.postnet(spectrogram[None])[0]
        expected = vocoder(mel)
        waveform, made = Vocoder(model, vocoder)(spectrogram)
    assert snr_db(made.numpy(), mel.numpy()) >= 250
    assert snr_db(waveform.numpy(), expected.numpy()) >= 250


LEVEL = 4 * 2.0**-speecht5_networks.STRENGTH_BITS  # strongest over weakest, each rounded by half a step at most


@pytest.mark.parametrize("number", range(4))
def test_levelling_changes_weights_and_no_audio(
    double: None, vocoder_networks: Networks, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    model, vocoder = vocoder_networks[number]
    spectrogram = torch.randn(20, 80)
    level = speecht5_networks.Vocoder._level
    assert all(value == pytest.approx(1, abs=LEVEL) for value in strengths(Vocoder(model, vocoder)))
    monkeypatch.setattr(speecht5_networks.Vocoder, "_level", lambda self: None)
    network = Vocoder(model, vocoder)
    with torch.no_grad():
        expected = network(spectrogram)[0].numpy()
        spread = strengths(network)
        level(network)
        made = network(spectrogram)[0].numpy()
    assert snr_db(made, expected) >= 250
    assert min(spread) > 1.05
    assert all(value == pytest.approx(1, abs=LEVEL) for value in strengths(network))


def strengths(network: Vocoder) -> list[float]:
    """Behind each upsampler, the strongest channel over the weakest, by the weights that add to it."""
    ratios = []
    for i in range(len(network.ups)):
        blocks = network.blocks[i * network.branches : (i + 1) * network.branches]
        powers = sum(c.weight.detach().square().sum((1, 2, 3)) for block in blocks for c in block.second)
        ratios.append(float((powers.max() / powers.min()).sqrt()))
    return ratios


def test_levelling_survives_a_silent_channel(double: None, vocoder_networks: Networks) -> None:
    model, vocoder = vocoder_networks[0]
    spectrogram = torch.randn(20, 80)
    with torch.no_grad():
        kept = {name: value.clone() for name, value in vocoder.state_dict().items()}
        for block in vocoder.resblocks:
            for conv in block.convs2:
                conv.weight[0] = 0
        made = Vocoder(model, vocoder)(spectrogram)[0].numpy()
        expected = vocoder(model.speech_decoder_postnet.postnet(spectrogram[None])[0]).numpy()
        vocoder.load_state_dict(kept)
    assert snr_db(made, expected) >= 250


@pytest.mark.parametrize("number", range(4))
def test_context_frames_is_how_far_a_frame_reaches_and_no_further(
    double: None, vocoder_networks: Networks, number: int
) -> None:
    """All weights positive and no tanh in saturation: whatever can reach, does."""
    model, vocoder = vocoder_networks[number]
    network = Vocoder(model, vocoder)
    context, hop = network.context_frames, math.prod(vocoder.config.upsample_rates)
    frames = 2 * context + 21
    middle = frames // 2
    spectrogram = torch.zeros(frames, 80)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0)
        network.gain.fill_(1)
        for conv in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
            conv.weight.fill_(1 / conv.weight[0].numel())
        quiet = network(spectrogram)[0]
        spectrogram[middle] = 1e-3
        changed = (network(spectrogram)[0] != quiet).view(frames, hop).any(1).nonzero()[:, 0].numpy()
    assert len(changed)
    before, behind = middle - changed[0], changed[-1] - middle
    assert max(before, behind) <= context
    assert min(before, behind) >= context - 1


def test_skewed_is_the_score_of_each_key_by_its_offset() -> None:
    for n in (1, 2, 3, 8):
        scores = torch.randn(1, 3, n, 2 * n)
        made = skewed(scores)
        assert made.shape == (1, 3, n, n)
        for head in range(3):
            for i in range(n):
                for j in range(n):
                    assert made[0, head, i, j] == scores[0, head, i, j - i + n]


def test_the_context_is_in_the_graph(export: Callable[..., Exported]) -> None:
    exported = export()
    metadata = {p.key: p.value for p in onnx.load(exported.files[GRAPHS[2]]).metadata_props}
    network = Vocoder(exported.loaded.module.model, exported.loaded.module.vocoder)
    assert metadata == {"context_frames": str(network.context_frames), "sample_rate": "16000"}


def test_taps_are_tensors_of_the_graphs(export: Callable[..., Exported]) -> None:
    """Cut where the tap is: what lies ahead of it is not run."""
    exported = export()
    states = OnnxRunner(ENCODER, exported.files[ENCODER], 1)
    inputs = exported.inputs(20)
    made = states.taps(inputs, ["encoder_states"])["encoder_states"]
    expected = Reference(exported.loaded.module, 1).taps(inputs, ["encoder_states"])["encoder_states"]
    assert snr_db(made, expected) >= 100
