"""Whole networks against sums of rows: the fit, what is judged, and what is refused."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
from fasterseg.bench.calibrate import PASSES, judge, measure_nets, rejudge
from fasterseg.bench.draw import Draw, draw
from fasterseg.bench.ops import Progress, measure_rows
from fasterseg.bench.tables import TableFile
from fasterseg.bench.timing import TimingProtocol
from fasterseg.bench.whole import GROUP, time_together
from fasterseg.errors import MissingLatencyError, UnknownNameError, UsageError
from tests.unit.bench.table_fakes import SIZE, SPACE, Machine, Opened, ignore, new_table

FAST = TimingProtocol("row", warmup_runs=1, min_runs=3)
FRAMES = np.zeros((1, *SIZE, 3), np.uint8)
DRAWN = draw(SPACE, SIZE, 0, calibration=8, held_out=12)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TableFile:
    """A table with every row, and none of the networks."""
    file = new_table(tmp_path_factory.mktemp("rows") / "table.json")
    machine = Machine()
    measure_rows(file, SPACE.operators(SIZE), machine.open_graph, ignore, clocks=machine.clocks)
    return file


@pytest.fixture
def file(rows: TableFile, tmp_path: Path) -> TableFile:
    return replace(
        rows,
        path=tmp_path / "t.json",
        draw=DRAWN.to_json(),
        nets={},
        runs=[],
        rows=copy.deepcopy(rows.rows),
    )


def sums(file: TableFile, genotype: Genotype) -> tuple[float, int]:
    nodes = plan(genotype, SIZE).nodes
    times = file.times("inside", "p50")
    return sum(times[node.spec.key()] for node in nodes), len(nodes)


def linear(file: TableFile, genotype: Genotype) -> float:
    total, operators = sums(file, genotype)
    return 0.8 * total + 0.004 * operators + 0.05


def measure(file: TableFile, opened: Opened, drawn: Draw = DRAWN) -> int:
    clocks = opened.machine.clocks
    return measure_nets(file, drawn, opened, FRAMES, ignore, protocol=FAST, clocks=clocks)


def test_every_network_is_measured_twice_in_another_order(file: TableFile) -> None:
    opened = Opened(Machine(), lambda genotype: linear(file, genotype))
    assert measure(file, opened) == 0
    nets = {genotype.digest() for genotype in (*DRAWN.calibration, *DRAWN.held_out)}
    first, second = opened.digests[: len(nets)], opened.digests[len(nets) :]
    assert set(first) == set(second) == nets
    assert first != second
    assert all(len(passes) == PASSES for passes in file.nets.values())


def test_a_linear_machine_is_predicted_exactly_and_the_table_says_so(file: TableFile) -> None:
    measure(file, Opened(Machine(), lambda genotype: linear(file, genotype)))
    report = judge(file, DRAWN)
    assert report["error"] < 0.002  # rounding of the rows
    assert report["granularity"] == "inside"
    assert report["refusal"] is None
    assert report["repeat"]["mean"] == 0.0
    assert report["repeat"]["tau"] == 1.0
    assert report["constant"]["mean"] > 0.05
    assert report["held_out_nets"] == 12
    file.save()
    table = LatencyTable.load(file.path)
    for genotype in DRAWN.held_out:
        price = table.price(plan(genotype, SIZE)).ms
        assert price == pytest.approx(linear(file, genotype), rel=0.005)
    assert TableFile.load(file.path) == file


def test_the_raw_error_is_that_of_the_plain_sum(file: TableFile) -> None:
    measure(file, Opened(Machine(), lambda genotype: 2 * sums(file, genotype)[0]))
    report = judge(file, DRAWN)
    [entry] = [
        entry
        for entry in report["predictors"]
        if (entry["granularity"], entry["statistic"]) == ("inside", "p50")
    ]
    assert entry["raw"]["mean"] == pytest.approx(0.5, abs=0.001)
    assert entry["calibrated"]["mean"] < 0.001


def test_the_granularity_that_predicts_the_networks_of_the_fit_is_taken(file: TableFile) -> None:
    # Times of graphs of their own that nothing explains, but what the networks do.
    chance = random.Random(1)
    for row in file.rows.values():
        row["alone"] = {name: chance.uniform(0.01, 0.2) for name in row["alone"]}
    alone = file.times("alone", "p50")

    def due(genotype: Genotype) -> float:
        return sum(alone[node.spec.key()] for node in plan(genotype, SIZE).nodes)

    measure(file, Opened(Machine(), due))
    assert judge(file, DRAWN)["granularity"] == "alone"
    key = next(iter(file.rows))
    assert file.table().rows[key] == alone[key]


def test_cells_and_single_convolutions_are_judged_side_by_side(tmp_path: Path) -> None:
    space = replace(SPACE, ops=("conv", "conv_2x"))
    drawn = draw(space, SIZE, 0, calibration=8, held_out=12)
    file = replace(new_table(tmp_path / "t.json"), space=space, draw=drawn.to_json())
    machine = Machine()
    measure_rows(file, space.operators(SIZE), machine.open_graph, ignore, clocks=machine.clocks)
    for key, row in file.rows.items():
        # A cell of two convolutions is fused here: it takes no longer than one, whatever else.
        double = key.startswith("conv_2x")
        row["inside"] = {name: 0.1 if double else ms for name, ms in row["inside"].items()}
    measure(file, Opened(Machine(), lambda genotype: linear(file, genotype)), drawn)
    report = judge(file, drawn)
    assert report["error"] < 0.002
    assert report["singles"]["mean"] > 5 * report["error"]


def test_a_fit_above_the_limit_is_not_kept_but_told(file: TableFile) -> None:
    chance = random.Random(0)
    due = {g.digest(): chance.uniform(0.1, 3) for g in (*DRAWN.calibration, *DRAWN.held_out)}
    measure(file, Opened(Machine(), lambda genotype: due[genotype.digest()]))
    report = judge(file, DRAWN)
    assert report["error"] > 0.1
    assert report["refusal"]
    assert file.calibration is None
    assert file.report == report
    assert not all(report["goals"].values())


def test_a_fit_that_turns_the_order_round_is_not_kept(file: TableFile) -> None:
    def due(genotype: Genotype) -> float:
        return 20.0 - sums(file, genotype)[0]

    measure(file, Opened(Machine(), due))
    assert "slower rows would make faster networks" in judge(file, DRAWN)["refusal"]
    assert file.calibration is None


def test_networks_that_are_there_are_not_measured_again(file: TableFile) -> None:
    machine = Machine()
    opened = Opened(machine, lambda genotype: linear(file, genotype))
    seen: list[Progress] = []
    left = measure_nets(
        file, DRAWN, opened, FRAMES, seen.append, limit_s=1e-9, protocol=FAST, clocks=machine.clocks
    )
    assert left == PASSES * 20 - GROUP
    assert len(TableFile.load(file.path).nets) == GROUP
    assert measure(file, opened) == 0
    assert len(opened.digests) == PASSES * 20
    runs = len(file.runs)
    assert measure(file, opened) == 0
    assert len(file.runs) == runs


def test_a_fit_needs_every_row_and_every_network(file: TableFile) -> None:
    with pytest.raises(MissingLatencyError, match=r"20 of 20 networks .* calibrate --table"):
        judge(file, DRAWN)
    node = plan(DRAWN.held_out[0], SIZE).by_role["ffm"]
    kept = {key: row for key, row in file.rows.items() if key != node.spec.key()}
    with pytest.raises(MissingLatencyError, match="--missing-only"):
        judge(replace(file, rows=kept), DRAWN)


def test_networks_that_finish_elsewhere_are_refused(file: TableFile) -> None:
    opened = Opened(Machine(), lambda genotype: 1.0)
    opened.tail = "native-avx512"
    with pytest.raises(UsageError, match="native-avx512"):
        measure(file, opened)


def test_noise_shows_in_the_repeat_baseline(file: TableFile) -> None:
    chance = random.Random(4)
    machine = Machine(noise=lambda run: chance.uniform(0.9, 1.1))
    measure(file, Opened(machine, lambda genotype: linear(file, genotype)))
    assert judge(file, DRAWN)["repeat"]["mean"] > 0.005


def test_a_complete_table_is_judged_by_another_statistic_without_measuring(
    file: TableFile,
) -> None:
    # On the fake machine CPU time is twice the wall time.
    opened = Opened(Machine(), lambda genotype: linear(file, genotype))
    measure(file, opened)
    by_wall = judge(file, DRAWN)
    price = file.table().price(plan(DRAWN.held_out[0], SIZE)).ms
    runs, opens = len(file.runs), len(opened.digests)
    report = rejudge(file, DRAWN, "cpu_min")
    assert (file.statistic, report["statistic"]) == ("cpu_min", "cpu_min")
    assert (len(file.runs), len(opened.digests)) == (runs, opens)
    assert report["error"] < 0.01
    assert report["slowest_ms"] == pytest.approx(2 * by_wall["slowest_ms"], rel=1e-3)
    assert file.table().statistic == "cpu_min"
    assert file.table().price(plan(DRAWN.held_out[0], SIZE)).ms == pytest.approx(
        2 * price, rel=0.02
    )
    file.save()
    assert TableFile.load(file.path) == file
    assert rejudge(file, DRAWN, "p50")["error"] == by_wall["error"]


def test_another_statistic_needs_a_complete_table_and_a_known_name(file: TableFile) -> None:
    with pytest.raises(MissingLatencyError, match="20 of 20 networks"):
        rejudge(file, DRAWN, "min")
    with pytest.raises(UnknownNameError, match="cpu_p50"):
        rejudge(file, DRAWN, "cpu_p5")


def test_a_few_networks_are_timed_in_turn_and_closed(file: TableFile) -> None:
    machine = Machine()
    opened = Opened(machine, lambda genotype: linear(file, genotype))
    nets = DRAWN.held_out[:3]
    before = copy.deepcopy(file)
    times = time_together(file, nets, opened, FRAMES, protocol=FAST, clocks=machine.clocks)
    for genotype, one in zip(nets, times, strict=True):
        assert one["p50_ms"] == pytest.approx(linear(file, genotype), abs=2e-4)
        assert one["cpu_p50_ms"] == pytest.approx(2 * one["p50_ms"], abs=2e-4)
    assert file == before
