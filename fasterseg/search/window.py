"""`Window`: the latencies that a network may have, and networks drawn into it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from fasterseg.arch.genotype import Genotype
from fasterseg.arch.space import SearchSpace
from fasterseg.errors import UsageError
from fasterseg.search.subnets import largest, mutate, random_subnet, smallest

Price = Callable[[Genotype], float]
"""Predicted latency of a network, ms."""

EQUAL: Final = 0.02
"""Latencies that differ by no more than this share count as equal."""

FLOOR: Final = 0.85
"""Share of a target that a network must take at least: the smallest one is no answer."""

_REJECTED: Final = 8
"""Networks drawn blindly before the nearest of them is changed step by step."""

_STEPS: Final = 300
_STEP_RATE: Final = 0.08
"""Share of a network's choices that a step changes: few, so that latency moves little."""


@dataclass(frozen=True, slots=True)
class Window:
    """Latencies in ms, both ends included."""

    low_ms: float
    high_ms: float

    def distance_ms(self, ms: float) -> float:
        """How far outside a latency lies; 0 inside."""
        return max(self.low_ms - ms, ms - self.high_ms, 0.0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network with its predicted latency, ms, and its digest."""

    genotype: Genotype
    ms: float
    digest: str


class Drawer:
    """Draws networks whose latency lies in a window, never the same twice.

    Blind draws come first. Where these miss, the nearest one is changed at random in small steps,
    of which none may lead away from the window; at last an end of the range is.

    Args:
        space: what networks are made of.
        price: their latency.
        window: where it must lie.
        rng: what decides.
        taken: digests of networks that are not to be drawn.
    """

    def __init__(
        self,
        space: SearchSpace,
        price: Price,
        window: Window,
        rng: random.Random,
        taken: Collection[str] = (),
    ) -> None:
        self.window = window
        self._space = space
        self._price = price
        self._rng = rng
        self._taken = set(taken)

    def take(self, genotype: Genotype) -> Candidate | None:
        """The network as a candidate; None where it is outside the window or was taken before."""
        return self._take(genotype, self._price(genotype))

    def _take(self, genotype: Genotype, ms: float) -> Candidate | None:
        if self.window.distance_ms(ms) > 0 or (digest := genotype.digest()) in self._taken:
            return None
        self._taken.add(digest)
        return Candidate(genotype, ms, digest)

    def draw(self) -> Candidate | None:
        """A network that was not drawn before; None where none was found."""
        drawn = [random_subnet(self._space, self._rng) for _ in range(_REJECTED)]
        priced = [(genotype, self._price(genotype)) for genotype in drawn]
        for genotype, ms in priced:
            if candidate := self._take(genotype, ms):
                return candidate
        nearest, ms = min(priced, key=lambda pair: self.window.distance_ms(pair[1]))
        if candidate := self._walk(nearest):
            return candidate
        # At the ends of the range hardly a step leads on; from the end itself some do.
        end = smallest if ms > self.window.high_ms else largest
        return self._walk(end(self._space, self._rng))

    def _walk(self, genotype: Genotype) -> Candidate | None:
        ms = self._price(genotype)
        for _ in range(_STEPS):
            changed = mutate(self._space, genotype, self._rng, _STEP_RATE)
            changed_ms = self._price(changed)
            if candidate := self._take(changed, changed_ms):
                return candidate
            if self.window.distance_ms(changed_ms) <= self.window.distance_ms(ms):
                genotype, ms = changed, changed_ms
        return None

    def some(self, count: int) -> list[Candidate]:
        """At most `count` networks; fewer where no more are found."""
        found: list[Candidate] = []
        while len(found) < count and (candidate := self.draw()):
            found.append(candidate)
        return found


@dataclass(frozen=True, slots=True)
class Range:
    """The fastest and the slowest network of a space that were found, ms."""

    fastest_ms: float
    slowest_ms: float


def latency_range(space: SearchSpace, price: Price, seed: int) -> Range:
    """How fast and how slow networks of a space get, by small steps from both ends."""
    rng = random.Random(f"range/{seed}")
    ends = [
        _extreme(space, sign, price, start, rng) for sign, start in ((1, smallest), (-1, largest))
    ]
    return Range(*ends)


def _extreme(
    space: SearchSpace,
    sign: int,
    price: Price,
    start: Callable[[SearchSpace, random.Random], Genotype],
    rng: random.Random,
) -> float:
    """The least latency for sign 1, the greatest for -1."""
    best = start(space, rng)
    best_ms = price(best)
    for _ in range(_STEPS):
        changed = mutate(space, best, rng, _STEP_RATE)
        changed_ms = price(changed)
        if sign * changed_ms < sign * best_ms:
            best, best_ms = changed, changed_ms
    return best_ms


def check_target(found: Range, target_ms: float) -> None:
    """Refuse a target that no network of the space keeps.

    Raises:
        UsageError: the fastest network found is slower, or the target is no time.
    """
    if not target_ms > 0:
        raise UsageError(f"a target latency of {target_ms:g} ms is none; it must be above 0")
    if found.fastest_ms > target_ms:
        raise UsageError(
            f"no network of this space keeps {target_ms:g} ms: the fastest one found takes "
            f"{found.fastest_ms:.3g} ms. Raise the target to at least that, choose a smaller "
            "frame size, or allow narrower widths (widths, stem_widths, head_widths)"
        )


def equal_latency(
    space: SearchSpace,
    price: Price,
    target_ms: float,
    count: int,
    seed: int,
    *,
    tolerance: float = EQUAL,
    taken: Collection[str] = (),
) -> list[Genotype]:
    """Random networks that take as long as another, by prediction, to compare it with.

    More of the same seed begin with the fewer ones, so that what a measurement rules out is
    replaced without touching the rest.

    Args:
        space: what networks are made of.
        price: their latency.
        target_ms: latency of the network they are compared with.
        count: how many.
        seed: same seed, same networks.
        tolerance: share of `target_ms` that theirs may differ by.
        taken: digests of networks that are not to be among them: the one they are compared with.

    Raises:
        UsageError: so many were not found.
    """
    window = Window(target_ms * (1 - tolerance), target_ms * (1 + tolerance))
    drawer = Drawer(space, price, window, random.Random(f"equal/{seed}"), taken)
    found = drawer.some(count)
    if len(found) < count:
        raise UsageError(
            f"{len(found)} of {count} random networks within {tolerance:.0%} of {target_ms:.3g} ms "
            "were found; compare with fewer, or allow a larger tolerance"
        )
    return [candidate.genotype for candidate in found]
