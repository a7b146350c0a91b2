"""T3's graphs against the PyTorch module, on networks small enough to try many."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import defs
from safetensors.numpy import load_file
from t3_files import VOICE, add_variant, request, tiny_config, write_release
from tokenizers import Tokenizer
from torch import Tensor

from jtts_export.errors import CheckpointError
from jtts_export.exporters import t3_language_model
from jtts_export.exporters.model import Loaded
from jtts_export.exporters.onnx import EXTERNAL_BYTES, PAGE
from jtts_export.exporters.sentences import CALLS
from jtts_export.exporters.t3 import CALL_TOKENS, MODEL, PARITY, RECIPES, weight_bytes
from jtts_export.exporters.t3_language_model import balance, language_model
from jtts_export.exporters.t3_networks import embed_tokens
from jtts_export.models.t3.config import MULTILINGUAL_VOCAB, T3Config
from jtts_export.models.t3.model import T3, Cache
from jtts_export.models.t3.random import character_tokenizer, random_model
from jtts_export.quantize.apply import quantize
from jtts_export.quantize.schemes import BlockMatMul, Recipe, Rule, label
from jtts_export.quantize.weights import find_weights
from jtts_export.runtime.names import data_file, graph_file
from jtts_export.runtime.session import session, session_from_model
from jtts_export.runtime.t3 import CONDITIONING, CONFIG, EMBED, GRAPHS, LANGUAGE_MODEL, read_assets
from jtts_export.runtime.t3_taps import TAPS, T3Runner
from jtts_export.runtime.t3_text import SPACE
from jtts_export.validate.audio import snr_db
from jtts_export.validate.logits import compare

Export = Callable[..., "Exported"]
STEPS = 60
ATOL = 1e-4  # of logits, whose deviation is about 2
# A third layer, other widths than head size 64 gives, alignment heads in one layer alone, or several in it.
WIDE = {"hidden_size": 192, "heads": 3, "layers": 3, "ffn_size": 320, "alignment_heads": ((1, 0), (1, 2), (2, 1))}
BARE = {"alignment_heads": ()}
NETWORKS = {"opset 17": (17, {}), "opset 20": (20, {}), "three layers": (17, WIDE), "not aligned": (17, BARE)}
every_network = pytest.mark.parametrize("network", NETWORKS)


class Exported:
    """A checkpoint, what was loaded of it, and its fp32 graphs in a release."""

    def __init__(self, folder: Path, opset: int, config: dict[str, Any]) -> None:
        self.folder, self.opset = folder, opset
        self.loaded: Loaded = write_release(folder, opset=opset, config=config)
        self.model: T3 = self.loaded.module.model
        self.config: T3Config = self.model.config
        self.files = {name: folder / f"{name}.onnx" for name in GRAPHS}
        self.conditioning, self.embed, self.speaks = (session(self.files[name], 1) for name in GRAPHS)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    made: dict[str, Exported] = {}

    def get(network: str = "opset 17") -> Exported:
        if network not in made:
            made[network] = Exported(tmp_path_factory.mktemp("t3"), *NETWORKS[network])
        return made[network]

    return get


# --- files --------------------------------------------------------------------------------------------------


@every_network
def test_every_graph_is_valid(export: Export, network: str) -> None:
    exported = export(network)
    for file in exported.files.values():
        onnx.checker.check_model(str(file), full_check=True)
        model = onnx.load(file)
        opsets = {o.domain: o.version for o in model.opset_import}
        assert opsets[""] == exported.opset
        assert set(opsets) <= {"", "com.microsoft"}
        for node in model.graph.node:
            if node.domain == "":
                assert defs.get_schema(node.op_type, exported.opset, "").since_version <= exported.opset
        assert model.ir_version <= 10  # what onnxruntime 1.21 reads
        assert not [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.DOUBLE]
        names = Counter(node.name for node in model.graph.node)
        assert names.most_common(1)[0][1] == 1
        assert "" not in names


def test_the_config_is_in_a_graph(export: Export) -> None:
    for network in NETWORKS:
        exported = export(network)
        metadata = exported.embed.get_modelmeta().custom_metadata_map
        assert T3Config(**json.loads(metadata[CONFIG])).inverse_frequencies == exported.config.inverse_frequencies
        assert json.loads(metadata[CONFIG]) == json.loads(json.dumps(vars_of(exported.config)))


def test_weights_of_the_language_model_lie_beside_it_on_pages(export: Export) -> None:
    file = export().files[LANGUAGE_MODEL]
    graph = onnx.load(file, load_external_data=False).graph
    beside = [tensor for tensor in graph.initializer if tensor.external_data]
    assert {t.name for t in beside} >= {f"tfmr.layers.1.{n}.weight" for n in ("self_attn.qkv_proj", "mlp.down_proj")}
    for tensor in graph.initializer:
        size = 4 * int(np.prod(tensor.dims))
        assert bool(tensor.external_data) == (size >= EXTERNAL_BYTES), tensor.name
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in beside]
    assert {place["location"] for place in places} == {"language_model.onnx_data"}
    assert all(int(place["offset"]) % PAGE == 0 for place in places)
    assert sum(int(place["length"]) for place in places) <= data_file(file).stat().st_size
    assert file.stat().st_size < 2 * EXTERNAL_BYTES
    assert not [f for name, f in export().files.items() if name != LANGUAGE_MODEL and data_file(f).exists()]


def test_a_release_can_be_moved(export: Export, tmp_path: Path) -> None:
    first = Exported(tmp_path / "first", 17, {})
    del first.speaks, first.conditioning, first.embed
    (tmp_path / "first").rename(tmp_path / "second")
    moved = session(tmp_path / "second/onnx/language_model.onnx", 1)
    feed = Growing(moved, 1)
    embeds = sequence(export(), 1, 4)[0]
    np.testing.assert_array_equal(feed(embeds)[0], Growing(export().speaks, 1)(embeds)[0])


def test_an_export_repeats_itself(export: Export, tmp_path: Path) -> None:
    """And leaves the checkpoint as it was: what is measured against afterwards, in the same process."""
    before = {name: value.clone() for name, value in export().model.state_dict().items()}
    MODEL.export(export().loaded, tmp_path, 17)
    for name, value in export().model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, file in export().files.items():
        again = tmp_path / f"{name}.onnx"
        assert again.read_bytes() == file.read_bytes(), name
        if name == LANGUAGE_MODEL:
            assert data_file(again).read_bytes() == data_file(file).read_bytes()


def test_text_tokens_that_could_be_taken_for_speech_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="6562 overlaps the start of speech, 6561"):
        write_release(tmp_path, config={"text_vocab": 6562})


def test_as_many_text_tokens_as_there_is_room_for_can_be_told_from_speech() -> None:
    config = tiny_config(text_vocab=6561)
    model = random_model(0, config)
    embed = session_from_model(embed_tokens(model, 17), 1)
    made = embedded(embed, [[6560, 6560]], [[3, 3]])
    expected = model.text_emb.weight[6560] + model.text_pos_emb.emb.weight[3]
    np.testing.assert_array_equal(made[0, 0], expected.numpy())


# --- recipes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["int8", "int8-fast", "int4"])
def test_recipes_meet_every_weight_of_the_language_model(export: Export, variant: str) -> None:
    schemes = quantize(ir.load(export().files[LANGUAGE_MODEL]), RECIPES[variant], {})
    parts = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    products = {f"tfmr.layers.{n}.{part}.weight" for n in range(2) for part in parts} | {"speech_head.weight"}
    assert {name: schemes.pop(name) for name in ("rotary.cos", "rotary.sin")} == dict.fromkeys(
        ("rotary.cos", "rotary.sin"), "float32"
    )
    assert set(schemes) == products
    assert all(scheme.startswith("block-matmul") for scheme in schemes.values()), schemes
    assert all(scheme.endswith("-int4") == (variant == "int4") for scheme in schemes.values()), schemes


@pytest.mark.parametrize("variant", ["int8", "int8-fast", "int4"])
def test_the_tables_and_the_conditioning_are_held_in_fp16(export: Export, variant: str) -> None:
    for name in (CONDITIONING, EMBED):
        schemes = quantize(ir.load(export().files[name]), RECIPES[variant], {})
        assert len(schemes) > 3
        assert set(schemes.values()) == {"stored-fp16"}, schemes


def test_weights_of_the_conditioning_have_the_names_of_its_parameters(export: Export) -> None:
    """By these recipes tell them from the language model's."""
    parameters = export().model.state_dict()
    for name in (CONDITIONING, EMBED):
        weights = find_weights(ir.load(export().files[name]))
        assert set(weights) <= set(parameters), name


def test_fp16_is_of_every_weight_but_the_rotary_tables(export: Export) -> None:
    schemes: dict[str, str] = {}
    for file in export().files.values():
        schemes |= quantize(ir.load(file), RECIPES["fp16"], {})
    assert {name for name, scheme in schemes.items() if scheme != "stored-fp16"} == {"rotary.cos", "rotary.sin"}
    assert {schemes["rotary.cos"], schemes["rotary.sin"]} == {"float32"}


@pytest.mark.parametrize("variant", ["int8", "int8-fast", "int4", "fp16"])
def test_variants_speak_as_the_reference_does_nearly(export: Export, variant: str) -> None:
    exported, most = export(), {"fp16": 1e-5, "int8": 5e-3, "int8-fast": 1e-2, "int4": 0.5}
    add_variant(exported.folder, variant)
    made = Growing(session(exported.folder / graph_file(LANGUAGE_MODEL, variant), 1), 1)
    logits, expected = spoken(made, exported)[0], spoken(Growing(exported.speaks, 1), exported)[0]
    metrics = compare(logits[:, 0], expected[:, 0], "logits")
    assert 0 < metrics["logits_kl"] < most[variant]


def test_weight_bytes_are_those_of_all_products(export: Export) -> None:
    exported = export()
    weights = find_weights(ir.load(exported.files[LANGUAGE_MODEL]))
    counts = {name: w.array.size for name, w in weights.items() if not name.startswith("rotary")}
    assert weight_bytes(exported.files[LANGUAGE_MODEL]) == 4 * sum(counts.values())
    for variant in ("int8", "int8-fast", "int4"):
        add_variant(exported.folder, variant)
        held = {name: RECIPES[variant].scheme_of(name) for name in counts}
        expected = sum(n * (held[name].bits / 8 + 4 / held[name].block) for name, n in counts.items())
        assert weight_bytes(exported.folder / graph_file(LANGUAGE_MODEL, variant)) == expected


def test_weight_bytes_of_fp16_are_not_none(export: Export) -> None:
    """Held in two bytes, read as the four that onnxruntime unfolds them to."""
    exported = export()
    add_variant(exported.folder, "fp16")
    held = weight_bytes(exported.folder / graph_file(LANGUAGE_MODEL, "fp16"))
    assert held >= weight_bytes(exported.files[LANGUAGE_MODEL]) / 2


# --- conditioning -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [0, 1, 5, 150, 1024])
@every_network
def test_a_voice_is_conditioned_as_by_the_module(export: Export, network: str, tokens: int) -> None:
    exported = export(network)
    random = np.random.default_rng(tokens)
    speaker = random.standard_normal((1, exported.config.speaker_size), np.float32)
    prompt = random.integers(0, exported.config.speech_vocab, (1, tokens))
    with torch.no_grad():
        expected = exported.model.condition(torch.from_numpy(speaker), torch.from_numpy(prompt)).numpy()
        embeds = exported.model.embed_speech(torch.from_numpy(prompt), torch.arange(tokens)).numpy()
    feed = {"speaker_emb": speaker, "cond_prompt_speech_emb": embeds}
    (made,) = exported.conditioning.run(["cond_emb"], feed)
    rows = 1 + (exported.config.queries if tokens else 0)
    assert made.shape == expected.shape == (1, rows, exported.config.hidden_size)
    assert snr_db(made, expected) >= 110


# --- embeddings ---------------------------------------------------------------------------------------------


@every_network
@pytest.mark.parametrize("exaggeration", [0.0, 0.5, 1.7])
@pytest.mark.parametrize("text", [1, 2, 70])
def test_a_whole_prompt_is_embedded_as_by_the_module(
    export: Export, network: str, exaggeration: float, text: int
) -> None:
    exported = export(network)
    config, model = exported.config, exported.model
    tokens = np.random.default_rng(text).integers(0, config.text_vocab, (1, text))
    ids, positions = prompt(config, tokens)
    made = embedded(exported.embed, ids, positions, exaggeration)
    with torch.no_grad():
        emotion, cond = model.emotion(torch.tensor([exaggeration])), torch.zeros(1, 0, config.hidden_size)
        expected = model.prompt_embeds(cond, emotion, torch.from_numpy(tokens), False)
    np.testing.assert_array_equal(made, expected.numpy())


def test_a_token_alone_is_of_speech(export: Export) -> None:
    exported = export()
    tokens = [0, 255, 703, 704, 4000, 6560, 6561, 6562, 6564, 8193]
    for position, token in enumerate(tokens):
        made = embedded(exported.embed, [[token]], [[100 * position]])
        expected = exported.model.embed_speech(torch.tensor([[token]]), torch.tensor([100 * position]))
        np.testing.assert_array_equal(made, expected.numpy())


def test_the_emotions_token_is_the_emotion_wherever_it_is_in_a_prompt(export: Export) -> None:
    exported = export()
    way = exported.model.cond_enc.emotion_adv_fc.weight[:, 0].numpy()
    for ids in ([6563, 5], [6563, -1], [5, 6563, 6561]):
        made = embedded(exported.embed, [ids], [[7] * len(ids)], 0.25)
        np.testing.assert_array_equal(made[0, ids.index(6563)], np.float32(0.25) * way)


def test_a_position_without_a_token_is_that_of_text(export: Export) -> None:
    exported = export()
    positions = torch.arange(100)
    made = embedded(exported.embed, np.full((1, 100), -1), positions.numpy()[None])
    np.testing.assert_array_equal(made[0], exported.model.text_pos_emb(positions).numpy())
    among = embedded(exported.embed, [[9, -1, 6561]], [[3, 4, 0]])
    np.testing.assert_array_equal(among[0, 1], exported.model.text_pos_emb.emb.weight[4].numpy())


def test_rows_of_a_batch_are_embedded_each_on_its_own(export: Export) -> None:
    exported = export()
    first, places = prompt(exported.config, np.array([[5, 6, 7]]))
    second = np.array([[6561, -1, 6563, 8000, 0, 703]])
    ids, positions = np.concatenate([first, second]), np.concatenate([places, places[:, ::-1].clip(0)])
    made = embedded(exported.embed, ids, positions, 0.8)
    for row in range(2):
        alone = embedded(exported.embed, ids[row : row + 1], positions[row : row + 1], 0.8)
        np.testing.assert_array_equal(made[row], alone[0])
    single = embedded(exported.embed, [[17], [6561]], [[4], [9]])
    expected = exported.model.speech_emb.weight[[17, 6561]] + exported.model.speech_pos_emb.emb.weight[[4, 9]]
    np.testing.assert_array_equal(single[:, 0], expected.numpy())


# --- the language model -------------------------------------------------------------------------------------


class Growing:
    """Past given as arrays, present taken for the next call: what the community's scripts do."""

    def __init__(self, speaks: ort.InferenceSession, rows: int) -> None:
        self.session, self.rows = speaks, rows
        taken = {i.name: i.shape for i in speaks.get_inputs() if i.name.startswith("past_key_values")}
        self.past = {n: np.zeros((rows, s[1], 0, s[3]), np.float32) for n, s in taken.items()}
        self.begun = 0

    def __call__(self, embeds: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        self.begun += embeds.shape[1]
        mask = np.ones((self.rows, self.begun), np.int64)
        feed = {"inputs_embeds": embeds.numpy(), "attention_mask": mask, **self.past}
        logits, *present = self.session.run(None, feed)
        self.past = dict(zip(self.past, present, strict=False))  # the alignment comes last
        return logits[:, -1], present[-1] if len(present) > len(self.past) else None


class Shared:
    """Keys and values in buffers, the same memory bound as past and present."""

    def __init__(self, speaks: ort.InferenceSession, rows: int, capacity: int = 512) -> None:
        self.session, self.rows = speaks, rows
        taken = {i.name: i.shape for i in speaks.get_inputs() if i.name.startswith("past_key_values")}
        # What lies behind the last position must not matter.
        empty = {n: np.full((rows, s[1], capacity, s[3]), np.nan, np.float32) for n, s in taken.items()}
        self.buffers = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in empty.items()}
        self.begun = 0

    def __call__(self, embeds: Tensor) -> tuple[np.ndarray, np.ndarray | None]:
        self.begun += embeds.shape[1]
        binding = self.session.io_binding()
        binding.bind_cpu_input("inputs_embeds", embeds.contiguous().numpy())
        binding.bind_cpu_input("attention_mask", np.ones((self.rows, self.begun), np.int64))
        for name, value in self.buffers.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        others = [o.name for o in self.session.get_outputs() if not o.name.startswith("present")]
        for name in others:
            binding.bind_output(name)
        self.session.run_with_iobinding(binding)
        made = dict(zip(others, binding.copy_outputs_to_cpu()[len(self.buffers) :], strict=True))
        return made["logits"][:, -1], made.get("alignment")


@every_network
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("held", [Growing, Shared])
def test_a_prompt_and_steps_give_the_modules_logits_and_attention(
    export: Export, network: str, rows: int, held: type
) -> None:
    exported = export(network)
    logits, attention = spoken(held(exported.speaks, rows), exported, rows)
    expected_logits, expected_attention = expected_of(exported, rows)
    assert logits.shape == (STEPS + 1, rows, exported.config.speech_vocab)
    assert np.abs(logits - expected_logits).max() < ATOL
    assert expected_logits.std() > 1
    assert len(attention) == len(expected_attention) == (0 if network == "not aligned" else STEPS + 1)
    for made, expected in zip(attention, expected_attention, strict=True):
        assert made.shape == expected.shape
        assert np.abs(made - expected).max() < 1e-5


def test_the_alignment_is_the_first_rows(export: Export) -> None:
    """The other row, which is guided away from, attends elsewhere."""
    one, two = (spoken(Growing(export().speaks, rows), export(), rows)[1] for rows in (1, 2))
    for alone, first in zip(one, two, strict=True):
        np.testing.assert_allclose(alone, first, atol=1e-6)
    embeds = sequence(export(), 2, 0)[0]
    swapped = Growing(export().speaks, 2)(embeds.flip(0))[1]
    assert np.abs(swapped - one[0]).max() > 0.01


@pytest.mark.parametrize("chunks", [[1] * 10, [3, 1, 6], [9, 1]])
@pytest.mark.parametrize("held", [Growing, Shared])
def test_a_prompt_can_be_fed_in_parts(export: Export, held: type, chunks: list[int]) -> None:
    embeds = sequence(export(), 1, 0)[0][:, :10]
    feed = held(export().speaks, 1)
    expected, (*_, made) = Growing(export().speaks, 1)(embeds), (feed(part) for part in embeds.split(chunks, 1))
    assert np.abs(made[0] - expected[0]).max() < ATOL
    assert np.abs(made[1][-1] - expected[1][-1]).max() < 1e-5


def test_graphs_without_alignment_heads_have_no_alignment(export: Export) -> None:
    bare, aligned = export("not aligned"), export()
    assert [o.name for o in aligned.speaks.get_outputs()][-1] == "alignment"
    outputs = [o.name for o in bare.speaks.get_outputs()]
    assert outputs == [o.name for o in aligned.speaks.get_outputs()][:-1]
    attends = [n for n in ir.load(bare.files[LANGUAGE_MODEL]).graph if n.op_type == "GroupQueryAttention"]
    assert [(len(n.outputs), n.attributes.get_int("qk_output", 0)) for n in attends] == [(3, 0)] * 2


def test_inputs_and_outputs_are_in_the_order_of_the_communitys_graph(export: Export) -> None:
    parts = [f"{n}.{part}" for n in range(2) for part in ("key", "value")]
    speaks = export().speaks
    past = [f"past_key_values.{p}" for p in parts]
    assert [i.name for i in speaks.get_inputs()] == ["inputs_embeds", "attention_mask", *past]
    assert [o.name for o in speaks.get_outputs()] == ["logits", *(f"present.{p}" for p in parts), "alignment"]


def test_the_last_position_can_be_reached() -> None:
    """With as much text and speech as there are positions for, and buffers that have room for more."""
    model = random_model(0, tiny_config(max_text_tokens=20, max_speech_tokens=30))
    count = model.config.positions
    assert count < 512
    embeds = torch.from_numpy(np.random.default_rng(0).standard_normal((1, count, 128), np.float32))
    with torch.no_grad():
        expected = model.speech_head(model(embeds)[:, -1]).numpy()
    for held in (Growing, Shared):
        feed = held(session_from_model(language_model(model, 17), 1), 1)
        feed(embeds[:, :-1])
        assert np.abs(feed(embeds[:, -1:])[0] - expected).max() < ATOL


# --- free scales --------------------------------------------------------------------------------------------

CHANNELS = 17


@pytest.fixture(scope="module")
def plain() -> T3:
    return random_model(0, tiny_config(**WIDE))


def test_balancing_changes_no_bit(plain: T3, monkeypatch: pytest.MonkeyPatch) -> None:
    balanced = logits_of(language_model(plain, 17))
    monkeypatch.setattr(t3_language_model, "balance", lambda left, right: torch.ones_like(left))
    loose = language_model(plain, 17)
    as_it_was = logits_of(loose)
    np.testing.assert_array_equal(balanced, as_it_was)
    np.testing.assert_array_equal(loose.graph.initializers["first_norm.weight"].const_value.numpy(),
                                  plain.tfmr.layers[0].input_layernorm.weight.numpy())  # fmt: skip


def test_channels_scaled_by_powers_of_two_change_no_bit(plain: T3) -> None:
    random = np.random.default_rng(0)
    scaled = planted(plain, lambda size: torch.from_numpy(np.exp2(random.integers(-6, 7, size)).astype(np.float32)))
    changed = [k for k, v in scaled.state_dict().items() if not torch.equal(v, plain.state_dict()[k])]
    assert len(changed) == 3 * 9 + 2  # of each layer all products and norms, and what comes behind
    np.testing.assert_array_equal(logits_of(language_model(scaled, 17)), logits_of(language_model(plain, 17)))


def test_outlying_channels_cost_integers_nothing(plain: T3, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)

    def sixtyfold(size: int) -> Tensor:
        factors = torch.ones(size)
        factors[random.choice(size, CHANNELS, replace=False)] = 60
        return factors

    outlying = planted(plain, sixtyfold)
    without, with_them = int8_loss(plain), int8_loss(outlying)
    assert 0 < with_them < 1.3 * without
    monkeypatch.setattr(t3_language_model, "balance", lambda left, right: torch.ones_like(left))
    assert int8_loss(outlying) > 5 * without  # or else there was nothing to be gained


def test_a_channel_of_zeros_is_balanced_too(plain: T3) -> None:
    """Its factor has no meaning, but must not become one that makes infinities of others."""
    state = {k: v.clone() for k, v in plain.state_dict().items()}
    for layer in range(3):
        name = f"tfmr.layers.{layer}"
        state[f"{name}.mlp.down_proj.weight"][:, 3] = 0
        state[f"{name}.mlp.up_proj.weight"][5] = 0
        state[f"{name}.self_attn.v_proj.weight"][7] = 0
        state[f"{name}.input_layernorm.weight"][9] = 0
        state[f"{name}.self_attn.o_proj.weight"][:, 11] = 0
    pruned = T3(plain.config).eval().requires_grad_(False)
    pruned.load_state_dict(state)
    embeds = stream_of(pruned, STEPS)
    with torch.no_grad():
        expected = pruned.speech_head(pruned(embeds)[0]).numpy()
    made = logits_of(language_model(pruned, 17), embeds)
    assert np.abs(made - expected[-len(made) :]).max() < ATOL


@pytest.mark.parametrize(
    ("left", "right", "factor"),
    [(1, 1, 1), (1, 16, 4), (16, 1, 1 / 4), (1, 3600, 64), (1, 0, 2.0**-24), (0, 1, 2.0**24), (0, 0, 1)],
)
def test_balance_is_the_power_of_two_that_makes_both_reach_as_far(left: float, right: float, factor: float) -> None:
    made = balance(torch.tensor([left, 1.0]), torch.tensor([right, 1.0]))
    assert made.tolist() == [pytest.approx(factor), 1]


def test_balanced_sides_are_within_a_factor_of_two() -> None:
    random = np.random.default_rng(0)
    left, right = (torch.from_numpy(np.exp(4 * random.standard_normal(2000)).astype(np.float32)) for _ in range(2))
    factors = balance(left, right)
    ratio = (left * factors) / (right / factors)
    assert float(ratio.max()) <= 2.001
    assert float(ratio.min()) >= 1 / 2.001
    assert torch.equal(factors.log2(), factors.log2().round())


# --- taps ---------------------------------------------------------------------------------------------------


@every_network
@pytest.mark.parametrize("cfg_weight", [0, 0.5])
def test_taps_equal_the_references(export: Export, network: str, cfg_weight: float) -> None:
    exported = export(network)
    text = np.array([[255, *range(10, 40), 0]])
    inputs = request(text, exported.loaded.voices["default"], max_tokens=40, cfg_weight=cfg_weight, seed=3)
    reference, runner = MODEL.reference(exported.loaded, 1, 0, False), T3Runner(exported.files, 1)
    expected = reference.taps(inputs, list(TAPS))
    made = runner.taps(inputs, list(TAPS))
    for name in ("tokens", "greedy"):
        np.testing.assert_array_equal(made[name], expected[name])
    assert made["tokens"].tolist() != made["greedy"].tolist()
    taps = ("cond_emb", "logits", *(() if network == "not aligned" else ("alignment",)))
    for name in taps:
        assert made[name].shape == expected[name].shape
        assert snr_db(made[name], expected[name]) >= 100, name
    assert made["alignment"].shape == expected["alignment"].shape


def test_tokens_can_be_forced(export: Export) -> None:
    exported = export()
    text, tokens = np.array([[255, *range(10, 40), 0]]), np.array([5, 4000, 5, 6000, 17])
    inputs = request(text, exported.loaded.voices[VOICE], max_tokens=40)
    reference, runner = MODEL.reference(exported.loaded, 1, 0, False), T3Runner(exported.files, 1)
    for forced in (tokens, tokens[:1], tokens[::-1].copy()):
        made = runner.taps(inputs, ["tokens", "logits", "alignment"], {"tokens": forced})
        expected = reference.taps(inputs, ["logits", "alignment"], {"tokens": forced})
        assert made["tokens"] is forced
        assert made["logits"].shape == (len(forced), exported.config.speech_vocab)
        assert made["alignment"].shape == (len(forced), text.shape[1])
        assert min(snr_db(made[name], expected[name]) for name in expected) >= 100


def test_the_token_that_means_emotion_in_a_prompt_is_speech_in_speech(export: Export) -> None:
    """A checkpoint has logits for it too: it may be drawn, and may be in a voice's prompt."""
    exported, voice = export(), export().loaded.voices[VOICE]
    inputs = request(np.array([[255, *range(10, 40), 0]]), voice)
    reference, runner = MODEL.reference(exported.loaded, 1, 0, False), T3Runner(exported.files, 1)
    tokens = {"tokens": np.array([5, 6563, 7, 8])}
    made, expected = (r.taps(inputs, ["logits"], tokens)["logits"] for r in (runner, reference))
    assert snr_db(made, expected) >= 100
    prompted = {**inputs, "cond_prompt_speech_tokens": np.array([[5, 6563, 7]])}
    made, expected = (r.taps(prompted, ["cond_emb"])["cond_emb"] for r in (runner, reference))
    assert snr_db(made, expected) >= 100


def test_the_reference_in_double_is_the_same_but_for_rounding(export: Export) -> None:
    inputs = request(np.array([[255, *range(10, 40), 0]]), export().loaded.voices["default"])
    tokens = {"tokens": np.arange(20)}
    single, double = (
        MODEL.reference(export().loaded, 1, 0, d).taps(inputs, ["logits"], tokens)["logits"] for d in (False, True)
    )
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert 100 <= snr_db(single, double) < 200


def test_parity_asks_for_taps_that_there_are() -> None:
    assert set(PARITY.taps) == set(TAPS)


# --- utterances ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [704, MULTILINGUAL_VOCAB])
def test_cases_can_be_spoken_and_share_no_text(tmp_path: Path, vocabulary: int) -> None:
    loaded = write_release(tmp_path, multilingual=vocabulary == MULTILINGUAL_VOCAB)
    config, seen = loaded.module.config, Counter()
    for purpose in ("calibration", "search", "validation", "timed", "brief", "sequence"):
        made = MODEL.cases(loaded.config, loaded.voices, purpose)
        again = MODEL.cases(loaded.config, loaded.voices, purpose)
        for case, same in zip(made, again, strict=True):
            tokens = case.inputs["text_tokens"]
            assert tokens.dtype == np.int64
            assert (tokens[0, 0], tokens[0, -1]) == (config.start_text, config.stop_text)
            assert 8 < tokens.shape[1] <= config.text_positions
            assert tokens.min() >= 0
            assert tokens.max() < config.text_vocab
            assert case.inputs["min_tokens"] == case.inputs["max_tokens"]
            np.testing.assert_array_equal(tokens, same.inputs["text_tokens"])
        if purpose in ("calibration", "search", "validation"):
            seen.update(case.inputs["text_tokens"].tobytes() for case in made)
    assert set(seen.values()) == {1}


def test_cases_take_turns_with_voices_and_last_as_long_as_they_say(export: Export) -> None:
    def counts(purpose: str) -> list[int]:
        made = MODEL.cases(export().loaded.config, export().loaded.voices, purpose)
        speakers = [case.inputs["cond_prompt_speech_tokens"].shape[1] for case in made]
        turns = [150] if purpose == "sequence" else [150, 0]  # another voice's first call is a first call
        assert speakers == [length for length, _ in zip(itertools.cycle(turns), made, strict=False)]
        return [int(case.inputs["max_tokens"]) for case in made]

    assert counts("timed") == [10, 20, 35]
    assert counts("brief") == [25]
    assert counts("validation") == [10, 20, 20, 20, 20, 30]
    sequence = counts("sequence")
    assert len(sequence) == CALLS
    assert {min(sequence), max(sequence)} == set(CALL_TOKENS)
    assert len(set(sequence)) > (CALL_TOKENS[1] - CALL_TOKENS[0]) / 2


def test_a_sequence_begins_with_its_longest(export: Export) -> None:
    made = MODEL.cases(export().loaded.config, export().loaded.voices, "sequence")
    texts = [case.inputs["text_tokens"].shape[1] for case in made]
    speech = [int(case.inputs["max_tokens"]) for case in made]
    assert texts[0] == max(texts)
    assert speech[0] == max(speech)


def test_a_vocabulary_of_other_letters_is_given_tokens_at_random(tmp_path: Path) -> None:
    loaded = write_release(tmp_path)
    content = character_tokenizer(loaded.module.config)
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {k: v for k, v in vocabulary.items() if len(k) > 1} | {"\u0436": 9}
    for case in MODEL.cases({**loaded.config, "tokenizer": content}, loaded.voices, "search"):
        tokens = case.inputs["text_tokens"][0, 1:-1]
        assert len(set(tokens.tolist())) > 20


# --- what clients read --------------------------------------------------------------------------------------


def test_the_tokenizer_makes_whole_prompts_and_bare_ones(export: Export) -> None:
    made = Tokenizer.from_file(str(export().folder / "tokenizer.json"))
    before = Tokenizer.from_str(json.dumps(export().loaded.config["tokenizer"]))
    text = "Why not, Joe?"
    ids = before.encode(text.replace(" ", SPACE), add_special_tokens=False).ids
    assert made.encode(text, add_special_tokens=False).ids == ids
    assert made.encode(text).ids == [6563, 255, *ids, 0, 6561, 6561]
    assert made.encode(text.replace(" ", SPACE), add_special_tokens=False).ids == ids


def test_assets_are_what_was_written(export: Export) -> None:
    config, voices = read_assets(export().folder)
    assert config["model"] == json.loads(json.dumps(vars_of(export().config)))
    assert list(voices) == ["default", VOICE]
    for name, voice in voices.items():
        for field, value in vars(voice).items():
            np.testing.assert_array_equal(value, getattr(export().loaded.voices[name], field))
            assert value.dtype == getattr(export().loaded.voices[name], field).dtype
    held = load_file(export().folder / f"voices/{VOICE}.safetensors")
    assert held["cond_prompt_speech_tokens"].shape == (1, 0)


# --- helpers ------------------------------------------------------------------------------------------------


def vars_of(config: T3Config) -> dict[str, Any]:
    """The fields alone, without what was computed of them."""
    return {name: getattr(config, name) for name in T3Config.__dataclass_fields__}


def prompt(config: T3Config, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ids and positions of a whole prompt, as the community's scripts make them."""
    emotion, starts = np.array([[config.exaggeration_token]]), np.full((1, 2), config.start_speech)
    ids = np.concatenate([emotion, tokens, starts], 1)
    return ids, np.where(ids >= config.start_speech, 0, np.arange(ids.shape[1])[None] - 1)


def embedded(embed: ort.InferenceSession, ids: Any, positions: Any, exaggeration: float = 0.5) -> np.ndarray:
    feed = {"input_ids": np.asarray(ids, np.int64), "position_ids": np.asarray(positions, np.int64)}
    return embed.run(["inputs_embeds"], {**feed, "exaggeration": np.array([exaggeration], np.float32)})[0]


@torch.no_grad()
def sequence(exported: Exported, rows: int, steps: int) -> list[Tensor]:
    """A prompt under guidance, or its first row, and steps of some speech, [rows, n, hidden] each."""
    model, random = exported.model, np.random.default_rng(7)
    voice = exported.loaded.voices["default"]
    cond = model.condition(*(torch.from_numpy(v) for v in (voice.speaker_emb, voice.cond_prompt_speech_tokens)))
    text = torch.from_numpy(random.integers(0, exported.config.text_vocab, (1, 30)))
    begun = model.prompt_embeds(cond, model.emotion(torch.from_numpy(voice.exaggeration)), text, True)[:rows]
    tokens = torch.from_numpy(random.integers(0, 6561, (steps, 1, 1)))
    fed = [model.embed_speech(t, torch.tensor([i])).expand(rows, -1, -1) for i, t in enumerate(tokens, 1)]
    return [begun, *fed]


def spoken(
    feed: Callable[[Tensor], tuple[np.ndarray, np.ndarray | None]], exported: Exported, rows: int = 1
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits [1 + STEPS, rows, vocabulary], and the attention of each call."""
    made = [feed(embeds) for embeds in sequence(exported, rows, STEPS)]
    return np.stack([logits for logits, _ in made]), [a for _, a in made if a is not None]


@torch.no_grad()
def expected_of(exported: Exported, rows: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """What the module makes of the same."""
    model, cache = exported.model, Cache()
    attention: list[Tensor] | None = [] if exported.config.alignment_heads else None
    made = [model.speech_head(model(e, cache, attention)[:, -1]) for e in sequence(exported, rows, STEPS)]
    return torch.stack(made).numpy(), [a.numpy() for a in attention or []]


def planted(model: T3, factors: Callable[[int], Tensor]) -> T3:
    """The same function with the scales of its channels changed, wherever they are free."""
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def norm(name: str, products: Sequence[str]) -> None:
        by = factors(model.config.hidden_size)
        state[f"{name}.weight"] *= by
        for product in products:
            state[f"{product}.weight"] /= by

    for number in range(model.config.layers):
        layer = f"tfmr.layers.{number}"
        norm(f"{layer}.input_layernorm", [f"{layer}.self_attn.{p}_proj" for p in "qkv"])
        norm(f"{layer}.post_attention_layernorm", [f"{layer}.mlp.{p}_proj" for p in ("gate", "up")])
        for first, second, size in (
            ("self_attn.v_proj", "self_attn.o_proj", model.config.hidden_size),
            ("mlp.up_proj", "mlp.down_proj", model.config.ffn_size),
        ):
            by = factors(size)
            state[f"{layer}.{first}.weight"] *= by[:, None]
            state[f"{layer}.{second}.weight"] /= by
    norm("tfmr.norm", ["speech_head"])
    made = T3(model.config).eval().requires_grad_(False)
    made.load_state_dict(state)
    return made


@torch.no_grad()
def stream_of(model: T3, count: int) -> Tensor:
    """Embeddings of some speech."""
    tokens = torch.from_numpy(np.random.default_rng(5).integers(0, 6561, (1, count)))
    return model.embed_speech(tokens, torch.arange(count))


def logits_of(graph: ir.Model, embeds: Tensor | None = None) -> np.ndarray:
    """Behind a few positions, and behind every one after them, [steps, vocabulary]."""
    model = random_model(0, tiny_config(**WIDE))
    embeds = stream_of(model, STEPS) if embeds is None else embeds
    feed = Growing(session_from_model(graph, 1), 1)
    return np.concatenate([feed(part)[0] for part in embeds.split([8] + [1] * (STEPS - 8), 1)])


def int8_loss(model: T3) -> float:
    """How far integers are from the same graph in floats, as a divergence."""
    exact, integers = (language_model(model, 17) for _ in range(2))
    schemes = quantize(integers, Recipe(rules=(Rule(pattern="*", scheme=BlockMatMul(block=32)),)), {})
    assert schemes["speech_head.weight"] == label(BlockMatMul(block=32))
    return compare(logits_of(integers), logits_of(exact), "logits")["logits_kl"]
