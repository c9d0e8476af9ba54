"""Polite viewers: WebSockets of a library, and what one reads from them."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


def look(url: str, path: str = "stream?width=640", **options: Any) -> ClientConnection:
    base, _, query = url.replace("http://", "ws://").partition("?")
    joined = f"{base}{path}" + (("&" if "?" in path else "?") + query if query else "")
    connection: ClientConnection = connect(joined, **options)
    return connection


def picture_of(viewer: ClientConnection) -> dict[str, Any]:
    """Header of the next picture; figures that come first are passed over."""
    while isinstance(message := viewer.recv(timeout=20), str):
        pass
    (length,) = struct.unpack("<I", message[:4])
    header: dict[str, Any] = json.loads(message[4 : 4 + length])
    return header


def text_of(viewer: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of figures or of classes."""
    while True:
        message = viewer.recv(timeout=20)
        if isinstance(message, str) and (facts := json.loads(message))["type"] == kind:
            return dict(facts)


def closing_code(viewer: ClientConnection) -> int | None:
    """Read on until the server closes; the code it gives."""
    try:
        while True:
            viewer.recv(timeout=20)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def wait_until(true: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until_s, what
        time.sleep(0.01)
