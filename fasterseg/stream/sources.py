"""Where frames come from: `open_source` turns a path, pattern, URL or camera into frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, Protocol

from fasterseg.errors import SourceError, UsageError
from fasterseg.registry import resolve
from fasterseg.types import Frame, Size

Kind = Literal["image", "images", "video", "camera"]

SOURCES: Final[Mapping[str, str]] = {
    "camera": "fasterseg.stream.sources_camera:CameraSource",
    "image": "fasterseg.stream.sources_files:PictureSource",
    "images": "fasterseg.stream.sources_files:PictureSource",
    "video": "fasterseg.stream.sources_video:VideoSource",
}
"""Kind of source -> class, called as `(uri, *, stride, limit)`."""

IMAGE_SUFFIXES: Final = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

CAMERA: Final = re.compile(r"(?:camera:|/dev/video)(\d+)")
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/\s]*@")


class FrameSource(Protocol):
    """Frames in order, once.

    The first frame is decoded when the source is opened, so that what cannot be read fails
    there and not after a model was loaded.

    Attributes:
        name: for people; without credentials and query of a URL.
        stem: what names of outputs start with.
        kind: one image, several images (sizes may differ), a video, or a camera.
        live: frames arrive at their own pace; those nobody takes in time are dropped.
        fps: frames delivered per second (after the stride), exact; None where there is no rate.
        time_base: seconds per tick of the source's own timestamps; None where it has none.
        size: size of the first frame.
        frame_count: frames that will be delivered, an estimate; None when unknown.
        files: the files it reads; empty for URLs and cameras.
        warnings: what was skipped or mended so far, one sentence each.
        truncated: the source ended before its declared end.
    """

    name: str
    stem: str
    kind: Kind
    live: bool
    fps: Fraction | None
    time_base: Fraction | None
    size: Size | None
    frame_count: int | None
    files: tuple[Path, ...]
    warnings: list[str]
    truncated: bool

    def __iter__(self) -> Iterator[Frame]:
        """The frames, in one pass; there is no second one.

        Raises:
            SourceError: a live source was lost.
        """
        ...

    def close(self) -> None:
        """Release file, connection or device; may be called twice."""
        ...


def open_source(uri: str, *, stride: int = 1, limit: int | None = None) -> FrameSource:
    """Open an image, a folder or pattern of images, a video file or URL, or a camera.

    Args:
        uri: `street.jpg`, `frames/`, `'frames/*.png'`, `a.mp4`, `rtsp://...`, `http://...`,
            `camera:0` or `/dev/video0`.
        stride: deliver every n-th frame.
        limit: deliver at most so many frames; None: all.

    Raises:
        SourceError: it does not exist, is of no known kind, or no frame of it can be decoded.
        UsageError: stride or limit is below 1.
    """
    for option, value in (("stride", stride), ("limit", limit)):
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}; it must be 1 or more")
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    source: FrameSource = resolve(SOURCES, "source", kind_of(uri))(uri, stride=stride, limit=limit)
    return source


def kind_of(uri: str) -> Kind:
    """Which entry of `SOURCES` opens this.

    Raises:
        SourceError: there is no such file, folder or match.
    """
    if CAMERA.fullmatch(uri):
        return "camera"
    if "://" in uri:
        return "video"
    path = Path(uri).expanduser()
    try:
        if path.is_dir():
            return "images"
        if path.exists():
            return "image" if path.suffix.lower() in IMAGE_SUFFIXES else "video"
    except OSError as error:
        raise SourceError(f"cannot read {uri}: {error.strerror}; check its permissions") from error
    if any(sign in uri for sign in "*?["):
        return "images"
    raise SourceError(
        f"no such input: {uri}. Give an image, a folder of images, a quoted pattern such as "
        "'frames/*.png', a video, a URL (rtsp://, http://) or camera:0"
    )


def redacted(uri: str) -> str:
    """The URI as it may be shown: a URL without `user:password@` and without its query."""
    if "://" not in uri:
        return uri
    return _CREDENTIALS.sub("", uri).partition("?")[0]


def expected_frames(total: int, stride: int, limit: int | None) -> int:
    """How many of `total` frames a stride and a limit leave."""
    kept = -(-total // stride)
    return kept if limit is None else min(kept, limit)
