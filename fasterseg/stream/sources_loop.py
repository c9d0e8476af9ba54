"""A file read again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from fasterseg.errors import UsageError
from fasterseg.stream.sources import FrameSource, Kind
from fasterseg.types import Frame, Size

_UNKNOWN_STEP_S: Final = 1 / 25


class LoopedSource:
    """A source opened and read several times; see `FrameSource` for the attributes.

    Indices and times go on counting. Each warning is told once; lost frames of all rounds are
    added up.

    Args:
        open_once: opens the source for one round.
        rounds: how many; 0: for ever.
        limit: frames over all rounds; None: all.

    Raises:
        UsageError: the source is no file, and so comes only once.
    """

    def __init__(
        self, open_once: Callable[[], FrameSource], rounds: int, limit: int | None
    ) -> None:
        self._open_once = open_once
        self._rounds = rounds
        self._limit = limit
        self._source = source = open_once()
        if not source.files:
            source.close()
            raise UsageError(f"--loop reads files again; {source.name} comes only once")
        self.name = source.name
        self.stem = source.stem
        self.kind: Kind = source.kind
        self.live = source.live
        self.fps: Fraction | None = source.fps
        self.time_base: Fraction | None = source.time_base
        self.size: Size | None = source.size
        self.frame_count: int | None = self._expected(source.frame_count)
        self.files: tuple[Path, ...] = source.files
        self.notes = list(source.notes)
        self.warnings: list[str] = []
        self.lost_frames = 0
        self.truncated = False

    def __iter__(self) -> Iterator[Frame]:
        """The frames of all rounds."""
        step_s = float(1 / self.fps) if self.fps else _UNKNOWN_STEP_S
        timed = self.kind == "video"
        done = delivered = next_index = 0
        begins_s = 0.0
        while True:
            last: Frame | None = None
            for frame in self._source:
                last = replace(
                    frame,
                    index=frame.index + next_index,
                    timestamp_s=frame.timestamp_s + begins_s,
                )
                yield last
                delivered += 1
                if delivered == self._limit:
                    break
            self._close_round()
            done += 1
            if done == self._rounds or delivered == self._limit or last is None:
                return
            next_index = last.index + 1
            begins_s = last.timestamp_s + step_s if timed else 0.0
            self._source = self._open_once()

    def interrupt(self) -> None:
        """Files never make a reader wait."""

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _expected(self, once: int | None) -> int | None:
        if self._rounds == 0 or once is None:
            return self._limit
        total = once * self._rounds
        return total if self._limit is None else min(total, self._limit)

    def _close_round(self) -> None:
        source = self._source
        self.warnings += [text for text in source.warnings if text not in self.warnings]
        self.lost_frames += source.lost_frames
        self.truncated = self.truncated or source.truncated
        source.close()
