from __future__ import annotations

import random

import pytest

from fasterseg.errors import UsageError
from fasterseg.search.subnets import contains, largest, smallest
from fasterseg.search.window import Drawer, Window, equal_latency, latency_range
from tests.unit.search.search_fakes import SPACE, price


def test_networks_of_equal_latency_are_random_different_and_within_the_tolerance() -> None:
    found = equal_latency(SPACE, price, 10.0, 12, seed=4)
    assert len({genotype.digest() for genotype in found}) == 12
    assert all(9.8 <= price(genotype) <= 10.2 for genotype in found)
    assert not any(contains(SPACE, genotype) for genotype in found)
    assert equal_latency(SPACE, price, 10.0, 12, seed=4) == found
    assert equal_latency(SPACE, price, 10.0, 12, seed=5) != found


def test_more_networks_of_equal_latency_begin_with_the_fewer_ones() -> None:
    few = equal_latency(SPACE, price, 10.0, 3, seed=1)
    assert equal_latency(SPACE, price, 10.0, 7, seed=1)[:3] == few


def test_the_network_that_is_compared_with_is_not_among_them() -> None:
    first = equal_latency(SPACE, price, 10.0, 1, seed=1)[0]
    others = equal_latency(SPACE, price, 10.0, 4, seed=1, taken=[first.digest()])
    assert first not in others


def test_too_few_networks_of_equal_latency_are_an_error() -> None:
    with pytest.raises(UsageError, match="0 of 2 random networks within 2% of 500 ms"):
        equal_latency(SPACE, price, 500.0, 2, seed=1)


def test_a_window_that_blind_draws_never_meet_is_reached_in_steps() -> None:
    rng = random.Random(0)
    found = latency_range(SPACE, price, seed=0)
    window = Window(found.fastest_ms, found.fastest_ms * 1.03)
    candidates = Drawer(SPACE, price, window, rng).some(5)
    assert len({one.digest for one in candidates}) == 5
    assert all(window.distance_ms(one.ms) == 0 for one in candidates)


def test_the_range_reaches_beyond_its_starting_points() -> None:
    # The cheapest operator by multiply-adds is not the fastest one here.
    found = latency_range(SPACE, price, seed=0)
    rng = random.Random("range/0")
    assert found.fastest_ms <= price(smallest(SPACE, rng))
    assert found.slowest_ms >= price(largest(SPACE, random.Random(1)))
    assert found.slowest_ms > 5 * found.fastest_ms


@pytest.mark.parametrize(("ms", "distance"), [(9.0, 1.0), (10.0, 0.0), (12.0, 0.0), (12.5, 0.5)])
def test_both_ends_of_a_window_are_inside(ms: float, distance: float) -> None:
    assert Window(10.0, 12.0).distance_ms(ms) == distance
