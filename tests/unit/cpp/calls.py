"""The kernels on NumPy arrays, in host memory (emulated) or a GPU's, and what they must give.

The references are float64 NumPy, written from the definitions: resizing as a matrix of exact
fractions along each axis, convolution as nine shifted products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fasterseg.preprocess import MEAN, STD
from fasterseg.runtime.kernels import (
    KernelLibrary,
    Layout,
    NormalizeBgr,
    Resize,
    Type,
    UpsampleArgmax,
    ZoomedConv,
)

Array = NDArray[Any]
Float = NDArray[np.float64]
Convolution = tuple[NDArray[np.float16], NDArray[np.float32]]
"""Weights (out, 3, 3, in) and bias (out,)."""


class Held(Protocol):
    """An array in a kernel's memory."""

    @property
    def pointer(self) -> int:
        """Its address there."""

    def get(self) -> Array:
        """A copy of it."""


class Memory(Protocol):
    """Where kernels read and write."""

    def put(self, array: Array) -> Held:
        """Copy an array there."""


class HostHeld:
    """An array between two guards of NaN bytes: reads beyond it poison, writes are noticed."""

    GUARD = 512

    def __init__(self, array: Array) -> None:
        size = array.nbytes
        buffer = np.full(2 * self.GUARD + size + 64, 0xFF, np.uint8)
        start = self.GUARD + -(buffer.ctypes.data + self.GUARD) % 64
        self._guards = buffer[:start], buffer[start + size :]
        self._inside = buffer[start : start + size].view(array.dtype).reshape(array.shape)
        self._inside[...] = array
        self.pointer = int(buffer.ctypes.data) + start

    def get(self) -> Array:
        assert all((guard == 0xFF).all() for guard in self._guards), "written outside an array"
        return self._inside.copy()


class HostMemory:
    """Memory of the emulated kernels."""

    def put(self, array: Array) -> Held:
        return HostHeld(np.ascontiguousarray(array))


def poison(shape: tuple[int, ...], dtype: type[np.generic]) -> Array:
    """An array whose values no kernel gives (NaN, or 255): what stays was never written."""
    bytes_each = np.dtype(dtype).itemsize
    return np.full((*shape, bytes_each), 0xFF, np.uint8).view(dtype)[..., 0]


# --- normalize_bgr


def normalize_bgr(
    kernels: KernelLibrary,
    memory: Memory,
    frames: NDArray[np.uint8],
    kind: Type,
    layout: Layout,
    channels: int = 3,
) -> Array:
    batch, height, width, _ = frames.shape
    shape = (batch, 3, height, width) if layout is Layout.NCHW else (*frames.shape[:3], channels)
    source = memory.put(frames)
    output = memory.put(poison(shape, np.float16 if kind is Type.FP16 else np.float32))
    three = NormalizeBgr().mean.__class__
    kernels.normalize_bgr(
        NormalizeBgr(
            frames=source.pointer, output=output.pointer, batch=batch, height=height, width=width,
            type=kind, layout=layout, channels=channels, mean=three(*MEAN), std=three(*STD),
        )
    )  # fmt: skip
    return output.get()


# --- upsample_argmax


@dataclass(frozen=True)
class Colours:
    """What an overlay is made of: (classes, 3) BGR palette, opacity, frames or None."""

    palette: NDArray[np.uint8]
    alpha: float = 0.5
    frames: NDArray[np.uint8] | None = None


def upsample_argmax(
    kernels: KernelLibrary,
    memory: Memory,
    logits: Array,
    size: tuple[int, int],
    layout: Layout = Layout.NCHW,
    spare: int = 0,
    colours: Colours | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Labels and overlay of (N, C, h, w) fp16 or fp32 logits; `spare` NaN channels pad NHWC."""
    batch, classes, height, width = logits.shape
    if layout is Layout.NHWC:
        padded = np.full((batch, height, width, classes + spare), np.nan, logits.dtype)
        padded[..., :classes] = logits.transpose(0, 2, 3, 1)
        source = memory.put(padded)
    else:
        source = memory.put(logits)
    labels = memory.put(poison((batch, *size), np.uint8))
    arguments = UpsampleArgmax(
        logits=source.pointer, labels=labels.pointer, batch=batch, height=height, width=width,
        out_height=size[0], out_width=size[1], classes=classes, pitch=classes + spare,
        type=Type.FP16 if logits.dtype == np.float16 else Type.FP32, layout=layout,
    )  # fmt: skip
    held = []
    if colours is not None:
        held = [memory.put(poison((batch, *size, 3), np.uint8)), memory.put(colours.palette)]
        arguments.overlay, arguments.palette = (one.pointer for one in held)
        arguments.alpha = colours.alpha
        if colours.frames is not None:
            held.append(memory.put(colours.frames))
            arguments.frames = held[-1].pointer
    kernels.upsample_argmax(arguments)
    return labels.get(), held[0].get() if held else None


def resizing(sources: int, targets: int) -> Float:
    """(targets, sources) matrix of bilinear resampling with align_corners."""
    matrix = np.zeros((targets, sources))
    for target in range(targets):
        scaled = target * (sources - 1)
        cell, rest = divmod(scaled, targets - 1) if targets > 1 else (0, 0)
        weight = rest / (targets - 1) if targets > 1 else 0.0
        matrix[target, cell] += 1 - weight
        matrix[target, min(cell + 1, sources - 1)] += weight
    return matrix


def resized(maps: Float, size: tuple[int, int]) -> Float:
    """(N, H, W, C) to another size."""
    down, across = resizing(maps.shape[1], size[0]), resizing(maps.shape[2], size[1])
    rows = np.tensordot(maps, down, axes=(1, 1))  # (N, W, C, h)
    return np.ascontiguousarray(np.tensordot(rows, across, axes=(1, 1)).transpose(0, 2, 3, 1))


def tail_reference(logits: Array, size: tuple[int, int]) -> tuple[NDArray[np.int64], Float]:
    """Labels, and by how much the greatest logit exceeds the second (infinity for one class)."""
    maps = logits.astype(np.float64).transpose(0, 2, 3, 1)
    full = resized(maps, (8 * maps.shape[1], 8 * maps.shape[2]))[:, : size[0], : size[1]]
    if full.shape[-1] == 1:
        return full.argmax(-1), np.full(full.shape[:3], np.inf)
    top = np.partition(full, -2, axis=-1)
    return full.argmax(-1), top[..., -1] - top[..., -2]


def assert_labels(
    labels: NDArray[np.uint8], logits: Array, size: tuple[int, int], margin: float = 1e-5
) -> None:
    """Equal to the reference wherever its decision is clear, and nearly everywhere else."""
    expected, clearance = tail_reference(logits, size)
    clear = clearance > margin * max(1.0, float(np.abs(logits).max()))
    assert labels.shape == expected.shape
    assert (labels[clear] == expected[clear]).all()
    assert np.mean(labels == expected) >= 0.999


# --- zoomed_conv


def convolutions(
    random: np.random.Generator, in_channels: int, out_channels: int, count: int
) -> list[Convolution]:
    """One or two random convolutions whose sums keep the scale of their input."""
    made = []
    for channels in (in_channels, out_channels)[:count]:
        weight = random.standard_normal((out_channels, 3, 3, channels)) / np.sqrt(9 * channels)
        bias = random.standard_normal(out_channels).astype(np.float32)
        made.append((weight.astype(np.float16), bias))
    return made


def zoomed_conv(
    kernels: KernelLibrary,
    memory: Memory,
    maps: NDArray[np.float16],
    convs: Sequence[Convolution],
    stride: int,
) -> NDArray[np.float16]:
    batch, height, width, channels = maps.shape
    out_channels = len(convs[0][1])
    size = (height, width) if stride == 1 else (height // 2, width // 2)
    output = memory.put(poison((batch, *size, out_channels), np.float16))
    arguments = ZoomedConv(
        output=output.pointer, batch=batch, height=height, width=width,
        in_channels=channels, out_channels=out_channels, stride=stride,
    )  # fmt: skip
    held = [memory.put(maps)]
    arguments.input = held[0].pointer
    for number, conv in enumerate(convs, start=1):
        held += [memory.put(array) for array in conv]
        setattr(arguments, f"weight{number}", held[-2].pointer)
        setattr(arguments, f"bias{number}", held[-1].pointer)
    arguments.workspace_bytes = kernels.zoomed_conv_workspace(arguments)
    if arguments.workspace_bytes:
        held.append(memory.put(poison((arguments.workspace_bytes // 2,), np.float16)))
        arguments.workspace = held[-1].pointer
    kernels.zoomed_conv(arguments)
    for one in held:
        one.get()
    return output.get()


def _rounded(maps: Float) -> Float:
    return maps.astype(np.float16).astype(np.float64)


def _convolved(maps: Float, conv: Convolution) -> Float:
    batch, height, width, _ = maps.shape
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    sums = np.zeros((batch, height, width, len(conv[1])))
    for dy in range(3):
        for dx in range(3):
            tap = conv[0][:, dy, dx].astype(np.float64)
            sums += padded[:, dy : dy + height, dx : dx + width] @ tap.T
    return sums + conv[1]


def zoomed_reference(maps: NDArray[np.float16], convs: Sequence[Convolution], stride: int) -> Float:
    """Float64, rounded to fp16 where the operator's maps are fp16: after half and after ReLU."""
    height, width = maps.shape[1:3]
    down = _rounded(resized(maps.astype(np.float64), (height // 2, width // 2)))
    sums = _convolved(down, convs[0])
    if len(convs) == 2:
        sums = _convolved(_rounded(np.maximum(sums, 0)), convs[1])
    if stride == 1:
        sums = resized(sums, (height, width))
    return np.maximum(sums, 0)


def assert_maps(got: NDArray[np.float16], expected: Float) -> None:
    """Within fp16's rounding of the output and of the map between the convolutions."""
    assert got.shape == expected.shape
    assert np.isfinite(got).all(), "not every value was written"
    error = np.abs(got.astype(np.float64) - expected)
    assert (error <= 1e-3 + 1e-3 * np.abs(expected)).all(), error.max()
    assert error.mean() <= 3e-4


# --- resize


class Resizer(Protocol):
    """What enqueues a resize: the library, or one of its bodies."""

    def resize(self, arguments: Resize) -> None:
        """As `KernelLibrary.resize`."""


@dataclass(frozen=True)
class Around:
    """Channels of the wider maps before and after those that a call reads and writes."""

    source: tuple[int, int] = (0, 0)
    target: tuple[int, int] = (0, 0)


DENSE = Around()


def resize(
    kernels: Resizer,
    memory: Memory,
    maps: NDArray[np.float16],
    size: tuple[int, int],
    bias: NDArray[np.float32] | None = None,
    relu: bool = False,
    around: Around = DENSE,
) -> NDArray[np.float16]:
    """(N, H, W, C) maps to another size; what lies around the output must stay as it is."""
    batch, height, width, channels = maps.shape
    first = around.source[0]
    wide = poison((batch, height, width, sum(around.source) + channels), np.float16)
    wide[..., first : first + channels] = maps
    source, start = memory.put(wide), around.target[0]
    untouched = poison((batch, *size, sum(around.target) + channels), np.float16)
    target = memory.put(untouched)
    biases = None if bias is None else memory.put(bias)
    kernels.resize(
        Resize(
            input=source.pointer + 2 * first, output=target.pointer + 2 * start,
            bias=None if biases is None else biases.pointer, batch=batch, in_height=height,
            in_width=width, out_height=size[0], out_width=size[1], channels=channels,
            in_pitch=wide.shape[-1], out_pitch=untouched.shape[-1], relu=int(relu),
        )
    )  # fmt: skip
    written = target.get().reshape(untouched.shape)
    inside = written[..., start : start + channels].copy()
    written[..., start : start + channels] = untouched[..., start : start + channels]
    np.testing.assert_array_equal(written.view(np.uint16), untouched.view(np.uint16))
    return inside


def resize_reference(
    maps: NDArray[np.float16],
    size: tuple[int, int],
    bias: NDArray[np.float32] | None = None,
    relu: bool = False,
) -> Float:
    """In float64, not rounded."""
    sums = resized(maps.astype(np.float64), size) + (0 if bias is None else bias)
    return np.maximum(sums, 0) if relu else sums


def assert_rounded(got: NDArray[np.float16], exact: Float, scale: float) -> None:
    """Each value is the nearest half, but for float32 sums of terms as large as `scale`."""
    assert got.shape == exact.shape
    assert np.isfinite(got).all(), "not every value was written"
    half_unit = np.spacing(np.abs(exact).astype(np.float16)).astype(np.float64) / 2
    error = np.abs(got.astype(np.float64) - exact)
    assert (error <= half_unit + 4e-7 * scale).all(), error.max()
