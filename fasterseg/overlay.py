"""Colour a class map, blend it over a frame, draw class borders and the legend.

Colours and blends come from the native kernels where they are installed and from OpenCV elsewhere;
the bytes are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg import native
from fasterseg.errors import UsageError
from fasterseg.labels import LabelSet

_GROUND: Final = 24
_INK: Final = (235, 235, 235)
_HIGHEST_ROW: Final = 28
_LOWEST_ROW: Final = 15
"""Pixels of a legend's row: below this names cannot be read, and another column is opened."""


@dataclass(frozen=True, slots=True)
class OverlayStyle:
    """How an overlay is drawn.

    Attributes:
        alpha: opacity of the colours, from 0 (frame only) to 1 (colours only).
        contours: draw the borders between classes in full colour.
        legend: add columns of colours and class names at the right.

    Raises:
        UsageError: alpha is outside [0, 1].
    """

    alpha: float = 0.5
    contours: bool = False
    legend: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise UsageError(
                f"alpha is {self.alpha}; it is an opacity from 0 (none) to 1 (colours only)"
            )


def draw(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], labels: LabelSet, style: OverlayStyle
) -> NDArray[np.uint8]:
    """The overlay in the given style.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 train ids, of the same size.
        labels: gives palette and names.
        style: what is drawn.

    Returns:
        (H, W, 3) uint8 BGR, a new array; wider by the legend where there is one.
    """
    return Painter(labels, style)(image, mask)


class Painter:
    """Draws one overlay after the other into the same memory.

    A new array for each frame of a video costs more than a kernel's blend: the system has to
    clear its pages first.

    Args:
        labels: gives palette and names.
        style: what is drawn.
    """

    def __init__(self, labels: LabelSet, style: OverlayStyle) -> None:
        self._labels = labels
        self._style = style
        self._canvas: NDArray[np.uint8] = np.empty((0, 0, 3), np.uint8)
        self._picture = self._canvas

    def __call__(self, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw one overlay.

        Args:
            image: (H, W, 3) uint8 BGR.
            mask: (H, W) uint8 train ids, of the same size.

        Returns:
            (H, W, 3) uint8 BGR, wider by the legend where there is one; the next call writes
            over it.
        """
        if self._picture.shape != image.shape:
            self._resize(image.shape[0], image.shape[1])
        blend(image, mask, self._labels, self._style.alpha, self._picture)
        if self._style.contours:
            cv2.copyTo(colorize(mask, self._labels), borders(mask), self._picture)
        if self._style.legend:
            self._canvas[:, : image.shape[1]] = self._picture
        return self._canvas

    def _resize(self, height: int, width: int) -> None:
        self._picture = self._canvas = np.empty((height, width, 3), np.uint8)
        if self._style.legend:
            # Kernels write whole arrays only: the picture is drawn beside the canvas, and copied.
            self._canvas = np.hstack([self._picture, legend(self._labels, height)])


@lru_cache(maxsize=16)
def _bgr_table(labels: LabelSet) -> NDArray[np.uint8]:
    """(256, 3) BGR look-up table; ids outside the classes are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(labels)] = np.asarray(labels.palette, np.uint8)[:, ::-1]
    table.setflags(write=False)
    return table


def colorize(mask: NDArray[np.uint8], labels: LabelSet) -> NDArray[np.uint8]:
    """Paint a class map.

    Args:
        mask: (H, W) uint8 train ids; ids outside the classes become black.
        labels: gives the palette.

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    table = _bgr_table(labels)
    if _suits_kernels(mask):
        colours = np.empty((*mask.shape, 3), np.uint8)
        native.blend(None, mask, table, 1.0, colours)
        return colours
    return np.asarray(cv2.applyColorMap(mask, table[:, None]), np.uint8)


def blend(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    labels: LabelSet,
    alpha: float = 0.5,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Lay the painted class map over the frame.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 train ids, of the same size.
        labels: gives the palette.
        alpha: opacity of the colours, from 0 (frame only) to 1 (colours only).
        out: (H, W, 3) uint8 to write into, C-contiguous; by default a new array.

    Returns:
        (H, W, 3) uint8 BGR: `out`, or a new array.

    Raises:
        UsageError: `out` is of another shape or layout.
    """
    if out is None:
        out = np.empty(image.shape, np.uint8)
    if out.shape != image.shape or not out.flags.c_contiguous:
        raise UsageError(f"out has to be C-contiguous, of the shape {image.shape}")
    if _suits_kernels(image, mask):
        native.blend(image, mask, _bgr_table(labels), alpha, out)
    else:
        cv2.addWeighted(image, 1.0 - alpha, colorize(mask, labels), alpha, 0.0, dst=out)
    return out


def _suits_kernels(*arrays: NDArray[np.uint8]) -> bool:
    return native.info() is not None and all(array.flags.carray for array in arrays)


def borders(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where a class map has borders: pixels near one of another class, on both sides.

    Args:
        mask: (H, W) uint8 ids.

    Returns:
        (H, W) uint8, not 0 on a border; lines 2 pixels wide, 4 from a height of 1000 on.
    """
    reach = 5 if mask.shape[0] >= 1000 else 3
    around = np.ones((reach, reach), np.uint8)
    # Largest minus smallest id around a pixel: 0 exactly where all are the same.
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, around), np.uint8)


@lru_cache(maxsize=16)
def legend(labels: LabelSet, height: int) -> NDArray[np.uint8]:
    """Columns of colour patches with class names.

    Args:
        labels: names and palette.
        height: height in pixels; rows shrink to fit, then further columns are opened.

    Returns:
        (height, W, 3) uint8 BGR on a dark ground, W even; read-only.
    """
    row = min(_HIGHEST_ROW, max(_LOWEST_ROW, height / len(labels)), height)
    per_column = max(1, int(height / row + 1e-6))
    columns = [
        _legend_column(labels, range(first, min(first + per_column, len(labels))), height, row)
        for first in range(0, len(labels), per_column)
    ]
    joined = np.hstack(columns)
    joined.setflags(write=False)
    return joined


def _legend_column(labels: LabelSet, ids: range, height: int, row: float) -> NDArray[np.uint8]:
    scale = row / 42
    font = cv2.FONT_HERSHEY_SIMPLEX
    widest = max(cv2.getTextSize(labels.classes[i], font, scale, 1)[0][0] for i in ids)
    width = math.ceil(row * 1.8 + widest)
    width += width % 2
    column = np.full((height, width, 3), _GROUND, np.uint8)
    left, right = round(row * 0.25), round(row * 0.95)
    for place, index in enumerate(ids):
        red, green, blue = labels.palette[index]
        top = round(place * row)
        upper = top + min(2, int(row) // 4)
        lower = max(upper, round((place + 1) * row) - 3)
        cv2.rectangle(column, (left, upper), (right, lower), (blue, green, red), -1)
        origin = (round(row * 1.2), top + round(row * 0.68))
        cv2.putText(column, labels.classes[index], origin, font, scale, _INK, 1, cv2.LINE_AA)
    return column
