from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.search.subnets import (
    cell_ops,
    contains,
    crossover,
    depths,
    fair_subnets,
    hand_baseline,
    largest,
    mutate,
    random_subnet,
    slot,
    smallest,
    splits,
)
from fasterseg.types import Size
from tests.shared import ROOT

SPACES = {
    "paper": SearchSpace(),
    "wide ends": SearchSpace(stem_widths=(4, 8), head_widths=(4, 6, 8), num_classes=11),
    "shallow": SearchSpace(layers=3, ops=("conv", "conv_downup"), final_rates=((32,), (8,))),
    "three branches": SearchSpace(layers=7, widths=(4, 8), final_rates=((32, 16, 8), (16, 16))),
    "fixed depth": SearchSpace(layers=6, ops=("conv", "conv_2x", "conv_2x_downup")),
    "no choice": SearchSpace(layers=4, ops=("conv",), widths=(8,), final_rates=((16,),)),
}
SIZES = (Size(64, 64), Size(67, 101), Size(360, 480), Size(1024, 2048))

spaces = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def assert_of(space: SearchSpace, *genotypes: Genotype) -> None:
    """They are of the space, and every size can be planned."""
    for genotype in genotypes:
        assert contains(space, genotype) == []
        for size in SIZES:
            plan(genotype, size)


@spaces
def test_everything_drawn_or_changed_is_of_the_space(space: SearchSpace) -> None:
    rng = random.Random(1)
    a, b = largest(space, rng), smallest(space, rng)
    assert_of(space, a, b, *fair_subnets(space, seed=3, step=5, count=3))
    for _ in range(12):
        drawn = random_subnet(space, rng)
        a, b = crossover(space, a, drawn, rng), mutate(space, b, rng, rng.random())
        assert_of(space, drawn, a, b)


@spaces
def test_largest_and_smallest_bound_what_can_be_drawn(space: SearchSpace) -> None:
    rng = random.Random(2)
    big = max(plan(largest(space, rng), SIZES[0]).macs for _ in range(40))
    small = min(plan(smallest(space, rng), SIZES[0]).macs for _ in range(40))
    for _ in range(40):
        assert small <= plan(random_subnet(space, rng), SIZES[0]).macs <= big


def test_the_papers_depths_are_those_of_its_derivation() -> None:
    space = SearchSpace()
    assert [depths(space, rate) for rate in (8, 16, 32)] == [
        range(5, 17), range(7, 17), range(9, 17),
    ]  # fmt: skip
    assert depths(replace(space, layers=3), 32) == range(3, 4)
    assert depths(replace(space, layers=4), 8) == range(1, 5)
    assert depths(replace(space, ops=("conv",)), 32) == range(16, 17)


def test_splits_are_all_ways_to_spread_cells_over_rates() -> None:
    space = SearchSpace(layers=4, ops=("conv",), final_rates=((32,),))
    assert splits(space, 32) == ((1, 1, 2), (1, 2, 1), (2, 1, 1))
    assert splits(space, 8) == ((4,),)


def test_slots_are_named_by_rate_and_place() -> None:
    branch = hand_baseline(SearchSpace(layers=6, final_rates=((32,),)), "conv", 4).branches[0]
    assert branch.strides == (8, 8, 16, 16, 32, 32)
    names = [slot(branch, cell) for cell in range(6)]
    assert names == ["8.0", "8.down", "16.0", "16.down", "32.0", "32.1"]


@spaces
def test_every_operator_comes_once_per_slot_and_turn(space: SearchSpace) -> None:
    ops = cell_ops(space)
    drawn = list(
        itertools.chain.from_iterable(fair_subnets(space, 7, step, 2) for step in range(6))
    )
    for first in range(0, len(drawn) - len(ops) + 1, len(ops)):
        seen: dict[str, set[tuple[int, str]]] = {}
        for number, genotype in enumerate(drawn[first : first + len(ops)]):
            for branch in genotype.branches:
                for cell, op in enumerate(branch.ops):
                    seen.setdefault(slot(branch, cell), set()).add((number, op))
        for name, pairs in seen.items():
            assert sorted(op for _, op in pairs) == sorted(ops), name


def test_fair_subnets_do_not_depend_on_how_many_a_step_takes() -> None:
    space = SPACES["wide ends"]
    ones = [fair_subnets(space, 3, step, 1)[0] for step in range(8)]
    fours = [*fair_subnets(space, 3, 0, 4), *fair_subnets(space, 3, 1, 4)]
    assert ones == fours
    assert fair_subnets(space, 4, 0, 4) != fours[:4]
    assert len(set(ones)) == len(ones)


def test_widths_and_sets_of_branches_are_drawn_evenly() -> None:
    space = SPACES["wide ends"]
    drawn = [genotype for step in range(300) for genotype in fair_subnets(space, 1, step, 4)]
    heads = Counter(genotype.head_width for genotype in drawn)
    assert min(heads.values()) > 0.9 * len(drawn) / 3
    rates = Counter(genotype.branches[1].final_rate for genotype in drawn)
    assert min(rates.values()) > 0.8 * len(drawn) / 2
    widths = Counter(width for genotype in drawn for width in genotype.branches[0].widths)
    assert min(widths.values()) > 0.9 * widths.total() / 5


def shared_cells(genotype: Genotype) -> int:
    laid_out = plan(genotype, SIZES[0])
    first, second = (set(laid_out.branch_cells(index)) for index in (0, 1))
    return len(first & second)


def test_branches_share_some_cells_or_none() -> None:
    rng = random.Random(5)
    shared = [shared_cells(random_subnet(SPACES["paper"], rng)) for _ in range(60)]
    assert 0 in shared
    assert max(shared) >= 3


@spaces
def test_a_mutation_at_rate_zero_changes_nothing(space: SearchSpace) -> None:
    rng = random.Random(4)
    for _ in range(20):
        genotype = random_subnet(space, rng)
        assert mutate(space, genotype, rng, 0.0) == genotype


def test_a_mutation_changes_something_and_keeps_something() -> None:
    space, rng = SPACES["wide ends"], random.Random(6)
    genotype = random_subnet(space, rng)
    changed = [mutate(space, genotype, rng, 0.15) for _ in range(200)]
    assert sum(other == genotype for other in changed) <= 4
    assert any(len(o.branches[0].ops) != len(genotype.branches[0].ops) for o in changed)
    assert any(o.branches[0].strides != genotype.branches[0].strides for o in changed)
    assert {o.stem_width for o in changed} == {4, 8}
    assert {o.head_width for o in changed} == {4, 6, 8}
    assert {o.branches[1].final_rate for o in changed} == {16, 8}
    assert sum(o.branches[0].ops[0] == genotype.branches[0].ops[0] for o in changed) > 120


def test_mutations_keep_shared_cells_shared() -> None:
    space, rng = SearchSpace(final_rates=((32, 16),)), random.Random(8)
    genotype = next(g for g in iter(lambda: random_subnet(space, rng), None) if shared_cells(g) > 2)
    kept = [shared_cells(mutate(space, genotype, rng, 0.1)) for _ in range(100)]
    assert sum(cells >= 2 for cells in kept) > 50


@spaces
def test_a_child_of_one_network_is_that_network(space: SearchSpace) -> None:
    rng = random.Random(9)
    if any(len(set(finals)) < len(finals) for finals in space.final_rates):
        space = replace(space, final_rates=space.final_rates[:1])
    for _ in range(20):
        genotype = random_subnet(space, rng)
        assert crossover(space, genotype, genotype, rng) == genotype


def test_a_child_has_cells_of_both_parents_and_no_others() -> None:
    space, rng = SearchSpace(layers=8, final_rates=((32, 16),)), random.Random(10)
    a = hand_baseline(space, "conv", 4)
    b = hand_baseline(space, "conv_2x", 12)
    children = [crossover(space, a, b, rng) for _ in range(30)]
    for child in children:
        for branch in child.branches:
            pairs = set(zip(branch.ops, branch.widths, strict=False))
            assert pairs <= {("conv", 4), ("conv_2x", 12)}
    mixed = [child for child in children if len(set(child.branches[0].ops)) == 2]
    assert len(mixed) > 20
    # Both parents share all they can, so the child does.
    assert all(shared_cells(child) == shared_cells(a) for child in children)


def test_the_hand_baseline_is_one_operator_and_one_width() -> None:
    space = SearchSpace(stem_widths=(4, 8))
    genotype = hand_baseline(space, "conv", 6)
    assert_of(space, genotype)
    assert genotype.stem_width == 4
    for branch in genotype.branches:
        assert len(branch.ops) == 16
        assert (set(branch.ops), set(branch.widths)) == ({"conv"}, {6})
    short = hand_baseline(space, "conv", 6, cells=1)
    assert [len(branch.ops) for branch in short.branches] == [9, 7]
    assert short.branches[0].strides == (8, 8, 8, 16, 16, 16, 32, 32, 32)


def test_what_is_not_of_the_space_is_told_why() -> None:
    space = SearchSpace(ops=("skip", "conv"), widths=(4, 8), num_classes=11)
    genotype = hand_baseline(space, "conv", 4)
    first = genotype.branches[0]
    wrong = replace(
        genotype,
        num_classes=5,
        stem_width=12,
        branches=(
            replace(first, ops=("conv",), strides=(8,), widths=()),
            replace(first, ops=("conv_2x", *first.ops[1:]), widths=(6, *first.widths[1:])),
        ),
    )
    told = "\n".join(contains(space, wrong))
    for fact in (
        "num_classes: 5", "stem_width: 12", "final rates: (8, 32)", "cells of branch 0: 1",
        "branch 1: conv_2x", "branch 1: 6",
    ):  # fmt: skip
        assert fact in told
    assert "head_width" not in told


DRAW = """
import json, random
from fasterseg.arch.space import SearchSpace
from fasterseg.search import subnets
space, rng = SearchSpace(stem_widths=(4, 8)), random.Random(3)
a, b = (subnets.random_subnet(space, rng) for _ in range(2))
drawn = [a, b, subnets.mutate(space, a, rng, 0.5), subnets.crossover(space, a, b, rng)]
drawn += subnets.fair_subnets(space, 1, 2, 3) + [subnets.largest(space, rng)]
print(json.dumps([genotype.digest() for genotype in drawn]))
"""


def test_the_same_seed_draws_the_same_in_every_process() -> None:
    digests = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", DRAW],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.append(json.loads(done.stdout))
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == len(digests[0])
