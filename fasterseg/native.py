"""ctypes door to the CPU kernels: `cpp_plugins/cpu/fasterseg_cpu.h` in Python.

The library is looked for in `$FASTERSEG_NATIVE` (the file itself), in the installed package, and
where `make native` puts it in a source tree. `$FASTERSEG_NATIVE_ISA` forces an instruction set.
Results do not depend on it, on the number of threads, or on whether there is a library at all:
`numpy_upsample_argmax` gives the same labels to the last tie.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import UsageError
from fasterseg.native_library import BUILD, NativeInfo, find, info, library, require

__all__ = [
    "BUILD",
    "NativeInfo",
    "Paint",
    "blend",
    "find",
    "info",
    "normalize_bgr",
    "numpy_upsample_argmax",
    "require",
    "upsample_argmax",
]

SCALE: Final = 8
MOST_CLASSES: Final = 127
MOST_THREADS: Final = 256


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours to go with labels, see `blend`.

    Attributes:
        palette: uint8, (256, 3), BGR of every id.
        out: uint8, (N, H, W, 3), BGR: the picture is written here.
        frames: uint8, (N, H, W, 3), BGR, what the colours are laid over; None: colours only.
        alpha: opacity of the colours, from 0 (frame only) to 1 (colours only).
    """

    palette: NDArray[np.uint8]
    out: NDArray[np.uint8]
    frames: NDArray[np.uint8] | None = None
    alpha: float = 0.5


class _UpsampleArgmax(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("logits", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("batch", ctypes.c_int32),
        ("classes", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("full_height", ctypes.c_int32),
        ("full_width", ctypes.c_int32),
        ("out_height", ctypes.c_int32),
        ("out_width", ctypes.c_int32),
        ("isa", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("frames", ctypes.c_void_p),
        ("palette", ctypes.c_void_p),
        ("overlay", ctypes.c_void_p),
        ("alpha", ctypes.c_double),
    ]


class _Blend(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("frame", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("palette", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("alpha", ctypes.c_double),
        ("isa", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    ]


class _NormalizeBgr(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("frames", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("batch", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("isa", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("mean", ctypes.c_double * 3),
        ("std", ctypes.c_double * 3),
    ]


def upsample_argmax(
    logits: NDArray[np.float32],
    labels: NDArray[np.uint8],
    *,
    scale: int | None = SCALE,
    paint: Paint | None = None,
    threads: int = 1,
) -> None:
    """Upsample logits (bilinear, align_corners) and take the best class of every pixel.

    In float32; the first of equal greatest logits wins. A NaN never wins, and a pixel where no
    logit is above minus infinity is class 0; next to an infinite logit, a label is some class.

    Args:
        logits: float32, (N, C, h, w), C-contiguous, C from 1 to 127.
        labels: uint8, (N, H, W), C-contiguous: ids in [0, C) are written here.
        scale: the logits grow to (scale * h, scale * w) and are cropped at bottom and right to
            (H, W), as the graph's tail does; None: they grow to (H, W).
        paint: draws the labels as `blend` does, while they are in the cache; None: not.
        threads: rows are split among them.

    Raises:
        EngineError: there is no library (see `require`).
        UsageError: shapes, types or layouts that do not fit.
    """
    full = _full_size(logits, labels, scale)
    kernels = library()
    arguments = _UpsampleArgmax(
        *(logits.ctypes.data, labels.ctypes.data, *logits.shape),
        *(*full, *labels.shape[1:], kernels.isa, _threads(threads)),
    )
    if paint is not None:
        _check_paint(paint, labels.shape)
        arguments.frames = None if paint.frames is None else paint.frames.ctypes.data
        arguments.palette, arguments.overlay = paint.palette.ctypes.data, paint.out.ctypes.data
        arguments.alpha = paint.alpha
    kernels.call("upsample_argmax", arguments)


def blend(
    frame: NDArray[np.uint8] | None,
    labels: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    alpha: float,
    out: NDArray[np.uint8],
    *,
    threads: int = 1,
) -> None:
    """Paint a class map and lay it over the frame: the bytes of OpenCV's `addWeighted`.

    Args:
        frame: uint8, (H, W, 3), BGR, C-contiguous as all; None: colours only.
        labels: uint8, (H, W).
        palette: uint8, (256, 3), BGR of every id.
        alpha: opacity of the colours, from 0 (frame only) to 1 (colours only).
        out: uint8, (H, W, 3), BGR; may be `frame` itself.
        threads: rows are split among them.

    Raises:
        EngineError: there is no library (see `require`).
        UsageError: shapes, types or layouts that do not fit, or alpha outside [0, 1].
    """
    _check("labels", labels, np.uint8, labels.shape if labels.ndim == 2 else (-1, -1))
    _check_paint(Paint(palette, out, frame, alpha), labels.shape)
    kernels = library()
    arguments = _Blend(
        None if frame is None else frame.ctypes.data,
        *(labels.ctypes.data, palette.ctypes.data, out.ctypes.data, *labels.shape, alpha),
        *(kernels.isa, _threads(threads)),
    )
    kernels.call("blend", arguments)


def normalize_bgr(
    frames: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    out: NDArray[np.float32],
    *,
    threads: int = 1,
) -> None:
    """uint8 BGR frames to normalised RGB planes: the bits of `fasterseg.preprocess.normalize`.

    Args:
        frames: uint8, (N, H, W, 3), BGR, C-contiguous as all.
        mean: three values, RGB, for values in [0, 1].
        std: three values above 0, RGB.
        out: float32, (N, 3, H, W), RGB: `(x / 255 - mean) / std` is written here.
        threads: rows are split among them.

    Raises:
        EngineError: there is no library (see `require`).
        UsageError: shapes, types or layouts that do not fit.
    """
    good = frames.ndim == 4 and frames.shape[-1] == 3
    _check("frames", frames, np.uint8, frames.shape if good else (-1, -1, -1, 3))
    batch, height, width, _ = frames.shape
    _check("out", out, np.float32, (batch, 3, height, width), written=True)
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise UsageError(f"mean {mean} and std {std} must be three values each, std above 0")
    triple = ctypes.c_double * 3
    kernels = library()
    arguments = _NormalizeBgr(
        *(frames.ctypes.data, out.ctypes.data, batch, height, width),
        *(kernels.isa, _threads(threads), triple(*mean), triple(*std)),
    )
    kernels.call("normalize_bgr", arguments)


def numpy_upsample_argmax(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], *, scale: int | None = SCALE
) -> None:
    """What `upsample_argmax` does, without a library: the same labels, ties and NaN included.

    Args and errors as `upsample_argmax`, but for the library.
    """
    full_height, full_width = _full_size(logits, labels, scale)
    _, height, width = labels.shape
    rows = _places_of(height, logits.shape[2], full_height)
    columns = _places_of(width, logits.shape[3], full_width)
    for image, ids in zip(logits, labels, strict=True):
        best = np.full((height, width), -np.inf, np.float32)
        ids[:] = 0
        for number, plane in enumerate(image):
            wide = _between(plane, columns, axis=1)
            value = _between(wide, rows, axis=0)
            wins = value > best
            np.copyto(best, value, where=wins)
            np.copyto(ids, np.uint8(number), where=wins)


_Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def _places_of(targets: int, sources: int, full: int) -> _Places:
    """The two sources of each target and the weight of the second; exact as a fraction."""
    target = np.arange(targets)
    span = full - 1
    if sources == 1 or span == 0:
        none = np.zeros(targets, np.int64)
        return none, none, np.zeros(targets, np.float32)
    cell = np.minimum(target * (sources - 1) // span, sources - 2)
    rest = target * (sources - 1) - cell * span
    return cell, cell + 1, rest.astype(np.float32) / np.float32(span)


def _between(plane: NDArray[np.float32], places: _Places, axis: int) -> NDArray[np.float32]:
    first, second, weight = places
    share = weight if axis == 1 else weight[:, None]
    # A product of an infinity and a weight of 0 is NaN, which the contract allows.
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.take(plane, first, axis) * (np.float32(1) - share)
        far = np.take(plane, second, axis) * share
    return np.asarray(near + far, np.float32)


def _full_size(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], scale: int | None
) -> tuple[int, int]:
    """Size that the logits grow to before the crop, every array checked."""
    _check("logits", logits, np.float32, logits.shape if logits.ndim == 4 else (-1,) * 4)
    batch, classes, height, width = logits.shape
    shape = (batch, *(labels.shape[1:] if labels.ndim == 3 else (-1, -1)))
    _check("labels", labels, np.uint8, shape, written=True)
    if classes > MOST_CLASSES:
        raise UsageError(f"{classes} classes; at most {MOST_CLASSES} fit the int8 ids of engines")
    full = (int(labels.shape[1]), int(labels.shape[2]))
    if scale is None:
        return full
    if full[0] > scale * height or full[1] > scale * width:
        raise UsageError(
            f"labels of {full[0]}x{full[1]} are larger than {scale} times the logits' "
            f"{height}x{width}; pass the scale of the network, or None to stretch"
        )
    return scale * height, scale * width


def _check_paint(paint: Paint, shape: tuple[int, ...]) -> None:
    _check("palette", paint.palette, np.uint8, (256, 3))
    _check("out", paint.out, np.uint8, (*shape, 3), written=True)
    if paint.frames is not None:
        _check("frame", paint.frames, np.uint8, (*shape, 3))
    if not 0.0 <= paint.alpha <= 1.0:
        raise UsageError(
            f"alpha is {paint.alpha}; it is an opacity from 0 (none) to 1 (colours only)"
        )


def _check(
    name: str,
    array: NDArray[Any],
    kind: type[np.generic],
    shape: Sequence[int],
    *,
    written: bool = False,
) -> None:
    fits = array.dtype == kind and array.shape == tuple(shape) and 0 not in shape
    if fits and array.flags.c_contiguous and (array.flags.writeable or not written):
        return
    order = "C-contiguous" if array.flags.c_contiguous else "not C-contiguous"
    access = "writable" if array.flags.writeable else "read-only"
    wanted = f"{np.dtype(kind)} {tuple(shape)}".replace("-1", "?")
    raise UsageError(
        f"{name} is {array.dtype} {array.shape}, {order}, {access}; {wanted} without an empty "
        f"side, C-contiguous{', writable' if written else ''}, is needed"
    )


def _threads(threads: int) -> int:
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads is {threads}; give 1 to {MOST_THREADS}")
    return threads
