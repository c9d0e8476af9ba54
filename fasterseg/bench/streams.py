"""Several streams at once: an engine each, a thread each, and what all of them get done."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fasterseg.bench.timing import Clock, Collected, Samples, TimingProtocol
from fasterseg.runtime.base import Engine

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """What concurrent streams did.

    Attributes:
        samples: the calls of all streams, while all of them were running.
        calls_per_s: calls that all streams together completed in a second.
    """

    samples: Samples
    calls_per_s: float


def measure_streams(
    engines: Sequence[Engine],
    frames: Sequence[Frames],
    protocol: TimingProtocol,
    *,
    clock: Clock = time.perf_counter_ns,
) -> StreamTimes:
    """Run an engine per stream, all at the same time, until each has what the protocol wants.

    Args:
        engines: one a stream; they stay open.
        frames: batches, each uint8, (N, H, W, 3), BGR, used in turn; streams begin at different
            ones.
        protocol: how much each stream has to run; warm-up is done with all streams as well.
        clock: wall clock.

    Raises:
        FastersegError: what an engine raised; the other streams are ended first.
    """
    warm_up = TimingProtocol("warm-up", min_runs=protocol.warmup_runs, min_s=protocol.warmup_s)
    if protocol.warmup_runs or protocol.warmup_s:
        _together(engines, frames, warm_up, clock)
    return _together(engines, frames, protocol, clock)


def _together(
    engines: Sequence[Engine], frames: Sequence[Frames], protocol: TimingProtocol, clock: Clock
) -> StreamTimes:
    start = threading.Barrier(len(engines))
    shared = _Shared(len(engines))
    streams = [
        _Stream(engine, frames, number, protocol, clock) for number, engine in enumerate(engines)
    ]
    with ThreadPoolExecutor(len(streams), thread_name_prefix="stream") as pool:
        for done in [pool.submit(stream.work, start, shared) for stream in streams]:
            done.result()
    begin = min(stream.begin for stream in streams)
    seconds = (max(stream.end for stream in streams) - begin) / 1e9
    calls = sum(stream.collected.runs for stream in streams)
    times = [ms for stream in streams for ms in stream.collected.samples().wall_ms]
    return StreamTimes(Samples(tuple(times)), calls / seconds)


@dataclass(slots=True)
class _Shared:
    """What tells all streams to stop: the last one that has enough, or the first that fails."""

    unfinished: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def one_has_enough(self) -> None:
        with self.lock:
            self.unfinished -= 1
            if self.unfinished == 0:
                self.stop.set()


class _Stream:
    """One thread and its engine."""

    def __init__(
        self,
        engine: Engine,
        frames: Sequence[Frames],
        number: int,
        protocol: TimingProtocol,
        clock: Clock,
    ) -> None:
        self._number = number
        self.collected = Collected()
        self.begin = self.end = 0
        self._engine = engine
        self._frames = frames
        self._protocol = protocol
        self._clock = clock

    def work(self, start: threading.Barrier, shared: _Shared) -> None:
        """Run until every stream has enough: load is even as long as anybody is measured."""
        start.wait()
        has_enough = False
        self.begin = self.end = self._clock()
        try:
            while not shared.stop.is_set():
                begin = self._clock()
                self._engine.run(self._frames[(self._number + self._calls) % len(self._frames)])
                self.end = self._clock()
                self.collected.add(Samples(((self.end - begin) / 1e6,)))
                if not has_enough and self.collected.satisfies(self._protocol):
                    has_enough = True
                    shared.one_has_enough()
        finally:
            # Also where an engine raised: the others must not wait for this stream.
            shared.stop.set()

    @property
    def _calls(self) -> int:
        return self.collected.runs
