"""The road: asphalt, markings, kerbs, pavements, and the shadows that lie on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.blocks import CROSSING_M, Block
from fasterseg.streets.camera import NEAR_M, Camera
from fasterseg.streets.canvas import SHIFT, Canvas, Floats, Ints, fixed
from fasterseg.streets.grain import Grain
from fasterseg.streets.items import clipped
from fasterseg.streets.kit import KERB_M, PAVEMENT, ROAD, TREE, Outline
from fasterseg.streets.light import UP, Colour
from fasterseg.streets.rng import generator
from fasterseg.streets.style import Style
from fasterseg.streets.texture import mottled, rounded

_STEPS_M: Final = np.geomspace(0.55, 420.0, 44)
_TILE_PX: Final = 256
_MARKED_M: Final = 110.0
_CLOSEST_M: Final = 0.5

Span = tuple[float, float]


class Ground:
    """Paints the ground of one scene."""

    def __init__(self, style: Style) -> None:
        self._style = style
        rng = generator(style.seed, "ground")
        gain = style.light.gain(UP)
        grey = style.asphalt
        self._asphalt = Colour(grey * 1.02, grey, grey * rng.uniform(0.95, 1.0)).times(gain)
        self._paving = Colour(*style.paving).times(gain)
        self._kerb = Colour(*style.paving).mixed(Colour(190, 194, 196), 0.6).times(gain)
        self._kerb_face = self._kerb.scaled(0.72)
        grass = Colour(62, 118, 96).mixed(Colour(80, 140, 150), rng.random() * 0.5).times(gain)
        self._verge = grass if style.grass else self._paving.scaled(0.86)
        wear = rng.uniform(0.8, 1.0)
        self._white = Colour(218, 222, 224).scaled(wear).times(gain)
        self._yellow = Colour(60, 180, 222).scaled(wear).times(gain)
        rough = mottled(rng, _TILE_PX, _TILE_PX, 2.0) + mottled(rng, _TILE_PX, _TILE_PX, 9.0)
        stained = mottled(rng, _TILE_PX, _TILE_PX, 12.0)
        self._grains = (Grain(rough, 6.0, 0.085, 16.0), Grain(stained, 47.0, 0.09, 90.0))

    def paint(
        self,
        canvas: Canvas,
        camera: Camera,
        blocks: Sequence[Block],
        shadows: Sequence[Outline],
        contacts: Sequence[Outline],
    ) -> None:
        """Paint everything flat.

        Args:
            canvas: holds the sky already.
            camera: where from.
            blocks: the stretches of street in view.
            shadows: (N, 2) outlines of the sun's shadows, d and s.
            contacts: (N, 2) outlines of the dark under things.
        """
        self._base(canvas, camera)
        self._surfaces(canvas, camera)
        self._mended(canvas, camera, blocks)
        self._markings(canvas, camera, blocks)
        self._kerbs(canvas, camera)
        self._shade(canvas, camera, shadows, contacts)

    def _base(self, canvas: Canvas, camera: Camera) -> None:
        height, width = canvas.size
        left, right = camera.horizon_row(0.0), camera.horizon_row(width - 1.0)
        corners = np.array(
            [[-9, left], [width + 8, right], [width + 8, height + 9], [-9, height + 9]]
        )
        label = TREE if self._style.grass else PAVEMENT
        canvas.convex(fixed(corners), rounded(self._verge), label)

    def _ribbon(
        self, camera: Camera, edges: tuple[float, float], heights: tuple[float, float] = (0.0, 0.0)
    ) -> Ints:
        """A strip along the whole visible road between two lateral offsets."""
        s = camera.s + _STEPS_M
        sides = [
            np.stack([np.full_like(s, d), np.full_like(s, h), s], axis=1)
            for d, h in zip(edges, heights, strict=True)
        ]
        return _project(camera, np.concatenate([sides[0], sides[1][::-1]]))

    def _surfaces(self, canvas: Canvas, camera: Camera) -> None:
        layout = self._style.layout
        raised = (KERB_M, KERB_M)
        for side in (-1, 1):
            edges = (side * layout.kerb_m(side), side * layout.front_m(side))
            canvas.regions(
                [self._ribbon(camera, edges, raised)], rounded(self._paving), PAVEMENT
            )  # fmt: skip
            joints = self._joints(camera, edges)
            canvas.regions(joints, rounded(self._paving.scaled(0.84)), PAVEMENT)
        edges = (-layout.kerb_m(-1), layout.kerb_m(1))
        canvas.regions([self._ribbon(camera, edges)], rounded(self._asphalt), ROAD)
        worn = [self._ribbon(camera, track) for track in self._tracks()]
        canvas.regions(worn, rounded(self._asphalt.scaled(0.95)), ROAD)
        for side in (-1, 1):
            kerb = side * layout.kerb_m(side)
            gutter = self._ribbon(camera, (kerb - side * 0.3, kerb))
            canvas.regions([gutter], rounded(self._asphalt.scaled(0.9)), ROAD)

    def _tracks(self) -> list[tuple[float, float]]:
        """Where wheels have darkened the lanes."""
        layout = self._style.layout
        middles = [layout.drive * (lane + 0.5) * layout.lane_m for lane in range(layout.ahead)]
        middles += [-layout.drive * (lane + 0.5) * layout.lane_m for lane in range(layout.oncoming)]
        return [
            (middle + wheel - 0.26, middle + wheel + 0.26)
            for middle in middles
            for wheel in (-0.78, 0.78)
        ]

    def _joints(self, camera: Camera, edges: tuple[float, float]) -> list[Ints]:
        pitch, reach = 0.9, 16.0
        first = math.ceil((camera.s + 1.0) / pitch)
        rows = [(k * pitch, k * pitch + 0.03) for k in range(first, first + int(reach / pitch))]
        return _slabs(camera, [(edges, row) for row in rows], KERB_M)

    def _mended(self, canvas: Canvas, camera: Camera, blocks: Iterable[Block]) -> None:
        for block in blocks:
            for outline, gain in block.patches:
                if camera.s + 1.0 < outline[:, 1].max() and outline[:, 1].min() < camera.s + 60:
                    corners = _on_ground(camera, outline)
                    if corners is not None:
                        canvas.convex(corners, rounded(self._asphalt.scaled(gain)), ROAD)

    def _kerbs(self, canvas: Canvas, camera: Camera) -> None:
        layout = self._style.layout
        for side in (-1, 1):
            kerb = side * layout.kerb_m(side)
            stone = self._ribbon(camera, (kerb, kerb + side * 0.16), (KERB_M, KERB_M))
            canvas.regions([stone], rounded(self._kerb), PAVEMENT)
            face = self._ribbon(camera, (kerb, kerb), (0.0, KERB_M))
            canvas.regions([face], rounded(self._kerb_face), PAVEMENT)

    def _markings(self, canvas: Canvas, camera: Camera, blocks: Iterable[Block]) -> None:
        layout = self._style.layout
        white: list[Ints] = []
        yellow: list[Ints] = []
        centre = yellow if layout.edge == "yellow" else white
        if layout.centre == "dashed":
            centre += self._dashes(camera, 0.0, 3.0, 8.0)
        elif layout.centre == "solid":
            centre.append(self._ribbon(camera, (-0.06, 0.06)))
        elif layout.centre == "double":
            centre.append(self._ribbon(camera, (-0.19, -0.07)))
            centre.append(self._ribbon(camera, (0.07, 0.19)))
        for lanes, sign in ((layout.ahead, layout.drive), (layout.oncoming, -layout.drive)):
            for lane in range(1, lanes):
                white += self._dashes(camera, sign * lane * layout.lane_m, 2.0, 6.0)
        for side in (-1, 1):
            self._edges(camera, side, white, yellow)
        canvas.regions(yellow, rounded(self._yellow), ROAD)
        canvas.regions(white, rounded(self._white), ROAD)
        for block in blocks:
            if block.crossing is not None:
                bars = self._crossing(camera, block.crossing.s, lights=block.crossing.lights)
                canvas.regions(bars, rounded(self._white), ROAD)

    def _edges(self, camera: Camera, side: int, white: list[Ints], yellow: list[Ints]) -> None:
        layout = self._style.layout
        lanes, kerb = layout.lanes_m(side), layout.kerb_m(side)
        if layout.edge == "white" and lanes > 0:
            white.append(self._ribbon(camera, (side * (lanes + 0.02), side * (lanes + 0.14))))
        if layout.parks(side):
            line = side * (lanes + layout.shoulder_m)
            white += self._dashes(camera, line, 0.9, 1.8)
        elif layout.edge in ("yellow", "double yellow"):
            count = 2 if layout.edge == "double yellow" else 1
            for number in range(count):
                inner = kerb - 0.32 - 0.2 * number
                yellow.append(self._ribbon(camera, (side * inner, side * (inner - 0.09))))

    def _dashes(self, camera: Camera, d: float, length: float, period: float) -> list[Ints]:
        near = camera.s + _CLOSEST_M
        first = math.floor(near / period)
        starts = [k * period for k in range(first, first + int(_MARKED_M / period))]
        sides = (d - 0.06, d + 0.06)
        return _slabs(
            camera, [(sides, (max(s, near), s + length)) for s in starts if s + length > near]
        )

    def _crossing(self, camera: Camera, s: float, *, lights: bool) -> list[Ints]:
        if not camera.s - CROSSING_M < s < camera.s + _MARKED_M:
            return []
        layout = self._style.layout
        left, right = -layout.kerb_m(-1), layout.kerb_m(1)
        spans = []
        if lights:
            for line in (s, s + CROSSING_M - 0.2):
                spans.append(((left + 0.2, right - 0.2), (line, line + 0.2)))
        else:
            count = int((right - left - 0.6) / 1.0)
            start = (left + right) / 2 - (count - 0.5) / 2
            spans += [
                ((start + k, start + k + 0.5), (s, s + CROSSING_M)) for k in range(count)
            ]  # fmt: skip
        for way, place in ((layout.drive, s - 1.6), (-layout.drive, s + CROSSING_M + 1.3)):
            lanes = layout.lanes_m(way)
            if lanes > 0:
                d = sorted((way * 0.15, way * (lanes - 0.05)))
                spans.append(((d[0], d[1]), (place, place + 0.3)))
        near = camera.s + _CLOSEST_M
        return _slabs(camera, [(d, (max(s0, near), s1)) for d, (s0, s1) in spans if s1 > near])

    def _shade(
        self,
        canvas: Canvas,
        camera: Camera,
        shadows: Sequence[Outline],
        contacts: Sequence[Outline],
    ) -> None:
        """Grain, shadows and haze over all ground painted so far."""
        height, width = canvas.size
        horizon = min(camera.horizon_row(0.0), camera.horizon_row(width - 1.0))
        top = max(0, math.floor(horizon))
        if top >= height:
            return
        rows = np.arange(top, height, dtype=np.float64)
        below = np.maximum(rows - camera.horizon_row((width - 1) / 2), 0.25)
        depth = camera.height_m * camera.focal_px / below
        fade = self._style.light.fade(depth)
        gain = self._grain(camera, top, (width, height - top), depth)
        gain *= (1 - fade)[:, None].astype(np.float32)
        dark = self._stencil(canvas, camera, contacts, top, 2)
        if dark is not None:
            gain *= 1 - np.float32(0.62) * dark
        sun = self._stencil(canvas, camera, shadows, top, 1)
        layers = [gain] * 3
        if sun is not None:
            layers = [gain * (1 - np.float32(1 - c) * sun) for c in self._style.light.shade()]
        view = canvas.image[top:]
        cv2.multiply(view, cv2.merge(layers), dst=view, dtype=cv2.CV_8U)
        air = np.asarray(self._style.light.haze) * fade[:, None]
        veil = np.rint(air).astype(np.uint8)[:, None, :]
        cv2.add(view, np.broadcast_to(veil, view.shape).copy(), dst=view)

    def _stencil(
        self,
        canvas: Canvas,
        camera: Camera,
        outlines: Sequence[Outline],
        top: int,
        soften: int,
    ) -> NDArray[np.float32] | None:
        """0 to 1 where any outline covers the ground, from row `top` down; None without any."""
        if not outlines:
            return None
        mask = np.zeros(canvas.size, np.uint8)
        places = np.concatenate(outlines)
        viewed = camera.view(np.insert(places, 1, self._height_m(places[:, 0]), axis=1))
        corners = fixed(camera.pixels(viewed))
        depths = viewed[:, 2]
        end = 0
        for outline in outlines:
            begin, end = end, end + len(outline)
            if depths[begin:end].min() > NEAR_M:
                cv2.fillConvexPoly(mask, corners[begin:end], 255, cv2.LINE_8, SHIFT)
            elif depths[begin:end].max() > NEAR_M:
                cut = fixed(camera.pixels(clipped(viewed[begin:end])))
                cv2.fillConvexPoly(mask, cut, 255, cv2.LINE_8, SHIFT)
        side = 2 * round(soften * canvas.size.height / 300) + 1
        soft = cv2.blur(mask[top:], (side, side))
        return np.multiply(soft, np.float32(1 / 255), dtype=np.float32)

    def _height_m(self, d: Floats) -> Floats:
        """Height of the ground at lateral offsets: the road, or the pavement beyond the kerb."""
        layout = self._style.layout
        on_road = (d > -layout.kerb_m(-1)) & (d < layout.kerb_m(1))
        return np.where(on_road, 0.0, KERB_M)

    def _grain(
        self, camera: Camera, top: int, size: tuple[int, int], depth: Floats
    ) -> NDArray[np.float32]:
        """Gain of each ground pixel from row `top` down: the roughness of the surface."""
        gain = np.ones(size[::-1], np.float32)
        for grain in self._grains:
            noise = cv2.warpPerspective(
                grain.carpet, grain.homography(camera, top), size,
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            )  # fmt: skip
            weight = grain.strength * np.clip(1 - depth / grain.reach_m, 0, 1)
            gain += noise * weight[:, None].astype(np.float32)
        return gain


def _slabs(camera: Camera, spans: Sequence[tuple[Span, Span]], height: float = 0.0) -> list[Ints]:
    """Outlines of level rectangles, each given by its ends across (d) and along (s) the road."""
    if not spans:
        return []
    d, s = np.array(spans).transpose(1, 0, 2)
    corners = np.empty((len(spans), 4, 3))
    corners[..., 0] = d[:, [0, 0, 1, 1]]
    corners[..., 1] = height
    corners[..., 2] = s[:, [0, 1, 1, 0]]
    return list(_project(camera, corners.reshape(-1, 3)).reshape(-1, 4, 2))


def _project(camera: Camera, points: Floats) -> Ints:
    return fixed(camera.pixels(camera.view(points)))


def _on_ground(camera: Camera, outline: Outline) -> Ints | None:
    """Pixels of a convex outline on the road, or None if it lies behind the camera."""
    points = np.insert(outline, 1, 0.0, axis=1)
    viewed = camera.view(points)
    if viewed[:, 2].max() <= NEAR_M:
        return None
    if viewed[:, 2].min() <= NEAR_M:
        viewed = clipped(viewed)
    return fixed(camera.pixels(viewed))
