"""Streams on one engine: each its own labels, in time, whatever the others do."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.errors import EngineError, UsageError
from fasterseg.labels import CAMVID
from fasterseg.runtime.base import Engine, EngineSpec
from fasterseg.runtime.select import EngineRequest, open_engine
from fasterseg.stream.batching import SharedEngine, SharedStream
from fasterseg.stream.readahead import Worker
from fasterseg.stream.segmenter import Segmenter
from fasterseg.types import Size
from tests.contract.engine import SIZE as CONTRACT_SIZE
from tests.contract.engine import EngineContract
from tests.parity import street_like
from tests.unit.stream.conftest import numbered

Labels = NDArray[np.uint8]

SIZE = Size(4, 6)
PATIENCE_S = 10.0
CALLERS: list[Worker] = []
NEVER_MS = 60_000.0


@pytest.fixture(autouse=True)
def _callers_have_ended(_no_thread_is_left: None) -> Iterator[None]:
    """Wait for the threads of `ask` before it is checked that none is left."""
    yield
    while CALLERS:
        CALLERS.pop().join(PATIENCE_S)


def frame(number: int, size: Size = SIZE) -> Labels:
    """A frame whose every value is its number, which is what the engine answers."""
    return np.full((1, *size, 3), number, np.uint8)


class Numbers:
    """An engine whose labels are the blue channel; one buffer for all answers, as real ones have.

    Attributes:
        seen: per batch, the numbers of its frames, filling included.
        gate: a batch is answered once this is set.
        under_way: released when a batch begins.
        errors: number of a frame -> what its batch raises.
    """

    backend, device, tail = "numbers", "cpu", "none"

    def __init__(self, batch: int | None = None, size: Size | None = SIZE) -> None:
        self.spec = EngineSpec("numbers", CAMVID, size, batch, "fp32", "labels", None)
        self.seen: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.under_way = threading.Semaphore(0)
        self.errors: dict[int, Exception] = {}
        self.closed = False
        self._buffer: Labels = np.zeros(0, np.uint8)

    def run(self, frames: Labels) -> Labels:
        self._begin(frames)
        return self._answer(frames)

    def close(self) -> None:
        self.closed = True

    def _begin(self, frames: Labels) -> None:
        assert self.spec.batch in (None, len(frames))
        self.seen.append(frames[:, 0, 0, 0].tolist())
        self.under_way.release()

    def _answer(self, frames: Labels) -> Labels:
        assert self.gate.wait(PATIENCE_S)
        for number in frames[:, 0, 0, 0].tolist():
            if number in self.errors:
                raise self.errors[number]
        if self._buffer.shape != frames.shape[:3]:
            self._buffer = np.empty(frames.shape[:3], np.uint8)
        self._buffer[...] = frames[..., 0]
        return self._buffer


class NumbersAhead(Numbers):
    """The same with two batches on their way; `most` of them there were."""

    def __init__(self, batch: int | None = None, size: Size | None = SIZE) -> None:
        super().__init__(batch, size)
        self.waiting: list[Labels] = []
        self.most = 0
        self.refused: list[int] = []

    def submit(self, frames: Labels) -> None:
        assert len(self.waiting) < 2
        assert not self.waiting or self.waiting[0].shape == frames.shape
        if frames[0, 0, 0, 0] in self.refused:
            raise EngineError("not taken")
        self._begin(frames)
        # Read later, where it lies: the memory must stay as it is until then.
        self.waiting.append(frames)
        self.most = max(self.most, len(self.waiting))

    def collect(self) -> Labels:
        return self._answer(self.waiting.pop(0))


def ask(
    stream: SharedStream, number: int, size: Size = SIZE, turns: list[int] | None = None
) -> Future[Labels]:
    """Call a stream in a thread of its own, after its turn has come where `turns` notes them."""
    answer: Future[Labels] = Future()

    def work() -> None:
        try:
            if turns is not None:
                stream.await_turn()
                turns.append(number)
            answer.set_result(stream.run(frame(number, size)).copy())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            answer.set_exception(error)

    worker = Worker("test", work)
    worker.start()
    CALLERS.append(worker)
    return answer


def number_in(answer: Future[Labels]) -> int:
    (number,) = np.unique(answer.result(PATIENCE_S)).tolist()
    return int(number)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


def waiting(shared: SharedEngine) -> int:
    """Frames that have their place in a batch and are not begun."""
    with shared._changed:
        return sum(len(batch.calls) - batch.copying for batch in shared._gathering._waiting)


def ask_in_turn(shared: SharedEngine, asked: dict[int, SharedStream]) -> list[Future[Labels]]:
    """Have streams wait for the engine, in this order."""
    answers = []
    for number, stream in asked.items():
        before = waiting(shared)
        answers.append(ask(stream, number))
        until(lambda before=before: waiting(shared) == before + 1)  # type: ignore[misc]
    return answers


@contextmanager
def sharing(
    engine: Numbers, streams: int, *, max_batch: int = 4, max_delay_ms: float = NEVER_MS
) -> Iterator[tuple[SharedEngine, list[SharedStream]]]:
    with SharedEngine(engine, max_batch, max_delay_ms) as shared:
        try:
            yield shared, [shared.open() for _ in range(streams)]
        finally:
            engine.gate.set()


def test_a_full_batch_does_not_wait_for_the_others() -> None:
    engine = Numbers()
    with sharing(engine, 4, max_batch=3) as (_, streams):
        answers = [ask(stream, number) for number, stream in enumerate(streams[:3])]
        assert [number_in(answer) for answer in answers] == [0, 1, 2]
    assert [sorted(batch) for batch in engine.seen] == [[0, 1, 2]]


def test_a_batch_of_all_open_streams_does_not_wait() -> None:
    engine = Numbers()
    with sharing(engine, 2, max_batch=8) as (_, streams):
        answers = [ask(stream, number) for number, stream in enumerate(streams)]
        assert [number_in(answer) for answer in answers] == [0, 1]
    assert len(engine.seen) == 1


def test_a_lone_frame_waits_for_the_delay_and_no_longer() -> None:
    engine = Numbers()
    with sharing(engine, 2, max_delay_ms=50.0) as (shared, streams):
        busy = time.process_time()
        assert number_in(ask(streams[0], 5)) == 5
        assert time.process_time() - busy < 0.04, "waiting takes no processor time"
        waited = shared.statistics().waited
        assert waited is not None
        assert 50.0 <= waited.min_ms < 1e3


def test_frames_that_come_while_the_engine_is_busy_are_run_together() -> None:
    engine = Numbers()
    with sharing(engine, 4, max_delay_ms=0.0) as (shared, streams):
        engine.gate.clear()
        answers = [ask(streams[0], 10)]
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        answers += ask_in_turn(shared, {11: streams[1], 12: streams[2], 13: streams[3]})
        engine.gate.set()
        assert [number_in(answer) for answer in answers] == [10, 11, 12, 13]
    assert engine.seen == [[10], [11, 12, 13]]


def test_nobody_gets_ahead_of_a_stream_that_waits_longer() -> None:
    engine = Numbers()
    with sharing(engine, 4, max_batch=2, max_delay_ms=0.0) as (shared, streams):
        engine.gate.clear()
        answers = [ask(streams[0], 10)]
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        answers += ask_in_turn(shared, {13: streams[3], 11: streams[1], 12: streams[2]})
        engine.gate.set()
        assert [number_in(answer) for answer in answers] == [10, 13, 11, 12]
    assert engine.seen == [[10], [13, 11], [12]]


def test_a_turn_comes_when_no_other_one_waits_and_in_the_order_of_asking() -> None:
    engine = Numbers()
    turns: list[int] = []
    with sharing(engine, 5, max_batch=1, max_delay_ms=0.0) as (shared, streams):
        engine.gate.clear()
        answers = [ask(streams[0], 10)]
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        answers.append(ask(streams[1], 11, turns=turns))
        until(lambda: waiting(shared) == 1)
        for place, (number, stream) in enumerate(zip((14, 12, 13), streams[2:], strict=True)):
            answers.append(ask(stream, number, turns=turns))
            until(lambda place=place: len(shared._turns) == place + 1)  # type: ignore[misc]
        # One is computed and one waits: whoever got a turn now would wait for two.
        assert turns == [11]
        engine.gate.set()
        assert [number_in(answer) for answer in answers] == [10, 11, 14, 12, 13]
    assert turns == [11, 14, 12, 13]
    assert engine.seen == [[10], [11], [14], [12], [13]]


def test_frames_of_files_which_always_wait_keep_nobody_from_a_turn() -> None:
    engine = Numbers()
    with sharing(engine, 4, max_batch=1, max_delay_ms=0.0) as (shared, streams):
        engine.gate.clear()
        answers = [ask(streams[0], 10)]
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        answers += ask_in_turn(shared, {11: streams[1], 12: streams[2]})
        answers.append(ask(streams[3], 13, turns=[]))
        until(lambda: waiting(shared) == 3)
        engine.gate.set()
        assert [number_in(answer) for answer in answers] == [10, 11, 12, 13]
    assert engine.seen == [[10], [11], [12], [13]]


def test_turns_are_for_engines_that_run_one_frame_at_a_time() -> None:
    engine = Numbers()
    with sharing(engine, 2, max_batch=2) as (shared, streams):
        engine.gate.clear()
        answer = ask(streams[0], 10)
        until(lambda: waiting(shared) == 1)
        streams[1].await_turn()
        engine.gate.set()
        streams[1].close()
        assert number_in(answer) == 10


def test_close_ends_the_waiting_for_a_turn() -> None:
    engine = Numbers()
    with sharing(engine, 3, max_batch=1, max_delay_ms=0.0) as (shared, streams):
        engine.gate.clear()
        first = ask(streams[0], 10)
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        ask(streams[1], 11, turns=[])
        until(lambda: waiting(shared) == 1)
        last = ask(streams[2], 12, turns=[])
        until(lambda: len(shared._turns) == 1)
        streams[2].close()
        with pytest.raises(UsageError, match="closed"):
            last.result(PATIENCE_S)
        engine.gate.set()
        assert number_in(first) == 10


@pytest.mark.parametrize("kind", [Numbers, NumbersAhead])
def test_every_stream_gets_its_own_labels_in_order_and_its_share(kind: type[Numbers]) -> None:
    engine, rounds = kind(), 25
    got: list[list[int]] = [[] for _ in range(5)]
    with sharing(engine, 5, max_batch=2, max_delay_ms=1.0) as (shared, streams):
        start = threading.Barrier(5)

        def drive(number: int) -> None:
            start.wait(PATIENCE_S)
            for turn in range(rounds):
                labels = streams[number].run(frame(5 * turn + number))
                got[number] += np.unique(labels).tolist()

        workers = [Worker("test", lambda n=n: drive(n)) for n in range(5)]  # type: ignore[misc]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE_S)
            assert worker.error is None
        assert shared.statistics().frames == 5 * rounds
    assert got == [[5 * turn + number for turn in range(rounds)] for number in range(5)]
    # In no prefix of what was run is a stream far behind one that keeps asking.
    order = [number for batch in engine.seen for number in batch]
    half = [number % 5 for number in order[: len(order) // 2]]
    assert min(half.count(number) for number in range(5)) >= rounds // 5


@pytest.mark.parametrize(("batch", "seen"), [(4, [3, 3, 3, 3]), (None, [3])])
def test_a_fixed_batch_is_filled_with_repeated_frames(batch: int | None, seen: list[int]) -> None:
    engine = Numbers(batch)
    with sharing(engine, 1) as (shared, (stream,)):
        assert number_in(ask(stream, 3)) == 3
        stats = shared.statistics()
        assert (stats.batches, stats.frames, stats.mean_fill) == (1, 1, 0.25)
    assert engine.seen == [seen]


def test_labels_stay_as_they_are_until_the_streams_next_call() -> None:
    with sharing(Numbers(), 2, max_delay_ms=0.0) as (_, (first, second)):
        kept = first.run(frame(1))
        second.run(frame(2))
        assert np.unique(kept).tolist() == [1]
        assert kept.shape == (1, *SIZE)
        assert kept.dtype == np.uint8


def test_frames_of_several_sizes_share_an_engine_of_free_size() -> None:
    engine, large = NumbersAhead(size=None), Size(8, 6)
    with sharing(engine, 3) as (_, streams):
        answers = [ask(streams[0], 1), ask(streams[1], 2, large), ask(streams[2], 3)]
        assert [answer.result(PATIENCE_S).shape for answer in answers] == [
            (1, *SIZE), (1, *large), (1, *SIZE),
        ]  # fmt: skip
        assert [number_in(answer) for answer in answers] == [1, 2, 3]
    assert sorted(sorted(batch) for batch in engine.seen) == [[1, 3], [2]]


@pytest.mark.parametrize("error", [EngineError("out of memory"), RuntimeError("a bug")])
@pytest.mark.parametrize("kind", [Numbers, NumbersAhead])
def test_an_error_reaches_the_callers_of_its_batch_and_nobody_else(
    kind: type[Numbers], error: Exception
) -> None:
    engine = kind()
    with sharing(engine, 4, max_batch=2) as (shared, streams):
        engine.gate.clear()
        first = ask_in_turn(shared, {1: streams[0]})
        first.append(ask(streams[1], 2))
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        second = [ask(streams[2], 3), ask(streams[3], 4)]
        engine.errors[1] = error
        engine.gate.set()
        for answer in first:
            with pytest.raises(type(error), match=str(error)):
                answer.result(PATIENCE_S)
        assert [number_in(answer) for answer in second] == [3, 4]
        again = [ask(stream, 9) for stream in streams]
        assert [number_in(answer) for answer in again] == [9] * 4


def test_a_batch_that_the_engine_does_not_take_is_the_only_one_that_fails() -> None:
    engine = NumbersAhead()
    engine.refused = [1]
    with sharing(engine, 2, max_batch=1) as (_, (first, second)):
        with pytest.raises(EngineError, match="not taken"):
            first.run(frame(1))
        assert number_in(ask(second, 2)) == 2


def test_two_batches_are_on_their_way_in_an_engine_that_works_ahead() -> None:
    engine = NumbersAhead()
    with sharing(engine, 7, max_batch=2) as (shared, streams):
        engine.gate.clear()
        answers = [ask(stream, n) for n, stream in enumerate(streams[:2])]
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        answers += ask_in_turn(shared, {n: streams[n] for n in range(2, 6)})
        engine.gate.set()
        assert [number_in(answer) for answer in answers] == list(range(6))
    assert engine.most == 2
    assert engine.waiting == []


def test_a_batch_is_begun_while_another_is_computed() -> None:
    """The worker must not be stuck in `collect` while the engine could take a second batch."""
    engine = NumbersAhead()
    with sharing(engine, 2, max_batch=1) as (shared, (first, second)):
        with shared._changed:
            # As if batches of one had taken long before.
            shared._expected[1] = PATIENCE_S / 4
        slow = ask(first, 1)
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        fast = ask(second, 2)
        assert engine.under_way.acquire(timeout=PATIENCE_S)
        assert [number_in(slow), number_in(fast)] == [1, 2]
    assert engine.most == 2


def test_the_time_a_batch_is_trusted_to_take_comes_down_by_itself() -> None:
    engine = NumbersAhead()
    with sharing(engine, 2, max_batch=1) as (shared, (stream, _)):
        with shared._changed:
            shared._expected[1] = 0.1
        for number in range(3):
            stream.run(frame(number))
        with shared._changed:
            assert shared._expected[1] < 0.1


@pytest.mark.parametrize("kind", [Numbers, NumbersAhead])
def test_close_wakes_everybody_and_leaves_the_engine_free(kind: type[Numbers]) -> None:
    threads = threading.active_count()
    engine = kind()
    shared = SharedEngine(engine, 2, NEVER_MS)
    streams = [shared.open() for _ in range(6)]
    with shared._changed:
        # As if batches of two took long: an engine that works ahead has two when it is closed.
        shared._expected[2] = PATIENCE_S
    engine.gate.clear()
    answers = [ask(streams[n], n) for n in range(4)]
    until(lambda: len(engine.seen) == 2 or (kind is Numbers and waiting(shared) == 2))
    answers += ask_in_turn(shared, {4: streams[4]})
    closer = Worker("closer", shared.close)
    closer.start()
    for answer in answers:
        with pytest.raises(EngineError, match="closed"):
            answer.result(PATIENCE_S)
    assert closer.is_alive(), "the engine still computes"
    engine.gate.set()
    closer.join(PATIENCE_S)
    shared.close()
    assert not engine.closed
    assert getattr(engine, "waiting", []) == []
    until(lambda: threading.active_count() == threads)
    with pytest.raises(UsageError, match="closed"):
        streams[5].run(frame(1))
    with pytest.raises(UsageError, match="closed"):
        shared.open()


def test_a_stream_that_closes_ends_its_own_call_only() -> None:
    engine = Numbers()
    with sharing(engine, 3) as (shared, (leaver, stayer, idle)):
        left, stays = ask_in_turn(shared, {1: leaver, 2: stayer})
        leaver.close()
        leaver.close()
        with pytest.raises(EngineError, match="stream was closed"):
            left.result(PATIENCE_S)
        with pytest.raises(UsageError, match="closed"):
            leaver.run(frame(1))
        assert not stays.done()
        idle.close()
        assert number_in(stays) == 2, "nobody else is left to wait for"


def test_frames_of_closed_streams_alone_are_not_run() -> None:
    engine = Numbers()
    with sharing(engine, 2) as (shared, (leaver, idle)):
        (left,) = ask_in_turn(shared, {1: leaver})
        leaver.close()
        with pytest.raises(EngineError):
            left.result(PATIENCE_S)
        idle.close()
        until(lambda: waiting(shared) == 0)
        assert shared.open().run(frame(2)).max() == 2
        assert shared.statistics().batches == 1
    assert engine.seen == [[2]]


@contextmanager
def interrupted(once: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C for this thread, as soon as `once` returns in another and this one surely waits."""

    def interrupt(number: int, stack: Any) -> None:
        raise KeyboardInterrupt

    def send() -> None:
        once()
        # A signal interrupts a wait that has begun, not one that is about to.
        time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, interrupt)
    sender = Worker("test", send)
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        sender.join(PATIENCE_S)
        signal.signal(signal.SIGALRM, before)


def test_an_interrupted_call_leaves_the_stream_usable() -> None:
    engine = Numbers()
    with sharing(engine, 1) as (_, (stream,)):
        engine.gate.clear()
        with interrupted(lambda: engine.under_way.acquire(timeout=PATIENCE_S)):
            stream.run(frame(1))
        engine.gate.set()
        assert np.unique(stream.run(frame(2))).tolist() == [2]


def test_a_frame_whose_call_was_interrupted_is_not_run() -> None:
    engine = Numbers()
    with sharing(engine, 2) as (shared, streams):
        with interrupted(lambda: until(lambda: waiting(shared) == 1)):
            streams[0].run(frame(1))
        for stream in streams:
            stream.close()
        until(lambda: waiting(shared) == 0)
    assert engine.seen == []


def test_a_stream_takes_one_call_at_a_time() -> None:
    with sharing(Numbers(), 2) as (shared, (stream, _)):
        ask_in_turn(shared, {1: stream})
        with pytest.raises(UsageError, match="one call at a time"):
            stream.run(frame(2))


@pytest.mark.parametrize(
    ("max_batch", "max_delay_ms", "message"),
    [
        (0, 1.0, "at least 1"),
        (5, 1.0, "takes 4 frames per call"),
        (4, -1.0, "0 to 60000 ms"),
        (4, float("nan"), "0 to 60000 ms"),
        (4, 1e9, "0 to 60000 ms"),
    ],
)
def test_limits_that_cannot_be_right_are_refused(
    max_batch: int, max_delay_ms: float, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        SharedEngine(Numbers(4), max_batch, max_delay_ms)


def test_statistics_can_begin_anew() -> None:
    with sharing(Numbers(), 1) as (shared, (stream,)):
        stream.run(frame(1))
        shared.restart_statistics()
        assert shared.statistics().batches == 0
        stream.run(frame(2))
        assert shared.statistics().frames == 1


def test_segmenters_share_an_engine() -> None:
    pictures = numbered(6, SIZE)
    engine = Numbers()
    with sharing(engine, 0, max_delay_ms=1.0) as (shared, _):
        got: list[list[int]] = [[], []]

        def segment(number: int) -> None:
            with Segmenter(lambda size: shared.open()) as segmenter:
                for picture in pictures[number::2]:
                    got[number] += np.unique(segmenter(picture).mask).tolist()

        workers = [Worker("test", lambda n=n: segment(n)) for n in range(2)]  # type: ignore[misc]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE_S)
            assert worker.error is None
    assert got == [[int(picture[0, 0, 0]) for picture in pictures[n::2]] for n in range(2)]


@pytest.mark.onnx
def test_streams_on_onnx_runtime_get_the_labels_of_single_runs() -> None:
    size, frames = Size(64, 96), [street_like(Size(64, 96), seed) for seed in range(8)]
    request = EngineRequest(
        model="fasterseg-student", engine="onnxruntime", device="cpu", size=size, threads=1
    )
    with closing(open_engine(request, size, print)) as single:
        expected = [single.run(one).copy() for one in frames]
    got: dict[int, Labels] = {}
    batched = replace(request, batch=4)
    with (
        closing(open_engine(batched, size, print)) as engine,
        SharedEngine(engine, 4, NEVER_MS) as shared,
    ):
        streams = [shared.open() for _ in range(4)]

        def drive(number: int) -> None:
            with closing(streams[number]) as stream:
                for index in range(number, len(frames), 4):
                    got[index] = stream.run(frames[index]).copy()

        workers = [Worker("test", lambda n=n: drive(n)) for n in range(4)]  # type: ignore[misc]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE_S)
            assert worker.error is None
        assert shared.statistics().mean_fill == 1.0
    equal = [np.mean(got[index] == expected[index]) for index in range(len(frames))]
    assert min(equal) >= 0.9999


@pytest.mark.onnx
class TestSharedStream(EngineContract):
    """A stream is an engine like any other."""

    @pytest.fixture(autouse=True)
    def _shared(self) -> Iterator[None]:
        self.opened: list[tuple[SharedEngine, Engine]] = []
        yield
        for shared, engine in self.opened:
            shared.close()
            engine.close()

    def open(self) -> Engine:
        request = EngineRequest(engine="onnxruntime", device="cpu", size=CONTRACT_SIZE, threads=1)
        engine = open_engine(request, CONTRACT_SIZE, print)
        shared = SharedEngine(engine, 1, 0.0)
        self.opened.append((shared, engine))
        return shared.open()
