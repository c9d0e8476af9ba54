from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from fasterseg.bench.streams import measure_streams
from fasterseg.bench.timing import TimingProtocol
from fasterseg.errors import EngineError
from fasterseg.runtime.base import Engine
from tests.unit.bench.test_engines import FakeEngine, batches

PROTOCOL = TimingProtocol("t", warmup_runs=1, min_runs=3)


class Meeting(FakeEngine):
    """A call returns when the calls of all other streams have begun."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self.barrier = barrier

    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            self.barrier.wait(timeout=5)
        except threading.BrokenBarrierError:
            # The last calls: another stream has stopped already.
            assert self.calls >= 3
        return super().run(frames)

    def close(self) -> None:
        self.barrier.abort()


class Failing(FakeEngine):
    def run(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        raise EngineError("out of memory")


def test_calls_of_all_streams_are_counted_over_the_common_time() -> None:
    ticks = itertools.count(step=1_000_000)
    engines: list[Engine] = [FakeEngine()]
    times = measure_streams(engines, batches(), PROTOCOL, clock=lambda: next(ticks))
    # Each call takes one tick of 1 ms, and one passes between calls: 3 calls in 6 ms.
    assert times.samples.wall_ms == (1.0, 1.0, 1.0)
    assert times.calls_per_s == pytest.approx(500.0)
    assert [stats.p50_ms for stats in times.by_stream] == [1.0]


def test_what_was_counted_while_warming_up_can_be_forgotten() -> None:
    engine, calls = FakeEngine(), []
    measure_streams([engine], batches(), PROTOCOL, on_warm=lambda: calls.append(engine.calls))
    assert calls == [1]


def test_streams_run_at_the_same_time() -> None:
    barrier = threading.Barrier(2)
    engines = [Meeting(barrier), Meeting(barrier)]
    protocol = TimingProtocol("t", min_runs=3)

    def clock() -> int:
        # A stream that is done must not leave the other one waiting.
        if all(engine.calls >= 3 for engine in engines):
            barrier.abort()
        return next(ticks)

    ticks = itertools.count()
    times = measure_streams(list[Engine](engines), batches(), protocol, clock=clock)
    assert len(times.samples.wall_ms) == sum(engine.calls for engine in engines) >= 6


def test_streams_begin_at_different_frames() -> None:
    engines = [FakeEngine(), FakeEngine()]
    measure_streams(list[Engine](engines), batches(), TimingProtocol("t", min_runs=1))
    assert [engine.inputs[0] for engine in engines] == [0, 1]


def test_a_failing_stream_ends_the_others_and_is_told() -> None:
    engines: list[Engine] = [FakeEngine(), Failing()]
    with pytest.raises(EngineError, match="out of memory"):
        measure_streams(engines, batches(), TimingProtocol("t", min_runs=10**9))
