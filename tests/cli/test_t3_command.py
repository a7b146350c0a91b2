"""`jtts-export t3` and what is done with its release, on tiny checkpoints."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from command import REPORT, Built, assert_refused, call, contents, flip_a_byte, reseal, run, sha256, stages, start
from safetensors.torch import load_file, save_file
from t3_command import IMPOSSIBLE, again, build
from t3_files import VOICE, tiny_config, tiny_voices, tokenizer_json, write_checkpoint, write_json, write_voice
from torch import Tensor

USAGE, GATE, OUTSIDE = 2, 3, 4
SUFFIXES = {"fp32": "", "int8": "_quantized", "int8-fast": "_fast", "int4": "_q4", "fp16": "_fp16"}
FLAGS = ("--int8", "--int8-fast", "--int4", "--fp16")
STAGES = ("export", "spread", "optimize", *(f"quantize-{v}" for v in SUFFIXES if v != "fp32"), "validate", "report")
CLIENT_FILES = {
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
    *("voices/default.safetensors", f"voices/{VOICE}.safetensors"),
}
WEIGHTS, MULTILINGUAL = "t3_cfg.safetensors", "t3_mtl23ls_v2.safetensors"
LAYER = "tfmr.layers.1.mlp.up_proj.weight"
DATA = "onnx/language_model_q4.onnx_data"
TEXT = "Hello there."


def files_of_variant(variant: str) -> set[str]:
    suffix = SUFFIXES[variant]
    graphs = {f"onnx/{graph}{suffix}.onnx" for graph in ("conditioning", "embed_tokens", "language_model")}
    return graphs | {f"onnx/language_model{suffix}.onnx_data"}


VARIANTS = {variant: files_of_variant(variant) for variant in SUFFIXES}
WRITTEN = {"README.md", "manifest.json", "validation.json", *REPORT}
CALIBRATION = "calibration/int8-fast.safetensors"  # of keys and values
FILES = {*WRITTEN, CALIBRATION, *CLIENT_FILES, *set().union(*VARIANTS.values())}


@pytest.fixture(scope="module")
def built(t3_built: Built) -> Built:
    """All variants of a tiny checkpoint, built once from scratch. For reading only."""
    return t3_built


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Of the multilingual model, chosen in a folder that holds the English one too; opset 20. For reading only."""
    home = tmp_path_factory.mktemp("multilingual")
    write_checkpoint(home / "both", 1, multilingual=True)
    write_checkpoint(home / "both")
    return build(home, f"{home / 'both'}#{MULTILINGUAL}", "--int4", "--opset", "20")


@dataclass(frozen=True)
class Failed:
    """A build killed at work, and what the same command did after it under gates that nothing meets."""

    out: Path
    cache: Path
    left_by_the_kill: list[Path]
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def failed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """Killed as soon as the weights' file is there, beside a graph or before one is."""
    home = tmp_path_factory.mktemp("failed")
    out, cache, profile = home / "out", home / "cache", home / "impossible.toml"
    profile.write_text(IMPOSSIBLE)
    command = again(replace(built, profile=profile, cache=cache), out)
    process = start(home, *command)
    weights = f"tmp-{process.pid}-export-*/graphs/onnx/language_model.onnx_data"
    while process.poll() is None and not any(cache.glob(weights)):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return Failed(out, cache, list(out.iterdir()), run(home, *command))


@pytest.fixture
def release(built: Built, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(built.release, tmp_path / "t3"))


def read(release: Path, name: str) -> dict[str, Any]:
    return json.loads((release / name).read_text(encoding="utf-8"))


def files_of(release: Path) -> set[str]:
    return {name for name in contents(release) if not name.endswith("/")}


# --- build -----------------------------------------------------------------------------------------------------


def test_a_build_that_passes_gives_the_release_layout(built: Built) -> None:
    assert files_of(built.release) == FILES
    assert [path.name for path in built.release.parent.iterdir()] == ["t3"]
    assert stages(built.stderr) == dict.fromkeys(STAGES, "done")
    assert f"passed: {built.release}" in built.stdout


def test_validation_json_has_every_file_of_every_graph(built: Built) -> None:
    validation = read(built.release, "validation.json")
    assert (validation["model"], validation["verdict"]) == ("t3", "pass")
    assert set(validation["variants"]) == set(VARIANTS)
    for name, variant in validation["variants"].items():
        assert variant["files"] == {file: sha256(built.release / file) for file in VARIANTS[name]}
        assert variant["verdict"] == "pass"
        assert all(not math.isnan(float(value)) for value in variant["metrics"].values()), variant["metrics"]
        assert variant["gates"]
        for gate in variant["gates"]:
            assert gate["passed"] is True
            assert gate["value"] == variant["metrics"][gate["metric"]]


def test_figures_are_those_of_each_variant(built: Built) -> None:
    metrics = {v: found["metrics"] for v, found in read(built.release, "validation.json")["variants"].items()}
    kl = {variant: found["parity_logits_kl"] for variant, found in metrics.items()}
    assert kl["fp32"] < 1e-8 < kl["fp16"] < kl["int8"] < kl["int8-fast"] < kl["int4"]
    assert metrics["fp32"]["greedy_tokens_equal_ratio"] == 1
    assert metrics["fp32"]["parity_logits_snr_db"] > 100
    for variant, found in metrics.items():
        bytes_ = sum((built.release / file).stat().st_size for file in VARIANTS[variant])
        assert found["size_mb"] == pytest.approx(bytes_ / 1e6)
        assert found["step_ms"] > 0
        assert found["rss_peak_mb"] > found["size_mb"]


def test_manifest_json_is_every_file_and_where_it_came_from(built: Built) -> None:
    manifest = read(built.release, "manifest.json")
    assert set(manifest["files"]) == FILES - {"manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"sha256": sha256(built.release / name), "size": (built.release / name).stat().st_size}
    assert {v: set(made["files"]) for v, made in manifest["variants"].items()} == VARIANTS
    assert (manifest["model"], manifest["licence"], manifest["opset"]) == ("t3", "NOASSERTION", 17)
    assert manifest["checkpoint"]["source"] == str(built.checkpoint.resolve())


def test_the_card_has_a_row_for_every_variant(built: Built) -> None:
    card = (built.release / "README.md").read_text()
    assert "# T3 (Chatterbox)" in card
    assert all(f"| {variant} |" in card for variant in VARIANTS)
    assert str(built.checkpoint.parent) not in card


def test_the_cards_command_is_one_of_this_model(built: Built) -> None:
    card = (built.release / "README.md").read_text()
    assert "jtts-export tokens ." in card
    assert "jtts-export say" not in card


def test_weights_of_one_variant_are_never_those_of_another(built: Built, tmp_path: Path) -> None:
    """Each language model names its own data file, and opens with that alone beside it."""
    for variant, suffix in SUFFIXES.items():
        graph = built.release / f"onnx/language_model{suffix}.onnx"
        tensors = onnx.load(graph, load_external_data=False).graph.initializer
        entries = [entry for tensor in tensors for entry in tensor.external_data]
        assert {e.value for e in entries if e.key == "location"} == {f"{graph.name}_data"}
        for file in (graph, graph.with_name(f"{graph.name}_data")):
            (tmp_path / variant).mkdir(exist_ok=True)
            shutil.copyfile(file, tmp_path / variant / file.name)
        ort.InferenceSession(tmp_path / variant / graph.name, providers=["CPUExecutionProvider"])
        (tmp_path / variant / f"{graph.name}_data").unlink()
        with pytest.raises(Exception, match="_data"):
            ort.InferenceSession(tmp_path / variant / graph.name, providers=["CPUExecutionProvider"])
    assert len({sha256(path) for path in built.release.glob("onnx/*.onnx_data")}) == len(VARIANTS)


def test_an_unchanged_build_does_nothing(built: Built) -> None:
    before = contents(built.release), (built.release / "manifest.json").stat().st_mtime_ns
    done = run(built.release.parents[1], *again(built, built.release.parent, *FLAGS))
    assert done.returncode == 0, done.stderr
    assert stages(done.stderr) == dict.fromkeys(STAGES, "cached")
    assert (contents(built.release), (built.release / "manifest.json").stat().st_mtime_ns) == before


def test_gates_that_cannot_be_met_keep_the_release_aside(failed: Failed) -> None:
    assert failed.done.returncode == GATE, (failed.done.stdout, failed.done.stderr)
    assert [path.name for path in failed.out.iterdir()] == ["t3.failed"]
    release = failed.out / "t3.failed"
    assert files_of(release) == VARIANTS["fp32"] | CLIENT_FILES | WRITTEN
    assert read(release, "manifest.json")["verdict"] == read(release, "validation.json")["verdict"] == "fail"
    lines = [line.split() for line in failed.done.stdout.splitlines()]
    failing = [words[:2] for words in lines if words[-1] == "FAIL"]
    assert sorted(failing) == [["fp32", "parity_logits_kl"], ["fp32", "size_ratio_vs_fp32"]]
    assert lines[-1] == ["FAILED:", str(release)]


def test_a_build_killed_while_it_writes_weights_leaves_nothing_that_is_read(built: Built, failed: Failed) -> None:
    assert failed.left_by_the_kill == []
    assert not [path.name for path in failed.cache.iterdir() if path.name.startswith("tmp")]
    for name in VARIANTS["fp32"] | CLIENT_FILES:
        assert sha256(failed.out / "t3.failed" / name) == sha256(built.release / name)


# --- the multilingual model, chosen among others -----------------------------------------------------------------


def test_a_multilingual_checkpoint_is_chosen_and_recorded(multilingual: Built) -> None:
    assert files_of(multilingual.release) == WRITTEN | CLIENT_FILES | VARIANTS["fp32"] | VARIANTS["int4"]
    manifest = read(multilingual.release, "manifest.json")
    assert manifest["checkpoint"]["source"] == str(multilingual.checkpoint.resolve())
    assert manifest["checkpoint"]["source"].endswith(f"/both#{MULTILINGUAL}")
    assert f"`both#{MULTILINGUAL}`" in (multilingual.release / "README.md").read_text()
    assert read(multilingual.release, "config.json")["t3_config"]["text_vocab"] == 2454
    assert "[fr]" in read(multilingual.release, "tokenizer.json")["model"]["vocab"]


def test_opset_20_is_that_of_every_graph(multilingual: Built) -> None:
    for path in multilingual.release.rglob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        assert {o.domain: o.version for o in model.opset_import}[""] == 20
    assert read(multilingual.release, "manifest.json")["opset"] == 20


def test_validate_measures_a_release_from_its_own_bytes(multilingual: Built, tmp_path: Path) -> None:
    """Against the checkpoint that was chosen: the folder's other one is not the same."""
    before = contents(multilingual.release)
    done = run(tmp_path, "validate", str(multilingual.release), "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    now, then = json.loads(done.stdout), read(multilingual.release, "validation.json")
    assert now["checkpoint"] == then["checkpoint"]
    assert set(now["variants"]) == {"fp32", "int4"}
    for name, variant in now["variants"].items():
        assert variant["files"] == then["variants"][name]["files"]
        for metric, value in then["variants"][name]["metrics"].items():
            if metric.startswith(("parity", "greedy", "size")):
                assert variant["metrics"][metric] == value
    assert contents(multilingual.release) == before


def test_validate_refuses_another_choice(multilingual: Built, tmp_path: Path) -> None:
    folder = str(multilingual.checkpoint).partition("#")[0]
    for other in (folder, f"{folder}/{WEIGHTS}", f"{folder}#{WEIGHTS}"):
        done = run(tmp_path, "validate", str(multilingual.release), "--checkpoint", other)
        assert_refused(done, OUTSIDE, "not the checkpoint", "both")


@pytest.mark.parametrize(
    ("choice", "code", "named"),
    [
        ("#tokenizer.json", USAGE, ["'tokenizer.json'", WEIGHTS, "t3*.safetensors", "t3*.pt"]),
        ("/conds.pt", USAGE, ["'conds.pt'", WEIGHTS]),
        (f"#../{WEIGHTS}", USAGE, [f"'../{WEIGHTS}'", WEIGHTS]),
        (f"#voices/{WEIGHTS}", USAGE, [f"'voices/{WEIGHTS}'"]),
        ("#t3*.safetensors", USAGE, ["'t3*.safetensors'"]),
        ("#", USAGE, ["''", WEIGHTS]),
        ("#t3_23lang.safetensors", OUTSIDE, ["no t3_23lang.safetensors"]),
    ],
)
def test_a_choice_that_is_none_is_refused(
    built: Built, tmp_path: Path, choice: str, code: int, named: list[str]
) -> None:
    (tmp_path / "cache").mkdir()
    given = replace(built, checkpoint=Path(f"{built.checkpoint}{choice}"), cache=tmp_path / "cache")
    done = call(tmp_path, *again(given, tmp_path / "out"))
    assert_refused(done, code, *named)
    assert list((tmp_path / "out").iterdir()) == list((tmp_path / "cache").iterdir()) == []


def test_help_mentions_the_choice_where_there_is_one(tmp_path: Path) -> None:
    assert "#FILE" in run(tmp_path, "t3", "--help").stdout
    assert "#FILE" not in run(tmp_path, "kokoro", "--help").stdout


# --- checkpoints -------------------------------------------------------------------------------------------------


def cut_to(share: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[: int(len(data) * share)])

    return apply


def weights_of_something_else(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 3)


def edited(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = {key: value.clone() for key, value in load_file(folder / WEIGHTS).items()}
        change(state)
        (folder / WEIGHTS).unlink()
        save_file(state, folder / WEIGHTS)

    return apply


def renamed(state: dict[str, Tensor]) -> None:
    state["tfmr.layers.1.mlp.up_proj.bias"] = state.pop(LAYER)


def with_nan(state: dict[str, Tensor]) -> None:
    state[LAYER][1, 1] = math.nan


def narrower(state: dict[str, Tensor]) -> None:
    state["text_emb.weight"] = state["text_emb.weight"][:, :96].contiguous()


def token_beyond_the_table(folder: Path) -> None:
    content = tokenizer_json(tiny_config())
    content["model"]["vocab"]["~"] = 704
    write_json(folder / "tokenizer.json", content)


def voice(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: write_voice(folder / "conds.pt", tiny_voices()["default"], **changes)


class Harm:
    """Unpickled, it would write a file."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch harmed",))


def pickled_code(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"model": Harm()}, folder / "t3_cfg.pt")


def no_voice(folder: Path) -> None:
    (folder / "conds.pt").unlink()
    shutil.rmtree(folder / "voices")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def cut_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"alignment_heads": [[0, 1],')


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut_to(1e-5), [WEIGHTS, "damaged"]),  # within the header
        (cut_to(0.5), [WEIGHTS, "damaged"]),
        (weights_of_something_else, [WEIGHTS, "not a safetensors file"]),
        (token_beyond_the_table, ["tokenizer.json", "'~' has id 704", "is 704"]),
        (edited(narrower), [WEIGHTS, "text_emb.weight has shape [704, 96], expected [704, 128]"]),
        (voice(speaker_emb=np.ones((1, 192), np.float32)), ["conds.pt", "speaker_emb", "[1, 192]", "[1, 256]"]),
        (voice(cond_prompt_speech_tokens=np.array([[5, 8194]])), ["conds.pt", "holds 8194", "0..8193"]),
        (voice(cond_prompt_speech_tokens=np.ones((1, 1025), np.int64)), ["conds.pt", "1025", "at most 1024"]),
        (pickled_code, ["t3_cfg.pt", "pickled objects", "not loaded"]),
        (no_voice, ["no voice", "conds.pt"]),
        (no_tokenizer, ["no tokenizer.json"]),
        (edited(renamed), [WEIGHTS, f"missing key {LAYER}", "unexpected key tfmr.layers.1.mlp.up_proj.bias"]),
        (edited(with_nan), [WEIGHTS, LAYER, "NaN"]),
        (cut_config, ["config.json"]),
    ],
)
def test_a_bad_checkpoint_is_refused(
    built: Built, tmp_path: Path, damage: Callable[[Path], None], named: list[str]
) -> None:
    folder, cache = tmp_path / "checkpoint", tmp_path / "cache"
    shutil.copytree(built.checkpoint, folder)
    damage(folder)
    done = call(tmp_path, *again(replace(built, checkpoint=folder, cache=cache), tmp_path / "out"))
    assert_refused(done, OUTSIDE, *named)
    assert list((tmp_path / "out").iterdir()) == list(cache.iterdir()) == []
    assert not (tmp_path / "harmed").exists()
    assert not list(tmp_path.rglob("*.log"))  # of a bug


def test_a_folder_without_weights_is_refused_at_once(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.checkpoint, tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / WEIGHTS).unlink()
    given = replace(built, checkpoint=tmp_path / "checkpoint", cache=tmp_path / "cache")
    done = run(tmp_path, *again(given, tmp_path / "out"))
    assert_refused(done, OUTSIDE, WEIGHTS, "t3*.pt", str(tmp_path / "checkpoint"))
    assert stages(done.stderr) == {}
    assert list((tmp_path / "out").iterdir()) == []


# --- releases ----------------------------------------------------------------------------------------------------


def test_inspect_shows_figures_gates_and_verdict(built: Built, tmp_path: Path) -> None:
    text = run(tmp_path, "inspect", str(built.release)).stdout
    for word in ("t3 from", "profile tiny", *VARIANTS, "parity_logits_kl", "verdict: pass", "checksums verified"):
        assert word in text
    shown = json.loads(run(tmp_path, "inspect", str(built.release), "--json").stdout)
    assert shown["manifest"] == read(built.release, "manifest.json")


def test_say_points_to_the_command_for_tokens(built: Built, tmp_path: Path) -> None:
    for request in ([TEXT], ["--variant", "fp16", "--speed", "2"]):
        done = run(tmp_path, "say", str(built.release), *request)
        assert_refused(done, USAGE, "jtts-export tokens")
        assert list(tmp_path.rglob("*.wav")) == list(tmp_path.rglob("*.log")) == []


def test_tokens_are_not_written_into_a_release(release: Path, tmp_path: Path) -> None:
    done = call(tmp_path, "tokens", release, TEXT, "-o", release / "tokens.npy")
    assert_refused(done, USAGE, f"{release / 'tokens.npy'} lies inside the release {release}")
    assert not (release / "tokens.npy").exists()


def test_tokens_lists_the_variants_where_a_release_lacks_one(release: Path, tmp_path: Path) -> None:
    reseal(release, lambda manifest: manifest["variants"].pop("int4"))
    done = call(tmp_path, "tokens", release, TEXT, "--variant", "int4")
    assert_refused(done, USAGE, f"{release} has no variant int4; variants: fp32,", "int8-fast")


def changed(release: Path) -> None:
    flip_a_byte(release / DATA)


def lost(release: Path) -> None:
    (release / DATA).unlink()


def of_another_variant(release: Path) -> None:
    shutil.copyfile(release / "onnx/language_model_fast.onnx_data", release / DATA)


def swapped(release: Path) -> None:
    """Two data files, and the manifest made to match: validation.json still tells them apart."""
    other = "onnx/language_model_quantized.onnx_data"
    (release / DATA).rename(release / "aside")
    (release / other).rename(release / DATA)
    (release / "aside").rename(release / other)
    rewrite(release, DATA, other)


def never_measured(release: Path) -> None:
    (release / "onnx/extra.onnx_data").write_bytes(b"weights")


def never_measured_but_listed(release: Path) -> None:
    never_measured(release)
    rewrite(release, "onnx/extra.onnx_data")


def rewrite(release: Path, *names: str) -> None:
    """List files in the manifest as they are now."""
    now = {n: {"sha256": sha256(release / n), "size": (release / n).stat().st_size} for n in names}
    reseal(release, lambda manifest: manifest["files"].update(now))


@pytest.mark.parametrize(
    ("command", "damage", "named"),
    [
        *(
            (command, changed, [DATA, "not the file that was validated"])
            for command in ("say", "inspect", "validate")
        ),
        ("inspect", lost, [DATA, "missing"]),
        ("validate", of_another_variant, [DATA, "not the file that was validated"]),
        ("inspect", swapped, ["onnx_data", "not the file that was measured"]),
        ("validate", never_measured, ["onnx/extra.onnx_data", "manifest.json"]),
        ("inspect", never_measured_but_listed, ["onnx/extra.onnx_data", "never measured"]),
    ],
)
def test_other_weights_than_those_measured_are_refused_by_whoever_reads_them(
    release: Path, tmp_path: Path, command: str, damage: Callable[[Path], None], named: list[str]
) -> None:
    damage(release)
    done = call(tmp_path, command, release, *([TEXT] if command == "say" else []))
    assert_refused(done, GATE, *named)
    assert not list(tmp_path.rglob("*.wav"))
