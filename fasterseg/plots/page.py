"""Figures for an HTML page: SVG in the colours of the page's own text."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

P = ParamSpec("P")

INK: Final = "#0f0e0d"
"""Stands for the page's own text colour until an SVG is written."""

_PAGE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fasterseg",
    # Names that people gave are text, whatever dollar signs are in them.
    "text.parse_math": False,
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


def page_figure(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Make a drawing function give SVG for an HTML page, in the colours of the page's text."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        text = _svg(lambda: draw(*args, **kwargs), transparent=True)
        return text[text.index("<svg") :].replace(INK, "currentColor")

    return drawn


def standalone_svg(draw: Callable[[], Figure]) -> str:
    """A figure as the text of an SVG file, dark on white wherever it is shown."""
    return _svg(draw, transparent=False)


def _svg(draw: Callable[[], Figure], transparent: bool) -> str:
    """SVG that depends on nothing but the figure."""
    data = io.StringIO()
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_PAGE)
        figure = draw()
        figure.savefig(data, format="svg", transparent=transparent, metadata={"Date": None})
    return re.sub(r"<metadata>.*?</metadata>", "", data.getvalue(), flags=re.DOTALL)


@page_figure
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


@page_figure
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


@page_figure
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


@page_figure
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
