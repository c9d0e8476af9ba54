"""What stands on the pavement: lamps, signs, traffic lights, bollards, railings."""

from __future__ import annotations

import math

import numpy as np

from fasterseg.streets.items import Glow, Shape, panel
from fasterseg.streets.kit import FENCE, KERB_M, POLE, SIGN, Kit, Pile
from fasterseg.streets.light import Colour, Vector
from fasterseg.streets.mesh import Modeller, disc
from fasterseg.streets.rng import generator, pick
from fasterseg.streets.signs import SIGNS, Plate

_WHITE = Colour(226, 230, 232)
_GREY = Colour(132, 134, 134)


def lamp(kit: Kit, side: int, d: float, s: float) -> Pile:
    """A street lamp of the scene's pattern; its arm reaches over the road."""
    rng = generator(kit.style.seed, "lamp")
    pattern = pick(rng, {"arm": 3, "curved": 2, "lantern": 1.4})
    metal = (Colour(122, 124, 122), Colour(62, 62, 60), Colour(66, 84, 62))[rng.integers(3)]
    height = rng.uniform(3.6, 4.6) if pattern == "lantern" else rng.uniform(6.5, 9.0)
    model = Modeller(kit.style.light)
    top: Vector = (d, KERB_M + height, s)
    model.tube(((d, KERB_M, s), (d, KERB_M + 1.1, s)), (0.12, 0.11), metal.scaled(0.85), POLE)
    model.tube(((d, KERB_M + 1.0, s), top), (0.085, 0.06), metal, POLE)
    shines = kit.style.light.lamps_on
    bulb = Colour(170, 225, 255) if shines else Colour(196, 202, 204)
    if pattern == "lantern":
        head: Vector = (d, top[1] + 0.25, s)
        model.tube((top, head), (0.16, 0.22), bulb, POLE, shines=shines)
        model.tube((head, (d, head[1] + 0.15, s)), (0.25, 0.06), metal, POLE)
    else:
        reach = -side * rng.uniform(1.1, 2.0)
        rise = 0.5 if pattern == "curved" else 0.12
        middle = (d + 0.45 * reach, top[1] + rise * 0.85, s)
        head = (d + reach, top[1] + rise, s)
        model.tube((top, middle), (0.055, 0.05), metal, POLE)
        model.tube((middle, head), (0.05, 0.05), metal, POLE)
        tip = (head[0] + 0.5 * math.copysign(1, reach), head[1], s)
        model.tube((head, tip), (0.1, 0.1), metal.scaled(0.9), POLE)
        model.tube(
            ((head[0], head[1] - 0.05, s - 0.02), (tip[0], tip[1] - 0.05, s - 0.02)),
            (0.06, 0.06), bulb, POLE, shines=shines,
        )  # fmt: skip
    pile = Pile([Shape(s, model.build())])
    if shines:
        pile.items.append(Glow(s, np.array([head]), 1.5, Colour(60, 105, 140)))
    pile.box_shadow(kit, (d - 0.08, d + 0.08), (s, s + 0.16), height)
    return pile


def sign(kit: Kit, rng: np.random.Generator, d: float, s: float, *, faces_us: bool) -> Pile:
    """A traffic sign on a pole; from behind it is grey."""
    shares = np.array([share for _, share in SIGNS])
    face = SIGNS[int(rng.choice(len(SIGNS), p=shares / shares.sum()))][0]
    large = face is Plate.board
    model = Modeller(kit.style.light)
    size = rng.uniform(0.3, 0.4)
    height = KERB_M + (rng.uniform(1.8, 2.2) if large else rng.uniform(2.1, 2.7))
    posts = (-0.7, 0.7) if large else (0.0,)
    for post in posts:
        model.tube(
            ((d + post, KERB_M, s), (d + post, height + 0.25, s)), (0.04, 0.04), _GREY, POLE
        )  # fmt: skip
    face(Plate(model, (d, height, s - 0.06), size, faces_us=faces_us))
    if not large and rng.random() < 0.2:
        Plate(model, (d, height - 2.0 * size, s - 0.06), size, faces_us=faces_us).parking()
    pile = Pile([Shape(s - 0.05, model.build())])
    pile.box_shadow(kit, (d - 0.05, d + 0.05), (s, s + 0.1), height)
    return pile


def traffic_light(kit: Kit, side: int, d: float, s: float, *, faces_us: bool) -> Pile:
    """Lights on a pole at the kerb, and on an arm over the road in some scenes."""
    rng = generator(kit.style.seed, "signal")
    model = Modeller(kit.style.light)
    grey = (_GREY, Colour(70, 70, 68), Colour(60, 160, 190))[rng.integers(3)]
    arm = bool(rng.random() < 0.35)
    height = KERB_M + (5.4 if arm else 2.5)
    model.tube(((d, KERB_M, s), (d, height + 0.4, s)), (0.075, 0.06), grey, POLE)
    pile = Pile()
    heads: list[Vector] = [(d, KERB_M + 2.75, s - 0.12)]
    if arm:
        reach = d - side * 3.2
        model.tube(((d, height, s), (reach, height + 0.25, s)), (0.06, 0.045), grey, POLE)
        heads.append((reach, height + 0.2, s - 0.12))
    for head in heads:
        _signal_head(model, head, faces_us=faces_us)
    pile.items.append(Shape(s - 0.05, model.build()))
    if faces_us:
        for x, y, z in heads:
            pile.items.append(Glow(s - 0.06, np.array([(x, y - 0.28, z)]), 0.4, Colour(70, 90, 20)))
    pile.box_shadow(kit, (d - 0.08, d + 0.08), (s, s + 0.16), height)
    return pile


def _signal_head(model: Modeller, centre: Vector, *, faces_us: bool) -> None:
    x, y, z = centre
    model.box(
        (x - 0.17, y - 0.46, z - 0.1), (x + 0.17, y + 0.46, z + 0.1), Colour(30, 30, 30), SIGN
    )
    if not faces_us:
        return
    # Always green: the camera never stops.
    for up, colour, shines in (
        (0.28, Colour(30, 24, 70), False),
        (0.0, Colour(26, 60, 76), False),
        (-0.28, Colour(150, 235, 70), True),
    ):
        corners = disc((x, y + up, z - 0.11), 0.11, 12, "back")
        model.face(corners, colour, SIGN, shines=shines)


def bollards(kit: Kit, d: float, s: float, count: int) -> Pile:
    """A row of bollards along the kerb from `s` on."""
    model = Modeller(kit.style.light)
    pile = Pile()
    for number in range(count):
        place = s + 1.5 * (count - 1 - number)
        top = (d, KERB_M + 0.95, place)
        model.tube(((d, KERB_M, place), top), (0.075, 0.07), Colour(48, 47, 46), POLE)
        model.tube(
            ((d, KERB_M + 0.75, place), (d, KERB_M + 0.83, place)), (0.08, 0.08), _WHITE, POLE
        )
        pile.box_shadow(kit, (d - 0.07, d + 0.07), (place, place + 0.14), 0.95)
    pile.items.append(Shape(s, model.build()))
    return pile


def railing(kit: Kit, d: float, span: tuple[float, float]) -> Pile:
    """A guard rail along the kerb."""
    pile = Pile()
    texture = kit.foliage.fence("railing", 1)
    start = span[0]
    while start < span[1] - 1.0:
        end = min(start + 4.0, span[1])
        top = KERB_M + 1.05
        pile.items.append(
            panel(start, ((d, top, start), (d, KERB_M, start)), ((d, top, end), (d, KERB_M, end)),
                  texture, FENCE)
        )  # fmt: skip
        start = end
    return pile
