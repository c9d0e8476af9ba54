"""A live camera for a soak: MPEG-TS over HTTP, the same clip for ever with times that grow.

    python benchmarks/soak_sender.py CLIP.ts PORT FPS

Packets are encoded once, so that sending costs next to nothing, and sent at FPS. A child of
`soak.py`, which kills it. It prints `listening` and then serves for ever.
"""

from __future__ import annotations

import itertools
import socket
import sys
import time
from dataclasses import dataclass
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import av

TICK: Final = Fraction(1, 90_000)
GROUP: Final = 25
RATE: Final = 25
"""Frames a second that the clip's own timestamps say: those sent are others."""


@dataclass(frozen=True)
class Coded:
    """One packet."""

    data: bytes
    is_keyframe: bool


def prepare(clip: Path, target: Path, size: tuple[int, int], most: int) -> int:
    """Encode a clip so that every packet is one frame in order, and the last fits to the first.

    Args:
        clip: any video.
        target: an MPEG-TS file.
        size: height and width that frames are scaled to.
        most: frames that are taken, from its beginning.

    Returns:
        Frames there are.
    """
    count = 0
    with av.open(str(clip)) as source, av.open(str(target), "w", format="mpegts") as to:
        options = {"preset": "veryfast", "tune": "zerolatency", "crf": "26", "g": str(GROUP)}
        stream: Any = to.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for frame in itertools.islice(source.decode(video=0), most):
            scaled = frame.reformat(size[1], size[0], "yuv420p")
            scaled.pts, scaled.time_base = count, Fraction(1, RATE)
            to.mux(stream.encode(scaled))
            count += 1
        to.mux(stream.encode(None))
    return count


class Sender(ThreadingHTTPServer):
    """Sends the clip to everybody who asks, each from its beginning."""

    daemon_threads = True
    # A client that takes nothing blocks its own thread only, and not for long.
    timeout_s = 30.0

    def __init__(self, clip: Path, port: int, fps: float) -> None:
        self.clip = clip
        self.fps = fps
        with av.open(str(clip)) as container:
            packets = container.demux(video=0)
            self.coded = [Coded(bytes(p), bool(p.is_keyframe)) for p in packets if p.size]
        super().__init__(("127.0.0.1", port), Answer)


class Answer(BaseHTTPRequestHandler):
    """One connection; its answer has no end."""

    server: Sender

    def do_GET(self) -> None:
        """Send until the client goes."""
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.settimeout(self.server.timeout_s)
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        try:
            self._send()
        except (OSError, av.error.FFmpegError):
            # It has gone; PyAV tells that in its own way when it closes the container.
            return

    def _send(self) -> None:
        server = self.server
        # Flushed packet by packet: bursts would leave the engine without work in between.
        options = {"flush_packets": "1"}
        with (
            av.open(str(server.clip)) as template,
            av.open(self.wfile, "w", format="mpegts", options=options) as to,
        ):
            stream: Any = to.add_stream_from_template(template.streams.video[0], opaque=True)
            ticks = round(1 / (server.fps * TICK))
            began_s = time.monotonic()
            for number, coded in enumerate(itertools.cycle(server.coded)):
                packet = av.Packet(coded.data)
                packet.pts = packet.dts = number * ticks
                packet.time_base = TICK
                packet.is_keyframe = coded.is_keyframe
                packet.stream = stream
                to.mux(packet)
                time.sleep(max(0.0, began_s + (number + 1) / server.fps - time.monotonic()))

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def main(clip: str, port: str, fps: str) -> None:
    with Sender(Path(clip), int(port), float(fps)) as sender:
        print("listening", flush=True)
        sender.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
