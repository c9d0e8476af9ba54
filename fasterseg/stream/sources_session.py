"""One connection of a live source, read in a thread of its own: pictures in, those taken out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import SourceError
from fasterseg.stream.live import Account
from fasterseg.stream.readahead import DEPTH, Channel, Worker
from fasterseg.stream.sources import FrameSource
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Frame

SHORTEST_STEP_S: Final = 1e-3
"""Time between pictures that seem to come at once, or earlier than the one before."""

_TIME_TOLERANCE_S: Final = 1e-3
_LEAVE_S: Final = 0.5

Pixels = Callable[[], NDArray[np.uint8] | None]
"""Gives (H, W, 3) uint8 BGR, later and in any thread; None where they cannot be converted."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A picture that has just come.

    Attributes:
        time_s: its own time, in seconds since the first one of its connection; None where it has
            none, and the clock's is taken.
        keep: called at once, in the thread of the connection, for a picture that is taken; None
            from it: the picture cannot be decoded. None instead of it: the picture comes too
            late to be worth decoding.
        late_s: how much later than due it comes.
        decode_ms: milliseconds spent on it so far, without waiting for it.
    """

    time_s: float | None
    keep: Callable[[], Pixels | None] | None
    late_s: float = 0.0
    decode_ms: float = 0.0


class Connection(Protocol):
    """A live source while it is connected; belongs to the thread that opened it.

    Attributes:
        fps: rate it announces; None where it announces none.
        time_base: seconds per tick of its timestamps; None where it has none.
        finite: it has an end: a recording, which is not read again. Known at the latest when
            there are no more pictures.
        notes: see `FrameSource`.
        warnings: see `FrameSource`.
        lost_frames: see `FrameSource`.
    """

    fps: Fraction | None
    time_base: Fraction | None
    finite: bool
    notes: list[str]
    warnings: list[str]
    lost_frames: int

    def arrivals(self) -> Iterator[Arrival]:
        """Pictures as they come, until the other side ends the connection.

        Raises:
            SourceError: it was lost.
        """
        ...

    def close(self) -> None:
        """Release it; may be called twice."""
        ...


Connect = Callable[[threading.Event], Connection]
"""Opens a connection; gives up soon after the event is set, where that is possible.

Raises `SourceError`, without FFmpeg's error behind it, which repeats passwords.
"""


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture that is taken.

    Attributes:
        index: see `Frame`.
        timestamp_s: see `Frame`.
        arrived_s: see `Frame`.
        decode_ms: milliseconds spent on it so far.
        pixels: gives the picture.
    """

    index: int
    timestamp_s: float
    arrived_s: float
    decode_ms: float
    pixels: Pixels


class Intake:
    """Numbers, times and chooses the pictures of a source over all its connections.

    Times begin with 0 and only grow. Within a connection they are the pictures' own; between two
    of them they go on with the clock, so that the gap can be seen.

    Args:
        options: which pictures are taken.
        account: where they are counted.
        clock: seconds that only grow.
    """

    def __init__(
        self, options: SourceOptions, account: Account, clock: Callable[[], float]
    ) -> None:
        self.account = account
        self.index = 0
        self.seen = 0
        self._clock = clock
        self._start_s = options.start_s
        self._picker = options.picker()
        self._began_s = 0.0
        self._base_s = 0.0
        self._last_s = -SHORTEST_STEP_S
        self._zero_s: float | None = None

    def connect(self, now_s: float) -> None:
        """The next picture is the first one of a connection."""
        if not self.seen:
            self._began_s = now_s
        self._base_s = now_s - self._began_s

    def admit(self, arrival: Arrival, now_s: float) -> Shot | None:
        """Count a picture; returns it if it is taken."""
        self.seen += 1
        time_s = now_s - self._began_s
        if arrival.time_s is not None:
            time_s = self._base_s + arrival.time_s
        time_s = self._last_s = max(time_s, self._last_s + SHORTEST_STEP_S)
        if self._zero_s is None and time_s < self._start_s - _TIME_TOLERANCE_S:
            self.account.count(captured=1, passed_over=1)
            return None
        self._zero_s = time_s if self._zero_s is None else self._zero_s
        index, timestamp_s = self.index, time_s - self._zero_s
        self.index += 1
        if arrival.keep is None:
            self.account.count(captured=1, dropped=1)
            return None
        if not self._picker.wants(index, timestamp_s):
            self.account.count(captured=1, passed_over=1)
            return None
        started = time.perf_counter()
        pixels = arrival.keep()
        if pixels is None:
            return None
        self.account.count(captured=1)
        decode_ms = arrival.decode_ms + (time.perf_counter() - started) * 1e3
        return Shot(index, timestamp_s, now_s - arrival.late_s, decode_ms, pixels)


class Session:
    """Reads one connection in a thread until it ends, breaks, or nobody wants more.

    Args:
        name: of the source.
        connect: opens the connection, in the thread.
        intake: chooses pictures; no other session may use it before this one is over.
        drops: a picture nobody took in time makes room for the next one; otherwise the connection
            waits.
        stall_s: without a picture for so long it counts as lost.
        connect_s: how much longer it may take to the first one.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        connect: Connect,
        intake: Intake,
        *,
        drops: bool,
        stall_s: float,
        connect_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.connection: Connection | None = None
        self.pictures = 0
        self.began_s = self.heard_s = clock()
        self._name = name
        self._connect = connect
        self._intake = intake
        self._is_first = not intake.seen
        self._stall_s, self._connect_s = stall_s, connect_s
        self._clock = clock
        self._channel: Channel[Shot] = Channel(1 if drops else DEPTH, drop_oldest=drops)
        self._left = threading.Event()
        self._heard = threading.Event()
        self._failure: SourceError | None = None
        self._worker = Worker("live", self._run)
        self._worker.start()

    @property
    def finite(self) -> bool:
        """Whether the connection is a recording, as far as is known; see `Connection`."""
        return self.connection is not None and self.connection.finite

    def take(self) -> Shot | None:
        """The next picture, waited for; None when it ended, was left, or has stalled."""
        began_s = self._clock()
        while True:
            # Who comes back after long finds pictures from long ago; that is no silence.
            left_s = max(began_s, self.heard_s) + self._patience_s() - self._clock()
            shot = self._channel.take(max(0.0, left_s))
            if shot is not None or left_s <= 0 or self._channel.ended:
                return shot

    def comes(self) -> bool:
        """Wait for the first picture, whether it is taken or not; False: there will be none."""
        self._heard.wait(self._patience_s())
        return self.pictures > 0

    def failure(self) -> SourceError | None:
        """Why there are no more pictures; None where the other side ended the connection.

        To be asked before `leave`.
        """
        if not self._channel.ended:
            return SourceError(
                f"{self._name}: no picture came for {self._patience_s():g} s. Check the network "
                "and the sender"
            )
        self.over(_LEAVE_S)
        error = self._worker.error
        if error is not None:
            raise error
        return self._failure

    def leave(self) -> None:
        """Take no more pictures; the thread ends when it next looks."""
        self._left.set()
        self._intake.account.count(passed_over=self._channel.cancel())
        self._heard.set()

    def over(self, timeout_s: float) -> bool:
        """Whether the thread has ended, and the connection is closed; waits for it so long."""
        self._worker.join(timeout_s)
        return not self._worker.is_alive()

    def _patience_s(self) -> float:
        return self._stall_s if self.pictures else self._stall_s + self._connect_s

    def _run(self) -> None:
        try:
            self._read()
        except SourceError as error:
            self._failure = error
        finally:
            self._channel.finish()
            self._heard.set()

    def _read(self) -> None:
        connection = self._connect(self._left)
        with closing(connection):
            self.connection = connection
            if self.finite and not self._is_first:
                # What comes now has been there from its beginning: it would be seen twice.
                return
            for arrival in connection.arrivals():
                if self._left.is_set() or not self._admit(arrival):
                    return

    def _admit(self, arrival: Arrival) -> bool:
        """Hand over a picture if it is taken; False when nobody wants more."""
        now_s = self.heard_s = self._clock()
        if not self.pictures:
            self.began_s = now_s
            self._intake.connect(now_s)
        shot = self._intake.admit(arrival, now_s)
        self.pictures += 1
        self._heard.set()
        if shot is None:
            return True
        dropped = self._channel.dropped
        taken = self._channel.put(shot)
        account = self._intake.account
        account.count(dropped=self._channel.dropped - dropped, passed_over=int(not taken))
        return taken


class FrameConnection:
    """A source that is not live by itself as a connection of one that is; see `Connection`."""

    def __init__(self, source: FrameSource) -> None:
        self.fps, self.time_base = source.fps, source.time_base
        self.finite = False
        self.notes, self.warnings = source.notes, source.warnings
        self.lost_frames = 0
        self._source = source

    def arrivals(self) -> Iterator[Arrival]:
        """The frames of the source."""
        for frame in self._source:
            yield Arrival(frame.timestamp_s, partial(_pixels_of, frame), decode_ms=frame.decode_ms)

    def close(self) -> None:
        """Close the source."""
        self.lost_frames = self._source.lost_frames
        self._source.close()


def _pixels_of(frame: Frame) -> Pixels:
    return lambda: frame.image
