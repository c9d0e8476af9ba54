"""The live page in a real browser: what it shows, what its controls do, and how it looks."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from fasterseg.labels import CITYSCAPES, LabelSet
from fasterseg.overlay import OverlayStyle
from fasterseg.serve.access import Address
from fasterseg.serve.view import View, open_view
from fasterseg.stream.render import render_clip
from fasterseg.types import Size
from tests.chromium import Page, find_chromium, open_page
from tests.running import running
from tests.unit.serve.conftest import OneStream, StubSource, result_of

CHROMIUM = find_chromium()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.onnx,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found"),
]

ENGINE = ("--engine", "onnxruntime", "--size", "96x160", "--threads", "1", "--loop", "0")
HOSTILE = "<img src=x onerror=alert(1)>.mp4"

STATE = "document.getElementById('state')?.dataset.state"
SUMMARY = "document.getElementById('state-text').textContent"
VEILED = "!document.getElementById('veil').hidden"
PIXELS = """(() => {
  const c = document.getElementById('picture');
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let h = 0;
  for (let i = 0; i < d.length; i++) h = (h * 31 + d[i]) | 0;
  return h;
})()"""
CONTRASTS = """(() => {
  const light = (c) => c <= 10 ? c / 3294.6 : ((c / 255 + .055) / 1.055) ** 2.4;
  const parse = (t) => (t.match(/[\\d.]+/g) || []).map(Number);
  const sum = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const speaks = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const texts = [...document.querySelectorAll('body *')].filter((e) =>
    e.checkVisibility() && !e.closest('.stage, .thumb, script') && speaks(e));
  return texts.map((e) => {
    const [a, b] = [sum(parse(getComputedStyle(e).color)), sum(ground(e))];
    return [`${e.tagName} ${e.className} ${e.id}`, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
  });
})()"""
"""[element, contrast of its text] of everything outside the picture, by WCAG's formula."""

CARD = """[...document.querySelectorAll('.card')].find(
  (e) => e.querySelector('h2').textContent === {!r})"""
SHOWN = CARD + "?.querySelector('.veil').hidden"
SAID = CARD + "?.dataset.state"
HIDDEN = "[...document.querySelectorAll('.veil')].filter((e) => e.hidden).length"
COLOURS = """[...document.querySelectorAll('.card')].map((e) => {
  const c = e.querySelector('canvas');
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  let h = 0;
  for (let i = 0; i < d.length; i++) h = (h * 31 + d[i]) | 0;
  return h;
})"""

TOO_SMALL = """[...document.querySelectorAll('.tools button, .row, .slider, .check')].filter(
  (e) => e.checkVisibility() && e.getBoundingClientRect().height < 44).length"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered street in a file whose name is an attack."""
    path = tmp_path_factory.mktemp("clip") / HOSTILE
    render_clip(path, seed=3, frames=6, size=Size(288, 512), fps=10)
    return path


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    assert CHROMIUM is not None
    with open_page(CHROMIUM, tmp_path / "profile") as opened:
        opened.look(1440, 900)
        yield opened


def open_streams(*names: str, where: str = "http://127.0.0.1:0") -> View:
    """A page of these streams; the environment may give it a token."""
    sources: Any = {name: StubSource(f"rtsp://{name}/stream") for name in names}
    address = Address.parse(where)
    return open_view(address, sources=sources, style=OverlayStyle())


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[OneStream]:
    monkeypatch.delenv("FASTERSEG_VIEW_TOKEN", raising=False)
    with open_streams("camera") as opened:
        yield OneStream(opened)


@contextmanager
def filled(view: View, *names: str, labels: LabelSet = CITYSCAPES) -> Iterator[None]:
    """Ten results a second for each of these streams while the block runs."""
    ended = threading.Event()

    def write() -> None:
        index = 0
        while not ended.wait(0.1):
            result = result_of(index, Size(180, 320), labels)
            for name in names:
                view.sinks[name].write(result)
            index += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ended.set()
        writer.join()


def pause(page: Page) -> None:
    page.evaluate("document.getElementById('pause').click()")
    page.wait_for("document.getElementById('pause').getAttribute('aria-pressed') === 'true'")


def check_fit(page: Page, *, phone: bool, texts: int = 60) -> None:
    """Nothing is cut off, everything can be read, and on a phone touched."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > texts
    assert [found for found in contrasts if found[1] < 4.5] == []
    if phone:
        assert page.evaluate(TOO_SMALL) == 0, "fingers need 44 pixels"


def set_alpha(page: Page, percent: int) -> None:
    page.evaluate(
        "(() => { const a = document.getElementById('alpha');"
        f"a.value = {percent}; a.dispatchEvent(new Event('input')); }})()"
    )


def test_a_run_is_seen_and_its_controls_act_on_the_picture(
    page: Page, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_CACHE", str(tmp_path / "cache"))
    with running(clip, *ENGINE) as (process, url):
        page.open(url)
        page.wait_for(f"{STATE} === 'live' && !({VEILED})")
        assert page.evaluate("document.getElementById('source').textContent") == str(clip)
        assert page.evaluate("document.querySelectorAll('img').length") == 0
        assert page.evaluate("document.querySelectorAll('#classes input').length") == 11

        pause(page)
        shown = page.evaluate(PIXELS)
        page.evaluate("document.querySelectorAll('#classes input')[3].click()")
        without_road = page.evaluate(PIXELS)
        page.evaluate("document.querySelectorAll('#classes input')[3].click()")
        assert without_road != shown
        assert page.evaluate(PIXELS) == shown
        seen = {shown, without_road}
        for percent in (0, 100):
            set_alpha(page, percent)
            seen.add(page.evaluate(PIXELS))
        set_alpha(page, 50)
        page.evaluate("document.getElementById('contours').click()")
        seen.add(page.evaluate(PIXELS))
        assert len(seen) == 5, "every control changes the picture in its own way"
        page.screenshot(tmp_path / "paused.png")

        page.evaluate("document.getElementById('stage').focus()")
        page.press(" ")
        frame = page.evaluate("document.getElementById('frame').textContent")
        page.wait_for(f"document.getElementById('frame').textContent !== {frame!r}")

        process.send_signal(signal.SIGSTOP)
        page.wait_for(f"{STATE} === 'offline' && {VEILED}")
        process.send_signal(signal.SIGCONT)
        page.wait_for(f"{STATE} === 'live' && !({VEILED})")
        process.send_signal(signal.SIGTERM)
        page.wait_for(f"{STATE} === 'ended' && {VEILED}")
        assert process.wait(timeout=30) == 130
    refused = [text for text in page.complaints if "ERR_" not in text and "WebSocket" not in text]
    assert not refused


def test_a_lost_stream_is_said_and_not_shown_as_a_frozen_frame(page: Page, live: OneStream) -> None:
    page.open(live.url)
    page.wait_for(f"{STATE} === 'starting' && {VEILED}")
    live.write(result_of(0))
    page.wait_for(f"{STATE} === 'live' && !({VEILED})")
    page.wait_for(f"{STATE} === 'lost' && {VEILED}")
    assert page.evaluate("document.getElementById('veil-title').textContent") == "Stream lost"
    live.write(result_of(1))
    page.wait_for(f"{STATE} === 'live' && !({VEILED})")
    assert not page.complaints


def test_elsewhere_the_door_asks_for_the_token_and_the_address_forgets_it(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTERSEG_VIEW_TOKEN", "a token; with <signs> & spaces")
    with open_streams("camera") as view:
        view.sinks["camera"].write(result_of(0))
        page.open(view.url.partition("?")[0])
        page.wait_for("document.forms.length === 1")
        page.evaluate(
            "document.getElementById('token').value = 'a token; with <signs> & spaces';"
            "document.forms[0].requestSubmit()"
        )
        page.wait_for(f"{STATE} === 'live'")
        assert page.evaluate("location.search") == ""
        assert page.evaluate("document.cookie") == "", "scripts cannot read the cookie"
        page.call("Page.reload")
        page.wait_for(f"{STATE} === 'live'")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (820, 1180), (390, 844), (320, 568)])
def test_it_fits_every_screen_and_can_be_read(
    width: int, height: int, dark: bool, page: Page, live: OneStream, tmp_path: Path
) -> None:
    view = live.view
    view.introduce(CITYSCAPES, model="fasterseg-student", engine="onnxruntime fp32 512x1024, cpu")
    with filled(view, "camera"):
        page.look(width, height, dark=dark, phone=width < 500)
        page.open(view.url)
        page.wait_for(f"{STATE} === 'live' && !({VEILED})")
        page.wait_for("document.querySelectorAll('#stages tr').length === 5")
        check_fit(page, phone=width < 500)
        page.screenshot(tmp_path / "page.png", whole=True)
        assert (tmp_path / "page.png").stat().st_size > 20_000
    assert not page.complaints


def test_all_of_it_is_reached_by_keyboard(page: Page, live: OneStream) -> None:
    live.write(result_of(0))
    page.open(live.url)
    page.wait_for("document.querySelectorAll('#classes input').length === 11")
    assert page.evaluate("document.activeElement.id") == "stage"
    reached = set()
    for _ in range(40):
        page.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.type"))
        time.sleep(0.01)
    wanted = {"pause", "snapshot", "fill", "alpha", "contours", "all", "none", "theme", "checkbox"}
    assert wanted <= reached


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> Iterator[View]:
    """The page of three streams."""
    monkeypatch.delenv("FASTERSEG_VIEW_TOKEN", raising=False)
    with open_streams("front", "back", "side") as opened:
        yield opened


def test_several_streams_are_listed_and_each_one_opened(page: Page, several: View) -> None:
    page.open(several.url)
    page.wait_for("document.querySelectorAll('.card[data-state=starting]').length === 3")
    with filled(several, "front", "back"):
        page.wait_for(f"{SHOWN.format('front')} && {SHOWN.format('back')}")
        assert not page.evaluate(SHOWN.format("side"))
        page.wait_for(f"{SUMMARY} === '1 starting, 2 live'")
        first = page.evaluate(COLOURS)
        page.wait_for(f"{COLOURS}.filter((h, i) => h !== {first}[i]).length === 2")
        page.evaluate(f"{CARD.format('back')}.querySelector('a').click()")
        page.wait_for(f"{STATE} === 'live' && !({VEILED})")
        assert page.evaluate("location.pathname") == "/streams/back/"
        assert "back" in page.evaluate("document.getElementById('source').textContent")
        page.evaluate("document.getElementById('up').click()")
        page.wait_for(SHOWN.format("back"))
        assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert not page.complaints


def test_of_several_a_lost_one_is_said_and_not_shown_as_a_frozen_picture(
    page: Page, several: View
) -> None:
    page.open(several.url)
    several.sinks["front"].write(result_of(0))
    with filled(several, "back", "side"):
        page.wait_for(f"{SAID.format('front')} === 'live' && {SHOWN.format('front')}")
        page.wait_for(f"{SAID.format('front')} === 'lost' && !{SHOWN.format('front')}")
        assert page.evaluate(SHOWN.format("back"))
        assert page.evaluate(SUMMARY) == "1 lost, 2 live"
        several.sinks["front"].write(result_of(1))
        page.wait_for(f"{SAID.format('front')} === 'live' && {SHOWN.format('front')}")
        several.sinks["side"].close()
        page.wait_for(f"{SAID.format('side')} === 'ended' && !{SHOWN.format('side')}")
    several.close()
    page.wait_for(f"{STATE} === 'ended' && {HIDDEN} === 0")


def test_paused_pictures_stay_and_say_so_while_states_go_on(page: Page, several: View) -> None:
    page.open(several.url)
    with filled(several, "front", "back"):
        page.wait_for(f"{SHOWN.format('front')} && {SHOWN.format('back')}")
        page.evaluate("document.getElementById('pause').click()")
        assert page.evaluate(f"{CARD.format('front')}.querySelector('.badge').checkVisibility()")
        kept = page.evaluate(COLOURS)
        several.sinks["back"].close()
        page.wait_for(f"{SAID.format('back')} === 'ended'")
        assert page.evaluate(COLOURS) == kept
        page.evaluate("document.getElementById('pause').click()")
        page.wait_for(f"{COLOURS}[0] !== {kept[0]}")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (820, 1180), (390, 844), (320, 568)])
def test_sixteen_streams_fit_every_screen_over_one_connection(
    width: int, height: int, dark: bool, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTERSEG_VIEW_TOKEN", raising=False)
    names = [f"camera-{number}-of-a-place-with-a-long-name" for number in range(16)]
    with open_streams(*names) as view, filled(view, *names[:14]):
        view.introduce(CITYSCAPES, model="fasterseg-student", engine="onnxruntime fp32 512x1024")
        page.look(width, height, dark=dark, phone=width < 500)
        page.open(view.url)
        page.wait_for(f"{HIDDEN} === 14")
        check_fit(page, phone=width < 500)
        assert view._house.taken == 1
        page.screenshot(tmp_path / "page.png", whole=True)
        assert (tmp_path / "page.png").stat().st_size > 20_000
    assert not page.complaints


def test_the_list_is_used_by_keyboard(page: Page, several: View) -> None:
    page.open(several.url)
    with filled(several, "front", "back", "side"):
        page.wait_for("document.querySelectorAll('.card[data-state=live]').length === 3")
        reached = []
        for _ in range(8):
            page.press("Tab")
            reached.append(
                page.evaluate(
                    "document.activeElement.id || document.activeElement.getAttribute('href')"
                )
            )
        assert reached[:5] == [
            "pause", "theme", "streams/front/", "streams/back/", "streams/side/",
        ]  # fmt: skip
        page.evaluate("document.querySelector('.card a').focus()")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
            "front, live"
        )


def test_the_door_before_a_stream_leads_to_it(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTERSEG_VIEW_TOKEN", "a token; with <signs> & spaces")
    with open_streams("front", "back") as view, filled(view, "front", "back"):
        page.open(view.url.partition("?")[0] + "streams/back/")
        page.wait_for("document.forms.length === 1")
        page.evaluate(
            "document.getElementById('token').value = 'a token; with <signs> & spaces';"
            "document.forms[0].requestSubmit()"
        )
        page.wait_for(f"{STATE} === 'live'")
        assert page.evaluate("location.pathname + location.search") == "/streams/back/"
        page.evaluate("document.getElementById('up').click()")
        page.wait_for(SHOWN.format("back"))


def test_a_page_finds_its_way_when_other_streams_are_shown(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTERSEG_VIEW_TOKEN", raising=False)
    with open_streams("front", "back") as view:
        where = view.url
        view.sinks["back"].write(result_of(0))
        page.open(f"{where}streams/back/")
        page.wait_for(f"{STATE} === 'live'")
    page.wait_for(f"{STATE} === 'ended'")
    with open_streams("camera", where=where) as view:
        view.sinks["camera"].write(result_of(0))
        page.wait_for(f"location.pathname === '/' && {STATE} === 'live'")
    with open_streams("front", "back", where=where):
        page.wait_for("document.querySelectorAll('.card').length === 2")
