from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.bench.agreement import labels_of, with_agreement
from fasterseg.bench.cells import EndToEnd, Sharing
from fasterseg.bench.engines import Frames, run_suite
from fasterseg.bench.scopes import BoundEngine, bench_engine, busy
from fasterseg.bench.streams import Share
from fasterseg.bench.suite import Access, Candidate, Suite
from fasterseg.bench.timing import TimingProtocol
from fasterseg.errors import DeviceUnavailableError, EngineMismatchError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.runtime.base import Engine, EngineSpec
from fasterseg.stream.gathering import SharingStats
from fasterseg.types import LatencyStats, Precision, Size

SIZE = Size(64, 96)
SHORT = TimingProtocol("short", warmup_runs=1, min_runs=8)


class FakeEngine:
    """Labels are the frame's blue channel; each call takes the next of `durations_ms`."""

    tail = "graph"

    def __init__(
        self,
        durations_ms: Sequence[float] = (10.0,),
        *,
        backend: str = "onnxruntime",
        precision: Precision = "fp32",
        device: str = "cpu",
        shift: int = 0,
        source: str = "abc",
    ) -> None:
        self.spec = EngineSpec(
            name="tiny",
            labels=CAMVID,
            size=SIZE,
            batch=1,
            precision=precision,
            output="labels",
            genotype=None,
            source_sha256=source,
        )
        self.backend = backend
        self.device = device
        self.durations_ms = durations_ms
        self.shift = shift
        self.now_ns = 0
        self.calls = 0
        self.inputs: list[int] = []
        self.closed = False
        self._buffer: NDArray[np.uint8] | None = None

    def clock(self) -> int:
        return self.now_ns

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert not self.closed
        self.inputs.append(int(frames[0, 0, 0, 1]))
        self.now_ns += round(self.durations_ms[self.calls % len(self.durations_ms)] * 1e6)
        self.calls += 1
        if self._buffer is None or self._buffer.shape != frames.shape[:3]:
            self._buffer = np.empty(frames.shape[:3], np.uint8)
        # One buffer for all calls, as real engines have.
        self._buffer[...] = frames[..., 0]
        self._buffer[..., : self.shift] += 1
        return self._buffer

    def close(self) -> None:
        self.closed = True


class BoundFake(FakeEngine):
    """Also runs on bound buffers, in 4 ms; binding takes 100 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.bound: list[int] = []
        self.current = -1

    def bind(self, frames: NDArray[np.uint8]) -> None:
        self.now_ns += 100_000_000
        self.current = int(frames[0, 0, 0, 1])

    def run_bound(self) -> None:
        self.now_ns += 4_000_000
        self.bound.append(self.current)


class DeviceFake(BoundFake):
    """Has a device clock, which is better than bound buffers."""

    def time_on_device(self, iterations: int) -> Sequence[float]:
        return [0.5] * iterations


def batches(size: Size = SIZE, batch: int = 1, count: int = 4) -> list[Frames]:
    """Frames whose blue channel holds ids 0 to 10 by column and whose green one is the number."""
    made = []
    for number in range(count):
        frames = np.zeros((batch, *size, 3), np.uint8)
        frames[..., 0] = np.arange(size.width) % 11
        frames[..., 1] = number
        made.append(frames)
    return made


def test_host_to_labels_is_timed_on_changing_inputs() -> None:
    engine = FakeEngine([10.0])
    cell = bench_engine(engine, SHORT, batches(), clock=engine.clock)
    assert cell.host_to_labels.p50_ms == 10.0
    assert cell.host_to_labels.count == 8
    first, *timed = engine.inputs
    assert first == 0
    assert timed == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_first_run_is_told_apart_from_the_rest() -> None:
    engine = FakeEngine([500.0] + [10.0] * 9)
    cell = bench_engine(engine, SHORT, batches(), clock=engine.clock)
    assert cell.first_run_ms == 500.0
    assert cell.host_to_labels.p99_ms == 10.0


def test_cell_says_what_was_measured() -> None:
    engine = FakeEngine(precision="fp16")
    cell = bench_engine(engine, SHORT, batches(batch=3), threads=2, clock=engine.clock)
    assert (cell.engine, cell.precision, cell.device, cell.tail) == (
        "onnxruntime",
        "fp16",
        "cpu",
        "graph",
    )
    assert (cell.size, cell.batch, cell.threads) == (SIZE, 3, 2)
    assert cell.fps_host_to_labels == 300.0


def test_model_scope_is_null_for_an_engine_that_cannot_be_timed_alone() -> None:
    engine = FakeEngine()
    cell = bench_engine(engine, SHORT, batches(), clock=engine.clock)
    assert cell.model is None
    assert cell.model_clock is None


def test_model_scope_of_a_bound_engine_leaves_binding_out_and_changes_inputs() -> None:
    engine = BoundFake()
    assert isinstance(engine, BoundEngine)
    cell = bench_engine(engine, SHORT, batches(), clock=engine.clock)
    assert cell.model is not None
    assert (cell.model.p50_ms, cell.model.count, cell.model_clock) == (4.0, 8, "host")
    assert engine.bound == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_device_clock_is_preferred_for_the_model_scope() -> None:
    engine = DeviceFake()
    cell = bench_engine(engine, SHORT, batches(), clock=engine.clock)
    assert cell.model is not None
    assert (cell.model.p50_ms, cell.model_clock) == (0.5, "device")
    assert engine.bound == []


def test_cpu_time_is_measured_on_request_only() -> None:
    engine = FakeEngine()
    assert bench_engine(engine, SHORT, batches(), clock=engine.clock).host_to_labels_cpu is None
    cell = bench_engine(engine, SHORT, batches(), cpu_time=True, clock=engine.clock)
    assert cell.host_to_labels_cpu is not None
    assert cell.host_to_labels_cpu.count == 8


def test_one_unchanging_input_is_refused() -> None:
    with pytest.raises(ValueError, match="change"):
        bench_engine(FakeEngine(), SHORT, batches(count=1))


@pytest.mark.parametrize(("durations", "unstable"), [([9.5, 10.5], False), ([8.0, 12.0], True)])
def test_unsteady_times_are_warned_about(durations: list[float], unstable: bool) -> None:
    engine = FakeEngine(durations)
    cell = bench_engine(engine, SHORT, batches(), clock=engine.clock)
    assert any("host_to_labels varies by 20%" in line for line in cell.warnings) == unstable
    assert bool(cell.warnings) == unstable


def test_busy_machine_is_warned_about() -> None:
    assert busy(1.0, cores=2) == ()
    assert busy(None, cores=2) == ()
    (warning,) = busy(1.5, cores=2)
    assert "1.5" in warning


def test_agreement_counts_all_pixels_of_all_frames() -> None:
    frames = batches()
    frames[3][:, 0, 0, 0] += 1
    cell = bench_engine(FakeEngine(), SHORT, frames)
    expected = labels_of(FakeEngine(), frames)
    same = with_agreement(cell, labels_of(FakeEngine(), frames), expected)
    assert same.label_agreement == 1.0
    assert same.warnings == cell.warnings
    shifted = with_agreement(cell, labels_of(FakeEngine(shift=24), frames), expected)
    assert shifted.label_agreement == 0.75
    one_pixel = [maps.copy() for maps in expected]
    one_pixel[3][0, 63, 95] += 1
    assert with_agreement(cell, one_pixel, expected).label_agreement == 1 - 1 / (4 * SIZE.pixels)


def test_labels_are_copied_out_of_the_engines_buffer() -> None:
    frames = batches()
    frames[0][..., 0] = 7
    first, second, *_ = labels_of(FakeEngine(), frames)
    assert np.unique(first).tolist() == [7]
    assert len(np.unique(second)) == 11


def test_agreement_on_one_class_is_called_weak() -> None:
    cell = bench_engine(FakeEngine(), SHORT, batches())
    flat = [np.zeros((1, 10, 10), np.uint8)]
    flat[0][0, 0, :5] = 3
    (warning,) = set(with_agreement(cell, flat, flat).warnings) - set(cell.warnings)
    assert "95%" in warning


def test_class_maps_of_another_shape_are_an_error() -> None:
    cell = bench_engine(FakeEngine(), SHORT, batches())
    maps = [np.zeros((1, 4, 4), np.uint8)]
    with pytest.raises(EngineMismatchError, match="class maps"):
        with_agreement(cell, maps, [np.zeros((1, 4, 5), np.uint8)])


class Opened:
    """An opener over ready engines, which keeps what was opened."""

    def __init__(self, **engines: FakeEngine | Exception) -> None:
        self.engines = engines
        self.asked: list[tuple[str, str, str, Size]] = []

    def __call__(self, asked: Candidate) -> FakeEngine:
        self.asked.append((asked.engine, asked.precision, asked.device, asked.size))
        found = self.engines[asked.engine]
        if isinstance(found, Exception):
            raise found
        found.closed = False
        return found


def suite(*engines: str, sizes: tuple[Size, ...] = (SIZE,)) -> Suite:
    return Suite(engines=engines, sizes=sizes, protocol=SHORT)


def test_suite_measures_every_engine_at_every_size_and_closes_them() -> None:
    opener = Opened(onnxruntime=FakeEngine(), other=FakeEngine(backend="other", shift=48))
    notes: list[str] = []
    record = run_suite(
        suite("onnxruntime", "other", sizes=(SIZE, Size(32, 96))),
        Access(opener),
        notes.append,
        render=lambda size, batch: batches(size, batch),
    )
    assert [(cell.engine, str(cell.size)) for cell in record.cells] == [
        ("onnxruntime", "64x96"),
        ("other", "64x96"),
        ("onnxruntime", "32x96"),
        ("other", "32x96"),
    ]
    assert [cell.label_agreement for cell in record.cells][:2] == [None, 0.5]
    assert record.model == "tiny"
    assert record.protocol == SHORT
    assert all(cell.build_s is not None for cell in record.cells)
    assert all(
        engine.closed for engine in opener.engines.values() if isinstance(engine, FakeEngine)
    )
    assert any(line.startswith("[2/4] other") for line in notes)


def test_reference_is_opened_once_per_size() -> None:
    opener = Opened(
        onnxruntime=FakeEngine(),
        a=FakeEngine(backend="a"),
        b=FakeEngine(backend="b", precision="fp16"),
    )
    run_suite(suite("a", "b"), Access(opener), print, render=lambda s, n: batches(s, n))
    assert opener.asked.count(("onnxruntime", "fp32", "cpu", SIZE)) == 1


def test_no_agreement_without_a_reference_or_with_other_weights() -> None:
    notes: list[str] = []
    absent = Opened(onnxruntime=DeviceUnavailableError("gone"), a=FakeEngine(backend="a"))
    record = run_suite(suite("a"), Access(absent), notes.append, render=lambda s, n: batches(s, n))
    assert record.cells[0].label_agreement is None
    assert any("gone" in line for line in notes)
    other = Opened(onnxruntime=FakeEngine(), a=FakeEngine(backend="a", source="xyz"))
    record = run_suite(suite("a"), Access(other), notes.append, render=lambda s, n: batches(s, n))
    assert record.cells[0].label_agreement is None
    assert any("other weights" in line for line in notes)


def test_record_of_two_models_is_refused() -> None:
    stranger = FakeEngine(backend="b")
    stranger.spec = replace(stranger.spec, name="stranger")
    opener = Opened(onnxruntime=FakeEngine(), b=stranger)
    with pytest.raises(UsageError, match="stranger"):
        run_suite(
            suite("onnxruntime", "b"), Access(opener), print, render=lambda s, n: batches(s, n)
        )


def test_tails_are_measured_of_the_engines_that_leave_the_choice() -> None:
    several = Suite(
        engines=("onnxruntime", "openvino", "torch", "x.onnx"),
        sizes=(Size(64, 64),),
        tails=("graph", "native"),
    )
    assert [(found.engine, found.tail) for found in several.candidates()] == [
        ("onnxruntime", "graph"),
        ("onnxruntime", "native"),
        ("openvino", "graph"),
        ("openvino", "native"),
        ("torch", "auto"),
        ("x.onnx", "auto"),
    ]
    # One that does not fit is asked for all the same, and refused by whoever opens it.
    [single] = Suite(engines=("torch",), sizes=(Size(64, 64),), tails=("native",)).candidates()
    assert single.tail == "native"
    assert str(single) == "torch auto 64x64, tail native"


def test_suite_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="--engine"):
        run_suite(suite(), Access(Opened()), print)


def run(asked: Suite, access: Access, notes: list[str] | None = None) -> list[Any]:
    """The cells of a suite on fake frames."""
    taken = notes if notes is not None else []
    record = run_suite(asked, access, taken.append, render=lambda s, n: batches(s, n))
    return list(record.cells)


def test_precisions_batches_and_sizes_are_all_measured() -> None:
    asked = Suite(
        engines=("a",),
        sizes=(SIZE, Size(32, 96)),
        batches=(1, 2),
        precisions=("fp32", "int8"),
        protocol=SHORT,
    )
    found = [(str(c.size), c.batch, c.precision) for c in asked.candidates()]
    assert found == [
        (size, batch, precision)
        for size in ("64x96", "32x96")
        for batch in (1, 2)
        for precision in ("fp32", "int8")
    ]
    cells = run(asked, Access(Opened(a=FakeEngine(), onnxruntime=FakeEngine())))
    assert [(str(cell.size), cell.batch) for cell in cells] == [each[:2] for each in found]


def test_an_engine_below_its_limit_is_called_wrong() -> None:
    wrong, right = FakeEngine(backend="a", shift=1), FakeEngine(backend="b")
    access = Access(Opened(onnxruntime=FakeEngine(), a=wrong, b=right), limits={"fp32": 0.9999})
    first, second = run(suite("a", "b"), access)
    assert (first.verdict, second.verdict) == ("wrong", "ok")
    assert any(line.startswith("WRONG: 98.958%") for line in first.warnings)
    assert not any("WRONG" in line for line in second.warnings)


def test_labels_of_random_weights_are_judged_in_fp32_only() -> None:
    cell = bench_engine(FakeEngine(precision="int8"), SHORT, batches())
    maps, expected = (labels_of(FakeEngine(shift=shift), batches()) for shift in (48, 0))
    assert with_agreement(cell, maps, expected, trained=True).verdict == "wrong"
    untrained = with_agreement(cell, maps, expected, trained=False)
    assert (untrained.verdict, untrained.label_agreement) == (None, 0.5)
    single = replace(cell, precision="fp32")
    assert with_agreement(single, maps, expected, trained=False).verdict == "wrong"


def test_device_that_waits_for_the_host_is_warned_about() -> None:
    engine = DeviceFake()
    cell = bench_engine(engine, SHORT, batches(), clock=engine.clock)
    assert any("bound by the host" in line for line in cell.warnings)
    host = BoundFake()
    cell = bench_engine(host, SHORT, batches(), clock=host.clock)
    assert not any("bound by the host" in line for line in cell.warnings)


def test_percentiles_of_every_scope_are_kept() -> None:
    engine = BoundFake()
    cell = bench_engine(engine, SHORT, batches(), clock=engine.clock)
    assert set(cell.percentiles_ms) == {"host_to_labels", "model"}
    assert len(cell.percentiles_ms["model"]) == 101
    assert cell.rounds_ms == {}


def test_interleaved_engines_have_as_many_rounds_each() -> None:
    engines = {"a": FakeEngine(backend="a"), "b": BoundFake(), "onnxruntime": FakeEngine()}
    engines["b"].backend = "b"
    asked = replace(suite("a", "b", sizes=(SIZE, Size(32, 96))), interleave=True)
    cells = run(asked, Access(Opened(**engines)))
    assert len({len(cell.rounds_ms["host_to_labels"]) for cell in cells}) == 1
    assert [set(cell.rounds_ms) for cell in cells[:2]] == [
        {"host_to_labels"},
        {"host_to_labels", "model"},
    ]
    assert all(engine.closed for engine in engines.values())
    assert all(cell.first_run_ms is not None for cell in cells)


def test_streams_run_on_engines_of_their_own() -> None:
    made: list[FakeEngine] = []

    def opener(asked: Candidate) -> FakeEngine:
        made.append(FakeEngine())
        return made[-1]

    (cell,) = run(replace(suite("onnxruntime"), streams=(3,)), Access(opener))
    assert len(made) == 3
    assert all(engine.calls > 0 and engine.closed for engine in made)
    assert (cell.streams, cell.model) == (3, None)
    assert cell.fps_host_to_labels == cell.throughput_fps > 0


class FakeShared:
    """Streams take turns on the engine, and what is asked is kept."""

    def __init__(self, engine: FakeEngine, share: Share) -> None:
        self.max_batch, self.max_delay_ms = share.max_batch, share.max_delay_ms
        self.events: list[str] = []
        self.engine = engine
        self.lock = threading.Lock()
        self.calls = 0

    def open(self) -> FakeEngine:
        self.events.append("open")
        stream = FakeEngine()
        answer = stream.run

        def run(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
            with self.lock:
                self.calls += 1
                self.engine.calls += 1
            return answer(frames)

        stream.run = run  # type: ignore[method-assign]
        return stream

    def statistics(self) -> SharingStats:
        return SharingStats(self.calls, self.calls, 0.5, LatencyStats.of([2.0, 4.0]))

    def restart_statistics(self) -> None:
        self.events.append("restart")
        self.calls = 0

    def close(self) -> None:
        assert not self.engine.closed, "the engine goes last"
        self.events.append("close")


def test_streams_share_one_engine_where_asked_to() -> None:
    made: list[FakeEngine] = []
    shared: list[FakeShared] = []

    def opener(asked: Candidate) -> FakeEngine:
        made.append(FakeEngine(backend=asked.engine))
        made[-1].spec = replace(made[-1].spec, batch=asked.engine_batch)
        return made[-1]

    def sharer(engine: Engine, share: Share) -> FakeShared:
        shared.append(FakeShared(cast("FakeEngine", engine), share))
        return shared[-1]

    def film(engine: Engine) -> EndToEnd:
        raise AssertionError("one stream of a shared engine is no engine of its own")

    asked = replace(suite("onnxruntime"), streams=(1, 3), share=Share(8, 2.5))
    first, second = run(asked, Access(opener, sharer=sharer, film=film))
    assert [engine.spec.batch for engine in made] == [1, 3], "more frames never meet"
    assert all(engine.calls > 0 and engine.closed for engine in made)
    assert [one.events for one in shared] == [
        ["open", "restart", "close"],
        ["open", "open", "open", "restart", "close"],
    ]
    assert (first.streams, second.streams, second.batch) == (1, 3, 1)
    assert second.sharing == Sharing(
        3, 2.5, second.sharing.batches, 0.5, LatencyStats.of([2.0, 4.0])
    )
    assert len(second.by_stream) == 3
    assert sum(stats.count for stats in second.by_stream) == second.host_to_labels.count
    assert second.fps_host_to_labels == second.throughput_fps > 0


def test_an_engine_file_keeps_its_batch_whatever_the_streams() -> None:
    asked = replace(suite("x.engine", "torch"), streams=(1, 4), share=Share(8))
    batches_asked = [(c.engine, c.engine_batch) for c in asked.candidates()]
    assert batches_asked == [("x.engine", 8), ("torch", 1), ("x.engine", 8), ("torch", 4)]
    assert str(asked.candidates()[3]) == "torch auto 64x96, 4 streams, one engine"


@pytest.mark.parametrize(
    ("change", "message"),
    [({"interleave": True}, "--interleave"), ({"batches": (2,)}, "--max-batch")],
)
def test_what_does_not_go_with_sharing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(suite("a"), share=Share(), **change).candidates()


def test_streams_and_turns_exclude_each_other() -> None:
    asked = replace(suite("a"), streams=(1, 4), interleave=True)
    with pytest.raises(UsageError, match="--streams"):
        asked.candidates()


def test_a_precision_that_only_some_engines_have_is_left_out_of_the_others() -> None:
    def check(asked: Candidate) -> None:
        if (asked.engine, asked.precision) == ("b", "int8"):
            raise UsageError("b has no int8")

    opener = Opened(a=FakeEngine(backend="a"), b=FakeEngine(backend="b"), onnxruntime=FakeEngine())
    access = Access(opener, check=check)
    notes: list[str] = []
    asked = replace(suite("a", "b"), precisions=("fp32", "int8"))
    assert len(run(asked, access, notes)) == 3
    assert any("left out: b int8" in line for line in notes)
    with pytest.raises(UsageError, match="no int8"):
        run(replace(suite("b"), precisions=("int8",)), access)


def film_of(bound_by: str) -> EndToEnd:
    """A run of two stages."""
    medians = {"decode": 9.0, "prepare": 1.0, "engine": 2.0, "finish": 1.0, "write": 1.0}
    stages = {stage: LatencyStats.of([ms]) for stage, ms in medians.items()}
    return EndToEnd("a.mp4", "64x96", "none", 5, 0.05, 100.0, stages, bound_by)


def test_end_to_end_times_are_those_of_the_engine_and_warn_where_it_is_not_the_slowest() -> None:
    filmed: list[str] = []

    def film(engine: Any) -> EndToEnd:
        assert not engine.closed
        filmed.append(engine.backend)
        return film_of("reader")

    access = Access(Opened(onnxruntime=FakeEngine()), film=film)
    (single, batched) = run(replace(suite("onnxruntime"), batches=(1, 2)), access)
    assert filmed == ["onnxruntime"]
    assert single.end_to_end == film_of("reader")
    assert batched.end_to_end is None
    assert any("reader (decode 9.00, prepare 1.00 ms a frame)" in w for w in single.warnings)
    assert film_of("engine").warnings() == ()
