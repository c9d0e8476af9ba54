"""What is said between the server and one open page: figures now and then, pictures on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

READY: Final = "ready"
IN_FLIGHT: Final = 2
"""Pictures a page may have asked for at a time: enough to hide the way there and back."""
STATS_INTERVAL_S: Final = 0.5

ENDED: Final = 1000
NOT_UNDERSTOOD: Final = 1008
FULL: Final = 1013
"""Codes that WebSockets are closed with; the page tells them apart."""


class Seats:
    """Places for those who look.

    Args:
        limit: how many there are.
        within: the places of the whole house; one of them is taken as well.
    """

    def __init__(self, limit: int, within: Seats | None = None) -> None:
        self.taken = 0
        self._limit = limit
        self._within = within

    @property
    def free(self) -> bool:
        """Whether there is one left."""
        return self.taken < self._limit and (self._within is None or self._within.free)

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Take one while this block runs; ask before whether there is one."""
        with contextlib.nullcontext() if self._within is None else self._within.one():
            self.taken += 1
            try:
                yield
            finally:
                self.taken -= 1


class Leave(Exception):  # noqa: N818 - not an error: ends the tasks of one conversation
    """This page is done with; holds code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Conversation:
    """One open page, accepted.

    A page says `ready` for every picture it can take. Who says nothing gets nothing and costs
    nothing: there is no queue that could grow, and none that could fall behind.

    Args:
        socket: the connection.
        in_flight: pictures the page may have asked for at a time.
    """

    def __init__(self, socket: WebSocket, in_flight: int = IN_FLIGHT) -> None:
        self._socket = socket
        self._in_flight = in_flight
        self._asked = asyncio.Semaphore(0)
        self._waiting = 0

    @property
    def width(self) -> int:
        """The width in pixels that the page asks for; 0 where it says nothing sensible."""
        text = self._socket.query_params.get("width", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0

    async def hold(self, *works: Coroutine[Any, Any, None]) -> None:
        """Listen, and do these beside it, until one of the sides leaves."""
        leave: Leave | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (self._listen(), *works):
                    tasks.create_task(work)
        except* Leave as group:
            leave = next(e for e in group.exceptions if isinstance(e, Leave))
        except* WebSocketDisconnect:
            pass
        if leave is not None:
            # Not in the tasks: the others might be about to send.
            with contextlib.suppress(WebSocketDisconnect):
                await self._socket.close(leave.code, str(leave))

    async def picture_wanted(self) -> None:
        """Wait until the page has asked for one more; who waits longest goes first."""
        await self._asked.acquire()

    async def show(self, picture: bytes) -> None:
        """Send a picture that was asked for."""
        self._waiting -= 1
        await self._socket.send_bytes(picture)

    async def tell(self, kind: str, facts: dict[str, Any]) -> None:
        """Send figures or names."""
        await self._socket.send_json({"type": kind, **facts})

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            if message.get("text") != READY or self._waiting >= self._in_flight:
                raise Leave(NOT_UNDERSTOOD, f"say '{READY}', {self._in_flight} times at most")
            self._waiting += 1
            self._asked.release()


async def is_let_in(socket: WebSocket, seats: Seats) -> bool:
    """Accept a connection; where all places are taken, say so and close it."""
    await socket.accept()
    if seats.free:
        return True
    await socket.close(FULL, "too many others are looking")
    return False
