"""Cases of the live page: requests and WebSockets, given to the application and over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock
from urllib.parse import urlsplit

import numpy as np

from fasterseg.overlay import OverlayStyle
from fasterseg.serve.access import TOKEN_VARIABLE, Address
from fasterseg.serve.view import View, open_view
from tests.slow.fuzz_case import HIDDEN, Case, told
from tests.slow.fuzz_requests import Request, frames_of, messages, request_to
from tests.slow.mutate import mutate_bytes
from tests.unit.serve.conftest import StubSource, result_of

NAMES: Final = ("front", "rear-2")
REFUSALS: Final = frozenset({400, 401, 403, 404, 405, 421})
KNOWN: Final = REFUSALS | {200, 426, 431, 503}
WAIT_S: Final = 8.0
LISTEN_S: Final = 0.4
ASKED: Final = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_FROM_DISK: Final = (b"root:x:", b"from __future__", b"Traceback", b"site-packages")


@contextmanager
def opened(count: int, *, token: bool) -> Iterator[View]:
    """The page of so many streams, each of which has shown something."""
    secret = {TOKEN_VARIABLE: HIDDEN} if token else {}
    with mock.patch.dict(os.environ, secret):
        sources: dict[str, Any] = {name: StubSource() for name in NAMES[:count]}
        made = open_view(Address.parse("http://127.0.0.1:0"), sources=sources, style=OverlayStyle())
    try:
        for sink in made.sinks.values():
            sink.write(result_of())
        yield made
    finally:
        made.close()


class _NoServer:
    """Stands in for uvicorn's: holds the application, and answers nothing."""

    made: Any = None

    def __init__(self, config: Any) -> None:
        self.config = config
        self.started = True
        self.should_exit = False
        type(self).made = self

    def run(self, sockets: list[socket.socket]) -> None:
        """Close the socket; requests come by hand."""
        for one in sockets:
            one.close()


def _judge(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes, whose: str = "ours"
) -> bool:
    """Whether the request got past the doors; what was answered must be fit for everybody."""
    assert status in KNOWN, f"answered {status}: {body[:200]!r}"
    for sign in _FROM_DISK:
        assert sign not in body, f"{sign!r} in the answer: {body[:400]!r}"
    told(body.decode("latin-1"), *(value.decode("latin-1") for _, value in headers))
    names = {name.lower() for name, _ in headers}
    guarded = {b"x-content-type-options", b"content-security-policy", b"cache-control"}
    # What the server itself refuses never came to the application.
    assert status == 400 or whose == "server" or guarded <= names, (
        f"an answer without protecting headers: {status} {headers} {body!r}"
    )
    return status not in REFUSALS


@contextmanager
def page() -> Iterator[Case]:
    """The application of the page, called as a server calls it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("uvicorn.Server", _NoServer))
        pages = []
        for count, token in ((1, False), (1, True), (2, False), (2, True)):
            made = stack.enter_context(opened(count, token=token))
            pages.append((made, _NoServer.made.config.app))
        runner = stack.enter_context(asyncio.Runner())
        runner.run(asyncio.to_thread(int))

        def case(random: np.random.Generator, folder: Any) -> bool:
            made, app = pages[int(random.integers(len(pages)))]
            for sink in made.sinks.values():
                sink.write(result_of(int(random.integers(4))))
            request = request_to(random, made)
            talk = _talk(app, request, random) if request.opens_socket else _ask(app, request)
            return runner.run(asyncio.wait_for(talk, WAIT_S))

        yield case


def _scope(request: Request, kind: str) -> dict[str, Any]:
    return {
        "type": kind, "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": request.method, "scheme": "ws" if kind == "websocket" else "http",
        "path": request.path, "raw_path": request.path.encode(errors="replace"),
        "query_string": request.query.encode(), "root_path": "", "headers": list(request.headers),
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1), "subprotocols": [], "state": {},
        "extensions": {"websocket.http.response": {}},
    }  # fmt: skip


async def _ask(app: Any, request: Request) -> bool:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 100, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(_scope(request, "http"), receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return _judge(sent[0]["status"], list(sent[0]["headers"]), body)


async def _talk(app: Any, request: Request, random: np.random.Generator) -> bool:
    said = messages(random)
    sent: list[dict[str, Any]] = []
    gone = False

    async def receive() -> dict[str, Any]:
        nonlocal gone
        await asyncio.sleep(0.002)
        if said:
            return said.pop(0)
        gone = True
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message: dict[str, Any]) -> None:
        if gone:
            raise OSError("nobody is there")
        sent.append(message)

    await app(_scope(request, "websocket"), receive, send)
    first: dict[str, Any] = sent[0] if sent else {"type": "websocket.close"}
    if first["type"] == "websocket.http.response.start":
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return _judge(first["status"], list(first["headers"]), body)
    for message in sent:
        told(message.get("text"), bytes(message.get("bytes") or b"").decode("latin-1"))
    return bool(first["type"] == "websocket.accept")


@contextmanager
def sockets() -> Iterator[Case]:
    """The page behind its real server."""
    with opened(2, token=False) as free, opened(2, token=True) as kept:
        for made in (free, kept):
            # Starts the thread that draws, which stays.
            path = f"/streams/front/snapshot.png?token={HIDDEN}".encode()
            assert b" 200 " in _sent(urlsplit(made.url).port or 0, ASKED % path)[:40]

        def case(random: np.random.Generator, folder: Any) -> bool:
            made = free if random.random() < 0.5 else kept
            for sink in made.sinks.values():
                sink.write(result_of(int(random.integers(4))))
            port = urlsplit(made.url).port or 0
            request = request_to(random, made)
            data = request.lines()
            if random.random() < 0.25:
                data = mutate_bytes(data, random, 4)
            if request.opens_socket:
                data += frames_of(random)
            answer = _sent(port, data, LISTEN_S)
            told(answer.decode("latin-1"))
            assert b" 200 " in _sent(port, ASKED % b"/healthz")[:40], "no more answers"
            return _judged(answer, "server" if request.opens_socket else "ours")

        yield case


def _sent(port: int, data: bytes, listen_s: float = WAIT_S) -> bytes:
    """All that is answered until the server hangs up; after `listen_s` it is told that we do."""
    answer = b""
    until_s = time.monotonic() + listen_s
    connection = socket.create_connection(("127.0.0.1", port), WAIT_S)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        while select.select([connection], [], [], max(0.0, until_s - time.monotonic()))[0]:
            if not (more := connection.recv(1 << 16)):
                return answer
            answer += more
        connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(1 << 16):
            answer += more
    return answer


def _judged(answer: bytes, whose: str) -> bool:
    """Judge the first answer; WebSockets begin with 101, and what follows is theirs."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return False
    first, *lines = head.split(b"\r\n")
    status = int(first.split()[1])
    fields = [line.partition(b": ") for line in lines]
    if status == 101:
        return True
    return _judge(status, [(name, value) for name, _, value in fields], body, whose)
