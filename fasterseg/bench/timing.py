"""How times are taken: named protocols, per-run samples, the host's clock or the device's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from fasterseg.errors import EngineError
from fasterseg.runtime.base import DeviceTimed

_NS_PER_MS: Final = 1e6
_NS_PER_S: Final = 1e9
_DEVICE_WARMUP_CHUNK: Final = 10

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


def measure(
    run: Callable[[int], object],
    protocol: TimingProtocol,
    *,
    prepare: Callable[[int], object] | None = None,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock | None = None,
) -> Samples:
    """Time a call by the host's clock.

    Args:
        run: what is timed. It gets the number of the iteration, counted from 0 through warm-up
            and measurement, so that it can change its input; it returns when the work is done.
        protocol: how much to run.
        prepare: called with the same number before each run, outside the timed part.
        clock: wall clock.
        cpu_clock: clock of the process's CPU time (`time.process_time_ns`), or None.
    """
    index = 0
    spent_ns = 0

    def once() -> tuple[int, int]:
        nonlocal index
        if prepare is not None:
            prepare(index)
        cpu_begin = cpu_clock() if cpu_clock else 0
        begin = clock()
        run(index)
        wall = clock() - begin
        index += 1
        return wall, (cpu_clock() - cpu_begin if cpu_clock else 0)

    while index < protocol.warmup_runs or spent_ns < protocol.warmup_s * _NS_PER_S:
        spent_ns += once()[0]
    taken: list[tuple[int, int]] = []
    spent_ns = 0
    while len(taken) < protocol.min_runs or spent_ns < protocol.min_s * _NS_PER_S:
        taken.append(once())
        spent_ns += taken[-1][0]
    return Samples(
        wall_ms=tuple(wall / _NS_PER_MS for wall, _ in taken),
        cpu_ms=tuple(cpu / _NS_PER_MS for _, cpu in taken) if cpu_clock else (),
    )


def measure_device(engine: DeviceTimed, protocol: TimingProtocol) -> Samples:
    """Time an engine by its device's own clock, without copies to or from the host.

    Args:
        engine: an engine that can do so.
        protocol: how much to run, in device time.

    Raises:
        EngineError: the engine gave another number of times than runs, or one that is not
            above zero.
    """
    chunk = protocol.warmup_runs or _DEVICE_WARMUP_CHUNK
    runs, spent_ms = 0, 0.0
    while runs < protocol.warmup_runs or spent_ms < protocol.warmup_s * 1e3:
        spent_ms += math.fsum(_device_samples(engine, chunk))
        runs += chunk
    taken: list[float] = []
    while len(taken) < protocol.min_runs or math.fsum(taken) < protocol.min_s * 1e3:
        taken += _device_samples(engine, protocol.min_runs)
    return Samples(wall_ms=tuple(taken))


def _device_samples(engine: DeviceTimed, runs: int) -> list[float]:
    samples = [float(ms) for ms in engine.time_on_device(runs)]
    if len(samples) != runs or not all(ms > 0 and math.isfinite(ms) for ms in samples):
        raise EngineError(
            f"the engine's device clock gave {len(samples)} times for {runs} runs, the smallest "
            f"{min(samples, default=math.nan)} ms; that is a fault of the engine's time_on_device"
        )
    return samples
