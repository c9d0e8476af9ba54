"""Forty metres of street at a time: everything that does not move, made from (seed, index)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fasterseg.streets.cars import make_vehicle
from fasterseg.streets.furniture import bollards, lamp, railing, sign, traffic_light
from fasterseg.streets.houses import Lots
from fasterseg.streets.kit import Kit, Outline, Pile
from fasterseg.streets.plants import tree
from fasterseg.streets.rng import generator, pick
from fasterseg.streets.style import PARKING_M

BLOCK_M: Final = 40.0
CROSSING_M: Final = 3.2
_SLOT_M = 6.2


@dataclass(frozen=True, slots=True)
class Crossing:
    """A place to cross the road.

    Attributes:
        s: its near edge along the road, metres.
        lights: whether traffic lights guard it; otherwise it is a zebra.
    """

    s: float
    lights: bool


@dataclass(frozen=True, slots=True)
class Block:
    """One stretch of street.

    Attributes:
        index: it covers `index * BLOCK_M` to the next multiple.
        pile: what stands on it.
        crossing: its crossing, if it has one.
        patches: (outline (N, 2) of d and s, gain) of mended or oily asphalt.
    """

    index: int
    pile: Pile
    crossing: Crossing | None
    patches: tuple[tuple[Outline, float], ...]


def crossing_of(kit: Kit, index: int) -> Crossing | None:
    """The crossing of a block; cheap, so that walkers can ask far ahead."""
    rng = generator(kit.style.seed, "crossing", index)
    if index % 2 or rng.random() > 2 * kit.style.crossings:
        return None
    return Crossing((index + rng.uniform(0.35, 0.6)) * BLOCK_M, bool(rng.random() < 0.5))


def make_block(kit: Kit, lots: Lots, index: int) -> Block:
    """Make a block."""
    crossing = crossing_of(kit, index)
    pile = Pile()
    for side in (-1, 1):
        rng = generator(kit.style.seed, "block", index, side)
        _land(pile, kit, lots, rng, side, index)
        _kerbside(pile, kit, rng, side, index, crossing)
        if kit.style.layout.parks(side):
            _parked(pile, kit, rng, side, index, crossing)
    if crossing is not None:
        _at_crossing(pile, kit, crossing)
    return Block(index, pile, crossing, _patches(kit, index))


def _land(
    pile: Pile, kit: Kit, lots: Lots, rng: np.random.Generator, side: int, index: int
) -> None:
    """One or two uses of the land along a block."""
    start, end = index * BLOCK_M, (index + 1) * BLOCK_M
    shares = dict(kit.style.land)
    middle = start + BLOCK_M * rng.uniform(0.35, 0.65) if rng.random() < 0.4 else end
    for low, high in ((start, middle), (middle, end)):
        if high - low > 1.0:
            pile.extend(lots.build(rng, pick(rng, shares), side, (low, high)))


def _kerbside(
    pile: Pile,
    kit: Kit,
    rng: np.random.Generator,
    side: int,
    index: int,
    crossing: Crossing | None,
) -> None:
    style = kit.style
    start, end = index * BLOCK_M, (index + 1) * BLOCK_M
    kerb = style.layout.kerb_m(side)
    line = side * (kerb + 0.55)
    shift = 0.0 if side > 0 else 0.5 * style.lamp_gap_m
    lamps = _multiples(style.lamp_gap_m, shift, start, end)
    for s in lamps:
        pile.extend(lamp(kit, side, line, s))
    wide = style.layout.front_m(side) - kerb > 2.2
    for s in _multiples(style.tree_gap_m, 0.37 * style.tree_gap_m * side, start, end):
        clear = all(abs(s - other) > 2.5 for other in lamps) and _clear(crossing, s, 6.0)
        if wide and clear and rng.random() < style.trees:
            pile.extend(tree(kit, rng, (line + side * 0.25, s), s, size=rng.uniform(0.8, 1.2)))
    for _ in range(2):
        s = rng.uniform(start, end)
        if rng.random() < 0.6 * style.signs and all(abs(s - other) > 1.5 for other in lamps):
            ours = side == style.layout.drive or style.layout.oncoming == 0
            pile.extend(sign(kit, rng, line, s, faces_us=ours or rng.random() < 0.25))
    if rng.random() < style.railings and crossing is not None:
        pile.extend(railing(kit, side * (kerb + 0.3), (crossing.s - 9.0, crossing.s - 0.6)))
        past = crossing.s + CROSSING_M
        pile.extend(railing(kit, side * (kerb + 0.3), (past + 0.6, past + 9.0)))
    elif rng.random() < 0.2:
        s = rng.uniform(start, end - 9.0)
        if _clear(crossing, s + 3, 7.0):
            pile.extend(bollards(kit, side * (kerb + 0.4), s, int(rng.integers(3, 6))))


def _multiples(gap: float, shift: float, start: float, end: float) -> list[float]:
    first = int(np.ceil((start - shift) / gap))
    last = int(np.ceil((end - shift) / gap))
    return [k * gap + shift for k in range(first, last)]


def _clear(crossing: Crossing | None, s: float, room: float) -> bool:
    return crossing is None or abs(s - crossing.s - CROSSING_M / 2) > room


def _parked(
    pile: Pile,
    kit: Kit,
    rng: np.random.Generator,
    side: int,
    index: int,
    crossing: Crossing | None,
) -> None:
    style = kit.style
    facing = 1 if side == style.layout.drive or style.layout.oncoming == 0 else -1
    d = side * (style.layout.kerb_m(side) - PARKING_M / 2 - 0.05)
    for slot in range(int(BLOCK_M / _SLOT_M)):
        s = index * BLOCK_M + (slot + 0.5) * _SLOT_M + rng.uniform(-0.35, 0.35)
        if rng.random() > style.parked or not _clear(crossing, s, 7.5):
            continue
        vehicle = make_vehicle(
            style.light, style.seed, int(rng.integers(2**31)), facing, moves=False
        )  # fmt: skip
        pile.extend(
            vehicle.placed(kit, d + rng.uniform(-0.1, 0.1), s, s - vehicle.half_length)
        )  # fmt: skip


def _at_crossing(pile: Pile, kit: Kit, crossing: Crossing) -> None:
    layout = kit.style.layout
    for side in (-1, 1):
        d = side * (layout.kerb_m(side) + 0.45)
        if crossing.lights:
            ours = side == layout.drive or layout.oncoming == 0
            pile.extend(traffic_light(kit, side, d, crossing.s - 0.7, faces_us=ours))


def _patches(kit: Kit, index: int) -> tuple[tuple[Outline, float], ...]:
    rng = generator(kit.style.seed, "patches", index)
    layout = kit.style.layout
    left, right = -layout.kerb_m(-1), layout.kerb_m(1)
    out: list[tuple[Outline, float]] = []
    for _ in range(int(rng.integers(1, 5))):
        s = index * BLOCK_M + rng.uniform(0, BLOCK_M)
        if rng.random() < 0.4:
            d = rng.uniform(left + 0.8, right - 0.8)
            angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
            out.append((np.stack([d + 0.33 * np.cos(angles), s + 0.33 * np.sin(angles)], 1), 0.62))
        else:
            d = rng.uniform(left + 0.3, right - 2.5)
            wide, long = rng.uniform(0.7, 2.2), rng.uniform(1.5, 9.0)
            corners = [[d, s], [d, s + long], [d + wide, s + long], [d + wide, s]]
            out.append((np.array(corners), rng.uniform(0.8, 1.1)))
    return tuple(out)
