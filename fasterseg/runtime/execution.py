"""Batches on one stream of a GPU: buffers, what is done with a batch, and its CUDA graph.

A batch is copied from pinned memory, worked on and copied back, all captured in one graph that is
launched as one. Two slots of buffers take turns, so that the host fills one while the GPU works
on the other. Graphs hold addresses and sizes: another shape of batch throws them away.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import DeviceUnavailableError, EngineError, UsageError

_LOG: Final = logging.getLogger(__name__)
SLOTS: Final = 2

_Form = Literal["whole", "inner"]
"""With the copies from and to the host, or the work alone."""


class Work(Protocol):
    """What is done with a batch on the GPU; used by one execution alone.

    Attributes:
        shape: of the batches it is ready for, (N, H, W, 3); None before the first and after
            `release`.
    """

    shape: tuple[int, ...] | None

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Make ready for batches of (N, H, W, 3).

        Raises:
            UsageError: it does not take them.
        """

    def enqueue(self, frames: int, labels: int, stream: int) -> None:
        """Put one batch on a stream.

        The first run of a shape is never captured: there it finds out and allocates what it needs.

        Args:
            frames: address of (N, H, W, 3) uint8, BGR.
            labels: address of (N, H, W) uint8.
            stream: handle.

        Raises:
            EngineError: the GPU or the runtime fails.
        """

    def capturable(self, stream: int) -> bool:
        """Whether `enqueue` can be captured."""

    def release(self) -> None:
        """Give back what belongs to a shape; another must be set before the next batch."""


class _Slot:
    """Buffers of one batch on its way, and the graphs that know their addresses."""

    def __init__(self, cuda: Any, shape: tuple[int, ...]) -> None:
        self._owned = ExitStack()
        try:
            self.host_in = self._own(cuda.PinnedBuffer(shape))
            self.host_out = self._own(cuda.PinnedBuffer(shape[:3]))
            self.device_in = self._own(cuda.DeviceBuffer(shape))
            self.device_out = self._own(cuda.DeviceBuffer(shape[:3]))
            self.done = self._own(cuda.Event())
        except BaseException:
            self.close()
            raise
        self.graphs: dict[_Form, Any] = {}

    def _own(self, resource: Any) -> Any:
        self._owned.callback(resource.close)
        return resource

    def keep(self, form: _Form, graph: Any) -> None:
        """Launch this from now on."""
        self.graphs[form] = self._own(graph)

    def close(self) -> None:
        """Give everything back, newest first, also what comes after a failure."""
        self._owned.close()


class Execution:
    """Does a work with batch after batch, two at a time.

    Args:
        cuda: buffers, events, streams and graphs: `fasterseg.runtime.cuda`, `nn.cuda_port`, or
            what stands for them in a test.
        work: what is done.
        stream: of `cuda`, to work on, closed by its owner after this; None makes one.

    Attributes:
        captured: whether batches are launched as a graph; None before the first.
    """

    def __init__(self, cuda: Any, work: Work, stream: Any = None) -> None:
        self._cuda, self._work = cuda, work
        self._owns_stream = stream is None
        self._stream = cuda.Stream() if stream is None else stream
        self._slots: list[_Slot] = []
        self._pending: deque[_Slot] = deque()
        self._turn = 0
        self.captured: bool | None = None

    def submit(self, frames: NDArray[np.uint8]) -> None:
        """Begin with a batch; `collect` gives its labels. Two may be on their way.

        Args:
            frames: (N, H, W, 3) uint8, BGR; copied at once.

        Raises:
            UsageError: two are on their way, or the work does not take the shape.
            EngineError: the GPU or the runtime fails.
        """
        if len(self._pending) == SLOTS:
            raise UsageError(f"{SLOTS} batches are on their way; collect() one before the next")
        self._prepare(frames.shape)
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        slot.host_in.array[...] = frames
        self._launch(slot, "whole")
        slot.done.record(self._stream.handle)
        self._pending.append(slot)

    def collect(self) -> NDArray[np.uint8]:
        """Labels of the oldest batch on its way: (N, H, W) uint8, valid until the next `submit`.

        Raises:
            UsageError: there is none.
            EngineError: the GPU failed meanwhile.
        """
        if not self._pending:
            raise UsageError("no batch is on its way; submit() one first")
        slot = self._pending.popleft()
        slot.done.wait()
        labels: NDArray[np.uint8] = slot.host_out.array
        return labels

    def time(self, iterations: int) -> list[float]:
        """Milliseconds of runs on frames that lie on the GPU already, by its clock.

        Raises:
            UsageError: nothing was run yet, so the size is unknown.
            EngineError: the GPU or the runtime fails.
        """
        if not self._slots:
            raise UsageError("run one batch before timing on the device; its size counts")
        slot, handle = self._slots[0], self._stream.handle
        # Whatever is captured is captured now.
        self._launch(slot, "inner")
        with ExitStack() as taken:
            points = [self._cuda.Event(timing=True) for _ in range(2 * iterations)]
            for point in points:
                taken.callback(point.close)
            pairs = list(zip(points[::2], points[1::2], strict=True))
            for start, end in pairs:
                start.record(handle)
                self._launch(slot, "inner")
                end.record(handle)
            self._stream.synchronize()
            return [end.ms_since(start) for start, end in pairs]

    def close(self) -> None:
        """Wait for what is on its way, then give everything back, also after a failure."""
        with ExitStack() as leaving:
            if self._owns_stream:
                leaving.callback(self._stream.close)
            leaving.callback(self._forget)
            self._stream.synchronize()

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Have buffers for batches of a shape."""
        if shape == self._work.shape:
            return
        if self._pending:
            raise UsageError(
                f"a batch of {self._work.shape} is on its way; collect() it before one of {shape}"
            )
        self._stream.synchronize()
        self._drop()
        try:
            self._work.set_shape(shape)
            for _ in range(SLOTS):
                self._slots.append(_Slot(self._cuda, shape))
        except BaseException:
            self._forget()
            raise
        self._turn, self.captured = 0, None

    def _forget(self) -> None:
        """As if nothing had been run: the next batch tries again."""
        with ExitStack() as leaving:
            leaving.callback(self._work.release)
            self._drop()

    def _drop(self) -> None:
        slots = self._slots.copy()
        self._slots.clear()
        self._pending.clear()
        with ExitStack() as leaving:
            for slot in slots:
                leaving.callback(slot.close)

    def _launch(self, slot: _Slot, form: _Form) -> None:
        graph = slot.graphs.get(form)
        if graph is not None:
            graph.launch(self._stream.handle)
        else:
            self._first(slot, form)

    def _first(self, slot: _Slot, form: _Form) -> None:
        """Run a slot's batch as it is for the first time, then capture the same for the next."""
        work = self._whole if form == "whole" else self._compute
        try:
            work(slot)
        except BaseException:
            if not self._pending:
                self._abandon()
            raise
        if self.captured is False:
            return
        if not self._work.capturable(self._stream.handle):
            self.captured = False
            return
        try:
            slot.keep(form, self._capture(lambda: work(slot)))
            self.captured = True
        except DeviceUnavailableError:
            raise
        except EngineError as error:
            self.captured = False
            _LOG.warning("no CUDA graph, every step is launched by itself: %s", error)

    def _abandon(self) -> None:
        """Give the memory of a shape back that could not be run."""
        with ExitStack() as leaving:
            leaving.callback(self._forget)
            # What was enqueued before the failure still reads and writes the buffers.
            self._stream.synchronize()

    def _capture(self, work: Callable[[], None]) -> Any:
        # What the first run still allocates must be over.
        self._stream.synchronize()
        with self._stream.capture():
            work()
        return self._stream.graph

    def _whole(self, slot: _Slot) -> None:
        self._stream.copy_in(slot.device_in, slot.host_in)
        self._compute(slot)
        self._stream.copy_out(slot.host_out, slot.device_out)

    def _compute(self, slot: _Slot) -> None:
        self._work.enqueue(slot.device_in.pointer, slot.device_out.pointer, self._stream.handle)
