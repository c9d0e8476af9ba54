"""How times are taken: named protocols, per-run samples, the host's clock or the device's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from fasterseg.errors import EngineError
from fasterseg.runtime.base import DeviceTimed

_NS_PER_MS: Final = 1e6
_MS_PER_S: Final = 1e3
_DEVICE_CHUNK: Final = 10

Clock = Callable[[], int]
"""A monotonic clock in nanoseconds."""


@dataclass(frozen=True, slots=True)
class TimingProtocol:
    """How long to warm up and how much to measure; every bound has to be reached.

    Attributes:
        name: stored with every figure; figures of different protocols are never compared.
        warmup_s: seconds of runs that are thrown away.
        warmup_runs: number of runs that are thrown away.
        min_runs: runs measured at least.
        min_s: seconds measured at least (the sum of the samples).
    """

    name: str
    warmup_s: float = 0.0
    warmup_runs: int = 0
    min_runs: int = 1
    min_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


FULL: Final = TimingProtocol("full", warmup_s=2.0, min_runs=200, min_s=3.0)
"""Engines: the figures that are published."""

QUICK: Final = TimingProtocol("quick", warmup_s=1.0, min_runs=20, min_s=2.0)
"""Engines on slow devices, where 200 runs take minutes."""

ROW: Final = TimingProtocol("row", warmup_runs=3, min_runs=20, min_s=0.3)
"""Rows of a latency table: thousands of short measurements."""

DEVICE_ROW: Final = TimingProtocol("device-row", warmup_runs=20, min_runs=100, min_s=0.01)
"""Rows by the clock of a GPU, which nothing else disturbs: short, for some hundred operators."""

DEVICE_NET: Final = TimingProtocol("device-net", warmup_runs=50, min_runs=300, min_s=0.05)
"""Whole networks beside such rows."""

PROTOCOLS: Final[Mapping[str, TimingProtocol]] = {"full": FULL, "quick": QUICK, "row": ROW}


@dataclass(frozen=True, slots=True)
class Samples:
    """One value per measured run, in order.

    Attributes:
        wall_ms: milliseconds between call and return.
        cpu_ms: milliseconds of CPU time the whole process spent meanwhile, over all threads;
            empty unless it was asked for.
    """

    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...] = ()


class Collected:
    """Samples on their way to being enough."""

    def __init__(self) -> None:
        self.runs = 0
        self.spent_ms = 0.0
        self._wall_ms: list[float] = []
        self._cpu_ms: list[float] = []

    def add(self, more: Samples) -> None:
        """Take in later samples."""
        self.runs += len(more.wall_ms)
        self.spent_ms += math.fsum(more.wall_ms)
        self._wall_ms += more.wall_ms
        self._cpu_ms += more.cpu_ms

    def satisfies(self, protocol: TimingProtocol) -> bool:
        """Whether there are as many, over as much time, as the protocol wants."""
        return self.runs >= protocol.min_runs and self.spent_ms >= protocol.min_s * _MS_PER_S

    def samples(self) -> Samples:
        """All of them, in order."""
        return Samples(tuple(self._wall_ms), tuple(self._cpu_ms))


class Lane(Protocol):
    """Something that can be run and timed a few times, again and again."""

    def take(self, runs: int) -> Samples:
        """Run it so many times; one sample each."""
        ...


class CallLane:
    """A call, timed by the host's clock.

    Args:
        run: what is timed. It gets the number of the run, counted from 0 over all takes, so that
            it can change its input; it returns when the work is done.
        prepare: called with the same number before each run, outside the timed part.
        clock: wall clock.
        cpu_clock: clock of the process's CPU time (`time.process_time_ns`), or None.
    """

    def __init__(
        self,
        run: Callable[[int], object],
        *,
        prepare: Callable[[int], object] | None = None,
        clock: Clock = time.perf_counter_ns,
        cpu_clock: Clock | None = None,
    ) -> None:
        self._run = run
        self._prepare = prepare
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._runs = 0

    def take(self, runs: int) -> Samples:
        """Run it so many times."""
        taken = [self._once() for _ in range(runs)]
        return Samples(
            wall_ms=tuple(wall / _NS_PER_MS for wall, _ in taken),
            cpu_ms=tuple(cpu / _NS_PER_MS for _, cpu in taken) if self._cpu_clock else (),
        )

    def _once(self) -> tuple[int, int]:
        if self._prepare is not None:
            self._prepare(self._runs)
        cpu_begin = self._cpu_clock() if self._cpu_clock else 0
        begin = self._clock()
        self._run(self._runs)
        wall = self._clock() - begin
        self._runs += 1
        return wall, (self._cpu_clock() - cpu_begin if self._cpu_clock else 0)


class DeviceLane:
    """An engine, timed by its device's own clock, without copies to or from the host."""

    def __init__(self, engine: DeviceTimed) -> None:
        self._engine = engine

    def take(self, runs: int) -> Samples:
        """Run it so many times.

        Raises:
            EngineError: the engine gave another number of times than runs, or one that is not
                above zero.
        """
        return Samples(tuple(_device_samples(self._engine, runs)))


def measure(
    run: Callable[[int], object],
    protocol: TimingProtocol,
    *,
    prepare: Callable[[int], object] | None = None,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock | None = None,
) -> Samples:
    """Time a call by the host's clock; arguments as of `CallLane`."""
    lane = CallLane(run, prepare=prepare, clock=clock, cpu_clock=cpu_clock)
    return measure_lane(lane, protocol)


def measure_lane(
    lane: Lane, protocol: TimingProtocol, *, warmup_chunk: int = 1, chunk: int = 1
) -> Samples:
    """Warm a lane up and measure it, as the protocol says.

    Args:
        lane: what is timed.
        protocol: how much to run.
        warmup_chunk: runs taken at a time while warming up.
        chunk: runs taken at a time while measuring.
    """
    runs, spent_ms = 0, 0.0
    while runs < protocol.warmup_runs or spent_ms < protocol.warmup_s * _MS_PER_S:
        spent_ms += math.fsum(lane.take(warmup_chunk).wall_ms)
        runs += warmup_chunk
    collected = Collected()
    while not collected.satisfies(protocol):
        collected.add(lane.take(chunk))
    return collected.samples()


def measure_device(engine: DeviceTimed, protocol: TimingProtocol) -> Samples:
    """Time an engine by its device's own clock, without copies to or from the host.

    Args:
        engine: an engine that can do so.
        protocol: how much to run, in device time.

    Raises:
        EngineError: the engine gave another number of times than runs, or one that is not
            above zero.
    """
    warmup_chunk = protocol.warmup_runs or _DEVICE_CHUNK
    return measure_lane(
        DeviceLane(engine), protocol, warmup_chunk=warmup_chunk, chunk=protocol.min_runs
    )


def _device_samples(engine: DeviceTimed, runs: int) -> list[float]:
    samples = [float(ms) for ms in engine.time_on_device(runs)]
    if len(samples) != runs or not all(ms > 0 and math.isfinite(ms) for ms in samples):
        raise EngineError(
            f"the engine's device clock gave {len(samples)} times for {runs} runs, the smallest "
            f"{min(samples, default=math.nan)} ms; that is a fault of the engine's time_on_device"
        )
    return samples
