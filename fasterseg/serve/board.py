"""The newest result of a run and its recent past: written by the pipeline, read by the server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fasterseg.labels import LabelSet
from fasterseg.stream.results import SegmentationResult
from fasterseg.types import STAGES, StageTimes

WINDOW: Final = 240
"""Results that rates and times are taken from: ten seconds of a camera."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One result on the board.

    Attributes:
        sequence: 1 for the first result of the run, then 2.
        result: the result.
        labels: its classes, in the colours that were asked for.
    """

    sequence: int
    result: SegmentationResult
    labels: LabelSet


@dataclass(frozen=True, slots=True, eq=False)
class Recent:
    """What a board says at one moment.

    Attributes:
        now_s: the moment, on the clock of `arrivals_s`.
        started_s: when the board was put up.
        latest: the newest result; None before the first.
        ended: no more results will come.
        arrivals_s: when the last results came, oldest first.
        times: their times per stage, oldest first; the newest one's are not complete.
        totals_ms: stage -> its milliseconds summed over all results but the newest.
    """

    now_s: float
    started_s: float
    latest: Shown | None
    ended: bool
    arrivals_s: tuple[float, ...]
    times: tuple[StageTimes, ...]
    totals_ms: Mapping[str, float]


class Board:
    """Holds the newest result. `put` takes microseconds, whoever reads and however slowly.

    Args:
        paint: gives the classes of the model the colours that were asked for.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        paint: Callable[[LabelSet], LabelSet] = lambda labels: labels,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paint = paint
        self._clock = clock
        self._lock = threading.Lock()
        self._started_s = clock()
        self._latest: Shown | None = None
        self._ended = False
        self._arrivals_s: deque[float] = deque(maxlen=WINDOW)
        self._times: deque[StageTimes] = deque(maxlen=WINDOW)
        self._totals_ms = dict.fromkeys(STAGES, 0.0)
        self._painted: tuple[LabelSet, LabelSet] | None = None
        self._wakes: list[Callable[[], object]] = []

    def put(self, result: SegmentationResult) -> None:
        """Replace the newest result; called in the pipeline's thread."""
        labels = self.painted(result.labels)
        with self._lock:
            if self._times:
                # Only now: the time of writing is known once every sink has written.
                for stage in STAGES:
                    self._totals_ms[stage] += getattr(self._times[-1], f"{stage}_ms")
            sequence = self._latest.sequence + 1 if self._latest else 1
            self._latest = Shown(sequence, result, labels)
            self._arrivals_s.append(self._clock())
            self._times.append(result.times)
        self._wake_readers()

    def painted(self, labels: LabelSet) -> LabelSet:
        """The same classes in the colours that were asked for.

        Raises:
            ConfigError: these colours do not fit.
        """
        if self._painted is None or self._painted[0] is not labels:
            self._painted = (labels, self._paint(labels))
        return self._painted[1]

    def end(self) -> None:
        """No more results will come."""
        with self._lock:
            self._ended = True
        self._wake_readers()

    @property
    def ended(self) -> bool:
        """Whether no more results will come."""
        return self._ended

    @property
    def latest(self) -> Shown | None:
        """The newest result; None before the first."""
        return self._latest

    def recent(self) -> Recent:
        """Everything at once, for figures."""
        with self._lock:
            return Recent(
                now_s=self._clock(),
                started_s=self._started_s,
                latest=self._latest,
                ended=self._ended,
                arrivals_s=tuple(self._arrivals_s),
                times=tuple(self._times),
                totals_ms=dict(self._totals_ms),
            )

    def wake_once(self, wake: Callable[[], object]) -> None:
        """Call this with the next result, or at the end; it must not wait.

        Look at `latest` after asking: a result that came before wakes nobody.
        """
        with self._lock:
            self._wakes.append(wake)

    def _wake_readers(self) -> None:
        with self._lock:
            wakes, self._wakes = self._wakes, []
        for wake in wakes:
            # The reader's event loop may have been closed in between.
            with contextlib.suppress(RuntimeError):
                wake()
