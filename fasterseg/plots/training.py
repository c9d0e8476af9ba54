"""The course of a training as a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

GREY: Final = "0.55"
NOT_LOSSES: Final = frozenset({"step", "images", "seconds", "images_per_s", "lr", "grad_norm"})
"""Numbers of a training's record that are no loss terms."""

Record = Mapping[str, Any]


def curves_figure(records: Iterable[Record], title: str) -> Figure:
    """Draw the log of a training; see `fasterseg.plots.curves`."""
    rows = list(records)
    notes = _notes(rows)
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
    return figure


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
