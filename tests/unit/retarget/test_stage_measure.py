"""The stage `measure` on a machine whose time is made up: what is measured, kept and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from fasterseg.arch.plan import plan
from fasterseg.bench import calibrate as calibration
from fasterseg.bench import draw as drawing
from fasterseg.bench import engines, snippets
from fasterseg.bench.tables import TableFile
from fasterseg.bench.timing import TimingProtocol
from fasterseg.datasets import streets
from fasterseg.errors import MissingLatencyError, PerformanceError, UsageError
from fasterseg.retarget.settings import MeasureSettings, SpaceSettings, load_run
from fasterseg.retarget.stage_context import HaltedError, Hooks, Run
from fasterseg.retarget.stage_measure import MEASURE, estimate, load_table
from fasterseg.search.distributed import Group
from fasterseg.types import Size
from tests.unit.bench.table_fakes import Machine, Opened

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

SIZE = Size(64, 128)
SPACE = SpaceSettings(
    layers=4, ops=("conv", "skip"), widths=(4, 6), stem_widths=(4,), head_widths=(4,)
)
CPU = MeasureSettings(precision="fp32", device="cpu", threads=1)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Graphs do nothing, and networks little; few are drawn."""
    machine = Machine()
    opened = Opened(machine, lambda genotype: 1.0 + plan(genotype, SIZE).macs / 1e7)
    # The networks that are played finish in their graphs.
    monkeypatch.setattr("fasterseg.native.info", lambda: None)
    # What else runs on the machine of the tests is nothing to the one that is played.
    monkeypatch.setattr("fasterseg.retarget.stage_measure.quiet_for", lambda *_: None)
    monkeypatch.setattr(snippets, "snippet_opener", lambda *_: machine.open_graph)
    monkeypatch.setattr(snippets, "network_opener", lambda *_: opened)
    monkeypatch.setattr("fasterseg.bench.ops.Clocks", lambda: machine.clocks)
    monkeypatch.setattr("fasterseg.bench.calibrate.Clocks", lambda: machine.clocks)
    monkeypatch.setattr(
        engines, "render_frames", lambda size, batch, count: [np.zeros((1, *size, 3), np.uint8)]
    )
    monkeypatch.setattr("fasterseg.bench.begin.ROW", TimingProtocol("row", 0, 1, 2))
    monkeypatch.setattr(drawing.draw, "__defaults__", (6, 6))
    monkeypatch.setattr(calibration, "LARGEST_ERROR", 9.0)
    return machine


@pytest.fixture
def run(tmp_path: Path) -> Run:
    settings = load_run("smoke", {"targets_ms": [5.0]})
    train = replace(settings.train, compare=())
    settings = replace(settings, size=str(SIZE), space=SPACE, measure=CPU, train=train)
    return Run(tmp_path, settings, streets(), Path(), "cpu", Group())


def test_every_row_and_the_drawn_networks_are_measured(machine: Machine, run: Run) -> None:
    before = estimate(run)
    assert before.keys == before.todo > 0
    assert before.seconds > 0
    assert MEASURE.work(run)
    file = load_table(run)
    assert len(file.rows) == before.keys
    assert file.calibration is not None
    assert len(file.nets) == 12
    runs = machine.runs
    assert MEASURE.work(run)
    assert machine.runs == runs, "nothing is measured twice"
    assert estimate(run).todo == 0


def test_a_stopped_measurement_goes_on(machine: Machine, run: Run) -> None:
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) == 5

    with pytest.raises(HaltedError):
        MEASURE.work(replace(run, hooks=Hooks(stop=stop)))
    assert len(TableFile.load(run.path("table.json")).rows) == 5
    assert MEASURE.work(run)
    assert load_table(run).calibration is not None


def test_a_table_that_predicts_badly_is_kept_by_force_only(
    machine: Machine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "LARGEST_ERROR", -1.0)
    with pytest.raises(PerformanceError, match="--redo measure"):
        MEASURE.work(run)
    assert MEASURE.work(replace(run, force=True))
    assert load_table(run).calibration is None


def test_a_table_that_is_there_is_taken_if_it_fits(
    machine: Machine, run: Run, tmp_path: Path
) -> None:
    MEASURE.work(run)
    given = tmp_path / "given.json"
    run.path("table.json").rename(given)
    other = replace(run, folder=tmp_path / "other", table=given)
    assert MEASURE.work(other)
    assert other.path("table.json").read_bytes() == given.read_bytes()
    threads = replace(other.settings, measure=replace(CPU, threads=2))
    with pytest.raises(UsageError, match="threads"):
        MEASURE.work(replace(other, settings=threads))
    statistic = replace(other.settings, measure=replace(CPU, statistic="cpu_min"))
    with pytest.raises(UsageError, match='statistic = "p50"'):
        MEASURE.work(replace(other, settings=statistic))
    wider = replace(other.settings, space=replace(SPACE, widths=(4, 6, 8)))
    with pytest.raises(MissingLatencyError, match="fasterseg-bench ops"):
        MEASURE.work(replace(other, settings=wider))


def test_several_processes_do_not_measure(machine: Machine, run: Run) -> None:
    class Two(Group):
        def share(self, value: object) -> object:  # type: ignore[override]
            return value

    with pytest.raises(UsageError, match="--stages measure"):
        MEASURE.work(replace(run, group=Two(0, 2)))
