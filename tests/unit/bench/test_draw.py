"""Networks drawn by a seed: the same ones again, apart from each other, over a wide range."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.draw import draw, redraw
from fasterseg.errors import ConfigError, UsageError
from fasterseg.types import Size

SIZE = Size(256, 512)
SMALL = SearchSpace(layers=6, widths=(4, 8), num_classes=11)


def test_the_same_seed_draws_the_same_networks_and_another_one_others() -> None:
    first, again, other = (draw(SMALL, SIZE, seed, 4, 8) for seed in (3, 3, 4))
    assert first == again
    assert first.to_json()["held_out"] != other.to_json()["held_out"]


def test_held_out_networks_are_not_among_those_of_the_fit() -> None:
    drawn = draw(SearchSpace(), SIZE, 0)
    digests = [genotype.digest() for genotype in (*drawn.calibration, *drawn.held_out)]
    assert len(set(digests)) == 32 + 64
    assert len(drawn.held_out) == 64


def test_both_sets_span_more_than_twice_the_cost_evenly() -> None:
    drawn = draw(SearchSpace(), SIZE, 0)
    for nets in (drawn.calibration, drawn.held_out):
        costs = sorted(plan(genotype, SIZE).macs for genotype in nets)
        assert costs[-1] > 3 * costs[0]
        steps = [after / before for before, after in itertools.pairwise(costs)]
        assert max(steps) < 1.35


def test_every_operator_of_a_drawn_network_is_one_of_the_space() -> None:
    specs = set(SMALL.specs(SIZE))
    for genotype in draw(SMALL, SIZE, 0, 4, 12).held_out:
        assert {node.spec for node in plan(genotype, SIZE).nodes} <= specs


def test_networks_that_odd_maps_forbid_are_not_drawn() -> None:
    for genotype in draw(SearchSpace(), Size(360, 480), 0, 4, 12).held_out:
        plan(genotype, Size(360, 480))


def test_a_stored_draw_is_drawn_again() -> None:
    drawn = draw(SMALL, SIZE, 5, 4, 8)
    assert redraw(SMALL, SIZE, drawn.to_json(), "t.json") == drawn


@pytest.mark.parametrize("changed", ["held_out", "calibration"])
def test_a_stored_draw_of_another_version_is_refused(changed: str) -> None:
    stored: dict[str, Any] = draw(SMALL, SIZE, 5, 4, 8).to_json()
    stored[changed] = ["0" * 64, *stored[changed][1:]]
    with pytest.raises(ConfigError, match=r"t\.json: seed 5 gives other networks"):
        redraw(SMALL, SIZE, stored, "t.json")


def test_a_space_with_too_few_networks_is_refused() -> None:
    only = SearchSpace(layers=3, ops=("conv",), widths=(4,), final_rates=((32,),))
    with pytest.raises(UsageError, match="1 different networks where 12"):
        draw(only, SIZE, 0, 4, 8)
