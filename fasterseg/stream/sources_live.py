"""A source that arrives at its own pace, may be lost, and is then opened again."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import SourceError
from fasterseg.stream.live import FOR_EVER, AbsentError, Account, Backoff
from fasterseg.stream.sources import Kind
from fasterseg.stream.sources_options import LONGEST_WAIT_S, SourceOptions
from fasterseg.stream.sources_picture import FirstSize
from fasterseg.stream.sources_session import Connect, Connection, Intake, Session, Shot
from fasterseg.types import Frame, Size

LIVE_ATTEMPTS: Final = 10
"""Attempts in a row where nothing else was asked for: some three minutes."""

CONNECT_S: Final = 30.0
"""How long an attempt to connect may take, beside the time for the first picture."""

FRESH_S: Final = 0.5
"""Age up to which the frame that showed that the source gives pictures is still one to give."""

MOST_WARNINGS: Final = 20
LEAVE_S: Final = 0.5
_SAMPLING: Final = 16

_LOG: Final = logging.getLogger("fasterseg.live")


@dataclass(frozen=True, slots=True)
class Opening:
    """How a live source is opened.

    Attributes:
        name: for people; without credentials and query.
        stem: what names of outputs start with.
        kind: what it is.
        connect: makes a connection; called again after each loss, always in a thread of the
            source's own.
        attempts: how often in a row it is called again, unless the options say.
        drops: frames nobody takes in time are dropped, unless the options say.
        stalls: a long silence is a loss.
        tells_end: its end is worth a warning.
        remedy: what to check where it gives nothing.
    """

    name: str
    stem: str
    kind: Kind
    connect: Connect
    attempts: int = LIVE_ATTEMPTS
    drops: bool = True
    stalls: bool = True
    tells_end: bool = True
    remedy: str = "Check the network and the sender"


class LiveSource:
    """Frames of a camera, a network stream or a pipe, as they come; see `FrameSource`.

    A connection is read in a thread of its own, so that no picture waits for those before it,
    and so that waiting can be interrupted: FFmpeg and camera drivers cannot be woken. Whoever
    stops waiting leaves that thread alone; it ends with its last read, at its time limit.

    When a connection ends, breaks or gives nothing for `SourceOptions.stall_s`, the source is
    opened again after a pause. No picture is made up meanwhile: times go on with the clock, so
    the gap shows in them. Every picture is fitted to the size of the first one.

    Args:
        opening: how it is opened.
        options: which frames are taken, and what is done when it is lost.
        first: a connection that is open already; closed with the source.
        clock: seconds that only grow.
        pause: waits so many seconds, or until the event is set; tells whether it is.

    Raises:
        AbsentError: it cannot be opened, or gives no picture.
    """

    def __init__(
        self,
        opening: Opening,
        options: SourceOptions,
        first: Connection | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.name, self.stem, self.kind = opening.name, opening.stem, opening.kind
        self.live = opening.drops if options.drop == "auto" else options.drop == "oldest"
        self.files: tuple[Path, ...] = ()
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lost_frames = 0
        self.truncated = False
        self.frame_count: int | None = options.limit
        self.account = Account(clock)
        self._opening = opening
        self._options = options
        self._clock = clock
        self._pause = pause
        self._seed = zlib.crc32(opening.name.encode())
        self._intake = Intake(options, self.account, clock)
        self._stop = threading.Event()
        self._fitted = FirstSize(self.warnings)
        self._seen: tuple[bytes, NDArray[np.uint8]] | None = None
        self._told_losses = ""
        self._delivered = 0
        self._was_there = False
        self._origin: tuple[int, float] | None = None
        self._frames = self._deliver()
        self._session = self._begin(first)
        try:
            self._first: Frame | None = next(self._frames, None)
            if self._first is None:
                raise SourceError(f"{self.name} ended before its first picture; {opening.remedy}")
        except SourceError as error:
            self.close()
            attempts, over = options.attempts(opening.attempts), self._session.over
            raise AbsentError(str(error), self.name, self.stem, self.kind, attempts, over) from None
        except BaseException:
            self.close()
            raise
        self.size: Size | None = self._first.size
        connection = self._session.connection
        assert connection is not None
        self.fps: Fraction | None = options.rate(connection.fps)
        self.time_base: Fraction | None = connection.time_base
        self.notes += connection.notes

    def __iter__(self) -> Iterator[Frame]:
        """The frames, as they come."""
        first, self._first = self._first, None
        if first is not None:
            yield self._fresh(first)
        yield from self._frames

    def interrupt(self) -> None:
        """End all waiting, for a picture or for the source to come back; any thread may call it."""
        self._stop.set()
        self._session.leave()

    def close(self) -> None:
        """Let go of the source."""
        self.interrupt()
        # Where pictures come it ends with the next one; where none do, nobody waits for it.
        self._session.over(LEAVE_S)
        self._gather()
        self.account.close()

    def _fresh(self, first: Frame) -> Frame:
        """The first frame, or the newest one where the first has become old meanwhile.

        Opening an engine takes seconds. What came in between has come before the beginning.
        """
        age_s = self._clock() - (first.arrived_s or 0.0)
        if not self.live or age_s <= FRESH_S:
            return first
        self._origin, self._delivered = None, 0
        newer = next(self._frames, None)
        if newer is None:
            return first
        self.account.count(passed_over=1)
        return newer

    def _deliver(self) -> Generator[Frame, None, None]:
        while self._delivered != self._options.limit and (shot := self._next()) is not None:
            started = time.perf_counter()
            image = shot.pixels()
            if image is None:
                self.lost_frames += 1
                self.account.count(captured=-1)
                continue
            if self._origin is None:
                # Not the picture: it would keep its connection's decoder.
                self._origin = (shot.index, shot.timestamp_s)
                self.account.begin()
            image = self._fitted(image)
            self._compare(image)
            decode_ms = shot.decode_ms + (time.perf_counter() - started) * 1e3
            self._delivered += 1
            self._was_there = True
            index, began_s = self._origin
            yield Frame(
                image,
                shot.index - index,
                shot.timestamp_s - began_s,
                decode_ms=decode_ms,
                arrived_s=shot.arrived_s,
            )
        self._session.leave()

    def _next(self) -> Shot | None:
        """The next picture that is taken; None at the end."""
        while not self._stop.is_set():
            shot = self._session.take()
            if shot is not None:
                return shot
            if self._stop.is_set() or not self._regain():
                return None
        return None

    def _regain(self) -> bool:
        """Open the source again; False when its end is no loss, or nobody waits any more.

        Raises:
            SourceError: it did not come back.
        """
        session = self._session
        failure = self._failure()
        session.leave()
        attempts = self._attempts()
        if failure is None and (attempts == 0 or session.finite):
            self._tell_end()
            return False
        if failure is not None and attempts == 0:
            raise failure
        if self._was_there:
            self.account.lost(session.heard_s)
        reason = str(failure or f"{self.name}: the stream ended")
        backoff = Backoff(attempts, self._options.reconnect_interval_s, self._seed)
        self._seed += 1
        for attempt, pause_s in enumerate(backoff.pauses_s(), start=1):
            self._tell_waiting(reason, attempt, attempts, pause_s)
            if self._pause(self._stop, pause_s):
                return False
            # One thread a source, ever: one that hangs in a driver must not become a thousand.
            if not self._session.over(LEAVE_S):
                continue
            self._gather()
            if self._reopens():
                return not self._stop.is_set()
            if self._session.finite:
                self.account.end()
                self._tell_recording()
                return False
            reason = str(self._failure() or reason)
            self._session.leave()
        raise self._gone(reason, attempts)

    def _reopens(self) -> bool:
        """Open the source again; False when it cannot be, or is a recording now."""
        self._session = self._begin(None)
        if self._stop.is_set():
            self._session.leave()
            return True
        comes = self._session.comes()
        if comes and self._was_there:
            self._tell_back(self.account.back(self._session.began_s))
        return comes or self._stop.is_set()

    def _failure(self) -> SourceError | None:
        """Why the session gives no more pictures."""
        failure = self._session.failure()
        # Its frames lead back to the session: the connection and its decoder's threads would stay
        # until somebody looks for circles.
        return None if failure is None else failure.with_traceback(None)

    def _attempts(self) -> int:
        """How often the source is opened again if it is lost now."""
        if not self._was_there:
            # A wrong address is not tried for minutes, unless that was asked for.
            return self._options.first_attempts
        if self._session.finite:
            return 0
        return self._options.attempts(self._opening.attempts)

    def _begin(self, connection: Connection | None) -> Session:
        return Session(
            self.name,
            self._opening.connect if connection is None else lambda _: connection,
            self._intake,
            drops=self.live,
            stall_s=self._options.stall_s if self._opening.stalls else LONGEST_WAIT_S,
            connect_s=CONNECT_S,
            clock=self._clock,
        )

    def _gather(self) -> None:
        """Take over what the last connection has to tell."""
        connection = self._session.connection
        if connection is None:
            return
        self.lost_frames += connection.lost_frames
        connection.lost_frames = 0
        for text in connection.warnings:
            if text not in self.warnings and len(self.warnings) < MOST_WARNINGS:
                self.warnings.append(text)
        connection.warnings.clear()

    def _tell_back(self, offline_s: float) -> None:
        _LOG.warning("%s is back after %.1f s", self.name, offline_s)
        count = self.account.now()
        times = "once" if count.reconnects == 1 else f"{count.reconnects} times"
        text = (
            f"{self.name} was lost {times} and came back; {count.seconds_offline:.1f} s of it "
            "are missing"
        )
        if self._told_losses in self.warnings:
            self.warnings.remove(self._told_losses)
        self.warnings.append(text)
        self._told_losses = text

    def _tell_waiting(self, reason: str, attempt: int, attempts: int, pause_s: float) -> None:
        # Of an outage of days a line now and then: after 1, 2, 4, 8 attempts and so on.
        level = logging.INFO if attempt & (attempt - 1) else logging.WARNING
        of = "" if attempts == FOR_EVER else f" of {attempts}"
        _LOG.log(level, "%s; trying again in %.1f s (attempt %d%s)", reason, pause_s, attempt, of)

    def _tell_end(self) -> None:
        if self._opening.tells_end and not self._session.finite:
            self.warnings.append(f"{self.name} ended after {self._intake.index} frames")

    def _tell_recording(self) -> None:
        self.warnings.append(
            f"{self.name} is a recording: asked again, it began anew, and was not read twice. For "
            "every frame of it give --drop none --reconnect-attempts 0"
        )

    def _gone(self, reason: str, attempts: int) -> SourceError:
        tried = "one attempt" if attempts == 1 else f"{attempts} attempts"
        what = "was lost for good" if self._was_there else "cannot be opened"
        return SourceError(
            f"{self.name} {what}: {tried} failed, the last one with: "
            f"{reason}. --reconnect-attempts -1 goes on for ever"
        )

    def _compare(self, image: NDArray[np.uint8]) -> None:
        """Count a picture that is the last one again."""
        sample = image[::_SAMPLING, ::_SAMPLING].tobytes()
        if self._seen is not None and self._seen[0] == sample:
            self.account.count(duplicated=int(np.array_equal(self._seen[1], image)))
        self._seen = (sample, image)
