"""The process that encodes and sends, against servers of this machine that do not behave."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.stream.sinks_session import Order, ProcessSession

HEIGHT, WIDTH = 64, 96
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT * 3 // 2, WIDTH), np.uint8)
LIMIT_S = 30.0


def order(url: str, form: str = "mpegts", *, height: int = HEIGHT, limit_s: int = 10) -> Order:
    return Order(
        url=url,
        format=form,
        options={"rtsp_transport": "tcp"} if form == "rtsp" else {"flush_packets": "1"},
        height=height,
        width=WIDTH,
        rate="25",
        tick="1/90000",
        key_ticks=90_000,
        encoder_options={
            "preset": "ultrafast", "tune": "zerolatency", "crf": "23", "forced-idr": "1",
        },
        colour={"colorspace": 6, "color_range": 1},
        limit_s=limit_s,
    )  # fmt: skip


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(LIMIT_S)
        yield server


def url_of(server: socket.socket, scheme: str = "tcp") -> str:
    return f"{scheme}://127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def session(given: Order) -> Iterator[ProcessSession]:
    begun = ProcessSession(given)
    try:
        yield begun
    finally:
        begun.close()
        assert begun._process.returncode is not None


def received(server: socket.socket, into: io.BytesIO) -> threading.Thread:
    """A thread that takes all that one client sends."""

    def take() -> None:
        with server.accept()[0] as client:
            while data := client.recv(65536):
                into.write(data)

    thread = threading.Thread(target=take)
    thread.start()
    return thread


def send_many(begun: ProcessSession, planes: NDArray[np.uint8]) -> None:
    """More than any buffer on the way holds."""
    for index in range(2000):
        begun.send(index * 3600, planes)


def grey(level: int) -> NDArray[np.uint8]:
    planes = np.full((HEIGHT * 3 // 2, WIDTH), 128, np.uint8)
    planes[:HEIGHT] = level
    return planes


def test_what_is_sent_can_be_decoded_with_its_times(listening: socket.socket) -> None:
    came = io.BytesIO()
    thread = received(listening, came)
    with session(order(url_of(listening))) as begun:
        begun.connect()
        for index in range(30):
            begun.send(index * 9000, grey(40 + 6 * index))
        begun.finish()
    thread.join(LIMIT_S)
    came.seek(0)
    with av.open(came, "r") as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        pictures = [picture for packet in packets for picture in packet.decode()]
    assert len(pictures) == 30
    times = np.array([packet.pts for packet in packets])
    assert set(np.diff(times)) == {9000}
    # A picture that stands alone each second: ten of these.
    assert [index for index, packet in enumerate(packets) if packet.is_keyframe] == [0, 10, 20]
    assert all(packet.pts == packet.dts for packet in packets)
    levels = [picture.to_ndarray()[:HEIGHT].mean() for picture in pictures]
    assert np.abs(np.array(levels) - (40 + 6 * np.arange(30))).max() < 3
    assert (pictures[0].height, pictures[0].width) == (HEIGHT, WIDTH)


def test_each_picture_leaves_before_the_next_one_comes(listening: socket.socket) -> None:
    with session(order(url_of(listening))) as begun:
        begun.connect()
        client, _ = listening.accept()
        with client:
            client.settimeout(LIMIT_S)
            for index in range(3):
                begun.send(index * 3600, grey(100))
                assert len(client.recv(65536)) > 0


def test_nobody_there_is_told_as_the_system_tells_it(listening: socket.socket) -> None:
    address = url_of(listening)
    listening.close()
    with session(order(address)) as begun, pytest.raises(ConnectionError, match=r"^Connection ref"):
        begun.connect()


def test_an_unknown_name_is_told_as_one() -> None:
    with (
        session(order("rtsp://no.such.host.invalid/x", "rtsp")) as begun,
        pytest.raises(ConnectionError, match=r"Name or service|nodename|name resolution"),
    ):
        begun.connect()


@pytest.mark.parametrize(
    ("scheme", "form"), [("rtsp", "rtsp"), ("rtmp", "flv")], ids=["rtsp", "rtmp"]
)
def test_a_server_that_never_answers_is_given_up(
    listening: socket.socket, scheme: str, form: str
) -> None:
    began_s = time.monotonic()
    with (
        session(order(f"{url_of(listening, scheme)}/app/x", form, limit_s=1)) as begun,
        pytest.raises(ConnectionError, match="no answer for 1 s"),
    ):
        begun.connect()
    assert time.monotonic() - began_s < 10


def test_a_server_that_never_reads_is_given_up(listening: socket.socket) -> None:
    height = 1024
    noise = np.random.default_rng(0).integers(0, 256, (height * 3 // 2, WIDTH), np.uint8)
    with session(order(url_of(listening), height=height, limit_s=1)) as begun:
        begun.connect()
        client, _ = listening.accept()
        with client, pytest.raises(ConnectionError, match="no answer for 1 s"):
            send_many(begun, noise)


def test_a_server_that_hangs_up_is_lost(listening: socket.socket) -> None:
    with session(order(url_of(listening))) as begun:
        begun.connect()
        listening.accept()[0].close()
        with pytest.raises(ConnectionError, match=r"Broken pipe|Connection reset"):
            send_many(begun, NOISE)


def test_killing_ends_what_another_thread_waits_for(listening: socket.socket) -> None:
    with session(order(f"{url_of(listening, 'rtsp')}/x", "rtsp")) as begun:
        timer = threading.Timer(0.3, begun.kill)
        timer.start()
        with pytest.raises(ConnectionError, match="broken off"):
            begun.connect()
        timer.join()


def test_signals_that_ask_every_program_to_end_leave_it_to_its_owner(
    listening: socket.socket,
) -> None:
    came = io.BytesIO()
    thread = received(listening, came)
    with session(order(url_of(listening))) as begun:
        begun.connect()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(begun._process.pid, number)
        begun.send(0, NOISE)
        begun.finish()
    thread.join(LIMIT_S)


def test_a_process_whose_owner_has_gone_ends_by_itself(listening: socket.socket) -> None:
    begun = ProcessSession(order(url_of(listening)))
    begun.connect()
    begun._link.close()
    assert begun._process.wait(LIMIT_S) == 0


def test_the_address_is_in_no_list_of_processes() -> None:
    begun = ProcessSession(order("rtsp://anna:geheim@127.0.0.1:1/x", "rtsp"))
    shown = repr(begun._process.args) + repr(begun._order)
    begun.close()
    assert "geheim" not in shown
