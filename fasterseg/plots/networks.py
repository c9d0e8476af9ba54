"""Boxes and lines at given places, as SVG or PNG; what they mean is the caller's business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from fasterseg.plots.page import INK, page_figure

POINTS_PER_INCH: Final = 72

COLOURS: Final[Mapping[str, str]] = {
    "skip": "#9aa0a6",
    "conv": "#56b4e9",
    "conv_2x": "#0072b2",
    "conv_downup": "#e69f00",
    "conv_2x_downup": "#d55e00",
}
"""Kind of block -> fill, told apart by people with any colour vision; other kinds stay empty."""

_SHADE: Final = 0.38
"""Opacity of fills: text in the page's ink is legible on them on light and dark pages."""


@dataclass(frozen=True, slots=True)
class Block:
    """A rounded box with centred lines of text.

    Attributes:
        x: left edge, points from the left.
        y: upper edge, points from the top.
        width: in points.
        height: in points.
        lines: of text.
        kind: a key of `COLOURS`, or anything else for an empty box.
        dashed: whether its edge is; tells kinds apart where there are no colours.
    """

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    kind: str = ""
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A line with an arrow head at its end.

    Attributes:
        points: (x, y) it goes through.
        joints: where it leaves or meets others, marked by dots; where there are none, it crosses.
    """

    points: tuple[tuple[float, float], ...]
    joints: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Remark:
    """Text at a place.

    Attributes:
        x: points from the left.
        y: points from the top, of the base line.
        text: one line.
        size: of the font, in points.
        anchor: which part of the text is at x.
        bold: whether it is.
        faint: whether it stands back.
    """

    x: float
    y: float
    text: str
    size: float = 8.0
    anchor: Literal["left", "center", "right"] = "left"
    bold: bool = False
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Band:
    """A faint rectangle; upper left corner, width and height in points."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it.

    Attributes:
        width: in points.
        height: in points.
        blocks: in front of the routes.
        routes: lines between blocks.
        remarks: texts outside of blocks.
        bands: behind everything.
    """

    width: float
    height: float
    blocks: Sequence[Block]
    routes: Sequence[Route]
    remarks: Sequence[Remark]
    bands: Sequence[Band] = ()


def network_figure(picture: Picture) -> Figure:
    """The picture in its own size, black on white."""
    size = (picture.width / POINTS_PER_INCH, picture.height / POINTS_PER_INCH)
    figure = Figure(figsize=size)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.set_axis_off()
    for band in picture.bands:
        corner = (band.x, band.y)
        shape = Rectangle(corner, band.width, band.height, facecolor=INK, alpha=0.05, linewidth=0)
        axes.add_patch(shape)
    for route in picture.routes:
        _draw_route(axes, route)
    for block in picture.blocks:
        _draw_block(axes, block)
    for remark in picture.remarks:
        axes.text(
            remark.x, remark.y, remark.text, fontsize=remark.size, ha=remark.anchor, color=INK,
            weight="bold" if remark.bold else "normal", alpha=0.65 if remark.faint else 1.0,
        )  # fmt: skip
    return figure


def _draw_route(axes: Axes, route: Route) -> None:
    axes.plot(*zip(*route.points, strict=True), color=INK, linewidth=0.9, alpha=0.8)
    for x, y in route.joints:
        axes.plot([x], [y], marker="o", markersize=3, color=INK)
    axes.annotate(
        "", route.points[-1], xytext=route.points[-2],
        arrowprops={
            "arrowstyle": "-|>,head_length=0.28,head_width=0.14", "color": INK, "linewidth": 0.9,
            "alpha": 0.8, "shrinkA": 0, "shrinkB": 0,
        },
    )  # fmt: skip


def _draw_block(axes: Axes, block: Block) -> None:
    fill = COLOURS.get(block.kind)
    patch = FancyBboxPatch(
        (block.x, block.y), block.width, block.height, boxstyle="round,pad=0,rounding_size=3",
        facecolor=(fill, _SHADE) if fill else "none", edgecolor=fill or INK,
        linewidth=1.1, linestyle=(0, (3, 1.5)) if block.dashed else "solid",
    )  # fmt: skip
    axes.add_patch(patch)
    middle = block.y + block.height / 2
    for index, line in enumerate(block.lines):
        offset = (index - (len(block.lines) - 1) / 2) * 9.5
        axes.text(
            block.x + block.width / 2, middle + offset, line, fontsize=7.5 if not index else 6.5,
            ha="center", va="center", color=INK,
        )  # fmt: skip


network = page_figure(network_figure)
"""The picture as SVG for an HTML page."""
