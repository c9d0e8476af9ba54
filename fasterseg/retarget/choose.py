"""`choose`: the network to deploy, among those that were measured and keep the target."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fasterseg.bench.tables import Statistic
from fasterseg.errors import PerformanceError
from fasterseg.retarget.measured import Measured, MeasureMore
from fasterseg.search.pareto import Scored, best_first
from fasterseg.search.window import FLOOR, Window

FIRST: Final = 6
"""Best networks that are measured at once."""

MORE: Final = 4
"""Networks that are measured at a time when none of those before qualifies."""

LIMIT: Final = 26
"""Networks after which the search for one that qualifies is given up."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The network that keeps the target and scores best.

    Attributes:
        scored: the network with its score and predicted latency.
        measured: its measurements.
        measured_ms: its latency by the statistic that was asked for.
        target_ms: the target.
        tried: digests of the networks that were measured before the choice, in order.
    """

    scored: Scored
    measured: Measured
    measured_ms: float
    target_ms: float
    tried: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """What is reported of it."""
        return {
            "target_ms": self.target_ms,
            "chosen": self.scored.digest,
            "predicted_ms": self.scored.ms,
            "measured_ms": self.measured_ms,
            "miou": self.scored.miou,
            "tried": list(self.tried),
        }


def choose(
    scored: Iterable[Scored],
    measure: MeasureMore,
    target_ms: float,
    statistic: Statistic,
    *,
    headroom: float = 0.0,
    floor: float = FLOOR,
    first: int = FIRST,
    limit: int = LIMIT,
) -> Chosen:
    """Measure the best networks, and take the best of those that keep the target as measured.

    Where none does, the next ones are those whose latency, corrected by how the measured ones
    differ from their predictions, should.

    Args:
        scored: candidates; none is predicted to take longer than the target.
        measure: measures networks; what it knows costs nothing.
        target_ms: no network that takes longer is chosen.
        statistic: which latency counts.
        headroom: share of the target that the network must stay below it.
        floor: share of the target that it must take at least.
        first: how many are measured before the first choice.
        limit: networks that are measured before it is given up.

    Raises:
        PerformanceError: none qualifies.
    """
    window = Window(floor * target_ms, target_ms * (1 - headroom))
    waiting = best_first(scored)
    known: dict[str, Measured] = {}
    tried: list[Scored] = []
    todo = waiting[:first]
    while todo:
        known |= measure([one.genotype for one in todo])
        tried += todo
        fitting = [one for one in tried if window.distance_ms(known[one.digest].ms(statistic)) == 0]
        if fitting:
            best = best_first(fitting)[0]
            chosen = known[best.digest]
            digests = tuple(one.digest for one in tried)
            return Chosen(best, chosen, chosen.ms(statistic), target_ms, digests)
        waiting = [one for one in waiting if one.digest not in known]
        ratio = _ratio(tried, known, statistic)
        waiting.sort(key=lambda one: (window.distance_ms(ratio * one.ms), *one.rank))
        todo = waiting[: max(0, min(MORE, limit - len(tried)))]
    raise PerformanceError(_refusal(tried, known, statistic, window))


def _ratio(tried: Sequence[Scored], known: Mapping[str, Measured], statistic: Statistic) -> float:
    """How many times as long as predicted networks take."""
    return statistics.median(known[one.digest].ms(statistic) / one.ms for one in tried)


def _refusal(
    tried: Sequence[Scored], known: Mapping[str, Measured], statistic: Statistic, window: Window
) -> str:
    if not tried:
        return "no network was scored, so none can be chosen; search first"
    times = sorted(known[one.digest].ms(statistic) for one in tried)
    ratio = _ratio(tried, known, statistic)
    return (
        f"none of {len(tried)} measured networks takes {window.low_ms:.3g} to "
        f"{window.high_ms:.3g} ms ({statistic}): they take {times[0]:.3g} to {times[-1]:.3g} ms, "
        f"{ratio:.2f} times what the table predicts. Measure table and networks on an idle "
        "machine, or search for "
        + ("a lower" if ratio > 1 else "a higher")
        + f" target, about {window.high_ms / ratio:.3g} ms"
    )
