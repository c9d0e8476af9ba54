from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.errors import ConfigError, UsageError
from fasterseg.search.evolve import (
    Evolution,
    EvolveSettings,
    evolve,
    hand_baselines,
    random_search,
)
from fasterseg.search.ledger import Ledger
from fasterseg.search.subnets import contains, hand_baseline
from tests.shared import ROOT
from tests.unit.search.search_fakes import SPACE, Scorer, price, quality

SETTINGS = EvolveSettings(population=10, generations=7, parents=5)
TARGET_MS = 11.0


def run(
    target_ms: float = TARGET_MS,
    settings: EvolveSettings = SETTINGS,
    ledger: Ledger | None = None,
    scorer: Scorer | None = None,
) -> Evolution:
    ledger = ledger or Ledger(None, "supernet")
    return evolve(SPACE, price, scorer or Scorer(), target_ms, settings, ledger)


def shown(evolution: Evolution) -> str:
    return json.dumps([one.to_json() for one in evolution.scored])


@pytest.mark.parametrize("search", [evolve, random_search])
@pytest.mark.parametrize("target_ms", [7.0, 16.0])
def test_no_network_above_the_cap_or_below_the_floor_is_scored(
    search: Any, target_ms: float
) -> None:
    asked: list[Genotype] = []

    def score(genotypes: Any) -> list[float]:
        asked.extend(genotypes)
        return [quality(genotype) for genotype in genotypes]

    found = search(SPACE, price, score, target_ms, SETTINGS, Ledger(None, "supernet"))
    assert len(asked) == SETTINGS.evaluations
    assert all(0.85 * target_ms <= price(genotype) <= target_ms for genotype in asked)
    assert not any(contains(SPACE, genotype) for genotype in asked)
    assert found.best.ms == price(found.best.genotype)


def test_evolution_beats_a_random_search_of_the_same_budget() -> None:
    gains = []
    for seed in range(5):
        settings = replace(SETTINGS, seed=seed)
        ledger = Ledger(None, "supernet")
        found = run(settings=settings, ledger=ledger)
        chance = random_search(SPACE, price, Scorer(), TARGET_MS, settings, ledger)
        assert found.evaluations == chance.evaluations == settings.evaluations
        gains.append(found.best.miou - chance.best.miou)
    assert min(gains) > 0, gains


def test_later_generations_are_better_and_the_best_is_never_lost() -> None:
    found = run()
    rounds = [[one.miou for one in found.scored if one.round == n] for n in range(7)]
    assert [len(scores) for scores in rounds] == [10] * 7
    assert sum(rounds[-1]) > 1.05 * sum(rounds[0])
    assert found.best.miou == max(one.miou for one in found.scored)


def test_no_network_is_chosen_or_scored_twice() -> None:
    scorer, ledger = Scorer(), Ledger(None, "supernet")
    found = run(scorer=scorer, ledger=ledger)
    chance = random_search(SPACE, price, scorer, TARGET_MS, SETTINGS, ledger)
    for search in (found, chance):
        assert len({one.digest for one in search.scored}) == SETTINGS.evaluations
    assert len(set(scorer.digests)) == len(scorer.digests)


@pytest.mark.parametrize("dies_after", [0, 13, 69])
def test_a_killed_search_goes_on_to_the_same_bytes(tmp_path: Path, dies_after: int) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    expected = run(ledger=Ledger(whole, "supernet"))
    with pytest.raises(KeyboardInterrupt):
        run(ledger=Ledger(parts, "supernet"), scorer=Scorer(dies_after))
    with parts.open("ab") as file:
        file.write(b'{"digest": "cut sho')
    rest = Scorer()
    found = run(ledger=Ledger(parts, "supernet"), scorer=rest)
    assert shown(found) == shown(expected)
    assert parts.read_bytes() == whole.read_bytes()
    assert len(rest.digests) < SETTINGS.evaluations - dies_after + 8
    again = Scorer()
    assert shown(run(ledger=Ledger(parts, "supernet"), scorer=again)) == shown(expected)
    assert again.calls == 0


def test_two_targets_give_two_networks_the_looser_one_slower(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "scored.jsonl", "supernet")
    tight, loose = run(8.0, ledger=ledger), run(13.0, ledger=ledger)
    assert tight.best.digest != loose.best.digest
    assert tight.best.ms < loose.best.ms
    assert tight.best.miou < loose.best.miou
    assert {one.target_ms for one in ledger.scored} == {8.0, 13.0}


def test_a_target_does_not_depend_on_those_searched_before() -> None:
    ledger = Ledger(None, "supernet")
    run(8.0, ledger=ledger)
    assert shown(run(13.0, ledger=ledger)) == shown(run(13.0))


def test_another_seed_chooses_other_networks() -> None:
    assert shown(run(settings=replace(SETTINGS, seed=3))) != shown(run())


def test_choices_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    program = (
        "from tests.unit.search.test_evolve import *\n"
        "import hashlib\n"
        "small = replace(SETTINGS, population=6, generations=3)\n"
        "print(hashlib.sha256(shown(run(settings=small)).encode()).hexdigest())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_ties_go_to_the_faster_network() -> None:
    found = evolve(
        SPACE, price, lambda gs: [0.5] * len(gs), TARGET_MS, SETTINGS, Ledger(None, "supernet")
    )
    assert found.best.ms == min(one.ms for one in found.scored)


def test_an_unreachable_target_names_the_fastest_network_and_the_way_out() -> None:
    scorer = Scorer()
    with pytest.raises(UsageError, match=r"keeps 2 ms: the fastest .* takes \d.* Raise the target"):
        run(2.0, scorer=scorer)
    assert scorer.calls == 0
    with pytest.raises(UsageError, match="above 0"):
        run(0.0)


def test_a_target_that_binds_nothing_is_said_and_the_best_of_all_taken() -> None:
    found = run(1000.0)
    assert found.floor == 0.0
    assert "binds nothing" in found.note
    assert found.best.ms > 20
    assert run().note == ""


def test_a_space_that_runs_out_of_networks_stops_early_and_says_so() -> None:
    tiny = replace(
        SPACE, layers=3, ops=("conv",), widths=(4, 6), final_rates=((16,),), head_widths=(4,)
    )
    found = evolve(tiny, price, Scorer(), 4.0, replace(SETTINGS, floor=0.0), Ledger(None, "x"))
    assert 0 < found.evaluations < SETTINGS.evaluations
    assert "evaluations were saved" in found.note


def test_hand_baselines_are_as_wide_as_the_cap_permits() -> None:
    found = hand_baselines(SPACE, price, Scorer(), TARGET_MS, Ledger(None, "supernet"))
    used = []
    for one in found:
        [op] = {op for branch in one.genotype.branches for op in branch.ops}
        [width] = {width for branch in one.genotype.branches for width in branch.widths}
        assert one.ms == price(one.genotype) <= TARGET_MS
        assert (one.how, one.miou) == ("hand", quality(one.genotype))
        wider = next((w for w in SPACE.widths if w > width), None)
        assert wider is None or price(hand_baseline(SPACE, op, wider)) > TARGET_MS
        used.append((op, width))
    # conv_2x is too slow at any width.
    assert used == [("conv", 6), ("conv_downup", 10), ("conv_2x_downup", 4)]


def test_a_hand_baseline_has_fewer_cells_where_no_width_is_fast_enough() -> None:
    found = hand_baselines(SPACE, price, Scorer(), 6.5, Ledger(None, "supernet"))
    lengths = {one.genotype.branches[0].ops[0]: len(one.genotype.branches[0].ops) for one in found}
    assert lengths["conv"] < SPACE.layers == lengths["conv_downup"]
    assert hand_baselines(SPACE, price, Scorer(), 1.0, Ledger(None, "supernet")) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"population": 0}, "population must be at least 1"),
        ({"mutation": 0.0}, "mutation"),
        ({"floor": 1.0}, "floor"),
        ({"recalibration": 1}, "recalibration must be at least 2"),
        ({"headroom": 0.2}, "below 1 - floor"),
    ],
)
def test_settings_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvolveSettings(**values)
