"""What torch says when CUDA or cuDNN fails -> our errors, each with its remedy.

By words: torch has one exception for most of it, and the numbers came late (torch 2.8). The words
are CUDA's own (`cudaGetErrorString`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import torch

from fasterseg.errors import (
    DeviceLostError,
    DeviceUnavailableError,
    EngineError,
    FastersegError,
    UnsupportedError,
)
from fasterseg.runtime.kernels import BUILD

_MEMORY: Final = ("out of memory", "STATUS_ALLOC_FAILED")
_ARCHITECTURE: Final = (
    "no kernel image is available",
    "invalid device function",
    "unsupported toolchain",
    "ARCH_MISMATCH",
)
_NO_DEVICE: Final = (
    "no CUDA-capable device",
    "No CUDA GPUs are available",
    "driver version is insufficient",
    "Found no NVIDIA driver",
    "busy or unavailable",
)
_LOST: Final = (
    "illegal memory access",
    "unspecified launch failure",
    "device-side assert",
    "launch timed out",
    "hardware stack error",
    "illegal instruction",
    "misaligned address",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "uncorrectable ECC",
    "uncorrectable NVLink",
    "context is destroyed",
    "fallen off the bus",
    "GPU is lost",
    "CUDA error: unknown error",
)
"""After these no call of the process reaches the GPU again."""

_NO_ENGINE: Final = ("unable to find an engine", "CUDNN_STATUS_NOT_SUPPORTED")
_OURS: Final = (
    "CUDA error",
    "CUDA driver error",
    "CUDA Graph",
    "Invalid capture",
    "cuDNN error",
    "CUDNN_",
    "CUBLAS_",
)


@contextlib.contextmanager
def told(doing: str) -> Iterator[None]:
    """Turn what fails in the block into our errors; others, such as mistakes of ours, go on.

    Args:
        doing: what fails, for the message: "capturing a CUDA graph".

    Raises:
        DeviceLostError: the device will not answer in this process any more.
        DeviceUnavailableError: there is no device.
        UnsupportedError: torch or our kernels have no code for this GPU.
        EngineError: memory ran out, or anything else that CUDA says.
    """
    try:
        yield
    except (RuntimeError, EngineError) as error:
        ours = _ours(error, doing)
        if ours is None:
            raise
        raise ours from error


def _ours(error: RuntimeError | EngineError, doing: str) -> FastersegError | None:
    """The error as ours; None where it is one already, or none of CUDA's."""
    text = str(error)
    said = (text.strip().splitlines() or [type(error).__name__])[0].strip()
    if isinstance(error, DeviceLostError):
        return None
    if any(words in text for words in _LOST):
        return DeviceLostError(
            f"the GPU failed while {doing}: {said}. What was computed is lost, and this process "
            "cannot use the GPU any more; start again, and if it stays, look at dmesg and "
            "update the driver"
        )
    if not isinstance(error, EngineError):
        return _from_torch(error, text, said, doing)
    if any(words in text for words in _ARCHITECTURE):
        return UnsupportedError(
            f"our CUDA kernels have no code for this GPU ({said}). Build them here: {BUILD}, or "
            "use --plugins off"
        )
    return None


def _from_torch(error: RuntimeError, text: str, said: str, doing: str) -> EngineError | None:
    if isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _MEMORY):
        return EngineError(
            f"the GPU's memory ran out while {doing} ({said}). Choose a smaller --size or "
            "--batch, or close what else uses the GPU (nvidia-smi lists it)"
        )
    if any(words in text for words in _ARCHITECTURE):
        return UnsupportedError(
            f"torch {torch.__version__} has no code for this GPU ({said}, while {doing}). Install "
            "a build for it (pytorch.org), or use --engine onnxruntime"
        )
    if any(words in text for words in _NO_DEVICE):
        return DeviceUnavailableError(
            f"CUDA has no device for us ({said}, while {doing}). Check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or use --device cpu"
        )
    if any(words in text for words in _NO_ENGINE):
        return UnsupportedError(
            f"cuDNN cannot compute a layer here ({said}, while {doing}). Choose another "
            "--precision, or --engine onnxruntime"
        )
    if any(words in text for words in _OURS):
        return EngineError(
            f"CUDA failed while {doing}: {said}. What was computed is lost; start again, and if "
            "it stays, update the driver"
        )
    return None
