"""`jtts-export speecht5` and what is done with its release, on a tiny checkpoint."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from command import (
    REPORT,
    Built,
    assert_refused,
    call,
    contents,
    flip_a_byte,
    reseal,
    run,
    samples,
    sha256,
    stages,
)
from measured import metrics_of
from scipy.io import wavfile
from speecht5_command import PROFILE, again, write_checkpoint
from speecht5_files import SPEAKERS, VOCODER

from jtts_export.models import MODELS

USAGE, GATE, OUTSIDE = 2, 3, 4
GRAPHS = ("onnx/encoder_model", "onnx/decoder", "onnx/decoder_model_merged", "vocoder/onnx/model")
SUFFIXES = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}
VARIANTS = {v: {f"{graph}{suffix}.onnx" for graph in GRAPHS} for v, suffix in SUFFIXES.items()}
CLIENT_FILES = {
    *("config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "vocoder/config.json"),
    *(f"speakers/{name}.bin" for name in SPEAKERS),
}
SAID = 6  # utterances to validate on, of every token one
WRITTEN = {"README.md", "manifest.json", "validation.json", *REPORT}
CALIBRATION = "calibration/int8.safetensors"
FILES = {*WRITTEN, CALIBRATION, *samples(SAID, *SUFFIXES), *CLIENT_FILES, *set().union(*VARIANTS.values())}
STAGES = ("export", "spread", "optimize", "quantize-fp16", "quantize-int8", "validate", "report")
TEXT = "The dog jumps over my box."


@pytest.fixture(scope="module")
def built(speecht5_built: Built) -> Built:
    """All variants of a tiny checkpoint, built once from scratch. For reading only."""
    return speecht5_built


@pytest.fixture(scope="module")
def newer(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """int8 of the same checkpoint with another opset. For reading only."""
    home = tmp_path_factory.mktemp("newer")
    done = run(home, *again(built, home / "out", "--int8", "--opset", "20"))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return replace(built, release=home / "out" / "speecht5")


def read(release: Path, name: str) -> dict[str, Any]:
    return json.loads((release / name).read_text(encoding="utf-8"))


def files_of(release: Path) -> set[str]:
    return {name for name in contents(release) if not name.endswith("/")}


def graphs(release: Path) -> dict[str, str]:
    return {name: digest for name, digest in contents(release).items() if name.endswith(".onnx")}


# --- build -----------------------------------------------------------------------------------------------------


def test_a_build_that_passes_gives_the_release_layout(built: Built) -> None:
    assert files_of(built.release) == FILES
    assert [path.name for path in built.release.parent.iterdir()] == ["speecht5"]
    assert stages(built.stderr) == dict.fromkeys(STAGES, "done")
    assert f"passed: {built.release}" in built.stdout
    assert "stop =" in built.stdout
    assert "durations" not in built.stdout


def test_validation_json_measures_every_metric_of_every_variant(built: Built) -> None:
    validation, wanted = read(built.release, "validation.json"), metrics_of(MODELS["speecht5"].load())
    assert validation["verdict"] == "pass"
    assert validation["model"] == "speecht5"
    assert set(validation["variants"]) == set(VARIANTS)
    for name, variant in validation["variants"].items():
        assert variant["verdict"] == "pass"
        assert set(variant["files"]) == VARIANTS[name]
        assert wanted <= set(variant["metrics"])
        assert all(not math.isnan(float(value)) for value in variant["metrics"].values()), variant["metrics"]
        assert len(variant["rows"]) == SAID
        for row in variant["rows"]:
            assert row["stop_steps_count"] == 1
            assert row["parity_mel_snr_db"] > 15
        for gate in variant["gates"]:
            assert gate["passed"] is True
            assert gate["value"] == variant["metrics"][gate["metric"]]
    metrics = {name: variant["metrics"] for name, variant in validation["variants"].items()}
    assert metrics["fp32"]["parity_waveform_snr_db"] >= 100
    assert metrics["fp32"]["parity_client_snr_db"] >= 100
    assert metrics["fp32"]["stop_steps_equal_ratio"] == 1
    for metric in ("parity_encoder_snr_db", "parity_decoder_steps_snr_db", "parity_vocoder_snr_db"):
        assert metrics["fp32"][metric] > metrics["fp16"][metric] + 20 > metrics["int8"][metric] + 30


def test_manifest_json_is_every_file_and_where_it_came_from(built: Built) -> None:
    manifest = read(built.release, "manifest.json")
    assert set(manifest["files"]) == FILES - {"manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"sha256": sha256(built.release / name), "size": (built.release / name).stat().st_size}
    assert {v: set(made["files"]) for v, made in manifest["variants"].items()} == VARIANTS
    assert (manifest["model"], manifest["licence"], manifest["opset"]) == ("speecht5", "NOASSERTION", 17)
    assert manifest["checkpoint"]["source"] == str(built.checkpoint.resolve())
    assert {"torch", "onnxruntime"} <= set(manifest["versions"])
    kinds = set(manifest["variants"]["int8"]["schemes"].values())
    assert {"static-conv", "dynamic-matmul", "stored-fp16", "stored-int8"} <= kinds
    assert set(manifest["variants"]["fp16"]["schemes"].values()) == {"stored-fp16"}
    card = (built.release / "README.md").read_text()
    assert "SpeechT5" in card
    assert "int8" in card


def test_what_was_measured_is_what_is_released(built: Built) -> None:
    for variant in read(built.release, "validation.json")["variants"].values():
        assert variant["files"] == {name: sha256(built.release / name) for name in variant["files"]}


def test_int8_runs_in_integers(built: Built) -> None:
    ops = {
        graph: [node.op_type for node in onnx.load(built.release / f"{graph}_quantized.onnx").graph.node]
        for graph in GRAPHS
    }
    assert ops["onnx/encoder_model"].count("DynamicQuantizeMatMul") >= 10
    assert ops["onnx/decoder"].count("MatMulNBits") >= 12
    assert ops["vocoder/onnx/model"].count("DequantizeLinear") >= 8
    assert all("MatMulNBits" not in ops[graph] for graph in ("onnx/encoder_model", "vocoder/onnx/model"))


def test_an_unchanged_build_does_nothing(built: Built) -> None:
    before = contents(built.release), (built.release / "manifest.json").stat().st_mtime_ns
    done = run(built.release.parents[1], *again(built, built.release.parent, "--int8", "--fp16"))
    assert done.returncode == 0, done.stderr
    assert stages(done.stderr) == dict.fromkeys(STAGES, "cached")
    assert (contents(built.release), (built.release / "manifest.json").stat().st_mtime_ns) == before


def test_a_build_from_scratch_gives_the_same_bytes_from_any_form_of_weights(built: Built, tmp_path: Path) -> None:
    """pytorch_model.bin and model.safetensors of the same networks, in another place and with another hash seed."""
    folder = tmp_path / "elsewhere"
    write_checkpoint(folder, safetensors=True)
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "pytorch_model.bin").exists()
    assert (built.checkpoint / "pytorch_model.bin").is_file()
    fresh = replace(built, checkpoint=folder, cache=tmp_path / "cache")
    done = run(tmp_path, *again(fresh, tmp_path / "out", "--int8"), env={"PYTHONHASHSEED": "7"})
    assert done.returncode == 0, (done.stdout, done.stderr)
    release = tmp_path / "out" / "speecht5"
    assert set(stages(done.stderr).values()) == {"done"}
    assert graphs(release) == {n: d for n, d in graphs(built.release).items() if "fp16" not in n}
    for name in CLIENT_FILES:
        assert (release / name).read_bytes() == (built.release / name).read_bytes()


def test_every_opset_builds_and_passes(newer: Built, tmp_path: Path) -> None:
    for path in newer.release.rglob("*.onnx"):
        assert {o.domain: o.version for o in onnx.load(path).opset_import}[""] == 20
    assert run(tmp_path, "say", str(newer.release), TEXT).returncode == 0


def test_validate_measures_a_release_from_its_own_bytes(newer: Built, tmp_path: Path) -> None:
    before = contents(newer.release)
    done = run(tmp_path, "validate", str(newer.release), "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    now, then = json.loads(done.stdout), read(newer.release, "validation.json")
    for name, variant in now["variants"].items():
        assert variant["files"] == then["variants"][name]["files"]
        for metric, value in then["variants"][name]["metrics"].items():
            if metric.startswith(("parity", "stop", "size")):
                assert variant["metrics"][metric] == value
    assert contents(newer.release) == before


def test_inspect_shows_figures_gates_and_verdict(built: Built, tmp_path: Path) -> None:
    text = run(tmp_path, "inspect", str(built.release)).stdout
    for word in ("speecht5", "profile tiny", "int8", "parity_mel_snr_db", "verdict: pass", "checksums verified"):
        assert word in text
    shown = json.loads(run(tmp_path, "inspect", str(built.release), "--json").stdout)
    assert shown["manifest"] == read(built.release, "manifest.json")


# --- say -------------------------------------------------------------------------------------------------------


def say(built: Built, folder: Path, *request: str) -> dict[str, Any]:
    done = run(folder, "say", str(built.release), *request, "-o", "said.wav", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_say_writes_a_wav_and_says_what_it_is(built: Built, tmp_path: Path) -> None:
    done = run(tmp_path, "say", str(built.release), TEXT)
    assert done.returncode == 0, done.stderr
    rate, pcm = wavfile.read(tmp_path / "speech.wav")
    assert rate == 16_000
    assert len(pcm) % 512 == 0
    assert np.abs(pcm).max() > 300
    assert f"{len(pcm) / rate:.2f} s of audio" in done.stdout
    assert "(int8, first)" in done.stdout
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["speech.wav"]


def test_say_takes_variants_and_voices_by_name_and_file(built: Built, tmp_path: Path) -> None:
    spoken = {}
    for variant in ("fp32", "fp16", "int8"):
        said = say(built, tmp_path, TEXT, "--variant", variant)
        assert (said["variant"], said["voice"], said["text"]) == (variant, "first", TEXT)
        spoken[variant] = (tmp_path / "said.wav").read_bytes()
    assert len(set(spoken.values())) == 3
    assert say(built, tmp_path, TEXT, "--voice", "second")["voice"] == "second"
    second = (tmp_path / "said.wav").read_bytes()
    assert second != spoken["int8"]
    np.save(tmp_path / "mine.npy", np.fromfile(built.release / "speakers/second.bin", "<f4"))
    for file in ("mine.npy", str(built.release / "speakers/second.bin")):
        assert say(built, tmp_path, TEXT, "--voice", file)["voice"] == file
        assert (tmp_path / "said.wav").read_bytes() == second


def test_a_text_longer_than_a_pass_is_spoken_whole(built: Built, tmp_path: Path) -> None:
    once, twice = (say(built, tmp_path, " ".join([TEXT] * n))["audio_s"] for n in (3, 6))
    assert twice == pytest.approx(2 * once)


@pytest.mark.parametrize(
    ("request_", "code", "named"),
    [
        ([TEXT, "--voice", "nobody"], USAGE, ["'nobody'", "first, second"]),
        ([TEXT, "--voice", "x" * 5000], USAGE, ["unknown voice"]),
        ([TEXT, "--voice", "short.npy"], USAGE, ["short.npy", "512 finite numbers", "it has 511"]),
        ([TEXT, "--voice", "nan.bin"], USAGE, ["nan.bin", "512 finite numbers"]),
        ([TEXT, "--voice", "empty.npy"], USAGE, ["empty.npy"]),
        ([TEXT, "--voice", "."], USAGE, ["unknown voice '.'"]),
        ([TEXT, "--speed", "1"], USAGE, ["speecht5 takes no --speed"]),
        ([TEXT, "--language", "en-us"], USAGE, ["speecht5 takes no --language"]),
        (["--phonemes", "həlˈO"], USAGE, ["speecht5 takes no --phonemes"]),
        ([""], USAGE, ["the text is empty"]),
        ([], USAGE, ["the text is empty"]),
        ([" \n\t "], USAGE, ["the text is empty"]),
        (["犬"], USAGE, ["nothing that this checkpoint can say"]),
        (["😀🎉 😀"], USAGE, ["nothing that this checkpoint can say"]),
        ([TEXT, "-o", "no/such/folder/x.wav"], OUTSIDE, ["no/such/folder/x.wav", "No such file"]),
    ],
)
def test_say_refuses(built: Built, tmp_path: Path, request_: list[str], code: int, named: list[str]) -> None:
    np.save(tmp_path / "short.npy", np.ones(511, np.float32))
    np.full(512, np.nan, "<f4").tofile(tmp_path / "nan.bin")
    (tmp_path / "empty.npy").write_bytes(b"")
    done = call(tmp_path, "say", built.release, *request_)
    assert_refused(done, code, *named)
    assert not list(tmp_path.rglob("*.wav"))
    assert not list(tmp_path.rglob("*.log"))  # of a bug


def test_a_variant_that_is_not_there_is_refused(newer: Built, tmp_path: Path) -> None:
    assert files_of(newer.release) == FILES - VARIANTS["fp16"] - (samples(SAID, "fp16") - samples(SAID))
    done = call(tmp_path, "say", newer.release, TEXT, "--variant", "fp16")
    assert_refused(done, USAGE, f"{newer.release} has no variant fp16; variants: fp32, int8")


# --- checkpoints -----------------------------------------------------------------------------------------------


def no_vocoder(folder: Path) -> None:
    shutil.rmtree(folder / VOCODER)


def speaker_of_another_size(folder: Path) -> None:
    np.save(folder / "speakers/third.npy", np.ones(256, np.float32))


def speaker_with_nan(folder: Path) -> None:
    np.full(512, np.nan, "<f4").tofile(folder / "speakers/third.bin")


def no_speakers(folder: Path) -> None:
    shutil.rmtree(folder / "speakers")


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return apply


def truncated(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return apply


def renamed_key(folder: Path) -> None:
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state["speecht5.encoder.wait"] = state.pop("speech_decoder_postnet.feat_out.weight")
    torch.save(state, folder / "pytorch_model.bin")


def endless(folder: Path) -> None:
    """Never ends, and soon has no positions left."""
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    state["speech_decoder_postnet.prob_out.weight"] *= 0
    state["speech_decoder_postnet.prob_out.bias"].fill_(-20)
    for key in list(state):
        if key.endswith("encode_positions.pe") and "decoder" in key:
            state[key] = state[key][:, :40]
    torch.save(state, folder / "pytorch_model.bin")
    edit("config.json", max_speech_positions=40)(folder)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (no_vocoder, ["no vocoder", "speecht5_hifigan/", "microsoft/speecht5_hifigan"]),
        (speaker_of_another_size, ["speakers/third.npy", "[256]", "[512]"]),
        (speaker_with_nan, ["speakers/third.bin", "NaN"]),
        (no_speakers, ["no speaker", "512"]),
        (edit(f"{VOCODER}/config.json", model_in_dim=64), ["model_in_dim is 64", "num_mel_bins is 80"]),
        (edit(f"{VOCODER}/config.json", upsample_kernel_sizes=[8, 8, 8, 7]), ["upsample_kernel_sizes"]),
        (edit("config.json", architectures=["SpeechT5ForSpeechToText"]), ["SpeechT5ForSpeechToText"]),
        (edit("config.json", model_type="t5", architectures=["T5ForConditionalGeneration"]), ["'t5'"]),
        (edit("config.json", hidden_size=48), ["pytorch_model.bin", "shape"]),
        (truncated("pytorch_model.bin"), ["pytorch_model.bin", "truncated"]),
        (truncated(f"{VOCODER}/pytorch_model.bin"), ["vocoder/pytorch_model.bin", "truncated"]),
        (truncated("spm_char.model"), ["spm_char.model"]),
        (truncated("config.json"), ["config.json"]),
        (renamed_key, ["missing key speech_decoder_postnet.feat_out.weight", "unexpected key speecht5.encoder.wait"]),
        (endless, ["has not ended after 40 steps"]),
    ],
)
def test_a_bad_checkpoint_is_refused(
    built: Built, tmp_path: Path, damage: Callable[[Path], None], named: list[str]
) -> None:
    folder, cache = tmp_path / "checkpoint", tmp_path / "cache"
    shutil.copytree(built.checkpoint, folder)
    damage(folder)
    shutil.copytree(built.release, tmp_path / "out" / "speecht5")
    done = call(tmp_path, *again(replace(built, checkpoint=folder, cache=cache), tmp_path / "out"))
    assert_refused(done, OUTSIDE, *named)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["speecht5"]
    assert contents(tmp_path / "out" / "speecht5") == contents(built.release)
    assert not [path.name for path in cache.iterdir() if path.name.startswith("tmp")]
    assert not list(tmp_path.rglob("*.log"))


def test_each_model_refuses_the_others_checkpoint(built: Built, kokoro_folder: Path, tmp_path: Path) -> None:
    where = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--profile", str(built.profile)]
    done = call(tmp_path, "speecht5", "--checkpoint", str(kokoro_folder), *where)
    assert_refused(done, OUTSIDE, "config.json", "SpeechT5ForTextToSpeech")
    done = call(tmp_path, "kokoro", "--checkpoint", str(built.checkpoint), *where)
    assert_refused(done, OUTSIDE, "config.json")
    assert list((tmp_path / "out").iterdir()) == list((tmp_path / "cache").iterdir()) == []


# --- releases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(f"{graph}_quantized.onnx" for graph in GRAPHS),
        *("onnx/encoder_model.onnx", "speakers/second.bin", "vocoder/config.json", "tokenizer.json"),
    ],
)
@pytest.mark.parametrize("command", ["say", "inspect", "validate"])
def test_a_flipped_byte_is_refused_by_whoever_reads_it(built: Built, tmp_path: Path, command: str, name: str) -> None:
    release = Path(shutil.copytree(built.release, tmp_path / "speecht5"))
    flip_a_byte(release / name)
    done = call(tmp_path, command, release, *([TEXT] if command == "say" else []))
    assert_refused(done, GATE, name, "not the file that was validated")
    assert not (tmp_path / "speech.wav").exists()


def test_a_graph_that_was_never_measured_is_refused(built: Built, tmp_path: Path) -> None:
    """Even where the manifest was made to match: validation.json names the graphs' own digests."""
    release = Path(shutil.copytree(built.release, tmp_path / "speecht5"))
    name = "vocoder/onnx/model_quantized.onnx"
    shutil.copyfile(release / "vocoder/onnx/model_fp16.onnx", release / name)
    now = {"sha256": sha256(release / name), "size": (release / name).stat().st_size}
    reseal(release, lambda manifest: manifest["files"].update({name: now}))
    assert_refused(call(tmp_path, "say", release, TEXT), GATE, name, "not the file that was measured")


def test_the_profile_names_only_what_is_measured(built: Built, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text(PROFILE.replace("parity_mel_snr_db", "parity_mels_snr_db"))
    done = call(tmp_path, *again(built, tmp_path / "out", "--profile", "broken.toml"))
    assert_refused(done, USAGE, "broken.toml", "parity_mels_snr_db", "parity_mel_snr_db")
