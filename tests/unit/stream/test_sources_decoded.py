from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import pytest

from fasterseg.stream.sources_decoded import LONGEST_GAP_S, SHORTEST_STEP_S, Timeline

MILLISECONDS = Fraction(1, 1000)


def times(
    pts: Sequence[int | None],
    rate: Fraction | None = Fraction(10),
    time_base: Fraction | None = MILLISECONDS,
) -> tuple[list[float], list[str]]:
    """Seconds of pictures with these timestamps, and the warnings."""
    warnings: list[str] = []
    timeline = Timeline(rate, time_base, warnings)
    return [timeline.seconds(value) for value in pts], warnings


def test_growing_timestamps_are_kept() -> None:
    assert times([500, 600, 617, 5000]) == ([0.0, 0.1, 0.117, 4.5], [])
    assert times([-200, -100, 0]) == ([0.0, 0.1, 0.2], [])


def test_missing_timestamps_follow_at_the_rate() -> None:
    assert times([None, None, None])[0] == pytest.approx([0.0, 0.1, 0.2])
    assert times([0, None, 300])[0] == pytest.approx([0.0, 0.1, 0.3])
    assert times([5, 6, 7], time_base=None)[0] == pytest.approx([0.0, 0.1, 0.2])
    assert times([None, None], rate=None)[0] == pytest.approx([0.0, 0.04])


@pytest.mark.parametrize(
    "pts",
    [
        [0, 0, 0, 0],
        [0, 100, 50, 150, 200],
        [0, 100, 5000, 0, 100, 200],
        [10**9, 10**9 + 100, 0, 100, 200],
        [0, 100, 2**62, 2**62 + 100],
        [0, 100, -(2**62), 200, 300],
        [2**62, -(2**62), 0, 100],
    ],
)
def test_broken_timestamps_become_growing_ones_without_leaps(pts: Sequence[int]) -> None:
    found, warnings = times(pts)
    assert found[0] == 0.0
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert all(SHORTEST_STEP_S <= step <= LONGEST_GAP_S for step in steps)
    assert len(warnings) == 1
    assert "timestamps go back, stand still or leap" in warnings[0]


def test_joined_recordings_follow_each_other() -> None:
    found, _ = times([0, 100, 200, 7_000_000, 7_000_100, 0, 100, 350])
    assert found[5:] == pytest.approx([7000.2, 7000.3, 7000.55])


def test_pictures_in_the_wrong_order_do_not_shift_the_rest() -> None:
    found, _ = times([0, 100, 300, 200, 400, 500, 1000])
    assert found[-1] == pytest.approx(1.0)


def test_after_seeking_times_count_from_the_same_first_picture() -> None:
    warnings: list[str] = []
    timeline = Timeline(Fraction(10), MILLISECONDS, warnings)
    assert timeline.seconds(1000) == 0.0
    assert timeline.seconds(9000) == 8.0
    timeline.seek()
    assert timeline.seconds(3000) == 2.0
    assert warnings == []
