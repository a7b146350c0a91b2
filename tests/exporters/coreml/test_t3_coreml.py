"""T3's CoreML packages: the modules they are made of against the reference, and the packages against the modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from t3_files import VOICE, request, tiny_config, tiny_voices

from jtts_export.errors import BadInput, CheckpointError
from jtts_export.exporters.coreml.convert import About, assemble, convert
from jtts_export.exporters.coreml.modules import ModuleNetwork
from jtts_export.exporters.coreml.stage import MAIN, Network, Stage, State, Target
from jtts_export.exporters.coreml.t3 import CONDITIONING, DECODE, EMBED, EXPORT, LANGUAGE_MODEL, PREFILL, STATELESS
from jtts_export.exporters.coreml.t3 import stages as stages_of
from jtts_export.exporters.coreml.t3_chain import Chain, Sizes
from jtts_export.exporters.coreml.t3_modules import rms_norm
from jtts_export.exporters.model import Loaded
from jtts_export.models.t3.random import random_model
from jtts_export.models.t3.reference import Reference
from jtts_export.validate.audio import snr_db
from jtts_export.validate.coreml import Interpreted

Networks = dict[str, Network]

SIZES = Sizes(context=192, prefill=32, chunk=8, prompt=160, embed=256)
COMMON = 1 + 32 + 1 + 2  # positions of a prompt beside its text's, for a voice with a prompt
TOKENS = 8
TARGETS: tuple[Target, ...] = ("iOS17", "iOS18")
TAPS = ("emotion", "cond_emb", "logits", "alignment")
COMPOSED_DB = 100.0  # fp32 sums in another order: 124 and more
EXACT_DB, FP16_DB = 55.0, 45.0  # fp16 weights alone; every value rounded as well. Those promised are 45 and 40.
WRONG_DB = 20.0  # what a defect leaves
ABOUT = About("T3", "nobody", "none", "0")


class Changed:
    """A network whose inputs, or state, are not what they should be."""

    def __init__(self, network: Network, change: Callable[[dict], dict], of: str) -> None:
        self._network, self._change, self._of = network, change, of

    def run(
        self, inputs: Mapping[str, np.ndarray], function: str = MAIN, state: State | None = None
    ) -> dict[str, np.ndarray]:
        changed = self._change(dict(inputs)) if function == self._of else inputs
        return self._network.run(changed, function, state)

    def new_state(self, function: str = MAIN) -> State:
        return self._network.new_state(function)


def load(**config: Any) -> Loaded:
    cfg = tiny_config(**config)
    module = SimpleNamespace(model=random_model(0, cfg), config=cfg)
    return Loaded({"model": asdict(cfg)}, module, tiny_voices())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load()


@pytest.fixture(scope="module")
def stages(loaded: Loaded) -> dict[Target, dict[str, Stage]]:
    return {target: {s.name: s for s in stages_of(loaded, target, SIZES)} for target in TARGETS}


@pytest.fixture(scope="module")
def modules(stages: dict[Target, dict[str, Stage]]) -> dict[Target, Networks]:
    return {target: {name: ModuleNetwork(stage) for name, stage in made.items()} for target, made in stages.items()}


@pytest.fixture(scope="module")
def parts(
    stages: dict[Target, dict[str, Stage]], tmp_path_factory: pytest.TempPathFactory
) -> dict[Target, dict[str, dict[str, Path]]]:
    """Target -> stage -> function -> package."""
    folder = tmp_path_factory.mktemp("parts")
    return {
        target: {name: convert(stage, target, folder / target) for name, stage in made.items()}
        for target, made in stages.items()
    }


@pytest.fixture(scope="module")
def packages(
    stages: dict[Target, dict[str, Stage]],
    parts: dict[Target, dict[str, dict[str, Path]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[Target, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("packages")
    return {
        target: {name: assemble(stage, parts[target][name], folder / target, ABOUT) for name, stage in made.items()}
        for target, made in stages.items()
    }


def said(loaded: Loaded, text: int = 20, voice: str = "default", **options: float) -> dict[str, np.ndarray]:
    """A request of TOKENS tokens of speech."""
    ids = np.random.default_rng(text).integers(1, loaded.module.config.text_vocab, (1, text))
    count = {"min_tokens": TOKENS, "max_tokens": TOKENS}
    return request(ids, loaded.voices[voice], **{**count, **options})


def agreement(loaded: Loaded, chain: Any, inputs: dict[str, np.ndarray], taps: tuple[str, ...] = TAPS) -> dict:
    """SNR of taps against the reference, along its tokens."""
    expected = Reference(loaded.module.model, 1).taps(inputs, ("tokens", *taps))
    found = chain.taps(inputs, taps, {"tokens": expected["tokens"]})
    return {name: snr_db(expected[name], found[name]) for name in taps}


# The modules, chained


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("cfg_weight", (0.5, 0.0))
@pytest.mark.parametrize("voice", ("default", VOICE))
def test_modules_in_a_chain_are_the_reference(
    loaded: Loaded, modules: dict[Target, Networks], target: Target, cfg_weight: float, voice: str
) -> None:
    inputs = said(loaded, voice=voice, cfg_weight=cfg_weight, exaggeration=np.array([0.8], np.float32))
    chain = Chain(modules[target], loaded.config, SIZES)
    assert min(agreement(loaded, chain, inputs).values()) > COMPOSED_DB
    reference = Reference(loaded.module.model, 1)
    for name in ("tokens", "greedy"):
        spoken = reference.taps(inputs, (name,))[name]
        assert len(spoken) == TOKENS
        np.testing.assert_array_equal(chain.taps(inputs, (name,))[name], spoken)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("beyond", (-1, 0, 1, 2, 33))
def test_a_prompt_may_end_anywhere_in_a_chunk(
    loaded: Loaded, modules: dict[Target, Networks], target: Target, beyond: int
) -> None:
    """Ahead of the analyzer's decisions too, which read both starts of speech, from two chunks at 1."""
    inputs = said(loaded, 2 * SIZES.prefill - COMMON + beyond, analyze=True)
    chain = Chain(modules[target], loaded.config, SIZES)
    assert min(agreement(loaded, chain, inputs).values()) > COMPOSED_DB
    spoken = Reference(loaded.module.model, 1).taps(inputs, ("tokens",))["tokens"]
    np.testing.assert_array_equal(chain.taps(inputs, ("tokens",))["tokens"], spoken)


@pytest.mark.parametrize("target", TARGETS)
def test_both_starts_of_speech_are_seen_where_chunks_part(
    loaded: Loaded, modules: dict[Target, Networks], target: Target
) -> None:
    inputs = said(loaded, 2 * SIZES.prefill - COMMON + 1)
    chain, reference = Chain(modules[target], loaded.config, SIZES), Reference(loaded.module.model, 1)
    seen = chain._begin(inputs, chain._condition(inputs), chain._request(inputs)).first().attention
    attention: list[torch.Tensor] = []
    with torch.no_grad():
        reference.model(reference._prompt(inputs, True), None, attention)
    expected = attention[0][-2:].numpy()
    assert seen.shape == (2, SIZES.context)
    np.testing.assert_allclose(seen[:, : expected.shape[1]], expected, atol=1e-6)
    assert not seen[:, expected.shape[1] :].any() and not seen[0, expected.shape[1] - 1]


def test_embeddings_are_exact(loaded: Loaded, modules: dict[Target, Networks]) -> None:
    expected = Reference(loaded.module.model, 1).taps({}, ("embeddings",))["embeddings"]
    found = Chain(modules["iOS18"], loaded.config, SIZES).taps({}, ("embeddings",))["embeddings"]
    np.testing.assert_array_equal(found, expected)


def test_a_checkpoint_without_alignment_heads_has_no_alignment() -> None:
    loaded = load(alignment_heads=())
    inputs = said(loaded)
    for target in TARGETS:
        made = {s.name: s for s in stages_of(loaded, target, SIZES)}
        chain = Chain({name: ModuleNetwork(stage) for name, stage in made.items()}, loaded.config, SIZES)
        assert "alignment" not in {t.name for s in made.values() for f in s.functions.values() for t in f.outputs}
        assert agreement(loaded, chain, inputs, ("logits",))["logits"] > COMPOSED_DB
        assert chain.taps(inputs, ("alignment",))["alignment"].size == 0


def test_forced_taps_replace_what_is_computed(loaded: Loaded, modules: dict[Target, Networks]) -> None:
    chain, inputs = Chain(modules["iOS18"], loaded.config, SIZES), said(loaded)
    made = chain.taps(inputs, ("cond_emb", "tokens", "logits"))
    forced = {"cond_emb": np.zeros_like(made["cond_emb"]), "tokens": made["tokens"][::-1]}
    again = chain.taps(inputs, ("cond_emb", "tokens", "logits"), forced)
    np.testing.assert_array_equal(again["cond_emb"], forced["cond_emb"])
    np.testing.assert_array_equal(again["tokens"], forced["tokens"])
    assert snr_db(made["logits"], again["logits"]) < WRONG_DB


def test_rows_behind_the_end_are_not_read(loaded: Loaded, stages: dict[Target, dict[str, Stage]]) -> None:
    """Neither of a voice's prompt nor of a chunk; nor what a state holds behind the position."""
    conditioning = ModuleNetwork(stages["iOS18"][CONDITIONING])
    random = np.random.default_rng(0)
    hidden = loaded.module.config.hidden_size
    prompt = random.standard_normal((1, SIZES.prompt, hidden), np.float32)
    feed = {
        "speaker_emb": random.standard_normal((1, 256), np.float32),
        "prompt_length": np.array([100], np.int32),
        "exaggeration": np.array([0.5], np.float32),
    }
    first = conditioning.run({**feed, "prompt": prompt})["cond_emb"]
    prompt[:, 100:] = 1e4
    np.testing.assert_array_equal(conditioning.run({**feed, "prompt": prompt})["cond_emb"], first)
    prompt[:, 99:] = 1e4
    assert not np.allclose(conditioning.run({**feed, "prompt": prompt})["cond_emb"], first)

    model = ModuleNetwork(stages["iOS18"][LANGUAGE_MODEL])
    embeds = random.standard_normal((2, SIZES.prefill, hidden), np.float32)
    chunk = {"position": np.array([40], np.int32), "count": np.array([10], np.int32)}
    clear, used = model.new_state(PREFILL), model.new_state(PREFILL)
    for value in used.values():
        value[:, :, 40:] = random.standard_normal(value[:, :, 40:].shape, np.float32)
    expected = model.run({"embeds": embeds, **chunk}, PREFILL, clear)["logits"]
    embeds[:, 10:] = 100
    np.testing.assert_allclose(model.run({"embeds": embeds, **chunk}, PREFILL, used)["logits"], expected, atol=1e-5)
    for name, value in clear.items():
        np.testing.assert_allclose(used[name][:, :, 40:50], value[:, :, 40:50], atol=1e-5)
        assert np.abs(value[:, :, 40:50]).min(axis=(1, 3)).max() > 0
        assert not value[:, :, 50:].any() and not value[:, :, :40].any()


def test_speech_ends_with_the_context(loaded: Loaded, modules: dict[Target, Networks]) -> None:
    text = SIZES.context - COMMON - 4
    for target in TARGETS:
        chain = Chain(modules[target], loaded.config, SIZES)
        inputs = said(loaded, text, max_tokens=TOKENS, min_tokens=TOKENS)
        tokens = chain.taps(inputs, ("tokens",))["tokens"]
        assert len(tokens) == 5  # four that are fed, and one behind them
        expected = Reference(loaded.module.model, 1).taps(inputs, ("tokens",))["tokens"][:5]
        np.testing.assert_array_equal(tokens, expected)
        with pytest.raises(BadInput, match="8 speech tokens; the context has 5"):
            chain.taps(inputs, ("logits",), {"tokens": np.zeros(TOKENS, np.int64)})
        with pytest.raises(BadInput, match="a prompt of 193 positions; the context has 192"):
            chain.taps(said(loaded, text + 5), ("tokens",))


def test_a_voice_with_too_long_a_prompt_is_refused(loaded: Loaded, modules: dict[Target, Networks]) -> None:
    long = replace(loaded.voices["default"], cond_prompt_speech_tokens=np.ones((1, SIZES.prompt + 1), np.int64))
    with pytest.raises(CheckpointError, match="voice long has a prompt of 161 tokens; a package takes 160"):
        stages_of(replace(loaded, voices={"long": long}), "iOS18", SIZES)
    with pytest.raises(BadInput, match="161 tokens"):
        Chain(modules["iOS18"], loaded.config, SIZES).taps({**said(loaded), **vars(long)}, ("cond_emb",))


def test_a_norm_in_fp16_does_not_overflow() -> None:
    """Squares beyond 65504 do not occur, nor does a row of zeros divide by nothing."""
    random = torch.Generator().manual_seed(0)
    weight = torch.rand(1024, generator=random) + 0.5
    for scale in (0.0, 1e-3, 1.0, 300.0, 15_000.0):
        x = (torch.randn(4, 1024, generator=random) * scale).half()
        found = rms_norm(x, weight.half(), 1e-5)
        expected = torch.nn.functional.rms_norm(x.double(), (1024,), weight.double(), 1e-5)
        assert found.isfinite().all()
        np.testing.assert_allclose(found.double(), expected, atol=0.02)
        exact = rms_norm(x.double(), weight.double(), 1e-5)
        np.testing.assert_allclose(exact, expected, rtol=1e-9)


@pytest.mark.parametrize("of", (PREFILL, DECODE))
def test_a_position_that_is_off_by_one_is_noticed(loaded: Loaded, modules: dict[Target, Networks], of: str) -> None:
    def later(feed: dict) -> dict:
        return {**feed, "position": feed["position"] + 1}

    networks = modules["iOS18"]
    wrong = {**networks, LANGUAGE_MODEL: Changed(networks[LANGUAGE_MODEL], later, of)}
    assert agreement(loaded, Chain(wrong, loaded.config, SIZES), said(loaded))["logits"] < COMPOSED_DB / 2


def test_the_sizes_of_a_release(loaded: Loaded) -> None:
    """32-fold, as the Neural Engine wants a state; and all tokens of every built-in utterance fit."""
    (model,) = (s for s in EXPORT.stages(loaded, "iOS18") if s.name == LANGUAGE_MODEL)
    assert list(model.functions) == [PREFILL, DECODE]
    for function in model.functions.values():
        assert {t.shape for t in function.states} == {(2, 2, 1024, 64)}
        assert [t.dtype for t in function.states] == ["fp16"] * 4
    assert model.functions[PREFILL].inputs[0].shape == (2, 64, 128)
    shared = [dict(f.module.named_parameters()) for f in model.functions.values()]
    assert shared[0].keys() == shared[1].keys()
    assert all(shared[0][name] is shared[1][name] for name in shared[0])


# The packages


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("mode", "least"), (("exact", EXACT_DB), ("fp16", FP16_DB)))
@pytest.mark.parametrize("cfg_weight", (0.5, 0.0))
def test_packages_in_a_chain_are_the_reference(
    loaded: Loaded,
    packages: dict[Target, dict[str, Path]],
    target: Target,
    mode: str,
    least: float,
    cfg_weight: float,
) -> None:
    networks = {name: Interpreted(path, mode) for name, path in packages[target].items()}
    chain = Chain(networks, loaded.config, SIZES)
    found = agreement(loaded, chain, said(loaded, 40, cfg_weight=cfg_weight))
    assert min(found.values()) > least, found


@pytest.mark.parametrize("mode", ("exact", "fp16"))
def test_states_and_inputs_give_the_same(loaded: Loaded, packages: dict[Target, dict[str, Path]], mode: str) -> None:
    inputs, made = said(loaded, 40), []
    forced = {"tokens": np.arange(TOKENS) + 100}
    for target in TARGETS:
        networks = {name: Interpreted(path, mode) for name, path in packages[target].items()}
        made.append(Chain(networks, loaded.config, SIZES).taps(inputs, ("logits",), forced)["logits"])
    assert snr_db(*made) > (COMPOSED_DB if mode == "exact" else FP16_DB)


@pytest.mark.parametrize("name", (CONDITIONING, EMBED))
@pytest.mark.parametrize(("mode", "least"), (("exact", EXACT_DB), ("fp16", EXACT_DB)))
def test_a_package_is_its_module(
    loaded: Loaded,
    modules: dict[Target, Networks],
    packages: dict[Target, dict[str, Path]],
    name: str,
    mode: str,
    least: float,
) -> None:
    networks = {**modules["iOS18"], name: Interpreted(packages["iOS18"][name], mode)}
    chain = Chain(networks, loaded.config, SIZES)
    found = agreement(loaded, chain, said(loaded), ("embeddings", "emotion", "cond_emb"))
    assert min(found.values()) > least, found


def test_a_step_writes_one_position_of_every_state(
    loaded: Loaded, modules: dict[Target, Networks], packages: dict[Target, dict[str, Path]]
) -> None:
    package, module = Interpreted(packages["iOS18"][LANGUAGE_MODEL], "exact"), modules["iOS18"][LANGUAGE_MODEL]
    random = np.random.default_rng(0)
    states = package.new_state(DECODE), module.new_state(DECODE)
    for position in range(5):
        feed = {
            "embeds": random.standard_normal((2, 1, loaded.module.config.hidden_size), np.float32),
            "position": np.array([position], np.int32),
        }
        made = [network.run(feed, DECODE, state) for network, state in zip((package, module), states, strict=True)]
        assert snr_db(made[1]["logits"], made[0]["logits"]) > EXACT_DB
        for name in states[0]:
            ours, theirs = (state[name] for state in states)
            assert snr_db(theirs[:, :, : position + 1], ours[:, :, : position + 1]) > EXACT_DB
            assert np.abs(ours[:, :, position]).max() > 0
            assert not ours[:, :, position + 1 :].any()


@pytest.mark.parametrize("names", (("key_0", "key_1"), ("key_1", "value_1")))
def test_states_that_are_swapped_are_noticed(
    loaded: Loaded, packages: dict[Target, dict[str, Path]], names: tuple[str, str]
) -> None:
    class Swapped(Interpreted):
        def run(self, inputs: Any, function: str = MAIN, state: State | None = None) -> dict[str, np.ndarray]:
            made = super().run(inputs, function, state)
            assert state is not None
            one, other = names
            state[one], state[other] = state[other], state[one]
            return made

    right = {name: Interpreted(path, "exact") for name, path in packages["iOS18"].items()}
    wrong = {**right, LANGUAGE_MODEL: Swapped(packages["iOS18"][LANGUAGE_MODEL], "exact")}
    inputs = said(loaded, 40)
    assert agreement(loaded, Chain(right, loaded.config, SIZES), inputs, ("logits",))["logits"] > EXACT_DB
    assert agreement(loaded, Chain(wrong, loaded.config, SIZES), inputs, ("logits",))["logits"] < EXACT_DB / 2


def test_functions_of_a_package_share_their_weights(
    parts: dict[Target, dict[str, dict[str, Path]]], packages: dict[Target, dict[str, Path]]
) -> None:
    one = {name: weight_bytes(path) for name, path in parts["iOS18"][LANGUAGE_MODEL].items()}
    both = weight_bytes(packages["iOS18"][LANGUAGE_MODEL])
    assert min(one.values()) > 1_000_000
    assert both < 1.02 * max(one.values())


def test_a_stateless_package_has_one_function(packages: dict[Target, dict[str, Path]]) -> None:
    from jtts_export import mil

    package = mil.load(packages["iOS17"][STATELESS])
    assert list(package.functions) == [MAIN]
    assert not package.functions[MAIN].states


def weight_bytes(package: Path) -> int:
    return sum(path.stat().st_size for path in package.rglob("*.bin"))
