"""What is timed of an engine: its own work, host frames to labels, the bare network."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fasterseg.bench import device as machine
from fasterseg.bench.cells import Cell, Scope
from fasterseg.bench.interleave import Turns
from fasterseg.bench.networks import BareNetwork
from fasterseg.bench.timing import (
    CallLane,
    Clock,
    DeviceLane,
    Lane,
    TimingProtocol,
    measure_device,
    measure_lane,
)
from fasterseg.runtime.base import DeviceTimed, Engine
from fasterseg.types import LatencyStats, Size

Frames = NDArray[np.uint8]

UNSTABLE_COV: Final = 0.1
BUSY_LOAD_PER_CORE: Final = 0.5
HOST_BOUND: Final = 1.5
"""Times the device's own work that a call may take before the host is what bounds it."""


@runtime_checkable
class BoundEngine(Protocol):
    """An engine that can run on buffers fixed before, so that its own work can be timed alone."""

    def bind(self, frames: NDArray[np.uint8]) -> None:
        """Put one batch into the input buffer; may be called again, and is never timed."""
        ...

    def run_bound(self) -> None:
        """The work of `run` on the bound batch, tail included, no copies; returns when done."""
        ...


def lanes_of(
    engine: Engine,
    frames: Sequence[Frames],
    *,
    network: BareNetwork | None = None,
    cpu_time: bool = False,
    clock: Clock = time.perf_counter_ns,
) -> dict[Scope, Lane]:
    """What there is to time of an engine.

    Args:
        engine: ready to run.
        frames: batches, each uint8, (N, H, W, 3), BGR, all of one shape; used in turn.
        network: the same network below the engine boundary, if that is to be timed too.
        cpu_time: measure the process's CPU time of each `host_to_labels` run as well.
        clock: wall clock.
    """

    def batch(index: int) -> Frames:
        return frames[index % len(frames)]

    lanes: dict[Scope, Lane] = {
        "host_to_labels": CallLane(
            lambda i: engine.run(batch(i)),
            clock=clock,
            cpu_clock=time.process_time_ns if cpu_time else None,
        )
    }
    if isinstance(engine, DeviceTimed):
        lanes["model"] = DeviceLane(engine)
    elif isinstance(engine, BoundEngine):
        bound = engine
        lanes["model"] = CallLane(
            lambda _: bound.run_bound(), prepare=lambda i: bound.bind(batch(i)), clock=clock
        )
    if network is not None:
        bare = network
        lanes["network"] = CallLane(
            lambda _: bare.run(), prepare=lambda i: bare.bind(batch(i)), clock=clock
        )
    return lanes


def measure_alone(
    engine: Engine, lanes: Mapping[Scope, Lane], protocol: TimingProtocol
) -> dict[Scope, Turns]:
    """Measure one scope after the other."""
    times: dict[Scope, Turns] = {}
    for scope, lane in lanes.items():
        if scope == "model" and isinstance(engine, DeviceTimed):
            times[scope] = Turns(measure_device(engine, protocol), ())
        else:
            times[scope] = Turns(measure_lane(lane, protocol), ())
    return times


def first_run_ms(engine: Engine, frames: Frames, clock: Clock = time.perf_counter_ns) -> float:
    """Milliseconds of the very first call, before any warm-up."""
    begin = clock()
    engine.run(frames)
    return round((clock() - begin) / 1e6, 4)


def cell_of(
    engine: Engine,
    frames: Frames,
    times: Mapping[Scope, Turns],
    *,
    threads: int | None = None,
) -> Cell:
    """The cell of an engine's times, with warnings where they are not to be trusted.

    Args:
        engine: what was timed.
        frames: one batch, for its shape.
        times: `host_to_labels`, and what else was timed.
        threads: what the engine was opened with, for the record.
    """
    whole = times["host_to_labels"].samples
    stats = {scope: LatencyStats.of(turns.samples.wall_ms) for scope, turns in times.items()}
    clock: Literal["device", "host"] = "device" if isinstance(engine, DeviceTimed) else "host"
    cell = Cell(
        engine=engine.backend,
        precision=engine.spec.precision,
        device=engine.device,
        size=Size(frames.shape[1], frames.shape[2]),
        batch=frames.shape[0],
        tail=engine.tail,
        threads=threads,
        host_to_labels=stats["host_to_labels"],
        model=stats.get("model"),
        model_clock=clock if "model" in stats else None,
        host_to_labels_cpu=LatencyStats.of(whole.cpu_ms) if whole.cpu_ms else None,
        network=stats.get("network"),
        percentiles_ms={scope: percentiles(t.samples.wall_ms) for scope, t in times.items()},
        rounds_ms={scope: t.rounds_ms for scope, t in times.items() if t.rounds_ms},
    )
    return replace(cell, warnings=(*_unstable(cell), *_host_bound(cell)))


def percentiles(samples_ms: Sequence[float]) -> tuple[float, ...]:
    """The 0th, 1st, ... 100th percentile."""
    return tuple(np.percentile(samples_ms, np.arange(101)).tolist())


def bench_engine(
    engine: Engine,
    protocol: TimingProtocol,
    frames: Sequence[Frames],
    *,
    threads: int | None = None,
    cpu_time: bool = False,
    network: BareNetwork | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Cell:
    """Time one engine on one size, with nothing in between.

    Args:
        engine: ready to run; it stays open.
        protocol: how much to run.
        frames: batches, each uint8, (N, H, W, 3), BGR, all of one shape; used in turn, so that
            no run sees the input of the run before.
        threads: what the engine was opened with, for the record.
        cpu_time: measure the process's CPU time of each `host_to_labels` run as well.
        network: see `lanes_of`.
        clock: wall clock.

    Raises:
        ValueError: there are fewer than two batches.
        EngineError: the engine's device clock answers nonsense.
    """
    if len(frames) < 2:
        raise ValueError("give at least two batches: the input has to change between runs")
    memory_known = machine.reset_peak_memory()
    first_ms = first_run_ms(engine, frames[0], clock)
    lanes = lanes_of(engine, frames, network=network, cpu_time=cpu_time, clock=clock)
    times = measure_alone(engine, lanes, protocol)
    return replace(
        cell_of(engine, frames[0], times, threads=threads),
        peak_rss_mb=machine.peak_memory_mb() if memory_known else None,
        first_run_ms=first_ms,
    )


def _unstable(cell: Cell) -> tuple[str, ...]:
    scopes = {"model": cell.model, "host_to_labels": cell.host_to_labels, "network": cell.network}
    return tuple(
        f"unstable: {scope} varies by {stats.cov:.0%} (standard deviation over mean; limit "
        f"{UNSTABLE_COV:.0%}); stop other programs or lock the clocks, and measure again"
        for scope, stats in scopes.items()
        if stats is not None and stats.cov > UNSTABLE_COV
    )


def _host_bound(cell: Cell) -> tuple[str, ...]:
    """A warning where the device waits for the host."""
    if cell.model is None or cell.model_clock != "device":
        return ()
    whole, own = cell.host_to_labels.p50_ms, cell.model.p50_ms
    if whole <= HOST_BOUND * own:
        return ()
    return (
        f"bound by the host: of {whole:.3f} ms a call the device works {own:.3f} ms; the rest is "
        "copies and launches, which larger batches and more streams hide",
    )


def busy(load: float | None, cores: int) -> tuple[str, ...]:
    """A warning when other programs were running before the measurement, else nothing.

    Args:
        load: load average of the last minute, None where unknown.
        cores: logical cores this process may use.
    """
    if load is None or load <= BUSY_LOAD_PER_CORE * cores:
        return ()
    return (
        f"busy: the load average was {load} on {cores} cores before the measurement; stop other "
        "programs and measure again",
    )
