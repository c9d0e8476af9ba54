"""A server on this machine that says whatever a case wants, and video in pieces to be sent."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

Script = Callable[[socket.socket, int], None]
"""`script(connection, number)`: serves one connection of a case, the first one of number 0."""

MOST_CONNECTIONS: Final = 6
"""Further ones are closed at once: who redirects to itself would be asked for ever."""

PATIENCE_S: Final = 2.0
_TS: Final = 188
_TS_IN_PACKET: Final = 7
_LARGEST_UNIT: Final = 1200


class Listener:
    """Accepts connections in a thread, and serves each in one of its own."""

    def __init__(self) -> None:
        self.script: Script = lambda connection, number: None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._lock = threading.Lock()
        self._served: list[tuple[threading.Thread, socket.socket]] = []
        self._thread = threading.Thread(target=self._accept, name="fuzz-listener", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """End the connections of a case; the next one begins to count them anew."""
        with self._lock:
            served, self._served = self._served, []
        for thread, connection in served:
            # Wakes whoever waits in it.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()
            connection.close()

    def close(self) -> None:
        """Take no more connections."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self.settle()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE_S)
            with self._lock:
                number = len(self._served)
                thread = threading.Thread(
                    target=self._serve, args=(connection, number), name="fuzz-server", daemon=True
                )
                self._served.append((thread, connection))
                thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            if number < MOST_CONNECTIONS:
                self.script(connection, number)
            connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """A listener for all cases of a target."""
    listener = Listener()
    try:
        yield listener
    finally:
        listener.close()


def heads(connection: socket.socket) -> Iterator[bytes]:
    """What a client asks: heads up to their empty line, until it leaves."""
    waiting = b""
    while True:
        while b"\r\n\r\n" not in waiting:
            data = connection.recv(4096)
            if not data:
                return
            # RTSP: what a receiver reports between its requests.
            waiting = waiting + data if waiting or not data.startswith(b"$") else b""
        head, _, waiting = waiting.partition(b"\r\n\r\n")
        yield head


def packets_of_ts(data: bytes) -> list[bytes]:
    """MPEG-TS as RTP packets, payload type 33."""
    step = _TS * _TS_IN_PACKET
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    return [_rtp(33, number, number * 900, piece) for number, piece in enumerate(pieces)]


def packets_of_h264(data: bytes) -> list[bytes]:
    """An H.264 byte stream as RTP packets, payload type 96: whole units, or fragments (FU-A)."""
    packets: list[bytes] = []
    ticks = 0
    for unit in units_of(data):
        ticks += 3600 * ((unit[0] & 31) in (1, 5))
        packets += [_rtp(96, len(packets) + n, ticks, p) for n, p in enumerate(_payloads(unit))]
    return packets


def units_of(data: bytes) -> list[bytes]:
    """The units of an H.264 byte stream."""
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1") if unit.rstrip(b"\0")]


def sdp(data: bytes | None, port: int) -> str:
    """Session description of H.264 in units of this stream, or of MPEG-TS."""
    lines = ["v=0", f"o=- 1 1 IN IP4 127.0.0.1:{port}", "s=fuzz", "t=0 0", "a=control:*"]
    if data is None:
        lines += ["m=video 0 RTP/AVP 33", "a=control:track1"]
    else:
        sets = ",".join(
            base64.b64encode(unit).decode() for unit in units_of(data) if unit[0] & 31 in (7, 8)
        )
        lines += [
            "m=video 0 RTP/AVP 96",
            "a=rtpmap:96 H264/90000",
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}",
            "a=control:track1",
        ]
    return "\r\n".join(lines) + "\r\n"


def _payloads(unit: bytes) -> list[bytes]:
    if len(unit) <= _LARGEST_UNIT:
        return [unit]
    pieces = [unit[at : at + _LARGEST_UNIT] for at in range(1, len(unit), _LARGEST_UNIT)]
    indicator, kind = (unit[0] & 0xE0) | 28, unit[0] & 31
    last = len(pieces) - 1
    return [
        bytes([indicator, kind | (n == 0) << 7 | (n == last) << 6]) + piece
        for n, piece in enumerate(pieces)
    ]


def _rtp(kind: int, number: int, ticks: int, payload: bytes) -> bytes:
    head = bytes([0x80, kind]) + (number & 0xFFFF).to_bytes(2, "big")
    return head + (ticks & 0xFFFFFFFF).to_bytes(4, "big") + b"fuzz" + payload
