"""Networks of a space drawn by a seed, spread evenly over the range of its costs.

Uniformly drawn networks cost much the same, and any predictor looks good on equals. Hence a
large pool drawn under different regimes (few or many cells, narrow or wide, of few kinds), and
from it networks at even steps of log(multiply-adds). Nothing measured takes part, so they can be
fixed before the first row of a table.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any, Final

from fasterseg.arch.genotype import Branch, Genotype, Rate
from fasterseg.arch.plan import plan
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import ConfigError, UsageError
from fasterseg.types import Size

CALIBRATION: Final = 32
HELD_OUT: Final = 64
_POOL: Final = 16
"""Networks drawn for each one that is kept."""

_TRIES: Final = 20
_RATES: Final[tuple[Rate, ...]] = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class Draw:
    """Networks to fit a calibration with, and others to judge it by.

    Attributes:
        seed: what they were drawn by.
        calibration: for the fit.
        held_out: for the error; none of them is among the others.
    """

    seed: int
    calibration: tuple[Genotype, ...]
    held_out: tuple[Genotype, ...]

    def to_json(self) -> dict[str, Any]:
        """Seed and digests: enough to draw them again, and to know that they are the same."""
        return {
            "seed": self.seed,
            "calibration": [genotype.digest() for genotype in self.calibration],
            "held_out": [genotype.digest() for genotype in self.held_out],
        }


def draw(
    space: SearchSpace,
    size: Size,
    seed: int,
    calibration: int = CALIBRATION,
    held_out: int = HELD_OUT,
) -> Draw:
    """Draw networks.

    Args:
        space: what they are made of.
        size: of the frames; settles which networks can be.
        seed: same seed, same networks.
        calibration: number of networks for the fit.
        held_out: number of networks for the error.

    Raises:
        UsageError: the space has not so many different networks.
    """
    choose = random.Random(seed)
    count = calibration + held_out
    pool: dict[str, tuple[float, Genotype]] = {}
    for _ in range(_POOL * count):
        genotype, macs = _network(choose, space, size)
        pool[genotype.digest()] = (math.log(macs), genotype)
    if len(pool) < count:
        raise UsageError(
            f"the space gave {len(pool)} different networks where {count} are to be drawn; widen "
            "it (operators, widths, layers), or draw fewer"
        )
    kept = _spread(sorted(pool.values(), key=lambda entry: (entry[0], entry[1].digest())), count)
    # In every stretch of the range, as many for the fit as for the error.
    taken = {index * count // calibration for index in range(calibration)} if calibration else set()
    first = [genotype for index, genotype in enumerate(kept) if index in taken]
    rest = [genotype for index, genotype in enumerate(kept) if index not in taken]
    return Draw(seed, tuple(first), tuple(rest))


def redraw(space: SearchSpace, size: Size, stored: dict[str, Any], where: str) -> Draw:
    """The networks that a table names.

    Raises:
        ConfigError: another version of this program drew them.
    """
    again = draw(
        space, size, int(stored["seed"]), len(stored["calibration"]), len(stored["held_out"])
    )
    if again.to_json() != {key: stored[key] for key in again.to_json()}:
        raise ConfigError(
            f"{where}: seed {stored['seed']} gives other networks than it names, so another "
            "version of fasterseg drew them; measure the table anew: --overwrite"
        )
    return again


def _spread(pool: list[tuple[float, Genotype]], count: int) -> list[Genotype]:
    """Entries nearest to even steps between the ends of the pool, in ascending order."""
    costs = [cost for cost, _ in pool]
    low, high = costs[0], costs[-1]
    free = set(range(len(pool)))
    chosen: list[int] = []
    for step in range(count):
        aim = low + (high - low) * (step + 0.5) / count
        index = min(free, key=lambda i: (abs(costs[i] - aim), i))
        free.remove(index)
        chosen.append(index)
    return [pool[index][1] for index in sorted(chosen)]


def _network(choose: random.Random, space: SearchSpace, size: Size) -> tuple[Genotype, int]:
    """One network that can be planned, and its multiply-adds."""
    reason = ""
    for _ in range(_TRIES):
        ops = choose.sample(space.ops, choose.randint(1, len(space.ops)))
        low = choose.randrange(len(space.widths))
        widths = space.widths[low : choose.randint(low + 1, len(space.widths))]
        most = choose.randint(3, space.layers)
        rates = choose.choice(space.final_rates)
        branches = tuple(_branch(choose, rate, ops, widths, most) for rate in rates)
        genotype = space.genotype(
            branches,
            name="drawn",
            stem_width=_one_of(choose, space.stem_widths),
            head_width=_one_of(choose, space.head_widths),
        )
        try:
            return genotype, plan(genotype, size).macs
        except UsageError as error:
            # A strided skip on an odd map; another network then.
            reason = str(error)
    raise UsageError(f"no network of this space can be planned at {size} (HxW): {reason}")


def _one_of(choose: random.Random, widths: tuple[int, ...]) -> int:
    """A width; where there is no choice, none is drawn: tables name networks by their seed."""
    return widths[0] if len(widths) == 1 else choose.choice(widths)


def _branch(
    choose: random.Random,
    final: Rate,
    ops: list[str],
    widths: tuple[int, ...],
    most: int,
) -> Branch:
    """A path of at most `most` cells to the final rate."""
    downs = _RATES.index(final)
    cells = choose.randint(max(downs + 1, most // 2), most)
    strided = sorted(choose.sample(range(cells - 1), downs))
    rates = [_RATES[sum(cell > down for down in strided)] for cell in range(cells)]
    return Branch(
        tuple(choose.choice(ops) for _ in range(cells)),
        tuple(rates),
        tuple(choose.choice(widths) for _ in range(cells - 1)),
    )
