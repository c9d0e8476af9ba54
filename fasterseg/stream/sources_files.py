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

from fasterseg.errors import SourceError
from fasterseg.stream.sources import IMAGE_SUFFIXES, NUMBERED, Kind, refuse_timing, safe_stem
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.stream.sources_picture import FORMATS, is_animated_png, page_count, read_picture
from fasterseg.types import Frame, Size

MOST_WARNINGS: Final = 10
"""Pictures named one by one in the warnings; the rest is counted."""

_DIGITS: Final = re.compile(r"(\d+)")
_ANIMATIONS: Final = frozenset({".apng", ".gif"})
_LEFT_OUT: Final = "left out: "


class PictureSource:
    """A picture, a folder of pictures or a pattern, in natural order (`2.png` before `10.png`).

    See `FrameSource` for the attributes and `read_picture` for what becomes of unusual pixels.
    One unreadable picture among many, or an animation, is left out with a warning and counted as
    lost. `Frame.name` is the path relative to the folder that all pictures share.

    Raises:
        SourceError: there is no picture, or none that can be decoded.
        UsageError: an option that needs times.
    """

    def __init__(self, uri: str, options: SourceOptions = SourceOptions()) -> None:  # noqa: B008
        refuse_timing(uri, options)
        path = Path(uri).expanduser()
        self.warnings: list[str] = []
        listed = [path] if path.is_file() else _pictures(path, uri, self.warnings)
        self.files: tuple[Path, ...] = tuple(listed)
        self.kind: Kind = "image" if path.is_file() else "images"
        self._folder = Path(os.path.commonpath([file.absolute().parent for file in listed]))
        self.name = uri
        self.stem = safe_stem(path.stem if path.is_file() else self._folder.name or "images")
        self.live = False
        self.fps: Fraction | None = None
        self.time_base: Fraction | None = None
        self.frame_count: int | None = options.count(len(listed))
        self.notes: list[str] = []
        self.lost_frames = 0
        self.truncated = False
        self._frames = self._read(options)
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

    def _read(self, options: SourceOptions) -> Generator[Frame, None, None]:
        delivered = 0
        for index in range(0, len(self.files), options.stride):
            if delivered == options.limit:
                return
            started = time.perf_counter()
            path = self.files[index]
            try:
                if self.kind == "images" and is_animated_png(path):
                    raise SourceError(f"{path} is an animation; give it alone to read all of it")
                image = read_picture(path)
            except SourceError as error:
                self._leave_out(error)
                continue
            self._tell_pages(path)
            delivered += 1
            name = path.absolute().relative_to(self._folder).as_posix()
            decode_ms = (time.perf_counter() - started) * 1e3
            yield Frame(image, index, timestamp_s=0.0, name=name, decode_ms=decode_ms)

    def _leave_out(self, error: SourceError) -> None:
        self.lost_frames += 1
        if self.lost_frames <= MOST_WARNINGS:
            self.warnings.append(f"{_LEFT_OUT}{error}")
            return
        more = self.lost_frames - MOST_WARNINGS
        if more > 1:
            self.warnings.pop()
        self.warnings.append(f"{_LEFT_OUT}{more} more pictures that cannot be read")

    def _tell_pages(self, path: Path) -> None:
        if path.suffix.lower() in (".tif", ".tiff") and (pages := page_count(path)) > 1:
            self.warnings.append(f"{path} has {pages} pages; the first one is taken")

    def _undecodable(self) -> str:
        first = next(text for text in self.warnings if text.startswith(_LEFT_OUT))
        reason = first.removeprefix(_LEFT_OUT)
        if self.kind == "image":
            return reason
        return f"no picture of {self.name} can be decoded; the first one: {reason}"


def _pictures(path: Path, uri: str, warnings: list[str]) -> list[Path]:
    """The pictures of a folder or pattern, in natural order."""
    try:
        matches = path.iterdir() if path.is_dir() else _matches(path)
        found = [file for file in matches if file.is_file()]
    except OSError as error:
        reason = error.strerror or error
        raise SourceError(f"cannot list {uri}: {reason}; check its permissions") from error
    pictures = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
    if not pictures:
        raise SourceError(_no_pictures(path, uri, found))
    if animations := sum(file.suffix.lower() in _ANIMATIONS for file in found):
        warnings.append(
            f"{animations} animations (GIF, APNG) beside the pictures are not read; give each "
            "alone, as a video"
        )
    return sorted(pictures, key=natural_key)


def _matches(pattern: Path) -> Iterator[Path]:
    if NUMBERED.search(pattern.name):
        return _numbered(pattern)
    # Path.glob takes no absolute patterns.
    return map(Path, glob.glob(_escaped(pattern), recursive=True))  # noqa: PTH207


def _escaped(pattern: Path) -> str:
    """The pattern, its leading folders that exist under just this name taken literally."""
    literal = next((folder for folder in pattern.parents if folder.is_dir()), Path())
    return str(Path(glob.escape(str(literal))) / pattern.relative_to(literal))


def _numbered(pattern: Path) -> Iterator[Path]:
    """Files of a printf pattern, whatever number they start with and whether some are missing."""
    before, digits, after = NUMBERED.split(pattern.name, maxsplit=1)
    # printf: at least so many digits, filled with zeros; more where the number is larger.
    number = rf"\d{{{int(digits)}}}|[1-9]\d{{{int(digits)},}}" if digits else r"0|[1-9]\d*"
    before, after = (re.escape(text.replace("%%", "%")) for text in (before, after))
    name = re.compile(f"{before}(?:{number}){after}")
    if not pattern.parent.is_dir():
        return iter(())
    return (file for file in pattern.parent.iterdir() if name.fullmatch(file.name))


def _no_pictures(path: Path, uri: str, found: Sequence[Path]) -> str:
    what = f"folder {uri} holds no pictures" if path.is_dir() else f"no picture matches {uri}"
    if found:
        example = min(found, key=natural_key)
        return f"{what} ({FORMATS}). A video is given by its own path, for example {example}"
    return f"{what} ({FORMATS}). Give a folder or pattern that does"


def natural_key(path: Path) -> tuple[tuple[int, int | str], ...]:
    """Sort key that orders numbers in names by value."""
    parts = _DIGITS.split(str(path).casefold())
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)
