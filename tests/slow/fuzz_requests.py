"""What clients of the live page send: requests, messages and frames of WebSockets."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

import numpy as np

from fasterseg.serve.view import View
from tests.slow.fuzz_case import HIDDEN, chosen
from tests.slow.mutate import mutate_bytes

OF_ONE: Final = ("/", "/classes.json", "/healthz", "/snapshot.png", "/stats.json")
OF_ALL: Final = ("/", "/healthz", "/metrics", "/streams.json")
ASTRAY: Final = (
    "/../../../../etc/passwd", "/streams/../../view.py", "/streams/front/../view.py", "/view.js",
    "//etc/passwd", "/streams/front%2f..%2f..%2fview.js", "/%00", "/streams/", "/streams/\x00/",
    "*", "",
)  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request before it is sent."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[bytes, bytes], ...]
    opens_socket: bool

    def lines(self) -> bytes:
        """As HTTP/1.1 writes it."""
        target = self.path + (f"?{self.query}" if self.query else "")
        head = f"{self.method} {target} HTTP/1.1\r\n".encode(errors="replace")
        more: list[tuple[bytes, bytes]] = [(b"connection", b"close")]
        if self.opens_socket:
            key = base64.b64encode(b"0123456789abcdef")
            more = [
                (b"connection", b"Upgrade"), (b"upgrade", b"websocket"),
                (b"sec-websocket-version", b"13"), (b"sec-websocket-key", key),
            ]  # fmt: skip
        fields = b"".join(b"%s: %s\r\n" % pair for pair in (*self.headers, *more))
        return head + fields + b"\r\n"


def request_to(random: np.random.Generator, view: View) -> Request:
    """Mostly one that somebody may ask, with something odd about it."""
    opens_socket = random.random() < 0.3
    port = urlsplit(view.url).port or 0
    path = _path(random, list(view.sinks), opens_socket=opens_socket)
    return Request(
        method=chosen(random, *["GET"] * 25, "HEAD", "POST", "OPTIONS", "TRACE", "get", "G\x00T"),
        path=path,
        query=_query(random),
        headers=_headers(random, port),
        opens_socket=opens_socket,
    )


def _path(random: np.random.Generator, names: list[str], *, opens_socket: bool) -> str:
    """Mostly one that there is; streams have their own where there are several."""
    inside = f"/streams/{chosen(random, *names)}" if len(names) > 1 else ""
    if random.random() < 0.3:
        inside = ""
    kind = random.random()
    if kind < 0.12:
        return chosen(random, *ASTRAY)
    if kind < 0.2:
        return mutate_bytes(f"{inside}/stats.json".encode(), random, 1).decode("latin-1")
    if opens_socket:
        return f"{inside}/stream" if inside or len(names) == 1 else "/thumbnails"
    return f"{inside}{chosen(random, *(OF_ONE if inside or len(names) == 1 else OF_ALL))}"


def _query(random: np.random.Generator) -> str:
    parts = []
    if random.random() < 0.8:
        parts.append(f"token={chosen(random, *[HIDDEN] * 20, 'wrong', '', HIDDEN[:-1], '%ff')}")
    if random.random() < 0.3:
        parts.append(f"width={chosen(random, '640', '-1', '99999999', 'x', '٣', '1e9')}")
    if random.random() < 0.1:
        parts.append(quote(random.bytes(12)))
    return "&".join(parts)


def _headers(random: np.random.Generator, port: int) -> tuple[tuple[bytes, bytes], ...]:
    here = f"127.0.0.1:{port}"
    found = []
    if random.random() < 0.95:
        odd = ("evil.example", "[::1", "", "localhost.evil.example", "\xff", "[::1]:99999999")
        found.append((b"host", here if random.random() < 0.8 else chosen(random, *odd)))
    if random.random() < 0.3:
        found.append(
            (b"origin", chosen(random, f"http://{here}", "http://evil.example", "null", ""))
        )
    if random.random() < 0.3:
        cookie = chosen(random, "wrong", "", '"', "x" * 4000, "\xe9; =; ;;", HIDDEN)
        found.append((b"cookie", f"fasterseg_view_{port}={cookie}"))
    if random.random() < 0.3:
        kinds = (
            f"Bearer {HIDDEN}",
            f"bearer  {HIDDEN} ",
            "Bearer",
            "Bearer wrong",
            "Basic eDp5",
            "\xff",
        )
        found.append((b"authorization", chosen(random, *kinds)))
    if random.random() < 0.1:
        found.append((b"x-junk", random.bytes(20).hex()))
    return tuple((name, value.encode("latin-1")) for name, value in found)


def messages(random: np.random.Generator) -> list[dict[str, Any]]:
    """What a browser, or somebody else, says."""
    said: list[dict[str, Any]] = [{"type": "websocket.connect"}]
    for _ in range(int(random.integers(0, 6))):
        match int(random.integers(6)):
            case 0:
                said.append({"type": "websocket.receive", "bytes": random.bytes(8)})
            case 1:
                text = chosen(random, "", "READY", "ready\n", "x" * 10_000, "\x00", "{}")
                said.append({"type": "websocket.receive", "text": text})
            case _:
                said.append({"type": "websocket.receive", "text": "ready"})
    if random.random() < 0.5:
        said.append({"type": "websocket.disconnect", "code": int(random.integers(1000, 5000))})
    return said


def frames_of(random: np.random.Generator) -> bytes:
    """Frames of a WebSocket client, right ones and others."""
    frames = b""
    for _ in range(int(random.integers(1, 5))):
        text = chosen(random, "ready", "ready", "ready", "x" * 400, "", "\x00").encode()
        opcode = 0x80 | int(random.choice([1, 1, 1, 2, 0, 8, 9, 10, 3]))
        length = (
            bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack("!H", len(text))
        )
        # A mask of zeros leaves the text as it is.
        frames += bytes([opcode]) + length + bytes(4) + text
    return frames if random.random() < 0.6 else mutate_bytes(frames, random, 0)
