"""Pictures of figures: of accuracy and training as PNG, of benchmarks as SVG for a page.

Nothing global is left behind: no pyplot, no window, no changed style. The same figures give the
same file.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from fasterseg.cache import write_atomic
from fasterseg.metrics import ConfusionMatrix

DPI: Final = 120
GREY: Final = "0.55"
FAINT: Final = 0.05
"""Percent below which a cell of a confusion matrix stays empty."""

NOT_LOSSES: Final = frozenset({"step", "images", "seconds", "images_per_s", "lr", "grad_norm"})
"""Numbers of a training's record that are no loss terms."""

Record = Mapping[str, Any]
P = ParamSpec("P")


def confusion_matrix(
    path: Path, counts: NDArray[np.integer[Any]], classes: Sequence[str], title: str
) -> None:
    """Draw a confusion matrix, each row in percent of its true class, with IoU and pixel share.

    Rows of classes that are not in the truth are grey; so is the IoU of classes never met at all.

    Args:
        path: PNG file to write.
        counts: (C, C) pixels; rows are the truth, columns the prediction.
        classes: the C names.
        title: a line or two above it.

    Raises:
        ValueError: counts and classes do not fit together.
        OutputError: the file cannot be written.
    """
    matrix = ConfusionMatrix.from_counts(counts)
    if matrix.num_classes != len(classes):
        raise ValueError(f"{len(classes)} names for {matrix.num_classes} classes")
    with mpl.rc_context():
        mpl.rcdefaults()
        side = 0.46 * len(classes)
        figure = Figure(figsize=(side + 3.4, side + 2.4), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, fontsize=11, loc="left", pad=12)
        _cells(axes, matrix)
        _margins(axes, matrix, classes)
        _save(figure, path)


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


def curves(path: Path, records: Iterable[Record], title: str) -> None:
    """Draw a training: loss terms, learning rate and val mIoU over the images seen.

    Notes (a run resumed with other settings, rolled back, ...) are thin numbered lines, with
    their text below.

    Args:
        path: PNG file to write.
        records: of a training's log, earliest first: each with "step", and "images" with loss
            terms and "lr", or "images" with "val", or "note".
        title: a line above it.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = list(records)
    notes = _notes(rows)
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = Figure(figsize=(9, 8 + 0.17 * len(notes)), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 3))
        panels[0].set_title(title, fontsize=11, loc="left", pad=16)
        _losses(panels[0], rows)
        _series(panels[1], rows, "lr", color="black", linewidth=1)
        panels[1].set_ylabel("learning rate")
        _scores(panels[2], rows)
        for axes in panels:
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        _mark(figure, panels, notes)
        _save(figure, path)


def _losses(axes: Axes, rows: Sequence[Record]) -> None:
    names = {name: None for row in rows if "total" in row for name in row if name not in NOT_LOSSES}
    for name in names:
        is_total = name == "total"
        _series(
            axes, rows, name, label=name, linewidth=1.6 if is_total else 1,
            **({"color": "black"} if is_total else {}),
        )  # fmt: skip
    axes.set_ylabel("loss")
    if names:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        columns = min(6, len(names))
        axes.legend(edgecolor="none", framealpha=0.9, fontsize=9, ncols=columns, loc="upper right")


def _scores(axes: Axes, rows: Sequence[Record]) -> None:
    scores = [(row["images"], row["val"]["miou"]) for row in rows if "val" in row]
    axes.set_ylabel("val mIoU, %")
    axes.set_xlabel("images seen")
    if scores:
        images, mious = zip(*scores, strict=True)
        axes.plot(images, mious, marker="o", markersize=3.5, color="tab:blue")
        best = max(range(len(mious)), key=mious.__getitem__)
        for at in sorted({best, len(mious) - 1}):
            axes.annotate(
                f"{mious[at]:.1f}", (images[at], mious[at]), xytext=(0, 6),
                textcoords="offset points", ha="center", fontsize=9,
            )  # fmt: skip
        axes.margins(y=0.12)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _series(axes: Axes, rows: Sequence[Record], name: str, **style: Any) -> None:
    found = [(row["images"], row[name]) for row in rows if name in row and "images" in row]
    if found:
        axes.plot(*zip(*found, strict=True), **style)


def _notes(rows: Sequence[Record]) -> list[tuple[float, str]]:
    """Images seen, as of the record before, and text of each note."""
    found = []
    # Notes carry their step only, and steps count anew when a resumed run changes its batch.
    images = 0.0
    for row in rows:
        images = row.get("images", images)
        if "note" in row:
            found.append((images, str(row["note"])))
    return found


def _mark(figure: Figure, panels: Sequence[Axes], notes: Sequence[tuple[float, str]]) -> None:
    """A numbered line for each note, and the texts under the panels."""
    for number, (images, _) in enumerate(notes, start=1):
        for axes in panels:
            axes.axvline(images, color=GREY, linewidth=0.7, linestyle="--", zorder=0)
        panels[0].annotate(
            str(number), (images, 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", fontsize=8, color=GREY,
        )  # fmt: skip
    if notes:
        texts = (f"{number}  {text}" for number, (_, text) in enumerate(notes, start=1))
        figure.supxlabel("\n".join(texts), x=0.01, ha="left", fontsize=8, color=GREY)


def _save(figure: Figure, path: Path) -> None:
    """Write a figure; nothing of the file depends on when or by which version it was written."""
    data = io.BytesIO()
    # Asking for a canvas by name keeps pyplot's choice of a window system out of it.
    FigureCanvasAgg(figure)
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    write_atomic(path, data.getvalue())


INK: Final = "#0f0e0d"
"""Stands for the page's own text colour until an SVG is written."""

_PAGE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fasterseg",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.2,
    **{
        f"{part}color": INK
        for part in ("axes.edge", "axes.label", "axes.title", "text.", "xtick.", "ytick.", "grid.")
    },
    **{f"boxplot.{part}props.color": INK for part in ("box", "whisker", "cap", "median")},
}


def _inline(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Make a drawing function give SVG for an HTML page, in the colours of the page's text."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        data = io.StringIO()
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_PAGE)
            figure = draw(*args, **kwargs)
            figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
        text = re.sub(r"<metadata>.*?</metadata>", "", data.getvalue(), flags=re.DOTALL)
        return text[text.index("<svg") :].replace(INK, "currentColor")

    return drawn


@_inline
def strips(groups: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str) -> Figure:
    """Distributions as boxes, a panel a group: group -> name -> 0th to 100th percentile.

    A box spans the middle half, its whiskers 1 to 99 %; the line is the median.
    """
    rows = [max(1, len(members)) for members in groups.values()]
    figure = Figure(figsize=(8.6, 0.9 * len(rows) + 0.34 * sum(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (group, members) in zip(panels, groups.items(), strict=True):
        boxes = [
            {"whislo": p[1], "q1": p[25], "med": p[50], "q3": p[75], "whishi": p[99]}
            for p in members.values()
        ]
        drawn = axes.bxp(boxes, orientation="horizontal", showfliers=False, patch_artist=True)
        for index, box in enumerate(drawn["boxes"]):
            box.set(facecolor=f"C{index % 10}", alpha=0.7)
        axes.set_yticks(range(1, len(members) + 1), list(members))
        axes.set_title(group, loc="left")
        axes.set_xlim(left=0)
        axes.invert_yaxis()
    panels[-1].set_xlabel(xlabel)
    return figure


@_inline
def lines(series: Mapping[str, Mapping[str, float]], ylabel: str) -> Figure:
    """Values over named steps, a line a series, on a logarithmic scale, each with its figure."""
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    steps = list(dict.fromkeys(step for values in series.values() for step in values))
    for name, values in series.items():
        points = [(steps.index(step), value) for step, value in values.items()]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
        for x, y in points:
            axes.annotate(f"{y:.3g}", (x, y), xytext=(4, 5), textcoords="offset points", fontsize=8)
    axes.set_xticks(range(len(steps)), steps)
    _logarithmic(axes, "y", ylabel)
    figure.legend(loc="outside right upper", frameon=False, labelcolor=INK)
    return figure


@_inline
def scatter(points: Sequence[tuple[str, float, float]], xlabel: str, ylabel: str) -> Figure:
    """Named points (name, x, y), x on a logarithmic scale."""
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, x, y) in enumerate(points):
        axes.plot([x], [y], marker="o", linestyle="", color=f"C{index % 10}", label=name)
        axes.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)
    axes.margins(0.25)
    _logarithmic(axes, "x", xlabel)
    axes.set_ylabel(ylabel)
    return figure


@_inline
def bars(rows: Mapping[str, Mapping[str, float]], xlabel: str) -> Figure:
    """Bars of stacked parts: row -> part -> length."""
    figure = Figure(figsize=(8.6, 0.8 + 0.27 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    for index, part in enumerate(parts):
        left = [sum(row.get(p, 0.0) for p in parts[:index]) for row in rows.values()]
        widths = [row.get(part, 0.0) for row in rows.values()]
        axes.barh(range(len(rows)), widths, left=left, color=f"C{index % 10}", label=part)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    if len(parts) > 1:
        figure.legend(loc="outside upper center", ncols=6, frameon=False, labelcolor=INK)
    return figure


def _logarithmic(axes: Axes, which: Literal["x", "y"], label: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log", f"{which}label": f"{label}, logarithmic"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
