"""Frames from picture files: one, a folder of them, or a pattern."""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.errors import SourceError
from fasterseg.stream.sources import IMAGE_SUFFIXES, Kind, expected_frames
from fasterseg.types import Frame, Size

_DIGITS: Final = re.compile(r"(\d+)")
_FORMATS: Final = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))

_LEFT_OUT: Final = "left out: "


class PictureSource:
    """A picture, a folder of pictures or a pattern, in natural order (`2.png` before `10.png`).

    See `FrameSource` for the attributes. The rotation stored in a JPEG (EXIF) is applied. One
    unreadable picture among many is left out with a warning. `Frame.name` is the path relative
    to the folder that all pictures share.

    Raises:
        SourceError: there is no picture, or none that can be decoded.
    """

    def __init__(self, uri: str, *, stride: int = 1, limit: int | None = None) -> None:
        path = Path(uri).expanduser()
        listed = [path] if path.is_file() else _pictures(path, uri)
        self.files: tuple[Path, ...] = tuple(listed)
        self.kind: Kind = "image" if path.is_file() else "images"
        self._folder = Path(os.path.commonpath([file.absolute().parent for file in listed]))
        self.name = uri
        self.stem = path.stem if path.is_file() else self._folder.name or "images"
        self.live = False
        self.fps: Fraction | None = None
        self.time_base: Fraction | None = None
        self.frame_count: int | None = expected_frames(len(listed), stride, limit)
        self.warnings: list[str] = []
        self.truncated = False
        self._frames = self._read(stride, limit)
        self._first: Frame | None = next(self._frames, None)
        if self._first is None:
            raise SourceError(self._undecodable())
        self.size: Size | None = self._first.size

    def __iter__(self) -> Iterator[Frame]:
        """The pictures, once."""
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def close(self) -> None:
        """Nothing is held open between pictures."""
        self._frames.close()

    def _read(self, stride: int, limit: int | None) -> Generator[Frame, None, None]:
        delivered = 0
        for index in range(0, len(self.files), stride):
            if delivered == limit:
                return
            started = time.perf_counter()
            try:
                image = read_picture(self.files[index])
            except SourceError as error:
                self.warnings.append(f"{_LEFT_OUT}{error}")
                continue
            delivered += 1
            name = self.files[index].absolute().relative_to(self._folder).as_posix()
            decode_ms = (time.perf_counter() - started) * 1e3
            yield Frame(image, index, timestamp_s=0.0, name=name, decode_ms=decode_ms)

    def _undecodable(self) -> str:
        reason = self.warnings[0].removeprefix(_LEFT_OUT)
        if self.kind == "image":
            return reason
        return f"no picture of {self.name} can be decoded; the first one: {reason}"


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Decode one picture; returns (H, W, 3) uint8 BGR, upright.

    Raises:
        SourceError: it cannot be read or is no picture OpenCV knows.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror or error}; check its permissions"
        ) from error
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise SourceError(f"{path} is too large for OpenCV: {error.err}; scale it down") from error
    if image is None:
        what = "is empty (0 bytes)" if not data.size else "is damaged or not a picture"
        raise SourceError(f"{path} {what}. Known formats: {_FORMATS}. Save it again as one of them")
    return np.asarray(image, np.uint8)


def _pictures(path: Path, uri: str) -> list[Path]:
    """The pictures of a folder or pattern, in natural order."""
    try:
        matches = path.iterdir() if path.is_dir() else map(Path, _matches(path))
        found = [file for file in matches if file.is_file()]
    except OSError as error:
        raise SourceError(f"cannot list {uri}: {error.strerror}; check its permissions") from error
    pictures = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
    if not pictures:
        raise SourceError(_no_pictures(path, uri, found))
    return sorted(pictures, key=natural_key)


def _matches(pattern: Path) -> list[str]:
    # Path.glob takes no absolute patterns.
    return glob.glob(str(pattern), recursive=True)  # noqa: PTH207


def _no_pictures(path: Path, uri: str, found: Sequence[Path]) -> str:
    what = f"folder {uri} holds no pictures" if path.is_dir() else f"no picture matches {uri}"
    if found:
        example = min(found, key=natural_key)
        return f"{what} ({_FORMATS}). A video is given by its own path, for example {example}"
    return f"{what} ({_FORMATS}). Give a folder or pattern that does"


def natural_key(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key that orders numbers in names by value."""
    parts = _DIGITS.split(str(path).casefold())
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)
