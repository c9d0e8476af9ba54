"""Tables by a GPU's own clock: rows, networks, what they say of themselves, what they refuse.

The GPU is made up; that the torch engine measures on one is for `tests/gpu`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.operators import macs
from fasterseg.arch.plan import plan
from fasterseg.arch.single import Single
from fasterseg.bench import begin as beginning
from fasterseg.bench import snippets
from fasterseg.bench.begin import Request, begin, check_continues, request_of
from fasterseg.bench.calibrate import judge, measure_nets, rejudge
from fasterseg.bench.draw import draw
from fasterseg.bench.ops import DEVICE_TURN, estimate_for, measure_rows
from fasterseg.bench.snippets import CalledNet, DeviceNet, network_opener, snippet_opener
from fasterseg.bench.tables import TableFile
from fasterseg.bench.timing import DEVICE_NET, DEVICE_ROW, ROW
from fasterseg.bench.whole import protocol_for
from fasterseg.errors import EngineError, UnknownNameError, UsageError
from fasterseg.graph.emit import EmitOptions
from fasterseg.registry import resolve
from fasterseg.runtime.base import DeviceTimed
from fasterseg.types import DeviceInfo
from tests.unit.bench.table_fakes import DEVICE, SIZE, SPACE, ignore

GPU = DeviceInfo("h200", "NVIDIA H200", "x86_64", "580", None, "Linux", {"torch": "2.11"})
WANTED = SPACE.operators(SIZE)
CONDITIONS = {"tail": "kernel", "clock": "device", "variant": "lanes1", "repeats": 32}
FRAMES = np.zeros((1, *SIZE, 3), np.uint8)


@dataclass
class FakeGpu:
    """Operators and networks that take what their multiply-adds say, by a clock of its own.

    Attributes:
        taken: runs that were taken at once.
        closed: how much was closed.
        overhead_ms: of every operator, whatever it holds.
    """

    taken: list[int]
    closed: int = 0
    opened: int = 0
    overhead_ms: float = 0.02

    def open_single(self, single: Single, options: EmitOptions) -> FakeTimed:
        self.opened += 1
        work = sum(macs(node.spec) / 1e9 for node in single.plan.nodes)
        return FakeTimed(self, self.overhead_ms + work)

    def open_net(self, genotype: Genotype) -> Any:
        self.opened += 1
        work = sum(macs(node.spec) / 1e9 + 0.002 for node in plan(genotype, SIZE).nodes)
        return DeviceNet(FakeTimed(self, work))  # type: ignore[arg-type]


@dataclass
class FakeTimed:
    """A snippet or an engine that only its device can time."""

    gpu: FakeGpu
    ms: float
    tail: str = "kernel"
    runs: int = 0

    def run(self, frames: NDArray[np.uint8] | None = None) -> None:
        self.runs += 1

    def time_on_device(self, iterations: int) -> Sequence[float]:
        self.gpu.taken.append(iterations)
        return [self.ms] * iterations

    def close(self) -> None:
        self.gpu.closed += 1


def conditions(device: str, precision: str) -> dict[str, Any]:
    return dict(CONDITIONS)


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conditions without torch, but where a test is about it."""
    monkeypatch.setattr(beginning, "resolve", lambda registry, kind, name: conditions)


def new_table(path: Path, **changes: Any) -> TableFile:
    request = Request(SIZE, "torch", "fp16", "cuda", path=path / "table.json", **changes)
    return begin(request, GPU, SPACE)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TableFile:
    """A table with every row, and none of the networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginning, "resolve", lambda registry, kind, name: conditions)
        file = new_table(tmp_path_factory.mktemp("rows"))
    assert measure_rows(file, WANTED, FakeGpu([]).open_single, ignore) == 0
    return file


@pytest.fixture
def measured(rows: TableFile, tmp_path: Path) -> TableFile:
    file = replace(rows, path=tmp_path / "table.json", rows=copy.deepcopy(rows.rows), runs=[])
    file.runs += rows.runs
    file.save()
    return file


def test_a_table_of_a_gpu_says_which_clock_and_how(tmp_path: Path) -> None:
    file = new_table(tmp_path)
    assert file.conditions == {"device": "cuda", "threads": None, **CONDITIONS}
    assert file.statistics == ("p50", "min")
    assert file.protocol == DEVICE_ROW
    assert protocol_for(file) == DEVICE_NET
    assert file.emit_options().stage == "labels"
    assert estimate_for(file, WANTED[:9]) == pytest.approx(9 * estimate_for(file, WANTED[:1]))


def test_rows_have_the_devices_times_and_no_cpu_time(measured: TableFile) -> None:
    costly = next(p.spec for p in WANTED if p.spec.op == "conv" and p.spec.stride == 1)
    row = measured.rows[costly.key()]
    assert set(row["inside"]) == set(row["alone"]) == {"p50_ms", "min_ms"}
    assert row["inside"]["p50_ms"] == pytest.approx(macs(costly) / 1e9, abs=2e-5)
    assert row["alone"]["p50_ms"] == pytest.approx(0.02 + macs(costly) / 1e9, abs=2e-5)
    assert row["count"] % DEVICE_TURN == 0
    assert measured.rows["skip/32x8x16/32/s1"]["inside"] == {"p50_ms": 0.0, "min_ms": 0.0}


def test_runs_are_taken_many_at_once_and_everything_is_closed(
    tmp_path: Path,
) -> None:
    gpu = FakeGpu([])
    measure_rows(new_table(tmp_path), WANTED[:4], gpu.open_single, ignore)
    assert set(gpu.taken) == {DEVICE_ROW.warmup_runs, DEVICE_TURN}
    assert gpu.closed == gpu.opened > 0


def test_a_failing_row_gives_the_memory_of_its_parts_back(
    tmp_path: Path,
) -> None:
    gpu = FakeGpu([])

    def refuse(single: Single, options: EmitOptions) -> FakeTimed:
        if single.part == "around":
            raise EngineError("the GPU's memory ran out")
        return gpu.open_single(single, options)

    with pytest.raises(EngineError, match="ran out"):
        measure_rows(new_table(tmp_path), WANTED[:4], refuse, ignore)
    assert gpu.closed == gpu.opened == 2


def test_it_reads_back_as_it_was_written_and_times_are_not_rounded_away(
    measured: TableFile,
) -> None:
    again = TableFile.load(measured.path)
    assert again == measured
    assert again.table().conditions["clock"] == "device"
    assert again.table().rows == measured.times("inside", "p50")
    least = min(ms for ms in measured.times("inside", "p50").values() if ms > 0)
    assert least < 1e-3, "microseconds and less"


def test_networks_are_timed_by_the_same_clock_and_predicted(measured: TableFile) -> None:
    drawn = draw(SPACE, SIZE, 0, calibration=8, held_out=12)
    file, gpu = replace(measured, draw=drawn.to_json()), FakeGpu([])
    assert measure_nets(file, drawn, gpu.open_net, FRAMES, ignore) == 0
    assert gpu.closed == gpu.opened == 2 * 20
    assert min(gpu.taken) >= 1
    assert sum(gpu.taken) / len(gpu.taken) > 20, "few captures, many runs"
    report = judge(file, drawn)
    assert report["error"] < 0.01
    assert {entry["statistic"] for entry in report["predictors"]} == {"p50", "min"}
    file.save()
    assert TableFile.load(file.path) == file
    assert rejudge(file, drawn, "min")["statistic"] == "min"
    with pytest.raises(UnknownNameError, match="p50"):
        rejudge(file, drawn, "cpu_min")


def test_cpu_time_is_no_statistic_of_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--statistic p50 or min"):
        new_table(tmp_path, statistic="cpu_min")


def test_only_rows_of_the_same_conditions_are_added(
    measured: TableFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(measured)
    assert request.tail == "auto"
    check_continues(measured, GPU, request)
    with pytest.raises(UsageError, match=r"torch 2\.11, installed is 2\.12"):
        check_continues(measured, replace(GPU, runtimes={"torch": "2.12"}), request)
    for name, other in (("tail", "torch"), ("variant", "lanes1+zoomed"), ("repeats", 8)):
        monkeypatch.setattr(
            beginning,
            "resolve",
            lambda *_, name=name, other=other: lambda *_: {**CONDITIONS, name: other},
        )
        with pytest.raises(UsageError, match=f"{name} {CONDITIONS[name]}, and is asked for"):
            check_continues(measured, GPU, request)


def test_a_network_is_run_once_on_its_frames_before_it_is_timed() -> None:
    engine = FakeTimed(FakeGpu([]), 0.5)
    net = DeviceNet(engine)  # type: ignore[arg-type]
    assert isinstance(net, DeviceTimed)
    net.bind(FRAMES)
    assert (engine.runs, net.time_on_device(2), net.tail) == (1, [0.5, 0.5], "kernel")
    net.close()
    assert engine.gpu.closed == 1


@pytest.mark.torch
class TestTorchOnTheCpu:
    """The same path with the host's clock, for real."""

    @pytest.fixture(autouse=True)
    def _torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("torch", reason="torch not installed")
        monkeypatch.setattr(beginning, "resolve", resolve)

    @pytest.fixture
    def file(self, tmp_path: Path) -> TableFile:
        request = Request(SIZE, "torch", device="cpu", path=tmp_path / "table.json").resolved()
        assert request.precision == "fp32"
        device = replace(DEVICE, runtimes={"torch": "2.0"})
        return replace(begin(request, device, SPACE), protocol=replace(ROW, min_s=0.0, min_runs=3))

    def test_a_table_is_of_the_host_and_of_the_engines_own_tail(self, file: TableFile) -> None:
        assert file.conditions == {"device": "cpu", "threads": None, "tail": "torch"}
        assert file.statistics == ("p50", "min", "cpu_p50", "cpu_min")
        assert protocol_for(file) != DEVICE_NET

    def test_rows_and_networks_are_measured(self, file: TableFile) -> None:
        opener = snippet_opener("torch", "cpu", None, "fp32")
        few = WANTED[:: len(WANTED) // 8]
        assert measure_rows(file, few, opener, ignore) == 0
        assert TableFile.load(file.path).rows.keys() == {placed.spec.key() for placed in few}
        assert any(row["inside"]["cpu_p50_ms"] > 0 for row in file.rows.values())
        opened = snippets.network_opener("torch", "cpu", None, SIZE, file.emit_options(), "fp32")
        net = opened(draw(SPACE, SIZE, 0, 1, 1).held_out[0])
        assert type(net) is CalledNet
        assert net.tail == file.conditions["tail"]
        net.bind(FRAMES)
        net.run_bound()
        net.close()

    def test_what_it_has_not_is_refused(self) -> None:
        with pytest.raises(UsageError, match="last step of its own"):
            Request(SIZE, "torch", device="cpu", tail="native").resolved()
        with pytest.raises(UsageError, match="not in int8"):
            Request(SIZE, "torch", "int8", "cpu").resolved()
        with pytest.raises(UsageError, match="fp32, not fp16"):
            begin(Request(SIZE, "torch", "fp16", "cpu"), DEVICE, SPACE)

    def test_bf16_networks_say_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[str] = []

        def build(plan: Any, weights: Any, spec: Any, device: str, threads: int | None) -> Any:
            seen.append(spec.precision)
            return FakeTimed(FakeGpu([]), 1.0)

        monkeypatch.setattr(
            snippets,
            "resolve",
            lambda registry, *a: build if registry is snippets.NETWORKS else resolve(registry, *a),
        )
        opened = network_opener("torch", "cuda", None, SIZE, EmitOptions(), "bf16")
        assert type(opened(draw(SPACE, SIZE, 0, 1, 1).held_out[0])) is DeviceNet
        assert seen == ["bf16"]
