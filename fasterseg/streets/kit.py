"""What the makers of things share within one scene: its style, light and textures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.labels import CAMVID
from fasterseg.streets.facades import Builder
from fasterseg.streets.foliage import Foliage
from fasterseg.streets.items import Item
from fasterseg.streets.style import Style

(SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST) = range(
    len(CAMVID)
)

KERB_M = 0.13
"""Height of the pavement above the road."""

Outline = NDArray[np.float64]


@dataclass(frozen=True)
class Kit:
    """Style and textures of a scene."""

    style: Style
    builder: Builder
    foliage: Foliage


@dataclass
class Pile:
    """Things made so far, and the shadows they throw.

    Attributes:
        items: for the painter.
        shadows: (N, 2) outlines on the ground, d and s in metres.
        contacts: the same for the dark under things, sun or no sun.
    """

    items: list[Item] = field(default_factory=list)
    shadows: list[Outline] = field(default_factory=list)
    contacts: list[Outline] = field(default_factory=list)

    def extend(self, other: Pile) -> None:
        """Take over everything from another pile."""
        self.items += other.items
        self.shadows += other.shadows
        self.contacts += other.contacts

    def box_shadow(
        self, kit: Kit, d: tuple[float, float], s: tuple[float, float], height_m: float
    ) -> None:
        """Add the sun's shadow of an upright box on `d` x `s`."""
        light = kit.style.light
        if light.daytime != "day":
            return
        reach = height_m / max(light.sun[1], 0.2)
        step = (-light.sun[0] * reach, -light.sun[2] * reach)
        base = [(x, y) for x in d for y in s]
        both = base + [(x + step[0], y + step[1]) for x, y in base]
        hull = cv2.convexHull(np.array(both, np.float32)).reshape(-1, 2)
        self.shadows.append(np.asarray(hull, np.float64))

    def round_shadow(
        self, kit: Kit, place: tuple[float, float], height_m: float, radius_m: float
    ) -> None:
        """Add the sun's shadow of a ball of leaves at `place` (d, s) and `height_m`."""
        light = kit.style.light
        if light.daytime != "day":
            return
        reach = height_m / max(light.sun[1], 0.2)
        angles = np.linspace(0, math.tau, 14, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius_m
        ring *= 1 + 0.16 * np.sin(angles * 5 + place[1])[:, None]
        middle = np.array([place[0] - light.sun[0] * reach, place[1] - light.sun[2] * reach])
        self.shadows.append(ring + middle)
