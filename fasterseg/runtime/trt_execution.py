"""One execution context on one stream: buffers, what is enqueued for a batch, and its CUDA graph.

A batch is copied from pinned memory, run and copied back, all captured in one graph that is
launched as one. Two slots of buffers take turns, so that the host fills one while the GPU works
on the other. Graphs hold addresses and sizes: another shape of batch throws them away.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import DeviceUnavailableError, EngineError, UsageError
from fasterseg.runtime.kernels import KernelLibrary, Layout, Type, UpsampleArgmax
from fasterseg.runtime.trt_log import Messages
from fasterseg.runtime.trt_surface import Context

_LOG: Final = logging.getLogger(__name__)
SLOTS: Final = 2


@dataclass(frozen=True, slots=True)
class Names:
    """Tensors of the engine.

    Attributes:
        frames: its input, uint8 (N, H, W, 3).
        result: its output: uint8 labels (N, H, W), or float32 logits at 1/8.
        classes: of the logits, None where it gives labels.
    """

    frames: str
    result: str
    classes: int | None = None


class Enqueuer:
    """Puts the work of one batch on a stream: the engine, and the last step where it is ours.

    Args:
        context: of the engine; used by nobody else.
        names: its tensors.
        messages: what its runtime says.
        kernels: needed where the engine gives logits.
        new_buffer: (shape, type) -> device memory (`cuda.DeviceBuffer`).
        title: of the engine, for errors.
    """

    def __init__(
        self,
        context: Context,
        names: Names,
        messages: Messages,
        *,
        kernels: KernelLibrary | None,
        new_buffer: Callable[[Sequence[int], str], Any],
        title: str,
    ) -> None:
        self._context, self._names, self._messages = context, names, messages
        self._kernels, self._new_buffer, self._title = kernels, new_buffer, title
        self._logits: Any = None
        self.shape: tuple[int, ...] | None = None

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Make ready for batches of (N, H, W, 3).

        Raises:
            UsageError: the engine does not take them.
        """
        self._messages.clear()
        if not self._context.set_input_shape(self._names.frames, shape):
            raise UsageError(
                f"{self._title} does not take frames of {shape} (N, H, W, 3): "
                f"{self._messages.last}. Build it for them: fasterseg build --min-size --max-size"
            )
        self.release()
        if self._names.classes is not None:
            logits = tuple(self._context.get_tensor_shape(self._names.result))
            self._logits = self._new_buffer(logits, "<f4")
        self.shape = shape

    def enqueue(self, frames: int, labels: int, stream: int) -> None:
        """Run on device memory.

        Args:
            frames: address of (N, H, W, 3) uint8, BGR.
            labels: address of (N, H, W) uint8.
            stream: handle.

        Raises:
            EngineError: the runtime refuses.
        """
        self._messages.clear()
        result = labels if self._logits is None else self._logits.pointer
        context = self._context
        if not (
            context.set_tensor_address(self._names.frames, frames)
            and context.set_tensor_address(self._names.result, result)
            and context.execute_async_v3(stream)
        ):
            raise EngineError(
                f"{self._title} failed while running: {self._messages.last}. If memory ran out, "
                "choose a smaller --size or --batch; if it is damaged, build it again: "
                "fasterseg build"
            )
        if self._logits is not None:
            self._finish(labels, stream)

    def _finish(self, labels: int, stream: int) -> None:
        assert self._kernels is not None, "an engine of logits is opened with the kernels"
        assert self.shape is not None, "set before"
        batch, classes, height, width = self._logits.shape
        self._kernels.upsample_argmax(
            UpsampleArgmax(
                logits=self._logits.pointer,
                labels=labels,
                batch=batch,
                height=height,
                width=width,
                out_height=self.shape[1],
                out_width=self.shape[2],
                classes=classes,
                pitch=classes,
                type=Type.FP32,
                layout=Layout.NCHW,
            ),
            stream,
        )

    def capturable(self, stream: int) -> bool:
        """Whether the work can be captured; TensorRT always says yes, RTX is asked."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(stream))

    def release(self) -> None:
        """Give back the memory of the logits; a shape must be set anew."""
        self.shape = None
        if self._logits is not None:
            self._logits.close()
            self._logits = None


class _Slot:
    """Buffers of one batch on its way, and the graph that knows their addresses."""

    def __init__(self, cuda: Any, shape: tuple[int, ...]) -> None:
        self._owned: list[Any] = []
        try:
            self.host_in = self._own(cuda.PinnedBuffer(shape))
            self.host_out = self._own(cuda.PinnedBuffer(shape[:3]))
            self.device_in = self._own(cuda.DeviceBuffer(shape))
            self.device_out = self._own(cuda.DeviceBuffer(shape[:3]))
            self.done = self._own(cuda.Event())
        except BaseException:
            self.close()
            raise
        self.graph: Any = None

    def _own(self, resource: Any) -> Any:
        self._owned.append(resource)
        return resource

    def close(self) -> None:
        """Give everything back, newest first."""
        while self._owned:
            self._owned.pop().close()


class Execution:
    """Runs batches through an engine, two at a time.

    Args:
        cuda: `fasterseg.runtime.cuda`, or what stands for it in a test.
        enqueuer: the work.

    Attributes:
        captured: whether batches are launched as a graph; None before the first.
    """

    def __init__(self, cuda: Any, enqueuer: Enqueuer) -> None:
        self._cuda, self._enqueuer = cuda, enqueuer
        self._stream = cuda.Stream()
        self._slots: list[_Slot] = []
        self._pending: deque[_Slot] = deque()
        self._turn = 0
        self.captured: bool | None = None

    def submit(self, frames: NDArray[np.uint8]) -> None:
        """Begin with a batch; `collect` gives its labels. Two may be on their way.

        Args:
            frames: (N, H, W, 3) uint8, BGR; copied at once.

        Raises:
            UsageError: two are on their way, or the engine does not take the shape.
            EngineError: the GPU or the runtime fails.
        """
        if len(self._pending) == SLOTS:
            raise UsageError(f"{SLOTS} batches are on their way; collect() one before the next")
        if frames.shape != self._enqueuer.shape:
            if self._pending:
                raise UsageError(
                    f"a batch of {self._enqueuer.shape} is on its way; collect() it before one of "
                    f"{frames.shape}"
                )
            self._reshape(frames.shape)
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        slot.host_in.array[...] = frames
        if slot.graph is not None:
            slot.graph.launch(self._stream.handle)
        else:
            self._first(slot)
        slot.done.record(self._stream.handle)
        self._pending.append(slot)

    def collect(self) -> NDArray[np.uint8]:
        """Labels of the oldest batch on its way: (N, H, W) uint8, valid until the next `submit`.

        Raises:
            UsageError: there is none.
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
        """
        if not self._slots:
            raise UsageError("run one batch before timing on the device; its size counts")
        slot, handle = self._slots[0], self._stream.handle
        graph = self._capture(lambda: self._compute(slot)) if self.captured else None
        points = [self._cuda.Event(timing=True) for _ in range(2 * iterations)]
        try:
            for start, end in zip(points[::2], points[1::2], strict=True):
                start.record(handle)
                if graph is not None:
                    graph.launch(handle)
                else:
                    self._compute(slot)
                end.record(handle)
            self._stream.synchronize()
            return [
                end.ms_since(start) for start, end in zip(points[::2], points[1::2], strict=True)
            ]
        finally:
            for resource in (*points, *([graph] if graph is not None else [])):
                resource.close()

    def close(self) -> None:
        """Wait for what is on its way, then give everything back."""
        self._stream.synchronize()
        self._drop()
        self._enqueuer.release()
        self._stream.close()

    def _reshape(self, shape: tuple[int, ...]) -> None:
        self._stream.synchronize()
        self._drop()
        self._enqueuer.set_shape(shape)
        try:
            for _ in range(SLOTS):
                self._slots.append(_Slot(self._cuda, shape))
        except BaseException:
            # As if nothing had been run: the next batch tries again.
            self._drop()
            self._enqueuer.release()
            raise
        self._turn, self.captured = 0, None

    def _drop(self) -> None:
        for slot in self._slots:
            if slot.graph is not None:
                slot.graph.close()
            slot.close()
        self._slots.clear()
        self._pending.clear()

    def _first(self, slot: _Slot) -> None:
        """Run a slot's first batch as it is, then capture the same for the next ones."""
        self._whole(slot)
        if self.captured is False:
            return
        if not self._enqueuer.capturable(self._stream.handle):
            self.captured = False
            return
        try:
            slot.graph = self._capture(lambda: self._whole(slot))
            self.captured = True
        except DeviceUnavailableError:
            raise
        except EngineError as error:
            self.captured = False
            _LOG.warning("no CUDA graph, every step is launched by itself: %s", error)

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
        self._enqueuer.enqueue(slot.device_in.pointer, slot.device_out.pointer, self._stream.handle)
