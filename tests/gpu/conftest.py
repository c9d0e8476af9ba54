"""The kernel library compiled for the GPU at hand, and its memory through torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.runtime.kernels import KernelLibrary
from tests.unit.cpp import toolchain
from tests.unit.cpp.calls import Held


class CudaHeld:
    """An array on the device between two guards of NaN bytes."""

    GUARD = 512

    def __init__(self, array: NDArray[Any]) -> None:
        import torch

        self._size, self._like = array.nbytes, array[:0].copy()
        self._shape = array.shape
        self._buffer = torch.full((2 * self.GUARD + self._size,), 255, dtype=torch.uint8).cuda()
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._buffer[self.GUARD : self.GUARD + self._size] = torch.from_numpy(flat.copy()).cuda()
        self.pointer = int(self._buffer.data_ptr()) + self.GUARD

    def get(self) -> NDArray[Any]:
        copied = self._buffer.cpu().numpy()
        guards = np.concatenate([copied[: self.GUARD], copied[self.GUARD + self._size :]])
        assert (guards == 255).all(), "written outside an array"
        inside = copied[self.GUARD : self.GUARD + self._size].copy()
        return inside.view(self._like.dtype).reshape(self._shape)


class CudaMemory:
    """Memory of the compiled kernels."""

    def put(self, array: NDArray[Any]) -> Held:
        return CudaHeld(array)


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> KernelLibrary:
    import torch

    major, minor = torch.cuda.get_device_capability()
    built: Path = toolchain.compiled(tmp_path_factory.mktemp("kernels"), f"sm_{major}{minor}")
    return KernelLibrary(built)


@pytest.fixture
def memory() -> CudaMemory:
    return CudaMemory()
