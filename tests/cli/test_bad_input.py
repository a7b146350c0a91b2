"""What a user can get wrong, or the world: one line that says so, an exit code, and nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import PROFILE, Built, assert_refused, call, contents, flip_a_byte, reseal, run

from jtts_export.store import files_under

USAGE, GATE, OUTSIDE = 2, 3, 4
WEIGHTS = "kokoro-v1_0.pth"
GRAPH = "onnx/model_quantized.onnx"

# Commands that read a release, and what else they are given.
READERS: dict[str, Callable[[Built, Path], list[Path | str]]] = {
    "say": lambda built, folder: ["Hello.", "-o", folder / "speech.wav"],
    "inspect": lambda built, folder: [],
    "validate": lambda built, folder: [],
    "compare": lambda built, folder: [built.release],
}


# --- say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "code", "named"),
    [
        (["Hello.", "--voice", "nobody"], USAGE, ["'nobody'", "random_a, random_b"]),
        ([""], USAGE, ["the text is empty"]),
        ([], USAGE, ["the text is empty"]),
        ([" \n\t "], USAGE, ["the text is empty"]),
        (["😀🎉 😀"], USAGE, ["nothing to pronounce"]),
        (["..."], USAGE, ["nothing to pronounce"]),
        (["Hello.", "--phonemes", "həlˈO"], USAGE, ["not both"]),
        (["--phonemes", "həl@"], USAGE, ["'@' (U+0040)"]),
        (["--phonemes", " "], USAGE, ["phonemes are empty"]),
        (["Hello.", "--language", "tlh"], USAGE, ["'tlh'", "en-us"]),
        (["Hello.", "--speed", "0"], USAGE, ["speed", "0.1 to 10"]),
        (["Hello.", "--speed", "-1"], USAGE, ["speed", "-1"]),
        (["Hello.", "--speed", "nan"], USAGE, ["speed", "nan"]),
        (["Hello.", "--speed", "inf"], USAGE, ["speed", "inf"]),
        (["Hello.", "--speed", "1e-9"], USAGE, ["speed", "1e-09"]),  # half a year of audio
        (["Hello.", "-o", "no/such/folder/x.wav"], OUTSIDE, ["no/such/folder/x.wav", "No such file"]),
        (["Hello.", "-o", "."], OUTSIDE, ["cannot write to .", "directory"]),
        (["Hello.", "-o", "/dev/full"], OUTSIDE, ["/dev/full", "No space left"]),
    ],
)
def test_say_refuses(built: Built, tmp_path: Path, request_: list[str], code: int, named: list[str]) -> None:
    done = call(tmp_path, "say", built.release, *request_)
    assert_refused(done, code, *named)
    assert not list(tmp_path.rglob("*.wav"))
    assert not list(tmp_path.rglob("*.log"))  # of a bug


def test_say_lists_the_variants_when_given_another(built: Built, tmp_path: Path) -> None:
    done = run(tmp_path, "say", str(built.release), "Hello.", "--variant", "int2")
    assert done.returncode == USAGE
    assert "'int4'" in done.stderr
    assert "'int8'" in done.stderr


# --- checkpoints ----------------------------------------------------------------------------------------


def truncated(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"not a checkpoint" * 100)


def renamed_key(folder: Path) -> None:
    state = torch.load(folder / WEIGHTS, weights_only=True)
    state["bert_encoder"]["wait"] = state["bert_encoder"].pop("weight")
    torch.save(state, folder / WEIGHTS)


class Harm:
    """Unpickled, it would write a file."""

    def __reduce__(self) -> tuple:
        return (os.system, ("touch harmed",))


def pickled_objects(folder: Path) -> None:
    torch.save({"bert": Harm()}, folder / WEIGHTS)


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def config_without_a_key(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["hidden_dim"]
    (folder / "config.json").write_text(json.dumps(config))


def config_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"hidden_dim": 32,')


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_voices(folder: Path) -> None:
    shutil.rmtree(folder / "voices")


def cut_voice(folder: Path) -> None:
    path = folder / "voices" / "random_b.pt"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (truncated, [WEIGHTS, "truncated"]),
        (garbage, [WEIGHTS, "not a PyTorch file"]),
        (renamed_key, ["missing key bert_encoder.weight", "unexpected key bert_encoder.wait"]),
        (pickled_objects, [WEIGHTS, "not loaded"]),
        (no_weights, [".pth"]),
        (config_without_a_key, ["config.json", "hidden_dim"]),
        (config_is_no_json, ["config.json"]),
        (no_config, ["config.json"]),
        (no_voices, ["no voice"]),
        (cut_voice, ["voices/random_b.pt"]),
    ],
)
def test_a_bad_checkpoint_is_refused(
    built: Built, tmp_path: Path, damage: Callable[[Path], None], named: list[str]
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(built.checkpoint, folder)
    damage(folder)
    shutil.copytree(built.release, tmp_path / "out" / "kokoro")
    where = ["--cache", str(tmp_path / "cache"), "--checkpoint", str(folder)]
    done = call(tmp_path, *built.again(tmp_path / "out", *where))
    assert_refused(done, OUTSIDE, *named)
    assert not (tmp_path / "harmed").exists()
    assert list((tmp_path / "cache").iterdir()) == []
    assert_untouched(built, tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "code", "named"),
    [
        ("no/such/folder", OUTSIDE, ["'no/such/folder'", "hub:ORG/REPO[@REVISION]"]),
        ("random:x", USAGE, ["'random:x'", "random:0"]),
        ("random:-1", USAGE, ["'random:-1'"]),
        ("hub:nobody", USAGE, ["'hub:nobody'", "hub:ORG/REPO"]),
        ("hub:a/b/c", USAGE, ["'hub:a/b/c'"]),
        ("hub:a/b@", USAGE, ["'hub:a/b@'"]),
    ],
)
def test_a_source_that_is_none_is_refused(
    built: Built, tmp_path: Path, source: str, code: int, named: list[str]
) -> None:
    shutil.copytree(built.release, tmp_path / "out" / "kokoro")
    done = run(tmp_path, *built.again(tmp_path / "out", "--checkpoint", source))
    assert_refused(done, code, *named)
    assert_untouched(built, tmp_path / "out")


def test_an_unreachable_hub_is_reported_soon(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.release, tmp_path / "out" / "kokoro")
    start = time.perf_counter()
    command = built.again(tmp_path / "out", "--checkpoint", "hub:org/model")
    done = run(tmp_path, *command, env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_XET": "1"})
    assert time.perf_counter() - start < 30
    assert_refused(done, OUTSIDE, "org/model", "--checkpoint")
    assert_untouched(built, tmp_path / "out")


# --- places to write ------------------------------------------------------------------------------------


def test_an_output_folder_that_cannot_be_is_refused_before_any_work(built: Built, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/release")):
        done = run(tmp_path, *built.again(out, "--cache", str(tmp_path / "cache")))
        assert_refused(done, OUTSIDE, "cannot write to", str(out))
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "cache").exists()


def test_a_cache_folder_that_cannot_be_is_refused(built: Built, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for cache in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/cache")):
        done = run(tmp_path, *built.again(tmp_path / "out", "--cache", str(cache)))
        assert_refused(done, OUTSIDE, "cannot write to", str(cache))


def no_file_above(size: int) -> Callable[[], None]:
    """The kernel refuses to let any file grow beyond `size` bytes: a full disk that needs no disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_output_folder_leaves_the_earlier_release(built: Built, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built.release, out / "kokoro")
    (out / "kokoro" / "README.md").write_text("an earlier release")
    before = contents(out)
    command = built.again(out, "--int8", "--fp16")
    done = run(tmp_path, *command, preexec_fn=no_file_above(1_000_000))
    assert_refused(done, OUTSIDE, f"cannot write to {out}", "File too large")
    assert contents(out) == before


def test_a_full_cache_leaves_nothing_half_done(built: Built, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    done = run(tmp_path, *built.again(out, "--cache", str(cache)), preexec_fn=no_file_above(1_000_000))
    assert_refused(done, OUTSIDE, f"cannot write to {cache}", "File too large")
    assert [path.name for path in cache.iterdir()] == ["hashes"]  # of the checkpoint's files
    assert not list(out.iterdir())


@pytest.mark.parametrize("name", ["kokoro", "kokoro.failed"])
def test_a_folder_that_is_no_release_is_not_replaced(built: Built, tmp_path: Path, name: str) -> None:
    """`git clone .../kokoro && jtts-export kokoro --out .` must not delete the clone."""
    (tmp_path / "out" / name).mkdir(parents=True)
    (tmp_path / "out" / name / "thesis.txt").write_text("the only copy")
    done = run(tmp_path, *built.again(tmp_path / "out", "--int8", "--fp16"))
    assert_refused(done, OUTSIDE, str(tmp_path / "out" / name), "no release", "--out")
    assert (tmp_path / "out" / name / "thesis.txt").read_text() == "the only copy"


# --- profiles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (PROFILE.replace("parity_decoder_snr_db", "parity_decoder_db"), ["parity_decoder_db", "parity_f0_snr_db"]),
        (PROFILE.replace("[gates.kokoro.int8]", "[gates.kokoro.in8]"), ["'in8'", "int8"]),
        (PROFILE.replace("gates.kokoro", "gates.kokro"), ["'kokro'", "kokoro"]),
        (PROFILE.replace("threads", "thread"), ["thread", "threads"]),
        (PROFILE.replace("threads = 1", "threads = 0"), ["threads"]),
        (PROFILE.replace(">= 80", "about 80"), ["parity_decoder_snr_db", "about 80"]),
        (PROFILE.replace('">= 80"', "80"), ["parity_decoder_snr_db"]),
        (PROFILE.replace('"tiny"', '"../tiny"'), ["name"]),
        (PROFILE.replace("gates", "doors"), ["gates"]),
        ("name = ", ["broken.toml"]),
    ],
)
def test_a_bad_profile_names_the_key_and_what_is_known(
    built: Built, tmp_path: Path, text: str, named: list[str]
) -> None:
    (tmp_path / "broken.toml").write_text(text)
    done = call(tmp_path, *built.again(tmp_path / "out", "--profile", "broken.toml"))
    assert_refused(done, USAGE, "broken.toml", *named)
    assert not (tmp_path / "out").exists()


def test_a_profile_that_is_not_there_lists_those_that_are(built: Built, tmp_path: Path) -> None:
    for name in ("gpu", "gpu.toml", str(tmp_path)):
        done = run(tmp_path, *built.again(tmp_path / "out", "--profile", name))
        assert_refused(done, USAGE, name, "cpu")
    assert_refused(run(tmp_path, "profiles", "show", "gpu"), USAGE, "'gpu'", "cpu")


def test_an_option_that_does_not_exist_is_a_usage_error(built: Built, tmp_path: Path) -> None:
    for wrong in (["--opset", "16"], ["--opset", "21"], ["--int4"], ["more"]):
        done = run(tmp_path, *built.again(tmp_path / "out", *wrong))
        assert done.returncode == USAGE
        assert "Error:" in done.stderr
        assert not (tmp_path / "out").exists()


# --- releases -------------------------------------------------------------------------------------------


def copy_of(built: Built, tmp_path: Path) -> Path:
    shutil.copytree(built.release, tmp_path / "kokoro")
    return tmp_path / "kokoro"


def assert_untouched(built: Built, out: Path) -> None:
    assert [path.name for path in out.iterdir()] == ["kokoro"]
    assert contents(out / "kokoro") == contents(built.release)


def edited(name: str) -> Callable[[Path], None]:
    return lambda release: flip_a_byte(release / name)


def missing(name: str) -> Callable[[Path], None]:
    return lambda release: (release / name).unlink()


def extra(release: Path) -> None:
    (release / "onnx" / "model_q4.onnx").write_bytes(b"never measured")


def escaping(release: Path) -> None:
    reseal(release, lambda manifest: manifest["files"].update({"../escape": manifest["files"]["config.json"]}))


def unsealed(release: Path) -> None:
    manifest = json.loads((release / "manifest.json").read_text())
    (release / "manifest.json").write_text(json.dumps({**manifest, "licence": "MIT"}))


def cut_manifest(release: Path) -> None:
    (release / "manifest.json").write_text('{"schema_version": 1')


def empty_manifest(release: Path) -> None:
    (release / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "code", "named"),
    [
        (edited(GRAPH), GATE, [GRAPH, "not the file that was validated"]),
        (edited("voices/random_a.bin"), GATE, ["voices/random_a.bin"]),
        (edited("validation.json"), None, ["validation.json"]),  # damaged as JSON, or only another file
        (missing(GRAPH), GATE, [GRAPH, "missing"]),
        (missing("manifest.json"), OUTSIDE, ["manifest.json"]),
        (missing("validation.json"), OUTSIDE, ["validation.json"]),
        (extra, GATE, ["onnx/model_q4.onnx"]),
        (escaping, OUTSIDE, ["../escape"]),
        (unsealed, GATE, ["manifest.json", "not what was written"]),
        (cut_manifest, OUTSIDE, ["manifest.json"]),
        (empty_manifest, OUTSIDE, ["manifest.json"]),
    ],
)
@pytest.mark.parametrize("command", READERS)
def test_a_damaged_release_is_refused_by_whoever_reads_it(
    built: Built, tmp_path: Path, command: str, damage: Callable[[Path], None], code: int | None, named: list[str]
) -> None:
    release = copy_of(built, tmp_path)
    damage(release)
    done = call(tmp_path, command, release, *READERS[command](built, tmp_path))
    assert_refused(done, code or done.returncode, *named)
    assert done.returncode in (GATE, OUTSIDE)
    assert not (tmp_path / "speech.wav").exists()


@pytest.mark.parametrize("command", READERS)
def test_a_changed_byte_in_any_file_is_refused_by_its_name(built: Built, tmp_path: Path, command: str) -> None:
    """Of a real release, whatever the file is for. Of manifest.json and validation.json the byte may be one of JSON's
    own."""
    release = copy_of(built, tmp_path)
    names = [path.relative_to(release).as_posix() for path in files_under(release)]
    assert {"report/index.html", "report/junit.xml", "report/samples/0-int8.flac", GRAPH} < set(names)
    for name in names:
        kept = (release / name).read_bytes()
        flip_a_byte(release / name)
        done = call(tmp_path, command, release, *READERS[command](built, tmp_path))
        codes = (GATE, OUTSIDE) if name in ("manifest.json", "validation.json") else (GATE,)
        assert done.returncode in codes, (name, done.stderr)
        assert_refused(done, done.returncode, name)
        (release / name).write_bytes(kept)
    assert not (tmp_path / "speech.wav").exists()


@pytest.mark.parametrize("command", READERS)
def test_what_is_no_release_is_said_to_be_none(built: Built, tmp_path: Path, command: str) -> None:
    for folder in (tmp_path / "nowhere", tmp_path, built.checkpoint, built.release / "manifest.json"):
        done = call(tmp_path, command, folder, *READERS[command](built, tmp_path))
        assert_refused(done, OUTSIDE, str(folder), "not a release")


@pytest.mark.parametrize("command", READERS)
def test_a_release_with_a_name_that_no_folder_can_have(built: Built, tmp_path: Path, command: str) -> None:
    done = call(tmp_path, command, "x" * 300, *READERS[command](built, tmp_path))
    assert_refused(done, OUTSIDE, "x" * 300, "too long")


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["say", "RELEASE", "Hello.", "-o"], "speech.wav"),
        (["say", "RELEASE", "Hello.", "-o"], "report/../README.md"),
        (["validate", "RELEASE", "--report"], "report"),
        (["compare", "RELEASE", "OTHER", "--report"], "report"),
        (["compare", "OTHER", "RELEASE", "--report"], "new"),
        (["compare", "RELEASE", "OTHER", "--report"], ""),
    ],
)
def test_nothing_is_written_into_a_release(built: Built, tmp_path: Path, command: list[str], place: str) -> None:
    release = copy_of(built, tmp_path)
    (tmp_path / "link").symlink_to(release)
    given = [{"RELEASE": str(release), "OTHER": str(built.release)}.get(word, word) for word in command]
    for folder in (release, tmp_path / "link"):
        done = call(tmp_path, *given, folder / place)
        assert_refused(done, USAGE, f"{folder / place} lies inside the release {release}")
    assert contents(release) == contents(built.release)


def test_a_release_that_is_compared_with_is_verified_as_well(built: Built, tmp_path: Path) -> None:
    release = copy_of(built, tmp_path)
    flip_a_byte(release / "report/report.md")
    assert_refused(call(tmp_path, "compare", built.release, release), GATE, "report/report.md")
