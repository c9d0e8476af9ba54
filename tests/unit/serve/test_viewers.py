"""Viewers over real sockets: those who read, those who never do, and too many of them."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from fasterseg.serve import conversation, pictures
from fasterseg.serve.conversation import ENDED, FULL, IN_FLIGHT, NOT_UNDERSTOOD, READY
from fasterseg.serve.viewers import MAX_VIEWERS
from fasterseg.stream import preview as stream_preview
from fasterseg.types import Size
from tests.unit.serve.clients import closing_code, look, picture_of, text_of, wait_until
from tests.unit.serve.conftest import RawViewer, Serve, result_of

TOO_LARGE = 1009

LARGE = Size(360, 640)
"""Noise of this size is a JPEG of 200 kB and more."""


def test_a_viewer_gets_classes_figures_and_the_pictures_it_asks_for(serve: Serve) -> None:
    live = serve()
    live.write(result_of(0))
    with look(live.url) as viewer:
        assert text_of(viewer, "classes")["classes"][3]["name"] == "Road"
        assert text_of(viewer, "stats")["state"] == "live"
        viewer.send(READY)
        assert picture_of(viewer)["frame_index"] == 0
        viewer.send(READY)
        live.write(result_of(1))
        assert picture_of(viewer)["frame_index"] == 1


def test_who_does_not_ask_gets_no_pictures(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def preview(result: object, widest: int) -> None:
        raise AssertionError("encoded for nobody")

    monkeypatch.setattr(pictures, "preview", preview)
    monkeypatch.setattr(conversation, "STATS_INTERVAL_S", 0.01)
    live = serve()
    with look(live.url) as viewer:
        for index in range(20):
            live.write(result_of(index))
            text_of(viewer, "stats")


def test_a_viewer_that_never_reads_slows_neither_the_run_nor_the_others(serve: Serve) -> None:
    live = serve()
    result = result_of(0, LARGE)
    stuck = RawViewer(live.url)
    for _ in range(IN_FLIGHT):
        stuck.say(READY)
    spent_ms: list[float] = []
    with look(live.url) as viewer:
        seen = 0
        for _ in range(20):
            viewer.send(READY)
            for _ in range(10):
                started = time.perf_counter()
                live.write(result)
                spent_ms.append((time.perf_counter() - started) * 1e3)
            newest = picture_of(viewer)["sequence"]
            assert newest > seen
            seen = newest
    stuck.close()
    assert statistics.median(spent_ms) < 2.0


def test_a_viewer_that_never_reads_is_sent_no_more_than_it_asked_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = stream_preview.preview

    def preview(result: Any, widest: int) -> Any:
        made.append(widest)
        return real(result, widest)

    monkeypatch.setattr(pictures, "preview", preview)
    live = serve()
    stuck = RawViewer(live.url)
    for _ in range(IN_FLIGHT):
        stuck.say(READY)
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        live.write(result_of(0, LARGE))
        time.sleep(0.005)
    stuck.close()
    assert 1 <= len(made) <= IN_FLIGHT


def test_a_stuck_viewer_does_not_hold_up_the_end(serve: Serve) -> None:
    live = serve()
    live.write(result_of(0, LARGE))
    stuck = RawViewer(live.url)
    for _ in range(IN_FLIGHT):
        stuck.say(READY)
    time.sleep(0.3)
    live.write(result_of(1, LARGE))
    started = time.monotonic()
    live.close()
    assert time.monotonic() - started < 5.0
    stuck.close()


def test_one_viewer_too_many_is_told_so_and_a_free_place_is_given(serve: Serve) -> None:
    live = serve()

    def is_let_in() -> bool:
        with look(live.url) as viewer:
            try:
                return bool(viewer.recv(timeout=20))
            except ConnectionClosed:
                return False

    with ExitStack() as others:
        with look(live.url) as first:
            for _ in range(MAX_VIEWERS - 1):
                text_of(others.enter_context(look(live.url)), "stats")
            text_of(first, "stats")
            with look(live.url) as late:
                assert closing_code(late) == FULL
        wait_until(is_let_in, "the place of a viewer that left is free")


def test_viewers_are_told_the_end(serve: Serve) -> None:
    live = serve()
    live.write(result_of(0))
    with look(live.url) as viewer:
        text_of(viewer, "stats")
        live.close()
        while text_of(viewer, "stats")["state"] != "ended":
            pass
        assert closing_code(viewer) == ENDED


@pytest.mark.parametrize("messages", [["READY"], [b"ready"], ["{}"], [READY] * (IN_FLIGHT + 1)])
def test_who_says_something_else_or_asks_for_too_much_is_shown_out(
    messages: list[str | bytes], serve: Serve
) -> None:
    live = serve()
    with look(live.url) as viewer:
        for message in messages:
            viewer.send(message)
        assert closing_code(viewer) == NOT_UNDERSTOOD


def test_a_message_larger_than_any_of_ours_is_not_taken(serve: Serve) -> None:
    with look(serve().url) as viewer:
        viewer.send("x" * 100_000)
        assert closing_code(viewer) == TOO_LARGE


@pytest.mark.parametrize("width", ["", "-1", "1e9", "640", "99999999999", "%00", "٣"])
def test_any_width_may_be_asked_for(width: str, serve: Serve) -> None:
    live = serve()
    live.write(result_of(0))
    with look(live.url, f"stream?width={width}") as viewer:
        viewer.send(READY)
        assert picture_of(viewer)["width"] == 64


def test_a_page_of_another_site_cannot_open_the_stream(serve: Serve) -> None:
    with pytest.raises(InvalidStatus) as refused:
        look(serve().url, origin="http://evil.example.org")
    assert refused.value.response.status_code == 403


def test_the_stream_needs_the_token_as_everything_does(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = serve("http://0.0.0.0:0")
    port = live.url.rpartition(":")[2].partition("/")[0]
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{port}/stream")
    assert refused.value.response.status_code == 401
    query = live.url.partition("?")[2]
    with connect(f"ws://127.0.0.1:{port}/stream?{query}") as viewer:
        assert text_of(viewer, "stats")["state"] == "starting"
