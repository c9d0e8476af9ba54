from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fasterseg.bench.draw import draw
from fasterseg.bench.ops import measure_rows
from fasterseg.bench.quiet import ATTEMPTS, BUDGET, TOLERANCE, Quiet, quiet_for
from fasterseg.bench.tables import TableFile
from fasterseg.bench.whole import time_together
from tests.unit.bench.table_fakes import SIZE, SPACE, Machine, Opened, ignore, new_table


class SharedMachine:
    """A clock on which the probe takes 10 ms, and more while somebody else is busy."""

    def __init__(self, factor: Callable[[float], float]) -> None:
        self.now_ms = 0.0
        self._factor = factor

    def probe(self) -> None:
        self.work(10.0)

    def work(self, ms: float) -> None:
        self.now_ms += ms * self._factor(self.now_ms)

    def clock(self) -> int:
        return round(self.now_ms * 1e6)

    def timed(self, ms: float) -> float:
        begin = self.now_ms
        self.work(ms)
        return self.now_ms - begin

    def quiet(self) -> Quiet:
        return Quiet(self.probe, self.clock)


def kept(calls: list[float], ms: float) -> float:
    calls.append(ms)
    return ms


def test_on_a_quiet_machine_things_are_measured_once() -> None:
    machine = SharedMachine(lambda _: 1.0)
    quiet = machine.quiet()
    calls: list[float] = []
    taken, slowdown = quiet.take(lambda: kept(calls, machine.timed(30.0)))
    assert (taken, slowdown, len(calls)) == (30.0, 0.0, 1)
    assert quiet.best_ms == pytest.approx(10.0)


def test_a_disturbance_that_is_there_is_waited_for() -> None:
    machine = SharedMachine(lambda ms: 2.0 if 3000 < ms < 4000 else 1.0)
    quiet = machine.quiet()
    machine.now_ms = 3100.0
    calls: list[float] = []
    taken, slowdown = quiet.take(lambda: kept(calls, machine.timed(30.0)))
    assert calls == [pytest.approx(30.0)]
    assert taken == pytest.approx(30.0)
    assert slowdown == 0.0


def test_what_was_disturbed_in_its_midst_is_measured_again() -> None:
    machine = SharedMachine(lambda ms: 1.5 if 3070 < ms < 3300 else 1.0)
    quiet = machine.quiet()
    machine.now_ms = 3001.0
    calls: list[float] = []
    taken, slowdown = quiet.take(lambda: kept(calls, machine.timed(30.0) + machine.timed(30.0)))
    assert [round(ms) for ms in calls] == [75, 60]
    assert taken == pytest.approx(60.0)
    assert slowdown <= TOLERANCE


def test_on_a_machine_that_stays_disturbed_the_least_disturbed_one_counts_and_says_so() -> None:
    machine = SharedMachine(lambda ms: 1.0 if ms < 2500 else 1.2 + (ms - 2500) / 1e5)
    quiet = machine.quiet()
    machine.now_ms = 2600.0
    calls: list[float] = []
    taken, slowdown = quiet.take(lambda: kept(calls, machine.timed(30.0)))
    assert len(calls) == ATTEMPTS
    assert taken == min(calls)
    assert 0.2 < slowdown < 0.5


def test_a_machine_that_never_is_quiet_is_not_waited_for_without_end() -> None:
    machine = SharedMachine(lambda ms: 1.0 if ms < 2500 else 2.0)
    quiet = machine.quiet()
    machine.now_ms = 2600.0
    while machine.now_ms < 4 * 10 * 5 * BUDGET:
        quiet.take(lambda: machine.timed(30.0))
    begin = machine.now_ms
    taken, slowdown = quiet.take(lambda: machine.timed(30.0))
    assert machine.now_ms - begin < 300
    assert (taken, slowdown) == (60.0, 1.0)


def test_rows_and_networks_say_how_disturbed_they_were(tmp_path: Path) -> None:
    file = new_table(tmp_path / "table.json")
    machine = Machine()
    quiet = Quiet(lambda: machine.spend(1e7), machine.clocks.wall)
    measure_rows(
        file,
        SPACE.operators(SIZE)[:3],
        machine.open_graph,
        ignore,
        clocks=machine.clocks,
        quiet=quiet,
    )
    assert [row["slowdown"] for row in file.rows.values()] == [0.0, 0.0, 0.0]
    assert file.runs[0]["quiet"] == quiet.to_json()
    assert set(TableFile.load(file.path).rows) == set(file.rows)
    nets = draw(SPACE, SIZE, 3, calibration=0, held_out=2).held_out
    frames = np.zeros((1, *SIZE, 3), np.uint8)
    opened = Opened(machine, lambda _: 10.0)
    times = time_together(file, nets, opened, frames, clocks=machine.clocks, quiet=quiet)
    assert [(one["p50_ms"], one["slowdown"]) for one in times] == [(10.0, 0.0), (10.0, 0.0)]


def test_a_gpu_has_no_probe(tmp_path: Path) -> None:
    file = new_table(tmp_path / "table.json")
    file.conditions["device"] = "cuda"
    assert quiet_for(file) is None


def test_the_probe_of_a_cpu_table_runs_in_its_engine(tmp_path: Path) -> None:
    quiet = quiet_for(new_table(tmp_path / "table.json"))
    assert quiet is not None
    assert 0 < quiet.best_ms < 1e4
