"""What decoders give -> what frames hold: upright BGR of one size, and times that only grow."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from fasterseg.stream.sources_picture import FirstSize

DEFAULT_STEP_S: Final = 1 / 25
"""Time between frames where nothing says it."""

SHORTEST_STEP_S: Final = 0.5e-3
LONGEST_GAP_S: Final = 86_400.0
_REORDERED_S: Final = 1.0

# Threads of PyAV 17 and later would take a core from stages that need it: one converts a
# full-HD picture in a millisecond.
_CONVERSION: Final[dict[str, Any]] = (
    {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}
)

_Turn = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
# Signs of a, b, c, d in the display matrix (x' = a x + c y, y' = b x + d y) -> what to do.
_TURNS: Final[dict[tuple[int, int, int, int], Callable[[Any], Any]]] = {
    (0, 1, -1, 0): lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    (-1, 0, 0, -1): lambda image: cv2.rotate(image, cv2.ROTATE_180),
    (0, -1, 1, 0): lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
    (-1, 0, 0, 1): lambda image: cv2.flip(image, 1),
    (1, 0, 0, -1): lambda image: cv2.flip(image, 0),
    (0, 1, 1, 0): cv2.transpose,
    (0, -1, -1, 0): lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
}


class Converter:
    """Decoded pictures -> (H, W, 3) uint8 BGR, upright, of the first one's size.

    Args:
        warnings: told when the size changes.
    """

    def __init__(self, warnings: list[str]) -> None:
        # One converter for all frames: each holds swscale tables of some megabytes.
        self._reformatter = VideoReformatter()
        self._fitted = FirstSize(warnings)
        self._turn: _Turn | None = None
        self._is_first = True

    def __call__(self, picture: Any) -> NDArray[np.uint8]:
        """Convert one picture.

        Raises:
            av.error.FFmpegError, ValueError: pixels that no converter knows.
        """
        converted = self._reformatter.reformat(picture, format="bgr24", **_CONVERSION)
        image: Any = converted.to_ndarray()
        if self._is_first:
            self._is_first = False
            self._turn = _turn_of(picture)
        if self._turn is not None:
            image = self._turn(image)
        return self._fitted(np.asarray(image, np.uint8))


class Timeline:
    """Timestamps of pictures -> seconds since the first one, each later than the one before.

    Pictures without a timestamp follow at the frame rate; where timestamps go back, (nearly)
    stand still or leap by more than a day (joined files, broken recorders), counting goes on from
    the last one.

    Args:
        rate: frames per second; None: unknown.
        time_base: seconds per tick.
        warnings: told when timestamps were mended.
    """

    def __init__(
        self, rate: Fraction | None, time_base: Fraction | None, warnings: list[str]
    ) -> None:
        self.step_s = float(1 / rate) if rate else DEFAULT_STEP_S
        self._time_base = time_base
        self._warnings = warnings
        self._first_pts: int | None = None
        self._shift_s = 0.0
        self._last_s: float | None = None
        self._warned = False

    def seek(self) -> None:
        """The next picture may come earlier than the last one; it counts from the same first."""
        self._last_s = None
        self._shift_s = 0.0

    def seconds(self, pts: int | None) -> float:
        """Time of the next picture."""
        follows_s = 0.0 if self._last_s is None else self._last_s + self.step_s
        if pts is None or self._time_base is None:
            self._last_s = follows_s
            return follows_s
        if self._first_pts is None:
            self._first_pts = pts
        declared_s = float((pts - self._first_pts) * self._time_base)
        time_s = declared_s + self._shift_s
        if self._last_s is not None and not self._is_step(time_s - self._last_s):
            # Pictures in the wrong order are near each other; anything else is another clock.
            if abs(time_s - self._last_s) > _REORDERED_S:
                self._shift_s = follows_s - declared_s
            time_s = follows_s
            self._warn(time_s)
        self._last_s = time_s
        return time_s

    def _is_step(self, seconds: float) -> bool:
        return SHORTEST_STEP_S <= seconds <= LONGEST_GAP_S

    def _warn(self, time_s: float) -> None:
        if not self._warned:
            self._warned = True
            self._warnings.append(
                f"timestamps go back, stand still or leap at {time_s:.2f} s; frames are counted "
                "on from there at the frame rate"
            )


def _turn_of(picture: Any) -> _Turn | None:
    """What makes the picture upright, from the container's display matrix."""
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None or len(bytes(matrix)) < 20:
        return None
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    return _TURNS.get((_sign(a), _sign(b), _sign(c), _sign(d)))


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
