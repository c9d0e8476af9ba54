"""Overlays on their way to a server: what waits, what is left out, what is sent at which time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.errors import OutputError, UsageError
from fasterseg.stream import sinks_network
from fasterseg.stream.many_ends import plan_streams
from fasterseg.stream.outputs import plan_outputs
from fasterseg.stream.pipeline import run_pipeline
from fasterseg.stream.results import SegmentationResult
from fasterseg.stream.segmenter import Segmenter
from fasterseg.stream.sinks import SinkOptions, check_options, open_sinks
from fasterseg.stream.sinks_network import NetworkSink
from fasterseg.stream.sinks_session import Order
from fasterseg.types import Size
from tests.unit.stream.conftest import (
    FakeSource,
    Image,
    StandIn,
    number_of,
    numbered,
    result_of,
    solid,
)

ADDRESS = "rtsp://anna:geheim@server:8554/front"
NAME = "rtsp://server:8554/front"
LIMIT_S = 10.0


class Server:
    """All the sessions of a sink; `sent` holds what came through: ticks and the picture.

    Attributes:
        refuse: reasons for which the next sessions cannot connect.
        fail_at: numbers of the sends that fail.
        free: set: a send returns at once.
    """

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.sent: list[tuple[int, Image]] = []
        self.refuse: list[str] = []
        self.fail_at: set[int] = set()
        self.finished = 0
        self.sends = 0
        self.finish_fails = ""
        self.free = threading.Event()
        self.free.set()
        self.killed = threading.Event()

    def begin(self, order: Order) -> Any:
        self.orders.append(order)
        return self

    def connect(self) -> None:
        if self.refuse:
            raise ConnectionError(self.refuse.pop(0))

    def send(self, ticks: int, planes: NDArray[np.uint8]) -> None:
        self.sends += 1
        while not self.free.wait(0.01):
            if self.killed.is_set():
                raise ConnectionError("broken off")
        if self.sends in self.fail_at:
            raise ConnectionError("Broken pipe")
        picture = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        self.sent.append((ticks, np.asarray(picture, np.uint8)))

    def finish(self) -> None:
        self.finished += 1
        if self.finish_fails:
            raise ConnectionError(self.finish_fails)

    def kill(self) -> None:
        self.killed.set()

    def close(self) -> None:
        pass

    @property
    def numbers(self) -> list[int]:
        """Which of `numbered` have come through."""
        return [number_of(picture) for _, picture in self.sent]


@pytest.fixture
def server() -> Server:
    return Server()


def frame_of(result: SegmentationResult) -> Image:
    return result.frame.image


def sink_of(server: Server, *, live: bool = False, **options: Any) -> NetworkSink:
    source = FakeSource([solid((0, 0, 0))])
    source.live = live
    given = SinkOptions(**{"reconnect_interval_s": 0.001, **options})
    return NetworkSink(ADDRESS, source, frame_of, given, begin=server.begin)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def write(sink: NetworkSink, count: int, step_s: float = 0.0, first: int = 0) -> None:
    for index, picture in enumerate(numbered(first + count)[first:], start=first):
        sink.write(result_of(picture, index, 3.0 + index * step_s))


def test_a_file_is_sent_whole_in_order_with_its_times(server: Server) -> None:
    sink = sink_of(server)
    write(sink, 10, 0.001)
    sink.close()
    assert server.numbers == list(range(10))
    assert [ticks for ticks, _ in server.sent] == [90 * index for index in range(10)]
    assert server.finished == 1
    assert sink.warnings == []
    assert sink.paths == []


def test_a_file_goes_no_faster_than_its_times(server: Server) -> None:
    sink = sink_of(server)
    began_s = time.monotonic()
    write(sink, 6, 0.05)
    sink.close()
    assert time.monotonic() - began_s >= 0.2
    assert server.numbers == list(range(6))


def test_a_file_that_has_become_late_does_not_hurry_after(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_s = 0.0
    waits_s: list[float] = []

    def wait(timeout: float | None = None) -> bool:
        nonlocal clock_s
        waits_s.append(round(timeout or 0.0, 6))
        clock_s += timeout or 0.0
        return False

    sink = NetworkSink(
        ADDRESS,
        FakeSource([solid((0, 0, 0))]),
        frame_of,
        SinkOptions(),
        begin=server.begin,
        clock=lambda: clock_s,
    )
    monkeypatch.setattr(sink._hurry, "wait", wait)
    for index in range(4):
        sink.write(result_of(solid((0, 0, 0)), index, index * 0.5))
        wait_until(lambda count=index: len(server.sent) > count)  # type: ignore[misc]
        clock_s += 10.0 if index == 1 else 0.0
    sink.close()
    # The second waits its turn; after ten seconds lost the third begins anew, the fourth waits.
    assert waits_s == [0.0, 0.0, 0.0, 0.5]


def test_equal_times_become_times_that_grow(server: Server) -> None:
    sink = sink_of(server)
    write(sink, 4, 0.0)
    sink.close()
    assert [ticks for ticks, _ in server.sent] == [0, 1, 2, 3]


def test_a_live_source_never_waits_for_a_server_that_takes_nothing(server: Server) -> None:
    sink = sink_of(server, live=True)
    write(sink, 1)
    server.free.clear()
    began_s = time.monotonic()
    write(sink, 29, first=1)
    assert time.monotonic() - began_s < 1.0
    server.free.set()
    sink.close()
    assert server.numbers[-1] == 29
    sent = len(server.sent)
    assert sent <= 3
    assert sink.warnings == [
        f"{30 - sent} of 30 pictures were not sent to {NAME}: it was away, or too slow"
    ]


def test_the_first_picture_waits_for_the_server_but_not_for_long(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(server, live=True)
    server.free.clear()
    timer = threading.Timer(0.2, server.free.set)
    timer.start()
    write(sink, 1)
    assert server.numbers == [0]
    timer.join()
    sink.close()
    monkeypatch.setattr(sinks_network, "BEGIN_S", 0.05)
    monkeypatch.setattr(sinks_network, "CLOSE_S", 0.05)
    server.free.clear()
    sink = sink_of(server, live=True)
    began_s = time.monotonic()
    write(sink, 1)
    assert time.monotonic() - began_s < 1.0
    server.free.set()
    sink.close()


def test_a_live_source_goes_on_with_the_newest_picture_once_the_server_is_back(
    server: Server,
) -> None:
    sink = sink_of(server, live=True, reconnect_interval_s=0.2)
    write(sink, 1)
    wait_until(lambda: len(server.sent) == 1)
    server.fail_at = {2}
    write(sink, 1, first=1)
    wait_until(lambda: server.sends == 2)
    write(sink, 20, first=2)
    wait_until(lambda: len(server.sent) == 2)
    sink.close()
    assert server.numbers == [0, 21]
    assert len(server.orders) == 2
    assert sink.warnings == [
        f"{NAME} was lost once; pictures that were on their way may be missing",
        f"20 of 22 pictures were not sent to {NAME}: it was away, or too slow",
    ]


def test_a_live_source_is_not_paced(server: Server) -> None:
    sink = sink_of(server, live=True)
    for index in range(3):
        sink.write(result_of(solid((0, 0, 0)), index, index * 3600.0))
        wait_until(lambda count=index: len(server.sent) > count)  # type: ignore[misc]
    sink.close()
    assert [ticks for ticks, _ in server.sent] == [0, 3600 * 90_000, 7200 * 90_000]


def test_a_file_waits_for_a_lost_server_and_repeats_the_picture_that_failed(
    server: Server,
) -> None:
    sink = sink_of(server)
    server.fail_at = {3, 4, 8}
    write(sink, 10)
    sink.close()
    assert server.numbers == list(range(10))
    ticks = [ticks for ticks, _ in server.sent]
    assert np.diff(ticks).min() > 0
    assert [text.split(";")[0] for text in sink.warnings] == [f"{NAME} was lost 3 times"]


@pytest.mark.parametrize("live", [False, True])
def test_a_server_that_is_not_there_ends_the_run_with_its_reason(
    server: Server, live: bool
) -> None:
    server.refuse = ["Connection refused"]
    sink = sink_of(server, live=live)

    def write_on() -> None:
        for index in range(1000):
            sink.write(result_of(solid((0, 0, 0)), index))
            time.sleep(0.001)

    with pytest.raises(OutputError, match=f"^{NAME} cannot be pushed to: Connection refused"):
        write_on()
    with pytest.raises(OutputError):
        sink.close()
    sink.close()


def test_a_server_that_is_not_there_for_the_only_picture_is_an_error_of_close(
    server: Server,
) -> None:
    server.refuse = ["Connection refused"]
    sink = sink_of(server)
    write(sink, 1)
    with pytest.raises(OutputError, match="Connection refused"):
        sink.close()


def test_another_size_begins_another_session(server: Server) -> None:
    sink = sink_of(server)
    sink.write(result_of(solid((0, 0, 200)), 0, 0.0))
    sink.write(result_of(solid((0, 0, 200), Size(31, 65)), 1, 0.001))
    sink.close()
    assert [order.size for order in server.orders] == [Size(64, 96), Size(32, 66)]
    assert server.finished == 2
    assert len(server.sent) == 2


@pytest.mark.parametrize(("h264", "preset"), [("fast", "ultrafast"), ("small", "veryfast")])
def test_it_is_encoded_for_players_that_join_and_do_not_wait(
    server: Server, h264: Any, preset: str
) -> None:
    sink = sink_of(server, h264=h264)
    write(sink, 1)
    sink.close()
    order = server.orders[0]
    assert order.encoder_options["preset"] == preset
    assert order.encoder_options["tune"] == "zerolatency"
    assert order.key_ticks == 90_000
    assert order.options == {"rtsp_transport": "tcp"}


def test_closing_is_bounded_though_the_server_takes_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("BEGIN_S", "PACED_S", "CLOSE_S"):
        monkeypatch.setattr(sinks_network, limit, 0.05)
    sink = sink_of(server)
    server.free.clear()
    write(sink, 1)
    wait_until(lambda: server.sends == 1)
    sink.close()
    assert server.killed.is_set()
    assert sink.warnings[-1].startswith("1 of 1 pictures were not sent")


def test_closing_does_not_wait_for_a_time_that_is_far_away(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks_network, "PACED_S", 0.05)
    sink = sink_of(server)
    write(sink, 2, 3600.0)
    sink.close()
    assert server.numbers == [0, 1]
    assert sink.warnings == []


def test_closing_ends_the_wait_for_a_server_that_is_away(server: Server) -> None:
    sink = sink_of(server, live=True, reconnect_interval_s=3600.0)
    server.fail_at = {1}
    write(sink, 1)
    wait_until(lambda: server.sends == 1)
    began_s = time.monotonic()
    sink.close()
    assert time.monotonic() - began_s < 1.0
    assert "1 of 1 pictures" in sink.warnings[-1]


def test_a_session_that_does_not_end_properly_is_told(server: Server) -> None:
    sink = sink_of(server)
    server.finish_fails = "Broken pipe"
    write(sink, 1)
    sink.close()
    assert sink.warnings == [
        f"{NAME} did not end properly (Broken pipe); the last pictures may be missing"
    ]


def test_nothing_is_begun_before_the_first_result(server: Server) -> None:
    sink_of(server).close()
    assert server.orders == []


def test_what_cannot_be_drawn_is_the_error_of_the_run(server: Server) -> None:
    def draw(result: SegmentationResult) -> Image:
        raise ValueError("no colours")

    sink = NetworkSink(ADDRESS, FakeSource([]), draw, SinkOptions(), begin=server.begin)
    sink.write(result_of(solid((0, 0, 0))))
    with pytest.raises(ValueError, match="no colours"):
        sink.close()


def test_a_run_tells_what_was_not_sent(server: Server) -> None:
    source = FakeSource(numbered(5))
    sink = NetworkSink(
        ADDRESS,
        source,
        frame_of,
        SinkOptions(reconnect_interval_s=0.001),
        begin=server.begin,
    )
    server.fail_at = {2}
    with Segmenter(lambda size: StandIn()) as segmenter:
        summary = run_pipeline(source, segmenter, [sink])
    assert summary.frames == 5
    assert summary.warnings == tuple(sink.warnings) != ()
    assert summary.outputs == ()


def test_an_address_as_output_is_an_overlay_pushed_there() -> None:
    source = FakeSource([solid((0, 0, 0))])
    plans = plan_outputs(ADDRESS, ["overlay"], source)
    assert plans["overlay"].layout == "network"
    assert plans["overlay"].address == ADDRESS
    assert "geheim" not in repr(plans)
    check_options(plans, SinkOptions(legend=True, h264="small"))
    (sink,) = open_sinks(ADDRESS, ["overlay"], source, result_of(solid((0, 0, 0))).labels)
    assert isinstance(sink, NetworkSink)


@pytest.mark.parametrize(
    ("formats", "kind", "message"),
    [
        (["overlay", "stats"], "video", "takes overlay alone, not overlay, stats.*--json FILE"),
        (["classmap"], "video", "takes overlay alone, not classmap"),
        (["overlay"], "images", "several images have no times"),
        (["overlay"], "image", "one image"),
    ],
)
def test_what_cannot_be_pushed_says_what_can(formats: list[str], kind: str, message: str) -> None:
    source = FakeSource([solid((0, 0, 0))])
    source.kind = kind
    with pytest.raises(UsageError, match=message) as caught:
        plan_outputs(ADDRESS, formats, source)
    assert "geheim" not in str(caught.value)


def test_several_inputs_are_pushed_below_one_address() -> None:
    sources = {name: FakeSource([solid((0, 0, 0))]) for name in ("front", "side")}
    outputs = plan_streams(f"{ADDRESS}/", ["overlay"], sources, SinkOptions())
    assert outputs == {"front": f"{ADDRESS}/front", "side": f"{ADDRESS}/side"}
    with pytest.raises(UsageError, match="has a host and a port, and no path"):
        plan_streams("udp://h:9000/", ["overlay"], sources, SinkOptions())
