"""The pages as Chromium has them: quiet, alone, in shape, and deaf to hostile names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report.browser import Browser
from report.hostile import MARK, NAMES, hostile
from report.releases import measured, with_audio

from jtts_export import report

PHONE, DESK = (390, 844), (1280, 900)


@pytest.fixture(scope="module")
def page(whole: dict[str, Any], samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    report.write(whole, samples, folder)
    return folder / "index.html"


def assert_quiet(browser: Browser, page: Path) -> None:
    """No word in the console, no dialog, and nothing asked for but the page itself."""
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]


def assert_in_shape(browser: Browser, width: int) -> None:
    widest = browser.run(
        "Math.max(document.documentElement.scrollWidth, ...[...document.querySelectorAll('body *')]"
        ".filter(e => !e.closest('.box') && !e.closest('svg')).map(e => e.getBoundingClientRect().right))"
    )
    assert widest <= width


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_the_page_is_quiet_and_does_not_scroll_sideways(
    browser: Browser, page: Path, size: tuple[int, int], dark: bool
) -> None:
    browser.open(page, *size, dark)
    assert_quiet(browser, page)
    assert_in_shape(browser, size[0])
    dark_page = browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 20, 23)"
    assert dark_page == dark


def test_every_player_can_play_and_every_picture_is_drawn(browser: Browser, page: Path) -> None:
    browser.open(page)
    ready = "Promise.all([...document.querySelectorAll('audio')].map(a => a.readyState ? a.duration : new Promise("
    durations = browser.run(ready + "done => a.addEventListener('loadedmetadata', () => done(a.duration)))))")
    # An MP3 is whole frames, and an encoder's delay beside: 0.1 s at most.
    assert durations == [pytest.approx(4, abs=0.1)] * 24
    decoded = "Promise.all([...document.querySelectorAll('image')].map(i => { const p = new Image();"
    widths = browser.run(decoded + " p.src = i.href.baseVal; return p.decode().then(() => p.width); }))")
    assert len(widths) == 6 * (4 + 3)  # a spectrogram each, and a variant's difference
    assert min(widths) > 100
    assert_quiet(browser, page)


def test_the_switch_goes_on_at_the_same_moment(browser: Browser, page: Path) -> None:
    browser.open(page)
    state = browser.run(
        """(async () => {
            const article = document.querySelector(".case");
            const [first, second] = article.querySelectorAll("audio");
            const [a, b] = article.querySelectorAll(".switch button");
            a.click();
            await new Promise(done => first.addEventListener("playing", done, { once: true }));
            first.currentTime = 1.5;
            await new Promise(done => first.addEventListener("seeked", done, { once: true }));
            b.click();
            await new Promise(done => second.addEventListener("playing", done, { once: true }));
            return [first.paused, second.paused, first.currentTime, second.currentTime, b.ariaPressed];
        })()"""
    )
    assert state[:2] == [True, False]
    assert state[3] == pytest.approx(state[2], abs=0.2)  # it plays on while we ask
    assert state[3] >= 1.5
    assert state[4] == "true"
    assert_quiet(browser, page)


def test_without_its_script_the_page_has_players_and_no_dead_buttons(browser: Browser, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        assert browser.run("document.querySelectorAll('audio[controls]').length") == 24
        assert browser.run("document.querySelector('button').getBoundingClientRect().width") == 0
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_hostile_names_are_text(browser: Browser, tmp_path: Path, name: str) -> None:
    plain = with_audio(measured(("fp32", "int8")), tmp_path / "samples", cases=1, seconds=0.3)
    report.write(hostile(plain, name), tmp_path / "samples", tmp_path)
    other = tmp_path / "compare"
    twice, folder = hostile(plain, name), tmp_path / "samples"
    report.compare(twice, twice, folder, folder, (name, name)).write(other)
    for page, players in ((tmp_path / "index.html", 3), (other / "index.html", 5)):
        browser.open(page, *PHONE)
        assert_quiet(browser, page)
        assert_in_shape(browser, PHONE[0])
        assert browser.run(f"window.{MARK}") is None
        assert browser.run("document.querySelectorAll('script').length") == 1
        assert browser.run("document.querySelectorAll('img, [onload], [onerror], x').length") == 0
        assert browser.run("document.querySelectorAll('audio').length") == players
        text = browser.run("document.body.textContent")
        assert "\u202e" not in text
        assert name in text or not name.startswith("{{")  # no template ran it
        assert max(map(len, re.findall("(?:long)+", text)), default=0) <= 400  # long names are cut


def test_the_policy_forbids_what_the_page_does_not_need(browser: Browser, page: Path, tmp_path: Path) -> None:
    attack = (
        "<img src='https://example.invalid/x.png'><script>document.title='ran'</script><b style='color:red'>b</b>"
    )
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text(encoding="utf-8").replace("</main>", f"{attack}</main>"), encoding="utf-8")
    browser.open(changed)
    assert len(browser.complaints()) >= 3  # refused: a picture, a script, a style
    assert browser.run("document.title") != "ran"
    assert not any(
        e.get("method") == "Network.responseReceived" and "example" in str(e["params"]) for e in browser.events
    )


def test_a_page_of_tokens_is_quiet(browser: Browser, tmp_path: Path) -> None:
    t3 = {**measured(("fp32",)), "model": "t3"}
    report.write(t3, None, tmp_path)
    browser.open(tmp_path / "index.html", *PHONE)
    assert_quiet(browser, tmp_path / "index.html")
    assert_in_shape(browser, PHONE[0])
