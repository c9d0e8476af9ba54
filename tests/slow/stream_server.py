"""A sender in a process of its own: FFmpeg's listener for one client, pictures at 25 a second.

    python -m tests.slow.stream_server URL FORMAT HEIGHTxWIDTH FIRST [stall|garbage AFTER]

Each picture is grey, and its brightness says its number, from FIRST on. After so many pictures
the sender stalls, or sends noise between them. It prints `listening` and then serves for ever.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import io
import random
import sys
import time
from pathlib import Path

import av
import numpy as np

RATE = 25
LEVELS = 38
_WRITE = 2


def library(name: str) -> ctypes.CDLL:
    """A library of FFmpeg: the one PyAV brings, or the system's."""
    bundled = sorted((Path(av.__file__).parent.parent / "av.libs").glob(f"lib{name}-*"))
    found = str(bundled[0]) if bundled else ctypes.util.find_library(name)
    if found is None:
        raise SystemExit(f"no lib{name}")
    return ctypes.CDLL(found)


class Listener(io.RawIOBase):
    """What is written goes to the first client; PyAV opens no output with options."""

    def __init__(self, url: str) -> None:
        self._format = library("avformat")
        options = ctypes.c_void_p()
        library("avutil").av_dict_set(ctypes.byref(options), b"listen", b"1", 0)
        self._io = ctypes.c_void_p()
        reference, given = ctypes.byref(self._io), ctypes.byref(options)
        code = self._format.avio_open2(reference, url.encode(), _WRITE, None, given)
        if code < 0:
            raise SystemExit(f"cannot listen at {url}: {code}")

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        content = bytes(data)  # type: ignore[call-overload]
        self._format.avio_write(self._io, content, len(content))
        self._format.avio_flush(self._io)
        return len(content)


def serve(url: str, form: str, height: int, width: int, first: int, fault: str, after: int) -> None:
    """Send pictures for ever."""
    print("listening", flush=True)
    listener = Listener(url)
    container = av.open(listener, "w", format=form)
    options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5", "crf": "10"}
    stream = container.add_stream("libx264", rate=RATE, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    noise = random.Random(0)
    began_s = time.monotonic()
    number = 0
    while True:
        if fault == "stall" and number >= after:
            time.sleep(3600)
        if fault == "garbage" and number >= after and number % 3 == 0:
            listener.write(noise.randbytes(188 * 3))
        level = 16 + 6 * ((first + number) % LEVELS)
        image = np.full((height, width, 3), level, np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame.pts = number
        container.mux(stream.encode(frame))
        number += 1
        time.sleep(max(0.0, began_s + number / RATE - time.monotonic()))


if __name__ == "__main__":
    given = sys.argv[1:]
    rows, columns = given[2].split("x")
    trouble, start = (given[4], int(given[5])) if len(given) > 4 else ("", 0)
    serve(given[0], given[1], int(rows), int(columns), int(given[3]), trouble, start)
