"""A live source that is not there when a run begins, and joins it when it comes."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

from fasterseg.errors import SourceError
from fasterseg.stream.live import AbsentError, Account, Backoff, account_of
from fasterseg.stream.readahead import Worker
from fasterseg.stream.sources import FrameSource, open_source
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Frame, Size

LEAVE_S: Final = 0.5
"""How long to wait for the end of an attempt that has failed."""

_LOG: Final = logging.getLogger("fasterseg.live")


class LateSource:
    """Stands for a live source until it is there; see `FrameSource`.

    A thread of its own opens it again and again, with the usual pauses. What cannot be known
    before is None until then, and is to be asked of `arrive` or `now_of`.

    Args:
        uri: see `open_source`.
        options: which frames are taken, and how often it is opened again.
        absent: what came of the first attempt.
        clock: seconds that only grow.
        pause: waits so many seconds, or until the event is set; tells whether it is.
    """

    def __init__(
        self,
        uri: str,
        options: SourceOptions,
        absent: AbsentError,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        self.name, self.stem, self.kind = absent.name, absent.stem, absent.kind
        self.live = True
        self.fps: Fraction | None = None
        self.time_base: Fraction | None = None
        self.size: Size | None = None
        self.frame_count: int | None = options.limit
        self.files: tuple[Path, ...] = ()
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lost_frames = 0
        self.truncated = False
        self.account = Account(clock)
        self.account.lost(clock())
        self.reason = str(absent)
        self.arrived: FrameSource | None = None
        self._uri, self._options = uri, options
        self._pause = pause
        self._attempts, self._over = absent.attempts, absent.over
        self._late_s = 0.0
        self._stop = threading.Event()
        self._settled = threading.Event()
        self._worker = Worker("late", self._seek)
        self._worker.start()

    @property
    def settled(self) -> bool:
        """Whether it has come, or will not."""
        return self._settled.is_set()

    def arrive(self) -> FrameSource | None:
        """Wait for the source; None once nobody waits for it any more.

        Raises:
            SourceError: it did not come.
            UsageError: it cannot be opened like this.
        """
        self._settled.wait()
        if self._stop.is_set():
            # Nothing wakes an attempt under way; it closes by itself what it opens.
            return None
        self._worker.join()
        if self._worker.error is not None:
            raise self._worker.error
        _LOG.warning("%s is there now, after %.1f s", self.name, self._late_s)
        return self.arrived

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once it is there."""
        arrived = self.arrive()
        if arrived is not None:
            yield from arrived

    def interrupt(self) -> None:
        """End all waiting for it; any thread or signal handler may call it."""
        self._stop.set()
        self._settled.set()

    def close(self) -> None:
        """Let go of it, and of what has come."""
        self.interrupt()
        if self.arrived is not None:
            self.arrived.close()
        self.account.close()

    def _seek(self) -> None:
        try:
            self._open_again()
        finally:
            self._settled.set()

    def _open_again(self) -> None:
        """Attempt it until it is there, nobody waits, or it is given up."""
        seed = zlib.crc32(self.name.encode())
        backoff = Backoff(self._attempts, self._options.reconnect_interval_s, seed)
        for number, pause_s in enumerate(backoff.pauses_s(), start=1):
            _LOG.info("%s; attempt %d in %.1f s", self.reason, number, pause_s)
            if self._pause(self._stop, pause_s):
                return
            # One attempt at a time, ever: those that hang in a driver must not become a thousand.
            if self._over(LEAVE_S) and self._comes():
                return
        tried = "one more attempt" if self._attempts == 1 else f"{self._attempts} more attempts"
        raise SourceError(
            f"{self.name} did not come: {tried} failed, the last one with: {self.reason}. "
            "--reconnect-attempts -1 goes on for ever"
        )

    def _comes(self) -> bool:
        """Open it; False where it is still not there."""
        try:
            source = open_source(self._uri, self._options)
        except SourceError as error:
            self.reason = str(error)
            if isinstance(error, AbsentError):
                self._over = error.over
            return False
        self._introduce(source)
        self.arrived = source
        # Asked after it was kept: whoever interrupts later finds it there to close.
        if self._stop.is_set():
            source.close()
        return True

    def _introduce(self, source: FrameSource) -> None:
        """Let the source that has come account for the time without it."""
        self._late_s = self.account.now().seconds_offline
        account = account_of(source)
        if account is not None:
            account.late(self._late_s)
        source.warnings.append(
            f"{source.name} came late; its first {self._late_s:.1f} s are missing"
        )


def now_of(source: FrameSource) -> FrameSource:
    """What a source is by now: one that was late is the one that came."""
    if isinstance(source, LateSource) and source.arrived is not None:
        return source.arrived
    return source
