"""Frames from video files and network streams, decoded by FFmpeg through PyAV."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from fasterseg.errors import SourceError
from fasterseg.stream.sources import Kind, expected_frames, redacted
from fasterseg.types import Frame, Size

NETWORK_TIMEOUT_S: Final = 10.0
# PyAV before 19 refuses a whole file for one tag that is not UTF-8, unless told otherwise.
_METADATA: Final[dict[str, Any]] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)
_LIVE_SCHEMES: Final = frozenset({"rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "udp"})
_COVER_ART: Final = 0x0400
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC: the picture of an audio file."""

_Turn = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
# Signs of a, b, c, d in the display matrix (x' = a x + c y, y' = b x + d y) -> what to do.
_TURNS: Final[dict[tuple[int, int, int, int], Callable[[Any], Any]]] = {
    (0, 1, -1, 0): lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    (-1, 0, 0, -1): lambda image: cv2.rotate(image, cv2.ROTATE_180),
    (0, -1, 1, 0): lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
    (-1, 0, 0, 1): lambda image: cv2.flip(image, 1),
    (1, 0, 0, -1): lambda image: cv2.flip(image, 0),
    (0, 1, 1, 0): cv2.transpose,
    (0, -1, -1, 0): lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
}


class VideoSource:
    """A video file or a network stream; see `FrameSource` for the attributes.

    Frames are upright (the container's rotation is applied) and all of the first one's size.
    Colours follow the matrix and range the stream declares; BT.601, limited range, where it
    declares none, as FFmpeg and OpenCV do.

    Raises:
        SourceError: it cannot be opened, has no video in it, or no frame can be decoded.
    """

    def __init__(self, uri: str, *, stride: int = 1, limit: int | None = None) -> None:
        remote = "://" in uri
        location = uri if remote else str(Path(uri).expanduser())
        self.name = redacted(uri)
        self.stem = stem_of(self.name if remote else location)
        self.kind: Kind = "video"
        self.files: tuple[Path, ...] = () if remote else (Path(location),)
        self.warnings: list[str] = []
        self.truncated = False
        self._container = _open(location, self.name)
        try:
            self._stream = _video_stream(self._container, self.name)
            self._describe(uri, stride, limit)
            self._convert = _Converter(self.warnings)
            self._frames = self._deliver(stride, limit)
            self._first: Frame | None = next(self._frames, None)
            if self._first is None:
                raise SourceError(
                    f"{self.name} holds no frame that can be decoded. Check that it plays "
                    f"elsewhere; to make it readable: ffmpeg -i INPUT -c:v libx264 OUT.mp4"
                )
        except SourceError:
            self.close()
            raise
        self.size: Size | None = self._first.size

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def close(self) -> None:
        """Close the file or connection."""
        self._container.close()

    def _describe(self, uri: str, stride: int, limit: int | None) -> None:
        stream = self._stream
        self._rate = _fraction(stream.average_rate) or _fraction(stream.guessed_rate)
        self._duration_s = _duration_s(self._container, stream)
        endless = "://" in uri and self._duration_s is None and not stream.frames
        self.live = urlsplit(uri).scheme in _LIVE_SCHEMES or endless
        self.fps: Fraction | None = self._rate / stride if self._rate else None
        self.time_base: Fraction | None = _fraction(stream.time_base)
        total = stream.frames or round((self._duration_s or 0.0) * float(self._rate or 0))
        known = total > 0 and not self.live
        self.frame_count: int | None = expected_frames(total, stride, limit) if known else None
        # Threads over frames decode ahead: more speed for a file, more delay for a live picture.
        stream.thread_type = "SLICE" if self.live else "AUTO"

    def _deliver(self, stride: int, limit: int | None) -> Generator[Frame, None, None]:
        """Frames kept by the stride; the others are decoded, which the codec needs, but no more."""
        delivered = 0
        started = time.perf_counter()
        for index, (picture, timestamp_s) in enumerate(self._timed_pictures()):
            if index % stride:
                continue
            image = self._convert(picture)
            decode_ms = (time.perf_counter() - started) * 1e3
            yield Frame(image, index, timestamp_s, decode_ms=decode_ms)
            delivered += 1
            if delivered == limit:
                return
            started = time.perf_counter()

    def _timed_pictures(self) -> Iterator[tuple[Any, float]]:
        """Every decoded picture with its seconds since the first one; checks the end."""
        step_s = float(1 / self._rate) if self._rate else 0.0
        first_pts: int | None = None
        timestamp_s = -step_s
        count = 0
        for picture in self._pictures():
            if picture.pts is None or self.time_base is None:
                timestamp_s += step_s
            else:
                first_pts = picture.pts if first_pts is None else first_pts
                timestamp_s = float((picture.pts - first_pts) * self.time_base)
            count += 1
            yield picture, timestamp_s
        self._check_end(count, timestamp_s + step_s, step_s)

    def _pictures(self) -> Iterator[Any]:
        """Every picture that can be decoded; damaged packets are counted and passed over."""
        damaged = 0
        for packet in self._packets():
            try:
                yield from packet.decode()
            except av.error.EOFError:
                break
            except av.error.FFmpegError:
                damaged += 1
        if damaged:
            self.warnings.append(f"{self.name}: {damaged} damaged packets were passed over")

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._stream)
        except av.error.FFmpegError as error:
            if self.live:
                raise SourceError(
                    f"{self.name}: the stream was lost ({error.strerror}). Check the network and "
                    "the sender, then start again"
                ) from None
            self.truncated = True
            self.warnings.append(f"{self.name}: reading stopped early ({error.strerror})")

    def _check_end(self, count: int, end_s: float, step_s: float) -> None:
        """Say so when the file ended before the end it declares."""
        if self.live or self.truncated or self._duration_s is None:
            return
        declared = self._stream.frames
        # Where the container counts its frames, a long last frame is told from a missing end.
        slack_s = 1.5 * step_s if declared else max(2 * step_s, 0.25)
        if (declared and count >= declared) or end_s >= self._duration_s - slack_s:
            return
        self.truncated = True
        self.warnings.append(
            f"{self.name} is cut off: it ends after {end_s:.2f} s of {self._duration_s:.2f} s; "
            f"the {count} frames there are were taken"
        )


class _Converter:
    """Decoded pictures -> (H, W, 3) uint8 BGR, upright, of the first one's size."""

    def __init__(self, warnings: list[str]) -> None:
        # One converter for all frames: each holds swscale tables of some megabytes.
        self._reformatter = VideoReformatter()
        self._warnings = warnings
        self._turn: _Turn | None = None
        self._size: Size | None = None
        self._warned = False

    def __call__(self, picture: Any) -> NDArray[np.uint8]:
        image: Any = self._reformatter.reformat(picture, format="bgr24").to_ndarray()
        if self._size is None:
            self._turn = _turn_of(picture)
        if self._turn is not None:
            image = self._turn(image)
        height, width = image.shape[:2]
        if self._size is None:
            self._size = Size(height, width)
        if (height, width) == self._size:
            return np.asarray(image, np.uint8)
        if not self._warned:
            self._warned = True
            self._warnings.append(
                f"the frame size changes from {self._size} to {height}x{width} (HxW); frames are "
                f"scaled to {self._size}"
            )
        resized = cv2.resize(image, (self._size.width, self._size.height))
        return np.asarray(resized, np.uint8)


def _turn_of(picture: Any) -> _Turn | None:
    """What makes the picture upright, from the container's display matrix."""
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    return _TURNS.get((_sign(a), _sign(b), _sign(c), _sign(d)))


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def stem_of(location: str) -> str:
    """What names of outputs start with: the file's name without its suffix."""
    path = urlsplit(location).path if "://" in location else location
    return Path(path).stem or "stream"


def _open(location: str, name: str) -> Any:
    remote = "://" in location
    if not remote and Path(location).stat().st_size == 0 and Path(location).is_file():
        raise SourceError(f"{name} is empty (0 bytes); copy or record it again")
    options = {"rtsp_transport": "tcp"} if location.startswith("rtsp") else {}
    timeout = NETWORK_TIMEOUT_S if remote else None
    try:
        # FFmpeg takes what stands before a colon for a protocol, in file names too.
        url = location if remote else f"file:{location}"
        return av.open(url, options=options, timeout=timeout, **_METADATA)
    except (av.error.InvalidDataError, av.error.EOFError):
        raise SourceError(
            f"{name} is not a video FFmpeg can read, or it was cut off before its index was "
            "written. Check that it plays elsewhere, or record it again"
        ) from None
    except (av.error.FFmpegError, ValueError) as error:
        # The cause is left out: FFmpeg's error repeats the URL with its password.
        reason = getattr(error, "strerror", None) or type(error).__name__
        remedy = "Check address, network and credentials" if remote else "Check its permissions"
        raise SourceError(f"cannot open {name}: {reason}. {remedy}") from None


def _video_stream(container: Any, name: str) -> Any:
    for stream in container.streams.video:
        disposition = getattr(stream, "disposition", 0)
        # A plain flag, which is no integer, in some versions of PyAV.
        if not getattr(disposition, "value", disposition) & _COVER_ART:
            return stream
    what = "only sound" if container.streams.audio else "no video"
    raise SourceError(f"{name} has {what} in it; give a file with a video stream")


def _fraction(rate: Any) -> Fraction | None:
    # Newer PyAV gives a rational of its own and 0 where older ones give None.
    return Fraction(rate.numerator, rate.denominator) if rate else None


def _duration_s(container: Any, stream: Any) -> float | None:
    """Declared length of the video; None where nothing reliable declares one."""
    time_base = _fraction(stream.time_base)
    if stream.duration and time_base:
        return float(stream.duration * time_base)
    if tag := stream.metadata.get("DURATION"):
        # Matroska: "00:01:02.345000000"
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return container.duration / av.time_base if container.duration else None
