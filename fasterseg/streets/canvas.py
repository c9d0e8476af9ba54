"""One picture and its label map; everything is painted into both by the same call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.light import Colour
from fasterseg.streets.texture import COVERED, Bytes, Texture, filled, rounded
from fasterseg.types import Size

SHIFT: Final = 4
"""Fractional bits of polygon corners."""

_HALO_PX: Final = 64
_PLAIN_PX: Final = 120
"""Surfaces within fewer pixels get one colour."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


def fixed(points: Floats) -> Ints:
    """(..., 2) pixel coordinates in OpenCV's fixed-point notation."""
    return np.rint(points * (1 << SHIFT)).astype(np.int32)


@lru_cache(maxsize=4)
def _air(size: Size, haze: Colour) -> Bytes:
    return filled(size.height, size.width, haze)


@lru_cache(maxsize=1)
def _halo() -> NDArray[np.float32]:
    axis = np.linspace(-1, 1, _HALO_PX, dtype=np.float32)
    radius = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    return np.asarray(np.clip(1 - radius, 0, 1) ** 2.2, np.float32)


def _homography(shape: tuple[int, ...], span: tuple[float, float], quad: Floats) -> Floats:
    """From a texture of that (height, width) to where the part `span` of it lies."""
    height, width = shape
    start, end = span[0] * width, span[1] * width
    # Pixel centres are whole numbers, so a texture spans from -0.5 to its size less 0.5.
    corners = np.array([[start, 0], [end, 0], [end, height], [start, height]]) - 0.5
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), quad.astype(np.float32))
    return np.asarray(matrix, np.float64)


class Canvas:
    """A picture in the making.

    Edges are hard in the label map; in the picture they are antialiased, up to a pixel outwards.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        labels: (H, W) uint8 class ids.
    """

    def __init__(self, size: Size, haze: Colour) -> None:
        self.size = size
        self._haze = haze
        self.image: Bytes = np.empty((*size, 3), np.uint8)
        self.labels: Bytes = np.full(size, 255, np.uint8)
        self._air = _air(size, haze)
        self._glow = _halo()

    def convex(self, corners: Ints, colour: Sequence[float], label: int) -> None:
        """Fill a convex polygon; `corners` as `fixed` makes them, (N, 2)."""
        cv2.fillConvexPoly(self.image, corners, colour, cv2.LINE_AA, SHIFT)
        cv2.fillConvexPoly(self.labels, corners, label, cv2.LINE_8, SHIFT)

    def regions(self, outlines: Sequence[Ints], colour: Sequence[float], label: int) -> None:
        """Fill any polygons that do not overlap each other."""
        if outlines:
            cv2.fillPoly(self.image, outlines, colour, cv2.LINE_AA, SHIFT)
            cv2.fillPoly(self.labels, outlines, label, cv2.LINE_8, SHIFT)

    def surface(
        self,
        texture: Texture,
        quad: Floats,
        span: tuple[float, float],
        haze: float,
        label: int,
    ) -> None:
        """Lay a texture, or a part of its width, on a quadrilateral.

        Args:
            texture: what to lay on it.
            quad: (4, 2) pixels: the part's top left, top right, bottom right, bottom left.
            span: left and right edge of the part, as shares of the texture's width.
            haze: share of haze, 0 to 1.
            label: class id.
        """
        window = self._window(quad)
        if window is None:
            return
        top, left, bottom, right = window
        if texture.solid and (bottom - top) * (right - left) < _PLAIN_PX:
            colour = texture.mean.mixed(self._haze, haze)
            self.convex(fixed(quad), rounded(colour), label)
            return
        step = quad[[1, 2, 3, 0]] - quad
        top_px, right_px, bottom_px, left_px = np.hypot(step[:, 0], step[:, 1]).tolist()
        along = max(top_px, bottom_px) / (span[1] - span[0])
        image, mask = texture.level(max(left_px, right_px), along)
        matrix = _homography(image.shape[:2], span, quad - (left, top))
        extent = (right - left, bottom - top)
        patch = cv2.warpPerspective(
            image, matrix, extent, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        stencil = np.zeros(extent[::-1], np.uint8)
        cv2.fillConvexPoly(stencil, fixed(quad - (left, top)), 255, cv2.LINE_8, SHIFT)
        if mask is not None:
            stencil &= cv2.warpPerspective(mask, matrix, extent, flags=cv2.INTER_LINEAR)
        self._press(np.asarray(patch, np.uint8), stencil, (top, left), haze, label)

    def sprite(self, texture: Texture, box: Floats, haze: float, label: int) -> None:
        """Lay an upright texture on a rectangle; `box` is (2, 2): top left, bottom right."""
        window = self._window(box)
        if window is None:
            return
        top, left, bottom, right = window
        spans = box[1] - box[0]
        image, mask = texture.level(spans[1], spans[0])
        scale_x, scale_y = spans[0] / image.shape[1], spans[1] / image.shape[0]
        matrix = np.array(
            [
                [scale_x, 0, box[0, 0] - left + scale_x / 2],
                [0, scale_y, box[0, 1] - top + scale_y / 2],
            ]
        )
        extent = (right - left, bottom - top)
        patch = cv2.warpAffine(
            image, matrix, extent, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        shape = np.full(image.shape[:2], 255, np.uint8) if mask is None else mask
        stencil = cv2.warpAffine(shape, matrix, extent, flags=cv2.INTER_LINEAR)
        self._press(
            np.asarray(patch, np.uint8), np.asarray(stencil, np.uint8), (top, left), haze, label
        )

    def shine(self, centre: Floats, radius: float, colour: Colour) -> None:
        """Add a halo of light, radius in pixels; the labels keep what is behind it."""
        box = np.stack([centre - radius, centre + radius])
        window = self._window(box)
        if window is None or radius < 0.7:
            return
        top, left, bottom, right = window
        scale = 2 * radius / _HALO_PX
        matrix = np.array(
            [[scale, 0, box[0, 0] - left + scale / 2], [0, scale, box[0, 1] - top + scale / 2]]
        )
        shape = cv2.warpAffine(self._glow, matrix, (right - left, bottom - top))
        light = np.multiply(shape[..., None], np.asarray(colour, np.float32))
        view = self.image[top:bottom, left:right]
        cv2.add(view, light.astype(np.uint8), dst=view)

    def _window(self, points: Floats) -> tuple[int, int, int, int] | None:
        """Top, left, bottom and right of the pixels a shape may touch, or None."""
        columns, rows = points.T.tolist()
        left, top = max(0, int(min(columns)) - 1), max(0, int(min(rows)) - 1)
        right = min(self.size.width, int(max(columns)) + 2)
        bottom = min(self.size.height, int(max(rows)) + 2)
        empty = right <= left or bottom <= top or max(columns) < 0 or max(rows) < 0
        return None if empty else (top, left, bottom, right)

    def _press(
        self, patch: Bytes, stencil: Bytes, corner: tuple[int, int], haze: float, label: int
    ) -> None:
        rows = slice(corner[0], corner[0] + patch.shape[0])
        columns = slice(corner[1], corner[1] + patch.shape[1])
        if haze > 0.02:
            air = self._air[rows, columns]
            cv2.addWeighted(patch, 1 - haze, air, haze, 0, dst=patch)
        opaque = stencil > COVERED
        cv2.copyTo(patch, opaque.view(np.uint8), self.image[rows, columns])
        np.copyto(self.labels[rows, columns], label, where=opaque)
