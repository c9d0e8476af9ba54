"""Everything that moves, as a function of time alone: any moment can be asked for directly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from fasterseg.streets.blocks import BLOCK_M, CROSSING_M, Crossing, crossing_of
from fasterseg.streets.camera import START_M, Ride
from fasterseg.streets.cars import Vehicle, make_vehicle
from fasterseg.streets.kit import KERB_M, Kit, Pile
from fasterseg.streets.people import Person, cyclist, draw_person, walker
from fasterseg.streets.rng import generator

_CARS_SEEN_M = 190.0
_PEOPLE_SEEN_M = 80.0


@dataclass(frozen=True, slots=True)
class Lane:
    """An endless file of places that moves along the road.

    Attributes:
        name: tells its random numbers from those of others.
        d: lateral offset.
        gap_m: from one place to the next.
        speed: metres per second along the road; negative comes towards the camera.
        share: chance that a place is taken.
        wander_m: how far a traveller may be from the middle of the place.
    """

    name: str
    d: float
    gap_m: float
    speed: float
    share: float
    wander_m: float

    def travellers(
        self, seed: int, time_s: float, start: float, end: float
    ) -> list[tuple[int, float, float]]:
        """Number, place along the road and own share of the wander (-1 to 1) of each one."""
        shift = self.speed * time_s
        first = math.floor((start - shift) / self.gap_m)
        last = math.ceil((end - shift) / self.gap_m)
        out = []
        for number in range(first, last + 1):
            taken, wander = _place(seed, self.name, number)
            if taken < self.share:
                s = number * self.gap_m + shift + wander * self.wander_m
                if start <= s <= end:
                    out.append((number, s, wander))
        return out


@lru_cache(maxsize=4096)
def _place(seed: int, lane: str, number: int) -> tuple[float, float]:
    rng = generator(seed, "lane", lane, number)
    return float(rng.random()), float(rng.uniform(-1, 1))


class Traffic:
    """The moving things of one scene."""

    def __init__(self, kit: Kit, ride: Ride) -> None:
        self._kit = kit
        self._ride = ride
        self._vehicle = lru_cache(maxsize=128)(self._make_vehicle)
        self._person = lru_cache(maxsize=256)(lambda number: draw_person(kit.style.seed, number))
        self._crossing = lru_cache(maxsize=64)(lambda index: crossing_of(kit, index))
        self._lanes = self._car_lanes()
        self._paths = self._footpaths()
        self._tracks = self._cycle_tracks()

    def at(self, time_s: float) -> Pile:
        """Everything that moves and may be seen at that time."""
        here = self._ride.distance_m(time_s)
        pile = Pile()
        self._leader(pile, time_s, here)
        for lane in self._lanes:
            for number, s, _ in lane.travellers(
                self._kit.style.seed, time_s, here - 6, here + _CARS_SEEN_M
            ):
                self._drive(pile, lane.name, number, lane.d, s, 1 if lane.speed > 0 else -1)
        for track in self._tracks:
            self._cyclists(pile, track, time_s, here)
        for path in self._paths:
            self._walkers(pile, path, time_s, here)
        first = math.floor(here / BLOCK_M)
        for index in range(first, first + 4):
            crossing = self._crossing(index)
            if crossing is not None:
                self._crossers(pile, index, crossing, time_s)
        return pile

    def _car_lanes(self) -> list[Lane]:
        style = self._kit.style
        layout = style.layout
        rng = generator(style.seed, "lanes")
        lanes = []
        for index in range(layout.ahead):
            if index != layout.own:
                d = layout.drive * (index + 0.5) * layout.lane_m
                speed = style.speed * (1.18 if index < layout.own else 0.86)
                gap = rng.uniform(26, 40)
                lanes.append(Lane(f"ahead {index}", d, gap, speed, style.traffic, 4.0))
        for index in range(layout.oncoming):
            d = -layout.drive * (index + 0.5) * layout.lane_m
            speed = -rng.uniform(7.0, 13.0)
            gap = rng.uniform(24, 42)
            lanes.append(Lane(f"oncoming {index}", d, gap, speed, style.traffic, 4.0))
        return lanes

    def _footpaths(self) -> list[Lane]:
        style = self._kit.style
        rng = generator(style.seed, "paths")
        paths = []
        for side in (-1, 1):
            kerb, front = style.layout.kerb_m(side), style.layout.front_m(side)
            for way, share in ((1, 0.75), (-1, 0.4)):
                d = side * (kerb + 0.9 + share * max(0.2, front - kerb - 1.3))
                speed = way * rng.uniform(1.1, 1.6)
                gap = rng.uniform(5.0, 10.0)
                paths.append(Lane(f"path {side} {way}", d, gap, speed, style.walkers * 0.6, 1.6))
            d = side * (front - 0.45)
            paths.append(Lane(f"standing {side}", d, 17.0, 0.0, style.walkers * 0.55, 5.0))
        return paths

    def _cycle_tracks(self) -> list[Lane]:
        style = self._kit.style
        layout = style.layout
        rng = generator(style.seed, "cycle tracks")
        tracks = []
        for way in (1, -1) if layout.oncoming else (1,):
            side = way * layout.drive
            d = side * (layout.lanes_m(side) + min(0.25, layout.shoulder_m - 0.4))
            speed = way * rng.uniform(3.6, 5.0)
            tracks.append(Lane(f"cycles {way}", d, rng.uniform(26, 44), speed, style.cyclists, 8.0))
        return tracks

    def _make_vehicle(self, lane: str, number: int, facing: int) -> Vehicle:
        style = self._kit.style
        which = int(generator(style.seed, "car", lane, number).integers(2**31))
        return make_vehicle(style.light, style.seed, which, facing, moves=True)

    def _drive(self, pile: Pile, lane: str, number: int, d: float, s: float, facing: int) -> None:
        vehicle = self._vehicle(lane, number, facing)
        pile.extend(vehicle.placed(self._kit, d, s, s - vehicle.half_length - 3.0))

    def _leader(self, pile: Pile, time_s: float, here: float) -> None:
        """The car in front: it draws away out of sight, and the next one is caught up with."""
        rng = generator(self._kit.style.seed, "leader")
        if rng.random() > 0.35 + self._kit.style.traffic:
            return
        period, nearest = rng.uniform(35, 70), rng.uniform(13, 22)
        turns = time_s / period + rng.uniform(-0.2, 0.3)
        ahead = nearest + 0.5 * _CARS_SEEN_M * (1 - math.cos(math.tau * turns))
        if ahead < _CARS_SEEN_M:
            d = self._kit.style.layout.own_lane_m + 0.12 * math.sin(0.5 * time_s)
            self._drive(pile, "own", round(turns), d, here + ahead, 1)

    def _cyclists(self, pile: Pile, track: Lane, time_s: float, here: float) -> None:
        for number, s, wander in track.travellers(
            self._kit.style.seed, time_s, here + 1.5, here + _PEOPLE_SEEN_M
        ):
            facing = 1 if track.speed > 0 else -1
            who = self._person(number * 2 + facing + 5_000_000)
            d = track.d + 0.08 * math.sin(1.7 * time_s + 9 * wander)
            pile.extend(cyclist(self._kit, who, (d, s), facing, abs(track.speed) * time_s))

    def _walkers(self, pile: Pile, path: Lane, time_s: float, here: float) -> None:
        salt = sum(path.name.encode())
        for number, s, wander in path.travellers(
            self._kit.style.seed, time_s, here + 1.2, here + _PEOPLE_SEEN_M
        ):
            who = self._person(number * 64 + salt)
            way = (0.0, math.copysign(1.0, path.speed)) if path.speed else (0.0, 0.0)
            place = (path.d + 0.25 * wander, KERB_M, s)
            pile.extend(walker(self._kit, who, place, way, abs(path.speed) * time_s))

    def _crossers(self, pile: Pile, index: int, crossing: Crossing, time_s: float) -> None:
        """People who cross well before the camera comes, or wait at the kerb."""
        style = self._kit.style
        rng = generator(style.seed, "crossers", index)
        arrival = (crossing.s - START_M) / style.speed
        left, right = -style.layout.kerb_m(-1) - 0.9, style.layout.kerb_m(1) + 0.9
        for number in range(int(rng.integers(0, 4))):
            way = 1 if rng.random() < 0.5 else -1
            pace = rng.uniform(1.2, 1.7)
            needed = (right - left) / pace
            begun = time_s - (arrival - needed - rng.uniform(2.0, 6.0))
            gone = min(max(begun, 0.0) * pace, right - left)
            d = left + gone if way > 0 else right - gone
            s = crossing.s + rng.uniform(0.4, CROSSING_M - 0.4)
            who: Person = self._person(index * 8 + number + 9_000_000)
            on_kerb = gone <= 0.9 or gone >= right - left - 0.9
            walks = 0.0 < gone < right - left
            if s > self._ride.distance_m(time_s) + 1.2:
                pile.extend(
                    walker(self._kit, who, (d, KERB_M if on_kerb else 0.0, s),
                           (float(way), 0.0) if walks else (0.0, 0.0), gone)
                )  # fmt: skip
