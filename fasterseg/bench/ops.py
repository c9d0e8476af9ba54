"""Time every operator of a search space through the engine that deploys it, row by row.

Each row is stored before the next one is begun, so a run that is killed loses one row and the
same command goes on where it ended.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from fasterseg.arch.operators import macs
from fasterseg.arch.single import PARTS, is_nothing, single
from fasterseg.arch.space import Placed
from fasterseg.bench import device as machine
from fasterseg.bench.quiet import Quiet
from fasterseg.bench.records import current_commit, now
from fasterseg.bench.snippets import Opener, Snippet
from fasterseg.bench.tables import DEVICE_CLOCK, STATISTICS, TableFile
from fasterseg.bench.timing import (
    CallLane,
    Clock,
    Collected,
    DeviceLane,
    Lane,
    Samples,
    TimingProtocol,
)
from fasterseg.cores import usable_cores
from fasterseg.runtime.base import DeviceTimed
from fasterseg.types import LatencyStats

T = TypeVar("T")

_ORDER_SEED: Final = 0
DEVICE_TURN: Final = 20
"""Runs that are taken at once by a device's clock: it begins with none while the host waits."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """What times are read from, in nanoseconds.

    Attributes:
        wall: the host's clock.
        cpu: CPU time of the whole process.
    """

    wall: Clock = field(default=time.perf_counter_ns)
    cpu: Clock = field(default=time.process_time_ns)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a measurement is.

    Attributes:
        done: steps finished in this run.
        left: steps still to do.
        step: what was done last.
        elapsed_s: seconds since this run began.
    """

    done: int
    left: int
    step: str
    elapsed_s: float

    @property
    def left_s(self) -> float:
        """Seconds still to go at the pace so far."""
        return self.elapsed_s / self.done * self.left


OnProgress = Callable[[Progress], None]


def measure_rows(
    file: TableFile,
    wanted: Sequence[Placed],
    open_one: Opener,
    on_progress: OnProgress,
    *,
    limit_s: float | None = None,
    clocks: Clocks | None = None,
    quiet: Quiet | None = None,
) -> int:
    """Measure the operators that a table has no row for, in an order that mixes their kinds.

    Args:
        file: the table; it is saved after every row.
        wanted: operators it is to hold; those that it has are left as they are.
        open_one: opens graphs in the table's backend.
        on_progress: called after every row.
        limit_s: begin no further row after so many seconds.
        clocks: what times are read from.
        quiet: repeats rows during which the machine was disturbed; None takes them as they come.

    Returns:
        Number of rows that are still missing.

    Raises:
        OutputError: the file cannot be written.
        EngineError: the engine does not take an operator.
    """
    clocks = clocks or Clocks()
    todo = [placed for placed in wanted if placed.spec.key() not in file.rows]
    # A drift of the machine must not look like a difference between operators.
    random.Random(_ORDER_SEED).shuffle(todo)
    begin = clocks.wall()
    run = begin_run(file, "rows", file.protocol, quiet) if todo else 0
    for done, placed in enumerate(todo, start=1):
        row = measure_row(placed, file, open_one, clocks, quiet)
        file.measured_on = now()
        file.rows[placed.spec.key()] = {**row, "at": file.measured_on, "run": run}
        file.save()
        elapsed_s = (clocks.wall() - begin) / 1e9
        on_progress(Progress(done, len(todo) - done, placed.spec.key(), elapsed_s))
        if limit_s is not None and elapsed_s >= limit_s:
            return len(todo) - done
    return 0


_MACS_PER_CORE: Final = 40e9
_OPENING_S: Final = 0.15
_PARTS_OF_ONE: Final = 2.2
"""What the three graphs of a row take together, in times of the operator."""
DEVICE_ROW_S: Final = 1.0
"""Seconds that a row may take on a GPU, three captures included; a guess until one is measured."""
"""A row on a GPU: three times weights made, algorithms tried and a graph captured."""


def estimate_for(file: TableFile, todo: Sequence[Placed]) -> float:
    """Seconds that rows of a table may take here; a rough guide."""
    if file.conditions.get("clock") == DEVICE_CLOCK:
        return DEVICE_ROW_S * len(todo)
    return estimate_s(todo, file.protocol, file.conditions["threads"] or usable_cores())


def estimate_s(todo: Sequence[Placed], protocol: TimingProtocol, cores: int) -> float:
    """Seconds that rows may take on cores of 40 G multiply-adds a second; a rough guide."""
    total = 0.0
    for placed in todo:
        once = max(macs(placed.spec) / (_MACS_PER_CORE * cores), 1e-5)
        runs = max(protocol.min_runs, protocol.min_s / once)
        total += (protocol.warmup_runs + runs) * once * _PARTS_OF_ONE + _OPENING_S
    return total


def measure_row(
    placed: Placed,
    file: TableFile,
    open_one: Opener,
    clocks: Clocks,
    quiet: Quiet | None = None,
) -> dict[str, Any]:
    """Time one operator at both granularities; by its device's own clock where it has one.

    Returns:
        `inside` and `alone` with their times, `count` (runs of each graph) and `cov` (standard
        deviation over mean of the runs of the operator between others), and `slowdown` of the
        machine meanwhile, where that was watched.
    """
    if is_nothing(placed.spec):
        nothing = {f"{statistic}_ms": 0.0 for statistic in file.statistics}
        return {"inside": nothing, "alone": dict(nothing), "count": 0, "cov": 0.0}
    options = file.emit_options()
    with contextlib.ExitStack() as stack:
        lanes: list[Lane] = []
        for part in PARTS:
            opened = open_one(single(placed, file.size, part), options)
            lanes.append(_lane(stack.enter_context(contextlib.closing(opened)), clocks))
        turn = DEVICE_TURN if isinstance(lanes[0], DeviceLane) else 1
        taken, watched = watch(quiet, lambda: in_step(lanes, file.protocol, turn))
        alone, inside, around = taken
    return {
        "inside": difference(inside, around),
        "alone": times_of(alone),
        "count": len(inside.wall_ms),
        "cov": round(LatencyStats.of(inside.wall_ms).cov, 4),
        **watched,
    }


def _lane(snippet: Snippet, clocks: Clocks) -> Lane:
    if isinstance(snippet, DeviceTimed):
        return DeviceLane(snippet)
    return CallLane(lambda _: snippet.run(), clock=clocks.wall, cpu_clock=clocks.cpu)


def in_step(lanes: Sequence[Lane], protocol: TimingProtocol, turn: int = 1) -> list[Samples]:
    """Run each lane once a round, so that sample i of all of them was taken in the same one.

    The slowest one decides when there is enough: what is taken off it is over much sooner, and
    need not be known better. Every other round goes backwards.

    Args:
        lanes: what is timed.
        protocol: how much to run.
        turn: runs of a lane in a round.
    """
    for lane in lanes:
        lane.take(protocol.warmup_runs)
    collected = [Collected() for _ in lanes]
    order = list(range(len(lanes)))
    while not any(one.satisfies(protocol) for one in collected):
        for index in order:
            collected[index].add(lanes[index].take(turn))
        order.reverse()
    return [one.samples() for one in collected]


def times_of(samples: Samples) -> dict[str, float]:
    """Every statistic of some runs, rounded; those of CPU time where it was taken."""
    return _rounded(
        *(value for row in _taken(samples) for value in (statistics.median(row), min(row)))
    )


def difference(longer: Samples, shorter: Samples) -> dict[str, float]:
    """What one graph takes more than another; none is less than nothing.

    Medians are those of the rounds' differences, which a disturbed round leaves alone.
    """

    def gaps(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        return statistics.median(one - other for one, other in zip(a, b, strict=True))

    return _rounded(
        *(
            value
            for a, b in zip(_taken(longer), _taken(shorter), strict=True)
            for value in (gaps(a, b), min(a) - min(b))
        )
    )


def _taken(samples: Samples) -> list[tuple[float, ...]]:
    """Times by the clock and, where it was taken, CPU time."""
    return [samples.wall_ms, samples.cpu_ms] if samples.cpu_ms else [samples.wall_ms]


def _rounded(*values_ms: float) -> dict[str, float]:
    """Values of `STATISTICS`, in order and from the first; kernels take a microsecond or two."""
    names = (f"{statistic}_ms" for statistic in STATISTICS)
    return {name: round(max(0.0, value), 5) for name, value in zip(names, values_ms, strict=False)}


def watch(quiet: Quiet | None, measure: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What was measured, and `slowdown` of the machine where it is watched."""
    if quiet is None:
        return measure(), {}
    taken, slowdown = quiet.take(measure)
    return taken, {"slowdown": slowdown}


def begin_run(
    file: TableFile, what: str, protocol: TimingProtocol, quiet: Quiet | None = None
) -> int:
    """Note that measuring begins, and how busy the machine is; returns the run's number."""
    entry = {
        "what": what,
        "protocol": protocol.to_json(),
        "begun": now(),
        "commit": current_commit(),
        "load_average": machine.load_average(),
        "quiet": quiet.to_json() if quiet else None,
    }
    file.runs.append(entry)
    return len(file.runs) - 1
