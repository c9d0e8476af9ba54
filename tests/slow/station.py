"""A live stream over HTTP whose every byte a test chooses: sizes that change, damage."""

from __future__ import annotations

import random
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import av

from fasterseg.types import Size
from tests.parity import street_like

RATE: Final = 25


def transport(path: Path, sizes: list[Size], frames: int) -> bytes:
    """MPEG-TS whose picture size changes in its middle, without a break of its times."""
    parts = []
    for number, size in enumerate(sizes):
        with av.open(str(path), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=RATE, options={"tune": "zerolatency"})
            stream.width, stream.height, stream.pix_fmt = size.width, size.height, "yuv420p"
            for index in range(frames):
                image = street_like(size, index)[0]
                frame = av.VideoFrame.from_ndarray(image, format="bgr24")
                frame.pts, frame.time_base = number * frames + index, Fraction(1, RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        parts.append(path.read_bytes())
    return b"".join(parts)


class Replay(BaseHTTPRequestHandler):
    """Sends the server's bytes once, as a stream without a length."""

    server: Station

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        try:
            self.wfile.write(self.server.content)
        except OSError:
            # The program has seen enough of it.
            return

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests quiet."""


class Station(ThreadingHTTPServer):
    """Sends one stream to everybody."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Replay)
        self.content = b""
        self.url = f"http://127.0.0.1:{self.server_port}/live.ts"


def damaged(content: bytes, seed: int) -> bytes:
    """The stream with bytes changed, taken out and put in, after its first quarter."""
    chance = random.Random(seed)
    data = bytearray(content)
    for _ in range(20):
        at = chance.randrange(len(data) // 4, len(data))
        kind = chance.choice(("change", "cut", "insert"))
        length = chance.choice((1, 40, 188, 1000))
        noise = b"" if kind == "cut" else chance.randbytes(length)
        data[at : at + (0 if kind == "insert" else length)] = noise
    return bytes(data)
