"""A confusion matrix as a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fasterseg.metrics import ConfusionMatrix

GREY: Final = "0.55"
FAINT: Final = 0.05
"""Percent below which a cell of a confusion matrix stays empty."""


def matrix_figure(counts: NDArray[np.integer[Any]], classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix; see `fasterseg.plots.confusion_matrix`.

    Raises:
        ValueError: counts and classes do not fit together.
    """
    matrix = ConfusionMatrix.from_counts(counts)
    if matrix.num_classes != len(classes):
        raise ValueError(f"{len(classes)} names for {matrix.num_classes} classes")
    side = 0.46 * len(classes)
    figure = Figure(figsize=(side + 3.4, side + 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left", pad=12)
    _cells(axes, matrix)
    _margins(axes, matrix, classes)
    return figure


def _cells(axes: Axes, matrix: ConfusionMatrix) -> None:
    """The matrix itself, as numbers on colours."""
    truth = matrix.counts.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        percent = 100 * matrix.counts / truth
    # The square root keeps a confusion of a few percent visible beside a diagonal near 100.
    shades = mpl.colormaps["Blues"].with_extremes(bad="0.92")
    axes.imshow(np.ma.masked_invalid(np.sqrt(percent)), cmap=shades, vmin=0, vmax=10.5)
    for row, column in np.ndindex(percent.shape):
        value = percent[row, column]
        if value >= FAINT:
            axes.text(
                column, row, _number(value), ha="center", va="center", fontsize=8,
                color="white" if value > 35 else "black",
                weight="bold" if row == column else "normal",
            )  # fmt: skip


def _margins(axes: Axes, matrix: ConfusionMatrix, classes: Sequence[str]) -> None:
    """Names on both sides; columns with the IoU and the share of the pixels of each class."""
    count = len(classes)
    iou_at, share_at = count + 0.5, count + 2.0
    total = max(1, int(matrix.counts.sum()))
    for row, (iou, pixels) in enumerate(
        zip(matrix.per_class_iou, matrix.counts.sum(1), strict=True)
    ):
        scored = not math.isnan(iou)
        text, colour = (f"{100 * iou:.1f}", "black") if scored else ("absent", GREY)
        axes.text(iou_at, row, text, ha="center", va="center", fontsize=9, color=colour)
        share = 100 * pixels / total
        axes.text(share_at, row, f"{share:.2f}", ha="center", va="center", fontsize=9, color=GREY)
    axes.set_xlim(-0.5, count + 2.8)
    axes.set_xticks([*range(count), iou_at, share_at], [*classes, "IoU %", "% of pixels"])
    axes.tick_params(axis="x", rotation=45)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), list(classes))
    axes.tick_params(length=0, labelsize=9)
    axes.set_ylabel("truth")
    axes.set_xlabel(f"prediction, in % of the true class's pixels; empty: below {FAINT:g} %")
    axes.set_xticks(np.arange(-0.5, count), minor=True)
    axes.set_yticks(np.arange(-0.5, count), minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def _number(percent: float) -> str:
    """Two digits: `97`, `9.8`, `0.3`; 100 only where nothing is missing."""
    if percent < 9.95:
        return f"{percent:.1f}"
    return "100" if percent == 100 else f"{min(percent, 99.4):.0f}"
