"""Rows of a latency table: what they hold, and that a run goes on where it was killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasterseg.arch.latency import LatencyTable
from fasterseg.arch.plan import plan
from fasterseg.arch.single import PARTS, Single, single
from fasterseg.bench.begin import (
    Request,
    begin,
    check_continues,
    request_of,
    space_from,
    wanted_by,
)
from fasterseg.bench.draw import draw
from fasterseg.bench.ops import Progress, difference, estimate_s, in_step, measure_rows
from fasterseg.bench.snippets import Snippet, snippet_opener
from fasterseg.bench.tables import TableFile, table_path
from fasterseg.bench.timing import ROW, CallLane, Samples, TimingProtocol
from fasterseg.errors import ConfigError, UnknownNameError, UnsupportedError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.types import Size
from tests.unit.bench.table_fakes import DEVICE, SIZE, SPACE, Machine, ignore, new_table

WANTED = SPACE.operators(SIZE)
COSTLY = [p.spec.key() for p in WANTED if p.spec.op == "conv" and p.spec.stride == 1]


def measured(path: Path) -> TableFile:
    file = new_table(path)
    machine = Machine()
    assert measure_rows(file, WANTED, machine.open_graph, ignore, clocks=machine.clocks) == 0
    return file


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TableFile:
    return measured(tmp_path_factory.mktemp("ops") / "table.json")


def test_every_operator_of_the_space_gets_a_row_and_any_network_a_price(table: TableFile) -> None:
    found = LatencyTable.load(table.path)
    assert found.missing(SPACE.specs(SIZE)) == []
    assert found.unpriced == frozenset()
    for genotype in draw(SPACE, SIZE, 1, 2, 6).held_out:
        price = found.price(plan(genotype, SIZE))
        assert price.ms > 0
        assert price.left_out == {}


def test_an_operator_costs_what_it_adds_to_the_graph_around_it(table: TableFile) -> None:
    row = table.rows[COSTLY[0]]
    # Convolution and ReLU at 0.1 ms each; the call's overhead of 1 ms is in both graphs.
    assert row["inside"]["p50_ms"] == pytest.approx(0.2)
    assert row["inside"]["cpu_min_ms"] == pytest.approx(0.4)
    assert row["alone"]["p50_ms"] == pytest.approx(1.2)
    assert table.table().rows[COSTLY[0]] == row["inside"]["p50_ms"]


def test_a_skip_that_changes_nothing_costs_nothing(table: TableFile) -> None:
    key = "skip/32x8x16/32/s1"
    assert table.table().rows[key] == 0.0
    assert table.rows[key]["count"] == 0


def test_rows_are_measured_by_the_protocol_and_say_when(table: TableFile) -> None:
    row = table.rows[COSTLY[0]]
    # 1.5 ms a run: overhead, the operator, what makes its map, and the mean of what it gives.
    assert row["count"] == 1e3 * ROW.min_s / 1.5 >= ROW.min_runs
    assert row["at"].startswith("20")
    assert row["cov"] == 0.0
    assert table.runs[row["run"]]["what"] == "rows"
    assert {"begun", "commit", "load_average"} <= set(table.runs[0])


def test_a_table_reads_back_as_it_was_written(table: TableFile) -> None:
    again = TableFile.load(table.path)
    assert again == table
    assert again.table() == LatencyTable.load(table.path)
    assert again.conditions == {"device": "cpu", "threads": 1, "tail": "graph"}


def test_other_granularity_and_statistic_give_other_prices(table: TableFile) -> None:
    assert table.times("alone", "cpu_p50")[COSTLY[0]] == pytest.approx(2.4)


class KilledError(Exception):
    """Stands for a kill."""


def test_a_killed_run_keeps_its_rows_and_the_next_one_measures_the_rest(tmp_path: Path) -> None:
    machine = Machine()
    file = new_table(tmp_path / "t.json")
    file.save()

    def kill_at_sixth(progress: Progress) -> None:
        if progress.done == 6:
            raise KilledError

    with pytest.raises(KilledError):
        measure_rows(file, WANTED, machine.open_graph, kill_at_sixth, clocks=machine.clocks)
    left = TableFile.load(file.path)
    assert len(left.rows) == 6
    before = dict(left.rows)
    second = Machine()
    assert measure_rows(left, WANTED, second.open_graph, ignore, clocks=second.clocks) == 0
    done = TableFile.load(file.path)
    assert set(done.rows) == {placed.spec.key() for placed in WANTED}
    assert {key: done.rows[key] for key in before} == before
    assert len(done.runs) == 2
    nothing = sum(row["count"] == 0 for key, row in done.rows.items() if key not in before)
    assert second.opened == 3 * (len(WANTED) - 6 - nothing)


def test_a_complete_table_is_not_measured_again(table: TableFile) -> None:
    def refuse(single: Single, options: EmitOptions) -> Snippet:
        raise AssertionError("opened")

    runs = len(table.runs)
    assert measure_rows(table, WANTED, refuse, ignore) == 0
    assert len(table.runs) == runs


def test_a_limit_ends_between_rows_and_says_how_many_are_left(tmp_path: Path) -> None:
    machine = Machine()
    file = new_table(tmp_path / "t.json")
    left = measure_rows(
        file, WANTED, machine.open_graph, ignore, limit_s=2.0, clocks=machine.clocks
    )
    assert 0 < left < len(WANTED)
    assert len(TableFile.load(file.path).rows) == len(WANTED) - left


def test_progress_counts_to_the_end_with_a_time_to_go(tmp_path: Path) -> None:
    seen: list[Progress] = []
    machine = Machine()
    file = new_table(tmp_path / "t.json")
    measure_rows(file, WANTED[:5], machine.open_graph, seen.append, clocks=machine.clocks)
    assert [progress.left for progress in seen] == [4, 3, 2, 1, 0]
    assert seen[1].left_s == pytest.approx(seen[1].elapsed_s / 2 * 3)


def test_a_disturbed_round_does_not_change_a_median_difference() -> None:
    quiet, calm = (5.0, 5.0, 5.0, 5.0, 5.0), (2.0, 2.0, 2.0, 2.0, 2.0)
    burst = (5.0, 50.0, 50.0, 5.0, 5.0)
    drowned = (2.0, 47.0, 47.0, 2.0, 2.0)
    assert difference(Samples(quiet, quiet), Samples(calm, calm))["p50_ms"] == 3.0
    assert difference(Samples(burst, burst), Samples(drowned, drowned))["p50_ms"] == 3.0


def test_a_difference_is_never_below_nothing() -> None:
    less, more = Samples((1.0, 1.0), (1.0, 1.0)), Samples((2.0, 2.0), (2.0, 2.0))
    assert set(difference(less, more).values()) == {0.0}


def test_in_step_gives_each_lane_equally_many_runs_until_the_slowest_has_enough() -> None:
    machine = Machine()
    lanes = [
        CallLane(
            lambda _, due=due: machine.spend(due),  # type: ignore[misc]
            clock=machine.clocks.wall,
            cpu_clock=machine.clocks.cpu,
        )
        for due in (1e6, 10e6)
    ]
    short, long = in_step(lanes, TimingProtocol("row", warmup_runs=3, min_runs=20, min_s=0.3))
    assert len(short.wall_ms) == len(long.wall_ms) == 30
    assert machine.runs == 2 * (3 + 30)


def test_an_estimate_grows_with_the_work_and_shrinks_with_cores() -> None:
    one, two = (estimate_s(WANTED, ROW, cores) for cores in (1, 2))
    assert one >= two > 0.3 * len(WANTED)
    assert estimate_s(WANTED[:3], ROW, 1) < one


def test_networks_are_drawn_before_the_first_row(tmp_path: Path) -> None:
    file = new_table(tmp_path / "t.json")
    assert file.rows == {}
    assert file.draw is not None
    assert len(file.draw["held_out"]) == 64
    assert len(set(file.draw["held_out"]) | set(file.draw["calibration"])) == 96


def test_a_table_of_single_networks_has_no_draw_and_only_their_operators(tmp_path: Path) -> None:
    file = new_table(tmp_path / "t.json", space=None)
    genotype = draw(SPACE, SIZE, 2, 1, 1).held_out[0]
    wanted = wanted_by(file, None, [genotype])
    assert {p.spec for p in wanted} == {node.spec for node in plan(genotype, SIZE).nodes}
    assert file.draw is None
    with pytest.raises(UsageError, match="--model"):
        wanted_by(file, None, [])


def test_another_space_than_the_tables_is_refused(tmp_path: Path) -> None:
    file = new_table(tmp_path / "t.json")
    other = space_from(None, 7)
    assert other is not None
    assert other.num_classes == 7
    with pytest.raises(UsageError, match="another search space"):
        wanted_by(file, other, [])
    assert wanted_by(file, SPACE, []) == WANTED


def test_a_space_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text('layers = 5\nops = ["conv"]\nwidths = [4, 8]\n', encoding="utf-8")
    space = space_from(path, 11)
    assert space is not None
    assert (space.layers, space.ops, space.widths, space.num_classes) == (5, ("conv",), (4, 8), 11)
    assert space_from(None, None) is None
    with pytest.raises(ConfigError, match="--classes 200"):
        space_from(None, 200)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": Size(128, 256)}, "size 64x128, and is asked for size 128x256"),
        ({"threads": None}, "threads 1, and is asked for threads default"),
        ({"precision": "fp16"}, "precision fp32"),
        ({"batch": 2}, "batch 1"),
    ],
)
def test_other_settings_do_not_continue_a_table(
    table: TableFile, change: dict[str, object], message: str
) -> None:
    same = request_of(table)
    check_continues(table, DEVICE, same)
    with pytest.raises(UsageError, match=message):
        check_continues(table, DEVICE, replace(same, **change))  # type: ignore[arg-type]


def test_another_device_or_runtime_does_not_continue_a_table(table: TableFile) -> None:
    request = request_of(table)
    with pytest.raises(UsageError, match="device box-2c, and is asked for device other"):
        check_continues(table, replace(DEVICE, id="other"), request)
    with pytest.raises(UsageError, match=r"onnxruntime 1\.0, installed is 2\.0"):
        check_continues(table, replace(DEVICE, runtimes={"onnxruntime": "2.0"}), request)


def test_unknown_names_are_refused_before_anything_is_opened() -> None:
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        Request(SIZE, backend="openvin").resolved()
    with pytest.raises(UnknownNameError, match="cpu_min"):
        Request(SIZE, statistic="mean").resolved()
    with pytest.raises(UsageError, match="fp32 or fp16 or int8, not in bf16"):
        Request(SIZE, precision="bf16").resolved()
    with pytest.raises(UsageError, match="auto, graph, native"):
        Request(SIZE, tail="none").resolved()
    with pytest.raises(UnknownNameError, match="engine for single operators"):
        snippet_opener("tensorrt", "cuda", None)


def test_a_size_that_is_too_small_is_refused(tmp_path: Path) -> None:
    request = Request(Size(32, 64), "onnxruntime", "fp32", "cpu", path=tmp_path / "t.json")
    with pytest.raises(UsageError, match="too small"):
        begin(request, DEVICE, SPACE)


@pytest.mark.parametrize(
    "value", ["fp16", "12", [], float("nan"), pytest.param(10**400, id="huge")]
)
def test_a_table_whose_times_are_no_numbers_cannot_be_added_to(
    table: TableFile, tmp_path: Path, value: Any
) -> None:
    data = json.loads(table.path.read_text(encoding="utf-8"))
    next(iter(data["rows"].values()))["alone"]["min_ms"] = value
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ConfigError, match="none that fasterseg-bench ops wrote"):
        TableFile.load(edited)


def test_a_table_cut_off_says_so_and_one_of_another_origin_too(
    table: TableFile, tmp_path: Path
) -> None:
    text = table.path.read_text(encoding="utf-8")
    broken = tmp_path / "broken.json"
    broken.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(ConfigError, match="cut off"):
        TableFile.load(broken)
    data = json.loads(text)
    del data["runs"]
    broken.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ConfigError, match="none that fasterseg-bench ops wrote"):
        TableFile.load(broken)


def test_a_table_lies_under_its_device(tmp_path: Path) -> None:
    path = table_path(tmp_path, "box-2c", "onnxruntime", "fp32", Size(512, 1024))
    assert path == tmp_path / "box-2c" / "onnxruntime-fp32-512x1024.json"


@pytest.mark.onnx
def test_a_real_session_runs_an_operator() -> None:
    opener = snippet_opener("onnxruntime", "cpu", 1)
    for placed in WANTED:
        if placed.spec.op in ("input", "fuse", "output"):
            for part in PARTS:
                snippet = opener(single(placed, SIZE, part), EmitOptions())
                snippet.run()
                snippet.close()


@pytest.mark.onnx
def test_a_gpu_is_refused_where_every_run_would_copy() -> None:
    with pytest.raises(UnsupportedError, match="--device cpu"):
        snippet_opener("onnxruntime", "cuda", None)(single(WANTED[0], SIZE, "alone"), EmitOptions())
