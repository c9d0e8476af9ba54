"""Leaves: crowns of trees, hedges, and the fences that stand among them."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.light import Colour, Light
from fasterseg.streets.rng import generator
from fasterseg.streets.texture import Bytes, Texture, filled, mottled, rounded, textured

CROWNS = 10
FENCES = ("boards", "pickets", "railing", "mesh")

_GREENS = (
    Colour(52, 112, 84), Colour(44, 92, 66), Colour(60, 124, 108), Colour(48, 104, 60),
    Colour(66, 110, 92),
)  # fmt: skip
_AUTUMN = (Colour(38, 118, 176), Colour(34, 84, 158), Colour(52, 150, 190), Colour(44, 96, 120))


class Foliage:
    """Textures of everything that grows in one scene, each drawn once."""

    def __init__(self, seed: int, light: Light, autumn: float, detail: float) -> None:
        self._seed = seed
        self._light = light
        self._autumn = autumn
        self._side = round(150 * detail)
        self._scale = 30 * detail
        self.crown = lru_cache(maxsize=CROWNS)(self._draw_crown)
        self.hedge = lru_cache(maxsize=4)(self._draw_hedge)
        self.fence = lru_cache(maxsize=8)(self._draw_fence)

    def leaf_colour(self, which: int) -> Colour:
        """Colour of the leaves of species `which`, in white light."""
        rng = generator(self._seed, "leaf", which)
        green = _GREENS[int(rng.integers(len(_GREENS)))]
        turned = _AUTUMN[int(rng.integers(len(_AUTUMN)))]
        share = self._autumn * rng.uniform(0.4, 1.0)
        return green.mixed(turned, share).scaled(rng.uniform(0.85, 1.15))

    def _draw_crown(self, which: int) -> Texture:
        rng = generator(self._seed, "crown", which)
        side = self._side
        leaf = self.leaf_colour(which)
        image = filled(side, side, leaf.times(self._light.ambient).scaled(0.6))
        mask = np.zeros((side, side), np.uint8)
        clumps = self._clumps(rng, pointed=which % 5 == 4)
        order = np.argsort(clumps[:, 1] * -0.7 + rng.uniform(-0.15, 0.15, len(clumps)))
        for x, y, radius in clumps[order]:
            colour = leaf.times(self._leaf_light(x, y, rng))
            self._clump(image, mask, rng, (x * side, y * side, radius * side), colour)
        image = textured(image, mottled(rng, side, side, 2.2), 0.2)
        return Texture(*_frayed(rng, image, mask))

    def _clumps(self, rng: np.random.Generator, *, pointed: bool) -> NDArray[np.float64]:
        """(N, 3) column, row and radius of clumps of leaves, as shares of the crown's side."""
        count = 70
        angle = rng.uniform(0, 2 * np.pi, count)
        reach = np.sqrt(rng.uniform(0, 1, count))
        y = 0.5 + 0.37 * reach * np.sin(angle)
        x = 0.5 + 0.37 * reach * np.cos(angle)
        if pointed:
            x = 0.5 + (x - 0.5) * np.clip(0.15 + 1.1 * y, 0.1, 1.0)
        else:
            x += 0.05 * np.sin(7 * y + rng.uniform(0, 6))
        radius = rng.uniform(0.055, 0.12, count) * (0.7 if pointed else 1.0)
        return np.stack([x, y, radius], axis=1)

    def _leaf_light(self, x: float, y: float, rng: np.random.Generator) -> Colour:
        """Gain of a clump: its own shade below, the sun on the side that it reaches."""
        light = self._light
        height = np.clip(1.1 - y, 0.0, 1.0)
        lateral = (x - 0.5) * 2 * light.sun[0]
        sunlit = float(np.clip(0.1 + 0.65 * height + 0.5 * lateral - 0.3 * light.sun[2], 0, 1))
        gloom = 0.42 + 0.58 * float(height) + rng.uniform(-0.1, 0.1)
        return Colour(
            light.ambient.b * gloom + light.direct.b * sunlit * 0.8,
            light.ambient.g * gloom + light.direct.g * sunlit * 0.8,
            light.ambient.r * gloom + light.direct.r * sunlit * 0.8,
        )

    def _clump(
        self,
        image: Bytes,
        mask: Bytes,
        rng: np.random.Generator,
        circle: tuple[float, float, float],
        colour: Colour,
    ) -> None:
        x, y, radius = circle
        for part, bright in ((1.0, 0.86), (0.72, 1.0), (0.4, 1.14)):
            jitter = rng.uniform(-0.12, 0.12, 2) * radius
            lift = (1 - part) * 0.5 * radius
            centre = (round(x + jitter[0]), round(y + jitter[1] - lift))
            reach = max(1, round(radius * part))
            cv2.circle(image, centre, reach, rounded(colour.scaled(bright)), -1)
            if part == 1.0:
                cv2.circle(mask, centre, reach, 255, -1)

    def _draw_hedge(self, which: int) -> Texture:
        rng = generator(self._seed, "hedge", which)
        height, width = round(1.4 * self._scale), round(5 * self._scale)
        leaf = self.leaf_colour(20 + which)
        gain = self._light.gain((0.0, 0.2, -0.6))
        image = filled(height, width, leaf.times(gain))
        slope = np.linspace(1.25, 0.6, height, dtype=np.float32)[:, None, None]
        image = np.clip(image * slope, 0, 255).astype(np.uint8)
        for grain, strength in ((3.0, 0.28), (9.0, 0.2)):
            image = textured(image, mottled(rng, height, width, grain), strength)
        return Texture(image)

    def _draw_fence(self, kind: str, which: int) -> Texture:
        rng = generator(self._seed, "fence", kind, which)
        height, width = round(1.6 * self._scale), round(4 * self._scale)
        gain = self._light.gain((0.0, 0.1, -0.5))
        wood = (
            Colour(86, 118, 150),
            Colour(70, 92, 112),
            Colour(205, 215, 220),
            Colour(96, 104, 96),
        )
        metal = (Colour(52, 50, 48), Colour(62, 84, 52), Colour(150, 152, 150))
        palette = wood if kind in ("boards", "pickets") else metal
        colour = palette[int(rng.integers(len(palette)))].times(gain)
        if kind == "boards":
            return Texture(_boards(rng, filled(height, width, colour), self._scale))
        mask = np.zeros((height, width), np.uint8)
        step, bar = {"pickets": (0.2, 0.12), "railing": (0.17, 0.055), "mesh": (0.14, 0.05)}[kind]
        pitch, thick = max(3, round(step * self._scale)), max(1, round(bar * self._scale))
        for offset in range(thick):
            mask[:, offset::pitch] = 255
        if kind == "mesh":
            for offset in range(thick):
                mask[offset::pitch] = 255
        rail = max(1, round(0.09 * self._scale))
        for top in (round(0.06 * height), round(0.84 * height)):
            mask[top : top + rail] = 255
        image = textured(
            filled(height, width, colour), mottled(rng, height, width, 3.0), 0.1
        )  # fmt: skip
        return Texture(image, mask)


def _boards(rng: np.random.Generator, image: Bytes, scale: float) -> Bytes:
    pitch = max(3, round(0.16 * scale))
    for left in range(0, image.shape[1], pitch):
        board = image[:, left : left + pitch]
        board[:] = np.clip(board * rng.uniform(0.84, 1.1), 0, 255)
        board[:, :1] = (board[:, :1] * 0.5).astype(np.uint8)
    for top in (0.15, 0.85):
        row = round(top * image.shape[0])
        image[row : row + max(1, round(0.05 * scale))] = (
            image[row : row + max(1, round(0.05 * scale))] * 0.6
        ).astype(np.uint8)
    return image


def _frayed(rng: np.random.Generator, image: Bytes, mask: Bytes) -> tuple[Bytes, Bytes]:
    """The same picture with leafy edges: every pixel is fetched from a little way off."""
    side = image.shape[0]
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    for grain, reach in ((2.0, 1.6), (7.0, 3.0)):
        columns += mottled(rng, side, side, grain) * np.float32(reach * side / 150)
        rows += mottled(rng, side, side, grain) * np.float32(reach * side / 150)
    torn = cv2.remap(mask, columns, rows, cv2.INTER_LINEAR)
    return np.asarray(cv2.remap(image, columns, rows, cv2.INTER_LINEAR), np.uint8), np.asarray(
        torn, np.uint8
    )
