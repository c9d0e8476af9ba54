from __future__ import annotations

import pytest

from fasterseg.bench.interleave import interleave, ratio
from fasterseg.bench.timing import Samples, TimingProtocol
from fasterseg.errors import UsageError


class FakeLane:
    """Takes 1, 2, 3, ... ms times `factor`, and tells a shared log that it ran."""

    def __init__(self, name: str, log: list[tuple[str, int]], factor: float = 1.0) -> None:
        self.name = name
        self.log = log
        self.factor = factor
        self.runs = 0

    def take(self, runs: int) -> Samples:
        self.log.append((self.name, runs))
        numbers = range(self.runs + 1, self.runs + runs + 1)
        self.runs += runs
        return Samples(tuple(self.factor * n for n in numbers))


def test_lanes_take_turns_forwards_and_backwards() -> None:
    log: list[tuple[str, int]] = []
    lanes = [FakeLane("a", log), FakeLane("b", log)]
    interleave(lanes, TimingProtocol("t", min_runs=4), turn=2)
    # A run that does not count comes before each turn.
    assert log == [(name, runs) for name in "abba" for runs in (1, 2)]


def test_runs_after_a_change_of_turn_do_not_count() -> None:
    (turns,) = interleave([FakeLane("a", [])], TimingProtocol("t", min_runs=4), turn=2)
    assert turns.samples.wall_ms == (2.0, 3.0, 5.0, 6.0)
    assert turns.rounds_ms == (2.5, 5.5)


def test_rounds_go_on_until_every_lane_has_enough() -> None:
    quick, slow = FakeLane("quick", [], 0.001), FakeLane("slow", [])
    first, second = interleave([quick, slow], TimingProtocol("t", min_runs=1, min_s=0.001), turn=1)
    assert len(first.rounds_ms) == len(second.rounds_ms)
    # 0.001 x (2 + 4 + ... + 2n) ms first reach 1 ms at n = 32.
    assert len(first.rounds_ms) == 32


def test_warm_up_is_thrown_away() -> None:
    protocol = TimingProtocol("t", warmup_runs=2, min_runs=2)
    (turns,) = interleave([FakeLane("a", [])], protocol, turn=2)
    assert turns.samples.wall_ms == (5.0, 6.0)


def test_rounds_that_are_done_are_told() -> None:
    told: list[int] = []
    interleave([FakeLane("a", [])], TimingProtocol("t", min_runs=6), turn=2, on_round=told.append)
    assert told == [1, 2, 3]


def test_ratio_is_taken_round_by_round() -> None:
    # The machine slows down tenfold half-way: ratios of the rounds do not notice.
    found = ratio((2.0, 4.0, 20.0, 40.0), (1.0, 2.0, 10.0, 20.0))
    assert (found.p50, found.p10, found.p90, found.rounds) == (2.0, 2.0, 2.0, 4)


def test_spread_is_that_of_the_rounds() -> None:
    found = ratio(tuple(float(n) for n in range(11)), (1.0,) * 11)
    assert (found.p10, found.p50, found.p90) == pytest.approx((1.0, 5.0, 9.0))


@pytest.mark.parametrize(("one", "base"), [((), ()), ((1.0,), (1.0, 2.0))])
def test_rounds_of_different_runs_are_refused(
    one: tuple[float, ...], base: tuple[float, ...]
) -> None:
    with pytest.raises(UsageError, match="--interleave"):
        ratio(one, base)
