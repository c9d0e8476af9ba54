"""Frames from a camera of this machine or a GStreamer pipeline, through OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2

from fasterseg.errors import FastersegError, SourceError
from fasterseg.stream.sources import CAMERA, GSTREAMER, Kind
from fasterseg.stream.sources_options import SourceOptions, plausible_rate
from fasterseg.stream.sources_picture import FirstSize, as_bgr, silent_opencv
from fasterseg.types import Frame, Size

MOST_FAILURES: Final = 5
"""Reads in a row that may fail; one more and the camera is lost."""

RETRY_S: Final = 0.02


def open_camera(uri: str, options: SourceOptions) -> CaptureSource:
    """`camera:0`, `/dev/video0`, or another name of that device.

    Raises:
        SourceError: there is no such camera, it is in use, or it gives no picture.
    """
    match = CAMERA.fullmatch(uri) or CAMERA.fullmatch(os.path.realpath(uri))
    if match is None:
        raise SourceError(f"'{uri}' is no camera; write camera:0 or /dev/video0")
    number = int(match[1])
    with silent_opencv():
        capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise SourceError(
            f"camera {number} cannot be opened. Check that /dev/video{number} exists, that no "
            "other program uses it, and that you may read it (group video)"
        )
    return CaptureSource(capture, f"camera:{number}", f"camera{number}", options)


def open_gstreamer(uri: str, options: SourceOptions) -> CaptureSource:
    """`gst:` and a pipeline as for gst-launch-1.0 that ends in an appsink of BGR frames.

    Its end is an end like that of a file, told with a warning.

    Raises:
        SourceError: this OpenCV has no GStreamer, or the pipeline does not start.
    """
    pipeline = uri.removeprefix(GSTREAMER).strip()
    if "appsink" not in pipeline:
        raise SourceError(
            "a GStreamer pipeline must end in an appsink: 'gst:videotestsrc ! videoconvert ! "
            "video/x-raw,format=BGR ! appsink'"
        )
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise SourceError(
            "this OpenCV was built without GStreamer. Use one that has it (JetPack's, or your "
            "distribution's python3-opencv, in a virtual environment with --system-site-packages); "
            "or pipe it: gst-launch-1.0 -q ... ! matroskamux ! fdsink | fasterseg-infer -"
        )
    with silent_opencv():
        capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise SourceError(
            f"the GStreamer pipeline does not start: {pipeline}. Try it with gst-launch-1.0, with "
            "fakesink for appsink"
        )
    return CaptureSource(capture, "gstreamer", "gstreamer", options, may_end=True)


class CaptureSource:
    """Frames of an open `cv2.VideoCapture`; see `FrameSource` for the attributes.

    Timestamps are the clock's at the moment a frame was taken: the rate a camera announces is
    no measure of the one it keeps. Grey, BGRA and 16-bit frames become BGR; a size that changes
    is fitted to the first one. Reads that fail now and then are counted as lost frames.

    Args:
        capture: closed with the source.
        name: for people.
        stem: what names of outputs start with.
        options: which frames are taken.
        may_end: no more frames are an end, and not the loss of a camera.

    Raises:
        SourceError: it gives no picture, or one of an unknown format.
    """

    def __init__(
        self, capture: Any, name: str, stem: str, options: SourceOptions, *, may_end: bool = False
    ) -> None:
        self.name = name
        self.stem = stem
        self.kind: Kind = "camera"
        self.live = True
        self.files: tuple[Path, ...] = ()
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lost_frames = 0
        self.truncated = False
        self.frame_count: int | None = options.limit
        self.time_base: Fraction | None = None
        self._may_end = may_end
        self._capture = capture
        self._fitted = FirstSize(self.warnings)
        rate = capture.get(cv2.CAP_PROP_FPS)
        native = Fraction(rate).limit_denominator(1001) if plausible_rate(rate) else None
        self.fps: Fraction | None = options.rate(native)
        self._frames = self._read(options)
        try:
            self._first: Frame | None = next(self._frames, None)
            if self._first is None:
                raise SourceError(f"{name} ended before its first picture; check the pipeline")
        except (FastersegError, KeyboardInterrupt):
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

    def _read(self, options: SourceOptions) -> Generator[Frame, None, None]:
        picker = options.picker()
        opened_s = time.perf_counter()
        began_s: float | None = None
        delivered = index = 0
        while delivered != options.limit:
            started = time.perf_counter()
            if not self._grab(index):
                return
            now_s = time.perf_counter()
            if began_s is None and now_s - opened_s < options.start_s:
                continue
            began_s = now_s if began_s is None else began_s
            timestamp_s = now_s - began_s
            taken = index
            index += 1
            if not picker.wants(taken, timestamp_s):
                continue
            good, image = self._capture.retrieve()
            if not good or image is None:
                self._lose(taken)
                continue
            pixels = self._fitted(as_bgr(image, self.name))
            decode_ms = (time.perf_counter() - started) * 1e3
            yield Frame(pixels, taken, timestamp_s, decode_ms=decode_ms)
            delivered += 1

    def _grab(self, index: int) -> bool:
        """Take the next frame from the camera; False at the end of what may end."""
        for _ in range(MOST_FAILURES):
            if self._capture.grab():
                return True
            if self._may_end:
                self.warnings.append(f"{self.name} ended after {index} frames")
                return False
            self._lose(index)
            time.sleep(RETRY_S)
        raise SourceError(
            f"{self.name} gives no picture any more (frame {index}). Check its cable and that no "
            "other program uses it"
        )

    def _lose(self, index: int) -> None:
        if not self.lost_frames:
            self.warnings.append(
                f"{self.name} gave no picture at frame {index}; it was passed over"
            )
        self.lost_frames += 1
