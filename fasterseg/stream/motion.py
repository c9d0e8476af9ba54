"""Motion between two frames of a video: found, taken out of pictures, and applied to maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.types import Size

Bytes = NDArray[np.uint8]
Flow = NDArray[np.float32]
Follow = Callable[[Bytes, Bytes], Flow]
"""Two (h, w) grey pictures, then and now, to (h, w, 2): columns and rows that lead from each
pixel now to its place then."""

_FOLLOWED_PIXELS: Final = 512 * 512
"""Motion is sought in a picture shrunk to at most about so many pixels: that takes the time."""

_FEWEST_ROWS: Final = 48
"""OpenCV's search reads outside of pictures whose shorter side is much below that."""

_LEFT_OUT: Final[Any] = None
"""For arguments that OpenCV's type stubs demand although they may be left out."""

_THUMBNAIL: Final = (32, 32)
_CUT: Final = 0.3
"""Change of the thumbnail, against its contrast, that makes a new scene. Measured: at most 0.17
from frame to frame of five drives, 0.44 at the cut in one of them, 0.83 to 3.7 between them."""

_LEAST_CONTRAST: Final = 8.0


class DenseSearch:
    """Dense inverse search (Kroeger et al., ECCV 2016), OpenCV's fastest setting."""

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def __call__(self, before: Bytes, now: Bytes) -> Flow:
        """See `Follow`; no motion in pictures too small for it."""
        if min(now.shape) < _FEWEST_ROWS:
            return np.zeros((*now.shape, 2), np.float32)
        return np.asarray(self._search.calc(now, before, _LEFT_OUT), np.float32)


def shrunk(picture: Bytes) -> Bytes:
    """The (h, w) grey picture in which motion is sought, of an (H, W, 3) BGR one."""
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    factor = math.ceil(math.sqrt(height * width / _FOLLOWED_PIXELS))
    if factor > 1:
        size = (max(1, width // factor), max(1, height // factor))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def warped(before: Bytes, flow: Flow) -> Bytes:
    """The (h, w) picture before, its pixels where they are now."""
    places = _places(*before.shape, "float32") + flow
    edge = cv2.BORDER_REPLICATE
    return np.asarray(
        cv2.remap(before, places, _LEFT_OUT, cv2.INTER_LINEAR, borderMode=edge), np.uint8
    )


def carried(planes: Bytes, flow: Flow) -> Bytes:
    """Maps of the frame before, their pixels where they are now; zeros for those from outside.

    Args:
        planes: (H, W, 4) uint8.
        flow: (h, w, 2), of the shrunken picture.
    """
    size = Size(planes.shape[0], planes.shape[1])
    scale = np.array([size.width / flow.shape[1], size.height / flow.shape[0], 0, 0])
    # Whole pixels, one step for all that share a pixel of the small picture: labels cannot be
    # mixed, and 16-bit steps take a fraction of the time.
    steps = np.asarray(cv2.multiply(flow, scale, dtype=cv2.CV_16S), np.int16)
    places = cv2.add(enlarged(steps, size), _places(*size, "int16"))
    # Four bytes that pass for a number are fetched at once: half the time of four numbers.
    words = planes.view(np.float32)
    moved = cv2.remap(words, places, _LEFT_OUT, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(moved, np.float32).view(np.uint8).reshape(planes.shape)


def enlarged(small: NDArray[Any], size: Size) -> NDArray[Any]:
    """A map of the shrunken picture for all pixels of the whole one."""
    shape = (size.width, size.height)
    return np.asarray(cv2.resize(small, shape, interpolation=cv2.INTER_NEAREST), small.dtype)


def is_cut(before: Bytes, now: Bytes) -> bool:
    """Whether two (h, w) pictures, motion taken out, are of two scenes."""
    one, other = (
        np.asarray(cv2.resize(picture, _THUMBNAIL, interpolation=cv2.INTER_AREA), np.float64)
        for picture in (before, now)
    )
    contrast = max(_LEAST_CONTRAST, min(one.std(), other.std()))
    return bool(np.abs(one - other).mean() > _CUT * contrast)


@lru_cache(maxsize=8)
def _places(height: int, width: int, kind: str) -> NDArray[Any]:
    """(height, width, 2) column and row of every pixel."""
    grid = np.empty((height, width, 2), kind)
    grid[..., 0], grid[..., 1] = np.arange(width), np.arange(height)[:, None]
    grid.setflags(write=False)
    return grid
