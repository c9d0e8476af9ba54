"""Arrays of others on the GPU, read by `__cuda_array_interface__`; needs no CUDA package."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np

from fasterseg.errors import UsageError
from fasterseg.runtime.base import CudaArray, EngineSpec, check_frames

_DEFAULT_STREAMS: Final = frozenset({0, 1})


@dataclass(frozen=True, slots=True)
class DeviceView:
    """Somebody's array on the GPU.

    Attributes:
        pointer: its address.
        shape: of the array.
        stream: handle of the stream that its values come from, None where it is ready.
    """

    pointer: int
    shape: tuple[int, ...]
    stream: int | None


def view(array: CudaArray, what: str, writable: bool = False) -> DeviceView:
    """Read `__cuda_array_interface__`, and see that we can use the memory as it lies.

    Args:
        array: uint8, C-contiguous, on the GPU.
        what: name for errors.
        writable: we are to write into it.

    Raises:
        UsageError: it is not such an array.
    """
    facts = getattr(array, "__cuda_array_interface__", None)
    if facts is None:
        raise UsageError(
            f"{what} is no array on the GPU ({type(array).__name__}): give one with "
            "__cuda_array_interface__ (PyCUDA GPUArray, CuPy, torch on cuda), or call run()"
        )
    shape, kind = tuple(int(n) for n in facts["shape"]), np.dtype(facts["typestr"])
    strides, (pointer, read_only) = facts.get("strides"), facts["data"]
    if kind != np.uint8:
        raise UsageError(f"{what} is {kind}, engines take and give uint8")
    # Steps along axes of length 1 say nothing.
    real = [] if strides is None else [s for s, n in zip(strides, shape, strict=True) if n > 1]
    if strides is not None and real != [
        prod(shape[axis + 1 :]) for axis, n in enumerate(shape) if n > 1
    ]:
        raise UsageError(f"{what} is not contiguous; copy it first (ascontiguousarray)")
    if writable and read_only:
        raise UsageError(f"{what} is read-only memory; give an array that may be written")
    stream = facts.get("stream")
    return DeviceView(int(pointer), shape, None if stream is None else int(stream))


def view_both(
    frames: CudaArray, labels: CudaArray, spec: EngineSpec
) -> tuple[DeviceView, DeviceView]:
    """Both arrays of a call, if the engine can work between them.

    Args:
        frames: (N, H, W, 3) uint8, BGR.
        labels: (N, H, W) uint8, to be written.
        spec: of the engine.

    Raises:
        UsageError: they fit neither the engine nor each other.
    """
    taken, given = view(frames, "frames"), view(labels, "labels", writable=True)
    check_frames(spec, np.broadcast_to(np.uint8(0), taken.shape))
    if given.shape != taken.shape[:3]:
        raise UsageError(
            f"labels of {taken.shape[0]} frames of {taken.shape[1:3]} have the shape "
            f"{taken.shape[:3]}, not {given.shape}"
        )
    return taken, given


def same_stream(one: int, other: int) -> bool:
    """Whether two handles are one stream; the default one has two."""
    return one == other or {one, other} <= _DEFAULT_STREAMS
