from __future__ import annotations

from dataclasses import replace

import pytest

from fasterseg.bench.cells import Sharing
from fasterseg.bench.comparison import Basis, RatioSpread, check_regression, compare
from fasterseg.bench.records import BenchRecord
from fasterseg.bench.timing import FULL, QUICK
from fasterseg.errors import PerformanceError, UsageError
from fasterseg.types import LatencyStats, Size
from tests.unit.bench.test_records import CELL, RECORD

SHARING = Sharing(4, 2.5, 9, 0.75, LatencyStats.of([1.5]))


def test_ratios_are_of_medians_and_come_with_their_spread() -> None:
    faster = replace(CELL, host_to_labels=LatencyStats.of([20.0, 25.0, 33.0]))
    (ratio,) = compare(RECORD, replace(RECORD, cells=(faster,)))
    assert ratio.host_to_labels.p50 == 0.5
    assert ratio.host_to_labels.low == 0.5
    # The 90th percentiles are 58 and 31.4.
    assert ratio.host_to_labels.high == pytest.approx(31.4 / 58)
    assert ratio.model == RatioSpread(1.0, 1.0, 1.0)


def test_cells_pair_only_when_all_that_matters_is_the_same() -> None:
    small = replace(CELL, size=Size(64, 64))
    strangers = (
        replace(CELL, threads=None),
        replace(CELL, streams=4),
        replace(CELL, sharing=SHARING),
        replace(CELL, peer="STDC1"),
    )
    ratios = compare(
        replace(RECORD, cells=(small, CELL)), replace(RECORD, cells=(CELL, *strangers))
    )
    assert [(r.before, r.after) for r in ratios] == [(CELL, CELL)]


def test_shared_engines_pair_where_their_limits_are_the_same() -> None:
    shared = replace(CELL, streams=4, sharing=SHARING)
    fuller = replace(shared, sharing=replace(SHARING, mean_fill=1.0, batches=3))
    slower = replace(shared, sharing=replace(SHARING, max_delay_ms=50.0))
    own = replace(CELL, streams=4)
    (ratio,) = compare(
        replace(RECORD, cells=(shared,)), replace(RECORD, cells=(own, slower, fuller))
    )
    assert (ratio.before, ratio.after) == (shared, fuller)
    assert len({cell.title for cell in (own, shared, slower)}) == 3


def test_clocks_are_not_mixed() -> None:
    on_device = replace(RECORD, cells=(replace(CELL, model_clock="device"),))
    assert compare(RECORD, on_device)[0].model is None


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (replace(RECORD, device=replace(RECORD.device, id="h200")), "device"),
        (replace(RECORD, protocol=QUICK), "protocol"),
        (replace(RECORD, protocol=replace(FULL, min_runs=100)), "protocol"),
        (replace(RECORD, cells=(replace(CELL, precision="fp16"),)), "precision"),
    ],
)
def test_what_does_not_compare_is_refused(other: BenchRecord, field: str) -> None:
    with pytest.raises(UsageError, match=f"do not compare: {field} is"):
        compare(RECORD, other)


def test_records_without_a_common_cell_are_refused() -> None:
    with pytest.raises(UsageError, match="no cell"):
        compare(RECORD, replace(RECORD, cells=(replace(CELL, engine="torch"),)))


def test_cells_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="told apart"):
        compare(RECORD, replace(RECORD, cells=(CELL, CELL)))


def test_tails_tell_cells_apart_where_nothing_else_does() -> None:
    native = replace(CELL, tail="native-avx512")
    (only,) = compare(RECORD, replace(RECORD, cells=(native,)))
    assert (only.before, only.after) == (CELL, native)
    (same,) = compare(RECORD, replace(RECORD, cells=(native, CELL)))
    assert (same.before, same.after) == (CELL, CELL)
    assert CELL.title != native.title


@pytest.mark.parametrize(("basis", "slower"), [("wall", True), ("cpu", False)])
def test_regression_is_judged_by_the_times_asked_for(basis: Basis, slower: bool) -> None:
    later = replace(CELL, host_to_labels=LatencyStats.of([55.1]))
    ratios = compare(RECORD, replace(RECORD, cells=(later,)))
    check_regression(ratios, 11, basis)
    if slower:
        with pytest.raises(PerformanceError, match=r"512x1024 takes \+10.2%"):
            check_regression(ratios, 10, basis)
    else:
        check_regression(ratios, 0, basis)


def test_a_regression_of_cpu_time_needs_cpu_times() -> None:
    without = replace(RECORD, cells=(replace(CELL, host_to_labels_cpu=None),))
    with pytest.raises(UsageError, match="--cpu-time"):
        check_regression(compare(RECORD, without), 5, "cpu")
