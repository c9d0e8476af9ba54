"""Pictures for viewers: each encoded once for all of them, never often, and only when asked for."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from fasterseg.overlay import OverlayStyle
from fasterseg.serve.board import Board, Shown
from fasterseg.stream.preview import overlay_png, preview

WIDTHS: Final = (640, 1280)
"""Widths in pixels that viewers can have."""
MAX_FPS: Final = 15.0
DUTY: Final = 0.125
"""Share of one core that encoding may take for each of these widths, in the long run."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame with its class map, as it is sent.

    Attributes:
        sequence: which result it shows.
        message: length of the header (4 bytes, little endian), header (JSON), JPEG, class map.
        made_s: when, on the event loop's clock.
    """

    sequence: int
    message: bytes
    made_s: float


def width_for(wanted: int) -> int:
    """The smallest width that is enough, or the largest there is."""
    return next((width for width in WIDTHS if width >= wanted), WIDTHS[-1])


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
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._shelves = {width: _Shelf() for width in WIDTHS}
        # Set: nobody has asked the board yet to be woken by the next result.
        self._arrived = asyncio.Event()
        self._arrived.set()

    async def newer_than(self, sequence: int, width: int) -> Picture:
        """The newest picture once there is one after `sequence`.

        Args:
            sequence: the one that was seen; 0: none.
            width: one of `WIDTHS`.
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
            shelf.kept = Picture(shown.sequence, _message(shown, width), started_s)
            spent_s = _now_s() - started_s
            shelf.rest_until_s = started_s + max(1.0 / MAX_FPS, spent_s / DUTY)
            return shelf.kept

    def forget(self) -> None:
        """Nobody is looking: keep no pictures."""
        for shelf in self._shelves.values():
            shelf.kept = None

    def _is_new(self, picture: Picture) -> bool:
        """Whether it shows the newest result, or has just been made for another viewer."""
        latest = self._board.latest
        is_newest = latest is not None and latest.sequence == picture.sequence
        return is_newest or _now_s() - picture.made_s <= 1.0 / MAX_FPS

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


def _message(shown: Shown, width: int) -> bytes:
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
    text = json.dumps(header).encode()
    return b"".join((struct.pack("<I", len(text)), text, small.jpeg, small.ids))


class Snapshots:
    """The newest overlay at full size as a PNG file; one is made at a time, whoever asks.

    Args:
        board: where results come from.
        style: how overlays are drawn.
    """

    def __init__(self, board: Board, style: OverlayStyle) -> None:
        self._board = board
        self._style = style
        self._lock = threading.Lock()
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
