"""The TensorRT runner's own logic, over fakes of TensorRT and CUDA. No TensorRT is tested here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fasterseg.errors import (
    DeviceUnavailableError,
    EngineError,
    EngineMismatchError,
    MissingExtraError,
    UsageError,
)
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime import trt
from fasterseg.runtime.base import DeviceEngine, DeviceTimed, PipelinedEngine
from fasterseg.runtime.driver import Gpu
from fasterseg.runtime.plan_files import BuildOptions, PlanFacts, write_plan
from fasterseg.runtime.plugins import PLUGINS
from fasterseg.runtime.trt import TensorRtEngine, TensorRtRtxEngine, check_fit
from tests.contract.engine import EngineContract
from tests.fake_cuda import FakeCudart, fake_port
from tests.fake_trt import FakeApi
from tests.plans import GPU, SIZE, plan

Frames = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass
class Bench:
    """A machine of fakes."""

    api: FakeApi
    cuda: FakeCudart
    port: Any

    def open(self, **changes: Any) -> TensorRtEngine:
        return TensorRtEngine.open(plan(**changes))

    @property
    def launches(self) -> int:
        """CUDA graphs launched."""
        return self.cuda.log.count("cudaGraphLaunch")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with fake_port() as (port, cuda):
        api = FakeApi(cuda)
        monkeypatch.setattr(trt, "load_api", lambda backend: api)
        monkeypatch.setattr(trt, "require_gpu", lambda what: GPU)
        yield Bench(api, cuda, port)


def frames(value: int, batch: int = 1, size: tuple[int, int] = SIZE) -> Frames:
    picture: Frames = np.full((batch, *size, 3), value, np.uint8)
    picture[:, :, 0, 0] = 3
    return picture


def expected(pictures: Frames) -> Frames:
    """What the fake engine answers."""
    labels: Frames = pictures[..., 0] % 11
    return labels


def test_labels_come_back_for_every_frame(bench: Bench) -> None:
    engine = bench.open()
    for value in (5, 17, 200, 5):
        labels = engine.run(frames(value))
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, expected(frames(value)))


def test_frames_of_each_slot_are_run_once_plainly_then_as_one_graph(bench: Bench) -> None:
    engine = bench.open()
    assert engine.captured is None
    for value in range(6):
        engine.run(frames(value))
    assert engine.captured is True
    assert bench.launches == 4
    # One plain run and one capture for each of two slots.
    assert bench.api.engine is not None
    assert bench.api.engine.runs == 4


def test_two_batches_may_be_on_their_way_and_come_out_in_order(bench: Bench) -> None:
    engine = bench.open()
    engine.submit(frames(1))
    engine.submit(frames(2))
    with pytest.raises(UsageError, match=r"collect\(\) one"):
        engine.submit(frames(3))
    assert engine.collect()[0, 5, 5] == 1
    engine.submit(frames(4))
    assert engine.collect()[0, 5, 5] == 2
    assert engine.collect()[0, 5, 5] == 4
    with pytest.raises(UsageError, match=r"submit\(\) one"):
        engine.collect()


def test_another_size_throws_buffers_and_graphs_away(bench: Bench) -> None:
    engine = bench.open(emit=EmitOptions(precision="fp16", dynamic=True))
    for _ in range(4):
        engine.run(frames(9))
    before = set(bench.cuda.live)
    labels = engine.run(frames(4, batch=2, size=(72, 80)))
    assert np.array_equal(labels, expected(frames(4, batch=2, size=(72, 80))))
    graphs = [key for key in before if isinstance(bench.cuda.live.get(key), list)]
    assert all(len(bench.cuda.live[key]) == 1 for key in graphs), "only events of the old are left"
    engine.submit(frames(4, size=(72, 80)))
    with pytest.raises(UsageError, match="is on its way"):
        engine.submit(frames(4, size=(96, 80)))


def test_a_size_outside_the_engines_range_is_told_with_the_runtimes_words(bench: Bench) -> None:
    bench.api._engine["takes"] = lambda shape: shape[1] <= 64
    engine = bench.open(emit=EmitOptions(precision="fp16", dynamic=True))
    with pytest.raises(UsageError, match=r"\(1, 128, 96, 3\).*outside the profile.*--max-size"):
        engine.run(frames(1, size=(128, 96)))
    assert engine.run(frames(1)).shape == (1, *SIZE)


def test_a_refused_size_between_good_ones_leaves_the_engine_usable(bench: Bench) -> None:
    bench.api._engine["takes"] = lambda shape: shape[1] <= 64
    engine = bench.open(emit=EmitOptions(precision="fp16", dynamic=True))
    engine.run(frames(1))
    with pytest.raises(UsageError, match="outside the profile"):
        engine.run(frames(1, size=(128, 96)))
    assert np.array_equal(engine.run(frames(2)), expected(frames(2)))


def test_a_context_that_cannot_be_captured_runs_step_by_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = bench.open()
    monkeypatch.setattr(bench.port.Graph, "__init__", failing_graph)
    for value in (1, 2, 3, 4):
        assert np.array_equal(engine.run(frames(value)), expected(frames(value)))
    assert engine.captured is False
    assert bench.launches == 0


def failing_graph(self: Any, captured: Any) -> None:
    raise EngineError("not capturable")


def test_rtx_is_asked_whether_it_can_be_captured(bench: Bench) -> None:
    engine = bench.open()
    assert bench.api.engine is not None
    bench.api.engine.contexts[0].is_stream_capturable = lambda stream: False  # type: ignore[attr-defined]
    engine.run(frames(1))
    engine.run(frames(2))
    assert engine.captured is False
    assert "cudaStreamBeginCapture" not in bench.cuda.log


def test_logits_are_finished_by_our_kernel(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.api._engine["output"] = "logits8"
    calls: list[Any] = []
    kernels = SimpleNamespace(upsample_argmax=lambda given, stream: calls.append((given, stream)))
    monkeypatch.setattr(trt, "open_kernels", lambda: kernels)
    engine = bench.open(emit=EmitOptions("logits8", "fp16"))
    assert engine.tail == "kernel"
    engine.run(frames(1))
    given, stream = calls[0]
    assert (given.batch, given.classes, given.height, given.width) == (1, 11, 8, 12)
    assert (given.out_height, given.out_width, given.pitch) == (*SIZE, 11)
    assert stream in bench.cuda.live


def test_arrays_on_the_gpu_are_run_where_they_lie(bench: Bench) -> None:
    engine = bench.open()
    engine.run(frames(1))
    pinned, given = bench.port.PinnedBuffer((1, *SIZE, 3)), bench.port.DeviceBuffer((1, *SIZE, 3))
    back, labels = bench.port.PinnedBuffer((1, *SIZE)), bench.port.DeviceBuffer((1, *SIZE))
    pinned.array[...] = frames(8)
    stream = bench.port.Stream()
    stream.copy_in(given, pinned)
    engine.run_on_device(given, labels, stream.handle)
    stream.copy_out(back, labels)
    assert np.array_equal(back.array, expected(frames(8)))
    # The graphs of `run` are of another context and still right.
    assert bench.api.engine is not None
    assert len(bench.api.engine.contexts) == 2
    assert np.array_equal(engine.run(frames(2)), expected(frames(2)))


@pytest.mark.parametrize(
    ("taken", "given", "message"),
    [((1, 32, 96, 3), (1, 32, 96), "64x96"), ((1, *SIZE, 3), (1, 96, 64), "not \\(1, 96, 64\\)")],
)
def test_arrays_that_do_not_fit_are_refused(
    bench: Bench, taken: tuple[int, ...], given: tuple[int, ...], message: str
) -> None:
    engine = bench.open()
    with pytest.raises(UsageError, match=message):
        engine.run_on_device(bench.port.DeviceBuffer(taken), bench.port.DeviceBuffer(given), 1)


def test_device_time_is_of_the_engine_alone(bench: Bench) -> None:
    engine = bench.open()
    with pytest.raises(UsageError, match="run one batch"):
        engine.time_on_device(3)
    engine.run(frames(1))
    # A copy takes the fake 10 ms, the engine 2 ms.
    assert engine.time_on_device(3) == [2.0, 2.0, 2.0]


def test_it_offers_what_only_gpu_engines_can(bench: Bench) -> None:
    engine = bench.open()
    assert isinstance(engine, DeviceEngine)
    assert isinstance(engine, DeviceTimed)
    assert isinstance(engine, PipelinedEngine)


def test_close_gives_everything_back(bench: Bench) -> None:
    engine = bench.open()
    for _ in range(3):
        engine.run(frames(1))
    engine.time_on_device(2)
    engine.close()
    engine.close()
    assert not bench.cuda.live
    with pytest.raises(UsageError, match="closed"):
        engine.run(frames(1))


def test_failing_runs_are_told_with_the_runtimes_words(bench: Bench) -> None:
    engine = bench.open()
    assert bench.api.engine is not None
    bench.api.engine.broken = True
    with pytest.raises(EngineError, match=r"enqueue failed: out of memory.*smaller --size"):
        engine.run(frames(1))


def test_gpu_memory_that_runs_out_leaves_nothing_taken(bench: Bench) -> None:
    engine = bench.open()
    before = len(bench.cuda.live)
    bench.cuda.failing["cudaMalloc"] = 2
    with pytest.raises(EngineError, match="smaller --size"):
        engine.run(frames(1))
    assert len(bench.cuda.live) == before
    bench.cuda.failing.clear()
    assert np.array_equal(engine.run(frames(1)), expected(frames(1)))


def test_a_plan_that_is_refused_is_told_with_the_runtimes_words(bench: Bench) -> None:
    bench.api.refuses = "serialization version 240 does not match 239"
    with pytest.raises(EngineMismatchError, match=r"version 240.*fasterseg build fasterseg-camvid"):
        bench.open()


def test_tensors_that_are_not_those_of_the_description_are_refused(bench: Bench) -> None:
    bench.api._engine["output_type"] = "FLOAT"
    with pytest.raises(EngineMismatchError, match=r"FLOAT.*description says uint8 frames"):
        bench.open()


def test_without_a_gpu_no_runtime_is_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(what: str) -> Gpu:
        raise DeviceUnavailableError(f"{what}: no CUDA device")

    monkeypatch.setattr(trt, "require_gpu", refuse)
    write_plan(tmp_path / "x.engine", plan())
    with pytest.raises(DeviceUnavailableError):
        TensorRtEngine.open(tmp_path / "x.engine")
    assert not bench.api.runtimes


def test_on_a_cpu_it_is_refused() -> None:
    with pytest.raises(DeviceUnavailableError, match=r"NVIDIA GPUs only.*onnxruntime"):
        TensorRtEngine.resolve_device("cpu")


def test_host_code_is_allowed_for_version_compatible_plans_alone(bench: Bench) -> None:
    bench.open()
    assert bench.api.runtimes[-1].engine_host_code_allowed is False
    bench.open(options=BuildOptions(version_compatible=True))
    assert bench.api.runtimes[-1].engine_host_code_allowed is True


class TestContract(EngineContract):
    """The contract of all engines, as far as a fake can keep it."""

    @pytest.fixture(autouse=True)
    def _machine(self, bench: Bench) -> None:
        self.bench = bench

    def open(self) -> Any:
        from tests.contract.engine import SIZE as CONTRACT_SIZE

        made = plan()
        spec = replace(made.facts.spec, size=CONTRACT_SIZE)
        return TensorRtEngine.open(replace(made, facts=replace(made.facts, spec=spec)))

    def test_says_what_it_is(self) -> None:
        engine = self.open()
        assert (engine.device, engine.tail, engine.backend) == ("cuda", "graph", "tensorrt")


Change = Callable[[PlanFacts], PlanFacts]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": "windows-amd64"}, "system was windows-amd64 when it was built, linux"),
        ({"version": "10.13.0.35"}, r"tensorrt was 10\.13\.0\.35 .*10\.16\.1\.11 here"),
        ({"targets": ("sm_87",)}, r"GPU was sm_87 .*sm_90 \(NVIDIA H200\) here"),
        ({"backend": "tensorrt-rtx"}, "engine was tensorrt-rtx"),
    ],
)
def test_a_plan_of_elsewhere_names_both_sides_and_the_command(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineMismatchError, match=f"{message}.*fasterseg build") as caught:
        check_fit(plan(**change).facts, "tensorrt", "10.16.1.11", GPU, "x.engine")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("version", "fits"),
    [("10.16.1.11", True), ("11.4.0.106", True), ("10.15.9.1", False)],
)
def test_version_compatible_plans_run_under_newer_runtimes(version: str, fits: bool) -> None:
    facts = plan(options=BuildOptions(version_compatible=True)).facts
    if fits:
        check_fit(facts, "tensorrt", version, GPU, "x")
    else:
        with pytest.raises(EngineMismatchError):
            check_fit(facts, "tensorrt", version, GPU, "x")


@pytest.mark.parametrize(("capability", "fits"), [((8, 9), True), ((7, 5), False)])
def test_ampere_plus_plans_run_on_newer_gpus(capability: tuple[int, int], fits: bool) -> None:
    facts = plan(options=BuildOptions(hardware="ampere-plus"), targets=("sm_80",)).facts
    gpu = Gpu("another", capability, "13.0")
    if fits:
        check_fit(facts, "tensorrt", "10.16.1.11", gpu, "x")
    else:
        with pytest.raises(EngineMismatchError, match="sm_75"):
            check_fit(facts, "tensorrt", "10.16.1.11", gpu, "x")


def test_a_plan_with_plugins_wants_the_same_library(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = plan().facts
    facts = replace(facts, spec=replace(facts.spec, plugins={PLUGINS: "ab" * 32}))
    library = SimpleNamespace(path=Path("lib.so"), sha256="cd" * 32)
    monkeypatch.setattr(trt, "open_plugins", lambda: library)
    with pytest.raises(EngineMismatchError, match=r"abababab.*cdcdcdcd"):
        check_fit(facts, "tensorrt", "10.16.1.11", GPU, "x")

    def missing() -> Any:
        raise MissingExtraError("make plugins")

    monkeypatch.setattr(trt, "open_plugins", missing)
    with pytest.raises(MissingExtraError):
        check_fit(facts, "tensorrt", "10.16.1.11", GPU, "x")


def test_rtx_engines_are_the_same_code() -> None:
    assert issubclass(TensorRtRtxEngine, TensorRtEngine)
    assert TensorRtRtxEngine.backend == "tensorrt-rtx"
