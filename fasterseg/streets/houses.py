"""What stands behind the pavement: houses with their front gardens, and small parks."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fasterseg.streets.facades import STOREY_M, roof_texture
from fasterseg.streets.items import Shape, panel
from fasterseg.streets.kit import BUILDING, FENCE, KERB_M, TREE, Kit, Pile
from fasterseg.streets.light import Colour
from fasterseg.streets.mesh import Modeller
from fasterseg.streets.plants import bush, tree
from fasterseg.streets.rng import generator
from fasterseg.streets.texture import Texture

FASHIONS = 7
_DEPTH_M = 9.0

Span = tuple[float, float]


class _Front(NamedTuple):
    """How far off the road a house stands, where it ends, and how many floors it rises."""

    offset_m: float
    end: float
    floors: int = 0

    def covers(self, other: _Front, start: float) -> bool:
        """Whether this house hides the side of the next one, which begins at `start`."""
        touches = abs(self.end - start) < 0.05 and abs(self.offset_m - other.offset_m) < 0.05
        return touches and self.floors >= other.floors


class Lots:
    """Builds on the land along one scene's road."""

    def __init__(self, kit: Kit, pixels_per_m: float) -> None:
        self._kit = kit
        self._scale = pixels_per_m
        self._roof = lru_cache(maxsize=2 * FASHIONS)(self._draw_roof)

    def build(self, rng: np.random.Generator, use: str, side: int, span: Span) -> Pile:
        """Fill the land from `span[0]` to `span[1]` metres along the road.

        Args:
            rng: draws what is built.
            use: "terrace", "houses", "blocks" or "park".
            side: -1 left, +1 right of the road.
            span: start and end along the road.
        """
        if use == "park":
            return self._park(rng, side, span)
        width = {"terrace": 8.0, "houses": 13.0, "blocks": 20.0}[use]
        count = max(1, round((span[1] - span[0]) / (width * rng.uniform(0.8, 1.25))))
        shares = rng.uniform(0.75, 1.25, count)
        marks = span[0] + np.concatenate([[0], np.cumsum(shares / shares.sum())]) * (
            span[1] - span[0]
        )
        pile = Pile()
        fashion = int(rng.integers(FASHIONS))
        before = _Front(0.0, 0.0)
        for start, end in pairwise(marks):
            if use != "terrace" or rng.random() < 0.5:
                fashion = int(rng.integers(FASHIONS))
            lot, before = self._lot(rng, use, side, (float(start), float(end)), fashion, before)
            pile.extend(lot)
        return pile

    def _lot(
        self,
        rng: np.random.Generator,
        use: str,
        side: int,
        span: Span,
        fashion: int,
        before: _Front,
    ) -> tuple[Pile, _Front]:
        """One house on its ground; `before` is the front nearer to the camera."""
        style = self._kit.style
        setback = 0.0
        storeys = int(rng.integers(style.storeys[0], style.storeys[1] + 1))
        ends = span
        if use == "houses":
            setback, storeys = rng.uniform(3.0, 6.5), int(rng.integers(1, 3))
            ends = (span[0] + rng.uniform(0.5, 2.0), span[1] - rng.uniform(0.5, 2.0))
        elif use == "blocks":
            setback = rng.uniform(0.0, 4.0) if rng.random() < 0.4 else 0.0
            storeys += int(rng.integers(1, 4))
        elif rng.random() < 0.15:
            setback = 2.0
        front = style.layout.front_m(side) + setback
        pitched = use == "houses" or (use == "terrace" and fashion % 3 != 0)
        here = _Front(front, ends[1], storeys + (1 if pitched else 0))
        pile = self._house(
            rng, side * front, ends, storeys, fashion,
            pitched=pitched, covered=before.covers(here, ends[0]),
        )  # fmt: skip
        if setback > 1.5:
            pile.extend(self._garden(rng, side, span, setback))
        return pile, here

    def _house(
        self,
        rng: np.random.Generator,
        front: float,
        span: Span,
        storeys: int,
        fashion: int,
        *,
        pitched: bool,
        covered: bool,
    ) -> Pile:
        side = 1 if front > 0 else -1
        builder = self._kit.builder
        bays = max(1, round((span[1] - span[0]) / builder.fashion(fashion).bay_m))
        top = KERB_M + storeys * STOREY_M
        back = front + side * _DEPTH_M
        facade = builder.facade(rng, fashion, (-side, 0.0, 0.0), bays, storeys)
        start, end = span
        pile = Pile()
        key = end + 0.02
        ground = 0.0
        if not covered:
            blank = builder.blank(rng, fashion, (top, _DEPTH_M))
            pile.items.append(
                panel(key, ((front, top, start), (front, ground, start)),
                      ((back, top, start), (back, ground, start)), blank, BUILDING)
            )  # fmt: skip
        pile.items.append(
            panel(key, ((front, top, start), (front, ground, start)),
                  ((front, top, end), (front, ground, end)), facade, BUILDING)
        )  # fmt: skip
        ridge = top
        if pitched:
            ridge = top + rng.uniform(2.0, 3.2)
            self._pitch(pile, front, span, (top, ridge), fashion)
        if pitched or rng.random() < 0.4:
            self._chimney(pile, rng, front, span, ridge)
        pile.box_shadow(self._kit, (front, back), span, ridge - 0.8 * (ridge - top))
        return pile

    def _pitch(
        self, pile: Pile, front: float, span: Span, heights: tuple[float, float], fashion: int
    ) -> None:
        side = 1 if front > 0 else -1
        eave, ridge = front - side * 0.35, front + side * _DEPTH_M / 2
        back = front + side * (_DEPTH_M + 0.2)
        start, end = span
        top, peak = heights
        model = Modeller(self._kit.style.light)
        wall = self._kit.builder.fashion(fashion).colour
        left, right = min(front, back), max(front, back)
        model.face(((left, top, start), (ridge, peak, start), (right, top, start)), wall, BUILDING)
        pile.items.append(Shape(end + 0.02, model.build()))
        pile.items.append(
            panel(end + 0.02, ((ridge, peak, start), (eave, top - 0.1, start)),
                  ((ridge, peak, end), (eave, top - 0.1, end)), self._roof(fashion, side), BUILDING)
        )  # fmt: skip

    def _chimney(
        self, pile: Pile, rng: np.random.Generator, front: float, span: Span, ridge: float
    ) -> None:
        side = 1 if front > 0 else -1
        middle = front + side * _DEPTH_M * 0.4
        place = rng.uniform(span[0] + 0.6, max(span[0] + 0.7, span[1] - 1.2))
        model = Modeller(self._kit.style.light)
        brick = Colour(64, 84, 132).scaled(rng.uniform(0.8, 1.1))
        model.box(
            (middle - 0.4, ridge - 1.2, place),
            (middle + 0.4, ridge + 0.9, place + 0.7),
            brick,
            BUILDING,
        )
        for pot in (-0.2, 0.2):
            foot = (middle + pot, ridge + 0.9, place + 0.3)
            head = (middle + pot, ridge + 1.3, place + 0.3)
            model.tube((foot, head), (0.11, 0.09), Colour(70, 104, 168), BUILDING)
        # Chimneys stand behind the slope they rise from.
        pile.items.insert(0, Shape(span[1] + 0.03, model.build()))

    def _draw_roof(self, fashion: int, side: int) -> Texture:
        gain = self._kit.style.light.gain((-0.5 * side, 0.86, 0.0))
        rng = generator(self._kit.style.seed, "roof", fashion)
        return roof_texture(rng, self._kit.builder.fashion(fashion).roof, gain, self._scale)

    def _garden(self, rng: np.random.Generator, side: int, span: Span, setback: float) -> Pile:
        pile = Pile()
        front = self._kit.style.layout.front_m(side)
        self._boundary(pile, rng, side * (front + 0.12), span)
        for _ in range(int(rng.integers(0, 4))):
            place = (side * (front + rng.uniform(0.9, setback - 0.2)), rng.uniform(*span))
            pile.extend(bush(self._kit, rng, place, span[1] + 0.01))
        if setback > 3.5 and rng.random() < self._kit.style.trees * 0.6:
            place = (side * (front + rng.uniform(1.5, setback - 1)), rng.uniform(*span))
            pile.extend(tree(self._kit, rng, place, span[1] + 0.01, size=0.75))
        return pile

    def _boundary(self, pile: Pile, rng: np.random.Generator, d: float, span: Span) -> None:
        """A hedge, fence or wall along the pavement, often with a gate left open."""
        kind = str(rng.choice(["hedge", "wall", "boards", "pickets", "railing", "mesh", "open"]))
        if kind == "open":
            return
        height = KERB_M + rng.uniform(0.7, 1.7 if kind in ("hedge", "boards") else 1.15)
        gate = rng.uniform(span[0] + 1.5, max(span[0] + 1.6, span[1] - 3.0))
        for start, end in ((span[0], gate), (gate + rng.uniform(1.2, 2.6), span[1])):
            self._run(pile, kind, d, (start, end), height)

    def _run(self, pile: Pile, kind: str, d: float, span: Span, height: float) -> None:
        texture, label = self._material(kind, int(abs(d) * 7) % 2)
        piece = 4.5
        start = span[0]
        while start < span[1] - 0.3:
            end = min(start + piece, span[1])
            if kind in ("hedge", "wall"):
                model = Modeller(self._kit.style.light)
                depth = (0.8 if kind == "hedge" else 0.25) * (1 if d > 0 else -1)
                colour = (
                    self._kit.foliage.leaf_colour(20) if kind == "hedge" else Colour(118, 132, 146)
                )
                left, right = min(d, d + depth), max(d, d + depth)
                model.face(
                    ((left, height, start), (left, height, end),
                     (right, height, end), (right, height, start)),
                    colour, label,
                )  # fmt: skip
                pile.items.append(Shape(end, model.build()))
            pile.items.append(
                panel(end, ((d, height, start), (d, 0.0, start)),
                      ((d, height, end), (d, 0.0, end)), texture, label)
            )  # fmt: skip
            pile.box_shadow(self._kit, (d, d + 0.1), (start, end), height)
            start = end

    def _material(self, kind: str, which: int) -> tuple[Texture, int]:
        if kind == "hedge":
            return self._kit.foliage.hedge(which), TREE
        if kind == "wall":
            # CamVid counts garden walls among the buildings.
            return self._kit.builder.garden_wall(which), BUILDING
        return self._kit.foliage.fence(kind, which), FENCE

    def _park(self, rng: np.random.Generator, side: int, span: Span) -> Pile:
        pile = Pile()
        front = self._kit.style.layout.front_m(side)
        kind = str(rng.choice(["hedge", "railing", "boards", "mesh", "wall"]))
        height = KERB_M + rng.uniform(0.9, 1.8)
        self._run(pile, kind, side * (front + 0.12), span, height)
        for _ in range(int((span[1] - span[0]) / 5)):
            place = (side * (front + rng.uniform(2.0, 11.0)), rng.uniform(*span))
            pile.extend(tree(self._kit, rng, place, place[1] + 2.0, size=rng.uniform(0.8, 1.35)))
        for _ in range(int((span[1] - span[0]) / 6)):
            place = (side * (front + rng.uniform(1.2, 9.0)), rng.uniform(*span))
            pile.extend(bush(self._kit, rng, place, span[1] + 0.01))
        return pile
