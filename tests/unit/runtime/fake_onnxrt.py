"""ONNX Runtime's CUDA provider on host memory: its sessions and values, without a GPU.

A session on the GPU computes by a real one on the CPU, between addresses, on the stream it was
opened with; that of the tests is `tests.fake_cuda`. A captured graph knows its addresses only.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

CUDA = "CUDAExecutionProvider"
RealSession = onnxruntime.InferenceSession

Address = tuple[tuple[int, ...], int, Any]
"""Shape, address and type of bound memory."""


@dataclass
class FakeOrt:
    """What sessions on the GPU were asked for, and how they are to answer.

    Attributes:
        given: provider that a session for the GPU says it has.
        refuse: (provider options) -> what opening raises, None to open.
        fail: (number of the run) -> what running raises, None to run.
        enqueue: (stream, work): how a stream that is not ONNX Runtime's own gets its work.
    """

    given: str = CUDA
    refuse: Callable[[dict[str, str]], Exception | None] = lambda options: None
    fail: Callable[[int], Exception | None] = lambda run: None
    enqueue: Callable[[int, Callable[[], None]], None] = lambda stream, work: work()
    opened: list[dict[str, str]] = field(default_factory=list)
    runs: list[dict[str, str]] = field(default_factory=list)
    bindings: list[FakeBinding] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def session(
        self, content: bytes, options: Any, providers: list[Any], enable_fallback: int
    ) -> Any:
        """Stands for `onnxruntime.InferenceSession`."""
        assert enable_fallback == 0
        [(name, chosen)] = providers
        if name != CUDA:
            return RealSession(content, options, providers)
        self.opened.append(chosen)
        if error := self.refuse(chosen):
            raise error
        return FakeSession(self, RealSession(content), chosen)


class FakeSession:
    """A session on the GPU."""

    def __init__(self, ort: FakeOrt, real: Any, options: dict[str, str]) -> None:
        self._ort, self._real, self.options = ort, real, options
        self._graphs: dict[str, tuple[Address, Address]] = {}

    def __del__(self) -> None:
        self._ort.closed.append("session")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_providers(self) -> list[str]:
        return [self._ort.given, "CPUExecutionProvider"]

    def io_binding(self) -> FakeBinding:
        self._ort.bindings.append(FakeBinding())
        return self._ort.bindings[-1]

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        entries = {
            name: options.get_run_config_entry(name)
            for name in ("gpu_graph_id", "disable_synchronize_execution_providers")
            if _has(options, name)
        }
        self._ort.runs.append(entries)
        if error := self._ort.fail(len(self._ort.runs)):
            raise error
        ends = (binding.input, binding.output)
        if self.options["enable_cuda_graph"] == "1":
            assert int(entries["gpu_graph_id"]) > 0, "0 is ONNX Runtime's own"
            # What was captured is replayed between the addresses of then.
            ends = self._graphs.setdefault(entries["gpu_graph_id"], ends)
        else:
            assert "gpu_graph_id" not in entries
        stream = int(self.options.get("user_compute_stream", "0"))
        self._ort.enqueue(stream, lambda: self._compute(*ends))

    def _compute(self, taken: Address, given: Address) -> None:
        [name] = [value.name for value in self._real.get_inputs()]
        [labels] = self._real.run(None, {name: _array(taken)})
        _array(given)[...] = labels


def _has(options: Any, name: str) -> bool:
    try:
        options.get_run_config_entry(name)
    except RuntimeError:
        return False
    return True


def _array(address: Address) -> NDArray[Any]:
    shape, pointer, kind = address
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    memory = (ctypes.c_uint8 * size).from_address(pointer)
    return np.ctypeslib.as_array(memory).view(kind).reshape(shape)


class FakeBinding:
    """Names to memory."""

    input: Address
    output: Address

    def bind_input(
        self, name: str, kind: str, device: int, dtype: Any, shape: list[int], pointer: int
    ) -> None:
        assert (kind, device, dtype) == ("cuda", 0, np.uint8)
        self.input = (tuple(shape), pointer, dtype)

    def bind_output(
        self, name: str, kind: str, device: int, dtype: Any, shape: list[int], pointer: int
    ) -> None:
        assert (kind, device, dtype) == ("cuda", 0, np.uint8)
        self.output = (tuple(shape), pointer, dtype)

    def bind_ortvalue_input(self, name: str, value: FakeValue) -> None:
        self.input = value.address

    def bind_ortvalue_output(self, name: str, value: FakeValue) -> None:
        self._given = value
        self.output = value.address

    def synchronize_outputs(self) -> None:
        """Nothing is on its way."""

    def copy_outputs_to_cpu(self) -> list[NDArray[np.uint8]]:
        return [self._given.array.copy()]


class FakeValue:
    """A tensor on the GPU."""

    taken: int = 0

    def __init__(self, array: NDArray[Any], device: str) -> None:
        assert device == "cuda"
        self.array = array
        FakeValue.taken += 1

    @classmethod
    def ortvalue_from_numpy(cls, array: NDArray[Any], device: str, index: int) -> FakeValue:
        return cls(array.copy(), device)

    @classmethod
    def ortvalue_from_shape_and_type(
        cls, shape: tuple[int, ...], kind: Any, device: str, index: int
    ) -> FakeValue:
        return cls(np.zeros(shape, kind), device)

    @property
    def address(self) -> Address:
        return self.array.shape, self.array.ctypes.data, self.array.dtype

    def shape(self) -> list[int]:
        return list(self.array.shape)

    def update_inplace(self, array: NDArray[Any]) -> None:
        self.array[...] = array

    def numpy(self) -> NDArray[Any]:
        return self.array.copy()
