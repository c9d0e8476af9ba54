"""Several things measured in turn, so that what disturbs one disturbs all; ratios with spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fasterseg.bench.timing import Collected, Lane, Samples, TimingProtocol
from fasterseg.errors import UsageError
from fasterseg.types import LatencyStats

TURN_RUNS: Final = 3
"""Runs of a lane that count before it is the next one's turn; one before them does not, because
it finds the caches full of somebody else's data."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What one lane did.

    Attributes:
        samples: all runs that count.
        rounds_ms: the median of each of its turns; the n-th of two lanes were next to each other.
    """

    samples: Samples
    rounds_ms: tuple[float, ...]


def interleave(
    lanes: Sequence[Lane],
    protocol: TimingProtocol,
    *,
    turn: int = TURN_RUNS,
    on_round: Callable[[int], None] | None = None,
) -> list[Turns]:
    """Give each lane a turn, round by round, until all have what the protocol wants.

    Every other round goes backwards, so that a slow drift of the machine favours nobody. The
    warm-up is done in rounds as well.

    Args:
        lanes: what is timed.
        protocol: how much to run of each.
        turn: runs that count in a turn.
        on_round: gets the number of rounds that are done, warm-up apart.
    """
    warm_up = TimingProtocol("warm-up", min_runs=protocol.warmup_runs, min_s=protocol.warmup_s)
    if protocol.warmup_runs or protocol.warmup_s:
        _rounds(lanes, warm_up, turn, None)
    return _rounds(lanes, protocol, turn, on_round)


def _rounds(
    lanes: Sequence[Lane],
    protocol: TimingProtocol,
    turn: int,
    on_round: Callable[[int], None] | None,
) -> list[Turns]:
    collected = [Collected() for _ in lanes]
    medians: list[list[float]] = [[] for _ in lanes]
    done = 0
    while not all(one.satisfies(protocol) for one in collected):
        order = range(len(lanes))
        for index in order if done % 2 == 0 else reversed(order):
            lanes[index].take(1)
            samples = lanes[index].take(turn)
            collected[index].add(samples)
            medians[index].append(statistics.median(samples.wall_ms))
        done += 1
        if on_round is not None:
            on_round(done)
    return [Turns(one.samples(), tuple(row)) for one, row in zip(collected, medians, strict=True)]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long one thing takes as another, over the rounds they shared.

    Attributes:
        p50: median of the rounds' ratios; above 1 the first is slower.
        p10: 10th percentile of them.
        p90: 90th percentile.
        rounds: number of rounds.
    """

    p50: float
    p10: float
    p90: float
    rounds: int


def ratio(rounds_ms: Sequence[float], base_ms: Sequence[float]) -> Ratio:
    """Compare two lanes round by round.

    Args:
        rounds_ms: medians of the rounds of one.
        base_ms: those of the other, from the same run.

    Raises:
        UsageError: they are not of the same run, or of one that was not interleaved.
    """
    if not rounds_ms or len(rounds_ms) != len(base_ms):
        raise UsageError(
            f"{len(rounds_ms)} and {len(base_ms)} rounds do not pair; a ratio with its spread "
            "needs both measured in one run with --interleave"
        )
    ratios = [one / base for one, base in zip(rounds_ms, base_ms, strict=True)]
    low = sorted(ratios)
    stats = LatencyStats.of(low)
    p10 = -LatencyStats.of([-value for value in low]).p90_ms
    return Ratio(p50=stats.p50_ms, p10=p10, p90=stats.p90_ms, rounds=len(ratios))
