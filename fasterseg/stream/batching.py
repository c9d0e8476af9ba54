"""One engine for several streams: frames that come at the same time are run as one batch.

Each stream gets an engine of its own to call, a frame at a time. What the streams ask for is
gathered until a batch is full, nobody is left to come, or the oldest frame has waited long enough;
one thread runs it and gives every stream its own labels.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import EngineError, UsageError
from fasterseg.runtime.base import Engine, PipelinedEngine, check_frames
from fasterseg.stream.gathering import (
    Batch,
    Call,
    Gathering,
    SharingCount,
    SharingStats,
    check_limits,
)
from fasterseg.stream.in_flight import IN_FLIGHT
from fasterseg.stream.readahead import Worker

_SURELY_BUSY: Final = 0.75
"""Share of its last time that a batch is trusted to take again. Below 1, so that waiting for the
next batch meanwhile does not make the estimate grow by itself."""


class SharedStream:
    """A stream's share of an engine; see `runtime.base.Engine`. One call at a time.

    The labels it returns are in memory of its own, which its next call uses again.
    """

    def __init__(self, shared: SharedEngine, engine: Engine) -> None:
        self.spec = replace(engine.spec, batch=1)
        self.backend, self.device, self.tail = engine.backend, engine.device, engine.tail
        self._shared = shared

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classify one frame, together with those of other streams.

        Args:
            frames: (1, H, W, 3) uint8, BGR, values in [0, 255].

        Returns:
            (1, H, W) uint8 train ids.

        Raises:
            UsageError: shape or type do not fit, the stream is closed, or another thread is in
                a call of it.
            EngineError: the engine failed, or stream or engine were closed meanwhile.
        """
        check_frames(self.spec, frames)
        return self._shared.labels_of(self, frames[0])[None]

    def await_turn(self) -> None:
        """Wait until a frame given to `run` would be the next one, after those who asked before.

        Who has newer frames all the time takes the newest one then, and none that waited here.
        Returns at once where frames of several streams are run together, or after `close`.
        """
        self._shared.await_turn_of(self)

    def close(self) -> None:
        """Leave; a call under way in another thread ends with an error. Others are unaffected."""
        self._shared.leave(self)


@dataclass(slots=True)
class _Seat:
    """What the shared engine knows of a stream."""

    call: Call | None = None
    in_turn: bool = False
    labels: NDArray[np.uint8] | None = None

    def labels_for(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        if self.labels is None or self.labels.shape != shape:
            self.labels = np.empty(shape, np.uint8)
        return self.labels

    def refuse(self, error: Exception) -> None:
        if self.call is not None and self.call.awaited:
            self.call.answer.set_exception(error)


class SharedEngine:
    """An engine that several streams use at the same time, a batch of their frames at once.

    A batch is begun as soon as `max_batch` frames wait, every open stream has one on its way, or
    its oldest frame has waited for `max_delay_ms`; a batch under way is waited for, and with a
    `PipelinedEngine` two may be. Frames are run in the order in which they came, and a stream
    has one on its way at a time, so that none gets ahead of the others. An engine of fixed batch
    gets repeated frames in the places that are left; their labels are dropped.

    Close it, or use it in a `with` block; the engine itself stays open, and belongs to this
    object until then.

    Args:
        engine: runs the batches, in a thread of this object.
        max_batch: frames in a batch at most.
        max_delay_ms: milliseconds a frame waits for others at most, in [0, 60000].

    Raises:
        UsageError: a limit that cannot be right, or that the engine does not have.
    """

    def __init__(self, engine: Engine, max_batch: int, max_delay_ms: float) -> None:
        check_limits(engine, max_batch, max_delay_ms)
        self.max_batch, self.max_delay_ms = max_batch, max_delay_ms
        self._engine = engine
        self._ahead = engine if isinstance(engine, PipelinedEngine) else None
        self._gathering = Gathering(max_batch, max_delay_ms / 1e3, engine.spec.batch or max_batch)
        self._changed = threading.Condition()
        self._seats: dict[SharedStream, _Seat] = {}
        self._turns: deque[SharedStream] = deque()
        self._closed = False
        self._wakes = -math.inf  # Minus infinity: the worker is awake.
        self._under_way: deque[Batch] = deque()
        self._busy_since = 0.0
        self._expected: dict[int, float] = {}
        self._sharing = SharingCount(max_batch)
        self._worker = Worker("batches", self._work)
        self._worker.start()

    def open(self) -> SharedStream:
        """An engine for one more stream; close it when the stream ends, or others wait for it.

        Raises:
            UsageError: this is closed.
        """
        with self._changed:
            if self._closed:
                raise UsageError(f"shared engine {self._engine.spec.name} is closed; open another")
            stream = SharedStream(self, self._engine)
            self._seats[stream] = _Seat()
            return stream

    def statistics(self) -> SharingStats:
        """Of the batches begun so far, or since `restart_statistics`."""
        with self._changed:
            return self._sharing.stats()

    def restart_statistics(self) -> None:
        """Forget what was counted so far."""
        with self._changed:
            self._sharing = SharingCount(self.max_batch)

    def close(self) -> None:
        """End it: whoever waits gets an EngineError; returns when the engine is free."""
        self._refuse_all()
        self._worker.join()
        error, self._worker.error = self._worker.error, None
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def labels_of(self, stream: SharedStream, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`SharedStream.run` of one (H, W, 3) frame: (H, W) labels."""
        with self._changed:
            seat = self._seat(stream)
            call = Call(seat.labels_for(frame.shape[:2]), time.monotonic(), seat.in_turn)
            batch, place = self._gathering.join(call, engine_free=self._wakes > -math.inf)
            seat.call = call
        try:
            try:
                # In the caller's thread: the frames of many streams are copied side by side.
                batch.places.frames[place] = frame
            finally:
                with self._changed:
                    batch.copying -= 1
                    self._wake()
            return call.answer.result()
        finally:
            with self._changed:
                # Does nothing to a call that was answered; an interrupted one is forgotten.
                call.answer.cancel()
                seat.call = None

    def await_turn_of(self, stream: SharedStream) -> None:
        """`SharedStream.await_turn`."""
        if self.max_batch > 1:
            return
        with self._changed:
            if stream in self._seats:
                self._seats[stream].in_turn = True
            self._turns.append(stream)
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or stream not in self._seats
                    or (self._turns[0] is stream and not self._gathering.has_turn)
                )
            )
            self._turns.remove(stream)
            self._changed.notify_all()

    def leave(self, stream: SharedStream) -> None:
        """`SharedStream.close`."""
        with self._changed:
            seat = self._seats.pop(stream, None)
            if seat is not None:
                seat.refuse(
                    EngineError("the stream was closed while it waited; end its calls first")
                )
                self._changed.notify_all()

    def _seat(self, stream: SharedStream) -> _Seat:
        seat = self._seats.get(stream)
        if seat is None or self._closed:
            raise UsageError(f"this stream of engine {stream.spec.name} is closed; open another")
        if seat.call is not None:
            raise UsageError("a stream takes one call at a time; open() one for each thread")
        return seat

    def _nobody_else(self) -> bool:
        """Whether every open stream has a frame on its way, and can send no other."""
        calls = [seat.call for seat in self._seats.values()]
        return all(call is not None and call.awaited for call in calls)

    def _wake(self) -> None:
        """Wake the worker where it would otherwise sleep for too long."""
        if self._gathering.moment(self._nobody_else()) < self._wakes:
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while not self._closed or self._under_way:
                batch = self._next()
                if batch is not None:
                    self._begin(batch)
                most = 1 if self._ahead is None else IN_FLIGHT
                if self._under_way and (batch is None or len(self._under_way) == most):
                    self._end(self._under_way.popleft())
        finally:
            self._refuse_all()

    def _next(self) -> Batch | None:
        """Wait for a batch to begin; None when one under way is nearly done, or at the end."""
        with self._changed:
            while not self._closed:
                now, nobody_else = time.monotonic(), self._nobody_else()
                batch = self._gathering.take(now, nobody_else)
                if batch is not None:
                    if self._turns:
                        self._changed.notify_all()
                    return batch
                until = self._gathering.moment(nobody_else)
                if self._under_way:
                    frames = len(self._under_way[0].given)
                    # Nobody can ask such an engine whether it is done; it is asked in time.
                    until = min(until, self._busy_since + self._expected.get(frames, 0.0))
                    if until <= now:
                        return None
                self._wakes = until
                self._changed.wait(None if until == math.inf else until - now)
                self._wakes = -math.inf
            return None

    def _begin(self, batch: Batch) -> None:
        """Send a batch on its way, or leave that to `_end` where the engine does one at a time."""
        if not any(call.awaited for call in batch.calls):
            self._give_back(batch)
            return
        batch.given = batch.places.given(
            len(batch.calls), whole=self._engine.spec.batch is not None
        )
        while self._under_way and self._under_way[0].given.shape != batch.given.shape:
            # An engine makes ready for one shape at a time.
            self._end(self._under_way.popleft())
        now = time.monotonic()
        with self._changed:
            self._sharing.add(batch, now)
        if not self._under_way:
            self._busy_since = now
        if self._ahead is not None:
            try:
                self._ahead.submit(batch.given)
            except Exception as error:  # noqa: BLE001 - raised by those who asked
                self._fail(batch, error)
                return
        self._under_way.append(batch)

    def _end(self, batch: Batch) -> None:
        """Give each caller of the oldest batch its labels, or what the engine raised."""
        ahead = self._ahead
        try:
            labels = self._engine.run(batch.given) if ahead is None else ahead.collect()
            now = time.monotonic()
            self._expected[len(batch.given)] = _SURELY_BUSY * (now - self._busy_since)
            self._busy_since = now
            for call, own in zip(batch.calls, labels[: len(batch.calls)], strict=True):
                self._answer(call, own)
        except Exception as error:  # noqa: BLE001 - raised by those who asked
            self._fail(batch, error)
        else:
            self._give_back(batch)

    def _answer(self, call: Call, labels: NDArray[np.uint8]) -> None:
        if call.awaited:
            # The engine's own memory is overwritten by the next batch.
            call.labels[...] = labels
        with self._changed:
            if call.awaited:
                call.answer.set_result(call.labels)

    def _fail(self, batch: Batch, error: Exception) -> None:
        with self._changed:
            for call in batch.calls:
                if call.awaited:
                    call.answer.set_exception(error)
        self._give_back(batch)

    def _give_back(self, batch: Batch) -> None:
        with self._changed:
            self._gathering.give_back(batch)

    def _refuse_all(self) -> None:
        name = self._engine.spec.name
        with self._changed:
            self._closed = True
            for seat in self._seats.values():
                seat.refuse(
                    EngineError(
                        f"shared engine {name} was closed while a frame waited for it; end the "
                        "streams first"
                    )
                )
            self._changed.notify_all()
