"""Figures of a search for an HTML page: what was found, how well it was predicted, its course."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fasterseg.plots.page import INK, page_figure

Points = Sequence[tuple[float, float]]

_MARKERS: Final = ("o", "x", "s", "^", "D", "v")
_TOLERANCE: Final = 0.10
"""Share of a measurement that counts as a good prediction; drawn as a band."""


@page_figure
def tradeoff(
    clouds: Mapping[str, Points],
    front: Points,
    marks: Mapping[str, Points],
    limits: Mapping[str, float],
    labels: tuple[str, str],
) -> Figure:
    """What networks cost and what they are worth.

    Args:
        clouds: name -> (cost, worth) of networks, one colour and marker each.
        front: those that no other one beats, cheapest first; a line.
        marks: name -> (cost, worth) of single networks, drawn large.
        limits: name -> cost that was asked for; an upright line.
        labels: of both axes.
    """
    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, points) in enumerate(clouds.items()):
        _scatter(axes, points, name, index, size=22, alpha=0.6)
    if front:
        axes.step(*zip(*front, strict=True), where="post", color=INK, linewidth=1, label="front")
    for index, (name, points) in enumerate(marks.items(), start=len(clouds)):
        x, y = zip(*points, strict=True)
        last = index == len(clouds) + len(marks) - 1
        axes.scatter(
            x, y, s=190 if last else 95, marker="*" if last else "o", label=name, zorder=3,
            facecolor=f"C{index % 10}" if last else "none", edgecolor=f"C{index % 10}",
            linewidth=1.4,
        )  # fmt: skip
    for name, cost in limits.items():
        axes.axvline(cost, color=INK, linewidth=1, linestyle="--")
        axes.annotate(
            name, (cost, 1), xycoords=("data", "axes fraction"), xytext=(-3, -3), rotation=90,
            textcoords="offset points", ha="right", va="top", fontsize=8,
        )  # fmt: skip
    axes.set(xlabel=labels[0], ylabel=labels[1])
    figure.legend(loc="outside right upper", frameon=False, labelcolor=INK)
    return figure


@page_figure
def agreement(groups: Mapping[str, Points], labels: tuple[str, str]) -> Figure:
    """Predictions over measurements: name -> (predicted, measured), both of one unit.

    The line is where they agree, the band where they differ by at most a tenth.
    """
    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, points) in enumerate(groups.items()):
        _scatter(axes, points, name, index, size=24, alpha=0.75)
    values = [value for points in groups.values() for point in points for value in point]
    ends = [0.9 * min(values), 1.1 * max(values)]
    axes.plot(ends, ends, color=INK, linewidth=1)
    low, high = ([end / (1 + sign * _TOLERANCE) for end in ends] for sign in (1, -1))
    axes.fill_between(ends, low, high, color=INK, alpha=0.08, linewidth=0)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=ends, ylim=ends)
    figure.legend(loc="outside right upper", frameon=False, labelcolor=INK)
    return figure


@page_figure
def courses(
    series: Mapping[str, Points],
    labels: tuple[str, str],
    limit: tuple[str, float] | None = None,
) -> Figure:
    """Values in the course of something: name -> (count, value), a line each.

    Args:
        series: the lines.
        labels: of both axes.
        limit: name and value of a line across.
    """
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for name, points in series.items():
        # Few points are seen as such; many would hide their line.
        marker = "o" if len(points) <= 40 else ""
        axes.plot(*zip(*points, strict=True), marker=marker, markersize=3.5, label=name)
    if limit is not None:
        axes.axhline(limit[1], color=INK, linewidth=1, linestyle="--", label=limit[0])
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    figure.legend(loc="outside right upper", frameon=False, labelcolor=INK)
    return figure


def _scatter(axes: Axes, points: Points, name: str, index: int, size: float, alpha: float) -> None:
    if points:
        x, y = zip(*points, strict=True)
        marker = _MARKERS[index % len(_MARKERS)]
        width = 1.2 if marker == "x" else 0
        axes.scatter(
            x, y, s=size, marker=marker, color=f"C{index % 10}", alpha=alpha, label=name,
            linewidths=width,
        )  # fmt: skip
