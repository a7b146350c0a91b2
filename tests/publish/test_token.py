"""The token is sent to the hub, and shown nowhere."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from command import COMMAND, call, environment
from hub.server import Fault, Hub
from publish.releases import REPO, TOKEN, Waits, put

from jtts_export import redact
from jtts_export.errors import OutsideError
from jtts_export.redact import HIDDEN, redacted

SHAPELESS = "nothing-like-a-token"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have registered."""
    monkeypatch.setattr(redact, "_known", set())


def said(error: BaseException) -> str:
    """All that a traceback of an error shows, as in a log."""
    return "".join(traceback.format_exception(error)) + str(error) + repr(error)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 429, 500])
@pytest.mark.parametrize("header", ["X-Error-Message", "X-Error-Code", "Retry-After", "X-HF-Warning"])
def test_a_hub_that_repeats_it_is_not_repeated(
    hub: Hub, made: Path, status: int, header: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for part in ("/revision/", "/preupload/", "/batch", "/commit/", "/tag/"):
        hub.repositories.clear()
        fault = Fault("status", status, {header: f"token; {TOKEN} is not {TOKEN[:-1]} Bearer {TOKEN}"})
        hub.fault = lambda r, part=part, fault=fault: fault if part in r.path else None  # type: ignore[misc]
        waits = Waits()
        try:
            put(made, waits, limit_s=20)
        except OutsideError as error:
            assert TOKEN not in said(error)
        assert TOKEN not in "".join(waits.told)
    printed = capfd.readouterr()
    assert TOKEN not in printed.out + printed.err


def test_a_bug_is_logged_without_it(hub: Hub, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where an error, or one that it was raised from, quotes it; and where it has no known shape."""
    for token in (TOKEN, SHAPELESS):
        monkeypatch.setenv("HF_TOKEN", token)

        def broken(*_: object, token: str = token) -> None:
            try:
                raise ValueError(f"headers: {{'authorization': 'Bearer {token}'}}")
            except ValueError as error:
                raise KeyError(token) from error

        monkeypatch.setattr("jtts_export.publish.run._published", broken)
        done = call(tmp_path, "publish", made, "--repo", REPO)
        assert done.returncode == 1
        assert "a bug: KeyError" in done.stderr
        log = Path(done.stderr.strip().rpartition(" ")[2]).read_text()
        assert "in broken" in log
        assert "ValueError: headers" in log
        assert HIDDEN in log
        assert token not in done.stdout + done.stderr + log


@pytest.mark.parametrize("odd", ["hf_\x01control", "hf_spaced out", "hf_ünicode", "hf_new\nline"])
def test_a_token_that_cannot_be_one_is_not_quoted(
    hub: Hub, made: Path, monkeypatch: pytest.MonkeyPatch, odd: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """An HTTP library would, with the header that it cannot send."""
    monkeypatch.setenv("HF_TOKEN", odd)
    try:
        put(made, Waits())
    except OutsideError as error:
        assert odd[4:] not in said(error)
    printed = capfd.readouterr()
    assert odd[4:] not in printed.out + printed.err
    assert all(odd not in request for request in hub.requests)


def test_a_login_is_used_where_the_environment_has_none(
    hub: Hub, made: Path, waits: Waits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    put(made, waits)
    assert REPO in hub.repositories
    assert redacted(f"x{TOKEN}x") == f"x{HIDDEN}x"


@pytest.mark.parametrize("fault", [None, Fault("status", 403, {"X-Error-Message": f"no, {TOKEN}"})])
def test_the_command_with_every_debug_switch(hub: Hub, made: Path, tmp_path: Path, fault: Fault | None) -> None:
    """Outputs, and every file that it leaves."""
    hub.fault = lambda request: fault if "/commit/" in request.path else None
    switches = {"HF_DEBUG": "1", "HF_HUB_VERBOSITY": "debug", "PYTHONDEVMODE": "1"}
    env = environment(tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN, **switches)
    command = [*COMMAND, "publish", str(made), "--repo", REPO, "--json"]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == (4 if fault else 0), done.stderr
    assert TOKEN not in done.stdout + done.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "hub" not in path.parts]
    assert all(TOKEN.encode() not in path.read_bytes() for path in left)


def test_the_log_of_a_bug_anywhere_has_no_token_of_the_environment(tmp_path: Path) -> None:
    code = (
        "import sys; from jtts_export import cli\n"
        "cli.cli.callback = None\nsys.argv = ['jtts-export', 'models']\n"
        "cli.models.callback = lambda **_: (_ for _ in ()).throw(RuntimeError('https://me:pass@host ' + "
        "__import__('os').environ['HF_TOKEN']))\ncli.main()"
    )
    env = environment(tmp_path, HF_TOKEN=SHAPELESS)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    log = Path(done.stderr.strip().rpartition(" ")[2]).read_text()
    for secret in (SHAPELESS, "me:pass"):
        assert secret not in done.stderr + log
    assert f"https://{HIDDEN}@host" in log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"x {TOKEN}.", f"x {HIDDEN}."),
        ("Authorization: Bearer abc.def-ghi", f"Authorization: Bearer {HIDDEN}"),
        ("http://user:secret@proxy:80/x", f"http://{HIDDEN}@proxy:80/x"),
        ("hf_hub_download and hf_api are no tokens", "hf_hub_download and hf_api are no tokens"),
        ("org/name@main, a@b.c", "org/name@main, a@b.c"),
    ],
)
def test_what_is_hidden(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setenv("HF_TOKEN", "")
    assert redacted(text) == shown
