"""Bytes that come once: standard input, FIFOs, and raw frames without a container."""

from __future__ import annotations

import math
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import FastersegError, SourceError, UsageError
from fasterseg.stream.sources import STDIN, FrameSource, Kind, safe_stem
from fasterseg.stream.sources_live import LiveSource, Opening
from fasterseg.stream.sources_options import RawVideo, SourceOptions
from fasterseg.stream.sources_session import FrameConnection
from fasterseg.stream.sources_video import VideoSource
from fasterseg.types import Frame, Size

POLL_S: Final = 0.2
"""How soon a reader that waits for bytes sees that nobody wants them any more."""

_CHUNK: Final = 1 << 20
_EPSILON: Final = 1e-6

# Rows of bytes (H*k, W, C) per format, and what makes BGR of them.
_ROWS: Final[dict[str, tuple[Fraction, int]]] = {
    "bgr24": (Fraction(1), 3),
    "bgra": (Fraction(1), 4),
    "gray": (Fraction(1), 1),
    "nv12": (Fraction(3, 2), 1),
    "rgb24": (Fraction(1), 3),
    "rgba": (Fraction(1), 4),
    "yuv420p": (Fraction(3, 2), 1),
}
_TO_BGR: Final[dict[str, int]] = {
    "bgra": cv2.COLOR_BGRA2BGR,
    "gray": cv2.COLOR_GRAY2BGR,
    "nv12": cv2.COLOR_YUV2BGR_NV12,
    "rgb24": cv2.COLOR_RGB2BGR,
    "rgba": cv2.COLOR_RGBA2BGR,
    "yuv420p": cv2.COLOR_YUV2BGR_I420,
}


def open_pipe(uri: str, options: SourceOptions) -> FrameSource:
    """A container from standard input or a FIFO, as a video.

    Raises:
        SourceError: nothing comes, or it is no container that can be read without seeking.
        UsageError: an option that a pipe cannot follow; see `open_source`.
    """
    if not _is_live(options):
        return VideoSource(uri, options, Pipe(uri))
    return _live(uri, options, lambda whole, pipe: VideoSource(uri, whole, pipe))


def open_raw(uri: str, options: SourceOptions) -> FrameSource:
    """Raw frames from standard input, a FIFO or a file.

    Raises:
        SourceError: they cannot be read, or end within the first frame.
        UsageError: an option that they cannot follow; see `open_source`.
    """
    if not _is_live(options):
        return RawSource(uri, options)
    return _live(uri, options, lambda whole, pipe: RawSource(uri, whole, pipe))


def _is_live(options: SourceOptions) -> bool:
    return bool(options.reconnect_attempts) or options.drop == "oldest"


def _live(
    uri: str, options: SourceOptions, opener: Callable[[SourceOptions, Pipe], FrameSource]
) -> LiveSource:
    """Frames from a pipe that drops what nobody takes, or is opened again when it ends."""
    is_stdin = uri in STDIN
    if not is_stdin and not _is_fifo(uri):
        raise UsageError(
            f"--reconnect-attempts and --drop oldest are for pipes; {uri} is a file, of which "
            "every frame is read. Leave them out"
        )
    if is_stdin and options.reconnect_attempts:
        raise UsageError(
            "--reconnect-attempts opens a source again, and stdin comes only once; use a named "
            "pipe (mkfifo), or leave it out"
        )
    name = "stdin" if is_stdin else uri
    whole = SourceOptions(raw=options.raw)

    def connect(left: threading.Event) -> FrameConnection:
        return FrameConnection(opener(whole, Pipe(uri, left)))

    again = bool(options.reconnect_attempts)
    opening = Opening(
        name,
        safe_stem(name if is_stdin else Path(uri).stem),
        "video",
        connect,
        attempts=0,
        drops=False,
        stalls=again,
        tells_end=False,
        remedy="check the program that writes it",
    )
    return LiveSource(opening, options)


class Pipe:
    """Bytes in order from standard input, a FIFO or a file; a file object without `seek`.

    Reading waits for bytes as long as it takes, but not after `interrupt`, which another thread
    may call. PyAV drops exceptions of file objects: `check` raises what happened.

    Args:
        uri: `-` or a path. Opening a FIFO waits for its writer.
        left: nobody waits for bytes any more once this is set; with it, a FIFO is opened without
            waiting, and reading waits instead.

    Raises:
        SourceError: it cannot be opened, or is a terminal.
    """

    def __init__(self, uri: str, left: threading.Event | None = None) -> None:
        self.is_stdin = uri in STDIN
        self.name = "stdin" if self.is_stdin else uri
        self.bytes_read = 0
        self.is_live = left is not None
        self._left = left or threading.Event()
        self._error: BaseException | None = None
        self._fd: int | None = _stdin() if self.is_stdin else _opened(uri, waits=not self.is_live)

    @property
    def is_file(self) -> bool:
        """Whether it is the content of a regular file, where seeking is possible."""
        return self._fd is not None and stat.S_ISREG(os.fstat(self._fd).st_mode)

    def read(self, size: int) -> bytes:
        """At most so many bytes, empty at the end, after an interrupt, and after an error."""
        try:
            while not self._left.is_set() and self._error is None and self._fd is not None:
                if select.select([self._fd], [], [], POLL_S)[0]:
                    data = os.read(self._fd, size)
                    self.bytes_read += len(data)
                    return data
        except (OSError, ValueError, KeyboardInterrupt) as error:
            self._error = error
        return b""

    def read_exactly(self, size: int) -> bytearray:
        """So many bytes, fewer only at the end."""
        parts = []
        while size and (part := self.read(size)):
            parts.append(part)
            size -= len(part)
        return bytearray().join(parts)

    def skip(self, size: int) -> None:
        """Pass over so many bytes, or over all there are."""
        if self._fd is not None and self.is_file:
            os.lseek(self._fd, size, os.SEEK_CUR)
            return
        while size and (part := self.read(min(size, _CHUNK))):
            size -= len(part)

    def check(self) -> None:
        """Raise what interrupted reading.

        Raises:
            SourceError: the bytes cannot be read.
            KeyboardInterrupt: Ctrl-C while waiting for them.
        """
        if isinstance(self._error, KeyboardInterrupt):
            raise self._error
        if self._error is not None:
            raise SourceError(
                f"cannot read {self.name}: {self._error}. Check the program that writes it"
            )

    def interrupt(self) -> None:
        """Wake whoever waits for bytes; there will be none."""
        self._left.set()

    def close(self) -> None:
        """Close what was opened; standard input stays open."""
        fd, self._fd = self._fd, None
        if fd is not None and not self.is_stdin:
            os.close(fd)


class RawSource:
    """Raw frames of one size from standard input, a FIFO or a file; see `FrameSource`.

    Raises:
        SourceError: it cannot be read, or ends within the first frame.
    """

    def __init__(self, uri: str, options: SourceOptions, pipe: Pipe | None = None) -> None:
        assert options.raw is not None
        self._raw: RawVideo = options.raw
        self._pipe = pipe or Pipe(uri)
        self.name = self._pipe.name
        self.stem = safe_stem("stdin" if self._pipe.is_stdin else Path(uri).stem)
        self.kind: Kind = "video"
        self.live = False
        self.fps: Fraction | None = options.rate(self._raw.fps)
        self.time_base: Fraction | None = 1 / self._raw.fps
        named = self._pipe.is_file and not self._pipe.is_stdin
        self.files: tuple[Path, ...] = (Path(uri).expanduser(),) if named else ()
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.lost_frames = 0
        self.truncated = False
        rows, channels = _ROWS[self._raw.format]
        height, width = self._raw.size
        self._shape = (int(height * rows), width, channels)
        self.frame_count: int | None = self._expected(options)
        self._frames = self._read(options)
        try:
            self._first: Frame | None = next(self._frames, None)
            self._pipe.check()
            if self._first is None:
                raise self._nothing(options)
        except (FastersegError, KeyboardInterrupt):
            self.close()
            raise
        self.size: Size | None = self._first.size

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def interrupt(self) -> None:
        """Stop waiting for bytes; another thread may call it."""
        self._pipe.interrupt()

    def close(self) -> None:
        """Close the file."""
        self._pipe.close()

    @property
    def _frame_bytes(self) -> int:
        height, width, channels = self._shape
        return height * width * channels

    def _expected(self, options: SourceOptions) -> int | None:
        if not self.files:
            return None
        total = self.files[0].stat().st_size // self._frame_bytes
        begun = min(total, round(options.start_s * self._raw.fps))
        return options.count(total - begun, self._raw.fps)

    def _read(self, options: SourceOptions) -> Generator[Frame, None, None]:
        picker = options.picker()
        self._pipe.skip(self._frame_bytes * math.ceil(options.start_s * self._raw.fps - _EPSILON))
        delivered = index = 0
        while delivered != options.limit:
            started = time.perf_counter()
            data = self._pipe.read_exactly(self._frame_bytes)
            if len(data) < self._frame_bytes:
                self._end(len(data))
                return
            timestamp_s = float(index / self._raw.fps)
            if picker.wants(index, timestamp_s):
                image = self._image(data)
                decode_ms = (time.perf_counter() - started) * 1e3
                yield Frame(image, index, timestamp_s, decode_ms=decode_ms)
                delivered += 1
            index += 1

    def _image(self, data: bytearray) -> NDArray[np.uint8]:
        pixels: Any = np.frombuffer(data, np.uint8).reshape(self._shape)
        conversion = _TO_BGR.get(self._raw.format)
        if conversion is None:
            return np.asarray(pixels, np.uint8)
        return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)

    def _end(self, rest: int) -> None:
        self._pipe.check()
        if rest:
            self.truncated = True
            self.lost_frames += 1
            self.warnings.append(
                f"{self.name} ends within a frame: {rest} of {self._frame_bytes} bytes. It was cut "
                f"off, or its frames are not {self._raw.size} (HxW) {self._raw.format}"
            )

    def _nothing(self, options: SourceOptions) -> FastersegError:
        if options.start_s:
            return UsageError(f"--start {options.start_s:g} is after the end of {self.name}")
        if not self._pipe.bytes_read:
            return SourceError(f"{self.name} is empty (0 bytes); nothing was written into it")
        return SourceError(
            f"{self.name} holds {self._pipe.bytes_read} bytes, less than one frame of "
            f"{self._raw.size} (HxW) {self._raw.format}, {self._frame_bytes} bytes; check "
            "--input-size and --input-format"
        )


def _stdin() -> int:
    # None: the program was started with standard input closed.
    if sys.stdin is None or sys.stdin.closed:
        raise SourceError("standard input is closed; pipe a video into it: cat a.mkv | ... -")
    try:
        fd = sys.stdin.fileno()
    except (OSError, ValueError) as error:
        raise SourceError(f"standard input cannot be read: {error}") from error
    if os.isatty(fd):
        raise SourceError("standard input is a terminal; pipe a video into it: cat a.mkv | ... -")
    return fd


def _is_fifo(uri: str) -> bool:
    try:
        return stat.S_ISFIFO(Path(uri).expanduser().stat().st_mode)
    except OSError as error:
        raise _unreadable(uri, error) from error


def _opened(uri: str, *, waits: bool) -> int:
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | (0 if waits else os.O_NONBLOCK)
        fd = os.open(Path(uri).expanduser(), flags)
        os.set_blocking(fd, True)
        return fd
    except OSError as error:
        raise _unreadable(uri, error) from error


def _unreadable(uri: str, error: OSError) -> SourceError:
    return SourceError(f"cannot read {uri}: {error.strerror or error}; check name and permissions")
