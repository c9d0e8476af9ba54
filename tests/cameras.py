"""Cameras over HTTP, served by the test: they end, stall, change their size, send garbage."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import cv2
import numpy as np

SECRET: Final = "geheim"
"""Password and token of `Cameras.url`, which nobody may see again."""


class Cameras(ThreadingHTTPServer):
    """Motion JPEG as cameras send it, and MPEG-TS of unknown length under `/live.ts`.

    Attributes:
        ends_after: pictures of a connection.
        serves: connections that are answered; later ones are refused.
        stalls: a connection gives nothing after its pictures, and does not end.
        size_of_second: height and width from the second connection on.
        garbage_at: which picture is noise.
        transport: what `/live.ts` gives.
        transport_s: how long it takes to give it, as a camera takes its time.
        released: set: pictures end.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Camera)
        self.ends_after = 10
        self.size_of_second = (64, 96)
        self.connections = 0
        self.serves = 1000
        self.stalls = False
        self.garbage_at: int | None = None
        self.released = threading.Event()
        self.transport = b""
        self.transport_s = 0.0
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where it is, with credentials."""
        return f"http://user:{SECRET}@127.0.0.1:{self.server_port}"


class Camera(BaseHTTPRequestHandler):
    """One connection."""

    server: Cameras

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.path)
        server.connections += 1
        if server.connections > server.serves:
            self.send_error(503)
            return
        self.send_response(200)
        if self.path.startswith("/live.ts"):
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            self._transport(server)
            return
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            self._pictures(server)
        except OSError:
            return

    def _transport(self, server: Cameras) -> None:
        step = max(188, len(server.transport) // 20)
        for begin in range(0, len(server.transport), step):
            self.wfile.write(server.transport[begin : begin + step])
            self.wfile.flush()
            if server.released.wait(server.transport_s / 20):
                return

    def _pictures(self, server: Cameras) -> None:
        size = (64, 96) if server.connections == 1 else server.size_of_second
        for number in range(server.ends_after):
            picture = cv2.resize(np.full((64, 96, 3), 16 + 6 * (number % 38), np.uint8), size[::-1])
            data = cv2.imencode(".jpg", picture)[1].tobytes()
            if number == server.garbage_at:
                data = bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8))
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
            self.wfile.flush()
            if server.released.wait(0.01):
                return
        if server.stalls:
            server.released.wait(20)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the output of the tests quiet."""


@contextlib.contextmanager
def cameras_running(port: int = 0) -> Iterator[Cameras]:
    """A server of its own."""
    with Cameras(port) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()
