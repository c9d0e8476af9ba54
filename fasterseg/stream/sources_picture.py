"""One picture: any file OpenCV can decode -> BGR bytes, upright, and of which size."""

from __future__ import annotations

import contextlib
import itertools
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import SourceError
from fasterseg.stream.sources import IMAGE_SUFFIXES
from fasterseg.types import Size

FORMATS: Final = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_CONVERSIONS: Final = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}
_END_OF_IMAGE: Final = b"\xff\xd9"
_START_OF_SCAN: Final = b"\xff\xda"
_TAIL: Final = 4096
_16_TO_8_BITS: Final = 1 / 257


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode one picture; returns (H, W, 3) uint8 BGR, upright.

    Grey becomes three equal channels, transparency is dropped, palettes are looked up, CMYK is
    converted without its colour profile, 16 bits are divided by 257 and rounded, and the rotation
    stored in a JPEG (EXIF) is applied.

    Raises:
        SourceError: it cannot be read, is an animation, or no picture OpenCV knows.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror or error}; check its permissions"
        ) from error
    if not data.size:
        raise SourceError(f"{path} is empty (0 bytes); copy or record it again")
    _refuse_animation(data[:64].tobytes(), path)
    if _is_cut_off_jpeg(data):
        raise SourceError(f"{path} is damaged: it ends in the middle; copy it again")
    try:
        with silent_opencv():
            image: Any = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise SourceError(
            f"{path} cannot be decoded: {error.err or error.code}. If it is too large for OpenCV "
            "(2^30 pixels), scale it down"
        ) from error
    if image is None:
        raise SourceError(
            f"{path} is damaged or not a picture. Known formats: {FORMATS}, of 8 or 16 bits. Save "
            "it again as one of them"
        )
    return as_bgr(image, str(path))


def as_bgr(image: Any, name: str) -> NDArray[np.uint8]:
    """Any (H, W) or (H, W, C) array of 8 or 16 bits -> (H, W, 3) uint8 BGR.

    Raises:
        SourceError: other types or numbers of channels.
    """
    image = np.atleast_3d(np.asarray(image))
    channels = image.shape[2]
    if channels not in (1, 3, 4) or image.dtype not in (np.uint8, np.uint16):
        raise SourceError(
            f"{name} holds {channels} channels of {image.dtype}; convert it to grey, BGR or BGRA "
            "of 8 or 16 bits"
        )
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=_16_TO_8_BITS)
    if channels in _CONVERSIONS:
        image = cv2.cvtColor(image, _CONVERSIONS[channels])
    return np.ascontiguousarray(image, np.uint8)


class FirstSize:
    """Keeps the frames of a stream at the size of its first one; warns once."""

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings
        self._size: Size | None = None
        self._warned = False

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 of any size -> the first one's size."""
        size = Size(image.shape[0], image.shape[1])
        if self._size is None:
            self._size = size
        if size == self._size:
            return image
        if not self._warned:
            self._warned = True
            self._warnings.append(
                f"the frame size changes from {self._size} to {size} (HxW); frames are scaled to "
                f"{self._size}"
            )
        return np.asarray(cv2.resize(image, (self._size.width, self._size.height)), np.uint8)


def is_animated_png(path: Path) -> bool:
    """Whether a PNG announces an animation before its first picture; False if unreadable."""
    try:
        with path.open("rb") as file:
            if file.read(len(_PNG)) != _PNG:
                return False
            while len(head := file.read(8)) == 8:
                length, kind = struct.unpack(">I4s", head)
                if kind in (b"acTL", b"IDAT"):
                    return bool(kind == b"acTL")
                file.seek(length + 4, 1)
    except OSError:
        # Reading it as a picture says what is wrong.
        return False
    return False


def page_count(path: Path) -> int:
    """Pages of a classic TIFF, at most 1000; 1 for anything else, and if unreadable."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
            order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
            if order is None:
                return 1
            return max(1, sum(1 for _ in itertools.islice(_directories(file, head, order), 1000)))
    except (OSError, struct.error):
        return 1


def _directories(file: BinaryIO, head: bytes, order: str) -> Iterator[int]:
    """Positions of a TIFF's directories, one per page."""
    at = int(struct.unpack_from(f"{order}I", head, 4)[0])
    while at:
        yield at
        file.seek(at)
        entries = struct.unpack(f"{order}H", file.read(2))[0]
        file.seek(12 * entries, 1)
        at = int(struct.unpack(f"{order}I", file.read(4))[0])


class _Silence:
    """OpenCV's level of logging, of which a process has one: silent while anybody wants it so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = 0
        self._level = 0

    def begin(self) -> None:
        logging = cv2.utils.logging
        with self._lock:
            if not self._wanted:
                self._level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)
            self._wanted += 1

    def end(self) -> None:
        with self._lock:
            self._wanted -= 1
            if not self._wanted:
                cv2.utils.logging.setLogLevel(self._level)


_SILENCE: Final = _Silence()


@contextlib.contextmanager
def silent_opencv() -> Iterator[None]:
    """OpenCV says nothing on stderr meanwhile: what it found out is told by our own messages.

    Threads may do so at the same time; the last one to leave puts the old level back.
    """
    _SILENCE.begin()
    try:
        yield
    finally:
        _SILENCE.end()


def _is_cut_off_jpeg(data: NDArray[np.uint8]) -> bool:
    """Whether a JPEG lacks its end: some versions of OpenCV fill the rest with grey."""
    if data[:2].tobytes() != b"\xff\xd8" or _END_OF_IMAGE in data[-_TAIL:].tobytes():
        return False
    content = data.tobytes()
    return content.rfind(_END_OF_IMAGE) < content.rfind(_START_OF_SCAN)


def _refuse_animation(head: bytes, path: Path) -> None:
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20:21] and head[20] & 2:
        raise SourceError(
            f"{path} is an animated WebP, which FFmpeg cannot decode; save it as GIF or MP4"
        )
