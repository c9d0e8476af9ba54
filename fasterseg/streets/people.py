"""People on foot and on bicycles, built limb by limb for the moment they are seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fasterseg.streets.items import Shape
from fasterseg.streets.kit import BICYCLIST, PEDESTRIAN, Kit, Pile
from fasterseg.streets.light import Colour, Light, Vector
from fasterseg.streets.mesh import Mesh, Modeller, disc
from fasterseg.streets.rng import generator

_CLOTHES = (
    Colour(58, 50, 44), Colour(120, 70, 38), Colour(48, 46, 150), Colour(70, 120, 60),
    Colour(190, 190, 188), Colour(70, 64, 60), Colour(60, 140, 200), Colour(120, 88, 130),
    Colour(90, 116, 142), Colour(40, 40, 42), Colour(150, 150, 60), Colour(90, 90, 190),
)  # fmt: skip
_TROUSERS = (
    Colour(70, 52, 40), Colour(40, 38, 36), Colour(92, 70, 50), Colour(96, 110, 124),
    Colour(60, 62, 64), Colour(120, 130, 140),
)  # fmt: skip
_SKINS = (Colour(150, 178, 214), Colour(120, 152, 196), Colour(80, 108, 152), Colour(52, 72, 104))
_HAIR = (Colour(28, 30, 34), Colour(40, 60, 84), Colour(96, 140, 168), Colour(150, 152, 156))


@dataclass(frozen=True, slots=True)
class Person:
    """How one person looks; lengths in metres."""

    height: float
    top: Colour
    legs: Colour
    skin: Colour
    hair: Colour
    skirt: bool
    bag: bool
    long_hair: bool
    phase: float


def draw_person(seed: int, number: int) -> Person:
    """Person `number` of a scene."""
    rng = generator(seed, "person", number)
    child = rng.random() < 0.1

    def one(colours: tuple[Colour, ...]) -> Colour:
        return colours[int(rng.integers(len(colours)))].scaled(rng.uniform(0.8, 1.2))

    return Person(
        height=rng.uniform(1.05, 1.4) if child else rng.uniform(1.56, 1.9),
        top=one(_CLOTHES),
        legs=one(_TROUSERS),
        skin=one(_SKINS),
        hair=one(_HAIR),
        skirt=bool(rng.random() < 0.2),
        bag=bool(rng.random() < 0.35),
        long_hair=bool(rng.random() < 0.35),
        phase=float(rng.uniform(0, math.tau)),
    )


def walker(
    kit: Kit, person: Person, place: Vector, direction: tuple[float, float], walked_m: float
) -> Pile:
    """Someone on foot.

    Args:
        kit: the scene's.
        person: who.
        place: d, height of the ground, s.
        direction: unit vector (d, s) of the walk; (0, 0) stands still.
        walked_m: metres walked so far; sets the legs.
    """
    d, ground, s = place
    mesh = _Figure(kit.style.light, person, direction, walked_m).build()
    pile = Pile([Shape(s, mesh.moved((d, ground, s)))])
    pile.contacts.append(_patch(d, s, 0.27, 0.22))
    pile.box_shadow(kit, (d - 0.2, d + 0.2), (s - 0.08, s + 0.08), person.height)
    return pile


def _patch(d: float, s: float, wide: float, long: float) -> np.ndarray:
    angles = np.linspace(0, math.tau, 10, endpoint=False)
    return np.stack([d + wide * np.cos(angles), s + long * np.sin(angles)], axis=1)


class _Figure:
    """A walking body; `forward` and `sideways` are the axes it swings along."""

    def __init__(
        self, light: Light, person: Person, direction: tuple[float, float], walked_m: float
    ) -> None:
        self._model = Modeller(light)
        self._person = person
        still = direction == (0.0, 0.0)
        self._forward = (0.0, -1.0) if still else direction
        self._sideways = (self._forward[1], -self._forward[0])
        stride = 0.82 * person.height
        self._phase = person.phase if still else person.phase + math.tau * walked_m / stride
        self._swing = 0.06 if still else 0.46

    def _at(self, ahead: float, aside: float, up: float) -> Vector:
        """A point of the body, in shares of its height."""
        size = self._person.height
        return (
            size * (ahead * self._forward[0] + aside * self._sideways[0]),
            size * up,
            size * (ahead * self._forward[1] + aside * self._sideways[1]),
        )

    def _limb(self, a: Vector, b: Vector, ra: float, rb: float, colour: Colour) -> None:
        size = self._person.height
        self._model.tube((a, b), (ra * size, rb * size), colour, PEDESTRIAN)

    def build(self) -> Mesh:
        """All limbs, the far ones first."""
        person = self._person
        far = 1 if self._sideways[1] > 0 else -1
        self._leg(far)
        self._arm(far)
        self._leg(-far)
        hips, chest = self._at(0, 0, 0.53), self._at(0.01, 0, 0.76)
        if person.skirt:
            self._limb(self._at(0, 0, 0.36), hips, 0.105, 0.08, person.legs.scaled(1.15))
        self._limb(hips, chest, 0.078, 0.098, person.top)
        self._limb(self._at(0, -0.06, 0.785), self._at(0, 0.06, 0.785), 0.052, 0.052, person.top)
        if person.bag:
            self._limb(self._at(-0.1, 0, 0.62), self._at(-0.1, 0, 0.74), 0.06, 0.06, person.legs)
        self._arm(-far)
        self._head()
        return self._model.build()

    def _leg(self, side: int) -> None:
        turn = self._phase + (math.pi if side > 0 else 0.0)
        thigh = self._swing * math.sin(turn)
        bend = self._swing * 1.1 * max(0.0, math.cos(turn)) if self._swing > 0.1 else 0.0
        hip = self._at(0, 0.045 * side, 0.52)
        knee_ahead, knee_up = 0.26 * math.sin(thigh), 0.52 - 0.25 * math.cos(thigh)
        shin = thigh - bend
        foot_ahead = knee_ahead + 0.25 * math.sin(shin)
        foot_up = max(0.025, knee_up - 0.25 * math.cos(shin))
        knee = self._at(knee_ahead, 0.045 * side, knee_up)
        foot = self._at(foot_ahead, 0.045 * side, foot_up)
        colour = self._person.legs.scaled(1.0 if side < 0 else 0.85)
        self._limb(hip, knee, 0.055, 0.042, colour)
        lower = self._person.skin.scaled(0.9) if self._person.skirt else colour
        self._limb(knee, foot, 0.04, 0.028, lower)
        toe = self._at(foot_ahead + 0.06, 0.045 * side, max(0.018, foot_up - 0.012))
        self._limb(foot, toe, 0.026, 0.02, Colour(36, 34, 34))

    def _arm(self, side: int) -> None:
        swing = -0.8 * self._swing * math.sin(self._phase + (math.pi if side > 0 else 0.0))
        shoulder = self._at(0, 0.125 * side, 0.79)
        elbow = self._at(0.17 * math.sin(swing), 0.14 * side, 0.79 - 0.17 * math.cos(swing))
        fore = swing + 0.3
        hand = self._at(
            0.17 * math.sin(swing) + 0.15 * math.sin(fore),
            0.135 * side,
            0.79 - 0.17 * math.cos(swing) - 0.15 * math.cos(fore),
        )
        sleeve = self._person.top.scaled(0.86)
        self._limb(shoulder, elbow, 0.034, 0.028, sleeve)
        self._limb(elbow, hand, 0.027, 0.021, sleeve)
        self._limb(hand, hand, 0.026, 0.026, self._person.skin)

    def _head(self) -> None:
        person = self._person
        self._limb(self._at(0.01, 0, 0.81), self._at(0.015, 0, 0.87), 0.03, 0.03, person.skin)
        self._limb(self._at(0.02, 0, 0.905), self._at(0.025, 0, 0.935), 0.05, 0.055, person.skin)
        away = self._forward[1] > -0.5
        nape = 0.86 if person.long_hair else 0.92
        ahead = -0.02 if away else 0.0
        if away or person.long_hair:
            self._limb(self._at(ahead, 0, nape), self._at(ahead, 0, 0.95), 0.05, 0.057, person.hair)
            if not away:
                face = self._at(0.03, 0, 0.915)
                self._limb(face, face, 0.045, 0.045, person.skin)
        self._limb(self._at(-0.01, 0, 0.962), self._at(0.01, 0, 0.965), 0.046, 0.046, person.hair)


def cyclist(
    kit: Kit, person: Person, place: tuple[float, float], facing: int, ridden_m: float
) -> Pile:
    """Someone on a bicycle at `place` (d, s), riding away (+1) or towards the camera (-1)."""
    d, s = place
    model = Modeller(kit.style.light, facing)
    _bicycle(model, person)
    _rider(model, person, ridden_m)
    pile = Pile([Shape(s - 3.0, model.build().moved((d, 0.0, s)))])
    pile.contacts.append(_patch(d, s, 0.2, 0.85))
    pile.box_shadow(kit, (d - 0.15, d + 0.15), (s - 0.6, s + 0.6), 1.5)
    return pile


_WHEEL_M = 0.34
_AXLES = (-0.52, 0.52)


def _bicycle(model: Modeller, person: Person) -> None:
    frame = person.legs.mixed(person.top, 0.5).scaled(1.3)

    def bar(a: Vector, b: Vector, radius: float, colour: Colour) -> None:
        model.tube((a, b), (radius, radius), colour, BICYCLIST)

    for z in _AXLES:
        for across in ("left", "right"):
            model.face(disc((0, _WHEEL_M, z), _WHEEL_M, 16, across), Colour(34, 33, 32),
                       BICYCLIST, culled=True)  # fmt: skip
            model.face(disc((0, _WHEEL_M, z), _WHEEL_M * 0.86, 16, across), Colour(112, 112, 110),
                       BICYCLIST, culled=True)  # fmt: skip
        bar((0, 0.03, z), (0, 2 * _WHEEL_M - 0.03, z), 0.028, Colour(34, 33, 32))
    seat, crank, head = (0.0, 0.9, -0.2), (0.0, 0.32, -0.04), (0.0, 0.86, 0.36)
    for a, b in (
        (crank, seat), (crank, head), ((0, 0.8, -0.17), head), (crank, (0, _WHEEL_M, -0.52)),
        ((0, 0.8, -0.17), (0, _WHEEL_M, -0.52)), (head, (0, _WHEEL_M, 0.52)),
        (head, (0, 1.02, 0.38)),
    ):  # fmt: skip
        bar(a, b, 0.022, frame)
    bar((-0.27, 1.03, 0.4), (0.27, 1.03, 0.4), 0.02, Colour(50, 50, 50))
    bar((0, 0.92, -0.32), (0, 0.94, -0.12), 0.05, Colour(30, 30, 30))


def _rider(model: Modeller, person: Person, ridden_m: float) -> None:
    def limb(a: Vector, b: Vector, ra: float, rb: float, colour: Colour) -> None:
        model.tube((a, b), (ra, rb), colour, BICYCLIST)

    hip, shoulder = (0.0, 0.98, -0.2), (0.0, 1.46, 0.1)
    turn = person.phase + ridden_m * 1.5
    for side in (-1, 1):
        angle = turn + (math.pi if side > 0 else 0.0)
        pedal = (0.1 * side, 0.32 + 0.17 * math.cos(angle), -0.04 + 0.17 * math.sin(angle))
        knee = (0.13 * side, 0.5 * (hip[1] + pedal[1]) + 0.1, 0.5 * (hip[2] + pedal[2]) + 0.24)
        limb((0.09 * side, hip[1], hip[2]), knee, 0.1, 0.07, person.legs)
        limb(knee, pedal, 0.065, 0.045, person.legs)
        limb(pedal, (pedal[0], pedal[1] - 0.02, pedal[2] + 0.12), 0.045, 0.035, Colour(34, 34, 36))
    arms = []
    for side in (-1, 1):
        elbow = (0.25 * side, 1.2, 0.22)
        arms.append(((0.18 * side, 1.43, 0.1), elbow, (0.24 * side, 1.05, 0.4)))
    for top, elbow, hand in arms:
        limb(elbow, hand, 0.045, 0.035, person.skin)
        limb(top, elbow, 0.06, 0.05, person.top.scaled(0.88))
    limb(hip, shoulder, 0.15, 0.17, person.top)
    limb((-0.1, 1.45, 0.1), (0.1, 1.45, 0.1), 0.09, 0.09, person.top)
    limb((0, 1.5, 0.14), (0, 1.58, 0.18), 0.055, 0.055, person.skin)
    limb((0, 1.64, 0.2), (0, 1.68, 0.2), 0.09, 0.095, person.skin)
    helmet = Colour(60, 60, 200) if person.bag else person.hair
    limb((0, 1.7, 0.15), (0, 1.72, 0.22), 0.1, 0.095, helmet)
