"""Stand-ins for live sources: connections that do as they are told, and a clock that they move."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

from fasterseg.errors import SourceError
from fasterseg.stream.sources_live import LiveSource, Opening
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.stream.sources_session import Arrival
from tests.unit.stream.conftest import Image, numbered

PATIENCE_S = 20.0


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Silence:
    """In a script: the connection gives nothing until it is left."""


class Nap(float):
    """A pause of the real clock."""


Step = float | Image | None | type[Silence] | SourceError
"""A pause of the clock, a picture, one that cannot be decoded, silence, or a loss."""


class Script:
    """A connection that plays its steps; pictures are 1/25 s apart by their own times."""

    def __init__(
        self, sender: Sender, steps: Sequence[Step], left: threading.Event, finite: bool
    ) -> None:
        self.fps: Fraction | None = Fraction(25)
        self.time_base: Fraction | None = Fraction(1, 1000)
        self.finite = finite
        self.notes = ["a note"]
        self.warnings: list[str] = []
        self.lost_frames = 0
        self.closed = 0
        self._sender = sender
        self._steps = steps
        self._left = left

    def arrivals(self) -> Iterator[Arrival]:
        count = 0
        for step in self._steps:
            if isinstance(step, Nap):
                time.sleep(step)
            elif isinstance(step, float):
                self._sender.clock.now_s += step
            elif isinstance(step, SourceError):
                raise step
            elif step is Silence:
                assert self._left.wait(PATIENCE_S)
                return
            else:
                yield Arrival(self._time_s(count), self._keeper(step), decode_ms=1.0)
                count += 1

    def close(self) -> None:
        self.closed += 1

    def _time_s(self, count: int) -> float | None:
        return None if self._sender.untimed else count / 25

    def _keeper(self, image: Any) -> Callable[[], Callable[[], Any] | None]:
        def keep() -> Callable[[], Any] | None:
            if image is None:
                self.lost_frames += 1
                return None
            return lambda: image

        return keep


class Sender:
    """Plays one script per connection, in order; a `SourceError` refuses the connection.

    Args:
        scripts: what each connection does.
        finite: which connections declare an end.
    """

    def __init__(
        self,
        *scripts: Sequence[Step] | SourceError,
        finite: Sequence[int] = (),
        untimed: bool = False,
    ) -> None:
        self.clock = Clock()
        self.untimed = untimed
        self.made: list[Script] = []
        self.attempts = 0
        self.pauses_s: list[float] = []
        self.threads: set[str] = set()
        self._scripts = scripts
        self._finite = finite

    def connect(self, left: threading.Event) -> Script:
        number = self.attempts
        self.attempts += 1
        self.threads.add(threading.current_thread().name)
        script = self._scripts[number] if number < len(self._scripts) else SourceError("gone")
        if isinstance(script, SourceError):
            raise script
        self.made.append(Script(self, script, left, number in self._finite))
        return self.made[-1]

    def pause(self, stop: threading.Event, seconds: float) -> bool:
        """Waits on the test's clock."""
        self.pauses_s.append(seconds)
        self.clock.now_s += seconds
        return stop.is_set()

    def open(
        self, *, clock: Callable[[], float] | None = None, opening: Any = None, **options: Any
    ) -> LiveSource:
        """The source; all frames unless the options say otherwise, and an interval of 1 s."""
        given: dict[str, Any] = {"drop": "none", "reconnect_attempts": 5, **options}
        return LiveSource(
            Opening("rtsp://cam/live", "live", "video", self.connect, **(opening or {})),
            SourceOptions(**given),
            clock=clock or self.clock,
            pause=self.pause,
        )


def pictures(count: int, first: int = 0) -> list[Step]:
    """`count` of `numbered`, from that number on."""
    return list(numbered(first + count)[first:])


def wait_until(condition: Callable[[], bool]) -> None:
    """Until it holds, or the test fails."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
