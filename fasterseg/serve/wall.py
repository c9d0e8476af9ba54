"""The list of several streams: a small picture and the state of each, over one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Final

from starlette.websockets import WebSocket

from fasterseg import __version__
from fasterseg.overlay import OverlayStyle
from fasterseg.serve import conversation
from fasterseg.serve.conversation import ENDED, Conversation, Leave, Seats, is_let_in
from fasterseg.serve.feeds import Feed
from fasterseg.serve.figures import SCHEMA, worst_of
from fasterseg.serve.pictures import (
    THUMBNAIL_MAX_FPS,
    THUMBNAIL_WIDTHS,
    Budget,
    Gallery,
    thumbnails,
    width_for,
)

IN_FLIGHT: Final = 4
"""Small pictures that a page may have asked for at a time."""


class Wall:
    """All open pages that list the streams.

    Args:
        feeds: name -> stream.
        style: how the pictures are drawn.
        seats: how many may look at a time.
    """

    def __init__(self, feeds: Mapping[str, Feed], style: OverlayStyle, seats: Seats) -> None:
        self._feeds = feeds
        self._seats = seats
        budget = Budget()
        self._galleries = {
            name: Gallery(
                feed.board, budget, thumbnails(name, style), THUMBNAIL_WIDTHS, THUMBNAIL_MAX_FPS
            )
            for name, feed in feeds.items()
        }

    def __len__(self) -> int:
        return self._seats.taken

    def overview(self) -> dict[str, Any]:
        """What is told of the streams, as plain JSON values."""
        reporters = [feed.reporter for feed in self._feeds.values()]
        outlines = [reporter.outline() for reporter in reporters]
        return {
            "schema": SCHEMA,
            "version": __version__,
            "about": dict(reporters[0].about),
            "state": worst_of(outline.state for outline in outlines),
            "streams": [
                {"stream": reporter.stream, "source": reporter.source, **outline.to_json()}
                for reporter, outline in zip(reporters, outlines, strict=True)
            ],
        }

    async def serve(self, socket: WebSocket) -> None:
        """Serve one viewer until it leaves, or all streams have ended."""
        if not await is_let_in(socket, self._seats):
            return
        with ExitStack() as stack:
            stack.enter_context(self._seats.one())
            for gallery in self._galleries.values():
                stack.enter_context(gallery.looked_at())
            page = Conversation(socket, IN_FLIGHT)
            width = width_for(page.width, THUMBNAIL_WIDTHS)
            shown = [_show(page, gallery, width) for gallery in self._galleries.values()]
            await page.hold(self._tell(page), *shown)

    async def _tell(self, page: Conversation) -> None:
        while True:
            await page.tell("streams", self.overview())
            if all(feed.board.ended for feed in self._feeds.values()):
                raise Leave(ENDED, "all streams have ended")
            await asyncio.sleep(conversation.STATS_INTERVAL_S)


async def _show(page: Conversation, gallery: Gallery, width: int) -> None:
    """The pictures of one stream; those of all of them come in turn."""
    sequence = 0
    while True:
        # First: a stream that has nothing to show must not hold what others could use.
        await gallery.due(sequence, width)
        await page.picture_wanted()
        picture = await gallery.newer_than(sequence, width)
        await page.show(picture.message)
        sequence = picture.sequence
