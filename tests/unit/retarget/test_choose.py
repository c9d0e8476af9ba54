from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.bench.nominal import same_times
from fasterseg.errors import PerformanceError
from fasterseg.retarget.choose import Chosen, choose
from fasterseg.retarget.measured import Measured
from fasterseg.search.pareto import Scored
from fasterseg.search.window import equal_latency
from tests.shared import ROOT
from tests.unit.search.search_fakes import SPACE, price

DRAWN = equal_latency(SPACE, price, 9.0, 40, seed=2, tolerance=0.2)


class Bench:
    """Measures networks at so many times their predicted latency, and notes which."""

    def __init__(self, factor: Callable[[int], float] = lambda _: 1.0) -> None:
        self.asked: list[list[str]] = []
        self._factor = factor

    def __call__(self, genotypes: Sequence[Genotype]) -> dict[str, Measured]:
        self.asked.append([genotype.digest() for genotype in genotypes])
        found = {}
        for genotype in genotypes:
            place = DRAWN.index(genotype)
            ms = PREDICTED[place] * self._factor(place)
            found[genotype.digest()] = Measured(genotype, PREDICTED[place], (same_times(ms),), {})
        return found


PREDICTED = [6.0 + 0.1 * place for place in range(40)]
"""From 6.0 to 9.9 ms; slower networks score better."""

SCORED = [
    Scored(genotype, genotype.digest(), ms, 0.4 + ms / 100, "evolve", 0, 10.0)
    for genotype, ms in zip(DRAWN, PREDICTED, strict=True)
]


def chosen(bench: Bench, target_ms: float = 10.0, **options: float) -> Chosen:
    return choose(SCORED, bench, target_ms, "p50", **options)  # type: ignore[arg-type]


def test_the_best_network_that_keeps_the_target_as_measured_is_chosen() -> None:
    bench = Bench(lambda place: 1.05 if place >= 38 else 1.0)
    found = chosen(bench)
    assert found.scored.ms == pytest.approx(9.7)
    assert found.measured_ms == pytest.approx(9.7)
    assert len(bench.asked) == 1
    assert bench.asked[0] == [one.digest for one in SCORED[:-7:-1]]
    assert found.tried == tuple(bench.asked[0])
    assert found.to_json()["chosen"] == found.scored.digest


def test_headroom_is_kept_below_the_target() -> None:
    assert chosen(Bench(), headroom=0.02).measured_ms == pytest.approx(9.8)


def test_where_none_qualifies_the_prediction_is_corrected_and_others_are_measured() -> None:
    bench = Bench(lambda _: 1.25)
    found = chosen(bench)
    # 8.0 ms by prediction are 10.0 measured: the best that can be, in the second attempt.
    assert found.scored.ms == pytest.approx(8.0)
    assert 8.5 <= found.measured_ms <= 10.0
    assert [len(asked) for asked in bench.asked] == [6, 4]


def test_networks_far_below_the_target_are_no_answer() -> None:
    bench = Bench(lambda _: 0.5)
    with pytest.raises(PerformanceError, match=r"takes 8\.5 to 10 ms \(p50\).*a higher target"):
        chosen(bench)
    assert chosen(Bench(lambda _: 0.5), floor=0.0).scored.ms == pytest.approx(9.9)


def test_the_search_for_a_network_ends_at_a_limit_with_the_ratio() -> None:
    bench = Bench(lambda _: 2.0)
    message = r"none of 9 measured networks .* 2\.00 times .* a lower target, about 5 ms"
    with pytest.raises(PerformanceError, match=message):
        chosen(bench, limit=9)
    assert [len(asked) for asked in bench.asked] == [6, 3]


def test_all_networks_are_tried_before_it_is_given_up() -> None:
    bench = Bench(lambda _: 3.0)
    with pytest.raises(PerformanceError, match="none of 40 measured"):
        chosen(bench, limit=100)
    assert len({digest for asked in bench.asked for digest in asked}) == 40


def test_no_network_at_all_is_said() -> None:
    with pytest.raises(PerformanceError, match="no network was scored"):
        choose([], Bench(), 10.0, "p50")


def test_searching_measuring_and_choosing_need_no_torch() -> None:
    program = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import fasterseg.retarget.choose, fasterseg.search.evolve, fasterseg.search.split\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_a_network_met_twice_is_measured_once() -> None:
    bench = Bench()
    choose([*SCORED, *SCORED], bench, 10.0, "p50")
    assert len(set(bench.asked[0])) == 6
