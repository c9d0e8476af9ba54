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
from fasterseg.arch.space import Placed
from fasterseg.bench import device as machine
from fasterseg.bench.quiet import Quiet
from fasterseg.bench.records import current_commit, now
from fasterseg.bench.snippets import Opener
from fasterseg.bench.tables import TableFile, Times
from fasterseg.bench.timing import CallLane, Clock, Collected, Lane, Samples, TimingProtocol
from fasterseg.graph.single import PARTS, emit_single, is_nothing
from fasterseg.types import LatencyStats

T = TypeVar("T")

_ORDER_SEED: Final = 0
_NOTHING: Final[Times] = {"p50_ms": 0.0, "min_ms": 0.0, "cpu_p50_ms": 0.0, "cpu_min_ms": 0.0}


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
    """Time one operator at both granularities.

    Returns:
        `inside` and `alone` with their times, `count` (runs of each graph) and `cov` (standard
        deviation over mean of the runs of the operator between others), and `slowdown` of the
        machine meanwhile, where that was watched.
    """
    if is_nothing(placed.spec):
        return {"inside": dict(_NOTHING), "alone": dict(_NOTHING), "count": 0, "cov": 0.0}
    options = file.emit_options()
    with contextlib.ExitStack() as stack:
        lanes: list[Lane] = []
        for part in PARTS:
            model = emit_single(placed, file.size, part, options)
            snippet = stack.enter_context(contextlib.closing(open_one(model.SerializeToString())))
            lanes.append(_lane(snippet.run, clocks))
        (alone, inside, around), watched = watch(quiet, lambda: in_step(lanes, file.protocol))
    return {
        "inside": difference(inside, around),
        "alone": times_of(alone),
        "count": len(inside.wall_ms),
        "cov": round(LatencyStats.of(inside.wall_ms).cov, 4),
        **watched,
    }


def _lane(run: Callable[[], None], clocks: Clocks) -> Lane:
    return CallLane(lambda _: run(), clock=clocks.wall, cpu_clock=clocks.cpu)


def in_step(lanes: Sequence[Lane], protocol: TimingProtocol) -> list[Samples]:
    """Run each lane once a round, so that sample i of all of them was taken in round i.

    The slowest one decides when there is enough: what is taken off it is over much sooner, and
    need not be known better. Every other round goes backwards.
    """
    for lane in lanes:
        lane.take(protocol.warmup_runs)
    collected = [Collected() for _ in lanes]
    order = list(range(len(lanes)))
    while not any(one.satisfies(protocol) for one in collected):
        for index in order:
            collected[index].add(lanes[index].take(1))
        order.reverse()
    return [one.samples() for one in collected]


def times_of(samples: Samples) -> dict[str, float]:
    """Every statistic of some runs, rounded to a tenth of a microsecond."""
    return _rounded(
        statistics.median(samples.wall_ms),
        min(samples.wall_ms),
        statistics.median(samples.cpu_ms),
        min(samples.cpu_ms),
    )


def difference(longer: Samples, shorter: Samples) -> dict[str, float]:
    """What one graph takes more than another; none is less than nothing.

    Medians are those of the rounds' differences, which a disturbed round leaves alone.
    """

    def gaps(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        return statistics.median(one - other for one, other in zip(a, b, strict=True))

    return _rounded(
        gaps(longer.wall_ms, shorter.wall_ms),
        min(longer.wall_ms) - min(shorter.wall_ms),
        gaps(longer.cpu_ms, shorter.cpu_ms),
        min(longer.cpu_ms) - min(shorter.cpu_ms),
    )


def _rounded(*values_ms: float) -> dict[str, float]:
    names = ("p50_ms", "min_ms", "cpu_p50_ms", "cpu_min_ms")
    return {name: round(max(0.0, value), 4) for name, value in zip(names, values_ms, strict=True)}


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
