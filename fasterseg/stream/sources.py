"""Where frames come from: `open_source` turns a path, pattern, URL, pipe or camera into frames."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

from fasterseg.errors import SourceError, UsageError
from fasterseg.registry import resolve
from fasterseg.stream.credentials import PLACEHOLDER
from fasterseg.stream.sources_options import SourceOptions
from fasterseg.types import Frame, Size

Kind = Literal["image", "images", "video", "camera"]

SOURCES: Final[Mapping[str, str]] = {
    "camera": "fasterseg.stream.sources_camera:open_camera",
    "gstreamer": "fasterseg.stream.sources_camera:open_gstreamer",
    "image": "fasterseg.stream.sources_files:PictureSource",
    "images": "fasterseg.stream.sources_files:PictureSource",
    "pipe": "fasterseg.stream.sources_pipe:open_pipe",
    "raw": "fasterseg.stream.sources_pipe:open_raw",
    "stream": "fasterseg.stream.sources_network:open_stream",
    "video": "fasterseg.stream.sources_video:VideoSource",
}
"""What a URI is -> what opens it, called as `(uri, SourceOptions) -> FrameSource`."""

IMAGE_SUFFIXES: Final = frozenset(
    {".avif", ".bmp", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)

STDIN: Final = frozenset({"-", "/dev/stdin"})
GSTREAMER: Final = "gst:"
CAMERA: Final = re.compile(r"(?:camera:|/dev/video)(\d+)")
_CAMERA_NAMES: Final = "/dev/v4l/"
NUMBERED: Final = re.compile(r"%(0\d+|)d")
"""The number in a printf pattern of files: `%d`, `%06d`."""

_LOCATORS: Final = re.compile(r"[^\s]*://[^\s]*")
_SCHEMES: Final = re.compile(r"(?<![A-Za-z0-9+.-])(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_LIVE_KINDS: Final = frozenset({"camera", "gstreamer", "pipe", "raw", "stream"})
_LONGEST_STEM: Final = 180


class FrameSource(Protocol):
    """Frames in order, once.

    The first frame is decoded when the source is opened, so that what cannot be read fails
    there and not after a model was loaded.

    Attributes:
        name: for people; without credentials and query of a URL.
        stem: what names of outputs start with.
        kind: one image, several images (sizes may differ), a video, or a camera.
        live: frames arrive at their own pace; those nobody takes in time are dropped.
        fps: frames delivered per second (after stride and maximum), exact; None where there is
            no rate.
        time_base: seconds per tick of the source's own timestamps; None where it has none.
        size: size of the first frame.
        frame_count: frames that will be delivered, an estimate; None when unknown.
        files: the files it reads; empty for URLs, pipes and cameras.
        notes: what is as it should be and yet worth knowing (sound is not copied), known when
            the source is open.
        warnings: what was skipped or mended so far, one sentence each.
        lost_frames: frames so far that could not be decoded, an estimate where nothing counts
            them.
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
    notes: list[str]
    warnings: list[str]
    lost_frames: int
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


def open_source(uri: str, options: SourceOptions = SourceOptions()) -> FrameSource:  # noqa: B008 - frozen
    """Open an image, a folder or pattern of images, a video, a URL, a pipe or a camera.

    Args:
        uri: `street.jpg`, `frames/`, `'frames/*.png'`, `frames/%06d.png`, `a.mp4`,
            `rtsp://...`, `http://...`, `camera:0` or `/dev/video0`, `'gst:... ! appsink'`, `-`
            for standard input. A file of exactly this name comes first. In URLs and pipelines
            `${NAME}` is filled in when they are opened, and never shown: see `credentials`.
        options: which frames are taken.

    Raises:
        SourceError: it does not exist, is of no known kind, or no frame of it can be decoded.
        UsageError: an option this source cannot follow, or a `${NAME}` without a value.
    """
    if uri.startswith("file://"):
        uri = uri.removeprefix("file://")
    kind = "raw" if options.raw else kind_of(uri)
    _check_live(kind, uri, options)
    opener = resolve(SOURCES, "source", kind)
    if options.loop == 1:
        source: FrameSource = opener(uri, options)
        return source
    from fasterseg.stream.sources_loop import LoopedSource

    once = replace(options, loop=1, limit=None)
    return LoopedSource(lambda: opener(uri, once), options.loop, options.limit)


def kind_of(uri: str) -> str:
    """Which entry of `SOURCES` opens this.

    Raises:
        SourceError: there is no such file, folder or match, or it is none that holds frames.
    """
    if uri in STDIN:
        return "pipe"
    if uri.startswith(GSTREAMER):
        return "gstreamer"
    if CAMERA.fullmatch(uri):
        return "camera"
    if "://" in uri:
        return _kind_of_url(uri)
    path = Path(uri).expanduser()
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        # What may come to be a device is a camera that is not plugged in.
        return "camera" if uri.startswith(_CAMERA_NAMES) else _kind_of_pattern(uri)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"cannot read {uri}: {reason}; check name and permissions") from error
    if stat.S_ISDIR(mode):
        return "images"
    if stat.S_ISREG(mode):
        return _kind_of_file(path)
    if stat.S_ISFIFO(mode):
        return "pipe"
    if CAMERA.fullmatch(os.path.realpath(path)):
        return "camera"
    raise SourceError(
        f"{uri} is a device or socket, which holds no frames. Give a file; cameras are camera:0 "
        "or /dev/video0, standard input is -"
    )


def _kind_of_url(uri: str) -> str:
    try:
        urlsplit(uri)
        is_url = True
    except ValueError:
        # The reason may repeat user and password.
        is_url = False
    if not is_url:
        raise SourceError(f"{redacted(uri)} is no URL; check the spelling of host and port")
    return "stream"


def _kind_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".png":
        from fasterseg.stream.sources_picture import is_animated_png

        return "video" if is_animated_png(path) else "image"
    return "image" if suffix in IMAGE_SUFFIXES else "video"


def _kind_of_pattern(uri: str) -> str:
    if any(sign in uri for sign in "*?[") or NUMBERED.search(uri):
        return "images"
    raise SourceError(
        f"no such input: {uri}. Give an image, a folder of images, a quoted pattern such as "
        "'frames/*.png' or frames/%06d.png, a video, a URL (rtsp://, http://), camera:0, or - for "
        "standard input"
    )


def redacted(uri: str) -> str:
    """The URI as it may be shown: a URL without `user:password@` and without its query.

    Passwords with signs that should have been escaped go as well, in doubt with parts of the path.
    What follows a space (RTMP's options, passwords among them) is left out.
    """
    if "://" not in uri:
        return uri
    shown = ""
    # FFmpeg takes several at once: concat:rtsp://...|rtsp://...
    for part in _SCHEMES.split(uri):
        scheme, sign, rest = part.partition("://")
        shown += scheme + sign + _without_secrets(rest)
        if re.search(r"[?#\s]", rest):
            break
    return shown


def _without_secrets(location: str) -> str:
    """Host and path of what follows `://`."""
    location = re.split(r"\s", location, maxsplit=1)[0]
    before_slash = location.partition("/")[0]
    authority = re.split(r"[/?#]", location, maxsplit=1)[0]
    port = authority.rpartition("]")[2].partition(":")[2]
    if "@" in before_slash:
        location = location[before_slash.rindex("@") + 1 :]
    elif port and not port.isdigit():
        location = location.rpartition("@")[2]
    path = re.split(r"[?#]", location, maxsplit=1)[0]
    # A password may hold slashes as well.
    return path.rpartition("@")[2] if port or "@" in before_slash else path


def redacted_text(text: str) -> str:
    """A text in which every URL is shown as `redacted` shows it."""
    return _LOCATORS.sub(lambda match: redacted(match[0]), text)


def stem_of(location: str) -> str:
    """What names of outputs start with: the file's name without its suffix."""
    path = PLACEHOLDER.sub(r"\1", urlsplit(location).path) if "://" in location else location
    return safe_stem(Path(path).stem)


def safe_stem(name: str) -> str:
    """A name that outputs can start with: valid UTF-8, with room for what is put behind it."""
    text = os.fsencode(name).decode(errors="replace")
    return text.encode()[:_LONGEST_STEM].decode(errors="ignore") or "stream"


def _check_live(kind: str, uri: str, options: SourceOptions) -> None:
    """Refuse what only makes sense for a source that is not simply read."""
    if kind in _LIVE_KINDS:
        return
    for option, given in (
        ("--reconnect-attempts", options.reconnect_attempts and not options.pushed),
        ("--drop oldest", options.drop == "oldest"),
    ):
        if given:
            raise UsageError(
                f"{option} is for cameras, streams and pipes; {uri} is a file, of which every "
                "frame is read. Leave it out"
            )


def refuse_timing(name: str, options: SourceOptions) -> None:
    """Refuse what pictures cannot do, which have no times.

    Raises:
        UsageError: a start or a maximum rate was asked for.
    """
    for option, given in (("--start", options.start_s), ("--max-fps", options.max_fps)):
        if given:
            raise UsageError(
                f"{option} needs times, and pictures such as {name} have none; leave it out, or "
                "use --stride and --limit"
            )
