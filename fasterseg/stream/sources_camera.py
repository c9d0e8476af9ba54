"""Frames from a camera of this machine, through OpenCV."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from fasterseg.errors import SourceError
from fasterseg.stream.sources import CAMERA, Kind
from fasterseg.types import Frame, Size


class CameraSource:
    """`camera:0` or `/dev/video0`; see `FrameSource` for the attributes.

    Timestamps are the clock's at the moment a frame was read: the rate a camera announces is
    no measure of the one it keeps.

    Raises:
        SourceError: there is no such camera, it is in use, or it gives no picture.
    """

    def __init__(self, uri: str, *, stride: int = 1, limit: int | None = None) -> None:
        match = CAMERA.fullmatch(uri)
        if match is None:
            raise SourceError(f"'{uri}' is no camera; write camera:0 or /dev/video0")
        number = int(match[1])
        self.name = f"camera:{number}"
        self.stem = f"camera{number}"
        self.kind: Kind = "camera"
        self.live = True
        self.files: tuple[Path, ...] = ()
        self.warnings: list[str] = []
        self.truncated = False
        self.frame_count: int | None = limit
        self.time_base: Fraction | None = None
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise SourceError(
                f"camera {number} cannot be opened. Check that /dev/video{number} exists, that no "
                "other program uses it, and that you may read it (group video)"
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: Fraction | None = (
            Fraction(rate).limit_denominator(1001) / stride if rate > 0 else None
        )
        self._frames = self._read(stride, limit)
        try:
            self._first: Frame | None = next(self._frames)
        except SourceError:
            self.close()
            raise
        self.size: Size | None = self._first.size

    def __iter__(self) -> Iterator[Frame]:
        """The frames, as they come."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def close(self) -> None:
        """Give the camera back."""
        self._capture.release()

    def _read(self, stride: int, limit: int | None) -> Generator[Frame, None, None]:
        index = delivered = 0
        first_s: float | None = None
        while delivered != limit:
            self._skip(0 if index == 0 else stride - 1)
            started = time.perf_counter()
            good, image = self._capture.read()
            now = time.perf_counter()
            if not good:
                raise SourceError(
                    f"{self.name} gives no picture (frame {index}). Check its cable and that no "
                    "other program uses it"
                )
            first_s = now if first_s is None else first_s
            yield Frame(
                np.asarray(image, np.uint8), index, now - first_s, decode_ms=(now - started) * 1e3
            )
            delivered += 1
            index += stride

    def _skip(self, count: int) -> None:
        for _ in range(count):
            self._capture.grab()
