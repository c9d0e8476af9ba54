"""House fronts: tiles of one bay by one storey, put together to whole facades."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from fasterseg.streets.light import Colour, Light, Vector
from fasterseg.streets.rng import generator, pick
from fasterseg.streets.texture import Bytes, Texture, filled, mottled, rounded, textured

STOREY_M = 3.1

_WALLS = {
    "brick": (
        Colour(72, 92, 150), Colour(60, 78, 124), Colour(96, 126, 160), Colour(110, 150, 178),
    ),
    "stucco": (
        Colour(205, 222, 230), Colour(170, 200, 222), Colour(182, 204, 196), Colour(214, 206, 196),
        Colour(160, 184, 226), Colour(150, 205, 228),
    ),
    "stone": (Colour(150, 166, 176), Colour(128, 152, 170), Colour(172, 180, 184)),
    "panel": (Colour(165, 165, 162), Colour(140, 146, 150), Colour(190, 188, 184)),
    "glass": (Colour(120, 104, 88), Colour(100, 96, 92), Colour(140, 124, 104)),
}  # fmt: skip

_DOORS = (
    Colour(52, 40, 36), Colour(46, 52, 120), Colour(92, 62, 34), Colour(60, 92, 44),
    Colour(58, 84, 110), Colour(210, 214, 216),
)  # fmt: skip

_AWNINGS = (
    Colour(52, 48, 158), Colour(64, 104, 52), Colour(128, 74, 40), Colour(46, 46, 50),
    Colour(70, 160, 204), Colour(120, 60, 110), Colour(200, 205, 210),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fashion:
    """How the houses of one kind look. Shares are of a tile's width or height."""

    wall: str
    colour: Colour
    trim: Colour
    bay_m: float
    window_width: float
    window_height: float
    panes: int
    extras: str
    ground: str
    roof: Colour


def draw_fashion(seed: int, which: int) -> Fashion:
    """Draw house fashion `which` of a scene."""
    rng = generator(seed, "fashion", which)
    wall = pick(rng, {"brick": 5, "stucco": 5, "stone": 2.5, "panel": 1.5, "glass": 1})
    colours = _WALLS[wall]
    colour = colours[int(rng.integers(len(colours)))].scaled(rng.uniform(0.82, 1.08))
    tall = rng.random() < 0.6
    glazed = wall == "glass"
    return Fashion(
        wall=wall,
        colour=colour,
        trim=Colour(222, 228, 230) if rng.random() < 0.7 else colour.scaled(0.6),
        bay_m=rng.uniform(2.3, 3.3),
        window_width=0.86 if glazed else rng.uniform(0.36, 0.5) if tall else rng.uniform(0.5, 0.68),
        window_height=0.78 if glazed else rng.uniform(0.5, 0.64) if tall else rng.uniform(0.4, 0.5),
        panes=int(rng.integers(1, 4)),
        extras="none" if glazed else pick(
            rng, {"none": 4, "shutters": 1.3, "balcony": 1.2, "arch": 1.5, "lintel": 2}
        ),
        ground=pick(rng, {"doors": 5, "shops": 4}),
        roof=Colour(*(
            (70, 74, 82), (58, 72, 128), (92, 92, 96), (64, 80, 104)
        )[int(rng.integers(4))]),
    )  # fmt: skip


class Builder:
    """Makes the facades of one scene; tiles are drawn once and shared."""

    def __init__(self, seed: int, light: Light, pixels_per_m: float) -> None:
        self._seed = seed
        self._light = light
        self._scale = pixels_per_m
        self._tile = lru_cache(maxsize=256)(self._draw_tile)
        self._wall = lru_cache(maxsize=48)(self._draw_wall)
        self.garden_wall = lru_cache(maxsize=4)(self._draw_low_wall)
        self.fashion = lru_cache(maxsize=16)(lambda which: draw_fashion(seed, which))

    def facade(
        self, rng: np.random.Generator, which: int, normal: Vector, bays: int, storeys: int
    ) -> Texture:
        """A front of that many bays and storeys.

        Args:
            rng: chooses among the tiles.
            which: number of the fashion.
            normal: where the front looks (right, up, along), for the light on it.
            bays: windows side by side.
            storeys: floors, the ground floor included.
        """
        gain = self._light.gain(normal)
        dark = 0.34 if self._light.lamps_on else 0.0
        rows = []
        for _ in range(storeys - 1):
            kinds = ["lit" if rng.random() < dark else "window" for _ in range(bays)]
            rows.append(self._row(rng, which, gain, kinds))
        rows.append(self._row(rng, which, gain, self._ground_kinds(rng, which, bays)))
        front = np.concatenate(rows, axis=0)
        self._cornice(front, self.fashion(which).trim.times(gain))
        return Texture(front)

    def blank(self, rng: np.random.Generator, which: int, size_m: tuple[float, float]) -> Texture:
        """A side wall, (height, width) in metres, with a window here and there."""
        gain = self._light.gain((0.0, 0.0, -1.0))
        storeys = max(1, round(size_m[0] / STOREY_M))
        bays = max(1, round(size_m[1] / self.fashion(which).bay_m))
        chance = 0.3 if rng.random() < 0.5 else 0.0
        rows = [
            self._row(
                rng, which, gain,
                ["window" if rng.random() < chance else "wall" for _ in range(bays)],
            )
            for _ in range(storeys)
        ]  # fmt: skip
        return Texture(np.concatenate(rows, axis=0))

    def _draw_low_wall(self, which: int) -> Texture:
        rng = generator(self._seed, "low wall", which)
        gain = self._light.gain((0.0, 0.1, -0.5))
        colour = (Colour(70, 92, 142), Colour(140, 156, 168))[which % 2].times(gain)
        height, width = round(1.1 * self._scale), round(4.5 * self._scale)
        base = textured(
            filled(height, width, colour), mottled(rng, height, width, self._scale * 0.15), 0.14
        )
        base[:: max(3, round(0.16 * self._scale))] = rounded(colour.scaled(1.15))
        base[: max(1, round(0.1 * self._scale))] = rounded(colour.scaled(1.25))
        return Texture(base)

    def _ground_kinds(self, rng: np.random.Generator, which: int, bays: int) -> list[str]:
        if self.fashion(which).ground == "shops":
            return ["shop"] * bays
        kinds = ["window"] * bays
        step = int(rng.integers(2, 4))
        for bay in range(int(rng.integers(0, step)), bays, step):
            kinds[bay] = "door"
        if "door" not in kinds:
            kinds[0] = "door"
        return kinds

    def _row(self, rng: np.random.Generator, which: int, gain: Colour, kinds: list[str]) -> Bytes:
        shop = int(rng.integers(0, 4))
        tiles = []
        for kind in kinds:
            variant = shop if kind == "shop" else int(rng.integers(0, 3))
            tiles.append(self._tile(which, gain, kind, variant))
        return np.concatenate(tiles, axis=1)

    def _cornice(self, front: Bytes, trim: Colour) -> None:
        band = max(1, round(0.22 * self._scale))
        front[:band] = rounded(trim.scaled(0.92))
        front[band : band + max(1, band // 3)] = rounded(trim.scaled(0.5))

    def _draw_wall(self, which: int, gain: Colour, variant: int) -> Bytes:
        fashion = self.fashion(which)
        rng = generator(self._seed, "wall", which, variant)
        height = max(4, round(STOREY_M * self._scale))
        width = max(4, round(fashion.bay_m * self._scale))
        base = filled(height, width, fashion.colour.times(gain))
        base = textured(base, mottled(rng, height, width, self._scale * 0.7), 0.05)
        if fashion.wall == "brick":
            base = textured(base, mottled(rng, height, width, self._scale * 0.13), 0.13)
            base[:: max(3, round(0.16 * self._scale))] = rounded(
                fashion.colour.times(gain).scaled(1.16)
            )
        elif fashion.wall == "stone":
            base = textured(base, mottled(rng, height, width, self._scale * 0.4), 0.09)
            base[:: max(4, round(0.5 * self._scale))] = rounded(
                fashion.colour.times(gain).scaled(0.8)
            )
        elif fashion.wall == "panel":
            base[:, :1] = rounded(fashion.colour.times(gain).scaled(0.7))
            base[:1] = rounded(fashion.colour.times(gain).scaled(0.7))
        else:
            base = textured(base, mottled(rng, height, width, self._scale * 0.1), 0.03)
        return base

    def _draw_tile(self, which: int, gain: Colour, kind: str, variant: int) -> Bytes:
        tile = self._wall(which, gain, variant % 2).copy()
        rng = generator(self._seed, "tile", which, kind, variant)
        painter = _TilePainter(tile, self.fashion(which), gain, self._light, rng)
        if kind == "door":
            painter.door()
        elif kind == "shop":
            painter.shop()
        elif kind != "wall":
            painter.window(lit=kind == "lit")
        return tile


class _TilePainter:
    """Paints one tile; coordinates are shares of its width and height, from the top left."""

    def __init__(
        self,
        tile: Bytes,
        fashion: Fashion,
        gain: Colour,
        light: Light,
        rng: np.random.Generator,
    ) -> None:
        self._tile = tile
        self._fashion = fashion
        self._gain = gain
        self._light = light
        self._rng = rng

    def _box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        height, width = self._tile.shape[:2]
        x0, x1 = round(left * width), max(round(left * width) + 1, round(right * width))
        y0, y1 = round(top * height), max(round(top * height) + 1, round(bottom * height))
        self._tile[max(0, y0) : y1, max(0, x0) : x1] = rounded(colour)

    def _lit(self, colour: Colour) -> Colour:
        return colour.times(self._gain)

    def _glass(self, left: float, top: float, right: float, bottom: float, *, lit: bool) -> None:
        steps = 6
        if lit:
            high = Colour(120, 190, 238).scaled(self._rng.uniform(0.8, 1.05))
            low = high.scaled(0.78)
        else:
            mirror = self._light.horizon.scaled(self._rng.uniform(0.25, 0.55))
            high, low = mirror, self._lit(Colour(52, 46, 40))
        for step in range(steps):
            y0 = top + (bottom - top) * step / steps
            y1 = top + (bottom - top) * (step + 1) / steps
            self._box(left, y0, right, y1, high.mixed(low, step / (steps - 1)))
        if self._rng.random() < 0.55:
            cloth = Colour(196, 206, 212) if not lit else Colour(150, 205, 235)
            shade = cloth if lit else self._lit(cloth.scaled(0.72))
            depth = self._rng.uniform(0.14, 0.28) * (right - left)
            self._box(left, top, left + depth, bottom, shade)
            self._box(right - depth, top, right, bottom, shade)
        elif self._rng.random() < 0.4:
            blind = top + self._rng.uniform(0.2, 0.6) * (bottom - top)
            self._box(left, top, right, blind, self._lit(Colour(176, 190, 200)))

    def window(self, *, lit: bool) -> None:
        """A window in the middle of the tile."""
        fashion = self._fashion
        left, right = 0.5 - fashion.window_width / 2, 0.5 + fashion.window_width / 2
        top = 0.52 - fashion.window_height / 2
        bottom = top + fashion.window_height
        trim = self._lit(fashion.trim)
        self._dress(left, top, right, bottom)
        self._box(left - 0.03, top - 0.03, right + 0.03, bottom + 0.02, trim)
        self._glass(left, top, right, bottom, lit=lit)
        for pane in range(1, fashion.panes):
            x = left + (right - left) * pane / fashion.panes
            self._box(x - 0.012, top, x + 0.012, bottom, trim)
        self._box(
            left, top + 0.42 * (bottom - top), right, top + 0.42 * (bottom - top) + 0.02, trim
        )
        self._box(left - 0.05, bottom, right + 0.05, bottom + 0.035, trim.scaled(0.95))
        self._box(left - 0.05, bottom + 0.035, right + 0.05, bottom + 0.055, trim.scaled(0.45))
        self._box(left, top, right, top + 0.02, trim.scaled(0.35))
        if fashion.extras == "balcony":
            self._balcony(left - 0.1, bottom, right + 0.1)

    def _dress(self, left: float, top: float, right: float, bottom: float) -> None:
        extras, trim = self._fashion.extras, self._lit(self._fashion.trim)
        if extras == "shutters":
            wood = self._lit(Colour(70, 96, 60) if self._fashion.panes % 2 else Colour(110, 84, 62))
            self._box(left - 0.17, top, left - 0.03, bottom, wood)
            self._box(right + 0.03, top, right + 0.17, bottom, wood)
        elif extras == "lintel":
            self._box(left - 0.07, top - 0.11, right + 0.07, top - 0.03, trim.scaled(0.9))
        elif extras == "arch":
            height, width = self._tile.shape[:2]
            centre = (round(width / 2), round(top * height))
            axes = (round((right - left + 0.1) / 2 * width), max(1, round(0.09 * height)))
            cv2.ellipse(self._tile, centre, axes, 0, 180, 360, rounded(trim.scaled(0.9)), -1)

    def _balcony(self, left: float, bottom: float, right: float) -> None:
        metal = self._lit(Colour(48, 46, 44))
        self._box(
            left, bottom + 0.02, right, bottom + 0.07, self._lit(self._fashion.trim.scaled(0.8))
        )
        self._box(left, bottom - 0.2, right, bottom - 0.185, metal)
        x = left
        while x < right:
            self._box(x, bottom - 0.2, x + 0.012, bottom + 0.02, metal)
            x += 0.055

    def door(self) -> None:
        """A front door with a light above it."""
        wood = _DOORS[int(self._rng.integers(len(_DOORS)))]
        trim = self._lit(self._fashion.trim)
        self._box(0.3, 0.2, 0.7, 1.0, trim)
        self._glass(0.34, 0.22, 0.66, 0.3, lit=self._light.lamps_on)
        self._box(0.34, 0.32, 0.66, 0.97, self._lit(wood))
        for left, right in ((0.38, 0.48), (0.52, 0.62)):
            self._box(left, 0.38, right, 0.58, self._lit(wood.scaled(0.75)))
            self._box(left, 0.64, right, 0.9, self._lit(wood.scaled(0.75)))
        self._box(0.26, 0.96, 0.74, 1.0, self._lit(Colour(150, 152, 152)))
        self._box(0.24, 0.14, 0.76, 0.2, trim.scaled(0.8))

    def shop(self) -> None:
        """A shop window under a name board or an awning."""
        board = _AWNINGS[int(self._rng.integers(len(_AWNINGS)))]
        lit = self._light.lamps_on
        self._box(0.0, 0.1, 1.0, 0.28, self._lit(board))
        self._box(0.0, 0.27, 1.0, 0.29, self._lit(board.scaled(0.5)))
        x = 0.12
        ink = self._lit(Colour(225, 232, 235) if sum(board) < 420 else Colour(40, 40, 44))
        while x < 0.85:
            wide = self._rng.uniform(0.03, 0.07)
            self._box(x, 0.155, x + wide, 0.225, ink)
            x += wide + 0.03
        self._box(0.0, 0.29, 1.0, 1.0, self._lit(board.mixed(Colour(120, 120, 120), 0.6)))
        self._glass(0.06, 0.33, 0.94, 0.86, lit=lit)
        for _ in range(5):
            left = self._rng.uniform(0.08, 0.8)
            goods = Colour(*self._rng.uniform(40, 220, 3))
            top = self._rng.uniform(0.55, 0.72)
            self._box(left, top, left + 0.1, 0.86, goods if lit else self._lit(goods.scaled(0.7)))
        self._box(0.49, 0.33, 0.51, 0.86, self._lit(Colour(60, 60, 62)))
        if self._rng.random() < 0.4:
            for stripe in range(8):
                tint = board if stripe % 2 else Colour(225, 230, 232)
                self._box(stripe / 8, 0.26, (stripe + 1) / 8, 0.42, self._lit(tint))


def roof_texture(rng: np.random.Generator, colour: Colour, gain: Colour, scale: float) -> Texture:
    """Rows of roof tiles, about four metres square, to be stretched over a slope."""
    side = max(8, round(4 * scale))
    base = filled(side, side, colour.times(gain))
    base = textured(base, mottled(rng, side, side, scale * 0.35), 0.12)
    step = max(3, round(0.32 * scale))
    base[::step] = (base[::step] * 0.66).astype(np.uint8)
    return Texture(base)
