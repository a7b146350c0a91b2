"""Kokoro's CoreML stages: chained they are the reference, whatever the padding; and packages are their modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kokoro_files import tiny_config
from kokoro_graph import loaded as tiny

from jtts_export.errors import BadInput
from jtts_export.exporters.coreml.convert import SUFFIX, About, assemble, convert
from jtts_export.exporters.coreml.kokoro import EXPORT, stages
from jtts_export.exporters.coreml.kokoro_masked import FAR
from jtts_export.exporters.coreml.kokoro_modules import Source, angle
from jtts_export.exporters.coreml.kokoro_runner import (
    DECODER,
    DURATION,
    FLEXIBLE,
    FRAMES,
    PROSODY,
    SOURCE,
    STAGES,
    TAIL,
    KokoroChain,
    token_buckets,
)
from jtts_export.exporters.coreml.modules import ModuleNetwork
from jtts_export.exporters.coreml.stage import MAIN, Network, Stage, Target
from jtts_export.exporters.model import Loaded
from jtts_export.models.kokoro.config import KokoroConfig
from jtts_export.models.kokoro.decoder import _angle
from jtts_export.models.kokoro.random import official_config, random_model, random_voices
from jtts_export.models.kokoro.reference import Reference
from jtts_export.runtime.draws import NOISE_SCALE, source_noise
from jtts_export.validate.audio import snr_db
from jtts_export.validate.coreml import Interpreted
from jtts_export.validate.coreml_weights import known

Arrays = dict[str, np.ndarray]

TOKENS = {"tokens_8": 8, "tokens_20": 20}
BUCKETS = {"frames_12": 12, "frames_40": 40}
FIRST, LAST = BUCKETS
COMPOSED_DB = 90.0  # fp32 sums in another order: 104 and more
EXACT_DB, FP16_DB = 45.0, 40.0  # fp16 weights alone; every value rounded as well
KEPT_DB = 90.0  # what stays in fp32
WRONG_DB = 40.0  # what a wrong length leaves
TARGETS: tuple[Target, ...] = ("iOS17", "iOS18")
UTTERANCES = {  # durations of tokens
    "two tokens, a frame each": [1, 1],
    "half of a bucket": [2, 1, 3],
    "all but one frame": [3, 1, 4, 3],
    "a whole bucket": [4, 4, 4],
    "a frame more": [1, 5, 5, 2],
    "a whole bucket of tokens": [2, 1, 5, 7, 1, 3, 1, 2],
    "the last bucket, whole": [2] * 20,
}


class Recorded:
    """A network that keeps what it was given and made; or takes another length to be true."""

    def __init__(self, network: Network, longer: int = 0) -> None:
        self.calls: list[tuple[str, Arrays, Arrays]] = []
        self._network, self._longer = network, longer

    def run(self, inputs: Mapping[str, np.ndarray], function: str = MAIN, state: Any = None) -> Arrays:
        fed = {**inputs, "length": inputs["length"] + self._longer}
        made = self._network.run(fed, function)
        self.calls.append((function, dict(inputs), made))
        return made

    def new_state(self, function: str = MAIN) -> Arrays:
        return {}


def modules(loaded: Loaded, target: Target, frames: Mapping[str, int] = BUCKETS) -> dict[str, Network]:
    return {stage.name: ModuleNetwork(stage) for stage in stages(loaded, target, TOKENS, frames)}


def chained(networks: Mapping[str, Network], loaded: Loaded, frames: Mapping[str, int] = BUCKETS) -> KokoroChain:
    return KokoroChain(networks, loaded.config, TOKENS, frames)


def inputs_of(loaded: Loaded, tokens: int) -> Arrays:
    ids = np.zeros((1, tokens), np.int64)
    ids[0, 1:-1] = np.random.default_rng(0).integers(1, loaded.config["n_token"], tokens - 2)
    return {
        "input_ids": ids,
        "style": next(iter(loaded.voices.values()))[tokens],
        "speed": np.array([1.1], np.float32),
    }


def as_complex(har: np.ndarray) -> np.ndarray:
    """Of magnitude and phase: pi and -pi are one angle."""
    magnitude, phase = np.split(har.astype(np.float64), 2, axis=1)
    return np.concatenate([magnitude * np.cos(phase), magnitude * np.sin(phase)], axis=1)


def by_stage(runner: Any, loaded: Loaded, durations: list[int], expected: Arrays | None = None) -> dict[str, Arrays]:
    """Taps of each stage, given the reference's of those before."""
    inputs, timing = inputs_of(loaded, len(durations)), {"duration": np.array([durations])}
    expected = expected or Reference(loaded.module, 1).taps(inputs, ("f0", "n", "har"), timing)
    curves = timing | {name: expected[name] for name in ("f0", "n")}
    har = runner.taps(inputs, ("har",), curves)["har"]
    return {
        DURATION: runner.taps(inputs, ("frames",), timing),
        PROSODY: runner.taps(inputs, ("f0", "n"), timing),
        SOURCE: {"har": as_complex(har)},
        DECODER: runner.taps(inputs, ("waveform",), curves | {"har": expected["har"]}),
    }


def reference_taps(loaded: Loaded, durations: list[int]) -> tuple[Arrays, dict[str, Arrays]]:
    reference = Reference(loaded.module, 1)
    inputs, timing = inputs_of(loaded, len(durations)), {"duration": np.array([durations])}
    taps = reference.taps(inputs, ("f0", "n", "har"), timing)
    return taps, by_stage(reference, loaded, durations, taps)


@pytest.mark.parametrize("durations", UTTERANCES.values(), ids=UTTERANCES)
@pytest.mark.parametrize("target", TARGETS)
def test_modules_chained_are_the_reference(target: Target, durations: list[int]) -> None:
    loaded = tiny()
    taps, expected = reference_taps(loaded, durations)
    made = by_stage(chained(modules(loaded, target), loaded), loaded, durations, taps)
    for stage, arrays in expected.items():
        for name, array in arrays.items():
            assert made[stage][name].shape == array.shape
            assert snr_db(made[stage][name], array) > COMPOSED_DB, (stage, name)


@pytest.mark.parametrize("size", [11, 12, 13, 23, 60])
def test_padding_of_any_size_changes_nothing(size: int) -> None:
    loaded, durations = tiny(), [3, 1, 4, 3]
    taps, expected = reference_taps(loaded, durations)
    runner = chained(modules(loaded, "iOS18", {"frames": size}), loaded, {"frames": size})
    for stage, arrays in by_stage(runner, loaded, durations, taps).items():
        for name, array in arrays.items():
            assert snr_db(array, expected[stage][name]) > COMPOSED_DB, (stage, name)


@pytest.mark.parametrize("longer", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_padding_that_counts_is_heard(stage: str, longer: int) -> None:
    """What the tests above would find where a stage takes some of its padding for speech."""
    loaded, durations = tiny(), [3, 1, 2]
    taps, expected = reference_taps(loaded, durations)
    networks = modules(loaded, "iOS18")
    wrong = chained(networks | {stage: Recorded(networks[stage], longer)}, loaded)
    judged = DECODER if stage == TAIL else stage
    made = by_stage(wrong, loaded, durations, taps)[judged]
    least = min(snr_db(made[name], array) for name, array in expected[judged].items())
    # A wrong end changes half of a window in the source's spectrum, and in the audio half of a quiet one.
    assert least < {SOURCE: 60.0, TAIL: COMPOSED_DB - 10}.get(stage, WRONG_DB)


def test_free_running_the_chain_speaks_as_the_reference() -> None:
    loaded = tiny()
    inputs = inputs_of(loaded, 6)
    wanted = ("frames", "duration", "waveform")
    frames = {"frames_200": 200}
    made = chained(modules(loaded, "iOS18", frames), loaded, frames).taps(inputs, wanted)
    expected = Reference(loaded.module, 1).taps(inputs, wanted)
    assert made["duration"].dtype == expected["duration"].dtype
    assert np.array_equal(made["duration"], expected["duration"])
    assert made["waveform"].shape == expected["waveform"].shape
    assert np.std(made["waveform"]) == pytest.approx(np.std(expected["waveform"]), rel=0.01)


def test_what_no_bucket_holds_is_refused() -> None:
    loaded = tiny()
    chain = chained(modules(loaded, "iOS18"), loaded)
    with pytest.raises(BadInput, match=r"21 tokens .* 20"):
        chain.taps(inputs_of(loaded, 21), ("frames",))
    with pytest.raises(BadInput, match=r"41 frames .* 40"):
        chain.taps(inputs_of(loaded, 2), ("f0",), {"duration": np.array([[40, 1]])})


def test_a_checkpoint_of_few_positions_has_few_buckets() -> None:
    assert token_buckets({"plbert": {"max_position_embeddings": 512}}) == EXPORT.lengths[DURATION]
    assert token_buckets({"plbert": {"max_position_embeddings": 100}}) == {"tokens_128": 100}
    assert token_buckets({"plbert": {"max_position_embeddings": 256}}) == {"tokens_128": 128, "tokens_256": 256}


def test_half_a_minute_of_phase_is_held_in_fp32() -> None:
    model = tiny().module
    source = Source(model)
    values = 2 * max(FRAMES.values())
    assert 300 * values > 10 * source.noise.shape[1], "the table of noise is read more than once"
    rng = np.random.default_rng(0)
    f0 = torch.from_numpy(200 + 100 * np.sin(np.arange(values) / 50) + 20 * rng.standard_normal(values)).float()
    f0[300:400] = 0  # unvoiced
    f0[1000:1400] = 217.3  # where rounding errors would add up in one direction
    noise = torch.from_numpy(source_noise()).float() * NOISE_SCALE
    with torch.no_grad():
        expected = model.decoder.generator.m_source(f0[None], noise)
        made = source._excitation(f0[None])
    assert snr_db(made.numpy(), expected.numpy()) > 110  # 138: values of order 1, rounded to fp32


def test_angles_are_right_at_every_zero() -> None:
    values = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0, 3.5, -0.25])
    y, x = (grid.reshape(-1) for grid in torch.meshgrid(values, values, indexing="ij"))
    expected = torch.atan2(y + 0.0, x + 0.0)  # as if no zero had a sign, which is rounding's
    torch.testing.assert_close(angle(y, x), expected, rtol=0, atol=3e-7)
    plain = x != 0
    assert torch.equal(angle(y, x)[plain], _angle(y, x)[plain])


def test_what_attention_must_not_see_is_finite_in_fp16() -> None:
    assert np.isfinite(np.float16(FAR))
    assert np.exp(np.float32(FAR)) == 0


def slim() -> Loaded:
    """Fewer blocks, which take as long to convert as large ones."""
    raw = tiny_config()
    raw["istftnet"] |= {"resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}
    cfg = KokoroConfig.model_validate(raw)
    return Loaded(raw, random_model(0, cfg), {name: voice.numpy() for name, voice in random_voices(0, cfg).items()})


class Packages:
    """A small checkpoint's stages for a target, and their packages."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.loaded, self.folder = slim(), folder
        self.stages = {stage.name: stage for stage in stages(self.loaded, target, TOKENS, BUCKETS)}
        self.converted = dict(self.stages)
        if DECODER in self.stages:  # takes longest
            stage = self.stages[DECODER]
            self.converted[DECODER] = replace(stage, functions={LAST: stage.functions[LAST]})
        about = About("Kokoro", "nobody", "none", "0")
        for stage in self.converted.values():
            assemble(stage, convert(stage, target, folder / "parts"), folder, about)

    def network(self, stage: str, mode: str) -> Interpreted:
        return Interpreted(self.folder / f"{stage}{SUFFIX}", mode)

    def calls(self, durations: list[int]) -> list[tuple[Stage, str, Arrays, Arrays]]:
        """What the modules of converted functions are given and make, chained: stage, function, inputs, outputs."""
        networks = {name: Recorded(ModuleNetwork(stage)) for name, stage in self.stages.items()}
        timing = {"duration": np.array([durations])}
        chained(networks, self.loaded).taps(inputs_of(self.loaded, len(durations)), ("waveform",), timing)
        called = [(self.stages[name], *call) for name, network in networks.items() for call in network.calls]
        return [(stage, *call) for stage, *call in called if call[0] in self.converted[stage.name].functions]


@pytest.fixture(scope="module", params=TARGETS)
def packages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return Packages(request.param, tmp_path_factory.mktemp(request.param))


def modes_of(stage: Stage) -> dict[str, float]:
    """Of the interpreter, with the least SNR."""
    return {"exact": KEPT_DB} if stage.precision == "fp32" else {"exact": EXACT_DB, "fp16": FP16_DB}


def ahead_of_the_end(name: str, array: np.ndarray, length: int) -> np.ndarray:
    per_frame = {"f0": 2, "n": 2, "waveform": 600, "har": 120, "spectrum": 120}.get(name, 1)
    more, axis = (1 if per_frame == 120 else 0), (1 if name in ("frames", "features", "f0", "n", "waveform") else 2)
    return array.take(range(per_frame * length + more), axis)


@pytest.mark.parametrize("durations", [[2, 1, 4, 1], [4, 4, 4], [3, 5, 4, 2, 1, 4, 3, 2, 7], [2] * 20])
def test_packages_are_their_modules(packages: Packages, durations: list[int]) -> None:
    called = packages.calls(durations)
    expected = {*STAGES} if sum(durations) > BUCKETS[FIRST] or MAIN in called[0] else {*STAGES} - {DECODER}
    assert {stage.name.removesuffix(FLEXIBLE) for stage, *_ in called} == expected
    for stage, function, inputs, outputs in called:
        for mode, least in modes_of(stage).items():
            made = packages.network(stage.name, mode).run(inputs, function)
            for name, array in outputs.items():
                exact, found = (ahead_of_the_end(name, a, inputs["length"][0]) for a in (array, made[name]))
                assert snr_db(found, exact) > least, (stage.name, mode, name)


def test_a_package_that_takes_padding_for_speech_is_found(packages: Packages) -> None:
    durations = [5, 1, 6, 3]
    for stage, function, inputs, outputs in packages.calls(durations):
        if stage.name in (SOURCE, TAIL) or stage.name.endswith(FLEXIBLE):
            continue  # these differ in their last few values only; and those have no padding
        wrong = Recorded(packages.network(stage.name, "exact"), longer=3)
        made = wrong.run(inputs, function)
        length = inputs["length"][0]
        worst = min(
            snr_db(ahead_of_the_end(name, made[name], length), ahead_of_the_end(name, array, length))
            for name, array in outputs.items()
        )
        assert worst < WRONG_DB, stage.name


@pytest.mark.parametrize("mode", ["exact", "fp16"])
def test_packages_chained_speak_as_the_reference(packages: Packages, mode: str) -> None:
    durations = [3, 5, 4, 2, 1, 4, 3, 2, 7]
    taps, expected = reference_taps(packages.loaded, durations)
    networks = {name: packages.network(name, mode) for name in packages.stages}
    made = by_stage(chained(networks, packages.loaded), packages.loaded, durations, taps)
    least = {DURATION: FP16_DB, PROSODY: FP16_DB, SOURCE: KEPT_DB, DECODER: FP16_DB}
    for stage, arrays in expected.items():
        for name, array in arrays.items():
            assert snr_db(made[stage][name], array) > least[stage], (stage, name)


def test_functions_share_their_weights(packages: Packages) -> None:
    """And nothing that a converter makes of constants is stored for each length."""
    for name, stage in packages.converted.items():
        parts = [path for path in (packages.folder / "parts").glob(f"{name}.*") if path.suffix == SUFFIX]
        assert len(parts) == len(stage.functions)
        largest = max(weights(part) for part in parts)
        assert weights(packages.folder / f"{name}{SUFFIX}") < 1.05 * largest + 4096


def test_every_constant_is_known(packages: Packages) -> None:
    """Each is a parameter or a buffer of its module, and so can be compared whole."""
    for name, stage in packages.converted.items():
        found = known(stage, packages.folder / f"{name}{SUFFIX}")
        assert not found.unknown, name
        assert found.total or name.startswith(TAIL)


def weights(package: Path) -> int:
    return sum(path.stat().st_size for path in package.rglob("weight.bin"))


def test_the_description_fits_the_official_checkpoint() -> None:
    raw = official_config()
    cfg = KokoroConfig.model_validate(raw)
    features, text = cfg.hidden_dim + cfg.style_dim, cfg.hidden_dim
    for said in (
        f"[1, 512, {features}]",
        f"[1, {text}, 512]",
        f"`style` [1, {2 * cfg.style_dim}]",
        "[1, 22, 120 F + 1]",
    ):
        assert said in EXPORT.chain
    assert cfg.plbert.max_position_embeddings == max(EXPORT.lengths[DURATION].values())
    assert 2 * cfg.samples_per_f0 == 600
