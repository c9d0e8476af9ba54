"""Tiny real media files, a stand-in engine, and the check that no thread is left behind."""

from __future__ import annotations

import contextlib
import resource
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.labels import CAMVID, LabelSet
from fasterseg.runtime.base import EngineSpec
from fasterseg.stream.results import SegmentationResult
from fasterseg.types import Frame, Size

Image = NDArray[np.uint8]

NTSC = Fraction(30000, 1001)
LEVEL_STEP = 6
SIZE = Size(64, 96)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    left = [thread.name for thread in threading.enumerate() if "fasterseg" in thread.name]
    assert not left


def solid(colour: Sequence[int], size: Size = SIZE) -> Image:
    """A picture of one BGR colour."""
    return np.full((*size, 3), colour, np.uint8)


def numbered(count: int, size: Size = SIZE) -> list[Image]:
    """Grey pictures whose brightness tells their number; see `number_of`."""
    return [solid((16 + LEVEL_STEP * i,) * 3, size) for i in range(count)]


def number_of(image: Image) -> int:
    """Which of `numbered` this is, after any codec."""
    return round((float(image.mean()) - 16) / LEVEL_STEP)


def write_video(
    path: Path,
    pictures: Sequence[Image],
    rate: Fraction = Fraction(25),
    *,
    ticks: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """Encode pictures as H.264, at a constant rate or at the given ticks of `time_base`."""
    with av.open(str(path), "w", format=format, options=options or {}) as container:
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": "10", "bf": "0", "g": "1"}
        )
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if time_base is not None:
            stream.codec_context.time_base = time_base
        for index, picture in enumerate(pictures):
            # OpenCV rounds; swscale truncates, which shifts every value.
            planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = index if ticks is None else ticks[index]
            frame.time_base = time_base or 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_video(path: Path) -> tuple[list[Image], list[Fraction], Fraction]:
    """Pictures (BGR), their times in seconds, and the average rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        pictures = [np.asarray(frame.to_ndarray(format="bgr24"), np.uint8) for frame in frames]
        assert all(frame.pts is not None for frame in frames)
        base: Any = stream.time_base
        tick = Fraction(base.numerator, base.denominator)
        rate: Any = stream.average_rate
        return (
            pictures,
            [(frame.pts or 0) * tick for frame in frames],
            Fraction(rate.numerator, rate.denominator),
        )


def turn(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Set a, b, c, d of the display matrix in the track header of an MP4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 0x10000
    a, b, c, d = (value * one for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(data)


def write_picture(path: Path, image: Image) -> Path:
    """Write a picture file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def classes_of(image: Image) -> Image:
    """Ids 0 to 7 from the colours: what the stand-in engine answers."""
    high = image > 127
    return np.asarray(high[..., 0] + 2 * high[..., 1] + 4 * high[..., 2], np.uint8)


class StandIn:
    """An engine whose ids are `classes_of` the pixels; its buffer is reused, as it may be.

    Args:
        size: size of the frames it takes, None for any.
        train_size: what the default size follows from.
        on_run: called with the number of the run, from 0, before it answers.
    """

    def __init__(
        self,
        size: Size | None = SIZE,
        train_size: Size | None = None,
        on_run: Callable[[int], None] = lambda run: None,
    ) -> None:
        self.spec = EngineSpec(
            name="stand-in",
            labels=CAMVID,
            size=size,
            batch=1,
            precision="fp32",
            output="labels",
            genotype=None,
            train_size=train_size,
        )
        self.backend = "stand-in"
        self.device = "cpu"
        self.tail = "none"
        self.closed = 0
        self.runs = 0
        self._on_run = on_run
        self._buffers: dict[tuple[int, ...], Image] = {}

    def run(self, frames: Image) -> Image:
        self._on_run(self.runs)
        self.runs += 1
        assert frames.shape[0] == 1
        assert self.spec.size is None or frames.shape[1:3] == self.spec.size
        buffer = self._buffers.setdefault(frames.shape, np.empty(frames.shape[:3], np.uint8))
        buffer[0] = classes_of(frames[0])
        return buffer

    def close(self) -> None:
        self.closed += 1


def result_of(
    image: Image,
    index: int = 0,
    timestamp_s: float = 0.0,
    *,
    name: str = "",
    labels: LabelSet = CAMVID,
) -> SegmentationResult:
    """A result whose mask is `classes_of` the picture."""
    return SegmentationResult(
        classes_of(image), labels, Frame(image, index, timestamp_s, name=name)
    )


class FakeSource:
    """A source made of pictures, whose attributes a test may set.

    Args:
        pictures: what it gives, at 25 per second.
        on_frame: called with the number of a frame before it is given.
    """

    def __init__(
        self, pictures: Sequence[Image], on_frame: Callable[[int], None] = lambda number: None
    ) -> None:
        self.name = "fake"
        self.stem = "fake"
        self.kind: Any = "video"
        self.live = False
        self.fps: Fraction | None = Fraction(25)
        self.time_base: Fraction | None = Fraction(1, 12800)
        self.size: Size | None = Size(*pictures[0].shape[:2]) if pictures else None
        self.frame_count: int | None = len(pictures)
        self.files: tuple[Path, ...] = ()
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lost_frames = 0
        self.truncated = False
        self.closed = 0
        self.given = 0
        self._pictures = pictures
        self._on_frame = on_frame

    def __iter__(self) -> Iterator[Frame]:
        for index, picture in enumerate(self._pictures):
            self._on_frame(index)
            self.given += 1
            yield Frame(picture, index, index / 25, decode_ms=0.5)

    def close(self) -> None:
        self.closed += 1


@contextlib.contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: a full disk, but only for us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
