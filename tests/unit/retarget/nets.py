"""Networks of all kinds of shapes, to be drawn."""

from __future__ import annotations

import random
from typing import Final

from fasterseg.arch.genotype import Branch, Genotype, Rate
from fasterseg.arch.operators import CANDIDATES
from fasterseg.arch.space import SearchSpace
from fasterseg.bench.draw import draw
from fasterseg.runtime.model import resolve_model
from fasterseg.types import Size

SIZE: Final = Size(128, 256)

TINY: Final = Genotype(
    "tiny", 11, 4, 4,
    (
        Branch(("conv", "conv_downup", "skip"), (8, 16, 32), (4, 8)),
        Branch(("conv", "conv_2x"), (8, 16), (4,)),
    ),
)  # fmt: skip
"""Three layers, a shared first cell, and rates without a cell of their own."""

PATHS: Final[tuple[tuple[Rate, ...], ...]] = (
    (32, 16), (32, 8), (16, 8), (8,), (16,), (32,), (32, 16, 8), (8, 32),
)  # fmt: skip


def student() -> Genotype:
    """The released student."""
    return resolve_model("fasterseg-student").genotype


def teacher() -> Genotype:
    """The released teacher, with all 16 layers in both branches."""
    return resolve_model("fasterseg-teacher").genotype


def drawn(count: int) -> list[Genotype]:
    """Networks of 16 layers of the paper's space, spread over its costs."""
    return list(draw(SearchSpace(), SIZE, 1, 1, count).held_out)


def odd(seed: int) -> Genotype:
    """A network of one to three branches, some of which share their first cells."""
    chance = random.Random(seed)
    branches: list[Branch] = []
    for final in PATHS[seed % len(PATHS)]:
        strides = _strides(final, chance)
        ops = [chance.choice(CANDIDATES) for _ in strides]
        widths = [4] * (len(strides) - 1)
        if branches and chance.random() < 0.7:
            # The same beginning, so that cells are shared.
            same = min(len(branches[0].ops), len(ops)) - 1
            ops[:same] = branches[0].ops[:same]
        branches.append(Branch(tuple(ops), strides, tuple(widths)))
    return Genotype(f"odd-{seed}", 5, 4, 4, tuple(branches))


def _strides(final: Rate, chance: random.Random) -> tuple[Rate, ...]:
    rates: list[Rate] = [8, 16, 32]
    path = rates[: rates.index(final) + 1]
    return tuple(rate for rate in path for _ in range(chance.randint(1, 3)))
