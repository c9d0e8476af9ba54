"""What makes one scene differ from another: road, houses, plants, traffic, light, camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fasterseg.streets.light import Light, draw_light
from fasterseg.streets.rng import generator, pick

PARKING_M = 2.2

_LAND = {
    "town": {"terrace": 0.6, "houses": 0.2, "blocks": 0.12, "park": 0.08},
    "suburb": {"terrace": 0.12, "houses": 0.62, "blocks": 0.06, "park": 0.2},
    "city": {"terrace": 0.35, "houses": 0.0, "blocks": 0.57, "park": 0.08},
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Cross-section of the road. Lateral offsets are metres from the line between directions.

    Attributes:
        drive: +1 where traffic keeps right, -1 where it keeps left.
        lane_m: width of a lane.
        ahead: lanes in the camera's direction.
        oncoming: lanes against it; 0 is a one-way street.
        own: index of the camera's lane, counted from the middle.
        shoulder_m: strip between the outer lane and the parking strip or kerb.
        parking: whether there is a parking strip, on the camera's side and opposite.
        pavement_m: widths of the pavements, camera's side and opposite.
        centre: marking between directions: "dashed", "solid", "double" or "none".
        edge: marking along the outer lanes: "white", "yellow", "double yellow", "none".
    """

    drive: int
    lane_m: float
    ahead: int
    oncoming: int
    own: int
    shoulder_m: float
    parking: tuple[bool, bool]
    pavement_m: tuple[float, float]
    centre: str
    edge: str

    def lanes_m(self, side: int) -> float:
        """Offset, 0 or more, of the outer lanes' edge on `side` (-1 left, +1 right)."""
        return (self.ahead if side == self.drive else self.oncoming) * self.lane_m

    def parks(self, side: int) -> bool:
        """Whether cars park on that side."""
        return self.parking[0 if side == self.drive else 1]

    def kerb_m(self, side: int) -> float:
        """Offset of the kerb, 0 or more, on that side."""
        strip = PARKING_M if self.parks(side) else 0.0
        return self.lanes_m(side) + self.shoulder_m + strip

    def front_m(self, side: int) -> float:
        """Offset of the outer edge of the pavement on that side."""
        return self.kerb_m(side) + self.pavement_m[0 if side == self.drive else 1]

    @property
    def own_lane_m(self) -> float:
        """Signed offset of the middle of the camera's lane."""
        return self.drive * (self.own + 0.5) * self.lane_m


@dataclass(frozen=True, slots=True)
class Style:
    """All choices of a scene that hold over its whole length.

    Densities are 0 (none) to about 1 (crowded); speeds are metres per second.
    """

    seed: int
    layout: Layout
    light: Light
    bends: tuple[tuple[float, float, float], ...]
    hills: tuple[tuple[float, float, float], ...]
    speed: float
    camera_height_m: float
    view: float
    horizon: float
    sway: float
    land: tuple[tuple[str, float], ...]
    storeys: tuple[int, int]
    trees: float
    tree_gap_m: float
    lamp_gap_m: float
    signs: float
    railings: float
    crossings: float
    traffic: float
    parked: float
    walkers: float
    cyclists: float
    asphalt: float
    paving: tuple[float, float, float]
    grass: bool
    autumn: float


def draw_style(seed: int) -> Style:
    """Draw the scene of a seed."""
    rng = generator(seed, "style")
    speed = rng.uniform(6.0, 13.0)
    shade = rng.uniform(0.9, 1.1)
    land = pick(rng, {"town": 0.4, "suburb": 0.35, "city": 0.25})
    low = {"town": 2, "suburb": 2, "city": 3}[land]
    high = low + {"town": 2, "suburb": 0, "city": 5}[land] + int(rng.integers(0, 2))
    return Style(
        seed=seed,
        layout=_draw_layout(rng, land),
        light=draw_light(generator(seed, "light")),
        bends=_draw_bends(rng),
        hills=_draw_hills(rng),
        speed=speed,
        camera_height_m=rng.uniform(1.25, 1.9) if rng.random() < 0.85 else rng.uniform(2.0, 2.7),
        view=rng.uniform(0.95, 1.4),
        horizon=rng.uniform(0.42, 0.53),
        sway=rng.uniform(0.4, 1.2),
        land=tuple(_LAND[land].items()),
        storeys=(low, high),
        trees=rng.choice([0.15, 0.4, 0.65, 0.9]) * rng.uniform(0.8, 1.1),
        tree_gap_m=rng.uniform(7.0, 14.0),
        lamp_gap_m=rng.uniform(22.0, 38.0),
        signs=rng.uniform(0.5, 1.0),
        railings=rng.choice([0.0, 0.15, 0.4]),
        crossings=rng.uniform(0.25, 0.6),
        traffic=rng.uniform(0.25, 0.95),
        parked=rng.uniform(0.3, 0.95),
        walkers=rng.uniform(0.25, 1.0) * (0.6 if land == "suburb" else 1.0),
        cyclists=rng.uniform(0.25, 0.8),
        asphalt=rng.uniform(88, 146),
        paving=(
            rng.uniform(140, 168) * shade,
            rng.uniform(148, 172) * shade,
            rng.uniform(152, 186) * shade,
        ),
        grass=land == "suburb" or rng.random() < 0.3,
        autumn=rng.uniform(0.3, 1.0) if rng.random() < 0.22 else 0.0,
    )


def _draw_layout(rng: np.random.Generator, land: str) -> Layout:
    wide = rng.random() < {"town": 0.25, "suburb": 0.1, "city": 0.5}[land]
    ahead = 2 if wide else 1
    one_way = rng.random() < 0.12
    oncoming = 0 if one_way else (ahead if rng.random() < 0.8 else 1)
    pavement = rng.uniform(2.0, 3.4) + (1.2 if land == "city" else 0.0)
    park = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
    return Layout(
        drive=1 if rng.random() < 0.5 else -1,
        lane_m=rng.uniform(2.9, 3.5),
        ahead=ahead,
        oncoming=oncoming,
        own=int(rng.integers(0, ahead)),
        shoulder_m=rng.uniform(0.5, 1.5),
        parking=park,
        pavement_m=(pavement, pavement * rng.uniform(0.85, 1.2)),
        centre="none" if one_way else pick(rng, {"dashed": 5, "solid": 2, "double": 2, "none": 1}),
        edge=pick(rng, {"white": 4, "yellow": 2, "double yellow": 2, "none": 3}),
    )


def _draw_bends(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Amplitude (m), angular frequency (1/m) and phase of the waves in the road's course."""
    slope = rng.choice([0.04, 0.14, 0.26])
    bends = []
    for low, high, share in ((380, 700, 1.0), (170, 320, 0.45)):
        frequency = math.tau / rng.uniform(low, high)
        tilt = slope * share * rng.uniform(0.5, 1.0)
        bends.append((tilt / frequency, frequency, rng.uniform(0, math.tau)))
    return tuple(bends)


def _draw_hills(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    # Crests stay flatter than the line of sight, so nothing has to hide behind one.
    frequency = math.tau / rng.uniform(500, 900)
    height = rng.uniform(0.0, 5e-5) / frequency**2
    return ((height, frequency, rng.uniform(0, math.tau)),)
