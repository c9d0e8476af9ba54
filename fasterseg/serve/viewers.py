"""Viewers: each gets the newest picture when it asks for one, and figures twice a second."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from fasterseg.labels import LabelSet
from fasterseg.serve.board import Board
from fasterseg.serve.figures import Reporter, classes
from fasterseg.serve.pictures import Gallery, width_for

MAX_VIEWERS: Final = 8
READY: Final = "ready"
IN_FLIGHT: Final = 2
"""Pictures a viewer may have asked for at a time: enough to hide the way there and back."""
STATS_INTERVAL_S: Final = 0.5

ENDED: Final = 1000
NOT_UNDERSTOOD: Final = 1008
FULL: Final = 1013
"""Codes that WebSockets are closed with; the page tells them apart."""


class Viewers:
    """All open pages of one board.

    A viewer says `ready` for every picture it can take. Who says nothing gets nothing and costs
    nothing: there is no queue that could grow, and none that could fall behind.

    Args:
        board: what is shown.
        reporter: the figures beside it.
        limit: how many may look at a time.
    """

    def __init__(self, board: Board, reporter: Reporter, limit: int = MAX_VIEWERS) -> None:
        self._board = board
        self._reporter = reporter
        self._limit = limit
        self._open: set[WebSocket] = set()
        self._gallery: Gallery | None = None

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, socket: WebSocket) -> None:
        """Serve one viewer until it leaves, or the run ends."""
        await socket.accept()
        if len(self._open) >= self._limit:
            await socket.close(FULL, f"{self._limit} others are looking")
            return
        # Made here, because it belongs to the event loop of the server.
        self._gallery = self._gallery or Gallery(self._board)
        self._open.add(socket)
        viewer = _Viewer(socket, self._gallery, self._board, self._reporter)
        try:
            await viewer.run()
        finally:
            self._open.discard(socket)
            if not self._open:
                self._gallery.forget()


class _Leave(Exception):  # noqa: N818 - not an error: ends the tasks of one viewer
    """This viewer is done with; holds code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True, eq=False)
class _Viewer:
    """One open page."""

    socket: WebSocket
    gallery: Gallery
    board: Board
    reporter: Reporter
    _asked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    _waiting: int = 0
    _labels: LabelSet | None = None

    async def run(self) -> None:
        """Look until one of the sides leaves."""
        leave: _Leave | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (self._listen(), self._show(), self._tell()):
                    tasks.create_task(work)
        except* _Leave as group:
            leave = next(e for e in group.exceptions if isinstance(e, _Leave))
        except* WebSocketDisconnect:
            pass
        if leave is not None:
            # Not in the tasks: the others might be about to send.
            with contextlib.suppress(WebSocketDisconnect):
                await self.socket.close(leave.code, str(leave))

    async def _listen(self) -> None:
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            if message.get("text") != READY or self._waiting >= IN_FLIGHT:
                raise _Leave(NOT_UNDERSTOOD, f"say '{READY}', for {IN_FLIGHT} pictures at most")
            self._waiting += 1
            self._asked.release()

    async def _show(self) -> None:
        width = width_for(_number(self.socket.query_params.get("width", "")))
        sequence = 0
        while True:
            await self._asked.acquire()
            picture = await self.gallery.newer_than(sequence, width)
            await self._tell_classes()
            self._waiting -= 1
            await self.socket.send_bytes(picture.message)
            sequence = picture.sequence

    async def _tell(self) -> None:
        while True:
            await self._tell_classes()
            await self._send("stats", self.reporter.stats())
            if self.board.ended:
                raise _Leave(ENDED, "the run has ended")
            await asyncio.sleep(STATS_INTERVAL_S)

    async def _tell_classes(self) -> None:
        """Names and colours, when they are known and whenever they are others."""
        latest = self.board.latest
        if latest is not None and latest.labels is not self._labels:
            self._labels = latest.labels
            await self._send("classes", classes(latest.labels))

    async def _send(self, kind: str, facts: dict[str, Any]) -> None:
        await self.socket.send_json({"type": kind, **facts})


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
