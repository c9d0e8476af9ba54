"""Frames of several streams on their way into batches: who gets which place, and what runs when."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import UsageError
from fasterseg.runtime.base import Engine
from fasterseg.types import LatencyStats

LONGEST_DELAY_MS: Final = 60_000.0

_SPARE: Final = 4
"""Memory of so many batches is kept for later ones."""

WAITS_KEPT: Final = 4096
"""Latest frames whose waiting times statistics are made of."""


@dataclass(slots=True, eq=False)
class Call:
    """One frame on its way to its labels.

    Attributes:
        labels: (H, W) uint8, where they are put.
        arrived: seconds, when it was asked for.
        in_turn: whether it was taken when its turn came, and not before.
        answer: `labels`, once they are there, or what went wrong.
    """

    labels: NDArray[np.uint8]
    arrived: float
    in_turn: bool = False
    answer: Future[NDArray[np.uint8]] = field(default_factory=Future)

    @property
    def awaited(self) -> bool:
        """Whether anybody still waits for the answer."""
        return not self.answer.done()


class Places:
    """Memory for the frames of a batch, used again by later batches.

    Args:
        count: frames it holds.
        shape: (H, W, 3) of each.
    """

    def __init__(self, count: int, shape: tuple[int, ...]) -> None:
        self.frames: NDArray[np.uint8] = np.empty((count, *shape), np.uint8)
        self._all_written = False

    def given(self, count: int, *, whole: bool) -> NDArray[np.uint8]:
        """What the engine gets of a batch with so many frames.

        Args:
            count: frames in the first places.
            whole: all places, for an engine of fixed batch. The others then repeat frames: those
                of earlier batches, or the last of this one where there was none.

        Returns:
            (N, H, W, 3) uint8, BGR.
        """
        if not whole:
            return self.frames[:count]
        if not self._all_written:
            self.frames[count:] = self.frames[count - 1]
            self._all_written = True
        return self.frames


@dataclass(slots=True, eq=False)
class Batch:
    """Frames of one shape that are run together, in the order in which they came.

    Attributes:
        places: their memory.
        due: seconds, when it is run, full or not.
        calls: who asked; the n-th one's frame is in the n-th place.
        copying: callers that have a place and are still writing their frame into it.
        given: what the engine got.
    """

    places: Places
    due: float
    calls: list[Call] = field(default_factory=list)
    copying: int = 0
    given: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))


class Gathering:
    """Batches that wait to be run, oldest first. Its owner's lock guards it; it knows no clock.

    Args:
        max_batch: frames at which a batch is full.
        max_delay_s: how long a frame waits for others.
        places: places of a batch in memory; at least `max_batch`.
    """

    def __init__(self, max_batch: int, max_delay_s: float, places: int) -> None:
        self._max_batch = max_batch
        self._max_delay_s = max_delay_s
        self._places = places
        self._waiting: list[Batch] = []
        self._spare: deque[Places] = deque(maxlen=_SPARE)

    def join(self, call: Call, *, engine_free: bool) -> tuple[Batch, int]:
        """Give a call its place: in the oldest batch that takes it, or in a new one.

        The caller writes its frame there and then takes itself off `Batch.copying`.

        Args:
            call: who asks.
            engine_free: whether the engine could begin a batch now, so that one that is due must
                not wait for yet another frame to be written.
        """
        fitting = (batch for batch in self._waiting if self._takes(batch, call, engine_free))
        batch = next(fitting, None)
        if batch is None:
            batch = Batch(self._free((*call.labels.shape, 3)), call.arrived + self._max_delay_s)
            self._waiting.append(batch)
        batch.calls.append(call)
        batch.copying += 1
        return batch, len(batch.calls) - 1

    def moment(self, nobody_else: bool) -> float:
        """Seconds from which on `take` has a batch; infinity where it takes more frames first.

        Args:
            nobody_else: no stream is left that could send a frame now.
        """
        return min((self._moment(batch, nobody_else) for batch in self._waiting), default=math.inf)

    @property
    def has_turn(self) -> bool:
        """Whether a frame waits that was taken in its turn.

        Those of who takes no turns, such as files, are there all the time.
        """
        return any(call.in_turn for batch in self._waiting for call in batch.calls)

    def take(self, now: float, nobody_else: bool) -> Batch | None:
        """The oldest batch that is to be run now, if there is one."""
        for batch in self._waiting:
            if self._moment(batch, nobody_else) <= now:
                self._waiting.remove(batch)
                return batch
        return None

    def give_back(self, batch: Batch) -> None:
        """Let later batches have the memory of one that is over."""
        self._spare.append(batch.places)

    def _takes(self, batch: Batch, call: Call, engine_free: bool) -> bool:
        if len(batch.calls) == self._max_batch or (engine_free and batch.due <= call.arrived):
            return False
        return batch.places.frames.shape[1:3] == call.labels.shape

    def _moment(self, batch: Batch, nobody_else: bool) -> float:
        if batch.copying:
            return math.inf
        return -math.inf if nobody_else or len(batch.calls) == self._max_batch else batch.due

    def _free(self, shape: tuple[int, ...]) -> Places:
        for places in self._spare:
            if places.frames.shape[1:] == shape:
                self._spare.remove(places)
                return places
        return Places(self._places, shape)


@dataclass(frozen=True, slots=True)
class SharingStats:
    """How well the frames of several streams came together.

    Attributes:
        batches: batches run.
        frames: frames in them.
        mean_fill: frames per batch over the most a batch may have, in [0, 1].
        waited: milliseconds from a frame's arrival to the start of its batch, of the latest
            `WAITS_KEPT` frames; None before the first.
    """

    batches: int
    frames: int
    mean_fill: float
    waited: LatencyStats | None


class SharingCount:
    """Counts batches as they begin, in constant memory. Its owner's lock guards it.

    Args:
        max_batch: frames in a batch at most.
    """

    def __init__(self, max_batch: int) -> None:
        self._max_batch = max_batch
        self._waited_ms: deque[float] = deque(maxlen=WAITS_KEPT)
        self._batches = self._frames = 0

    def add(self, batch: Batch, now: float) -> None:
        """Count a batch that begins now (seconds)."""
        self._batches += 1
        self._frames += len(batch.calls)
        self._waited_ms += [(now - call.arrived) * 1e3 for call in batch.calls]

    def stats(self) -> SharingStats:
        """All there is to say so far."""
        fill = self._frames / (self._batches * self._max_batch) if self._batches else 0.0
        waited = LatencyStats.of(tuple(self._waited_ms)) if self._waited_ms else None
        return SharingStats(self._batches, self._frames, fill, waited)


def check_limits(engine: Engine, max_batch: int, max_delay_ms: float) -> None:
    """Refuse limits that cannot be right.

    Raises:
        UsageError: one is out of range, or the engine does not have it.
    """
    if max_batch < 1:
        raise UsageError(f"a batch has at least 1 frame, not {max_batch}")
    if not 0 <= max_delay_ms <= LONGEST_DELAY_MS:
        raise UsageError(
            f"frames wait for others for 0 to {LONGEST_DELAY_MS:g} ms, not {max_delay_ms:g}"
        )
    most = engine.spec.batch
    if most is not None and max_batch > most:
        raise UsageError(
            f"engine {engine.spec.name} takes {most} frames per call, so batches of {max_batch} "
            f"do not fit; allow at most {most}, or open it for a batch of {max_batch}"
        )
