from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.operators import OpSpec, macs
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.begin import request_of
from fasterseg.bench.nominal import (
    DEVICE,
    Rates,
    is_nominal,
    nominal_table,
    operator_ms,
    same_times,
)
from fasterseg.bench.tables import STATISTICS, TableFile
from fasterseg.errors import FastersegError, MissingLatencyError, UsageError
from fasterseg.search.subnets import hand_baseline
from tests.shared import zoo_genotype
from tests.unit.bench.table_fakes import SIZE, SPACE, new_table


def table(path: Path, space: SearchSpace = SPACE, **options: object) -> TableFile:
    return nominal_table(space, SIZE, path / "table.json", **options)  # type: ignore[arg-type]


def test_the_longer_of_work_and_traffic_counts_and_a_fixed_time() -> None:
    heavy = OpSpec("conv", 64, 64, 1, 32, 32)
    maps, weights = 2 * 64 * 32 * 32, 9 * 64 * 64 + 2 * 64
    busy = Rates(macs_per_s=1e9, bytes_per_s=1e15, operator_ms=0.5)
    moved = Rates(macs_per_s=1e15, bytes_per_s=1e9, operator_ms=0.0)
    assert operator_ms(heavy, busy, "fp32") == pytest.approx(macs(heavy) / 1e6 + 0.5, abs=1e-5)
    assert operator_ms(heavy, moved, "fp32") == pytest.approx(4 * (maps + weights) / 1e6, abs=1e-5)
    assert operator_ms(heavy, moved, "fp16") == pytest.approx(2 * (maps + weights) / 1e6, abs=1e-5)


def test_what_changes_nothing_takes_no_time() -> None:
    assert operator_ms(OpSpec("skip", 64, 64, 1, 32, 32), Rates(), "fp32") == 0.0
    assert operator_ms(OpSpec("skip", 64, 32, 1, 32, 32), Rates(), "fp32") > 0.02


def test_every_network_of_the_space_has_a_price_and_wider_ones_a_higher_one(
    tmp_path: Path,
) -> None:
    file = table(tmp_path)
    assert file.missing(SPACE.specs(SIZE)) == []
    prices = file.table()
    narrow, wide = (hand_baseline(SPACE, "conv", width) for width in SPACE.widths)
    assert 0 < prices.price(plan(narrow, SIZE)).ms < prices.price(plan(wide, SIZE)).ms


def test_a_network_outside_the_space_can_be_priced_as_well(tmp_path: Path) -> None:
    student = zoo_genotype("fasterseg-student")
    with pytest.raises(MissingLatencyError):
        table(tmp_path).table().price(plan(student, SIZE))
    assert table(tmp_path, also=[student]).table().price(plan(student, SIZE)).ms > 0


def test_the_file_is_always_the_same_and_reads_back(tmp_path: Path) -> None:
    file = table(tmp_path)
    file.save()
    first = file.path.read_bytes()
    table(tmp_path).save()
    assert file.path.read_bytes() == first
    assert TableFile.load(file.path) == file
    assert LatencyTable.load(file.path).rows == file.table().rows


def test_it_says_that_nothing_was_measured(tmp_path: Path) -> None:
    file = table(tmp_path)
    file.save()
    assert is_nominal(TableFile.load(file.path))
    assert not is_nominal(new_table(tmp_path / "other.json"))
    for text in (str(file), str(file.table()), file.path.read_text(encoding="utf-8")):
        assert "nominal, nothing was measured" in text
    assert (file.measured_on, file.runs, file.nets, file.report) == ("", [], {}, None)


def test_it_is_refused_for_a_real_device_and_for_other_settings(tmp_path: Path) -> None:
    prices = table(tmp_path).table()
    prices.check(DEVICE.id, size=SIZE, precision="fp32", backend="formula")
    with pytest.raises(UsageError, match="measured with device nominal"):
        prices.check("h200")
    with pytest.raises(UsageError, match="precision fp32"):
        prices.check(DEVICE.id, precision="fp16")
    with pytest.raises(FastersegError, match="formula"):
        request_of(table(tmp_path)).resolved()


def test_rates_are_stored_and_change_prices(tmp_path: Path) -> None:
    slow = table(tmp_path, rates=replace(Rates(), macs_per_s=1e9))
    assert slow.conditions["macs_per_s"] == 1e9
    key = OpSpec("conv_2x", 16, 32, 2, 32, 64).key()
    assert slow.table().rows[key] > 5 * table(tmp_path).table().rows[key]


def test_one_time_stands_for_every_statistic() -> None:
    assert same_times(2.5) == {f"{statistic}_ms": 2.5 for statistic in STATISTICS}
