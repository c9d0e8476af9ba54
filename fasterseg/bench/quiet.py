"""`Quiet`: what was measured while the machine was slower than it can be is measured again.

On a shared machine other guests take caches, clock and memory for seconds at a time: the same
network took 14 and 28 ms within a minute. No statistic of one visit can tell that from a slow
network, but a network that never changes can, if it is run before and after.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final, TypeVar

from fasterseg.bench.engines import render_frames
from fasterseg.bench.snippets import network_opener
from fasterseg.bench.tables import TableFile
from fasterseg.bench.timing import CallLane, Clock
from fasterseg.graph.emit import EmitOptions
from fasterseg.runtime.model import resolve_model
from fasterseg.types import Size

T = TypeVar("T")

TOLERANCE: Final = 0.05
"""Share by which the probe may be slower than at its best while something is measured."""

ATTEMPTS: Final = 4
"""Times that one thing is measured at most; the least disturbed one counts."""

PATIENCE: Final = 60
"""Levels that are waited for quiet before a measurement begins all the same."""

BUDGET: Final = 3000
"""Levels that waiting may take in all, some minutes; where they are spent, the machine never is
quiet, and things are taken as they come."""

REPEATED: Final = 20
"""Levels that a further attempt counts for."""

PROBE: Final = "fasterseg-student"
PROBE_SIZE: Final = Size(128, 256)
_RUNS: Final = 5
_SETTLING: Final = 40
"""Levels that are taken before the first measurement, to know the machine at its best."""


class Quiet:
    """Judges by a probe, run before and after, whether a measurement was disturbed.

    Args:
        probe: always the same work, some milliseconds of it.
        clock: wall clock, in nanoseconds.

    Attributes:
        best_ms: what the probe takes at best, as far as seen.
    """

    def __init__(self, probe: Callable[[], object], clock: Clock) -> None:
        self._lane = CallLane(lambda _: probe(), clock=clock)
        self.best_ms = float("inf")
        self._left = BUDGET
        for _ in range(_SETTLING):
            self._level_ms()

    def to_json(self) -> dict[str, float | int]:
        """What it takes for quiet, as plain JSON values."""
        return {"best_ms": round(self.best_ms, 4), "tolerance": TOLERANCE, "attempts": ATTEMPTS}

    def take(self, measure: Callable[[], T]) -> tuple[T, float]:
        """Wait for the machine to be quiet, though not for long, and measure.

        That is done anew where it was disturbed meanwhile, `ATTEMPTS` times at most, and not at all
        on a machine that has shown that it never is quiet (see `BUDGET`).

        Returns:
            The least disturbed result, and by which share the probe was slower than at its best.
        """
        taken: list[tuple[float, T]] = []
        for _ in range(ATTEMPTS):
            before_ms = self._wait()
            result = measure()
            taken.append((max(before_ms, self._level_ms()), result))
            if self._is_quiet(taken[-1][0]) or not self._left:
                break
            self._left = max(0, self._left - REPEATED)
        level_ms, result = min(taken, key=lambda one: one[0])
        return result, round(level_ms / self.best_ms - 1, 4)

    def _wait(self) -> float:
        level_ms = self._level_ms()
        for _ in range(min(PATIENCE, self._left)):
            if self._is_quiet(level_ms):
                break
            level_ms = self._level_ms()
            self._left -= 1
        return level_ms

    def _is_quiet(self, level_ms: float) -> bool:
        return level_ms <= (1 + TOLERANCE) * self.best_ms

    def _level_ms(self) -> float:
        level_ms = statistics.median(self._lane.take(_RUNS).wall_ms)
        self.best_ms = min(self.best_ms, level_ms)
        return level_ms


def quiet_for(file: TableFile, clock: Clock = time.perf_counter_ns) -> Quiet | None:
    """A small network in the engine of a table, warm; None for a GPU, which nobody shares.

    Raises:
        EngineError: the engine cannot be opened.
    """
    if file.conditions.get("device") != "cpu":
        return None
    open_net = network_opener(
        file.backend, "cpu", file.conditions.get("threads"), PROBE_SIZE, EmitOptions()
    )
    net = open_net(resolve_model(PROBE).genotype)
    net.bind(render_frames(PROBE_SIZE, 1, 1)[0])
    return Quiet(net.run_bound, clock)
