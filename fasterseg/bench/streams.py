"""Several streams at once: a thread each, on engines of their own or on one that they share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fasterseg.bench.cells import Cell, Scope, Sharing
from fasterseg.bench.interleave import Turns
from fasterseg.bench.scopes import cell_of
from fasterseg.bench.timing import Clock, Collected, Samples, TimingProtocol
from fasterseg.runtime.base import Engine
from fasterseg.types import LatencyStats

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Share:
    """Limits of the batches in which streams share an engine.

    Attributes:
        max_batch: frames in a batch at most.
        max_delay_ms: milliseconds a frame waits for others at most.
    """

    max_batch: int = 8
    max_delay_ms: float = 5.0

    def among(self, streams: int) -> Share:
        """For so many streams: each has one frame on its way at a time, so no more ever meet."""
        return replace(self, max_batch=min(self.max_batch, streams))


class SharingStats(Protocol):
    """How well the frames of several streams came together."""

    @property
    def batches(self) -> int:
        """Batches run."""

    @property
    def mean_fill(self) -> float:
        """Frames per batch over the most a batch may have, in [0, 1]."""

    @property
    def waited(self) -> LatencyStats | None:
        """From a frame's arrival to the start of its batch; None without any."""


class SharedEngine(Protocol):
    """An engine that several streams share (`stream.batching.SharedEngine`)."""

    @property
    def max_batch(self) -> int:
        """Frames in a batch at most."""

    @property
    def max_delay_ms(self) -> float:
        """Milliseconds a frame waits for others at most."""

    def open(self) -> Engine:
        """An engine for one more stream."""
        ...

    def statistics(self) -> SharingStats:
        """Since the last `restart_statistics`."""
        ...

    def restart_statistics(self) -> None:
        """Forget what was counted so far."""

    def close(self) -> None:
        """End it, not the engine."""


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """What concurrent streams did.

    Attributes:
        samples: the calls of all streams, while all of them were running.
        calls_per_s: calls that all streams together completed in a second.
        by_stream: `samples` of each stream, summarised.
    """

    samples: Samples
    calls_per_s: float
    by_stream: tuple[LatencyStats, ...]


def bench_streams(
    engines: Sequence[Engine],
    frames: Sequence[Frames],
    protocol: TimingProtocol,
    *,
    threads: int | None = None,
    shared: SharedEngine | None = None,
) -> Cell:
    """The cell of several streams; see `measure_streams`.

    Args:
        engines: one a stream.
        frames: batches.
        protocol: how much to run.
        threads: what each engine was opened with, for the record.
        shared: what the streams share, where `engines` are their shares of one.
    """
    on_warm = shared.restart_statistics if shared is not None else lambda: None
    times = measure_streams(engines, frames, protocol, on_warm=on_warm)
    turns: dict[Scope, Turns] = {"host_to_labels": Turns(times.samples, ())}
    return replace(
        cell_of(engines[0], frames[0], turns, threads=threads),
        streams=len(engines),
        throughput_fps=times.calls_per_s * frames[0].shape[0],
        by_stream=times.by_stream,
        sharing=None if shared is None else _sharing(shared),
    )


def _sharing(shared: SharedEngine) -> Sharing:
    stats = shared.statistics()
    assert stats.waited is not None, "it was just measured"
    return Sharing(
        shared.max_batch, shared.max_delay_ms, stats.batches, stats.mean_fill, stats.waited
    )


def measure_streams(
    engines: Sequence[Engine],
    frames: Sequence[Frames],
    protocol: TimingProtocol,
    *,
    on_warm: Callable[[], object] = lambda: None,
    clock: Clock = time.perf_counter_ns,
) -> StreamTimes:
    """Run all streams at the same time, until each has what the protocol wants.

    Args:
        engines: one a stream, its own or its share of one; they stay open.
        frames: batches, each uint8, (N, H, W, 3), BGR, used in turn; streams begin at different
            ones.
        protocol: how much each stream has to run; warm-up is done with all streams as well.
        on_warm: called between warm-up and measurement.
        clock: wall clock.

    Raises:
        FastersegError: what an engine raised; the other streams are ended first.
    """
    warm_up = TimingProtocol("warm-up", min_runs=protocol.warmup_runs, min_s=protocol.warmup_s)
    if protocol.warmup_runs or protocol.warmup_s:
        _together(engines, frames, warm_up, clock)
    on_warm()
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
    each = [stream.collected.samples().wall_ms for stream in streams]
    return StreamTimes(
        Samples(tuple(ms for own in each for ms in own)),
        calls / seconds,
        tuple(LatencyStats.of(own) for own in each),
    )


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
