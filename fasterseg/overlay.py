"""Colour a class map, blend it over a frame, draw the legend."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.labels import LabelSet


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


def legend(labels: LabelSet, height: int) -> NDArray[np.uint8]:
    """A column of colour patches with class names.

    Args:
        labels: names and palette.
        height: height of the column in pixels; rows shrink to fit.

    Returns:
        (height, W, 3) uint8 BGR on a dark ground.
    """
    row = min(28, height / len(labels))
    scale = row / 42
    widest = max(
        cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] for name in labels.classes
    )
    width = int(row * 1.2 + widest + row * 0.6)
    width += width % 2
    column = np.full((height, width, 3), 24, np.uint8)
    for index, (name, (r, g, b)) in enumerate(zip(labels.classes, labels.palette, strict=True)):
        top = round(index * row)
        bottom = round((index + 1) * row)
        left = round(row * 0.25)
        right = round(row * 0.95)
        cv2.rectangle(column, (left, top + 2), (right, max(top + 2, bottom - 3)), (b, g, r), -1)
        baseline = top + round(row * 0.68)
        cv2.putText(
            column, name, (round(row * 1.2), baseline), cv2.FONT_HERSHEY_SIMPLEX, scale,
            (235, 235, 235), 1, cv2.LINE_AA,
        )  # fmt: skip
    return column
