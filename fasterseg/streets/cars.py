"""Cars, vans, lorries and buses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from fasterseg.streets.items import Glow, Shape
from fasterseg.streets.kit import CAR, Kit, Outline, Pile
from fasterseg.streets.light import Colour, Light, Vector
from fasterseg.streets.mesh import Mesh, Modeller, disc
from fasterseg.streets.rng import generator, pick

_GLASS: Final = Colour(62, 54, 46)
_TYRE: Final = Colour(30, 29, 28)
_TRIM: Final = Colour(44, 43, 42)

_PAINTS = (
    (Colour(228, 230, 230), 4), (Colour(38, 36, 35), 4), (Colour(120, 120, 118), 3),
    (Colour(178, 178, 176), 4), (Colour(44, 40, 158), 2), (Colour(140, 82, 38), 2),
    (Colour(92, 48, 24), 2), (Colour(70, 92, 48), 1), (Colour(120, 150, 176), 1),
    (Colour(48, 160, 214), 0.7), (Colour(60, 110, 200), 0.6), (Colour(190, 170, 110), 0.8),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Body:
    """Proportions of a kind of vehicle, in metres; z runs from the tail (-) to the nose (+).

    Attributes:
        length, width, height: overall.
        belt: height of the windows' lower edge.
        bonnet: height of the nose's upper edge.
        cabin: z of the cabin at the belt (tail, nose) and at the roof (tail, nose),
            as shares of half the length.
        wheel: radius of the wheels.
        windows: side windows.
    """

    length: float
    width: float
    height: float
    belt: float
    bonnet: float
    cabin: tuple[float, float, float, float]
    wheel: float
    windows: int


BODIES: Final[dict[str, tuple[Body, float]]] = {
    "hatch": (Body(3.9, 1.74, 1.48, 0.93, 0.78, (-0.97, 0.5, -0.74, 0.1), 0.31, 2), 4.0),
    "sedan": (Body(4.6, 1.80, 1.44, 0.93, 0.80, (-0.66, 0.42, -0.4, 0.06), 0.32, 2), 3.0),
    "estate": (Body(4.6, 1.80, 1.47, 0.94, 0.80, (-0.97, 0.42, -0.84, 0.08), 0.32, 3), 2.0),
    "suv": (Body(4.5, 1.90, 1.70, 1.08, 0.98, (-0.97, 0.46, -0.84, 0.16), 0.37, 3), 3.0),
    "van": (Body(5.2, 2.00, 2.15, 1.25, 1.12, (-0.99, 0.72, -0.97, 0.45), 0.35, 1), 1.2),
    "lorry": (Body(7.0, 2.30, 3.1, 1.45, 1.40, (-1.0, 0.97, -1.0, 0.92), 0.45, 0), 0.5),
    "bus": (Body(10.5, 2.50, 3.05, 1.25, 1.22, (-1.0, 0.99, -0.99, 0.97), 0.48, 7), 0.5),
}
"""Kind -> proportions, and how common it is."""


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle at the origin of its own axes.

    Attributes:
        mesh: its shapes.
        glows: place, radius and colour of its lamps' halos.
        half_length: half its length, metres.
        half_width: half its width, metres.
        height: metres.
    """

    mesh: Mesh
    glows: tuple[tuple[Vector, float, Colour], ...]
    half_length: float
    half_width: float
    height: float

    def placed(self, kit: Kit, d: float, s: float, depth_m: float) -> Pile:
        """The vehicle on the road at (d, s), with its shadows."""
        pile = Pile([Shape(depth_m, self.mesh.moved((d, 0.0, s)))])
        for (x, y, z), radius, colour in self.glows:
            pile.items.append(Glow(depth_m, np.array([(d + x, y, s + z)]), radius, colour))
        wide, long = self.half_width, self.half_length
        pile.box_shadow(kit, (d - wide, d + wide), (s - long, s + long), self.height * 0.85)
        pile.contacts.append(_rectangle(d, s, wide * 1.06, long * 1.02))
        return pile


def _rectangle(d: float, s: float, wide: float, long: float) -> Outline:
    return np.array(
        [[d - wide, s - long], [d - wide, s + long], [d + wide, s + long], [d + wide, s - long]]
    )


def make_vehicle(light: Light, seed: int, number: int, facing: int, *, moves: bool) -> Vehicle:
    """Vehicle `number` of a scene.

    Args:
        light: the scene's light.
        seed: the scene's seed.
        number: which vehicle; any whole number.
        facing: +1 drives away from the camera, -1 comes towards it.
        moves: its lamps are on at dusk.
    """
    rng = generator(seed, "vehicle", number)
    shares = {name: share for name, (_, share) in BODIES.items()}
    if not moves:
        shares |= {"bus": 0.0, "lorry": 0.1}
    kind = pick(rng, shares)
    body = BODIES[kind][0]
    weights = np.array([share for _, share in _PAINTS])
    paint = _PAINTS[int(rng.choice(len(_PAINTS), p=weights / weights.sum()))][0]
    if kind == "bus":
        paint = (Colour(40, 36, 176), Colour(150, 92, 40), Colour(60, 150, 80))[rng.integers(3)]
    maker = _Maker(body, paint.scaled(rng.uniform(0.9, 1.08)), light, facing)
    glows = maker.build(lamps=moves and light.lamps_on)
    return Vehicle(
        maker.model.build(),
        tuple(((facing * x, y, facing * z), r, c) for (x, y, z), r, c in glows),
        body.length / 2,
        body.width / 2,
        body.height,
    )


class _Maker:
    def __init__(self, body: Body, paint: Colour, light: Light, facing: int) -> None:
        self.model = Modeller(light, facing)
        self._body = body
        self._paint = paint
        self._light = light
        self._facing = facing
        self._half = body.width / 2
        self._long = body.length / 2

    def build(self, *, lamps: bool) -> list[tuple[Vector, float, Colour]]:
        """Add all shapes; return the halos."""
        self._under()
        self._hull()
        self._cabin()
        self._wheels()
        self._tail(lamps=lamps)
        self._nose(lamps=lamps)
        return self._halos() if lamps else []

    def _face(self, corners: list[Vector], colour: Colour, *, shines: bool = False) -> None:
        self.model.face(corners, colour, CAR, culled=True, shines=shines)

    def _across(self, end: float, box: tuple[float, float, float, float], colour: Colour,
                *, shines: bool = False) -> None:  # fmt: skip
        """A rectangle (left, low, right, high) on the tail (end -1) or nose (end +1)."""
        left, low, right, high = box
        z = end * (self._long + 0.01)
        corners: list[Vector] = [(left, low, z), (left, high, z), (right, high, z), (right, low, z)]
        self._face(corners if end < 0 else corners[::-1], colour, shines=shines)

    def _under(self) -> None:
        """Wheels as seen from behind, and the dark between them."""
        half, r = self._half, self._body.wheel
        axle = self._long * 0.6
        for z in (axle, -axle):
            for x in (-half + 0.04, half - 0.24):
                self.model.box((x, 0.0, z - r), (x + 0.2, r * 1.3, z + r), _TYRE, CAR)
        dark = Colour(20, 20, 20)
        self.model.box(
            (-half * 0.8, 0.2, -self._long * 0.94), (half * 0.8, 0.45, self._long * 0.94), dark, CAR
        )

    def _hull(self) -> None:
        body, long = self._body, self._long
        front = body.cabin[1] * long
        profile = [
            (-long, 0.3), (-long, body.belt * 0.78), (-long * 0.97, body.belt),
            (front, body.belt), (long * 0.93, body.bonnet), (long, body.bonnet * 0.8),
            (long, 0.26),
        ]  # fmt: skip
        half = self._half
        for x in (-half, half):
            side: list[Vector] = [(x, y, z) for z, y in profile]
            self._face(side if x > 0 else side[::-1], self._paint)
            low = [(x * 1.001, 0.22, -long * 0.97), (x * 1.001, 0.36, -long * 0.97),
                   (x * 1.001, 0.36, long * 0.97), (x * 1.001, 0.22, long * 0.97)]  # fmt: skip
            self._face(low if x > 0 else low[::-1], _TRIM)
        for (z0, y0), (z1, y1) in pairwise(profile):
            strip: list[Vector] = [(-half, y0, z0), (-half, y1, z1), (half, y1, z1), (half, y0, z0)]
            self._face(strip, self._paint)

    def _cabin(self) -> None:
        body = self._body
        tail, nose, roof_tail, roof_nose = (share * self._long for share in body.cabin)
        low, high = self._half * 0.97, self._half * (0.78 if body.height < 2 else 0.93)
        y0, y1 = body.belt, body.height
        glass = _GLASS.mixed(self._light.horizon, 0.16)
        back: list[Vector] = [
            (-low, y0, tail),
            (-high, y1, roof_tail),
            (high, y1, roof_tail),
            (low, y0, tail),
        ]
        wind: list[Vector] = [
            (low, y0, nose),
            (high, y1, roof_nose),
            (-high, y1, roof_nose),
            (-low, y0, nose),
        ]
        for pane, shown in ((back, body.windows != 0), (wind, True)):
            self._face(pane, self._paint)
            if shown:
                self._face(_inset(pane, 0.07, 0.1 if body.height < 2 else 0.3), glass)
        for x in (-1, 1):
            side: list[Vector] = [(x * low, y0, tail), (x * high, y1, roof_tail),
                                  (x * high, y1, roof_nose), (x * low, y0, nose)]  # fmt: skip
            self._face(side if x > 0 else side[::-1], self._paint)
            for window in range(body.windows):
                pane = _between(side, window / body.windows, (window + 1) / body.windows)
                self._face(_inset(pane if x > 0 else pane[::-1], 0.07, 0.13), glass)
            if body.windows < 2:
                pane = _between(side, 0.8, 0.98)
                self._face(_inset(pane if x > 0 else pane[::-1], 0.05, 0.2), glass)
        self._face(
            [
                (-high, y1, roof_tail),
                (-high, y1, roof_nose),
                (high, y1, roof_nose),
                (high, y1, roof_tail),
            ],
            self._paint,
        )

    def _wheels(self) -> None:
        r = self._body.wheel
        for z in (-self._long * 0.6, self._long * 0.6):
            for x, across in ((-self._half - 0.012, "left"), (self._half + 0.012, "right")):
                self._face(disc((x, r * 1.08, z), r * 1.14, 14, across), Colour(18, 18, 18))
                self._face(disc((x, r, z), r, 14, across), _TYRE)
                self._face(disc((x, r, z), r * 0.62, 10, across), Colour(150, 150, 148))
                self._face(disc((x, r, z), r * 0.2, 6, across), Colour(70, 70, 70))

    def _tail(self, *, lamps: bool) -> None:
        body, half = self._body, self._half
        red = Colour(30, 26, 235) if lamps else Colour(38, 34, 150)
        top = body.belt * 0.94
        for x in (-1, 1):
            box = sorted((x * half * 0.66, x * half * 0.97))
            self._across(-1, (box[0], top - 0.22, box[1], top), red, shines=lamps)
            inner = sorted((x * half * 0.66, x * half * 0.74))
            self._across(-1, (inner[0], top - 0.2, inner[1], top - 0.03), Colour(190, 195, 205))
        self._across(-1, (-half * 0.96, 0.3, half * 0.96, 0.46), _TRIM)
        self._across(-1, (-half * 0.5, 0.62, half * 0.5, 0.635), self._paint.scaled(0.5))
        plate = Colour(60, 190, 225) if int(body.length * 10) % 2 else Colour(220, 224, 224)
        self._across(-1, (-0.27, 0.5, 0.27, 0.61), plate)

    def _nose(self, *, lamps: bool) -> None:
        body, half = self._body, self._half
        lamp = Colour(225, 245, 255) if lamps else Colour(205, 208, 206)
        top = body.bonnet * 0.8
        for x in (-1, 1):
            box = sorted((x * half * 0.58, x * half * 0.95))
            self._across(1, (box[0], top - 0.15, box[1], top), lamp, shines=lamps)
        self._across(1, (-half * 0.52, top - 0.17, half * 0.52, top - 0.03), Colour(26, 26, 26))
        self._across(1, (-half * 0.94, 0.26, half * 0.94, 0.36), _TRIM)
        self._across(1, (-0.27, 0.37, 0.27, 0.46), Colour(226, 228, 228))

    def _halos(self) -> list[tuple[Vector, float, Colour]]:
        body, half = self._body, self._half
        if self._facing > 0:
            y, z, radius, colour = body.belt * 0.82, -self._long, 0.5, Colour(16, 12, 120)
        else:
            y, z, radius, colour = body.bonnet * 0.72, self._long, 1.1, Colour(120, 150, 165)
        return [((x * half * 0.8, y, z), radius, colour) for x in (-1, 1)]


def _inset(corners: list[Vector], across: float, upright: float) -> list[Vector]:
    """A quadrilateral (low, high, high, low) drawn in by shares of its width and height."""
    a, b, c, d = (np.array(corner) for corner in corners)

    def at(u: float, v: float) -> Vector:
        point = (1 - u) * ((1 - v) * a + v * b) + u * ((1 - v) * d + v * c)
        return float(point[0]), float(point[1]), float(point[2])

    return [
        at(across, upright), at(across, 1 - upright), at(1 - across, 1 - upright),
        at(1 - across, upright),
    ]  # fmt: skip


def _between(side: list[Vector], start: float, end: float) -> list[Vector]:
    """The part of a side (tail low, tail high, nose high, nose low) between two shares."""
    a, b, c, d = (np.array(corner) for corner in side)
    quad = (
        a + start * (d - a), b + start * (c - b), b + end * (c - b), a + end * (d - a),
    )  # fmt: skip
    return [(float(p[0]), float(p[1]), float(p[2])) for p in quad]
