"""The NVIDIA driver, asked through ctypes: which GPU there is. Needs no CUDA package.

TensorRT hands out objects over null pointers on a machine without a driver and crashes with their
first use, so this is asked before any of them is made.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Final

from fasterseg.errors import DeviceUnavailableError

_LIBRARY: Final = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first GPU the driver shows.

    Attributes:
        name: as the driver gives it, such as "NVIDIA H200".
        capability: compute capability, such as (9, 0).
        cuda: newest CUDA version that the driver runs, such as "13.0".
    """

    name: str
    capability: tuple[int, int]
    cuda: str

    @property
    def arch(self) -> str:
        """`sm_90`."""
        return arch_name(self.capability)


def arch_name(capability: tuple[int, int]) -> str:
    """(8, 6) -> `sm_86`."""
    return f"sm_{capability[0]}{capability[1]}"


def _load() -> Any:
    return ctypes.CDLL(_LIBRARY)


def find_gpu() -> Gpu | None:
    """The GPU that engines run on, None without one or without a driver."""
    try:
        driver = _load()
    except OSError:
        return None
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return None
    if count.value < 1:
        return None
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(name, len(name), device)
    numbers = [ctypes.c_int(0) for _ in range(3)]
    driver.cuDeviceGetAttribute(ctypes.byref(numbers[0]), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(numbers[1]), _MINOR, device)
    driver.cuDriverGetVersion(ctypes.byref(numbers[2]))
    major, minor, version = (number.value for number in numbers)
    cuda = f"{version // 1000}.{version % 1000 // 10}"
    return Gpu(name.value.decode(errors="replace"), (major, minor), cuda)


def require_gpu(what: str) -> Gpu:
    """The GPU that engines run on.

    Args:
        what: needs it; named in the error.

    Raises:
        DeviceUnavailableError: there is none, or no driver.
    """
    gpu = find_gpu()
    if gpu is None:
        raise DeviceUnavailableError(
            f"{what} needs an NVIDIA GPU, and no CUDA device answers on this machine (no NVIDIA "
            "driver, or no visible GPU). Check nvidia-smi and CUDA_VISIBLE_DEVICES, or use "
            "--engine onnxruntime --device cpu"
        )
    return gpu
