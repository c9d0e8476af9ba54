"""The fast path of torch: its host's side over stand-ins, and whole on host memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch not installed")

from fasterseg.arch.plan import plan as lay_out  # noqa: E402
from fasterseg.errors import (  # noqa: E402
    DeviceLostError,
    EngineError,
    EngineMismatchError,
    MissingExtraError,
    UnsupportedError,
    UsageError,
)
from fasterseg.graph.emit import EmitOptions  # noqa: E402
from fasterseg.nn import cuda_engine, cuda_port  # noqa: E402
from fasterseg.nn.cuda_engine import CudaEngine  # noqa: E402
from fasterseg.nn.engine import TorchEngine  # noqa: E402
from fasterseg.nn.fused import Variant  # noqa: E402
from fasterseg.runtime.base import (  # noqa: E402
    DeviceEngine,
    DeviceTimed,
    EngineSpec,
    LogitsEngine,
    PipelinedEngine,
)
from fasterseg.runtime.model import DEFAULT_MODEL, resolve_model  # noqa: E402
from fasterseg.runtime.store import describe  # noqa: E402
from fasterseg.types import Size  # noqa: E402
from tests.contract.engine import EngineContract  # noqa: E402
from tests.fake_torch_cuda import FakeTorchCuda, failing_at, host_port  # noqa: E402
from tests.parity import street_like  # noqa: E402

pytestmark = pytest.mark.torch

Frames = NDArray[np.uint8]
SIZE = Size(64, 96)
PLAIN = Variant(resize="torch")
LOST = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")


class BlueNetwork:
    """Labels a pixel with its blue value modulo 11; counts what is enqueued."""

    def __init__(self, size: Size) -> None:
        self.plan = SimpleNamespace(size=size)
        self.variant, self.tail = PLAIN, "torch"
        self.runs = 0
        self.fails: Exception | None = None

    def labels(self, frames: Any, out: Any) -> None:
        assert cuda_port.api.current() not in (0, 1), "on a stream of its own"
        self.runs += 1
        if self.fails is not None:
            raise self.fails
        out.copy_(frames[..., 0] % 11)

    def logits8(self, frames: Any) -> Any:
        eighth = frames[:, ::8, ::8, 0].float()
        return torch.stack([eighth * number for number in range(11)], dim=1)


class Bench:
    """A machine of stand-ins."""

    def __init__(self, fake: FakeTorchCuda) -> None:
        self.fake = fake
        self.made: list[BlueNetwork] = []

    def make(self, size: Size) -> Any:
        self.made.append(BlueNetwork(size))
        return self.made[-1]

    def open(self, **changes: Any) -> CudaEngine:
        return CudaEngine(self.make, spec(**changes), SIZE)


def spec(**changes: Any) -> EngineSpec:
    options = EmitOptions(precision="fp16")
    return replace(describe(resolve_model(DEFAULT_MODEL), SIZE, options), **changes)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with host_port() as fake:
        yield Bench(fake)
        assert not fake.capturing


def frames(value: int, batch: int = 1, size: Size = SIZE) -> Frames:
    picture: Frames = np.full((batch, *size, 3), value, np.uint8)
    picture[:, :, 0, 0] = 3
    return picture


def expected(pictures: Frames) -> Frames:
    labels: Frames = pictures[..., 0] % 11
    return labels


def test_labels_come_back_for_every_frame(bench: Bench) -> None:
    engine = bench.open()
    for value in (5, 17, 200, 5, 90):
        assert np.array_equal(engine.run(frames(value)), expected(frames(value)))


def test_a_frame_costs_the_host_one_launch_once_both_slots_are_captured(bench: Bench) -> None:
    engine = bench.open()
    assert not engine.captured
    for value in range(2):
        engine.run(frames(value))
    # One plain run and one capture for each of two slots.
    assert bench.made[0].runs == 4
    assert engine.captured
    bench.fake.log.clear()
    engine.run(frames(7))
    assert bench.made[0].runs == 4
    assert bench.fake.log == ["replay", "record", "event.synchronize"]


def test_two_batches_may_be_on_their_way_and_come_out_in_order(bench: Bench) -> None:
    engine = bench.open()
    for first in (1, 4, 7):
        engine.submit(frames(first))
        engine.submit(frames(first + 1))
        with pytest.raises(UsageError, match=r"collect\(\) one"):
            engine.submit(frames(0))
        assert engine.collect()[0, 5, 5] == first
        engine.submit(frames(first + 2))
        assert engine.collect()[0, 5, 5] == first + 1
        assert engine.collect()[0, 5, 5] == first + 2
    with pytest.raises(UsageError, match=r"submit\(\) one"):
        engine.collect()


def test_another_shape_captures_anew_and_gives_the_old_graphs_up(bench: Bench) -> None:
    engine = bench.open(size=None, batch=None)
    for value in range(3):
        engine.run(frames(value))
    other = frames(4, batch=2, size=Size(72, 80))
    for _ in range(3):
        assert np.array_equal(engine.run(other), expected(other))
    assert [network.plan.size for network in bench.made] == [SIZE, (72, 80)]
    assert bench.fake.pools == {0: 0, 1: 2}, "graphs of the old shape are closed"
    engine.submit(other)
    with pytest.raises(UsageError, match="is on its way"):
        engine.submit(frames(4))
    with pytest.raises(UsageError, match="is on its way"):
        engine.run_logits(frames(4))


def test_another_batch_keeps_the_network(bench: Bench) -> None:
    engine = bench.open(batch=None)
    engine.run(frames(1))
    assert np.array_equal(engine.run(frames(2, batch=3)), expected(frames(2, batch=3)))
    assert len(bench.made) == 1


def test_a_network_that_is_not_to_be_had_for_a_size_leaves_the_engine_usable(bench: Bench) -> None:
    engine = bench.open(size=None)
    engine.run(frames(1))

    def refuse(size: Size) -> Any:
        raise UsageError(f"size {size} is too small")

    assert engine._execution is not None
    work = engine._execution._torch_work
    work._make, made = refuse, work._make
    with pytest.raises(UsageError, match="too small"):
        engine.run(frames(1, size=Size(32, 32)))
    work._make = made
    assert np.array_equal(engine.run(frames(2)), expected(frames(2)))


def test_device_time_is_of_the_network_alone_and_changes_nothing(bench: Bench) -> None:
    engine = bench.open()
    with pytest.raises(UsageError, match="run one batch"):
        engine.time_on_device(3)
    engine.submit(frames(1))
    alone = engine.time_on_device(3)
    # A select, a remainder and a copy of 10 ms each; none of the copies in and out.
    assert len(set(alone)) == 1
    assert alone[0] < 5 * 10.0
    assert np.array_equal(engine.collect(), expected(frames(1)))
    runs = bench.made[0].runs
    assert engine.time_on_device(2) == alone[:2]
    assert bench.made[0].runs == runs, "captured before"


class OnGpu:
    """An array on the "GPU", of anybody."""

    def __init__(self, array: Frames, stream: int | None = None) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": "|u1",
            "data": (array.ctypes.data, False),
            "strides": None,
            "version": 3,
            "stream": stream,
        }


def test_arrays_on_the_gpu_are_worked_on_by_one_graph_between_two_streams(bench: Bench) -> None:
    engine = bench.open()
    for value in (8, 9, 10):
        taken, given = OnGpu(frames(value), stream=7), OnGpu(np.zeros((1, *SIZE), np.uint8))
        bench.fake.waits.clear()
        engine.run_on_device(taken, given, 5)
        assert np.array_equal(given.array, expected(frames(value)))
        (own, caller), (_, producer), (last, before) = bench.fake.waits
        assert (caller, producer, last, before) == (5, 7, 5, own)
    assert bench.made[0].runs == 2
    # What runs from the host is another graph of the same memory.
    assert np.array_equal(engine.run(frames(2)), expected(frames(2)))
    engine.run_on_device(taken, given, 5)
    assert np.array_equal(given.array, expected(frames(10)))
    assert len(bench.fake.pools) == 1


def test_arrays_that_do_not_fit_are_refused(bench: Bench) -> None:
    engine = bench.open()
    given = OnGpu(np.zeros((1, *SIZE), np.uint8))
    with pytest.raises(UsageError, match="64x96"):
        engine.run_on_device(OnGpu(frames(1, size=Size(32, 96))), given, 5)
    with pytest.raises(UsageError, match="no array on the GPU"):
        engine.run_on_device(frames(1), given, 5)  # type: ignore[arg-type]


def test_logits_are_had_without_a_graph(bench: Bench) -> None:
    engine = bench.open()
    logits = engine.run_logits(frames(2))
    assert logits.shape == (1, 11, 8, 12)
    assert logits.dtype == np.float32
    assert logits[0, 3, 1, 1] == 6.0
    assert "capture_begin" not in bench.fake.log


def test_it_offers_what_only_gpu_engines_can(bench: Bench) -> None:
    engine = bench.open()
    for protocol in (DeviceEngine, DeviceTimed, PipelinedEngine, LogitsEngine):
        assert isinstance(engine, protocol)


def test_labels_that_have_no_name_are_refused(bench: Bench) -> None:
    engine = bench.open()
    engine.spec = replace(engine.spec, labels=resolve_model("fasterseg-student").labels)
    engine.run(frames(1))
    few = bench.open()
    few.spec = SimpleNamespace(  # type: ignore[assignment]
        size=SIZE, batch=1, name="few", num_classes=4
    )
    with pytest.raises(EngineMismatchError, match="gave class 9"):
        few.run(frames(9))


# --- failures


def test_memory_that_runs_out_is_told_and_given_back(bench: Bench) -> None:
    engine = bench.open(batch=None)
    engine.run(frames(1))
    bench.made[0].fails = FULL
    with pytest.raises(EngineError, match=r"memory ran out while running.*--batch"):
        engine.run(frames(1, batch=8))
    assert engine._execution is not None
    assert not engine._execution._slots, "its buffers are given back"
    assert not any(bench.fake.pools.values())
    bench.made[0].fails = None
    assert np.array_equal(engine.run(frames(3)), expected(frames(3)))


@pytest.mark.parametrize("buffer", [1, 2, 3, 4])
def test_buffers_that_cannot_be_had_leave_nothing_taken(
    bench: Bench, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = bench.open()
    whole = cuda_port.DeviceBuffer
    failing = failing_at(buffer, EngineError("memory ran out"), whole)
    with monkeypatch.context() as patch:
        patch.setattr(cuda_port, "DeviceBuffer", failing)
        with pytest.raises(EngineError, match="memory ran out"):
            engine.run(frames(1))
    assert engine._execution is not None
    assert not engine._execution._slots
    assert np.array_equal(engine.run(frames(3)), expected(frames(3)))


def test_what_cannot_be_captured_runs_step_by_step(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    engine = bench.open()
    bench.fake.failing["capture_begin"] = RuntimeError("CUDA error: operation not permitted")
    for value in (1, 2, 3, 4):
        assert np.array_equal(engine.run(frames(value)), expected(frames(value)))
    assert engine.captured is False
    assert "no CUDA graph" in caplog.text
    assert len(engine.time_on_device(2)) == 2
    assert "replay" not in bench.fake.log


@pytest.mark.parametrize("call", ["replay", "event.synchronize", "capture_end"])
def test_a_lost_device_is_told_and_every_later_call_refuses_at_once(
    bench: Bench, call: str
) -> None:
    engine = bench.open()
    if call != "capture_end":
        engine.run(frames(1))
        engine.run(frames(2))
    bench.fake.failing[call] = LOST
    with pytest.raises(DeviceLostError, match=r"illegal memory access.*lost.*start again"):
        engine.run(frames(3))
    bench.fake.log.clear()
    calls: list[Callable[[], Any]] = [
        lambda: engine.run(frames(1)),
        lambda: engine.submit(frames(1)),
        engine.collect,
        lambda: engine.time_on_device(1),
        lambda: engine.run_logits(frames(1)),
        lambda: engine.run_on_device(OnGpu(frames(1)), OnGpu(np.zeros((1, *SIZE), np.uint8)), 5),
    ]
    for again in calls:
        with pytest.raises(DeviceLostError, match="illegal memory access"):
            again()
    assert not bench.fake.log, "nothing is asked of the device"
    bench.fake.failing = dict.fromkeys(("synchronize", "reset", "empty_cache"), LOST)
    engine.close()
    with pytest.raises(UsageError, match="closed"):
        engine.run(frames(1))


def test_close_leaves_nothing_behind(bench: Bench) -> None:
    engine = bench.open()
    labels = engine.run(frames(6))
    engine.submit(frames(1))
    engine.time_on_device(2)
    network = weakref.ref(bench.made.pop())
    bench.fake.log.clear()
    engine.close()
    engine.close()
    assert network() is None
    assert not any(bench.fake.pools.values())
    assert not cuda_port._HELD
    assert bench.fake.log[-1] == "empty_cache"
    assert engine.captured is None
    assert np.array_equal(labels, expected(frames(6))), "what was handed out stays readable"
    with pytest.raises(UsageError, match="closed"):
        engine.collect()


def test_two_engines_work_in_two_threads(bench: Bench) -> None:
    wrong: list[int] = []

    def work(first: int) -> None:
        engine = bench.open()
        for value in range(first, first + 20):
            if not np.array_equal(engine.run(frames(value)), expected(frames(value))):
                wrong.append(value)
        engine.close()

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(bench.made) == 2


# --- whole, with a real network on host memory


def real(size: Size) -> CudaEngine:
    model = resolve_model(DEFAULT_MODEL)
    network = lay_out(model.genotype, size)
    described = describe(model, size, EmitOptions())
    return CudaEngine.of(PLAIN, network, model.load_weights(network), described, None)


def test_a_real_network_gives_the_references_labels_on_frame_after_frame() -> None:
    size = Size(96, 160)
    with host_port():
        engine = real(size=size)
        model = resolve_model(DEFAULT_MODEL)
        network = lay_out(model.genotype, size)
        weights = model.load_weights(network)
        reference = TorchEngine.build(network, weights, engine.spec, "cpu", None)
        for seed in range(5):
            picture = street_like(size, seed)
            assert np.mean(engine.run(picture) == reference.run(picture)) >= 0.9999
            if seed in (0, 4):
                wanted = reference.run_logits(picture)
                error = np.abs(engine.run_logits(picture) - wanted).max()
                assert error <= 1e-4 * max(1.0, float(np.abs(wanted).max()))
        assert engine.captured is True
        engine.close()


class TestContract(EngineContract):
    """The contract of all engines, by a real network on host memory."""

    @pytest.fixture(autouse=True)
    def _machine(self) -> Iterator[None]:
        with host_port():
            yield

    def open(self) -> Any:
        from tests.contract.engine import SIZE as CONTRACT_SIZE

        return real(size=CONTRACT_SIZE)

    def test_says_what_it_is(self) -> None:
        engine = self.open()
        assert (engine.device, engine.tail, engine.backend) == ("cuda", "torch", "torch")


# --- build


class Built:
    """What `build` was to make."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kernels: Callable[[], Any]) -> None:
        self.asked: list[tuple[Variant, Any]] = []
        self.notes: list[str] = []
        self.question: Any = None
        monkeypatch.setattr(cuda_engine, "open_kernels", kernels)
        monkeypatch.setattr(cuda_engine, "facts", lambda plan, kernels: {})
        monkeypatch.setattr(cuda_engine, "choose", self._choose)
        monkeypatch.setattr(CudaEngine, "of", self._of)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")

    def _of(self, variant: Variant, plan: Any, weights: Any, spec: Any, kernels: Any) -> Any:
        self.asked.append((variant, kernels))
        return "engine"

    def _choose(self, question: Any, on_note: Callable[[str], None]) -> Variant:
        self.question = question
        on_note("chosen")
        return question.variants[-1]  # type: ignore[no-any-return]

    def build(self, **options: Any) -> Any:
        model = resolve_model(DEFAULT_MODEL)
        network, precision = lay_out(model.genotype, SIZE), options.pop("precision", "fp16")
        described = spec(precision=precision)
        build = TorchEngine.build
        return build(network, {}, described, "cuda", None, on_note=self.notes.append, **options)


def no_kernels() -> Any:
    raise MissingExtraError("not there")


def test_on_a_gpu_the_torch_engine_is_the_chosen_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch, lambda: "kernels")
    assert built.build() == "engine"
    assert built.asked == [(built.question.variants[-1], "kernels")]
    assert (built.question.size, built.question.batch) == (SIZE, 1)
    assert built.notes == ["chosen"]
    built.build(tuned=False)
    assert built.asked[-1][0] == built.question.variants[0]


@pytest.mark.parametrize(
    ("found", "note"),
    [
        (no_kernels, "make plugins builds them"),
        (lambda: (_ for _ in ()).throw(EngineMismatchError("version 7")), "left out: version 7"),
    ],
)
def test_kernels_that_are_not_there_are_done_without_and_told(
    found: Callable[[], Any], note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Built(monkeypatch, found)
    built.build()
    variant, kernels = built.asked[0]
    assert kernels is None
    assert variant.resize == "torch"
    assert note in built.notes[0]


def test_without_plugins_none_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch, lambda: pytest.fail("looked for"))
    built.build(plugins="off")
    assert built.asked[0][1] is None
    assert built.notes == ["chosen"]


def test_bf16_is_refused_where_the_gpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    built = Built(monkeypatch, no_kernels)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(UnsupportedError, match=r"sm_75.*does not compute in bf16.*sm_80"):
        built.build(precision="bf16")
    built.build(precision="fp16")
