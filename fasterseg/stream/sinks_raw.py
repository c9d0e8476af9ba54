"""Raw pixels on standard output, for pipes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import OutputError
from fasterseg.labels import LabelSet
from fasterseg.stream.results import SegmentationResult
from fasterseg.types import Frame, Size


class RawSink:
    """Writes every picture's bytes one after the other, without a header.

    Args:
        draw: result -> (H, W) or (H, W, 3) uint8.
        stream: where to; standard output by default.
    """

    def __init__(
        self,
        draw: Callable[[SegmentationResult], NDArray[np.uint8]],
        stream: BinaryIO | None = None,
    ) -> None:
        self.paths: list[Path] = []
        self._draw = draw
        self._stream = stream
        self._shape: tuple[int, ...] | None = None

    def write(self, result: SegmentationResult) -> None:
        """Write one picture.

        Raises:
            BrokenPipeError: the program at the other end has gone.
            OutputError: its size is not the first one's, or it cannot be written.
        """
        image = self._draw(result)
        if self._shape not in (None, image.shape):
            raise OutputError(
                f"picture {result.frame_index} is {Size(*image.shape[:2])} (HxW) after others of "
                f"{Size(*(self._shape or ())[:2])}: raw bytes have one size; give a folder instead"
            )
        self._shape = image.shape
        write_stream(self._stream, np.ascontiguousarray(image).data)

    def close(self) -> None:
        """Every picture was handed over already."""

    def hint(self, size: Size, fps: Fraction | None, labels: LabelSet) -> str:
        """How FFmpeg reads it, for frames of this size."""
        blank = np.zeros((*size, 3), np.uint8)
        shape = self._draw(
            SegmentationResult(blank[..., 0].copy(), labels, Frame(blank, 0, 0.0))
        ).shape
        height, width = shape[:2]
        rate = f" -framerate {fps}" if fps else ""
        pixels = "gray" if len(shape) == 2 else "bgr24"
        return (
            f"raw {pixels}, {Size(height, width)} (HxW) on standard output; to read it: "
            f"ffmpeg -f rawvideo -pixel_format {pixels} -video_size {width}x{height}{rate} -i -"
        )


def write_stream(stream: BinaryIO | None, data: bytes | memoryview) -> None:
    """Write all of it to a stream (None: standard output) and hand it over at once.

    Raises:
        BrokenPipeError: nobody reads any more.
        OutputError: it cannot be written.
    """
    target = stream or sys.stdout.buffer
    try:
        target.write(data)
        target.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error
