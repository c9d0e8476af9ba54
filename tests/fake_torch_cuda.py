"""`torch.cuda` on host memory, for `nn.cuda_port`: streams, events, graphs, without a GPU.

What is enqueued runs at once. A graph records the operators of torch that its thread calls, with
their tensors, and does them again into the same memory: whatever the host decided while it was
captured stays as it was, as on a GPU.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fasterseg.nn import cuda_port

STEP_MS = 10.0
"""What any operator takes by the clock of the fake."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, given))
        return given


class FakeStream:
    def __init__(self, fake: FakeTorchCuda, handle: int) -> None:
        self._fake, self.cuda_stream = fake, handle

    def wait_event(self, event: FakeEvent) -> None:
        self._fake.call("wait_event")
        self._fake.waits.append((self.cuda_stream, event.stream))

    def synchronize(self) -> None:
        self._fake.call("synchronize")
        assert self.cuda_stream not in self._fake.capturing, "synchronised inside a capture"


class FakeEvent:
    def __init__(self, fake: FakeTorchCuda, timing: bool) -> None:
        self._fake, self._timing = fake, timing
        self.stream: int | None = None
        self.at = 0.0

    def record(self, stream: FakeStream) -> None:
        self._fake.call("record")
        self.stream, self.at = stream.cuda_stream, self._fake.now

    def synchronize(self) -> None:
        self._fake.call("event.synchronize")

    def elapsed_time(self, end: FakeEvent) -> float:
        assert self._timing
        assert end._timing
        return end.at - self.at


class FakeGraph:
    def __init__(self, fake: FakeTorchCuda) -> None:
        self._fake = fake
        self._recorder: _Recorder | None = None
        self._pool: int | None = None
        self._stream = -1

    def capture_begin(self, pool: int | None = None, capture_error_mode: str = "global") -> None:
        self._fake.call("capture_begin")
        assert capture_error_mode == "thread_local"
        self._stream = self._fake.current()
        assert self._stream not in (0, *self._fake.capturing)
        self._pool = self._fake.use_pool(pool)
        self._fake.capturing[self._stream] = threading.get_ident()
        self._recorder = _Recorder()
        self._recorder.__enter__()  # type: ignore[no-untyped-call]

    def capture_end(self) -> None:
        assert self._recorder is not None
        self._recorder.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        del self._fake.capturing[self._stream]
        self._fake.call("capture_end")

    def replay(self) -> None:
        self._fake.call("replay")
        assert self._recorder is not None, "never captured"
        assert self._fake.current() not in self._fake.capturing
        for func, args, kwargs, before in self._recorder.calls:
            _write(before, func(*args, **kwargs))
            self._fake.now += STEP_MS

    def pool(self) -> int | None:
        return self._pool

    def reset(self) -> None:
        self._fake.call("reset")
        if self._pool is not None:
            self._fake.pools[self._pool] -= 1
        self._pool = self._recorder = None


def _write(target: Any, source: Any) -> None:
    if isinstance(target, Tensor):
        target.copy_(source)
    elif isinstance(target, tuple | list):
        for one, other in zip(target, source, strict=True):
            _write(one, other)


class FakeTorchCuda:
    """What `nn.cuda_port` uses of `torch.cuda`.

    Attributes:
        failing: name of a call -> what it raises.
        log: names of the calls.
        waits: handles of (stream that waits, stream that it waits for).
        pools: memory pool of graphs -> graphs that use it.
        capturing: handle of a stream -> thread that is capturing it.
        now: milliseconds.
        streams: as many as torch has; they are dealt in turn.
    """

    def __init__(self, streams: int = 32) -> None:
        self.failing: dict[str, Exception] = {}
        self.log: list[str] = []
        self.waits: list[tuple[int, int | None]] = []
        self.pools: dict[int, int] = {}
        self.capturing: dict[int, int] = {}
        self.now, self.streams = 0.0, streams
        self._dealt = 0
        self._local = threading.local()

    def call(self, name: str) -> None:
        self.log.append(name)
        if (error := self.failing.get(name)) is not None:
            raise error

    def current(self) -> int:
        """Handle of the thread's current stream."""
        return getattr(self._local, "stream", 0)

    def use_pool(self, pool: int | None) -> int:
        """Take part in a pool; a new one for None."""
        if pool is None:
            pool = len(self.pools)
            self.pools[pool] = 0
        else:
            assert self.pools[pool] > 0, "torch has taken this pool apart"
        self.pools[pool] += 1
        return pool

    def Stream(self) -> FakeStream:  # noqa: N802 - names are torch's
        self.call("Stream")
        self._dealt += 1
        return FakeStream(self, 100 + self._dealt % self.streams)

    def default_stream(self) -> FakeStream:
        return FakeStream(self, 0)

    def ExternalStream(self, handle: int) -> FakeStream:  # noqa: N802
        assert handle, "torch gives a stream of its pool"
        return FakeStream(self, handle)

    def Event(self, enable_timing: bool = False) -> FakeEvent:  # noqa: N802
        return FakeEvent(self, enable_timing)

    def CUDAGraph(self) -> FakeGraph:  # noqa: N802
        return FakeGraph(self)

    def empty_cache(self) -> None:
        self.call("empty_cache")
        assert threading.get_ident() not in self.capturing.values()

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before = self.current()
        self._local.stream = stream.cuda_stream
        try:
            yield
        finally:
            self._local.stream = before


def host_tensor(pointer: int, shape: Sequence[int]) -> Tensor:
    """`cuda_port.tensor_at` where memory is the host's."""
    memory = (ctypes.c_uint8 * prod(shape)).from_address(pointer)
    return torch.from_numpy(np.ctypeslib.as_array(memory).reshape(tuple(shape)))


@contextmanager
def host_port(streams: int = 32) -> Iterator[FakeTorchCuda]:
    """`nn.cuda_port` over the fake; it sees that the streams come back."""
    fake = FakeTorchCuda(streams)
    replaced: dict[str, Any] = {
        "api": fake, "DEVICE": "cpu", "PINNED": False, "tensor_at": host_tensor, "_HELD": {},
        "_IDLE": [],
    }  # fmt: skip
    with mock.patch.multiple(cuda_port, **replaced):
        yield fake


def failing_at(count: int, error: Exception, whole: Callable[..., Any]) -> Callable[..., Any]:
    """A function that raises when it is called for the count-th time, from 1."""
    calls = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            raise error
        return whole(*arguments, **named)

    return call
