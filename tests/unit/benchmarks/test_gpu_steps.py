"""What the steps of `make gpu` find, on the CPU with a small network; a trial as a whole."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.bench.cells import Cell
from fasterseg.bench.timing import Samples
from fasterseg.types import Size
from tests.shared import ROOT
from tests.unit.benchmarks.conftest import MakeRun

pytestmark = [pytest.mark.torch, pytest.mark.onnx]

BLOCKED = ("av", "cuda", "cupy", "nncf", "openvino", "polygraphy", "tensorrt", "tensorrt_rtx")
"""What a plain PyTorch image lacks, and what the steps must do without."""


@pytest.fixture(scope="module")
def gpu(scripts: None) -> Any:
    names = ("gpu_bench", "gpu_contenders", "gpu_device", "gpu_job", "gpu_layers", "gpu_parity")
    modules = {name: importlib.import_module(name) for name in (*names, "gpu_run", "gpu")}
    return SimpleNamespace(**modules)


@pytest.fixture
def job(gpu: Any, make_run: MakeRun, tmp_path: Path) -> Any:
    """A trial of a small trained network."""
    return gpu.gpu_job.Job("cpu", tmp_path, None, str(make_run()), "row", "1234", seconds=30.0)


@pytest.fixture
def keeper(gpu: Any, tmp_path: Path) -> Any:
    return gpu.gpu_run.Keeper(tmp_path / "kept.json")


@pytest.fixture
def state(gpu: Any, tmp_path: Path) -> Any:
    state = gpu.gpu_run.State.load(tmp_path / "run.json")
    state.begin({"trial": True, "source": "abc", "device": "cpu"})
    return state


def add(gpu: Any, state: Any, name: str, result: Any) -> None:
    state.add(name, gpu.gpu_run.Ended("done", 1.0, None, result), {})


# --- the job


def test_a_job_goes_to_the_process_of_a_step_and_back(gpu: Any, job: Any) -> None:
    assert gpu.gpu_job.Job.from_json(job.to_json()) == job


def test_batches_of_a_clip_differ_and_fit(gpu: Any, job: Any, monkeypatch: Any) -> None:
    clip = [np.full((40, 60, 3), 10 * number, np.uint8) for number in range(16)]
    monkeypatch.setitem(job.__dict__, "packed", SimpleNamespace(frames=lambda: clip))
    case = gpu.gpu_job.Case
    one = job.frames(case(Size(64, 96)))
    assert [int(batch.mean()) for batch in one] == list(range(0, 160, 10))
    many = job.frames(case(Size(64, 96), 8))
    assert len(many) == 4
    assert {batch.shape for batch in many} == {(8, 64, 96, 3)}
    for before, after in itertools.pairwise([*many, many[0]]):
        assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_without_a_clip_frames_are_rendered(gpu: Any, job: Any) -> None:
    frames = job.frames(gpu.gpu_job.Case(Size(64, 96), 2))
    assert len(frames) >= 2
    assert frames[0].shape == (2, 64, 96, 3)
    assert (frames[0] != frames[1]).any()


def test_the_longest_protocol_that_fits_is_taken(gpu: Any, tmp_path: Path) -> None:
    real = gpu.gpu_job.Job("cuda", tmp_path, None, "m", "full", "1234")
    fitting = [real.protocol_within(seconds, 10).name for seconds in (70, 50, 20, 1)]
    assert fitting == ["full", "quick", "row", "row"]
    modest = gpu.gpu_job.Job("cuda", tmp_path, None, "m", "quick", "1234")
    assert modest.protocol_within(1000, 10).name == "quick"


def test_steps_of_a_real_run_begin_with_what_matters(gpu: Any, job: Any, tmp_path: Path) -> None:
    real = gpu.gpu_job.Job("cuda", tmp_path, None, "m", "full", "1234")
    names = [step.name for step in gpu.gpu.steps_of(real)]
    assert names.index("build") < names.index("parity") < names.index("bench-1024x2048")
    assert names.index("compile-512x1024") < names.index("bench-512x1024")
    assert names[-1] == "sanitizer"
    assert {name.partition("-")[0] for name in names} == set(gpu.gpu.WORK)
    assert not {"build", "sanitizer"} & {step.name for step in gpu.gpu.steps_of(job)}


def test_another_package_has_another_digest_and_other_scripts_do_not(
    gpu: Any, tmp_path: Path
) -> None:
    def digest(**files: str) -> str:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_py", ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        found: str = gpu.gpu_job.source_digest(tmp_path)
        return found

    before = digest(fasterseg__a_py="1", benchmarks__gpu_py="1")
    assert digest(benchmarks__gpu_py="2") == before
    assert digest(fasterseg__a_py="2") != before


# --- timing


def test_a_lane_puts_another_frame_in_front_of_every_launch(gpu: Any) -> None:
    placed: list[int] = []
    seen: list[int] = []
    device = gpu.gpu_device.Device.of("cpu")
    lane = gpu.gpu_device.LaunchLane(device, placed.append, lambda: seen.append(placed[-1]))
    assert len(lane.take(3).wall_ms) == 3
    lane.take(2)
    assert seen == [0, 1, 2, 3, 4]


def test_fast_lanes_do_more_runs_in_a_turn(gpu: Any) -> None:
    class Fixed:
        def __init__(self, ms: float) -> None:
            self.ms, self.runs = ms, 0

        def take(self, runs: int) -> Samples:
            self.runs += runs
            return Samples((self.ms,) * runs)

    fast, slow = Fixed(0.5), Fixed(5.0)
    lanes = [gpu.gpu_bench.Weighted(lane, 5.0) for lane in (fast, slow)]
    assert [lane.weight for lane in lanes] == [10, 1]
    assert [len(lane.take(3).wall_ms) for lane in lanes] == [30, 3]
    assert len(lanes[0].take(1).wall_ms) == 1


def test_an_engine_that_times_itself_gets_new_frames_each_turn(gpu: Any) -> None:
    class Timed:
        def __init__(self) -> None:
            self.ran: list[int] = []

        def run(self, frames: Any) -> Any:
            self.ran.append(int(frames[0, 0, 0, 0]))

        def time_on_device(self, iterations: int) -> list[float]:
            return [9.0, 8.0, *[1.0] * (iterations - 2)]

    engine = Timed()
    frames = [np.full((1, 2, 2, 3), number, np.uint8) for number in range(3)]
    lane = gpu.gpu_contenders.EngineLane(engine, frames)
    assert lane.take(4).wall_ms == (1.0,) * 4
    lane.take(1)
    assert engine.ran == [0, 1, 2, 0]


def test_ceilings_and_launches_are_measured(gpu: Any) -> None:
    device = gpu.gpu_device.Device.of("cpu")
    assert all(value > 0 for value in gpu.gpu_device.ceilings(device, tiny=True).values())
    assert all(value > 0 for value in gpu.gpu_device.launch_costs(device).values())


# --- steps


def test_all_ways_to_run_the_network_give_the_references_labels(
    gpu: Any, job: Any, keeper: Any, state: Any
) -> None:
    gpu.gpu_parity.parity(job, keeper, state)
    rows = keeper.found["labels"]
    assert {"engine fp32", gpu.gpu_contenders.EAGER} < set(rows)
    assert any(name.startswith("variant") for name in rows)
    assert all(row["passed"] and row["agreement"] > 0.9999 for row in rows.values())
    assert keeper.found["miou"] == "no pack: not scored"


def test_labels_beyond_the_margin_are_an_error(gpu: Any, job: Any) -> None:
    right = gpu.gpu_parity.Reference(
        [np.zeros((1, 2, 2), np.uint8)], [np.array([[[1.0, 0.001], [1.0, 1.0]]], np.float32)], 10.0
    )
    device = gpu.gpu_device.Device.of("cpu")

    def against(*wrong: tuple[int, int]) -> Any:
        labels = np.zeros((1, 2, 2), np.uint8)
        for row, column in wrong:
            labels[0, row, column] = 1
        contender = gpu.gpu_contenders.Contender(
            "x", "fp16", lambda _: None, lambda: None, lambda: labels, None, None
        )
        return gpu.gpu_parity.against(contender, device, right)

    assert against()["passed"]
    close = against((0, 1))
    assert (close["agreement"], close["pixels_beyond"]) == (0.75, 0)
    assert against((0, 0))["pixels_beyond"] == 1
    assert not against((0, 0))["passed"]


def test_bench_times_every_contender_and_makes_cells(
    gpu: Any, job: Any, keeper: Any, state: Any
) -> None:
    case = gpu.gpu_job.Case(Size(64, 64))
    gpu.gpu_bench.bench(job, case, keeper, state)
    found = json.loads(keeper.path.read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert {"engine fp32", gpu.gpu_contenders.EAGER, gpu.gpu_contenders.RELEASED} < set(rows)
    assert "step compile" in found["absent"][gpu.gpu_contenders.COMPILED]
    for name, row in rows.items():
        assert row["device"]["p50_ms"] > 0
        assert row["faster"][gpu.gpu_contenders.EAGER]["rounds"] >= 1
        assert row["agreement"] == (None if name == gpu.gpu_contenders.RELEASED else 1.0)
    (cell,) = [Cell.from_json(cell, "cell") for cell in found["cells"]]
    assert (cell.engine, cell.precision, cell.size) == ("torch", "fp32", Size(64, 64))
    assert (cell.verdict, cell.label_agreement) == ("ok", 1.0)
    assert found["floors_us"][f"{gpu.gpu_job.STUDENT} fold measured"] > 0


def test_a_contender_that_fails_costs_none_of_the_others(gpu: Any) -> None:
    def fail() -> Any:
        raise RuntimeError("CUDA error: out of luck\nmore")

    good = SimpleNamespace(facts={})
    makers = iter([("bad", fail), ("good", lambda: good), ("late", lambda: good)])
    times = iter([True, True, False])
    device = gpu.gpu_device.Device.of("cpu")
    found = dict(gpu.gpu_contenders.opened(makers, device, print, lambda: next(times)))
    assert found["bad"] == "RuntimeError: CUDA error: out of luck"
    assert found["good"] is good
    assert "no time" in found["late"]


def test_layers_stand_beside_their_floors(gpu: Any, job: Any, keeper: Any, state: Any) -> None:
    add(gpu, state, "limits", {"ceilings": {"product_fp16_tflops": 1.0, "copy_tb_s": 0.1}})
    gpu.gpu_layers.layers(job, keeper, state)
    rows = keeper.found["rows"]
    free = {row["name"] for row in rows if row["floor_us"] is None}
    assert "input.normalize" in free
    assert all(name.endswith((".join", ".normalize")) for name in free)
    floors = gpu.gpu_layers.floors(
        job.plan(job.cases[0].size), ceilings=gpu.gpu_layers.own_ceilings(state)
    )
    together = sum(row["floor_us"] or 0 for row in rows)
    assert together == pytest.approx(gpu.gpu_layers.total_us(floors))


def test_a_zoomed_launch_is_held_to_the_floor_of_its_whole_cell(
    gpu: Any, tiny_genotype: Genotype
) -> None:
    from fasterseg.arch.plan import plan
    from fasterseg.nn.schedule import schedule

    network = plan(tiny_genotype, Size(64, 96))
    floors = gpu.gpu_layers.floors
    passes, folded = floors(network, "pass"), floors(network, "fold")
    floor_of = gpu.gpu_layers.Floors(passes, folded)
    launches = [one for one in schedule(network, zoomed=True).launches if one.kind == "zoomed"]
    assert launches
    for launch in launches:
        parts = [floor for floor in folded if floor.role == launch.role]
        assert floor_of(launch).flop == sum(part.flop for part in parts)


def test_the_fastest_variant_of_bench_is_looked_into(gpu: Any, state: Any) -> None:
    from fasterseg.nn.fused import Variant

    variants = [Variant(lanes=2), Variant(lanes=1)]
    case = gpu.gpu_job.Case(Size(64, 64))
    assert gpu.gpu_layers.fastest(variants, state, case) is variants[0]
    rows = [
        {"facts": {"variant": variant.name}, "device": {"p50_ms": ms}}
        for variant, ms in zip(variants, (2.0, 1.0), strict=True)
    ]
    add(gpu, state, "bench-64x64", {"rows": [*rows, {"facts": {}, "device": {"p50_ms": 0.5}}]})
    assert gpu.gpu_layers.fastest(variants, state, case) is variants[1]


def test_streams_are_counted_through_one_engine_and_many(
    gpu: Any, job: Any, keeper: Any, state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.gpu_layers, "STREAMS", (1, 3))
    gpu.gpu_layers.streams(job, keeper, state)
    rows = keeper.found["rows"]
    assert [(row["streams"], row["how"], row["batch"]) for row in rows] == [
        (1, "shared", 1), (3, "shared", 3), (3, "an engine each", 1),
    ]  # fmt: skip
    assert all(row["frames_per_s"] > 0 for row in rows)


# --- the whole


def blocked(folder: Path) -> dict[str, str]:
    """An environment in which what a plain image lacks cannot be imported."""
    (folder / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED!r}))\n"
    )
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def trial(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "run", str(folder / "out")]
    return subprocess.run(
        [*command, "--device", "cpu", *arguments],
        env=blocked(folder), cwd=ROOT, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip


def test_a_trial_runs_in_a_plain_image_and_says_what_it_is(tmp_path: Path) -> None:
    said = trial(tmp_path, "--steps", "environment,layers")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "TRIAL on a CPU" in said.stdout
    assert "launches of" in said.stdout
    assert not list((tmp_path / "out").glob("record-*.json"))
    kept = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "keep", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert kept.returncode != 0
    assert "trial" in kept.stderr


@pytest.mark.slow
def test_every_step_of_a_trial_is_done(tmp_path: Path) -> None:
    said = trial(tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    steps = json.loads((tmp_path / "out" / "run.json").read_text())["steps"]
    assert {step["outcome"] for step in steps.values()} == {"done"}, said.stdout
    assert len(steps) >= 12
