"""Frames from a camera of this machine or a GStreamer pipeline, through OpenCV."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2

from fasterseg.errors import SourceError
from fasterseg.stream.credentials import filled_in
from fasterseg.stream.sources import CAMERA, GSTREAMER, redacted_text
from fasterseg.stream.sources_live import LiveSource, Opening
from fasterseg.stream.sources_options import SourceOptions, plausible_rate
from fasterseg.stream.sources_picture import as_bgr, silent_opencv
from fasterseg.stream.sources_session import Arrival, Pixels

MOST_FAILURES: Final = 5
"""Reads in a row that may fail; one more and the camera is lost."""

RETRY_S: Final = 0.02

# What rtspsrc is told beside its address.
_PASSWORDS: Final = re.compile(r"\b((?:user|proxy)-(?:id|pw)\s*=\s*)(\"[^\"]*\"|\S+)")


def open_camera(uri: str, options: SourceOptions) -> LiveSource:
    """`camera:0`, `/dev/video0`, or another name of that device; opened again when it is lost.

    A name that leads to a device, such as those in `/dev/v4l/by-id`, is followed at each opening:
    the camera that bears it may come back under another number, or not be there yet.

    Raises:
        SourceError: there is no such camera, it is in use, or it gives no picture.
    """
    plain = CAMERA.fullmatch(uri)
    name, stem = (f"camera:{plain[1]}", f"camera{plain[1]}") if plain else (uri, Path(uri).name)

    def connect(left: threading.Event) -> CaptureConnection:
        number = _number(uri)
        with silent_opencv():
            capture = cv2.VideoCapture(number)
        if not capture.isOpened():
            raise SourceError(
                f"camera {number} cannot be opened. Check that /dev/video{number} exists, that no "
                "other program uses it, and that you may read it (group video)"
            )
        return CaptureConnection(capture, name, left)

    remedy = "check its cable and that no other program uses it"
    return LiveSource(Opening(name, stem, "camera", connect, remedy=remedy), options)


def _number(uri: str) -> int:
    """Of the camera that the name leads to now."""
    match = CAMERA.fullmatch(uri) or CAMERA.fullmatch(os.path.realpath(uri))
    if match is None:
        raise SourceError(
            f"{uri} is not there, or is no camera. Plug it in, or write camera:0, /dev/video0 or a "
            "name in /dev/v4l/by-id"
        )
    return int(match[1])


def open_gstreamer(uri: str, options: SourceOptions) -> LiveSource:
    """`gst:` and a pipeline as for gst-launch-1.0 that ends in an appsink of BGR frames.

    Its end is an end like that of a file, told with a warning; it is started again only where
    attempts to reconnect are asked for.

    Raises:
        SourceError: this OpenCV has no GStreamer, or the pipeline does not start.
        UsageError: a `${NAME}` without a value.
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

    def connect(left: threading.Event) -> CaptureConnection:
        with silent_opencv():
            capture = cv2.VideoCapture(filled_in(pipeline), cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            shown = _PASSWORDS.sub(r"\1***", redacted_text(pipeline))
            raise SourceError(
                f"the GStreamer pipeline does not start: {shown}. Try it with gst-launch-1.0, "
                "with fakesink for appsink"
            )
        return CaptureConnection(capture, "gstreamer", left, may_end=True)

    opening = Opening(
        "gstreamer", "gstreamer", "camera", connect, attempts=0, remedy="check the pipeline"
    )
    return LiveSource(opening, options)


class CaptureConnection:
    """An open `cv2.VideoCapture`; see `Connection`.

    Its pictures have no times: the rate a camera announces is no measure of the one it keeps.
    Grey, BGRA and 16-bit ones become BGR. Reads that fail now and then are counted as lost.

    Args:
        capture: closed with the connection.
        name: for people.
        left: nobody waits for pictures any more once this is set.
        may_end: no more pictures are an end, and not the loss of a camera.
    """

    def __init__(
        self, capture: Any, name: str, left: threading.Event, *, may_end: bool = False
    ) -> None:
        self._capture = capture
        self._name = name
        self._left = left
        self._may_end = may_end
        self._taken = 0
        rate = capture.get(cv2.CAP_PROP_FPS)
        is_rate = plausible_rate(rate)
        self.fps: Fraction | None = Fraction(rate).limit_denominator(1001) if is_rate else None
        self.time_base: Fraction | None = None
        self.finite = False
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lost_frames = 0

    def arrivals(self) -> Iterator[Arrival]:
        """Pictures as they come, until a pipeline ends.

        Raises:
            SourceError: a camera gives none any more, or one of an unknown format.
        """
        while self._grab():
            yield Arrival(None, self._keep)
            self._taken += 1

    def close(self) -> None:
        """Give the camera back."""
        self._capture.release()

    def _keep(self) -> Pixels | None:
        good, image = self._capture.retrieve()
        if not good or image is None:
            self._lose()
            return None
        pixels = as_bgr(image, self._name)
        return lambda: pixels

    def _grab(self) -> bool:
        """Take the next picture from the camera; False at the end of what may end."""
        for _ in range(MOST_FAILURES):
            if self._capture.grab():
                return True
            if self._may_end or self._left.is_set():
                return False
            self._lose()
            time.sleep(RETRY_S)
        raise SourceError(
            f"{self._name} gives no picture any more (frame {self._taken}). Check its cable and "
            "that no other program uses it"
        )

    def _lose(self) -> None:
        if not self.lost_frames:
            self.warnings.append(
                f"{self._name} gave no picture at frame {self._taken}; it was passed over"
            )
        self.lost_frames += 1
