"""The commands beside `kokoro`: say, validate, inspect, models, profiles, and their help."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from command import (
    COMMAND,
    PROFILE,
    Built,
    assert_refused,
    brief,
    call,
    contents,
    environment,
    flip_a_byte,
    reseal,
    run,
    start,
)
from hub.server import Hub, serve
from scipy.io import wavfile

from jtts_export import __version__, artifact
from jtts_export.cli import _table, cli, main
from jtts_export.errors import BadInput
from jtts_export.models import MODELS
from jtts_export.models.kokoro.random import VOICES
from jtts_export.profiles.schema import METRICS
from jtts_export.say import say_to_file

COMMANDS = (
    ["kokoro"],
    ["speecht5"],
    ["t3"],
    ["validate"],
    ["compare"],
    ["inspect"],
    ["publish"],
    ["say"],
    ["tokens"],
    ["models"],
    ["profiles"],
    ["profiles", "show"],
)
HEAVY = {"torch", "onnxruntime", "onnx", "numpy", "scipy", "transformers", "huggingface_hub"}


def say(built: Built, tmp_path: Path, *args: str) -> dict[str, Any]:
    """What `say --json` answers, which must agree with the WAV that it wrote."""
    output = tmp_path / "said.wav"
    done = run(tmp_path, "say", str(built.release), *args, "-o", str(output), "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    rate, pcm = wavfile.read(output)
    assert (rate, pcm.dtype, pcm.ndim) == (24_000, np.int16, 1)
    assert said["output"] == str(output)
    assert said["audio_s"] == len(pcm) / rate
    assert said["rtf"] == pytest.approx(said["seconds"] / said["audio_s"])
    assert np.abs(pcm).max() > 0
    return said


# --- help and lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(tmp_path: Path, command: list[str], flag: str) -> None:
    done = run(tmp_path, *command, flag)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage:")
    assert done.stderr == ""
    if not command:
        listed = ("kokoro", "speecht5", "t3", "say", "tokens", "validate", "compare", "inspect", "profiles")
        assert all(f"  {name} " in done.stdout for name in listed)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_an_example(tmp_path: Path, command: list[str]) -> None:
    text = call(tmp_path, *command, "--help").stdout
    assert f"Example: jtts-export {' '.join(command)} " in text


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_says_more_than_its_default(command: list[str]) -> None:
    found = cli
    for name in command:
        found = found.commands[name]
    options = [given for given in found.params if isinstance(given, click.Option)]
    assert options
    for option in options:
        assert (option.help or "").partition("[default")[0].strip(), option.name


@pytest.mark.parametrize(
    "args",
    [["--help"], ["kokoro", "--help"], ["speecht5", "--help"], ["models"], ["profiles"], ["profiles", "show", "cpu"]],
)
def test_what_only_prints_imports_nothing_heavy(tmp_path: Path, args: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], *args]
    done = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & HEAVY


def test_the_installed_script_is_the_same_command(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("jtts-export")
    done = subprocess.run(
        [script, "--version"], env=environment(tmp_path), capture_output=True, encoding="utf-8", check=True
    )
    assert __version__ in done.stdout


def test_models_lists_every_model_and_where_it_comes_from(tmp_path: Path) -> None:
    assert "hub:hexgrad/Kokoro-82M" in run(tmp_path, "models").stdout
    listed = json.loads(run(tmp_path, "models", "--json").stdout)
    assert listed["kokoro"]["checkpoint"] == "hub:hexgrad/Kokoro-82M"
    assert listed["kokoro"]["licence"] == "Apache-2.0"
    assert list(listed) == list(MODELS)
    for name, info in MODELS.items():
        assert listed[name]["checkpoint"] == info.checkpoint
        assert [c["hub"] for c in listed[name]["companions"]] == [c.hub for c in info.companions]


def test_profiles_can_be_listed_and_shown(tmp_path: Path) -> None:
    assert "cpu" in run(tmp_path, "profiles").stdout
    listed = json.loads(run(tmp_path, "profiles", "--json").stdout)
    shown = json.loads(run(tmp_path, "profiles", "show", "cpu", "--json").stdout)
    assert listed["cpu"] == shown
    text = run(tmp_path, "profiles", "show", "cpu").stdout
    for variants in shown["gates"]["kokoro"].values():
        for metric, limit in variants.items():
            assert metric in METRICS
            assert metric in text
            assert limit in text


def test_json_may_be_asked_for_on_either_side_of_show(tmp_path: Path) -> None:
    expected = call(tmp_path, "profiles", "show", "cpu", "--json").stdout
    assert json.loads(expected)["name"] == "cpu"
    for args in (["--json", "show", "cpu"], ["--json", "show", "cpu", "--json"]):
        assert call(tmp_path, "profiles", *args).stdout == expected
    assert call(tmp_path, "profiles", "show", "cpu").stdout != expected


def test_a_profile_of_ones_own_can_be_shown(built: Built, tmp_path: Path) -> None:
    shown = json.loads(run(tmp_path, "profiles", "show", str(built.profile), "--json").stdout)
    assert shown["name"] == "tiny"


# --- inspect --------------------------------------------------------------------------------------------


def test_inspect_shows_figures_gates_and_verdict(built: Built, tmp_path: Path) -> None:
    text = run(tmp_path, "inspect", str(built.release)).stdout
    for word in (
        "profile tiny",
        "fp32",
        "fp16",
        "int8",
        "parity_decoder_snr_db",
        "verdict: pass",
        "checksums verified",
    ):
        assert word in text
    shown = json.loads(run(tmp_path, "inspect", str(built.release), "--json").stdout)
    assert shown["manifest"] == json.loads((built.release / "manifest.json").read_text())
    assert shown["validation"] == json.loads((built.release / "validation.json").read_text())


def test_inspect_counts_weights_by_scheme_ahead_of_what_was_promoted(built: Built, tmp_path: Path) -> None:
    release = tmp_path / "kokoro"
    shutil.copytree(built.release, release)
    step = {"gate": "a gate", "measured": "-inf", "promoted": {"w": "float32"}, "error_share": {"w": 1.0}}
    reseal(release, lambda manifest: manifest["variants"]["int8"]["ladder"].update(steps=[step]))
    lines = call(tmp_path, "inspect", release).stdout.splitlines()
    variants = json.loads((release / "manifest.json").read_text())["variants"]
    for variant in ("fp16", "int8"):
        counts = Counter(variants[variant]["schemes"].values()).most_common()
        assert f"{variant}: " + ", ".join(f"{count} {scheme}" for scheme, count in counts) in lines
    (promoted,) = (line for line in lines if "promoted w" in line)
    assert "a gate was -inf" in promoted
    assert re.match(r"int8: \d+ ", lines[lines.index(promoted) - 1])
    assert not [line for line in lines if line.startswith("fp32: ")]


# --- terminals and Ctrl-C -------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Of 80 columns."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *args: str | Path, kind: str = "xterm") -> list[str]:
    """Lines that a command prints there, without colours and spaces at the end."""
    monkeypatch.setattr(sys, "argv", ["jtts-export", *map(str, args)])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", kind)
    with redirect_stdout(Terminal()) as out, pytest.raises(SystemExit):
        main()
    return [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_a_narrow_terminal_loses_no_figure(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for args in (["inspect", built.release], ["inspect", built.release, "--layers"]):
        shown = on_a_terminal(monkeypatch, *args, kind=kind)
        assert shown == [line.rstrip() for line in call(tmp_path, *args).stdout.splitlines()]
        assert max(map(len, shown)) > 80


def test_a_narrow_terminal_wraps_prose_and_loses_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(map(len, on_a_terminal(monkeypatch, "profiles"))) <= 80
    for args in (["profiles"], ["profiles", "show", "cpu"]):
        shown, plain = on_a_terminal(monkeypatch, *args), call(tmp_path, *args).stdout
        assert len(shown) > len(plain.splitlines())
        assert Counter(" ".join(shown).split()) == Counter(plain.split())


def test_brackets_in_a_table_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Of releases that are compared, names of folders are its header."""
    _table(["variant", "[red]", "[bold]"], [["[int8]", "1", "2"]])
    assert capsys.readouterr().out.split() == ["variant", "[red]", "[bold]", "[int8]", "1", "2"]


def opened_for_writing(pipe: Path, reader: subprocess.Popen[str]) -> int:
    """The pipe's file descriptor, as soon as the process reads from it."""
    while reader.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO, error
            time.sleep(0.01)
    raise AssertionError(reader.communicate())


def test_ctrl_c_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would ours
    process = start(tmp_path, "kokoro", "--sentences", "pipe")
    pipe = opened_for_writing(tmp_path / "pipe", process)
    process.send_signal(signal.SIGINT)
    with suppress(BrokenPipeError):
        os.write(pipe, b"\n")  # a signal that came just ahead of read() is noticed only when that returns
    _, said = process.communicate(timeout=60)
    os.close(pipe)
    assert (process.returncode, said.strip()) == (130, "Aborted!")
    assert not list(tmp_path.rglob("*.log"))


def raising(error: BaseException) -> Callable[..., None]:
    def raise_it(*_: object) -> None:
        raise error

    return raise_it


def test_an_end_of_file_that_nobody_expected_is_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not Ctrl-D at a prompt, which click takes it for."""
    monkeypatch.setattr(artifact, "verify", raising(EOFError("no more")))
    done = call(tmp_path, "inspect", tmp_path)
    assert done.returncode == 1
    assert "a bug: EOFError: no more" in done.stderr
    monkeypatch.setattr(artifact, "verify", raising(KeyboardInterrupt()))
    done = call(tmp_path, "inspect", tmp_path)
    assert (done.returncode, done.stderr.strip()) == (130, "Aborted!")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["--version"],
        ["say", "-h"],
        ["--nonsense"],
        ["nothing"],
        ["say"],
        ["say", "release", "text", "more"],
        ["say", "release", "--variant", "int2"],
        ["kokoro", "--opset", "3"],
        ["tokens", "release", "text", "--seed", "x"],
        ["profiles", "show"],
    ],
)
def test_usage_errors_are_clicks_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]) -> None:
    done = call(tmp_path, *args)
    monkeypatch.setattr(sys, "argv", ["jtts-export", *args])
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        cli()
    assert (done.returncode, done.stdout, done.stderr) == (stopped.value.code, out.getvalue(), err.getvalue())
    if args and args[-1] not in ("--version", "-h"):
        assert done.returncode == 2
        assert done.stderr.startswith("Usage: ")
        assert "\nError: " in done.stderr


# --- say ------------------------------------------------------------------------------------------------


def test_say_writes_a_wav_and_says_what_it_is(built: Built, tmp_path: Path) -> None:
    done = run(tmp_path, "say", str(built.release), "Hello there.")
    assert done.returncode == 0, done.stderr
    rate, pcm = wavfile.read(tmp_path / "speech.wav")
    assert rate == 24_000
    assert f"{len(pcm) / rate:.2f} s of audio" in done.stdout
    assert "(int8, random_a)" in done.stdout


def test_say_refuses_what_the_model_does_not_take(built: Built, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="kokoro takes no --pitch"):
        say_to_file(built.release, "Hello.", tmp_path / "said.wav", None, voice="", pitch=2, speed=None)
    assert not (tmp_path / "said.wav").exists()


def test_say_takes_the_smallest_variant_or_the_one_named(built: Built, tmp_path: Path) -> None:
    assert say(built, tmp_path, "Hello there.")["variant"] == "int8"
    assert say(built, tmp_path, "Hello there.", "--variant", "fp32")["variant"] == "fp32"


def test_say_lists_the_variants_where_a_release_lacks_one(built: Built, tmp_path: Path) -> None:
    shutil.copytree(built.release, tmp_path / "kokoro")
    reseal(tmp_path / "kokoro", lambda manifest: manifest["variants"].pop("fp16"))
    done = call(tmp_path, "say", tmp_path / "kokoro", "Hello.", "--variant", "fp16")
    assert_refused(done, 2, f"{tmp_path / 'kokoro'} has no variant fp16; variants: fp32, int8")
    assert not (tmp_path / "speech.wav").exists()


def test_the_cards_command_leaves_the_release_as_it_was(built: Built, tmp_path: Path) -> None:
    release = tmp_path / "kokoro"
    shutil.copytree(built.release, release)
    (command,) = re.findall("^jtts-export (.+)$", (release / "README.md").read_text(), re.MULTILINE)
    where = {"cwd": release, "env": environment(tmp_path), "encoding": "utf-8"}
    done = subprocess.run([*COMMAND, *shlex.split(command)], **where, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hello.wav").is_file()
    artifact.verify(release)


def test_say_speaks_in_the_voice_named(built: Built, tmp_path: Path) -> None:
    spoken = set()
    for voice in VOICES[:2]:
        assert say(built, tmp_path, "Hello there.", "--voice", voice)["voice"] == voice
        spoken.add((tmp_path / "said.wav").read_bytes())
    assert len(spoken) == 2


def test_nothing_is_left_behind_or_reported(built: Built, tmp_path: Path) -> None:
    """onnxruntime 1.29 brought telemetry, and an id of the machine in the user's cache."""
    say(built, tmp_path, "Hello there.")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["said.wav"]


def test_speed_is_a_float_and_scales_duration(built: Built, tmp_path: Path) -> None:
    seconds = {
        speed: say(built, tmp_path, "A sentence of more than a few words.", "--speed", speed)["audio_s"]
        for speed in ("1", "1.5", "2")
    }
    # Durations are whole frames of 25 ms, about 4.5 a token: rounding moves the sum by a few hundredths.
    assert seconds["1.5"] == pytest.approx(seconds["1"] / 1.5, rel=0.1)
    assert seconds["2"] == pytest.approx(seconds["1"] / 2, rel=0.1)


def test_language_changes_how_a_text_is_read(built: Built, tmp_path: Path) -> None:
    american = say(built, tmp_path, "The water is far.")["phonemes"]
    assert say(built, tmp_path, "The water is far.", "--language", "en-gb")["phonemes"] != american
    assert say(built, tmp_path, "The water is far.", "--language", "a")["phonemes"] == american


def test_phonemes_are_spoken_as_they_are(built: Built, tmp_path: Path) -> None:
    from_text = say(built, tmp_path, "Hello there.")
    audio = (tmp_path / "said.wav").read_bytes()
    assert say(built, tmp_path, "--phonemes", from_text["phonemes"])["phonemes"] == from_text["phonemes"]
    assert (tmp_path / "said.wav").read_bytes() == audio


def test_a_text_longer_than_a_pass_is_spoken_whole(built: Built, tmp_path: Path) -> None:
    sentence = "Nobody had expected the river to rise so far, or so fast. "
    once, thrice = (say(built, tmp_path, sentence * n)["audio_s"] for n in (1, 3))
    assert thrice == pytest.approx(3 * once, rel=0.1)


# --- validate -------------------------------------------------------------------------------------------


def test_validate_measures_a_release_from_its_own_bytes(built: Built, tmp_path: Path) -> None:
    before = contents(built.release)
    done = run(tmp_path, "validate", str(built.release), "--json")
    assert done.returncode == 0, (done.stdout, done.stderr)
    now = json.loads(done.stdout)
    then = json.loads((built.release / "validation.json").read_text())
    assert now.pop("release") == str(built.release)
    assert now.keys() == then.keys()
    for name, variant in now["variants"].items():
        assert variant["files"] == then["variants"][name]["files"]
        # Nothing but time and memory may differ.
        for metric, value in then["variants"][name]["metrics"].items():
            if metric.startswith(("parity", "durations", "size")):
                assert variant["metrics"][metric] == value
    assert contents(built.release) == before


def test_validate_judges_for_another_profile_with_the_checkpoint_elsewhere(alone: Built, tmp_path: Path) -> None:
    (tmp_path / "impossible.toml").write_text(PROFILE.replace("== 1", ">= 2"))
    shutil.copytree(alone.checkpoint, tmp_path / "elsewhere")
    release = with_source(alone, tmp_path, str(tmp_path / "gone"))
    before = contents(release)
    where = ["--profile", "impossible.toml", "--checkpoint", str(tmp_path / "elsewhere"), *brief(tmp_path)]
    done = run(tmp_path, "validate", str(release), *where)
    assert done.returncode == 3, (done.stdout, done.stderr)
    first = done.stdout.splitlines()[1].split()
    assert (first[0], first[1], first[-1]) == ("fp32", "durations_equal_ratio", "FAIL")
    assert done.stdout.rstrip().endswith(f"FAILED: {release}")
    assert contents(release) == before


def test_validate_refuses_a_flipped_byte(built: Built, tmp_path: Path) -> None:
    for name in ("model.onnx", "model_quantized.onnx"):
        release = tmp_path / name / "kokoro"
        shutil.copytree(built.release, release)
        flip_a_byte(release / "onnx" / name)
        assert_refused(call(tmp_path, "validate", release), 3, name)


def test_validate_refuses_a_checkpoint_that_is_gone_or_another(built: Built, tmp_path: Path) -> None:
    release = with_source(built, tmp_path, str(tmp_path / "gone"))
    assert_refused(call(tmp_path, "validate", release), 4, str(tmp_path / "gone"))
    other = tmp_path / "other"
    shutil.copytree(built.checkpoint, other)
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    done = call(tmp_path, "validate", release, "--checkpoint", other)
    assert_refused(done, 4, str(other), "not the checkpoint")


def test_validate_asks_the_hub_for_the_very_commit(built: Built, tmp_path: Path) -> None:
    """The branch may have moved on, or be gone, since the release was built."""
    with serve(Hub(tmp_path / "server")) as hub:
        repository = hub.add("org/tiny", {"config.json": b"{}", "a.pth": b"weights"})
        commit = repository.head.oid
        repository.branches.clear()
        for source in ("hub:org/tiny", "hub:org/tiny@v1.0"):
            release = with_source(built, tmp_path / source[-4:], source, commit)
            done = run(tmp_path, "validate", str(release), env={"HF_ENDPOINT": hub.url})
            assert_refused(done, 4, f"hub:org/tiny@{commit}", "not the checkpoint")


def with_source(built: Built, folder: Path, source: str, revision: str | None = None) -> Path:
    """A copy of the release that says it was made from elsewhere."""
    release = folder / "kokoro"
    shutil.copytree(built.release, release)
    reseal(release, lambda manifest: manifest["checkpoint"].update(source=source, revision=revision))
    return release
