"""A live page of a made-up run, and clients for it: polite ones and others."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from fasterseg.labels import CAMVID, LabelSet
from fasterseg.stream.results import SegmentationResult
from fasterseg.types import Frame, Size, StageTimes

SMALL = Size(48, 64)


def result_of(
    index: int = 0, size: Size = SMALL, labels: LabelSet = CAMVID, engine_ms: float = 5.0
) -> SegmentationResult:
    """A noisy frame; its class map has a column of every class, and `index` shifts it."""
    image = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    columns = (np.arange(size.width) + index) * len(labels) // size.width % len(labels)
    mask = np.ascontiguousarray(np.broadcast_to(columns.astype(np.uint8), size))
    frame = Frame(image, index, index / 25, decode_ms=1.0)
    return SegmentationResult(mask, labels, frame, StageTimes(1.0, 0.5, engine_ms, 0.25))


class StubSource:
    """What a page asks of a source."""

    def __init__(self, name: str = "rtsp://camera/stream") -> None:
        self.name = name
        self.lost_frames = 0


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


def ask(url: str, path: str, *, method: str = "GET", **headers: str) -> Answer:
    """One request; `Host` and other headers as given, `_` for `-`."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.putrequest(method, path, skip_host="Host" in named)
        for name, value in named.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


class RawViewer:
    """A WebSocket made by hand, which reads only when it is told to."""

    def __init__(self, url: str, path: str = "/stream", **headers: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.socket()
        # So small that the second picture does not fit.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.socket.settimeout(20)
        self.socket.connect((parts.hostname, parts.port))
        wanted = {
            "Host": parts.netloc,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {wanted[name]}" for name in wanted), "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self.status = int(self._until_blank_line().split()[1])

    def _until_blank_line(self) -> bytes:
        text = b""
        while not text.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, text
            text += byte
        return text

    def say(self, text: str) -> None:
        """Send a text message."""
        mask = os.urandom(4)
        data = bytes(c ^ mask[i % 4] for i, c in enumerate(text.encode()))
        self.socket.sendall(struct.pack("!BB", 0x81, 0x80 | len(data)) + mask + data)

    def close(self) -> None:
        """Go without a word."""
        self.socket.close()


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    names = [thread.name for thread in threading.enumerate()]
    left = [name for name in names if "fasterseg" in name or "asyncio" in name]
    assert not left


class OneStream:
    """A page with a single stream, and the sink that fills it."""

    def __init__(self, view: Any) -> None:
        self.view = view
        (self.sink,) = view.sinks.values()
        self.url: str = view.url
        self.write = self.sink.write
        self.introduce = view.introduce
        self.close = view.close


Serve = Callable[..., Any]


@pytest.fixture
def serve(open_page: Serve) -> Serve:
    """`serve()`: the running page of one stream; closed when the test ends."""

    def start(address: str = "http://127.0.0.1:0", **options: Any) -> OneStream:
        source = options.pop("source", StubSource())
        return OneStream(open_page(address, {"camera": source}, **options))

    return start


@pytest.fixture
def serve_many(open_page: Serve) -> Serve:
    """`serve_many("front", "back")`: the running page of these streams, as a View."""

    def start(*names: str, address: str = "http://127.0.0.1:0", **options: Any) -> Any:
        sources = {name: StubSource(f"rtsp://{name}/stream") for name in names}
        return open_page(address, options.pop("sources", sources), **options)

    return start


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """`open_page(address, sources)`: a running View; closed when the test ends."""
    pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
    from fasterseg.overlay import OverlayStyle
    from fasterseg.serve.access import Address
    from fasterseg.serve.view import open_view

    monkeypatch.delenv("FASTERSEG_VIEW_TOKEN", raising=False)
    opened = []

    def start(address: str, sources: Any, **options: Any) -> Any:
        style = options.pop("style", OverlayStyle())
        view = open_view(Address.parse(address), sources=sources, style=style, **options)
        opened.append(view)
        return view

    yield start
    for view in opened:
        view.close()
