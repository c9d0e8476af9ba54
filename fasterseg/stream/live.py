"""What live sources share: when they are opened again, how late they are, the account of frames."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from fasterseg.errors import SourceError
from fasterseg.stream.sources import Kind
from fasterseg.types import Frame

FOR_EVER: Final = -1
"""Number of attempts of whoever never gives up."""

LONGEST_PAUSE_S: Final = 30.0
JITTER: Final = 0.2
"""Largest share by which a pause is longer or shorter than planned: many streams of one sender
must not all come back in the same moment."""

_MOST_DOUBLINGS: Final = 30
_LEAP_S: Final = 30.0
_DRIFT: Final = 1e-3
"""Seconds a second by which two clocks may run apart: more than any of quartz does."""


class AbsentError(SourceError):
    """A live source that could not be opened, and may be there later.

    Args:
        reason: why, for people.
        name: of the source; like the next two see `FrameSource`.
        stem: what names of outputs start with.
        kind: what it is.
        attempts: how often it is to be opened again; 0 where that makes no sense.
        over: whether the attempt has let go of everything; waits for that so many seconds.
    """

    def __init__(
        self,
        reason: str,
        name: str,
        stem: str,
        kind: Kind,
        attempts: int,
        over: Callable[[float], bool] = lambda timeout_s: True,
    ) -> None:
        super().__init__(reason)
        self.name, self.stem, self.kind = name, stem, kind
        self.attempts = attempts
        self.over = over


class Backoff:
    """How long to wait before each attempt to connect again.

    The pauses of an outage double from the first one up to `LONGEST_PAUSE_S` (or to the first
    one, where that is longer), each changed at random by at most `JITTER` of it.

    Args:
        attempts: how many in a row; `FOR_EVER`, or 0 for none.
        interval_s: the first pause.
        seed: pauses of equal seeds are equal.
    """

    def __init__(self, attempts: int, interval_s: float, seed: int) -> None:
        self.attempts = attempts
        self._interval_s = interval_s
        self._random = random.Random(seed)

    def pauses_s(self) -> Iterator[float]:
        """The pauses of one outage, in seconds."""
        longest_s = max(LONGEST_PAUSE_S, self._interval_s)
        done = 0
        while done != self.attempts:
            planned_s = min(longest_s, self._interval_s * 2 ** min(done, _MOST_DOUBLINGS))
            yield planned_s * (1 + JITTER * (2 * self._random.random() - 1))
            done += 1


class Lateness:
    """How much later than the earliest one each picture of a stream arrives.

    A sender's clock that runs slower than ours makes no lateness, a decoder that cannot keep up
    does: the earliest arrival may drift, but only as slowly as clocks do. A leap is another clock.
    """

    def __init__(self) -> None:
        self._earliest_s: float | None = None
        self._last_s = 0.0

    def seconds(self, arrived_s: float, time_s: float) -> float:
        """Lateness of a picture.

        Args:
            arrived_s: our clock.
            time_s: the picture's own time.
        """
        offset_s = arrived_s - time_s
        earliest_s = offset_s
        if self._earliest_s is not None:
            earliest_s = min(offset_s, self._earliest_s + _DRIFT * (arrived_s - self._last_s))
        self._earliest_s = offset_s if offset_s - earliest_s > _LEAP_S else earliest_s
        self._last_s = arrived_s
        return offset_s - self._earliest_s


@dataclass(frozen=True, slots=True)
class Count:
    """The account of a live source at one moment.

    Attributes:
        captured: pictures the source gave: processed + dropped + passed over + unfinished.
        processed: those that became results and were written.
        dropped: those that came faster than they could be taken, or too late to be worth it.
        passed_over: those nobody asked for (before the start, by stride or maximum rate, after
            the limit).
        duplicated: those that repeat the picture before them, bit for bit: a sender that shows
            the same for ever. They are processed like any other.
        reconnects: how often the source was lost and came back; to come late is neither.
        seconds_offline: from each last picture before a loss to the first one after it, and
            until the first one of a source that was not there when the run began.
        connected: whether the source is there.
        staleness_s: age of the newest result's picture when the result was written.
        max_staleness_s: the largest of these ages.
    """

    captured: int
    processed: int
    dropped: int
    passed_over: int
    duplicated: int
    reconnects: int
    seconds_offline: float
    connected: bool
    staleness_s: float
    max_staleness_s: float

    @property
    def unfinished(self) -> int:
        """Pictures under way; 0 once a run has ended of itself."""
        return self.captured - self.processed - self.dropped - self.passed_over

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return {
            "captured": self.captured,
            "processed": self.processed,
            "dropped": self.dropped,
            "passed_over": self.passed_over,
            "unfinished": self.unfinished,
            "duplicated": self.duplicated,
            "reconnects": self.reconnects,
            "seconds_offline": round(self.seconds_offline, 3),
            "max_staleness_s": round(self.max_staleness_s, 4),
        }


class Account:
    """Counts the pictures of a live source, whichever thread they are in; constant memory.

    Args:
        clock: seconds that only grow; that of `Frame.arrived_s`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._captured = self._processed = self._dropped = 0
        self._passed_over = self._duplicated = self._reconnects = 0
        self._offline_s = self._staleness_s = self._max_staleness_s = 0.0
        self._lost_s: float | None = None
        self._closed = False

    def count(
        self, *, captured: int = 0, dropped: int = 0, passed_over: int = 0, duplicated: int = 0
    ) -> None:
        """Add to the counts, all at once."""
        with self._lock:
            self._captured += captured
            self._dropped += dropped
            self._passed_over += passed_over
            self._duplicated += duplicated

    def begin(self) -> None:
        """Pictures are taken from now on: those that were not are none that came too fast."""
        with self._lock:
            self._passed_over += self._dropped
            self._dropped = 0

    def wrote(self, frame: Frame) -> None:
        """Count a frame whose result has just been written."""
        with self._lock:
            self._processed += 1
            if frame.arrived_s is not None:
                self._staleness_s = max(0.0, self._clock() - frame.arrived_s)
                self._max_staleness_s = max(self._max_staleness_s, self._staleness_s)

    def lost(self, since_s: float) -> None:
        """The source is gone; its last picture came at `since_s`."""
        with self._lock:
            self._lost_s = since_s

    def back(self, since_s: float) -> float:
        """The source is there again since `since_s`; returns the seconds without it."""
        with self._lock:
            offline_s = 0.0 if self._lost_s is None else max(0.0, since_s - self._lost_s)
            self._offline_s += offline_s
            self._reconnects += 1
            self._lost_s = None
            return offline_s

    def late(self, seconds: float) -> None:
        """The source came so long after the others that it had been asked for with."""
        with self._lock:
            self._offline_s += seconds

    def end(self) -> None:
        """What was taken for a loss was the end: nothing is missing."""
        with self._lock:
            self._lost_s = None

    def close(self) -> None:
        """The source will not come back; what is missing up to now is offline."""
        with self._lock:
            if self._lost_s is not None:
                self._offline_s += max(0.0, self._clock() - self._lost_s)
                self._lost_s = None
            self._closed = True

    def now(self) -> Count:
        """The account of this moment."""
        with self._lock:
            away_s = 0.0 if self._lost_s is None else max(0.0, self._clock() - self._lost_s)
            return Count(
                captured=self._captured,
                processed=self._processed,
                dropped=self._dropped,
                passed_over=self._passed_over,
                duplicated=self._duplicated,
                reconnects=self._reconnects,
                seconds_offline=self._offline_s + away_s,
                connected=self._lost_s is None and not self._closed,
                staleness_s=self._staleness_s,
                max_staleness_s=self._max_staleness_s,
            )

    def counters(self) -> dict[str, float]:
        """The account by name, for a page that shows it."""
        now = self.now()
        return {
            "captured": now.captured,
            "dropped": now.dropped,
            "duplicated": now.duplicated,
            "reconnects": now.reconnects,
            "seconds_offline": now.seconds_offline,
            "staleness_s": now.staleness_s,
            "max_staleness_s": now.max_staleness_s,
        }


@runtime_checkable
class Accounted(Protocol):
    """A source that counts what becomes of its pictures."""

    @property
    def account(self) -> Account:
        """The counts so far; any thread may look."""
        ...


def account_of(source: object) -> Account | None:
    """The account of a source that keeps one."""
    return source.account if isinstance(source, Accounted) else None
