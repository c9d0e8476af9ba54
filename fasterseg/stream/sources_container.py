"""Opening a container and believing what it declares only as far as it makes sense."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import av

from fasterseg.errors import SourceError
from fasterseg.stream.credentials import filled_in
from fasterseg.stream.sources_options import plausible_rate

if TYPE_CHECKING:
    from fasterseg.stream.sources_pipe import Pipe

NETWORK_TIMEOUT_S: Final = 10.0
LONGEST_S: Final = 1e7
"""Declared lengths above, some four months, are taken for damage."""

# PyAV before 19 refuses a whole file for one tag that is not UTF-8, unless told otherwise.
_METADATA: Final[dict[str, Any]] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)
_COVER_ART: Final = 0x0400
"""FFmpeg's AV_DISPOSITION_ATTACHED_PIC: the picture of an audio file."""

# FFmpeg draws plain text as a terminal would; nobody means that.
_TEXT_FORMATS: Final = frozenset({"adf", "bin", "idf", "tty", "xbin"})
_PICTURE_CONTAINERS: Final = frozenset({".heic", ".heif"})


def open_container(
    location: str, name: str, pipe: Pipe | None = None, *, stall_s: float | None = None
) -> Any:
    """Open a container for reading.

    Args:
        location: path, or URL in which `${NAME}` is still to be filled in.
        name: what it is called in messages.
        pipe: where the bytes come from instead of `location`.
        stall_s: how long to wait for more of a URL; None: as long as for the first of it.

    Raises:
        SourceError: it cannot be opened, is empty, or is no video.
        UsageError: a `${NAME}` without a value.
    """
    remote = "://" in location and pipe is None
    if not remote and pipe is None:
        _check_file(Path(location), name)
    timeout = (NETWORK_TIMEOUT_S, stall_s or NETWORK_TIMEOUT_S) if remote else None
    try:
        target = _address(location) if remote else _target(location, pipe)
        with unlogged(remote):
            container = _open(target, options=_network_options(location), timeout=timeout)
    except (av.error.InvalidDataError, av.error.EOFError):
        problem = not_a_video(name, pipe)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        remedy = "Check address, network and credentials" if remote else "Check its permissions"
        problem = f"cannot open {name}: {reason}. {remedy}"
    else:
        problem = ""
    if problem:
        _check_pipe(pipe)
        # Out here no other error hangs on it: FFmpeg's repeats the URL with its password.
        raise SourceError(problem)
    if container.format.name in _TEXT_FORMATS:
        container.close()
        raise SourceError(not_a_video(name, pipe))
    return container


def _open(target: Any, **options: Any) -> Any:
    container = av.open(target, **options, **_METADATA)
    if container.format.name == "image2" and container.size <= 0:
        # Taken for a file of a picture by its name; its reader wants to know how long it is.
        container.close()
        container = av.open(target, format="image2pipe", **options, **_METADATA)
    return container


def _address(location: str) -> str:
    """A URL as FFmpeg wants it; it holds secrets."""
    scheme, sign, rest = filled_in(location).partition("://")
    if scheme.lower().startswith("rtmp"):
        # FFmpeg turns %40 back into @ for every protocol but this one.
        authority, slash, path = rest.partition("/")
        user, at, host = authority.rpartition("@")
        rest = f"{unquote(user)}{at}{host}{slash}{path}"
    return f"{scheme}{sign}{rest}"


def _network_options(location: str) -> dict[str, str]:
    """FFmpeg's options for this kind of URL."""
    scheme = location.partition("://")[0].lower()
    if scheme in ("rtsp", "rtsps"):
        return {"rtsp_transport": "tcp"}
    if scheme.startswith("rtmp"):
        # FFmpeg would look out for sound that may yet come for much longer.
        return {"analyzeduration": "2000000"}
    # More than fits into its buffer costs a few pictures, and not the stream.
    return {"overrun_nonfatal": "1"} if scheme in ("udp", "udplite") else {}


@contextlib.contextmanager
def unlogged(remote: bool = True) -> Iterator[list[Any]]:
    """Keep back what FFmpeg logs in this thread, where somebody has it log: URLs with passwords.

    Yields:
        What was kept back so far; whoever stays inside for long must empty it.
    """
    if not remote or av.logging.get_level() is None:
        yield []
        return
    with av.logging.Capture() as logged:
        yield logged


def video_stream(container: Any, name: str) -> Any:
    """The first video stream that is no cover art.

    Raises:
        SourceError: there is none.
    """
    for stream in container.streams.video:
        disposition = getattr(stream, "disposition", 0)
        # A plain flag, which is no integer, in some versions of PyAV.
        if not getattr(disposition, "value", disposition) & _COVER_ART:
            return stream
    what = "only sound" if container.streams.audio else "no video"
    raise SourceError(f"{name} has {what} in it; give a file with a video stream")


def rate_of_stream(stream: Any) -> Fraction | None:
    """Frames per second, exact; None where nothing sensible is declared."""
    for declared in (stream.average_rate, stream.guessed_rate):
        rate = fraction_of(declared)
        if rate is not None and plausible_rate(rate):
            return rate
    return None


def fraction_of(value: Any) -> Fraction | None:
    """A positive rational as a fraction; None for anything else."""
    # Newer PyAV gives a rational of its own and 0 where older ones give None.
    if not value or not value.denominator:
        return None
    fraction = Fraction(value.numerator, value.denominator)
    return fraction if fraction > 0 else None


def declared_seconds(container: Any, stream: Any) -> float | None:
    """Declared length of the video; None where nothing believable declares one."""
    time_base = fraction_of(stream.time_base)
    if stream.duration and time_base:
        seconds = float(stream.duration * time_base)
    elif tag := stream.metadata.get("DURATION"):
        seconds = _matroska_seconds(tag)
    else:
        seconds = (container.duration or 0) / av.time_base
    return seconds if math.isfinite(seconds) and 0 < seconds <= LONGEST_S else None


def _matroska_seconds(tag: str) -> float:
    """Matroska's "00:01:02.345000000" in seconds; NaN for anything else."""
    try:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return math.nan


class _File(io.FileIO):
    """A file for PyAV, which never closes one: it closes when the container lets go of it."""

    def __del__(self) -> None:
        self.close()


def _check_file(path: Path, name: str) -> None:
    try:
        empty = path.is_file() and path.stat().st_size == 0
    except OSError as error:
        raise SourceError(f"cannot open {name}: {error.strerror}. Check its permissions") from error
    if empty:
        raise SourceError(f"{name} is empty (0 bytes); copy or record it again")
    if path.suffix.lower() in _PICTURE_CONTAINERS:
        raise SourceError(
            f"{name} is a HEIF picture, of which FFmpeg reads one tile only; save it as JPEG or PNG"
        )


def _target(location: str, pipe: Pipe | None) -> Any:
    if pipe is not None:
        # Redirected from a file (`< a.mp4`) it can seek, which some containers need.
        return sys.stdin.buffer if pipe.is_stdin and pipe.is_file else pipe
    try:
        # FFmpeg takes what stands before a colon for a protocol, in file names too.
        url = f"file:{location}"
        url.encode()
    except UnicodeEncodeError:
        # Not UTF-8, which PyAV takes for granted.
        return _File(os.fsencode(location))
    return url


def _check_pipe(pipe: Pipe | None) -> None:
    if pipe is None:
        return
    pipe.check()
    if not pipe.bytes_read and not pipe.is_file:
        raise SourceError(f"{pipe.name} is empty: it ended before the first byte was written")


def not_a_video(name: str, pipe: Pipe | None) -> str:
    """What to say of something that cannot be opened as a video."""
    if pipe is None:
        return (
            f"{name} is not a video FFmpeg can read, or it was cut off before its index was "
            "written. Check that it plays elsewhere, or record it again"
        )
    return (
        f"what comes through {name} is no video FFmpeg can read without seeking. An MP4 needs its "
        "index in front (ffmpeg -movflags faststart); Matroska and MPEG-TS always work; raw frames "
        "need --input-format, --input-size and --input-fps"
    )
