"""ctypes door to the CUDA kernel library: `cpp_plugins/kernels/fasterseg_kernels.h` in Python.

Device pointers and streams are integers here, so any owner of device memory can call: our own
buffers, torch (`data_ptr()`), CuPy, PyCUDA.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar, Final

from fasterseg.errors import (
    DeviceUnavailableError,
    EngineError,
    EngineMismatchError,
    MissingExtraError,
)

VERSION: Final = 2
"""Version of the interface that this file mirrors, `FASTERSEG_KERNELS_VERSION`."""

BUILD: Final = "make plugins"

NO_DEVICE: Final = frozenset({35, 100})
"""cudaErrorInsufficientDriver (no driver at all, too) and cudaErrorNoDevice."""


class Type(IntEnum):
    """Numeric type of an array."""

    FP32 = 0
    FP16 = 1


class Layout(IntEnum):
    """Order of an array's axes."""

    NCHW = 0
    NHWC = 1


class NormalizeBgr(ctypes.Structure):
    """uint8 BGR frames to normalised RGB, `(x / 255 - mean) / std`, rounded once.

    Attributes:
        frames: uint8, (batch, height, width, 3), BGR; 4-byte aligned.
        output: RGB, (batch, 3, height, width) or (batch, height, width, channels), of `type`;
            16-byte aligned.
        batch: frames.
        height: rows.
        width: columns.
        type: `Type` of the output.
        layout: `Layout` of the output.
        channels: NCHW: 3; NHWC: 3, 4 or 8, of which those beyond 3 are zeros.
        mean: three values, RGB, for values in [0, 1].
        std: three values, RGB.
    """

    _fields_: ClassVar[Any] = [
        ("frames", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("batch", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("layout", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("mean", ctypes.c_double * 3),
        ("std", ctypes.c_double * 3),
    ]


class UpsampleArgmax(ctypes.Structure):
    """1/8 class logits to class ids, and to colours over the frames where asked for.

    Bilinear x8 with align_corners, in float32; the first of equal greatest logits wins.

    Attributes:
        logits: (batch, classes, height, width) or (batch, height, width, pitch), of `type`.
        labels: uint8, (batch, out_height, out_width): ids in [0, classes).
        batch: maps.
        height: rows of the logits.
        width: columns of the logits.
        out_height: at most 8 * height; what is beyond is cropped.
        out_width: at most 8 * width.
        classes: 1 to 127.
        pitch: NHWC: values from pixel to pixel, at least `classes`.
        type: `Type` of the logits.
        layout: `Layout` of the logits.
        alpha: opacity of the colours, from 0 (frame only) to 1 (colours only).
        overlay: None, or uint8, (batch, out_height, out_width, 3), BGR.
        frames: None (colours only), or the frames, uint8, shaped as `overlay`.
        palette: uint8, (classes, 3), BGR; needed with `overlay`.
    """

    _fields_: ClassVar[Any] = [
        ("logits", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("batch", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("out_height", ctypes.c_int32),
        ("out_width", ctypes.c_int32),
        ("classes", ctypes.c_int32),
        ("pitch", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("layout", ctypes.c_int32),
        ("alpha", ctypes.c_float),
        ("overlay", ctypes.c_void_p),
        ("frames", ctypes.c_void_p),
        ("palette", ctypes.c_void_p),
    ]


class ZoomedConv(ctypes.Structure):
    """Half, 3x3 convolution [, ReLU, 3x3 convolution], restore, ReLU; batch norm folded.

    Maps are fp16 NHWC, weights fp16 (out, 3, 3, in), biases float32; sums are float32. With
    stride 2 there is no restore and the output has floored half sides.

    Attributes:
        input: (batch, height, width, in_channels); 16-byte aligned, as are all but the biases.
        weight1: (out_channels, 3, 3, in_channels).
        bias1: (out_channels,).
        weight2: None for one convolution, else (out_channels, 3, 3, out_channels).
        bias2: (out_channels,); needed with `weight2`.
        output: (batch, height, width, out_channels), halved with stride 2; not over the input.
        workspace: None where `KernelLibrary.zoomed_conv_workspace` answers 0.
        workspace_bytes: its size.
        batch: maps.
        height: rows of the input, at least 2.
        width: columns of the input, at least 2.
        in_channels: a multiple of 8.
        out_channels: a multiple of 8.
        stride: 1 or 2.
    """

    _fields_: ClassVar[Any] = [
        ("input", ctypes.c_void_p),
        ("weight1", ctypes.c_void_p),
        ("bias1", ctypes.c_void_p),
        ("weight2", ctypes.c_void_p),
        ("bias2", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("workspace_bytes", ctypes.c_int64),
        ("batch", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("in_channels", ctypes.c_int32),
        ("out_channels", ctypes.c_int32),
        ("stride", ctypes.c_int32),
    ]


class Resize(ctypes.Structure):
    """A map to another size, bilinear with align_corners, and its bias and ReLU on the way.

    Maps are fp16 NHWC, sums float32; equal sizes are a copy. With pitches either side can be a
    slice of a wider map: its pointer is the map's plus the slice's first channel.

    Attributes:
        input: (batch, in_height, in_width, in_pitch); 16-byte aligned, as are the others.
        bias: None, or float32, (channels,).
        output: (batch, out_height, out_width, out_pitch); not over what is read.
        batch: maps.
        in_height: rows, at most 65535, as are all sides.
        in_width: columns.
        out_height: rows of the output.
        out_width: columns of the output.
        channels: a multiple of 8, at most 65528.
        in_pitch: values from pixel to pixel, a multiple of 8, at least `channels`.
        out_pitch: the same of the output; values beyond `channels` are left alone.
        relu: 1 to turn negative values into 0, or 0.
    """

    _fields_: ClassVar[Any] = [
        ("input", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("batch", ctypes.c_int32),
        ("in_height", ctypes.c_int32),
        ("in_width", ctypes.c_int32),
        ("out_height", ctypes.c_int32),
        ("out_width", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("in_pitch", ctypes.c_int32),
        ("out_pitch", ctypes.c_int32),
        ("relu", ctypes.c_int32),
    ]


class KernelLibrary:
    """The compiled kernels. A call enqueues on a stream and returns at once.

    Args:
        path: the shared library.

    Raises:
        MissingExtraError: there is no such file.
        EngineMismatchError: it is of another version of the interface.
        EngineError: it cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingExtraError(f"{path} is not there; build the CUDA kernels: {BUILD}")
        try:
            self._library = ctypes.CDLL(str(path.resolve()))
            version = int(self._library.fasterseg_kernels_version())
        except (OSError, AttributeError) as error:
            raise EngineError(
                f"{path} cannot be loaded as the CUDA kernels ({error}); build them again: {BUILD}"
            ) from error
        if version != VERSION:
            raise EngineMismatchError(
                f"{path} has version {version} of the kernels' interface, this fasterseg needs "
                f"{VERSION}; build them again: {BUILD}"
            )
        self.path = path
        self._library.fasterseg_kernels_message.restype = ctypes.c_char_p
        self._library.fasterseg_zoomed_conv_workspace.restype = ctypes.c_int64

    def normalize_bgr(self, arguments: NormalizeBgr, stream: int = 0) -> None:
        """Enqueue the normalisation.

        Args:
            arguments: device pointers and sizes.
            stream: handle of the stream; 0 is the default stream.

        Raises:
            DeviceUnavailableError: no CUDA device or driver.
            EngineError: the arguments are refused, or the launch failed.
        """
        self._launch("normalize_bgr", arguments, stream)

    def upsample_argmax(self, arguments: UpsampleArgmax, stream: int = 0) -> None:
        """Enqueue the upsampling; arguments and errors as `normalize_bgr`."""
        self._launch("upsample_argmax", arguments, stream)

    def zoomed_conv(self, arguments: ZoomedConv, stream: int = 0) -> None:
        """Enqueue the zoomed convolution; arguments and errors as `normalize_bgr`."""
        self._launch("zoomed_conv", arguments, stream)

    def zoomed_conv_workspace(self, arguments: ZoomedConv) -> int:
        """Bytes of device memory that `zoomed_conv` needs as workspace; pointers may be None.

        Raises:
            EngineError: sizes that it cannot run.
        """
        wanted = int(self._library.fasterseg_zoomed_conv_workspace(ctypes.byref(arguments)))
        if wanted < 0:
            self._fail("zoomed_conv", wanted)
        return wanted

    def resize(self, arguments: Resize, stream: int = 0) -> None:
        """Enqueue the resize (or copy); arguments and errors as `normalize_bgr`."""
        self._launch("resize", arguments, stream)

    def _launch(self, name: str, arguments: ctypes.Structure, stream: int) -> None:
        function = getattr(self._library, f"fasterseg_{name}")
        result = int(function(ctypes.byref(arguments), ctypes.c_void_p(stream)))
        if result:
            self._fail(name, result)

    def _fail(self, name: str, result: int) -> None:
        message = bytes(self._library.fasterseg_kernels_message(result)).decode()
        if result in NO_DEVICE:
            raise DeviceUnavailableError(
                f"kernel {name}: {message}; run on a machine with an NVIDIA GPU and driver, "
                "or choose --device cpu"
            )
        raise EngineError(f"kernel {name}: {message} (result {result})")
