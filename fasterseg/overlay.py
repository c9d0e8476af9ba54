"""Colour a class map, blend it over a frame, draw class borders and the legend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

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
    drawn = blend(image, mask, labels, style.alpha)
    if style.contours:
        drawn = np.asarray(cv2.copyTo(colorize(mask, labels), borders(mask), drawn), np.uint8)
    if style.legend:
        drawn = np.hstack([drawn, legend(labels, mask.shape[0])])
    return drawn


@lru_cache(maxsize=16)
def _bgr_table(labels: LabelSet) -> NDArray[np.uint8]:
    """(256, 1, 3) BGR look-up table; ids outside the classes are black."""
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(labels), 0] = np.asarray(labels.palette, np.uint8)[:, ::-1]
    table.setflags(write=False)
    return table


def colorize(mask: NDArray[np.uint8], labels: LabelSet) -> NDArray[np.uint8]:
    """Paint a class map.

    Args:
        mask: (H, W) uint8 train ids; ids outside the classes become black.
        labels: gives the palette.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    return np.asarray(cv2.applyColorMap(mask, _bgr_table(labels)), np.uint8)


def blend(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], labels: LabelSet, alpha: float = 0.5
) -> NDArray[np.uint8]:
    """Lay the painted class map over the frame.

    Args:
        image: (H, W, 3) uint8 BGR.
        mask: (H, W) uint8 train ids, of the same size.
        labels: gives the palette.
        alpha: opacity of the colours, from 0 (frame only) to 1 (colours only).

    Returns:
        (H, W, 3) uint8 BGR, a new array.
    """
    colours = colorize(mask, labels)
    return np.asarray(cv2.addWeighted(image, 1.0 - alpha, colours, alpha, 0.0), np.uint8)


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
