"""Trees and bushes."""

from __future__ import annotations

import numpy as np

from fasterseg.streets.foliage import CROWNS
from fasterseg.streets.items import Shape, Sprite
from fasterseg.streets.kit import KERB_M, TREE, Kit, Pile
from fasterseg.streets.light import Colour
from fasterseg.streets.mesh import Modeller


def tree(
    kit: Kit, rng: np.random.Generator, place: tuple[float, float], depth_m: float, size: float
) -> Pile:
    """A tree at `place` (d, s); `size` 1 is a usual street tree."""
    d, s = place
    which = int(rng.integers(CROWNS))
    pointed = which % 5 == 4
    width = size * rng.uniform(3.4, 5.4) * (0.7 if pointed else 1.0)
    height = width * (rng.uniform(1.7, 2.4) if pointed else rng.uniform(0.95, 1.3))
    clear = size * rng.uniform(1.7, 2.7) * (0.6 if pointed else 1.0)
    radius = size * rng.uniform(0.1, 0.19)
    lean = rng.uniform(-0.15, 0.15)
    bark = Colour(62, 78, 92).scaled(rng.uniform(0.7, 1.15))
    model = Modeller(kit.style.light)
    fork = (d + lean, KERB_M + clear + 0.25 * height, s)
    model.tube(((d, KERB_M, s), fork), (radius * 1.15, radius * 0.75), bark.scaled(0.72), TREE)
    sunny = 0.3 * radius * (1 if kit.style.light.sun[0] > 0 else -1)
    model.tube(
        ((d + sunny, KERB_M, s), (fork[0] + sunny, fork[1], s)),
        (radius * 0.7, radius * 0.4), bark, TREE,
    )  # fmt: skip
    for reach in (-0.28, 0.24):
        tip = (fork[0] + reach * width, KERB_M + clear + 0.6 * height, s)
        model.tube((fork, tip), (radius * 0.6, radius * 0.25), bark.scaled(0.8), TREE)
    crown = Sprite(
        depth_m, np.array([(d + lean, KERB_M + clear - 0.06 * height, s)]), width, height,
        kit.foliage.crown(which), TREE,
    )  # fmt: skip
    pile = Pile([Shape(depth_m, model.build()), crown])
    pile.round_shadow(kit, place, clear + 0.45 * height, width * 0.4)
    pile.box_shadow(kit, (d - radius, d + radius), (s, s + 0.1), clear)
    return pile


def bush(kit: Kit, rng: np.random.Generator, place: tuple[float, float], depth_m: float) -> Pile:
    """A bush at `place` (d, s)."""
    width = rng.uniform(0.9, 2.2)
    height = width * rng.uniform(0.6, 1.0)
    crown = kit.foliage.crown(int(rng.integers(CROWNS)))
    foot = np.array([(place[0], KERB_M - 0.12 * height, place[1])])
    pile = Pile([Sprite(depth_m, foot, width, height, crown, TREE)])
    pile.contacts.append(_oval(place, width * 0.4, 0.4))
    return pile


def _oval(place: tuple[float, float], half_d: float, half_s: float) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    ring = np.stack([np.cos(angles) * half_d, np.sin(angles) * half_s], axis=1)
    return np.asarray(ring + place)
