"""Who looks at one stream: each gets the newest picture when it asks, and figures now and then."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.websockets import WebSocket

from fasterseg.labels import LabelSet
from fasterseg.serve import conversation
from fasterseg.serve.board import Board
from fasterseg.serve.conversation import ENDED, Conversation, Leave, Seats, is_let_in
from fasterseg.serve.figures import Reporter, classes
from fasterseg.serve.pictures import Gallery, width_for

MAX_VIEWERS: Final = 8
"""Open pages of one kind: of one stream, or of the list of streams."""
MAX_VIEWERS_IN_ALL: Final = 32
"""Half of all connections: `/healthz` and `/metrics` must find one free."""


class Viewers:
    """All open pages of one stream.

    Args:
        board: what is shown.
        reporter: the figures beside it.
        gallery: its pictures.
        seats: how many may look at a time.
    """

    def __init__(self, board: Board, reporter: Reporter, gallery: Gallery, seats: Seats) -> None:
        self._board = board
        self._reporter = reporter
        self._gallery = gallery
        self._seats = seats

    def __len__(self) -> int:
        return self._seats.taken

    async def serve(self, socket: WebSocket) -> None:
        """Serve one viewer until it leaves, or the stream ends."""
        if not await is_let_in(socket, self._seats):
            return
        with self._seats.one(), self._gallery.looked_at():
            page = Conversation(socket)
            viewer = _Viewer(page, self._gallery, self._board, self._reporter)
            await page.hold(viewer.show(), viewer.tell())


class _Viewer:
    """What one open page is sent."""

    def __init__(
        self, page: Conversation, gallery: Gallery, board: Board, reporter: Reporter
    ) -> None:
        self._page = page
        self._gallery = gallery
        self._board = board
        self._reporter = reporter
        self._labels: LabelSet | None = None

    async def show(self) -> None:
        """Pictures, as they are asked for."""
        width = width_for(self._page.width)
        sequence = 0
        while True:
            await self._page.picture_wanted()
            picture = await self._gallery.newer_than(sequence, width)
            await self._tell_classes()
            await self._page.show(picture.message)
            sequence = picture.sequence

    async def tell(self) -> None:
        """Figures, until the end."""
        while True:
            await self._tell_classes()
            await self._page.tell("stats", self._reporter.stats())
            if self._board.ended:
                raise Leave(ENDED, "the stream has ended")
            await asyncio.sleep(conversation.STATS_INTERVAL_S)

    async def _tell_classes(self) -> None:
        """Names and colours, when they are known and whenever they are others."""
        latest = self._board.latest
        if latest is not None and latest.labels is not self._labels:
            self._labels = latest.labels
            await self._page.tell("classes", classes(latest.labels))
