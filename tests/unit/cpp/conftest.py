"""The kernel library emulated on the CPU, built once."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.runtime.kernels import KernelLibrary
from tests.unit.cpp import cpu_builds, plugin_builds, toolchain


@dataclass(frozen=True)
class Emulator:
    """The kernels through the same door as on a GPU, and what only the emulation exports."""

    kernels: KernelLibrary
    raw: ctypes.CDLL

    def order(self, order: int) -> None:
        """Threads run up (0), down (1) or shuffled by a seed above 1 between two barriers."""
        self.raw.emulator_order(ctypes.c_uint32(order))


@pytest.fixture(scope="session")
def emulated_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toolchain.emulated(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def emulator(emulated_library: Path) -> Emulator:
    made = Emulator(KernelLibrary(emulated_library), ctypes.CDLL(str(emulated_library)))
    made.order(0)
    return made


@pytest.fixture(scope="session")
def cpu_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CPU kernels of this machine, its object files beside it."""
    folder = tmp_path_factory.mktemp("cpu")
    return cpu_builds.library(folder, toolchain.host_compiler(), cpu_builds.OWN)


def pointer(array: NDArray[np.generic]) -> int:
    """Address of a C-contiguous array."""
    assert array.flags.c_contiguous
    return int(array.ctypes.data)


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> list[plugin_builds.PluginBuild]:
    """The TensorRT plugins, built with each set of headers at hand."""
    roots = plugin_builds.header_roots()
    return [plugin_builds.built(root, tmp_path_factory.mktemp("plugins")) for root in roots]
