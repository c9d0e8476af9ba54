"""Overlay videos that play everywhere: H.264, yuv420p, index in front, the source's timing."""

from __future__ import annotations

import contextlib
import math
import secrets
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.cache import make_folder
from fasterseg.errors import OutputError
from fasterseg.stream.results import SegmentationResult

ENCODER: Final = "libx264"
_ENCODER_OPTIONS: Final = {"preset": "veryfast", "crf": "20"}
NOMINAL_FPS: Final = Fraction(25)
"""Rate announced for sources without one; timestamps are the source's all the same."""

_FINEST_TICKS: Final = 10_000
_MOST_TICKS: Final = 1_000_000
# While it is being written an MP4 is a row of self-contained fragments, at most a second each:
# whatever ends the program, what is on the disk plays.
_FRAGMENTS: Final = {
    "movflags": "frag_keyframe+delay_moov+default_base_moof",
    "frag_duration": "1000000",
}
_INDEX_IN_FRONT: Final = {"movflags": "faststart"}
_BT709: Final = 1
_BT601: Final = 6
_LIMITED: Final = 1


class VideoSink:
    """Writes overlays to an MP4, MOV or Matroska file.

    The file is opened with the first result. Odd sizes are padded by one edge pixel at the right
    and bottom, because yuv420p has none.

    Args:
        path: the file; its suffix chooses the container.
        fps: rate of the source.
        time_base: seconds per tick of the source's timestamps.
        alpha: opacity of the colours, 0 to 1.

    Raises:
        OutputError: the H.264 encoder is not there.
    """

    def __init__(
        self, path: Path, fps: Fraction | None, time_base: Fraction | None, alpha: float = 0.5
    ) -> None:
        _require_encoder()
        self.paths: list[Path] = []
        self._path = path
        self._alpha = alpha
        self._clock = Clock(fps, time_base)
        self._fps = fps or NOMINAL_FPS
        self._container: Any = None
        self._stream: Any = None
        self._failed = False
        self._closed = False

    def write(self, result: SegmentationResult) -> None:
        """Draw and encode one result."""
        image = _padded(result.overlay(self._alpha))
        try:
            if self._container is None:
                self._open(image.shape[0], image.shape[1])
            # OpenCV converts ten times as fast as swscale, by BT.601: the stream says so.
            planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
            frame = av.VideoFrame.from_ndarray(np.asarray(planes, np.uint8), format="yuv420p")
            frame.time_base = self._clock.tick
            frame.pts = self._clock.ticks(result.timestamp_s)
            self._mux(frame)
        except av.error.FFmpegError as error:
            self._failed = True
            raise self._failure(error) from error

    def close(self) -> None:
        """Flush the encoder and put the index in front; whatever fails, what is there plays."""
        if self._container is None or self._closed:
            return
        self._closed = True
        try:
            if not self._failed:
                self._mux(None)
        except av.error.FFmpegError as error:
            raise self._failure(error) from error
        finally:
            with contextlib.suppress(av.error.FFmpegError):
                self._container.close()
            self._finalise()

    def _open(self, height: int, width: int) -> None:
        make_folder(self._path.parent)
        fragments = {} if self._path.suffix.lower() == ".mkv" else _FRAGMENTS
        self._container = av.open(_url(self._path), "w", options=fragments)
        self.paths = [self._path]
        stream = self._container.add_stream(ENCODER, rate=self._fps, options=_ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = self._clock.tick
        # PyAV's default, threads over slices, is slower and compresses less.
        context.thread_type = "FRAME"
        context.colorspace, context.color_range = _BT601, _LIMITED
        context.color_primaries, context.color_trc = _BT709, _BT709
        self._stream = stream

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def _finalise(self) -> None:
        """Rewrite the fragments as a plain file with its index in front."""
        if self._path.suffix.lower() == ".mkv":
            return
        temporary = self._path.with_name(f".{secrets.token_hex(4)}.{self._path.name}")
        try:
            _rewrite(self._path, temporary)
            temporary.replace(self._path)
        except (av.error.FFmpegError, OSError):
            # No room for a second copy: the fragments play as they are.
            temporary.unlink(missing_ok=True)

    def _failure(self, error: Any) -> OutputError:
        return OutputError(
            f"cannot write {self._path}: {error.strerror or error}. Free space or choose another "
            "place; the file so far is complete"
        )


class Clock:
    """Exact timestamps for the written file.

    A tick divides both the frame step and the source's own tick where possible, so constant
    rates such as 30000/1001 and varying times are both kept without rounding.

    Args:
        fps: rate of the source.
        time_base: seconds per tick of the source's timestamps.
    """

    def __init__(self, fps: Fraction | None, time_base: Fraction | None) -> None:
        self._step = 1 / fps if fps else None
        self._source_tick = time_base
        self._last = -1
        self.tick = _tick(fps, time_base)

    def ticks(self, timestamp_s: float) -> int:
        """Timestamp in ticks, later than the one before."""
        time = Fraction(timestamp_s)
        if self._step is not None and self._source_tick is not None:
            on_grid = round(time / self._step) * self._step
            # Matroska rounds to milliseconds; less than a tick away from the grid means on it.
            if abs(time - on_grid) < self._source_tick:
                time = on_grid
        self._last = max(self._last + 1, round(time / self.tick))
        return self._last


def _tick(fps: Fraction | None, time_base: Fraction | None) -> Fraction:
    rate = (fps or NOMINAL_FPS).numerator
    if time_base is not None:
        both = math.lcm(rate, time_base.denominator)
        if both <= _MOST_TICKS:
            rate = both
    # Coarse ticks are made finer by a power of two, which keeps the frame step whole.
    return Fraction(1, rate << max(0, math.ceil(math.log2(_FINEST_TICKS / rate))))


def _padded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return image
    padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return np.asarray(padded, np.uint8)


def _url(path: Path) -> str:
    # FFmpeg takes what stands before a colon for a protocol.
    return f"file:{path}"


def _require_encoder() -> None:
    try:
        av.Codec(ENCODER, "w")
    except av.codec.codec.UnknownCodecError:
        raise OutputError(
            f"this PyAV has no {ENCODER}, the H.264 encoder. Install the wheel that has it: "
            "pip install --force-reinstall --only-binary av av"
        ) from None


def _rewrite(fragments: Path, target: Path) -> None:
    """Copy the packets into a plain file, the first one at time 0."""
    with (
        av.open(_url(fragments)) as source,
        av.open(_url(target), "w", options=_INDEX_IN_FRONT) as to,
    ):
        taken = source.streams.video[0]
        # PyAV 13 has the older of the two ways.
        copy = getattr(to, "add_stream_from_template", None)
        stream: Any = copy(taken) if copy else to.add_stream(template=taken)  # type: ignore[call-overload]
        for packet in source.demux(taken):
            if packet.dts is not None:
                packet.stream = stream
                to.mux(packet)
