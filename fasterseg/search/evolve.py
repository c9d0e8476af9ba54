"""Evolution under a hard latency cap, and beside it what it has to beat: chance, and one's hand.

All of them spend scores on networks that keep the cap only: the table is additive, so the test is
exact and costs nothing. They share a ledger, and differ in nothing but how they choose.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from fasterseg.arch.space import SearchSpace
from fasterseg.errors import ConfigError, UsageError
from fasterseg.search.ledger import Ledger, Score
from fasterseg.search.pareto import How, Scored, best_first, pareto
from fasterseg.search.subnets import cell_ops, crossover, hand_baseline, mutate
from fasterseg.search.window import (
    FLOOR,
    Candidate,
    Drawer,
    Price,
    Range,
    Window,
    check_target,
    equal_latency,
    latency_range,
)

__all__ = [
    "Evolution",
    "EvolveSettings",
    "Price",
    "Score",
    "Scored",
    "equal_latency",
    "evolve",
    "hand_baselines",
    "pareto",
    "random_search",
]

_TRIES: Final = 40
"""Children made before one that is new and keeps the cap; a drawn network takes its place then."""


@dataclass(frozen=True, slots=True)
class EvolveSettings:
    """How networks are searched.

    Attributes:
        population: networks scored in each generation; the first one is drawn at random.
        generations: how many, the first included; their product is the number of evaluations.
        parents: the best networks so far, whatever their generation, that the next comes from.
        mutation: share of a network's choices that a mutation changes.
        crossover: share of children that have two parents.
        floor: share of the target that a network must take at least, so that the smallest one is
            never the answer; 0 permits every network below the target.
        headroom: share of the target that the measured network must stay below it.
        top_k: best networks that are measured before one is chosen.
        frames: held-out pictures that networks are scored on, evenly spaced; 0 takes all.
        recalibration: pictures that a network's batch-norm statistics are taken from.
        precision: of the scores, "fp32" or "bf16" (autocast; half the time where it is native).
        seed: of every choice.

    Raises:
        ConfigError: a value is out of range.
    """

    population: int = 32
    generations: int = 8
    parents: int = 8
    mutation: float = 0.15
    crossover: float = 0.5
    floor: float = FLOOR
    headroom: float = 0.0
    top_k: int = 6
    frames: int = 0
    recalibration: int = 48
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        checks = (
            (self.population >= 1, "population", "at least 1"),
            (self.generations >= 1, "generations", "at least 1"),
            (self.parents >= 1, "parents", "at least 1"),
            (0 < self.mutation <= 1, "mutation", "a share in (0, 1]"),
            (0 <= self.crossover <= 1, "crossover", "a share in [0, 1]"),
            (0 <= self.floor < 1, "floor", "a share in [0, 1)"),
            (0 <= self.headroom < 1 - self.floor, "headroom", "0 or more, and below 1 - floor"),
            (self.top_k >= 1, "top_k", "at least 1"),
            (self.frames >= 0, "frames", "0 or more"),
            (self.recalibration >= 2, "recalibration", "at least 2"),
        )
        wrong = [f"{name} must be {wanted}" for right, name, wanted in checks if not right]
        if wrong:
            raise ConfigError(f"search settings: {'; '.join(wrong)}")

    @property
    def evaluations(self) -> int:
        """Scores that an evolution, and the random search beside it, may ask for."""
        return self.population * self.generations


@dataclass(frozen=True, slots=True)
class Evolution:
    """What a search came upon.

    Attributes:
        target_ms: the cap.
        floor: share of the target that networks take at least; 0 where the space is too fast for
            the floor that was asked for.
        scored: every network in the order in which they were chosen, none twice.
        note: what was not as asked for, in a sentence; empty where nothing was.
    """

    target_ms: float
    floor: float
    scored: tuple[Scored, ...]
    note: str = ""

    @property
    def evaluations(self) -> int:
        """How many networks were chosen to be scored."""
        return len(self.scored)

    @property
    def best(self) -> Scored:
        """The best one."""
        return self.top(1)[0]

    def top(self, count: int) -> list[Scored]:
        """The best ones, best first."""
        return best_first(self.scored)[:count]

    def to_json(self) -> dict[str, Any]:
        """What is reported of it."""
        return {
            "best_miou": self.best.miou,
            "best": self.best.digest,
            "evaluations": self.evaluations,
            "note": self.note,
        }


def evolve(
    space: SearchSpace,
    price: Price,
    score: Score,
    target_ms: float,
    settings: EvolveSettings,
    ledger: Ledger,
) -> Evolution:
    """Search the best network that keeps a latency.

    Args:
        space: what networks are made of.
        price: predicted latency of a network, ms.
        score: networks -> scores, more is better; the same network always gets the same.
        target_ms: no network above it is ever scored.
        settings: how.
        ledger: scores that are there, and where new ones go.

    Raises:
        UsageError: no network of the space keeps the target.
    """
    search = _Search("evolve", space, price, score, target_ms, settings, ledger)
    for number in range(settings.generations):
        wanted = settings.population
        chosen = search.draw(wanted) if number == 0 else _children(search, wanted)
        if not chosen:
            break
        search.score(chosen, number)
    return search.result()


def random_search(
    space: SearchSpace,
    price: Price,
    score: Score,
    target_ms: float,
    settings: EvolveSettings,
    ledger: Ledger,
) -> Evolution:
    """Draw as many networks under the same cap as `evolve` scores, in the way it begins.

    Arguments and errors are those of `evolve`.
    """
    search = _Search("random", space, price, score, target_ms, settings, ledger)
    for number in range(settings.generations):
        if not (chosen := search.draw(settings.population)):
            break
        search.score(chosen, number)
    return search.result()


def hand_baselines(
    space: SearchSpace, price: Price, score: Score, target_ms: float, ledger: Ledger
) -> list[Scored]:
    """What needs no search: one operator and one width everywhere, as wide as the cap permits.

    Arguments are those of `evolve`. One network for each operator that keeps the cap somehow, in
    the space's order; with fewer cells where even the narrowest width is too slow with all.
    """
    found = [_by_hand(space, price, op, target_ms) for op in cell_ops(space)]
    candidates = {one.digest: one for one in found if one is not None}
    return ledger.score(list(candidates.values()), score, how="hand", number=0, target_ms=target_ms)


def _by_hand(space: SearchSpace, price: Price, op: str, target_ms: float) -> Candidate | None:
    shapes = [(width, space.layers) for width in reversed(space.widths)]
    shapes += [(space.widths[0], cells) for cells in reversed(range(1, space.layers))]
    for width, cells in shapes:
        genotype = hand_baseline(space, op, width, cells)
        if (ms := price(genotype)) <= target_ms:
            return Candidate(genotype, ms, genotype.digest())
    return None


class _Search:
    """What both searches share: the window, the drawer, and what was scored."""

    def __init__(
        self,
        how: How,
        space: SearchSpace,
        price: Price,
        score: Score,
        target_ms: float,
        settings: EvolveSettings,
        ledger: Ledger,
    ) -> None:
        found = latency_range(space, price, settings.seed)
        check_target(found, target_ms)
        self.space, self.settings, self.how = space, settings, how
        self.target_ms = target_ms
        self.floor, self.note = _floor(found, target_ms, settings.floor)
        # A string, because the hash of anything else may differ from one process to the next.
        self.rng = random.Random(f"{how}/{settings.seed}/{target_ms:.9g}")
        window = Window(self.floor * target_ms, target_ms)
        self.drawer = Drawer(space, price, window, self.rng)
        self.scored: list[Scored] = []
        self._score, self._ledger = score, ledger

    def draw(self, count: int) -> list[Candidate]:
        """Random networks that keep the window."""
        return self.drawer.some(count)

    def score(self, chosen: Sequence[Candidate], number: int) -> None:
        """Score them."""
        self.scored += self._ledger.score(
            chosen, self._score, how=self.how, number=number, target_ms=self.target_ms
        )

    def result(self) -> Evolution:
        """What was found."""
        if not self.scored:
            low_ms = self.floor * self.target_ms
            raise UsageError(
                f"no network of this space was found between {low_ms:.3g} and "
                f"{self.target_ms:.3g} ms; choose another target, or a lower floor "
                f"(now {self.floor:g} of the target)"
            )
        missing = self.settings.evaluations - len(self.scored)
        notes = [self.note] if self.note else []
        if missing:
            notes.append(f"no further networks keep the target: {missing} evaluations were saved")
        return Evolution(self.target_ms, self.floor, tuple(self.scored), "; ".join(notes))


def _floor(found: Range, target_ms: float, floor: float) -> tuple[float, str]:
    """The floor that the space can meet, and what is to be said about it."""
    if found.slowest_ms >= floor * target_ms:
        return floor, ""
    return 0.0, (
        f"the slowest network of this space takes {found.slowest_ms:.3g} ms, so a target of "
        f"{target_ms:.3g} ms binds nothing; the best network of all is chosen"
    )


def _children(search: _Search, count: int) -> list[Candidate]:
    """The next generation."""
    parents = best_first(search.scored)[: search.settings.parents]
    found: list[Candidate] = []
    while len(found) < count and (child := _child(search, parents) or search.drawer.draw()):
        found.append(child)
    return found


def _child(search: _Search, parents: Sequence[Scored]) -> Candidate | None:
    """A network made of one or two others that is new and keeps the window; None if none came."""
    space, rng, settings = search.space, search.rng, search.settings
    for _ in range(_TRIES):
        if len(parents) > 1 and rng.random() < settings.crossover:
            one, other = rng.sample(parents, 2)
            genotype = crossover(space, one.genotype, other.genotype, rng)
            # Two parents often agree on most; without a change their children would be known.
            genotype = mutate(space, genotype, rng, settings.mutation / 2)
        else:
            genotype = mutate(space, rng.choice(parents).genotype, rng, settings.mutation)
        if candidate := search.drawer.take(genotype):
            return candidate
    return None
