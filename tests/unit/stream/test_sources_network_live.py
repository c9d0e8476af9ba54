"""Live streams: connections of stand-in containers, and real ones over HTTP and TCP."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from fasterseg.errors import SourceError
from fasterseg.stream import sources_container, sources_live, sources_network
from fasterseg.stream.readahead import ReadAhead
from fasterseg.stream.sources import open_source
from fasterseg.stream.sources_decoded import Converter
from fasterseg.stream.sources_live import LiveSource
from fasterseg.stream.sources_network import LATEST_S, PATIENCE_S, StreamConnection
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.stream.sources_session import Arrival
from tests.cameras import SECRET, Cameras, cameras_running
from tests.unit.stream.conftest import number_of, numbered, write_video
from tests.unit.stream.live_parts import Clock, wait_until
from tests.unit.stream.test_sources_network import Server


class Packet:
    """A packet of one picture; `cost_s` of the clock to decode."""

    def __init__(self, container: Container, number: int, *, key: bool, cost_s: float) -> None:
        self.pts = self.dts = number * 40
        self.is_keyframe = key
        self.size = 1
        self._container = container
        self._number = number
        self._cost_s = cost_s

    def __bytes__(self) -> bytes:
        return bytes([self._number % 256])

    def decode(self) -> list[Any]:
        container = self._container
        container.clock.now_s += self._cost_s
        container.decoded.append(self._number)
        if self._number in container.damaged:
            raise av.error.InvalidDataError(1, "damaged")
        if self._number in container.corrupt:
            return [SimpleNamespace(is_corrupt=True)]
        picture = av.VideoFrame.from_ndarray(numbered(self._number % 38 + 1)[-1], format="bgr24")
        picture.pts = self.pts
        return [picture]


class Container:
    """Stands in for a container that gives 25 pictures a second, as fast as they are taken.

    Args:
        count: pictures it gives.
        cost_s: seconds of the clock that decoding one takes.
        ends_with: what it raises after them.
        keys: every so many-th is a key frame.
        delayed: from which number on each comes so many seconds later.
    """

    def __init__(
        self,
        count: int,
        *,
        cost_s: float = 0.0,
        ends_with: Exception | None = None,
        keys: int = 10,
        damaged: Sequence[int] = (),
        corrupt: Sequence[int] = (),
        flags: int = 0,
        delayed: tuple[int, float] = (0, 0.0),
    ) -> None:
        self.clock = Clock()
        self.decoded: list[int] = []
        self.flushes = 0
        self._delayed = delayed
        self.damaged, self.corrupt = damaged, corrupt
        self.closed = False
        self.duration = None
        self.size = -38
        self.format = SimpleNamespace(flags=flags, name="flv")
        context = SimpleNamespace(flush_buffers=self._flush)
        self.stream = SimpleNamespace(
            average_rate=Fraction(25),
            guessed_rate=None,
            time_base=Fraction(1, 1000),
            duration=None,
            frames=0,
            metadata={},
            disposition=0,
            thread_type="",
            codec_context=context,
        )
        self.streams = SimpleNamespace(video=[self.stream], audio=[])
        self._count, self._cost_s, self._ends_with, self._keys = count, cost_s, ends_with, keys

    def demux(self, stream: Any) -> Iterator[Packet]:
        began_s = self.clock.now_s
        for number in range(self._count):
            # It is there when it is due, or has been waiting since.
            due_s = began_s + number / 25
            due_s += self._delayed[1] if number >= self._delayed[0] else 0.0
            self.clock.now_s = max(self.clock.now_s, due_s)
            yield Packet(self, number, key=number % self._keys == 0, cost_s=self._cost_s)
        if self._ends_with is not None:
            raise self._ends_with

    def close(self) -> None:
        self.closed = True

    def _flush(self) -> None:
        self.flushes += 1


def connection(container: Container, *, drops: bool = True) -> StreamConnection:
    warnings: list[str] = []
    return StreamConnection(
        container, "cam", Converter(warnings), warnings, drops=drops, clock=container.clock
    )


def taken(arrivals: Sequence[Arrival]) -> list[int]:
    """Which pictures of the stand-in can be had."""
    found = []
    for arrival in arrivals:
        if arrival.keep is not None:
            pixels = arrival.keep()
            assert pixels is not None
            image = pixels()
            assert image is not None
            found.append(number_of(image))
    return found


def test_pictures_come_with_their_own_times_and_are_converted_later() -> None:
    arrivals = list(connection(Container(5)).arrivals())
    assert [arrival.time_s for arrival in arrivals] == pytest.approx([n / 25 for n in range(5)])
    assert taken(arrivals) == [0, 1, 2, 3, 4]
    assert all(arrival.late_s == 0 for arrival in arrivals)


def test_a_container_that_counts_frames_by_a_rate_has_no_times() -> None:
    made = connection(Container(3, flags=0x0080))
    assert [arrival.time_s for arrival in made.arrivals()] == [None] * 3
    assert (made.fps, made.time_base) == (None, None)


def test_damaged_packets_and_concealed_pictures_are_lost_and_never_given() -> None:
    made = connection(Container(6, damaged=[1], corrupt=[3, 4]))
    assert taken(list(made.arrivals())) == [0, 2, 5]
    assert made.lost_frames == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (av.error.ExitError(1, "Immediate exit requested"), "nothing came any more"),
        (av.error.ConnectionResetError(104, "Connection reset by peer"), "Connection reset"),
    ],
)
def test_a_broken_connection_says_why_without_ffmpegs_error(error: Any, reason: str) -> None:
    made = connection(Container(2, ends_with=error))
    with pytest.raises(SourceError, match=rf"cam: the stream was lost \({reason}") as caught:
        list(made.arrivals())
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_where_decoding_keeps_up_nothing_is_passed_over() -> None:
    container = Container(300, cost_s=0.03)
    arrivals = list(connection(container).arrivals())
    assert len(container.decoded) == 300
    assert max(arrival.late_s for arrival in arrivals) < 0.1


def test_where_decoding_is_too_slow_lateness_stays_bounded_by_passing_over_groups() -> None:
    container = Container(1000, cost_s=0.05)
    arrivals = list(connection(container).arrivals())
    assert len(arrivals) == 1000
    missing = set(range(1000)) - set(container.decoded)
    assert 100 < len(missing) < 500
    # Decoding goes on with a key frame, from an empty decoder.
    resumed = [number for number in container.decoded if number - 1 in missing]
    assert all(number % 10 == 0 for number in resumed)
    assert container.flushes == len(resumed)
    given = [arrival for arrival in arrivals if arrival.keep is not None]
    assert max(arrival.late_s for arrival in given) < LATEST_S + PATIENCE_S


def test_a_way_that_has_become_longer_is_no_reason_to_pass_over_pictures() -> None:
    container = Container(1000, delayed=(250, 5.0))
    list(connection(container).arrivals())
    missing = set(range(1000)) - set(container.decoded)
    assert len(missing) <= 20
    assert max(missing) < 350


def test_who_takes_every_frame_gets_every_frame_however_late() -> None:
    container = Container(300, cost_s=0.05)
    list(connection(container, drops=False).arrivals())
    assert len(container.decoded) == 300


@pytest.fixture
def cameras() -> Iterator[Cameras]:
    with cameras_running() as running:
        yield running


def descriptors() -> set[str]:
    """What this process has open, but for the folder it looks into."""
    return {f"{fd.name} {fd.readlink()}" for fd in Path("/proc/self/fd").iterdir() if fd.exists()}


@pytest.fixture(autouse=True)
def _no_connection_is_left() -> Iterator[None]:
    before = descriptors()
    yield
    wait_until(lambda: not any("socket" in fd for fd in descriptors() - before))


def live(uri: str, **options: Any) -> LiveSource:
    """The live source, all frames, a short interval."""
    given: dict[str, Any] = {"drop": "none", "reconnect_interval_s": 0.05, **options}
    source = open_source(uri, SourceOptions(**given))
    assert isinstance(source, LiveSource)
    return source


def test_motion_jpeg_is_live_and_opened_again_five_times(cameras: Cameras) -> None:
    source = live(f"{cameras.url}/video.mjpg?token={SECRET}", limit=60)
    frames = list(source)
    source.close()
    assert cameras.connections == 6
    assert [number_of(frame.image) for frame in frames] == list(range(10)) * 6
    assert [frame.index for frame in frames] == list(range(60))
    times = np.array([frame.timestamp_s for frame in frames])
    assert np.diff(times).min() > 0
    # The clock's, and not the 25 a second that FFmpeg makes up for pictures without times.
    assert np.diff(times)[9::10].min() >= 0.03
    count = source.account.now()
    assert (count.reconnects, count.captured - count.passed_over) == (5, 60)
    assert count.seconds_offline >= 5 * 0.04
    assert source.fps is None


def test_a_stalled_stream_is_given_up_and_opened_again(cameras: Cameras) -> None:
    cameras.stalls = True
    source = live(f"{cameras.url}/video.mjpg", limit=20, stall_s=0.3)
    assert len(list(source)) == 20
    source.close()
    assert source.account.now().reconnects == 1
    assert 0.3 <= source.account.now().seconds_offline < 10
    cameras.released.set()


def test_a_stream_that_comes_back_larger_is_fitted(cameras: Cameras) -> None:
    cameras.size_of_second = (128, 192)
    source = live(f"{cameras.url}/video.mjpg", limit=15)
    assert {frame.size for frame in source} == {source.size}
    source.close()
    assert any("frame size changes from 64x96 to 128x192" in text for text in source.warnings)


def test_garbage_between_pictures_is_lost_and_nothing_is_made_of_it(cameras: Cameras) -> None:
    cameras.garbage_at = 4
    source = live(f"{cameras.url}/video.mjpg", limit=9)
    numbers = [number_of(frame.image) for frame in source]
    source.close()
    assert set(numbers) <= {0, 1, 2, 3, 5, 6, 7, 8, 9}
    assert len(numbers) == 9
    assert source.lost_frames >= 1


def test_an_interrupt_of_a_silent_stream_does_not_wait_for_its_timeout(cameras: Cameras) -> None:
    cameras.stalls = True
    source = live(f"{cameras.url}/video.mjpg", stall_s=4.0, drop="oldest")
    started = time.monotonic()
    with ReadAhead(source, lambda frame: frame.index) as reader:
        assert next(iter(reader)) >= 0
        time.sleep(0.3)
    source.close()
    assert time.monotonic() - started < 3.5
    # FFmpeg cannot be woken; its thread ends by itself at the time limit of its read.
    wait_until(lambda: all(t.name != "fasterseg-live" for t in threading.enumerate()))


def test_transport_stream_of_unknown_length_is_live(cameras: Cameras, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", numbered(20), format="mpegts")
    cameras.transport, cameras.transport_s = path.read_bytes(), 0.8
    source = live(f"{cameras.url}/live.ts", limit=40)
    numbers = [number_of(frame.image) for frame in source]
    source.close()
    assert numbers == [*range(20), *range(20)]
    assert source.fps == 25
    assert cameras.connections == 2


def test_transport_stream_that_comes_faster_than_time_and_again_is_a_recording(
    cameras: Cameras, tmp_path: Path
) -> None:
    cameras.transport = write_video(tmp_path / "a.ts", numbered(20), format="mpegts").read_bytes()
    source = live(f"{cameras.url}/live.ts", limit=100)
    numbers = [number_of(frame.image) for frame in source]
    source.close()
    assert numbers == [*range(20)]
    assert cameras.connections == 2
    assert "is a recording: asked again, it began anew" in source.warnings[-1]
    count = source.account.now()
    assert (count.captured, count.reconnects, count.seconds_offline) == (20, 0, 0.0)


def test_server_that_is_gone_for_good_is_exit_code_3_and_keeps_the_secret(
    cameras: Cameras, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = f"{cameras.url}/video.mjpg?token={SECRET}"
    av.logging.set_level(av.logging.DEBUG)
    try:
        with caplog.at_level(logging.DEBUG):
            source = live(uri, reconnect_attempts=2)
            cameras.shutdown()
            cameras.socket.close()
            with pytest.raises(SourceError) as caught:
                list(source)
            source.close()
    finally:
        av.logging.set_level(None)
    assert caught.value.exit_code == 3
    assert "was lost for good: 2 attempts failed" in str(caught.value)
    told = [str(caught.value), caplog.text, source.name, source.stem, *source.warnings]
    told += [*source.notes, *capfd.readouterr(), *(t.name for t in threading.enumerate())]
    error: BaseException | None = caught.value
    while error is not None:
        told += [str(error), repr(error.__dict__)]
        error = error.__cause__ or error.__context__
    assert SECRET not in "\n".join(told)
    assert "127.0.0.1" in str(caught.value)


def test_a_recording_over_http_says_that_it_is_not_opened_again(tmp_path: Path) -> None:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.files["/a.mp4"] = write_video(tmp_path / "a.mp4", numbered(3)).read_bytes()
        source = open_source(f"{server.url}/a.mp4", SourceOptions(reconnect_attempts=3))
        assert len(list(source)) == 3
        source.close()
        server.shutdown()
        thread.join()
    assert not source.live
    assert "is a recording: it is read once" in source.notes[-1]


def test_first_opening_over_http_is_tried_again_where_asked(cameras: Cameras) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken_port:
        port = taken_port.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(SourceError, match="Connection refused"):
        live(f"http://127.0.0.1:{port}/x", reconnect_attempts=2)
    assert time.monotonic() - started >= 0.1


def test_ctrl_c_ends_the_opening_of_a_server_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources_container, "NETWORK_TIMEOUT_S", 1.0)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        started = time.monotonic()
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            open_source(url)
        assert time.monotonic() - started < 0.8
        timer.join()
        wait_until(lambda: all("fasterseg" not in t.name for t in threading.enumerate()))


def test_tcp_stream_is_opened_again(tmp_path: Path) -> None:
    data = write_video(tmp_path / "a.ts", numbered(20), format="mpegts").read_bytes()
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            for _ in range(3):
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        source = live(f"tcp://127.0.0.1:{server.getsockname()[1]}", limit=60)
        numbers = [number_of(frame.image) for frame in source]
        source.close()
        thread.join()
    assert numbers == [*range(20)] * 3
    assert source.account.now().reconnects == 2


def test_live_limits_are_sensible() -> None:
    assert sources_live.CONNECT_S > 2 * sources_container.NETWORK_TIMEOUT_S
    assert sources_network.LATEST_S > 0
