"""The list of streams: one connection for all of them, in turn, and nothing for nobody."""

from __future__ import annotations

import struct
import threading
import time
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from fasterseg.serve import conversation, pictures
from fasterseg.serve.conversation import ENDED, FULL, NOT_UNDERSTOOD, READY
from fasterseg.serve.view import View
from fasterseg.serve.viewers import MAX_VIEWERS, MAX_VIEWERS_IN_ALL
from fasterseg.serve.wall import IN_FLIGHT
from fasterseg.stream import preview as stream_preview
from fasterseg.stream.live import Account
from fasterseg.types import Size
from tests.unit.serve.clients import closing_code, look, picture_of, text_of, wait_until
from tests.unit.serve.conftest import RawViewer, Serve, StubSource, ask, result_of

SIXTEEN = tuple(f"camera-{number}" for number in range(16))
THUMBNAILS = "thumbnails?width=320"


def write(view: View, index: int, *names: str, size: Size = Size(180, 320)) -> None:  # noqa: B008
    for name in names or view.sinks:
        view.sinks[name].write(result_of(index, size))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Widths of everything that is drawn."""
    calls: list[int] = []
    real = stream_preview.thumbnail

    def thumbnail(result: Any, labels: Any, style: Any, widest: int) -> bytes:
        calls.append(widest)
        return real(result, labels, style, widest)

    monkeypatch.setattr(pictures, "thumbnail", thumbnail)
    return calls


def test_one_connection_shows_every_stream(serve_many: Serve) -> None:
    view = serve_many(*SIXTEEN)
    write(view, 0)
    with look(view.url, THUMBNAILS) as viewer:
        told = text_of(viewer, "streams")
        assert [entry["stream"] for entry in told["streams"]] == list(SIXTEEN)
        seen = set()
        for _ in SIXTEEN:
            viewer.send(READY)
            seen.add(picture_of(viewer)["stream"])
    assert seen == set(SIXTEEN)


def test_a_picture_is_the_overlay_made_small(serve_many: Serve) -> None:
    view = serve_many("front", "back")
    write(view, 0, size=Size(400, 800))
    with look(view.url, THUMBNAILS) as viewer:
        viewer.send(READY)
        while isinstance(message := viewer.recv(timeout=20), str):
            pass
    (length,) = struct.unpack("<I", message[:4])
    read = cv2.imdecode(np.frombuffer(message[4 + length :], np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    assert read.shape == (160, 320, 3)


def test_a_stream_without_frames_holds_up_no_other(serve_many: Serve) -> None:
    view = serve_many("silent", "front", "back")
    with look(view.url, THUMBNAILS) as viewer:
        for _ in range(IN_FLIGHT):
            viewer.send(READY)
        seen = []
        for index in range(3):
            write(view, index, "front", "back")
            for _ in range(2):
                seen.append(picture_of(viewer)["stream"])
                viewer.send(READY)
    assert sorted(seen) == ["back"] * 3 + ["front"] * 3


def test_a_fast_stream_does_not_crowd_out_the_slow_ones(serve_many: Serve) -> None:
    view = serve_many("fast", "slow", "slower")
    ended = threading.Event()

    def write_fast() -> None:
        index = 0
        while not ended.wait(0.002):
            write(view, index := index + 1, "fast", size=Size(48, 64))

    writer = threading.Thread(target=write_fast)
    writer.start()
    try:
        write(view, 0, "slow", "slower")
        with look(view.url, THUMBNAILS) as viewer:
            seen = []
            for _ in range(4):
                viewer.send(READY)
                seen.append(picture_of(viewer)["stream"])
    finally:
        ended.set()
        writer.join()
    assert {"slow", "slower"} <= set(seen)


def test_nothing_is_drawn_for_nobody_nor_for_who_does_not_ask(
    serve_many: Serve, drawn: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "STATS_INTERVAL_S", 0.01)
    view = serve_many("front", "back")
    write(view, 0)
    with look(view.url, THUMBNAILS) as viewer:
        for index in range(10):
            write(view, index)
            text_of(viewer, "streams")
        assert drawn == []
        viewer.send(READY)
        picture_of(viewer)
        assert drawn == [320]


def test_many_viewers_share_each_picture(serve_many: Serve, drawn: list[int]) -> None:
    view = serve_many("front", "back")
    write(view, 0)
    with look(view.url, THUMBNAILS) as first, look(view.url, THUMBNAILS) as second:
        for viewer in (first, second):
            for _ in range(2):
                viewer.send(READY)
                picture_of(viewer)
    assert drawn == [320, 320]


def test_the_rate_of_each_stream_is_bounded(serve_many: Serve) -> None:
    view = serve_many("front", "back")
    started_s = time.monotonic()
    with look(view.url, THUMBNAILS) as viewer:
        for index in range(3):
            write(view, index, "front")
            viewer.send(READY)
            picture_of(viewer)
    assert time.monotonic() - started_s >= 2 / pictures.THUMBNAIL_MAX_FPS - 0.05


def test_a_page_that_never_reads_slows_no_stream(serve_many: Serve) -> None:
    view = serve_many(*SIXTEEN)
    stuck = RawViewer(view.url, "/thumbnails?width=640")
    for _ in range(IN_FLIGHT):
        stuck.say(READY)
    result = result_of(0, Size(360, 640))
    spent_ms = []
    for _ in range(20):
        for sink in view.sinks.values():
            started_s = time.perf_counter()
            sink.write(result)
            spent_ms.append((time.perf_counter() - started_s) * 1e3)
        time.sleep(0.01)
    assert float(np.median(spent_ms)) < 2.0
    assert ask(view.url, "/streams.json").status == 200
    started_s = time.monotonic()
    view.close()
    assert time.monotonic() - started_s < 5.0
    stuck.close()


def test_a_stream_that_ended_is_told_and_the_others_go_on(serve_many: Serve) -> None:
    view = serve_many("front", "back")
    write(view, 0)
    view.sinks["front"].close()
    view.sinks["front"].close()
    with look(view.url, "streams/front/stream") as viewer:
        assert text_of(viewer, "stats")["state"] == "ended"
        assert closing_code(viewer) == ENDED
    with look(view.url, THUMBNAILS) as viewer:
        told = text_of(viewer, "streams")
        assert [entry["state"] for entry in told["streams"]] == ["ended", "live"]
        write(view, 1, "back")
        view.close()
        while {entry["state"] for entry in text_of(viewer, "streams")["streams"]} != {"ended"}:
            pass
        assert closing_code(viewer) == ENDED


def test_who_asks_for_too_much_is_shown_out(serve_many: Serve) -> None:
    with look(serve_many("front", "back").url, THUMBNAILS) as viewer:
        for _ in range(IN_FLIGHT + 1):
            viewer.send(READY)
        assert closing_code(viewer) == NOT_UNDERSTOOD


def test_places_are_counted_for_each_page_and_in_all(serve_many: Serve) -> None:
    view = serve_many(*SIXTEEN)
    paths = [THUMBNAILS, *(f"streams/{name}/stream" for name in SIXTEEN)]
    wanted = [path for path in paths for _ in range(MAX_VIEWERS)][:MAX_VIEWERS_IN_ALL]
    with ExitStack() as stack:
        for path in wanted:
            stack.enter_context(look(view.url, path)).recv(timeout=20)
        for path in (THUMBNAILS, f"streams/{SIXTEEN[-1]}/stream"):
            with look(view.url, path) as late:
                assert closing_code(late) == FULL
        # What watches the program still gets in.
        assert ask(view.url, "/healthz").status == 503
        assert ask(view.url, "/metrics").status == 200
    wait_until(lambda: view._house.taken == 0, "all places are free again")


def test_figures_of_a_live_source_and_its_loss_are_told(serve_many: Serve) -> None:
    class Live(StubSource):
        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.account = Account()

    front, back = Live("rtsp://one/stream"), Live("rtsp://two/stream")
    view = serve_many(sources={"front": front, "back": back})
    front.account.count(captured=9, dropped=4)
    write(view, 0)
    back.account.lost(0.0)
    told = ask(view.url, "/streams.json").json
    first, second = told["streams"]
    assert (first["state"], first["source"], first["frames"]) == ("live", "rtsp://one/stream", 1)
    assert first["counters"]["dropped"] == 4
    assert second["state"] == told["state"] == "lost"
