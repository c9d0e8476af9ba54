"""CUDA memory, streams, events and graphs as torch has them; the faces of `runtime.cuda`.

What runs inside torch must live in torch: its caching allocator keeps memory for streams, and
gives what is taken during a capture to the graph's own pool. Needs no cuda-python.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fasterseg.nn.cuda_errors import told
from fasterseg.runtime.cuda_arrays import same_stream

api: Final[Any] = torch.cuda
"""Untyped in places."""

DEVICE: Final = "cuda"
PINNED: Final = True

PREPARING: Final = threading.RLock()
"""Held while a network is made, run for the first time, captured or given up.

Torch's switches and its allocator's private pools belong to the process, and no thread may wait
for the whole device while another one captures. Launches of finished graphs need not wait.
"""

_STREAMS_OF_TORCH: Final = 32
_DEFAULT_STREAMS: Final = (0, 1)
_HELD: Final[dict[int, torch.cuda.Stream]] = {}
"""Handle -> stream, of those that are in use here."""

_IDLE: Final[list[torch.cuda.Stream]] = []
"""Those that were, taken first: cuBLAS keeps memory for each stream that it has worked on."""


class PinnedBuffer:
    """Host memory that the GPU copies from and to by itself.

    Attributes:
        array: the memory, of the shape asked for, uint8. Whoever keeps it keeps the memory.
        tensor: the same.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        with told("taking pinned memory"):
            self.tensor = torch.empty(tuple(shape), dtype=torch.uint8, pin_memory=PINNED)
        self.array: NDArray[np.uint8] = self.tensor.numpy()

    def close(self) -> None:
        """Give the memory back."""
        self.tensor, self.array = torch.empty(0, dtype=torch.uint8), np.empty(0, np.uint8)


class DeviceBuffer:
    """Memory of the GPU.

    Attributes:
        tensor: the memory.
        pointer: address on the device.
        shape: of the array in it.
        dtype: of its values.
        nbytes: its size.
    """

    def __init__(self, shape: Sequence[int], dtype: str = "|u1") -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.nbytes = prod(self.shape) * self.dtype.itemsize
        kind = torch.from_numpy(np.empty(0, self.dtype)).dtype
        with told("taking GPU memory"):
            self.tensor = torch.empty(self.shape, dtype=kind, device=DEVICE)
        self.pointer = int(self.tensor.data_ptr())

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return _interface(self.pointer, self.shape, self.dtype.str)

    def close(self) -> None:
        """Give the memory back to torch."""
        self.tensor, self.pointer = torch.empty(0, dtype=self.tensor.dtype), 0


class Event:
    """A point in the work of a stream."""

    def __init__(self, timing: bool = False) -> None:
        with told("making an event"):
            self._event = api.Event(enable_timing=timing)

    def record(self, stream: int) -> None:
        """Set the point after what the stream has got so far."""
        with told("recording an event"):
            self._event.record(_stream_of(stream))

    def wait(self) -> None:
        """Block until the GPU has reached the point."""
        with told("waiting for the GPU"):
            self._event.synchronize()

    def hold(self, stream: int) -> None:
        """Let a stream go on only after the point."""
        with told("ordering two streams"):
            _stream_of(stream).wait_event(self._event)

    def ms_since(self, start: Event) -> float:
        """Milliseconds between two points that were reached, by the GPU's clock."""
        with told("reading the GPU's clock"):
            return float(start._event.elapsed_time(self._event))

    def close(self) -> None:
        """Release the event."""
        self._event = None


class Graph:
    """Work captured from a stream, launched as one."""

    def __init__(self) -> None:
        with told("making a CUDA graph"):
            self._graph: Any = api.CUDAGraph()

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return self._graph is not None

    def begin(self, mate: Graph | None) -> None:
        """Capture what torch's current stream gets from now on; see `Stream.capture`."""
        pool = {} if mate is None else {"pool": mate._graph.pool()}
        # Other threads may allocate meanwhile: only this one is held to the rules.
        self._graph.capture_begin(**pool, capture_error_mode="thread_local")

    def end(self) -> None:
        """Capture no more."""
        self._graph.capture_end()

    def launch(self, stream: int) -> None:
        """Enqueue the whole."""
        with told("launching a CUDA graph"), on(stream):
            self._graph.replay()

    def close(self) -> None:
        """Release the graph, and the memory of its pool that no other graph shares."""
        if self._graph is not None:
            graph, self._graph = self._graph, None
            with PREPARING, told("releasing a CUDA graph"):
                graph.reset()


class Stream:
    """A stream of our own, beside the default one.

    Attributes:
        handle: as other libraries take it.
        graph: what the last `capture` gave.
    """

    def __init__(self) -> None:
        with told("making a stream"):
            self._stream: Any = _unused_stream()
        self.handle = int(self._stream.cuda_stream)
        self.graph: Graph | None = None
        self._graphs: list[Graph] = []

    def copy_in(self, target: DeviceBuffer, source: PinnedBuffer) -> None:
        """Enqueue a copy from pinned memory to the GPU."""
        self.copy(target.tensor, source.tensor)

    def copy_out(self, target: PinnedBuffer, source: DeviceBuffer) -> None:
        """Enqueue a copy from the GPU to pinned memory."""
        self.copy(target.tensor, source.tensor)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Enqueue a copy between tensors of one shape, on the GPU or pinned."""
        with told("copying from or to the GPU"), on(self.handle):
            target.copy_(source, non_blocking=True)

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Put what is enqueued in the block into `graph` instead of running it.

        The same must have run once before, on this stream and in this thread. Graphs of one
        stream follow one another, so they share what memory their work needs in between.

        Raises:
            EngineError: something in the block cannot be captured.
        """
        self.graph = None
        self._graphs = [graph for graph in self._graphs if graph.is_open]
        graph = Graph()
        try:
            with PREPARING, told("capturing a CUDA graph"), on(self.handle):
                # What earlier runs left unused is the graph's to take.
                api.empty_cache()
                graph.begin(self._graphs[-1] if self._graphs else None)
                try:
                    yield
                except BaseException:
                    # Always ended, or the stream stays in capture; what went wrong goes on.
                    with contextlib.suppress(RuntimeError):
                        graph.end()
                    raise
                graph.end()
        except BaseException:
            graph.close()
            raise
        self._graphs.append(graph)
        self.graph = graph

    def synchronize(self) -> None:
        """Block until the GPU has done everything in the stream."""
        with told("waiting for the GPU"):
            self._stream.synchronize()

    def close(self) -> None:
        """Leave the stream to the next one."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            if _HELD.pop(self.handle, None) is not None:
                _IDLE.append(stream)


class _Memory:
    """Somebody's bytes, as torch takes them over."""

    def __init__(self, pointer: int, shape: Sequence[int]) -> None:
        self.__cuda_array_interface__ = _interface(pointer, shape, "|u1")


def tensor_at(pointer: int, shape: Sequence[int]) -> Tensor:
    """Bytes on the GPU as a uint8 tensor; they stay their owner's, who must keep them.

    Args:
        pointer: address on the device.
        shape: of the array there, contiguous.
    """
    with told("looking at GPU memory"):
        return torch.as_tensor(_Memory(pointer, shape), device=DEVICE)


def on(stream: int) -> contextlib.AbstractContextManager[None]:
    """Make a stream the current one of torch, in this thread, for a block."""
    made: contextlib.AbstractContextManager[None] = api.stream(_stream_of(stream))
    return made


def order_after(stream: int, producer: int | None) -> None:
    """Let `stream` wait for what `producer` has got so far, where they are two."""
    if producer is None or same_stream(stream, producer):
        return
    event = Event()
    event.record(producer)
    event.hold(stream)


def give_back() -> None:
    """Let other processes have the memory that torch holds and nobody uses."""
    with PREPARING, told("freeing GPU memory"):
        api.empty_cache()


def _interface(pointer: int, shape: Sequence[int], kind: str) -> dict[str, Any]:
    return {
        "shape": tuple(shape),
        "typestr": kind,
        "data": (pointer, False),
        "strides": None,
        "version": 3,
    }


def _unused_stream() -> torch.cuda.Stream:
    """A stream that no other engine here has: torch deals the same few again and again.

    A graph launched on a stream that another thread is capturing would end up in that graph.
    """
    with PREPARING:
        stream = _IDLE.pop() if _IDLE else _dealt_stream()
        _HELD[stream.cuda_stream] = stream
        return stream


def _dealt_stream() -> torch.cuda.Stream:
    """The next of torch's that is not in use; where all are, one that is shared."""
    for _ in range(_STREAMS_OF_TORCH):
        stream: torch.cuda.Stream = api.Stream()
        if stream.cuda_stream not in _HELD:
            break
    return stream


def _stream_of(handle: int) -> torch.cuda.Stream:
    if (held := _HELD.get(handle)) is not None:
        return held
    if handle in _DEFAULT_STREAMS:
        # Torch would take the handle 0 for none, and give a stream of its pool.
        default: torch.cuda.Stream = api.default_stream()
        return default
    external: torch.cuda.Stream = api.ExternalStream(handle)
    return external
