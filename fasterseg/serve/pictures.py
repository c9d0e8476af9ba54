"""Pictures for viewers: each encoded once for all of them, never often, and only when asked for."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fasterseg.overlay import OverlayStyle
from fasterseg.serve.board import Board, Shown
from fasterseg.stream.preview import overlay_png, preview, thumbnail

WIDTHS: Final = (640, 1280)
"""Widths in pixels that viewers can have."""
MAX_FPS: Final = 15.0
THUMBNAIL_WIDTHS: Final = (320, 640)
THUMBNAIL_MAX_FPS: Final = 2.0
DUTY: Final = 0.125
"""Share of one core that encoding may take for each of these widths, in the long run."""

Draw = Callable[[Shown, int], bytes]
"""Makes the message that shows a result, no wider than so many pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame with its class map, as it is sent.

    Attributes:
        sequence: which result it shows.
        message: length of the header (4 bytes, little endian), header (JSON), and what it tells
            of: a JPEG, and of single streams the class map.
        made_s: when, on the event loop's clock.
    """

    sequence: int
    message: bytes
    made_s: float


def width_for(wanted: int, widths: Sequence[int] = WIDTHS) -> int:
    """The smallest of the widths, in rising order, that is enough, or the largest there is."""
    return next((width for width in widths if width >= wanted), widths[-1])


@dataclass(slots=True, eq=False)
class Budget:
    """What encoding may take, divided among the galleries that are looked at.

    Attributes:
        galleries: how many are looked at now.
    """

    galleries: int = 0

    @property
    def duty(self) -> float:
        """The share of one gallery."""
        return DUTY / max(1, self.galleries)


@dataclass(slots=True, eq=False)
class _Shelf:
    """The last picture of one width, and when the next one may be made."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    kept: Picture | None = None
    rest_until_s: float = 0.0


class Gallery:
    """Gives viewers the newest picture; belongs to one event loop.

    Args:
        board: where results come from.
        budget: what encoding may take.
        draw: what a picture looks like.
        widths: the widths there are.
        max_fps: pictures a second, at most.
    """

    def __init__(
        self,
        board: Board,
        budget: Budget,
        draw: Draw | None = None,
        widths: Sequence[int] = WIDTHS,
        max_fps: float = MAX_FPS,
    ) -> None:
        self._board = board
        self._budget = budget
        self._draw = draw or _frame_and_classes
        self._shelves = {width: _Shelf() for width in widths}
        self._interval_s = 1.0 / max_fps
        self._viewers = 0
        # Set: nobody has asked the board yet to be woken by the next result.
        self._arrived = asyncio.Event()
        self._arrived.set()

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """While this block runs, one viewer more is looking; without any, no pictures are kept."""
        self._viewers += 1
        if self._viewers == 1:
            self._budget.galleries += 1
        try:
            yield
        finally:
            self._viewers -= 1
            if not self._viewers:
                self._budget.galleries -= 1
                self._forget()

    async def newer_than(self, sequence: int, width: int) -> Picture:
        """The newest picture once there is one after `sequence`.

        Args:
            sequence: the one that was seen; 0: none.
            width: one of this gallery's.
        """
        await self._result_after(sequence)
        shelf = self._shelves[width]
        async with shelf.turn:
            kept = shelf.kept
            if kept is not None and kept.sequence > sequence and self._is_new(kept):
                return kept
            await asyncio.sleep(shelf.rest_until_s - _now_s())
            shown = self._board.latest
            assert shown is not None
            started_s = _now_s()
            # Of this thread: while engines take all cores, the clock tells of them.
            before_s = time.thread_time()
            shelf.kept = Picture(shown.sequence, self._draw(shown, width), started_s)
            spent_s = time.thread_time() - before_s
            shelf.rest_until_s = started_s + max(self._interval_s, spent_s / self._budget.duty)
            return shelf.kept

    async def due(self, sequence: int, width: int) -> None:
        """Wait until `newer_than` of the same arguments need not, or hardly."""
        await self._result_after(sequence)
        await asyncio.sleep(self._shelves[width].rest_until_s - _now_s())

    def _forget(self) -> None:
        for shelf in self._shelves.values():
            shelf.kept = None

    def _is_new(self, picture: Picture) -> bool:
        """Whether it shows the newest result, or has just been made for another viewer."""
        latest = self._board.latest
        is_newest = latest is not None and latest.sequence == picture.sequence
        return is_newest or _now_s() - picture.made_s <= self._interval_s

    async def _result_after(self, sequence: int) -> None:
        loop = asyncio.get_running_loop()
        while (latest := self._board.latest) is None or latest.sequence <= sequence:
            if self._arrived.is_set():
                self._arrived = asyncio.Event()
                self._board.wake_once(partial(loop.call_soon_threadsafe, self._arrived.set))
            else:
                await self._arrived.wait()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _frame_and_classes(shown: Shown, width: int) -> bytes:
    small = preview(shown.result, width)
    header = {
        "sequence": shown.sequence,
        "frame_index": shown.result.frame_index,
        "timestamp_s": round(shown.result.timestamp_s, 3),
        "size": list(shown.result.size),
        "height": small.size.height,
        "width": small.size.width,
        "jpeg_bytes": len(small.jpeg),
    }
    return _message(header, small.jpeg, small.ids)


def thumbnails(name: str, style: OverlayStyle) -> Draw:
    """Pictures of one stream among others: overlays, already drawn."""

    def drawn(shown: Shown, width: int) -> bytes:
        jpeg = thumbnail(shown.result, shown.labels, style, width)
        return _message({"stream": name, "sequence": shown.sequence}, jpeg)

    return drawn


def _message(header: dict[str, Any], *data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return b"".join((struct.pack("<I", len(text)), text, *data))


class Snapshots:
    """The newest overlay at full size as a PNG file; one is made at a time, whoever asks.

    Args:
        board: where results come from.
        style: how overlays are drawn.
        lock: what the snapshots of several streams share, so that one is made at a time.
    """

    def __init__(
        self, board: Board, style: OverlayStyle, lock: threading.Lock | None = None
    ) -> None:
        self._board = board
        self._style = style
        self._lock = lock or threading.Lock()
        self._kept: tuple[int, bytes] | None = None

    def newest(self) -> bytes | None:
        """The file; None before the first result. Takes a while: call it in a thread."""
        with self._lock:
            latest = self._board.latest
            if latest is None:
                return None
            if self._kept is None or self._kept[0] != latest.sequence:
                file = overlay_png(latest.result, latest.labels, self._style)
                self._kept = (latest.sequence, file)
            return self._kept[1]
