"""Work ahead in a thread: a bounded channel that either end can close, and a reader on it."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar, runtime_checkable

from fasterseg.stream.live import account_of
from fasterseg.stream.sources import FrameSource
from fasterseg.types import Frame

T = TypeVar("T")

DEPTH: Final = 4
"""Items a channel holds: enough to even out stages, small enough to bound memory and delay."""


@runtime_checkable
class Interruptible(Protocol):
    """A source that may wait for its input without end (a pipe nobody writes into)."""

    def interrupt(self) -> None:
        """End the waiting; called by another thread, when no more frames are wanted."""
        ...


class Channel(Generic[T]):
    """A bounded first-in, first-out queue between two threads that never blocks for ever.

    Either end may leave at any time and the other one is woken: `finish` (the producer is done,
    what is queued is still delivered) or `cancel` (nobody wants more, what is queued is dropped).
    None is no item.

    Args:
        depth: items it holds before `put` waits.
        drop_oldest: instead of waiting, throw away the oldest item (live pictures).
    """

    def __init__(self, depth: int = DEPTH, *, drop_oldest: bool = False) -> None:
        self.dropped = 0
        self._depth = depth
        self._drop_oldest = drop_oldest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._cancelled = False

    def put(self, item: T) -> bool:
        """Append an item, waiting for room; False when the consumer is gone."""
        with self._changed:
            if self._drop_oldest and len(self._items) >= self._depth:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._cancelled or len(self._items) < self._depth)
            if self._cancelled:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self) -> None:
        """No more items will come."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def cancel(self) -> int:
        """No more items are wanted; returns how many were thrown away."""
        with self._changed:
            self._cancelled = True
            left = len(self._items)
            self._items.clear()
            self._changed.notify_all()
            return left

    @property
    def ended(self) -> bool:
        """Whether no more items can be taken: finished and empty, or cancelled."""
        with self._changed:
            return not self._items and (self._finished or self._cancelled)

    def take(self, timeout_s: float | None = None) -> T | None:
        """The next item, waited for; None when there are no more, or none came in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._items or self._finished or self._cancelled, timeout_s
            )
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        """Items in order until the channel is finished and empty, or cancelled."""
        while (item := self.take()) is not None:
            yield item


class Worker(threading.Thread):
    """A thread that keeps its exception for whoever joins it.

    It is a daemon: a generator that somebody forgot must not keep the program from ending. Context
    variables have the values of the thread that starts it.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=f"fasterseg-{name}", daemon=True)
        self.error: BaseException | None = None
        self._work = work
        self._context = contextvars.Context()

    def start(self) -> None:
        """Begin."""
        self._context = contextvars.copy_context()
        super().start()

    def run(self) -> None:
        """Do the work."""
        try:
            self._context.run(self._work)
        except BaseException as error:  # noqa: BLE001 - kept, and raised by the joining thread
            self.error = error
        finally:
            # Often a method of whoever holds this thread: a circle that would keep both.
            del self._work


class ReadAhead(Generic[T]):
    """Reads and prepares frames in a thread, a few ahead of whoever iterates.

    Use it in a `with` block; leaving the block ends the thread and raises what stopped it, unless
    another exception is on its way or `stop` was called.

    Args:
        source: read to its end; not closed. A live one loses frames that nobody takes in time.
        prepare: what is done to each frame in the thread.
    """

    def __init__(self, source: FrameSource, prepare: Callable[[Frame], T]) -> None:
        self._source = source
        self._prepare = prepare
        self._channel: Channel[T] = Channel(1 if source.live else DEPTH, drop_oldest=source.live)
        self._worker = Worker("reader", self._read)
        self._exchanged = 0
        self._stopped = False

    def stop(self) -> None:
        """End the iteration now; may be called from a signal handler."""
        # Ctrl-C reaches every program of a pipe: a source that broke off after it is no error.
        self._stopped = True
        self._channel.cancel()

    @property
    def dropped(self) -> int:
        """Frames of a live source that were thrown away."""
        return self._channel.dropped + self._exchanged

    def __enter__(self) -> Self:
        self._worker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._channel.cancel()
        if isinstance(self._source, Interruptible):
            self._source.interrupt()
        self._worker.join()
        if error is None and self._worker.error is not None and not self._stopped:
            raise self._worker.error

    def __iter__(self) -> Iterator[T]:
        """Prepared frames in order; ends early when reading failed (see `__exit__`)."""
        return iter(self._channel)

    def newest(self, wait: Callable[[T], None]) -> Iterator[T]:
        """As when it is iterated, but of what comes during a wait only the newest is taken.

        Args:
            wait: called with each frame; the one that is given is the newest when it returns.
        """
        account = account_of(self._source)
        for item in self._channel:
            wait(item)
            newer = self._channel.take(timeout_s=0)
            if newer is not None:
                self._exchanged += 1
                if account is not None:
                    account.count(dropped=1)
            yield item if newer is None else newer

    def _read(self) -> None:
        account, dropped = account_of(self._source), 0
        try:
            for frame in self._source:
                if not self._channel.put(self._prepare(frame)):
                    return
                if account is not None:
                    account.count(dropped=self._channel.dropped - dropped)
                    dropped = self._channel.dropped
        finally:
            self._channel.finish()
