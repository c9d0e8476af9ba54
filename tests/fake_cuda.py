"""CUDA's runtime API on host memory: streams, capture, graphs and events, without a GPU.

It stands for `cuda.bindings.runtime`. What is enqueued on a stream runs at once, or is kept while
the stream is being captured. Everything taken and not given back is in `live`.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

Work = Callable[[], None]
OK = 0


class FakeCudart:
    """The functions of the API that we call; results are tuples, as there."""

    cudaEventDisableTiming = 2  # noqa: N815 - names are CUDA's
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(  # noqa: N815
        cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out"
    )
    cudaStreamCaptureMode = SimpleNamespace(  # noqa: N815
        cudaStreamCaptureModeThreadLocal="thread"
    )

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        self.log: list[str] = []
        self.live: dict[int, Any] = {}
        self.capturing: dict[int, list[Work]] = {}
        self.now = 0.0
        self._next = 100

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        inner: Callable[..., tuple[Any, ...]] = getattr(type(self), "_" + name[4:])

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.log.append(name)
            if code := self.failing.get(name, OK):
                return (code, None)
            return inner(self, *arguments)

        return call

    def enqueue(self, stream: int, work: Work) -> None:
        """What a library does that launches something."""
        if stream in self.capturing:
            self.capturing[stream].append(work)
        else:
            work()

    def _take(self, resource: Any) -> int:
        self._next += 1
        self.live[self._next] = resource
        return self._next

    def _give(self, handle: int) -> tuple[int]:
        del self.live[int(handle)]
        return (OK,)

    def _GetErrorName(self, code: int) -> tuple[int, bytes]:  # noqa: N802
        names = {2: b"cudaErrorMemoryAllocation", 35: b"cudaErrorInsufficientDriver"}
        return OK, names.get(int(code), b"cudaErrorUnknown")

    def _SetDevice(self, index: int) -> tuple[int]:  # noqa: N802
        return (OK,)

    def _memory(self, size: int) -> tuple[int, int]:
        block = ctypes.create_string_buffer(size)
        address = ctypes.addressof(block)
        self.live[address] = block
        return OK, address

    def _Malloc(self, size: int) -> tuple[int, int]:  # noqa: N802
        return self._memory(size)

    def _MallocHost(self, size: int) -> tuple[int, int]:  # noqa: N802
        return self._memory(size)

    def _Free(self, pointer: int) -> tuple[int]:  # noqa: N802
        return self._give(pointer)

    def _FreeHost(self, pointer: int) -> tuple[int]:  # noqa: N802
        return self._give(pointer)

    def _MemcpyAsync(  # noqa: N802
        self, target: int, source: int, size: int, kind: str, stream: int
    ) -> tuple[int]:
        def copy() -> None:
            self.now += 10.0
            ctypes.memmove(target, source, size)

        self.enqueue(stream, copy)
        return (OK,)

    def _StreamCreateWithFlags(self, flags: int) -> tuple[int, int]:  # noqa: N802
        return OK, self._take("stream")

    def _StreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        return self._give(stream)

    def _StreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        assert stream not in self.capturing, "synchronised inside a capture"
        return (OK,)

    def _StreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[int]:  # noqa: N802
        return (OK,)

    def _StreamBeginCapture(self, stream: int, mode: str) -> tuple[int]:  # noqa: N802
        self.capturing[stream] = []
        return (OK,)

    def _StreamEndCapture(self, stream: int) -> tuple[int, int]:  # noqa: N802
        return OK, self._take(self.capturing.pop(stream))

    def _GraphInstantiate(self, graph: int, flags: int) -> tuple[int, int]:  # noqa: N802
        return OK, self._take(list(self.live[graph]))

    def _GraphDestroy(self, graph: int) -> tuple[int]:  # noqa: N802
        return self._give(graph)

    def _GraphExecDestroy(self, graph: int) -> tuple[int]:  # noqa: N802
        return self._give(graph)

    def _GraphLaunch(self, graph: int, stream: int) -> tuple[int]:  # noqa: N802
        for work in self.live[graph]:
            self.enqueue(stream, work)
        return (OK,)

    def _EventCreateWithFlags(self, flags: int) -> tuple[int, int]:  # noqa: N802
        return OK, self._take([0.0])

    def _EventDestroy(self, event: int) -> tuple[int]:  # noqa: N802
        return self._give(event)

    def _EventRecord(self, event: int, stream: int) -> tuple[int]:  # noqa: N802
        point = self.live[event]

        def reach() -> None:
            point[0] = self.now

        self.enqueue(stream, reach)
        return (OK,)

    def _EventSynchronize(self, event: int) -> tuple[int]:  # noqa: N802
        return (OK,)

    def _EventElapsedTime(self, start: int, end: int) -> tuple[int, float]:  # noqa: N802
        return OK, self.live[end][0] - self.live[start][0]


class FakeDriver:
    """libcuda with one GPU, or none."""

    def __init__(
        self,
        name: str = "NVIDIA H200",
        capability: tuple[int, int] = (9, 0),
        *,
        cuda: int = 13000,
        count: int = 1,
        status: int = 0,
    ) -> None:
        self.name, self.capability, self.cuda = name, capability, cuda
        self.count, self.status = count, status

    def cuInit(self, flags: int) -> int:  # noqa: N802 - names are CUDA's
        return self.status

    def cuDeviceGetCount(self, target: Any) -> int:  # noqa: N802
        target._obj.value = self.count
        return 0

    def cuDeviceGet(self, target: Any, index: int) -> int:  # noqa: N802
        target._obj.value = index
        return 0

    def cuDeviceGetName(self, target: Any, size: int, device: Any) -> int:  # noqa: N802
        target.value = self.name.encode()
        return 0

    def cuDeviceGetAttribute(self, target: Any, which: int, device: Any) -> int:  # noqa: N802
        target._obj.value = dict(zip((75, 76), self.capability, strict=True))[which]
        return 0

    def cuDriverGetVersion(self, target: Any) -> int:  # noqa: N802
        target._obj.value = self.cuda
        return 0


@contextmanager
def fake_port() -> Iterator[tuple[Any, FakeCudart]]:
    """`fasterseg.runtime.cuda` over a fake; the module is imported anew, and forgotten after."""
    fake = FakeCudart()
    packages = {"cuda": ModuleType("cuda"), "cuda.bindings": ModuleType("cuda.bindings")}
    packages["cuda.bindings"].runtime = fake  # type: ignore[attr-defined]
    name = "fasterseg.runtime.cuda"
    before = {key: sys.modules.pop(key, None) for key in (*packages, "cuda.bindings.runtime", name)}
    sys.modules.update(packages)
    sys.modules["cuda.bindings.runtime"] = fake  # type: ignore[assignment]
    try:
        yield importlib.import_module(name), fake
    finally:
        for key, module in before.items():
            sys.modules.pop(key, None)
            if module is not None:
                sys.modules[key] = module
