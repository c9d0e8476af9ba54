"""Videos with the source's timing: overlays that play everywhere, class maps without loss."""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
from fasterseg.types import Size

NOMINAL_FPS: Final = Fraction(25)
"""Rate announced for sources without one; timestamps are the source's all the same."""

_FINEST_TICKS: Final = 10_000
_MOST_TICKS: Final = 1_000_000
# While it is being written an MP4 is a row of self-contained fragments, and a Matroska file one of
# clusters, at most a second each: whatever ends the program, what is on the disk plays. Flushed:
# FFmpeg would hold back 256 kB, which is minutes of a picture that hardly changes.
_FRAGMENTS: Final = {
    "movflags": "frag_keyframe+delay_moov+default_base_moof",
    "frag_duration": "1000000",
    "flush_packets": "1",
}
_CLUSTERS: Final = {"cluster_time_limit": "1000", "flush_packets": "1"}
_THIN: Final = 3  # rows of an I420 array of a picture of two
_INDEX_IN_FRONT: Final = {"movflags": "faststart"}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How pictures become a video stream.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        options: its settings.
        pixel_format: what it is given.
        planes: drawn picture -> array in that format, as PyAV takes it; a second argument is an
            array given earlier that it may write over.
        thread_type: how it spreads over threads.
        colour: FFmpeg's numbers for matrix, range, primaries and transfer.
    """

    encoder: str
    options: Mapping[str, str]
    pixel_format: str
    planes: Callable[[NDArray[np.uint8], NDArray[np.uint8] | None], NDArray[np.uint8]]
    thread_type: str
    colour: Mapping[str, int]


def _yuv420(image: NDArray[np.uint8], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """OpenCV converts ten times as fast as swscale, by BT.601: the stream says so."""
    image = _padded(image)
    height, width = image.shape[:2]
    shape = (height * 3 // 2, width)
    if out is None or out.shape != shape:
        out = np.empty(shape, np.uint8)
    cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420, dst=out)
    return out


def _grey(image: NDArray[np.uint8], _: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image)


PLAYABLE: Final = Encoding(
    "libx264",
    # What of the slower presets saves most bytes for its time: arithmetic coding, B-frames at
    # fixed places, small intra blocks, the loop filter.
    {
        "preset": "ultrafast",
        "crf": "22",
        "x264-params": "cabac=1:no-deblock=0:8x8dct=1:bframes=3:b-adapt=0:partitions=i4x4,i8x8",
    },
    "yuv420p",
    _yuv420,
    # PyAV's default, threads over slices, is slower and compresses less.
    "FRAME",
    # Matrix of BT.601, limited range, primaries and transfer of BT.709.
    {"colorspace": 6, "color_range": 1, "color_primaries": 1, "color_trc": 1},
)
"""H.264 for people; odd sizes are padded by one edge pixel, because yuv420p has none.

On overlays of street scenes it takes about 0.3 of the CPU time of `COMPACT`, for files a
third larger of the same PSNR and SSIM; `benchmarks/end_to_end_profile.py` measures it.
"""

COMPACT: Final = replace(PLAYABLE, options={"preset": "veryfast", "crf": "20"})
"""The same for keeping: smaller files, three times the time."""

IDS: Final = Encoding(
    "ffv1",
    {"level": "3", "slicecrc": "1"},
    "gray",
    _grey,
    "SLICE",
    # Full range: no reader may stretch the values.
    {"color_range": 2},
)
"""Lossless 8-bit grey for class maps, at the exact size; every frame stands alone."""


class VideoSink:
    """Writes drawn results to an MP4, MOV or Matroska file, opened with the first result.

    Args:
        path: the file; its suffix chooses the container.
        fps: rate of the source.
        time_base: seconds per tick of the source's timestamps.
        draw: result -> (H, W, 3) uint8 BGR, or (H, W) uint8 for `IDS`.
        encoding: `PLAYABLE`, `COMPACT` or `IDS`.

    Raises:
        OutputError: the encoder is not there.
    """

    def __init__(
        self,
        path: Path,
        fps: Fraction | None,
        time_base: Fraction | None,
        draw: Callable[[SegmentationResult], NDArray[np.uint8]],
        encoding: Encoding = PLAYABLE,
    ) -> None:
        require_encoder(encoding.encoder)
        self.paths: list[Path] = []
        self._path = path
        # One name for all runs: what one leaves that was killed at its end, the next takes away.
        self._second_copy = path.with_name(f".completing.{path.name}")
        self._draw = draw
        self._encoding = encoding
        self._clock = Clock(fps, time_base)
        self._fps = fps or NOMINAL_FPS
        self._planes: NDArray[np.uint8] | None = None
        self._container: Any = None
        self._stream: Any = None
        self._packets = 0
        self._failed = False
        self._closed = False

    def write(self, result: SegmentationResult) -> None:
        """Draw and encode one result."""
        # The encoders have copied, or coded, a picture when they return: one array serves all.
        self._planes = self._encoding.planes(self._draw(result), self._planes)
        try:
            # FFmpeg refuses a borrowed frame of two rows; those of a copy are aligned.
            is_thin = self._planes.shape[0] <= _THIN
            make = av.VideoFrame.from_ndarray if is_thin else av.VideoFrame.from_numpy_buffer
            frame = make(self._planes, format=self._encoding.pixel_format)
            if self._container is None:
                self._open(frame.height, frame.width)
            self._refuse_other_size(frame, result.frame_index)
            frame.time_base = self._clock.tick
            frame.pts = self._clock.ticks(result.timestamp_s)
            self._mux(frame)
        except av.error.FFmpegError as error:
            self._failed = True
            raise self._failure(error.strerror or str(error)) from error

    def close(self) -> None:
        """Flush the encoder and put the index in front; whatever fails, what is there plays."""
        if self._container is None or self._closed:
            return
        self._closed = True
        try:
            if not self._failed:
                self._mux(None)
                # What is still buffered is written here: a full disk may show only now.
                self._container.close()
        except av.error.FFmpegError as error:
            self._failed = True
            raise self._failure(error.strerror or str(error)) from error
        finally:
            with contextlib.suppress(av.error.FFmpegError):
                self._container.close()
            kept = self._finalise()
        if kept < self._packets and not self._failed:
            # FFmpeg's MP4 writer keeps quiet about what it could not write at the end.
            raise self._failure(f"{self._packets - kept} frames at the end are missing")

    def _open(self, height: int, width: int) -> None:
        make_folder(self._path.parent)
        with contextlib.suppress(OSError):
            self._second_copy.unlink()
        fragments = _CLUSTERS if self._path.suffix.lower() == ".mkv" else _FRAGMENTS
        self._container = av.open(_url(self._path), "w", options=fragments)
        self.paths = [self._path]
        encoding = self._encoding
        options = dict(encoding.options)
        stream = self._container.add_stream(encoding.encoder, rate=self._fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixel_format
        context = stream.codec_context
        context.time_base = self._clock.tick
        context.thread_type = encoding.thread_type
        for field, value in encoding.colour.items():
            setattr(context, field, value)
        self._stream = stream

    def _refuse_other_size(self, frame: Any, index: int) -> None:
        first, size = (Size(of.height, of.width) for of in (self._stream, frame))
        if size != first:
            raise OutputError(
                f"frame {index} is {size} (HxW) after others of {first}: a video has one size; "
                "give a folder instead"
            )

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
            self._packets += 1

    def _finalise(self) -> int:
        """Rewrite the fragments as a plain file with its index in front; packets it holds."""
        if self._path.suffix.lower() == ".mkv":
            return self._packets
        try:
            copied = _rewrite(self._path, self._second_copy, 1 / self._fps)
            self._second_copy.replace(self._path)
        except (av.error.FFmpegError, OSError):
            # No room for a second copy: the fragments play as they are.
            self._second_copy.unlink(missing_ok=True)
            return _packets_of(self._path)
        return copied

    def _failure(self, reason: str) -> OutputError:
        return OutputError(
            f"cannot write {self._path}: {reason}. Free space or choose another place; the file "
            "so far plays"
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


def require_encoder(encoder: str) -> None:
    """Check that PyAV has an encoder.

    Raises:
        OutputError: it has not.
    """
    try:
        av.Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        raise OutputError(
            f"this PyAV has no encoder {encoder}. Install the wheel that has it: "
            "pip install --force-reinstall --only-binary av av"
        ) from None


def _packets_of(path: Path) -> int:
    """Packets of video in a file, as far as it can be read."""
    count = 0
    with contextlib.suppress(av.error.FFmpegError), av.open(_url(path)) as container:
        for packet in container.demux(video=0) if container.streams.video else ():
            count += packet.dts is not None and not packet.is_corrupt
    return count


def _rewrite(fragments: Path, target: Path, step: Fraction) -> int:
    """Copy the packets into a plain file, the first one at time 0; returns how many.

    Args:
        fragments: what was written.
        target: the new file.
        step: seconds a packet lasts that does not say it.
    """
    copied = 0
    with (
        av.open(_url(fragments)) as source,
        av.open(_url(target), "w", options=_INDEX_IN_FRONT) as to,
    ):
        if not source.streams.video:
            raise OSError(errno.EIO, "nothing was written yet")
        taken = source.streams.video[0]
        # PyAV 13 has the older of the two ways.
        copy = getattr(to, "add_stream_from_template", None)
        # Opaque: as it is. PyAV 14 would open an encoder, and write nothing.
        stream: Any = copy(taken, opaque=True) if copy else to.add_stream(template=taken)  # type: ignore[call-overload]
        for packet in source.demux(taken):
            # Corrupt: the fragments end in the middle of it.
            if packet.dts is not None and not packet.is_corrupt:
                # Before PyAV 16 none says it, and players then leave out the last one.
                packet.duration = packet.duration or round(step / packet.time_base)
                packet.stream = stream
                to.mux(packet)
                copied += 1
    return copied
