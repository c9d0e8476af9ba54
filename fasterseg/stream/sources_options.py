"""What a source can be told: which of its frames are taken, and what raw bytes mean."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, get_args

from fasterseg.errors import UsageError
from fasterseg.registry import unknown
from fasterseg.types import Size

RAW_FORMATS: Final = ("bgr24", "bgra", "gray", "nv12", "rgb24", "rgba", "yuv420p")
"""Pixel formats of raw video, by FFmpeg's names."""

Drop = Literal["auto", "none", "oldest"]
DROPS: Final[tuple[Drop, ...]] = get_args(Drop)
"""What happens to frames that come faster than they are taken.

`none`: the source waits (fill: wait; consume: lazily, every frame in order). `oldest`: one frame
waits, and the next one takes its place (fill: drop the oldest; consume: eagerly, the newest).
`auto`: `oldest` for what arrives at its own pace, `none` for everything else.
"""

DEFAULT_RAW_FPS: Final = Fraction(25)
MINIMUM_FPS: Final = Fraction(1, 86_400)
MAXIMUM_FPS: Final = 1000
LONGEST_WAIT_S: Final = 86_400.0
"""Other rates than a frame a day to 1000 a second are taken for a mistake."""

# Source times are rounded to their container's ticks (Matroska: 1 ms) and cameras jitter.
_SLOT_TOLERANCE: Final = 0.1
_CLOCK_TIME: Final = re.compile(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d*)?|\.\d+)")


@dataclass(frozen=True, slots=True)
class RawVideo:
    """Frames without a container: bytes of one size after another.

    Attributes:
        format: one of `RAW_FORMATS`; yuv420p and nv12 are BT.601, limited range.
        size: height and width in pixels; even for yuv420p and nv12.
        fps: frames per second; raw bytes carry no times.

    Raises:
        UsageError: an unknown format, an odd size where it must be even, a rate out of range.
    """

    format: str
    size: Size
    fps: Fraction = DEFAULT_RAW_FPS

    def __post_init__(self) -> None:
        if self.format not in RAW_FORMATS:
            raise UsageError(unknown("input format", self.format, list(RAW_FORMATS)))
        if self.format in ("nv12", "yuv420p") and (self.size.height % 2 or self.size.width % 2):
            raise UsageError(
                f"input size {self.size} (HxW) is odd; {self.format} has even sizes only"
            )
        _check_rate("input fps", self.fps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOptions:
    """Which frames of a source are taken; what is no frame rate or time is refused here.

    Attributes:
        stride: take every n-th frame.
        limit: take at most so many frames, over all loops; None: all.
        start_s: begin with the first frame at or after so many seconds; frames are counted and
            timed from there. Not for pictures.
        loop: read the source so many times; 0: for ever. For files only.
        max_fps: take at most so many frames per second of the source's time, evenly spread; the
            others are passed over, times stay as they are. Not for pictures.
        raw: the input is raw bytes of this kind.
        reconnect_attempts: how often in a row a live source that was lost is opened again; -1:
            for ever; None: the kind of source decides. Given, it holds for the first opening
            too. Not for files.
        reconnect_interval_s: pause before the first of these attempts; the next ones double.
        stall_s: a live source that gives no picture for so long is taken for lost.
        patient: the attempts given hold for the first opening too; otherwise it is one attempt,
            which may fail with `AbsentError`.
        drop: which frames are given up; see `DROPS`.
        pushed: results go to a server, which the attempts are about as well: a file, which needs
            none, does not refuse them.

    Raises:
        UsageError: a value that cannot be right.
    """

    stride: int = 1
    limit: int | None = None
    start_s: float = 0.0
    loop: int = 1
    max_fps: Fraction | None = None
    raw: RawVideo | None = None
    reconnect_attempts: int | None = None
    reconnect_interval_s: float = 1.0
    stall_s: float = 10.0
    drop: Drop = "auto"
    pushed: bool = False
    patient: bool = True

    def __post_init__(self) -> None:
        self._check_live()
        for option, value in (("stride", self.stride), ("limit", self.limit)):
            if value is not None and value < 1:
                raise UsageError(f"{option} is {value}; it must be 1 or more")
        if self.loop < 0:
            raise UsageError(f"loop is {self.loop}; it must be 1 or more, or 0 for ever")
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise UsageError(f"start is {self.start_s}; it is a time in seconds, 0 or later")
        if self.max_fps is not None:
            _check_rate("max fps", self.max_fps)

    def _check_live(self) -> None:
        if self.reconnect_attempts is not None and self.reconnect_attempts < -1:
            raise UsageError(
                f"reconnect attempts is {self.reconnect_attempts}; it must be 0 or more, or -1 "
                "for ever"
            )
        for option, seconds in (
            ("reconnect interval", self.reconnect_interval_s),
            ("stall timeout", self.stall_s),
        ):
            if not 0 < seconds <= LONGEST_WAIT_S:
                raise UsageError(
                    f"{option} is {seconds:g} s; it must be above 0 and at most {LONGEST_WAIT_S:g}"
                )
        if self.drop not in DROPS:
            raise UsageError(unknown("drop policy", self.drop, list(DROPS)))

    @property
    def first_attempts(self) -> int:
        """How often a live source that cannot be opened at first is opened again."""
        return (self.reconnect_attempts or 0) if self.patient else 0

    def attempts(self, usual: int) -> int:
        """How often one that was lost is opened again; `usual` is up to its kind."""
        return usual if self.reconnect_attempts is None else self.reconnect_attempts

    def rate(self, native: Fraction | None) -> Fraction | None:
        """Frames taken per second of a source that has `native`; None: unknown."""
        if native is None:
            return None
        taken = native / self.stride
        return taken if self.max_fps is None else min(taken, self.max_fps)

    def count(self, total: int, native: Fraction | None = None) -> int:
        """About how many of `total` frames, at `native` a second, are taken in one pass."""
        kept = -(-total // self.stride)
        rate = self.rate(native)
        if native and rate:
            kept = min(kept, math.ceil(total * rate / native))
        return kept if self.limit is None else min(kept, self.limit)

    def picker(self) -> Picker:
        """What decides frame by frame, for one pass."""
        return Picker(self.stride, self.max_fps)


class Picker:
    """Says which frames are taken, by number and time.

    A second is cut into `max_fps` slots and the first frame of each is taken: over any length of
    time exactly the rate asked for, where the source has that many.
    """

    def __init__(self, stride: int, max_fps: Fraction | None) -> None:
        self._stride = stride
        self._max_fps = None if max_fps is None else float(max_fps)
        self._slot = -1

    def wants(self, index: int, timestamp_s: float) -> bool:
        """Whether to take the frame of this number and this time."""
        if index % self._stride:
            return False
        if self._max_fps is None:
            return True
        slot = int(timestamp_s * self._max_fps + _SLOT_TOLERANCE)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True


def seconds_of(text: str) -> float:
    """Read a time: seconds (`12.5`), `MM:SS` or `HH:MM:SS`, each with a fraction if wanted.

    Raises:
        UsageError: it is none of them.
    """
    match = _CLOCK_TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is no time; write seconds (12.5), MM:SS or HH:MM:SS")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def rate_of(text: str) -> Fraction:
    """Read a frame rate: `25`, `29.97` or `30000/1001`.

    Raises:
        UsageError: it is none of them.
    """
    try:
        return Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"'{text}' is no frame rate; write 25, 29.97 or 30000/1001") from None


def raw_video(format: str | None, size: Size | None, fps: Fraction | None) -> RawVideo | None:
    """The options `--input-format`, `--input-size` and `--input-fps` together.

    Raises:
        UsageError: one is given without those it needs, or cannot be right.
    """
    if format is None:
        if size is not None or fps is not None:
            raise UsageError(
                "--input-size and --input-fps describe raw video: give --input-format too, such "
                "as bgr24. Anything in a container needs none of the three"
            )
        return None
    if size is None:
        raise UsageError("--input-format needs --input-size HxW: raw bytes do not tell their size")
    return RawVideo(format, size, DEFAULT_RAW_FPS if fps is None else fps)


def plausible_rate(fps: float | Fraction) -> bool:
    """Whether somebody may have meant this many frames per second."""
    return math.isfinite(fps) and MINIMUM_FPS <= fps <= MAXIMUM_FPS


def _check_rate(option: str, fps: Fraction) -> None:
    if not plausible_rate(fps):
        raise UsageError(f"{option} is {fps}; it must be above 0 and at most {MAXIMUM_FPS}")
