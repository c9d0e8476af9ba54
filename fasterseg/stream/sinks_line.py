"""The way to a server that overlays are pushed to: one session after another, told in words."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import OutputError
from fasterseg.stream.live import FOR_EVER, Backoff
from fasterseg.stream.sinks_session import Order, Session

ATTEMPTS: Final = 10
"""Attempts in a row where nothing else was asked for, as for sources: some three minutes."""

SETTLED_S: Final = 5.0
"""A server that comes back for less than that has not: its attempts are counted on."""

_LOG: Final = logging.getLogger("fasterseg.live")


@dataclass(slots=True)
class _Outage:
    """A server that is away.

    Attributes:
        began_s: since when.
        attempts: how often in a row it is connected to.
        pauses_s: the pauses before those that are left.
        attempt: how many pauses were made.
    """

    began_s: float
    attempts: int
    pauses_s: Iterator[float]
    attempt: int = 0


class Line:
    """Keeps a session with a server, in the thread that uses it.

    A server that is not there at first is an error, unless attempts were asked for; one that is
    lost is connected to again, after pauses that double.

    Attributes:
        ending: set by another thread: nobody waits for a server any more.
        losses: how often it was lost.

    Args:
        name: of the server, for people.
        attempts: how often in a row it is connected to again; None: `ATTEMPTS`, and none at first.
        interval_s: the first pause.
        begin: starts a session.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        attempts: int | None,
        interval_s: float,
        begin: Callable[[Order], Session],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.losses = 0
        self.ending = threading.Event()
        self._name = name
        self._asked = attempts
        self._interval_s = interval_s
        self._begin = begin
        self._clock = clock
        self._seed = zlib.crc32(name.encode())
        self._lock = threading.Lock()
        self._broken_off = False
        self._session: Session | None = None
        self._order: Order | None = None
        self._was_there = False
        self._connected_s: float | None = None
        self._outage: _Outage | None = None

    def is_open(self, order: Order) -> bool:
        """Whether there is a session that was begun with this order."""
        return self._session is not None and self._order == order

    def open(self, order: Order) -> None:
        """Begin a session, in place of the one there may be.

        Raises:
            ConnectionError: the server is not there, or refuses.
        """
        self.hang_up()
        with self._lock:
            if self._broken_off:
                raise ConnectionError("broken off")
            try:
                self._session = session = self._begin(order)
            except OSError as error:
                raise ConnectionError(f"no process can be started: {error.strerror}") from None
        self._order = order
        session.connect()
        self._was_there = True
        self._connected_s = self._clock()
        if self._outage is not None:
            away_s = self._connected_s - self._outage.began_s
            _LOG.warning("%s is there after %.1f s", self._name, away_s)

    def send(self, ticks: int, planes: NDArray[np.uint8]) -> None:
        """Send a picture through the open session; see `Session.send`."""
        assert self._session is not None
        self._session.send(ticks, planes)

    def lost(self, reason: str) -> bool:
        """After a `ConnectionError`: pause, where there is to be another attempt.

        Args:
            reason: what the error says.

        Returns:
            Whether to go on; False: `ending` was set, and nobody waits for the server.

        Raises:
            OutputError: there is to be no other attempt, or the server was never there.
        """
        self.drop()
        outage = self._begin_outage()
        pause_s = next(outage.pauses_s, None)
        if self.ending.is_set() and self._was_there:
            return False
        if pause_s is None or self.ending.is_set():
            raise self._gone(reason, outage.attempt)
        outage.attempt += 1
        self._tell_waiting(reason, outage, pause_s)
        return not (self.ending.wait(pause_s) and self._was_there)

    def hang_up(self) -> None:
        """End the session properly, if there is one.

        Raises:
            ConnectionError: that failed.
        """
        if self._session is not None:
            try:
                self._session.finish()
            finally:
                self.drop()

    def drop(self) -> None:
        """End the session at once, if there is one."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def break_off(self) -> None:
        """End the session under the hands of the thread that uses it, and let none begin."""
        with self._lock:
            self._broken_off = True
            if self._session is not None:
                self._session.kill()

    def _begin_outage(self) -> _Outage:
        """The outage that this loss belongs to."""
        now_s = self._clock()
        outage = self._outage
        if self._connected_s is not None:
            self.losses += 1
            if now_s - self._connected_s > SETTLED_S:
                outage = None
            elif outage is not None:
                outage.began_s = now_s
            self._connected_s = None
        if outage is None:
            attempts = self._asked
            if attempts is None:
                attempts = ATTEMPTS if self._was_there else 0
            backoff = Backoff(attempts, self._interval_s, self._seed)
            self._seed += 1
            outage = _Outage(now_s, attempts, backoff.pauses_s())
        self._outage = outage
        return outage

    def _tell_waiting(self, reason: str, outage: _Outage, pause_s: float) -> None:
        # Of an outage of days a line now and then: after 1, 2, 4, 8 attempts and so on.
        level = logging.INFO if outage.attempt & (outage.attempt - 1) else logging.WARNING
        what = "was lost" if self._was_there else "cannot be reached"
        of = "" if outage.attempts == FOR_EVER else f" of {outage.attempts}"
        _LOG.log(
            level,
            "%s %s (%s); trying again in %.1f s (attempt %d%s)",
            self._name,
            what,
            reason,
            pause_s,
            outage.attempt,
            of,
        )

    def _gone(self, reason: str, attempts: int) -> OutputError:
        if not attempts or self.ending.is_set():
            what = "was lost" if self._was_there else "cannot be pushed to"
            return OutputError(
                f"{self._name} {what}: {reason}. Start the server, or check address, network and "
                "credentials; --reconnect-attempts N waits for it"
            )
        tried = "one attempt" if attempts == 1 else f"{attempts} attempts"
        what = "was lost for good" if self._was_there else "cannot be pushed to"
        return OutputError(
            f"{self._name} {what}: {tried} failed, the last one with: {reason}. "
            "--reconnect-attempts -1 goes on for ever"
        )
