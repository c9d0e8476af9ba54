"""The one door to CUDA memory, streams, events and graphs, on cuda-python.

The runtime API works in the device's primary context, which torch, CuPy and ONNX Runtime use
too. A PyCUDA user must do the same (`pycuda.autoprimaryctx`, not `pycuda.autoinit`). Arrays of
others come in by `__cuda_array_interface__`, streams by their integer handle.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator, Sequence
from math import prod
from types import ModuleType
from typing import Any, Final

import numpy as np
from cuda.bindings import runtime as api
from numpy.typing import NDArray

from fasterseg.errors import DeviceLostError, DeviceUnavailableError, EngineError
from fasterseg.runtime.cuda_arrays import same_stream

_OUT_OF_MEMORY: Final = 2
_NO_DEVICE: Final = frozenset({35, 100})  # no driver (or too old a one), no device
_LOST: Final = frozenset({214, 220, 700, 702, 709, 710, *range(714, 720), 999})
"""Errors after which no call of the process reaches the GPU again, as CUDA numbers them."""


def check(result: tuple[Any, ...], doing: str) -> Any:
    """What a call of the CUDA runtime gave, or its error as ours.

    Raises:
        DeviceUnavailableError: there is no GPU or no driver.
        DeviceLostError: it failed in mid-run, for good.
        EngineError: anything else; the message has CUDA's name of it.
    """
    code = int(result[0])
    if code == 0:
        return result[1] if len(result) == 2 else result[1:]
    name = api.cudaGetErrorName(result[0])[1]
    text = name.decode() if isinstance(name, bytes) else str(name)
    if code in _NO_DEVICE:
        raise DeviceUnavailableError(
            f"CUDA has no device for us ({text} while {doing}). Check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or use --device cpu"
        )
    if code == _OUT_OF_MEMORY:
        raise EngineError(
            f"the GPU's memory ran out while {doing} ({text}). Choose a smaller --size or --batch, "
            "or close what else uses the GPU (nvidia-smi lists it)"
        )
    if code in _LOST:
        raise DeviceLostError(
            f"the GPU failed while {doing}: {text} ({code}). What was computed is lost, and this "
            "process cannot use the GPU any more; start again, and if it stays, look at dmesg and "
            "update the driver"
        )
    raise EngineError(
        f"CUDA failed while {doing}: {text} ({code}). What was computed is lost; start again, and "
        "if it stays, update the driver"
    )


class PinnedBuffer:
    """Host memory that the GPU copies from and to by itself.

    Attributes:
        array: the memory, of the shape asked for, uint8.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        size = prod(shape)
        self.pointer = int(check(api.cudaMallocHost(size), "taking pinned memory"))
        memory = (ctypes.c_uint8 * size).from_address(self.pointer)
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array(memory).reshape(tuple(shape))

    def close(self) -> None:
        """Give the memory back; nothing may use `array` after that."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            check(api.cudaFreeHost(pointer), "freeing pinned memory")


class DeviceBuffer:
    """Memory of the GPU.

    Attributes:
        pointer: address on the device.
        shape: of the array in it.
        dtype: of its values.
        nbytes: its size.
    """

    def __init__(self, shape: Sequence[int], dtype: str = "|u1") -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.nbytes = prod(self.shape) * self.dtype.itemsize
        self.pointer = int(check(api.cudaMalloc(self.nbytes), "taking GPU memory"))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
        }

    def close(self) -> None:
        """Give the memory back."""
        if self.pointer:
            pointer, self.pointer = self.pointer, 0
            check(api.cudaFree(pointer), "freeing GPU memory")


class Event:
    """A point in the work of a stream."""

    def __init__(self, timing: bool = False) -> None:
        flags = 0 if timing else api.cudaEventDisableTiming
        self._event = check(api.cudaEventCreateWithFlags(flags), "making an event")

    def record(self, stream: int) -> None:
        """Set the point after what the stream has got so far."""
        check(api.cudaEventRecord(self._event, stream), "recording an event")

    def wait(self) -> None:
        """Block until the GPU has reached the point."""
        check(api.cudaEventSynchronize(self._event), "waiting for the GPU")

    def hold(self, stream: int) -> None:
        """Let a stream go on only after the point."""
        check(api.cudaStreamWaitEvent(stream, self._event, 0), "ordering two streams")

    def ms_since(self, start: Event) -> float:
        """Milliseconds between two points that were reached, by the GPU's clock."""
        elapsed = api.cudaEventElapsedTime(start._event, self._event)
        return float(check(elapsed, "reading the GPU's clock"))

    def close(self) -> None:
        """Release the event."""
        if self._event is not None:
            event, self._event = self._event, None
            check(api.cudaEventDestroy(event), "releasing an event")


class Graph:
    """Work captured from a stream, launched as one."""

    def __init__(self, captured: Any) -> None:
        try:
            self._graph = check(api.cudaGraphInstantiate(captured, 0), "making a CUDA graph")
        finally:
            api.cudaGraphDestroy(captured)

    def launch(self, stream: int) -> None:
        """Enqueue the whole."""
        check(api.cudaGraphLaunch(self._graph, stream), "launching a CUDA graph")

    def close(self) -> None:
        """Release the graph."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            check(api.cudaGraphExecDestroy(graph), "releasing a CUDA graph")


class Stream:
    """A stream of our own, beside the default one.

    Attributes:
        handle: as other libraries take it.
        graph: what the last `capture` gave.
    """

    def __init__(self) -> None:
        made = api.cudaStreamCreateWithFlags(api.cudaStreamNonBlocking)
        self._stream = check(made, "making a stream")
        self.handle = int(self._stream)
        self.graph: Graph | None = None

    def copy_in(self, target: DeviceBuffer, source: PinnedBuffer) -> None:
        """Enqueue a copy from pinned memory to the GPU."""
        kind = api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(target.pointer, source.pointer, target.nbytes, kind)

    def copy_out(self, target: PinnedBuffer, source: DeviceBuffer) -> None:
        """Enqueue a copy from the GPU to pinned memory."""
        kind = api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(target.pointer, source.pointer, source.nbytes, kind)

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        copied = api.cudaMemcpyAsync(target, source, size, kind, self.handle)
        check(copied, "copying between host and GPU")

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Put what is enqueued in the block into `graph` instead of running it.

        Raises:
            EngineError: something in the block cannot be captured.
        """
        self.graph = None
        # Other threads may allocate meanwhile (torch does): only this one is held to the rules.
        mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(api.cudaStreamBeginCapture(self.handle, mode), "beginning a capture")
        try:
            yield
        except BaseException:
            # Always ended, or the stream stays in capture; what went wrong goes on.
            api.cudaStreamEndCapture(self.handle)
            raise
        self.graph = Graph(check(api.cudaStreamEndCapture(self.handle), "capturing a CUDA graph"))

    def synchronize(self) -> None:
        """Block until the GPU has done everything in the stream."""
        check(api.cudaStreamSynchronize(self.handle), "waiting for the GPU")

    def close(self) -> None:
        """Release the stream."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            check(api.cudaStreamDestroy(stream), "releasing a stream")


def use_device(index: int = 0) -> None:
    """Make the primary context of a device the one of this thread.

    Raises:
        DeviceUnavailableError: there is no such device.
    """
    check(api.cudaSetDevice(index), "choosing the GPU")


def order_after(stream: int, producer: int | None) -> None:
    """Let `stream` wait for what `producer` has got so far, where they are two."""
    if producer is None or same_stream(stream, producer):
        return
    event = Event()
    try:
        event.record(producer)
        event.hold(stream)
    finally:
        event.close()


PORT: Final[ModuleType] = sys.modules[__name__]
"""This module, for the registry that finds it."""
