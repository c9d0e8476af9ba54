"""One self-contained HTML page of records: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import jinja2

from fasterseg import plots
from fasterseg.bench.cells import Cell, Scope
from fasterseg.bench.interleave import Ratio, ratio
from fasterseg.bench.records import BenchRecord
from fasterseg.bench.scores import Score, paired

TEMPLATE: Final = "report.html.j2"
LAYERS: Final = 25
"""Operators that a plot shows by name, slowest first."""

_SCOPES: Final[Mapping[str, str]] = {
    "host_to_labels": "host to labels",
    "model": "model alone",
    "network": "network alone",
}


@dataclass(frozen=True, slots=True)
class RatioRow:
    """Times of one cell over those of another, round by round."""

    cell: Cell
    base: Cell
    scope: str
    ratio: Ratio


@dataclass(frozen=True, slots=True)
class Section:
    """What the page says of one record."""

    record: BenchRecord
    warnings: list[str]
    ratios: list[RatioRow]
    plots: list[tuple[str, str, str]]
    """Heading, what is to be seen, and the SVG."""


def page(records: Sequence[BenchRecord], scores: Sequence[Score] = ()) -> str:
    """The page.

    Args:
        records: in the order in which they are shown.
        scores: accuracies, plotted against the latency of the cells of the same engine.
    """
    pairs = paired(records, scores)
    points = [
        (f"{cell.title} {cell.size} on {score.data}", cell.host_to_labels.p50_ms, score.miou)
        for score, cell in pairs
    ]
    scatter = plots.scatter(points, "host to labels, p50 ms", "mIoU, %") if points else ""
    text = resources.files("fasterseg.bench").joinpath(TEMPLATE).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(ms=_ms, percent=_percent)
    return environment.from_string(text).render(
        sections=[_section(record) for record in records],
        accuracy=scatter,
        unmatched=[score for score in scores if score not in [s for s, _ in pairs]],
    )


def _section(record: BenchRecord) -> Section:
    drawn = [
        *_distributions(record.cells),
        *_speeds(record.cells),
        *_stages(record.cells),
        *(plot for cell in record.cells for plot in _layers(cell)),
    ]
    warnings = [
        f"{cell.title} {cell.size}: {warning}"
        for cell in record.cells
        for warning in cell.warnings
        if not warning.startswith("WRONG")
    ]
    return Section(
        record,
        warnings,
        ratios_of(record.cells),
        drawn,
    )


def ratios_of(cells: Sequence[Cell]) -> list[RatioRow]:
    """Cells of an interleaved run over the first one of their size and batch."""
    scopes: tuple[Scope, ...] = ("host_to_labels", "network")
    rows = []
    for cell in cells:
        base = next(c for c in cells if (c.size, c.batch) == (cell.size, cell.batch))
        rows += [
            RatioRow(cell, base, _SCOPES[scope], ratio(own, base.rounds_ms[scope]))
            for scope in scopes
            if base is not cell
            and (own := cell.rounds_ms.get(scope, ()))
            and scope in base.rounds_ms
        ]
    return rows


_Plots = list[tuple[str, str, str]]


def _distributions(cells: Sequence[Cell]) -> _Plots:
    """Host to labels of every cell, a panel a size."""
    groups: defaultdict[str, dict[str, Sequence[float]]] = defaultdict(dict)
    for cell in cells:
        if (values := cell.percentiles_ms.get("host_to_labels")) is not None:
            groups[str(cell.size)][cell.title] = values
    if not groups:
        return []
    note = "Box: the middle half of the calls. Whiskers: 1 to 99 %. Line: median."
    svg = plots.strips(groups, "host to labels, ms per call")
    return [("Latency distributions", note, svg)]


def _speeds(cells: Sequence[Cell]) -> _Plots:
    """Frames per second over size, a line an engine; over batches and streams likewise."""
    if len({cell.size for cell in cells}) < 2:
        return []
    series: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for cell in cells:
        series[cell.title][str(cell.size)] = cell.fps_host_to_labels
    note = "1000 x batch / p50 of host to labels; of several streams counted over all."
    return [("FPS by size", note, plots.lines(series, "frames per second"))]


def _stages(cells: Sequence[Cell]) -> _Plots:
    """Stages end to end, a bar an engine."""
    rows = {
        f"{cell.title} {cell.size}": {
            stage: stats.p50_ms for stage, stats in cell.end_to_end.stages.items()
        }
        for cell in cells
        if cell.end_to_end is not None
    }
    note = (
        "Medians per frame. Reading (decode, prepare), engine and writing (finish, write) run at "
        "the same time, so the slowest of the three decides the rate and not the sum."
    )
    svg = plots.bars(rows, "ms per frame") if rows else ""
    return [("End to end, by stage", note, svg)] if rows else []


def _layers(cell: Cell) -> _Plots:
    """The slowest operators of one cell."""
    if not cell.layers:
        return []
    slowest = sorted(cell.layers, key=lambda layer: layer.ms, reverse=True)
    # A name may come twice, so operators are told apart by their rank.
    rows = {
        f"{rank}. {layer.name[-48:]}": {layer.op: layer.ms}
        for rank, layer in enumerate(slowest[:LAYERS], start=1)
    }
    total = math.fsum(layer.ms for layer in slowest)
    rest = math.fsum(layer.ms for layer in slowest[LAYERS:])
    note = (
        f"Of {len(slowest)} operators the slowest {len(rows)}, by the runtime's profiler, which "
        f"costs time itself: {total:.2f} ms in all, {rest:.2f} ms in the others."
    )
    title = f"Time per operator: {cell.title}, {cell.size}"
    return [(title, note, plots.bars(rows, "ms"))]


def _ms(stats: Any) -> str:
    return "-" if stats is None else f"{stats.p50_ms:.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{math.floor(share * 1e5) / 1e3:.3f} %"
