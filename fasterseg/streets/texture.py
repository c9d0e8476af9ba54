"""Pictures that are laid on surfaces, with smaller copies for surfaces far away."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.light import Colour

Bytes = NDArray[np.uint8]

COVERED: Final = 100
"""Mask values above this are opaque; below a half, so that railings close up far away."""


class Texture:
    """A picture, its mask, and their reductions by powers of two along either axis.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8, 0 where nothing is, or None for a full rectangle.
    """

    def __init__(self, image: Bytes, mask: Bytes | None = None) -> None:
        self._levels: dict[tuple[int, int], tuple[Bytes, Bytes | None]] = {(0, 0): (image, mask)}

    @property
    def solid(self) -> bool:
        """Whether it covers its whole rectangle."""
        return self._levels[0, 0][1] is None

    @cached_property
    def mean(self) -> Colour:
        """Mean colour."""
        b, g, r = cv2.mean(self._levels[0, 0][0])[:3]
        return Colour(b, g, r)

    def level(self, height: float, width: float) -> tuple[Bytes, Bytes | None]:
        """The smallest reduction that is at least as big as `height` x `width` pixels."""
        image, mask = self._levels[0, 0]
        key = (_halvings(image.shape[0], height), _halvings(image.shape[1], width))
        if key not in self._levels:
            size = (max(1, image.shape[1] >> key[1]), max(1, image.shape[0] >> key[0]))
            small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            if mask is None:
                self._levels[key] = small, None
            else:
                shrunk = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
                self._levels[key] = small, np.asarray(shrunk, np.uint8)
        return self._levels[key]


def _halvings(have: int, need: float) -> int:
    return max(0, min(int(math.log2(have / max(need, 1.0))), int(math.log2(have))))


def filled(height: int, width: int, colour: Colour) -> Bytes:
    """(height, width, 3) of one colour."""
    return np.full((height, width, 3), rounded(colour), np.uint8)


def rounded(colour: Colour) -> tuple[int, int, int]:
    """The nearest colour with whole channels in 0 to 255."""
    b, g, r = (min(255, max(0, round(channel))) for channel in colour)
    return b, g, r


def mottled(rng: np.random.Generator, height: int, width: int, grain: float) -> NDArray[np.float32]:
    """Soft noise around 0, about -1 to 1, in patches of `grain` pixels; wraps round."""
    rows, columns = max(2, round(height / grain)), max(2, round(width / grain))
    coarse = rng.standard_normal((rows, columns)).astype(np.float32)
    padded = np.pad(coarse, 2, mode="wrap")
    zoomed = cv2.resize(
        padded,
        (round(width * (columns + 4) / columns), round(height * (rows + 4) / rows)),
        interpolation=cv2.INTER_CUBIC,
    )
    top, left = round(height * 2 / rows), round(width * 2 / columns)
    return np.asarray(zoomed[top : top + height, left : left + width] * 0.6, np.float32)


def textured(base: Bytes, noise: NDArray[np.float32], strength: float) -> Bytes:
    """`base` made lighter and darker by `noise`; `strength` is the change at noise 1."""
    gain = 1.0 + strength * noise[..., None]
    return np.clip(base * gain, 0, 255).astype(np.uint8)
