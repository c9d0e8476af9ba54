"""Networks of a space as an evolution draws and changes them; method "evolve" (no torch).

A branch has cells at 1/8, then at 1/16, then at 1/32, as far as its final rate goes; the last
one of a rate that is not the final one is strided. Where "skip" is among the operators of the
space, a branch may have fewer cells than layers; it holds no skip itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from typing import Final, TypeVar

from fasterseg.arch.genotype import MINIMUM_WIDTH, Branch, Genotype, Rate
from fasterseg.arch.operators import OpSpec, macs
from fasterseg.arch.space import SearchSpace

RATES: Final[tuple[Rate, ...]] = (8, 16, 32)

DOWN: Final = "down"
"""Place of the strided cell of a rate, wherever it stands among the cells of that rate."""

Split = tuple[int, ...]
"""Cells of a branch at 1/8, at 1/16, ..."""

Cell = tuple[str, int]
"""Operator, and width behind it in twelfths."""

PickOp = Callable[[str], str]
"""Slot -> operator."""

T = TypeVar("T")


def cell_ops(space: SearchSpace) -> tuple[str, ...]:
    """The operators that a cell may have, in the order of the space."""
    return tuple(op for op in space.ops if op != "skip")


def depths(space: SearchSpace, final_rate: Rate) -> range:
    """The numbers of cells that a branch may have (spec section 2.4, step 4)."""
    scale = RATES.index(final_rate)
    if "skip" not in space.ops:
        return range(space.layers, space.layers + 1)
    least = min(space.layers, round(space.layers / 3) + 2 * scale)
    return range(max(least, scale + 1), space.layers + 1)


@cache
def splits(space: SearchSpace, final_rate: Rate) -> tuple[Split, ...]:
    """All ways to spread the cells of a branch over its rates, at least one each."""
    scale = RATES.index(final_rate)
    return tuple(
        tuple(after - before for before, after in pairwise((0, *ends, cells)))
        for cells in depths(space, final_rate)
        for ends in combinations(range(1, cells), scale)
    )


def path(split: Split) -> Branch:
    """A branch with so many cells at each rate; its operators and widths mean nothing."""
    return _branch([[("conv", MINIMUM_WIDTH)] * cells for cells in split])


def slot(branch: Branch, cell: int) -> str:
    """Where the weights of a cell lie: rate of its input and place among the cells there.

    All branches of all networks share them: "8.0", "8.1", ..., "8.down", "16.0", ...
    """
    rate = branch.strides[cell]
    if branch.next_rate(cell) != rate:
        return f"{rate}.{DOWN}"
    return f"{rate}.{cell - branch.strides.index(rate)}"


def random_subnet(space: SearchSpace, rng: random.Random) -> Genotype:
    """Any network of the space; a random part of what its branches can share is shared."""
    rates = rng.choice(space.final_rates)
    drawn = [_random_split(space, rate, rng) for rate in rates]
    return _draw(space, drawn, lambda _: rng.choice(cell_ops(space)), rng)


def fair_subnets(space: SearchSpace, seed: int, step: int, count: int) -> list[Genotype]:
    """The random networks of a training step; they follow from the seed and the step alone.

    Among `len(cell_ops(space))` consecutive ones, counted over the steps from a multiple of it,
    every slot that occurs has every operator once: they keep one split of the cells.

    Args:
        space: to draw from.
        seed: of the run.
        step: from 0.
        count: networks per step, the same in every step.
    """
    return [_fair_subnet(space, seed, step * count + n) for n in range(count)]


def _fair_subnet(space: SearchSpace, seed: int, number: int) -> Genotype:
    ops = cell_ops(space)
    turn, place = divmod(number, len(ops))
    rng = random.Random(f"{seed}/split/{turn}")
    drawn = [_random_split(space, rate, rng) for rate in rng.choice(space.final_rates)]

    def pick(name: str) -> str:
        return random.Random(f"{seed}/{name}/{turn}").sample(ops, len(ops))[place]

    return _draw(space, drawn, pick, random.Random(f"{seed}/widths/{number}"))


def _random_split(
    space: SearchSpace, rate: Rate, rng: random.Random, cells: int | None = None
) -> Split:
    """Every depth is as likely as the others, where it is not given."""
    depth = rng.choice(depths(space, rate)) if cells is None else cells
    return rng.choice([split for split in splits(space, rate) if sum(split) == depth])


def _draw(space: SearchSpace, drawn: Sequence[Split], pick: PickOp, rng: random.Random) -> Genotype:
    first, *others = [_random_branch(space, split, pick, rng) for split in drawn]
    joined = [_join(first, other, rng.randint(0, _joinable(first, other))) for other in others]
    stem, head = rng.choice(space.stem_widths), rng.choice(space.head_widths)
    return space.genotype((first, *joined), stem_width=stem, head_width=head)


def _random_branch(space: SearchSpace, split: Split, pick: PickOp, rng: random.Random) -> Branch:
    empty = path(split)
    ops = tuple(pick(slot(empty, cell)) for cell in range(len(empty.ops)))
    return replace(empty, ops=ops, widths=tuple(rng.choice(space.widths) for _ in ops[1:]))


def _branch(cells: Sequence[Sequence[Cell]]) -> Branch:
    """A branch of the cells at each rate; the width of the very last one has no meaning."""
    flat = [cell for at_rate in cells for cell in at_rate]
    strides = tuple(rate for rate, at_rate in zip(RATES, cells, strict=False) for _ in at_rate)
    return Branch(tuple(op for op, _ in flat), strides, tuple(width for _, width in flat[:-1]))


def _cells(space: SearchSpace, branch: Branch) -> list[list[Cell]]:
    """Inverse of `_branch`; the last cell takes the width of the one before."""
    widths = (*branch.widths, *(branch.widths[-1:] or space.widths[:1]))
    cells = list(zip(branch.strides, zip(branch.ops, widths, strict=True), strict=True))
    rates = RATES[: RATES.index(branch.final_rate) + 1]
    return [[cell for at, cell in cells if at == rate] for rate in rates]


def _joinable(first: Branch, other: Branch) -> int:
    """How many leading cells two branches could share, by their rates."""
    limit = min(len(first.ops), len(other.ops)) - 1
    rates = (first.next_rate(cell) == other.next_rate(cell) for cell in range(limit))
    return next((cell for cell, same in enumerate(rates) if not same), limit)


def _joined(first: Branch, other: Branch) -> int:
    """How many leading cells two branches do share."""
    limit = _joinable(first, other)
    ours, theirs = (list(zip(b.ops, b.widths, strict=False)) for b in (first, other))
    return next((cell for cell in range(limit) if ours[cell] != theirs[cell]), limit)


def _join(first: Branch, other: Branch, cells: int) -> Branch:
    """The other branch with the first one's leading cells."""
    return replace(
        other,
        ops=first.ops[:cells] + other.ops[cells:],
        widths=first.widths[:cells] + other.widths[cells:],
    )


def largest(space: SearchSpace, rng: random.Random) -> Genotype:
    """All layers, everything widest, the operator with most multiply-adds everywhere.

    Args:
        space: to choose from.
        rng: draws the set of branches and how their cells are spread over the rates.
    """
    rates = rng.choice(space.final_rates)
    drawn = [_random_split(space, rate, rng, space.layers) for rate in rates]
    return _uniform(space, drawn, max(cell_ops(space), key=_cost), -1)


def smallest(space: SearchSpace, rng: random.Random) -> Genotype:
    """As few cells as allowed, everything narrowest, the cheapest operator; see `largest`."""
    rates = rng.choice(space.final_rates)
    drawn = [_random_split(space, rate, rng, depths(space, rate)[0]) for rate in rates]
    return _uniform(space, drawn, min(cell_ops(space), key=_cost), 0)


def hand_baseline(space: SearchSpace, op: str, width: int, cells: int | None = None) -> Genotype:
    """What one would write down without a search: one operator, one width.

    It has the first set of branches of the space, cells spread evenly, the narrowest stem and head.

    Args:
        space: of the network.
        op: of every cell.
        width: of every cell, in twelfths.
        cells: of each branch, as near as the space allows; None: all layers.
    """
    drawn = []
    for rate in space.final_rates[0]:
        allowed = depths(space, rate)
        depth = allowed[-1] if cells is None else min(max(cells, allowed[0]), allowed[-1])
        parts = RATES.index(rate) + 1
        drawn.append(tuple((depth + extra) // parts for extra in reversed(range(parts))))
    branches = tuple(_branch([[(op, width)] * count for count in split]) for split in drawn)
    return space.genotype(branches)


def _uniform(space: SearchSpace, drawn: Sequence[Split], op: str, end: int) -> Genotype:
    """One operator everywhere; of every list of widths the first or the last."""
    cell = (op, space.widths[end])
    branches = tuple(_branch([[cell] * count for count in split]) for split in drawn)
    stem, head = space.stem_widths[end], space.head_widths[end]
    return space.genotype(branches, stem_width=stem, head_width=head)


def _cost(op: str) -> int:
    return macs(OpSpec(op, 96, 96, 1, 64, 64))


def mutate(space: SearchSpace, genotype: Genotype, rng: random.Random, rate: float) -> Genotype:
    """A network with some choices made anew; cells that branches share change together.

    Args:
        space: of the network.
        genotype: of the space.
        rng: draws.
        rate: probability for each choice (operators, widths, depth and spread of each branch, how
            much is shared, stem, head, set of branches) to become another one; 0 changes nothing.
    """
    before = tuple(branch.final_rate for branch in genotype.branches)
    finals = _other(space.final_rates, before, rng, rate)
    first, *others = _with_rates(space, genotype.branches, finals, rng)
    changed = _mutated(space, first, rng, rate)
    branches = [changed]
    for other in others:
        shared, own = _joined(first, other), _mutated(space, other, rng, rate)
        limit = _joinable(changed, own)
        cells = _other(range(limit + 1), min(shared, limit), rng, rate)
        branches.append(_join(changed, own, cells))
    return space.genotype(
        tuple(branches),
        stem_width=_other(space.stem_widths, genotype.stem_width, rng, rate),
        head_width=_other(space.head_widths, genotype.head_width, rng, rate),
    )


def _other(choices: Iterable[T], current: T, rng: random.Random, rate: float) -> T:
    """With a probability another choice, if there is one."""
    others = [choice for choice in choices if choice != current]
    return rng.choice(others) if rng.random() < rate and others else current


def _with_rates(
    space: SearchSpace, branches: Sequence[Branch], finals: Sequence[Rate], rng: random.Random
) -> list[Branch]:
    """A branch for each final rate: one of those given, or a random one."""
    left, found = list(branches), []
    for final in finals:
        branch = next((branch for branch in left if branch.final_rate == final), None)
        if branch is None:
            split = _random_split(space, final, rng)
            branch = _random_branch(space, split, lambda _: rng.choice(cell_ops(space)), rng)
        else:
            left.remove(branch)
        found.append(branch)
    return found


def _mutated(space: SearchSpace, branch: Branch, rng: random.Random, rate: float) -> Branch:
    cells = _cells(space, branch)
    before = tuple(len(at_rate) for at_rate in cells)
    # 2 where a cell moves to another rate, 1 where one comes or goes
    near = [
        split
        for split in splits(space, branch.final_rate)
        if sum(abs(a - b) for a, b in zip(split, before, strict=True)) <= 2
    ]
    after = _other(near, before, rng, rate)
    for at_rate, count in zip(cells, after, strict=True):
        _resize(space, at_rate, count, rng)
        at_rate[:] = [
            (_other(cell_ops(space), op, rng, rate), _other(space.widths, width, rng, rate))
            for op, width in at_rate
        ]
    return _branch(cells)


def _resize(space: SearchSpace, cells: list[Cell], count: int, rng: random.Random) -> None:
    """Drop or insert cells, in place, until so many are there."""
    while len(cells) > count:
        del cells[rng.randrange(len(cells))]
    while len(cells) < count:
        cell = (rng.choice(cell_ops(space)), rng.choice(space.widths))
        cells.insert(rng.randint(0, len(cells)), cell)


def crossover(space: SearchSpace, a: Genotype, b: Genotype, rng: random.Random) -> Genotype:
    """A child of two networks of a space; a slot comes from the same parent in all branches.

    The set of branches is that of one parent, the spread of the cells of each branch that of one
    which has this branch. What the branches of both parents share, the child's share as well.
    """
    parents = (a, b)
    donors: dict[str, int] = {}
    branches = []
    for branch in rng.choice(parents).branches:
        final = branch.final_rate
        of_parents = [{b.final_rate: b for b in p.branches}.get(final) for p in parents]
        shape = rng.choice([found for found in of_parents if found is not None])
        cells = list(zip(shape.ops, (*shape.widths, 0), strict=True))
        for cell in range(len(cells)):
            name = slot(shape, cell)
            donor = of_parents[donors.setdefault(name, rng.randrange(2))]
            cells[cell] = _taken(donor, name, cells[cell])
        widths = tuple(width for _, width in cells[:-1])
        branches.append(replace(shape, ops=tuple(op for op, _ in cells), widths=widths))
    stem, head = rng.choice(parents).stem_width, rng.choice(parents).head_width
    return space.genotype(tuple(branches), stem_width=stem, head_width=head)


def _taken(donor: Branch | None, name: str, cell: Cell) -> Cell:
    """The donor's cell of a slot, as far as it has one and knows its width."""
    if donor is None:
        return cell
    for index, op in enumerate(donor.ops):
        if slot(donor, index) == name:
            return op, (donor.widths[index] if index < len(donor.widths) else cell[1])
    return cell


def contains(space: SearchSpace, genotype: Genotype) -> list[str]:
    """Why a network is not of the space, one line each; none where it is."""
    finals = tuple(branch.final_rate for branch in genotype.branches)
    facts: list[tuple[str, object, Sequence[object]]] = [
        ("num_classes", genotype.num_classes, [space.num_classes]),
        ("stem_width", genotype.stem_width, space.stem_widths),
        ("head_width", genotype.head_width, space.head_widths),
        ("final rates", finals, space.final_rates),
    ]
    for index, branch in enumerate(genotype.branches):
        depth = depths(space, branch.final_rate)
        facts.append((f"cells of branch {index}", len(branch.ops), depth))
        facts += [(f"an operator of branch {index}", op, cell_ops(space)) for op in branch.ops]
        facts += [(f"a width of branch {index}", w, space.widths) for w in branch.widths]
    wrong = [(name, value, list(allowed)) for name, value, allowed in facts if value not in allowed]
    return [f"{name}: {value} is not among {allowed}" for name, value, allowed in wrong]
