"""The program that encodes pictures and sends them to a server, started by `sinks_network`.

A process of its own: nothing wakes FFmpeg while it waits for a server that does not answer, and
PyAV stops every other Python thread while it connects or hangs up. Here an alarm ends it.

Standard input is a socket. What comes: a line of JSON (the fields of `sinks_network.Order`), then
for each picture 8 bytes with its time in ticks (signed, little-endian) and its I420 planes; the
end of input ends the session. What goes back: `+` once connected, `+` for each picture that was
handed to the network, and where it fails `-` with the reason in UTF-8.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import av
import numpy as np

DONE: Final = b"+"
FAILED: Final = b"-"
TIME: Final = struct.Struct("<q")

_KEY_PICTURE: Final = 1
"""FFmpeg's AV_PICTURE_TYPE_I."""


def main() -> None:
    """Serve one session, and end without cleaning up what FFmpeg may hang in."""
    # Whoever started this ends it, by closing the socket; a terminal or systemd ask all at once.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    link = socket.socket(fileno=os.dup(0))
    failure = ""
    with contextlib.suppress(OSError), link.makefile("rb") as given:
        order = json.loads(given.readline())
        try:
            send(order, given, lambda: link.sendall(DONE))
        except (av.error.FFmpegError, socket.gaierror) as error:
            failure = error.strerror or type(error).__name__
    with contextlib.suppress(OSError):
        link.sendall(FAILED + failure.encode() if failure else DONE)
    os._exit(1 if failure else 0)


def send(order: dict[str, Any], given: BinaryIO, tell: Callable[[], None]) -> None:
    """Connect, send pictures until there are no more, hang up.

    Args:
        order: what to send where.
        given: times and planes.
        tell: called when connected, and after each picture.

    Raises:
        socket.gaierror: the server's name is not known.
        av.error.FFmpegError: the server is not there, refuses, or is lost.
    """
    limit_s, height, width = order["limit_s"], order["height"], order["width"]
    signal.alarm(limit_s)
    # FFmpeg calls an unknown name an input/output error.
    socket.getaddrinfo(urlsplit(order["url"]).hostname, None)
    options = order["options"]
    container = av.open(order["url"], "w", format=order["format"], container_options=options)
    stream = _stream(container, order)
    container.start_encoding()
    tell()
    key_due = None
    while True:
        # For pictures it may wait; for the network no longer than that.
        signal.alarm(0)
        time, planes = given.read(TIME.size), given.read(height * width * 3 // 2)
        signal.alarm(limit_s)
        if len(planes) < height * width * 3 // 2:
            break
        pixels = np.frombuffer(planes, np.uint8).reshape(height * 3 // 2, width)
        frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
        frame.pts, frame.time_base = TIME.unpack(time)[0], Fraction(order["tick"])
        if key_due is None or frame.pts >= key_due:
            frame.pict_type = _KEY_PICTURE
            key_due = frame.pts + order["key_ticks"]
        container.mux(stream.encode(frame))
        tell()
    container.mux(stream.encode(None))
    container.close()


def _stream(container: Any, order: dict[str, Any]) -> Any:
    """The encoded stream, as it was ordered."""
    stream = container.add_stream(
        "libx264", rate=Fraction(order["rate"]), options=order["encoder_options"]
    )
    stream.width, stream.height, stream.pix_fmt = order["width"], order["height"], "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(order["tick"])
    context.thread_count = 1
    for field, value in order["colour"].items():
        setattr(context, field, value)
    return stream


if __name__ == "__main__":
    main()
