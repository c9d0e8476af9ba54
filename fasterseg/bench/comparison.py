"""Two records of the same device and protocol, cell by cell: ratios, and what got slower."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from fasterseg.bench.cells import Cell, CellKey
from fasterseg.bench.records import BenchRecord
from fasterseg.errors import PerformanceError, UsageError
from fasterseg.types import LatencyStats

Basis = Literal["wall", "cpu"]
BASES: Final[tuple[Basis, ...]] = ("wall", "cpu")


@dataclass(frozen=True, slots=True)
class RatioSpread:
    """Ratio of the same statistic of two series of times; below 1 the second is faster.

    Attributes:
        p50: of the medians: the ratio to quote.
        low: the smallest of those of minimum, median and 90th percentile.
        high: the largest of them.
    """

    p50: float
    low: float
    high: float

    @classmethod
    def of(cls, before: LatencyStats, after: LatencyStats) -> RatioSpread:
        """Compare two summaries."""
        ratios = [
            new / old
            for new, old in (
                (after.p50_ms, before.p50_ms),
                (after.min_ms, before.min_ms),
                (after.p90_ms, before.p90_ms),
            )
        ]
        return cls(ratios[0], min(ratios), max(ratios))


@dataclass(frozen=True, slots=True)
class CellRatio:
    """The same measurement in two records; ratios are of the second over the first."""

    before: Cell
    after: Cell

    @property
    def host_to_labels(self) -> RatioSpread:
        """Of `host_to_labels`."""
        return RatioSpread.of(self.before.host_to_labels, self.after.host_to_labels)

    @property
    def model(self) -> RatioSpread | None:
        """Of `model`; None unless both records have it from the same clock."""
        old, new = self.before, self.after
        if old.model is None or new.model is None or old.model_clock != new.model_clock:
            return None
        return RatioSpread.of(old.model, new.model)

    @property
    def cpu(self) -> RatioSpread | None:
        """Of the CPU time of `host_to_labels`; None unless both records have it."""
        old, new = self.before.host_to_labels_cpu, self.after.host_to_labels_cpu
        return None if old is None or new is None else RatioSpread.of(old, new)


def compare(before: BenchRecord, after: BenchRecord) -> list[CellRatio]:
    """Pair the cells two records share: all that `Cell.key` names is the same.

    Their tails may differ, unless one record has the same cell with two.

    Raises:
        UsageError: device, protocol or precisions differ, or no cell is shared: the ratio would
            not be one of speed.
    """
    for name, old, new in (
        ("device", before.device.id, after.device.id),
        ("protocol", before.protocol, after.protocol),
        ("precision", _precisions(before), _precisions(after)),
    ):
        if old != new:
            raise UsageError(
                f"these records do not compare: {name} is {old} in the first and {new} in the "
                "second. Measure both with the same"
            )
    by_tail = any(_repeats(record) for record in (before, after))
    old_cells, new_cells = _by_key(before, by_tail), _by_key(after, by_tail)
    shared = [CellRatio(old_cells[key], new_cells[key]) for key in old_cells if key in new_cells]
    if not shared:
        raise UsageError(
            "these records share no cell of the same engine, precision, size, batch, streams, "
            "threads and --share; measure both with the same options"
        )
    return shared


def check_regression(ratios: Iterable[CellRatio], percent: float, basis: Basis = "wall") -> None:
    """Refuse a second record that is slower.

    Args:
        ratios: of the cells both records have.
        percent: how much longer a call may take.
        basis: "wall": the median of `host_to_labels`; "cpu": that of its CPU time, which load
            on a shared machine hardly moves.

    Raises:
        PerformanceError: a cell takes longer than that; all such cells are named.
        UsageError: "cpu" was asked for and a record has no CPU times.
    """
    slower = []
    for ratio in ratios:
        spread = ratio.cpu if basis == "cpu" else ratio.host_to_labels
        if spread is None:
            raise UsageError(
                f"no CPU times of {ratio.after.title} {ratio.after.size} in both records; measure "
                "both with --cpu-time, or compare --by wall"
            )
        if spread.p50 > 1 + percent / 100:
            cell = ratio.after
            slower.append(f"{cell.title} {cell.size} takes {spread.p50 - 1:+.1%}")
    if slower:
        raise PerformanceError(
            f"slower than --max-regression {percent:g} % allows ({basis} time): "
            f"{'; '.join(slower)}. If other programs were running, measure again on an idle machine"
        )


def _precisions(record: BenchRecord) -> str:
    return ", ".join(sorted({cell.precision for cell in record.cells}))


def _repeats(record: BenchRecord) -> bool:
    return len({cell.key for cell in record.cells}) != len(record.cells)


def _by_key(record: BenchRecord, by_tail: bool) -> dict[tuple[CellKey, str], Cell]:
    """The cells, told apart by their tails where nothing else does."""
    cells = {(cell.key, cell.tail if by_tail else ""): cell for cell in record.cells}
    if len(cells) != len(record.cells):
        raise UsageError(
            f"the record of {record.created} holds the same engine, precision, size, batch, "
            "streams, threads, --share and tail twice, so its cells cannot be told apart; measure "
            "them in two runs"
        )
    return cells
