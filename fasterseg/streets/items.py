"""Things that stand or move in a scene, and how they get onto the canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.camera import NEAR_M, Camera
from fasterseg.streets.canvas import Canvas, fixed
from fasterseg.streets.light import Colour, Light, Vector
from fasterseg.streets.mesh import Floats, Mesh
from fasterseg.streets.texture import Texture

_SMALLEST_PX = 0.9
_NOWHERE = np.zeros((1, 3))
_WHOLE = np.array([0.0, 1.0])
_CAP_ANGLES = np.radians([-90.0, -54.0, -18.0, 18.0, 54.0, 90.0])


@dataclass(frozen=True, slots=True)
class Shape:
    """A mesh in road coordinates; `depth_m` is its place along the road for painter's order."""

    depth_m: float
    mesh: Mesh


@dataclass(frozen=True, slots=True)
class Panel:
    """A texture on a flat quadrilateral.

    Attributes:
        depth_m: place along the road for painter's order.
        near: (2, 3) top and bottom corner (d, h, s) of the near end, the texture's left.
        far: (2, 3) top and bottom corner of the far end.
        texture: what is on it.
        label: class id.
    """

    depth_m: float
    near: Floats
    far: Floats
    texture: Texture
    label: int


@dataclass(frozen=True, slots=True)
class Sprite:
    """An upright texture that always faces the camera.

    Attributes:
        depth_m: place along the road for painter's order.
        place: (1, 3) middle of its lower edge: d, h, s.
        width_m, height_m: its size.
        texture: what is on it.
        label: class id.
    """

    depth_m: float
    place: Floats
    width_m: float
    height_m: float
    texture: Texture
    label: int


@dataclass(frozen=True, slots=True)
class Glow:
    """A halo of light around a lamp at `place`, (1, 3); takes no part in the labels."""

    depth_m: float
    place: Floats
    radius_m: float
    colour: Colour


def panel(
    depth_m: float, near: tuple[Vector, Vector], far: tuple[Vector, Vector],
    texture: Texture, label: int,
) -> Panel:  # fmt: skip
    """A panel between the (top, bottom) corners of its near and far end."""
    return Panel(depth_m, np.array(near), np.array(far), texture, label)


Item = Shape | Panel | Sprite | Glow


def paint(canvas: Canvas, camera: Camera, light: Light, items: Sequence[Item]) -> None:
    """Paint things far to near."""
    ordered = sorted(items, key=lambda item: -item.depth_m)
    if not ordered:
        return
    hazes = light.fade(np.array([item.depth_m for item in ordered]) - camera.s).tolist()
    shapes = [item for item in ordered if isinstance(item, Shape)]
    drawing = _Drawing(camera, light, shapes) if shapes else None
    spots = _Spots(camera, ordered)
    for item, haze in zip(ordered, hazes, strict=True):
        if isinstance(item, Shape):
            assert drawing is not None
            drawing.next(canvas)
            continue
        viewed, pixels = spots.next()
        if isinstance(item, Panel):
            _panel(canvas, item, spots.cuts.get(id(item)), (viewed, pixels), haze)
        elif viewed[0, 2] < 1.2:
            continue
        elif isinstance(item, Sprite):
            _sprite(canvas, item, pixels[0], camera.focal_px / viewed[0, 2], haze)
        else:
            radius = max(item.radius_m * camera.focal_px / viewed[0, 2], 1.5)
            canvas.shine(pixels[0], radius, item.colour.scaled(1 - haze))


class _Spots:
    """Places of all panels, sprites and halos of a frame, projected in one go."""

    def __init__(self, camera: Camera, items: Sequence[Item]) -> None:
        self.cuts: dict[int, Floats] = {}
        places = []
        for item in items:
            if isinstance(item, Panel):
                cuts = _cuts(camera, item)
                if cuts is None:
                    places.append(_NOWHERE)
                    continue
                self.cuts[id(item)] = cuts
                share = cuts[:, None, None]
                places.append(((1 - share) * item.near + share * item.far).reshape(-1, 3))
            elif not isinstance(item, Shape):
                places.append(item.place)
        points = np.concatenate(places) if places else _NOWHERE
        self._viewed = camera.view(points)
        self._pixels = camera.pixels(self._viewed)
        self._ends = iter(np.cumsum([len(place) for place in places]).tolist())
        self._begin = 0

    def next(self) -> tuple[Floats, Floats]:
        """Camera coordinates and pixels of the next item's points."""
        here = slice(self._begin, next(self._ends))
        self._begin = here.stop
        return self._viewed[here], self._pixels[here]


def _panel(
    canvas: Canvas, panel: Panel, cuts: Floats | None, spots: tuple[Floats, Floats], haze: float
) -> None:
    if cuts is None:
        return
    ahead = (spots[0][:, 2].reshape(-1, 2).min(axis=1) > NEAR_M).tolist()
    pixels = spots[1].reshape(-1, 2, 2)
    marks = cuts.tolist()
    for i in range(len(marks) - 1, 0, -1):
        if ahead[i] and ahead[i - 1]:
            quad = np.concatenate([pixels[i - 1 : i + 1, 0], pixels[i - 1 : i + 1, 1][::-1]])
            canvas.surface(panel.texture, quad, (marks[i - 1], marks[i]), haze, panel.label)


def _cuts(camera: Camera, panel: Panel) -> Floats | None:
    """Where to cut a panel, as shares of its length, so that each piece has one level of detail."""
    start, end = float(panel.near[0, 2]) - camera.s, float(panel.far[0, 2]) - camera.s
    if end - start < 0.1:
        return _WHOLE if start > NEAR_M else None
    aside = min(abs(float(panel.near[0, 0]) - camera.d), abs(float(panel.near[1, 0]) - camera.d))
    first = max(start, 0.4 * aside, NEAR_M + 0.3)
    if first >= end:
        return None
    count = max(1, math.ceil(math.log(end / first) / math.log(1.5)))
    places = first * (end / first) ** (np.arange(count + 1) / count)
    return np.asarray((places - start) / (end - start))


def _sprite(canvas: Canvas, sprite: Sprite, foot: Floats, scale: float, haze: float) -> None:
    half, tall = sprite.width_m * scale / 2, sprite.height_m * scale
    box = np.array([[foot[0] - half, foot[1] - tall], [foot[0] + half, foot[1]]])
    canvas.sprite(sprite.texture, box, haze, sprite.label)


class _Drawing:
    """All meshes of a frame, projected in one go, handed out item by item."""

    def __init__(self, camera: Camera, light: Light, shapes: Sequence[Shape]) -> None:
        mesh = Mesh.joined([shape.mesh for shape in shapes])
        lengths = [shape.mesh.length for shape in shapes]
        self._ends = iter(np.cumsum(lengths).tolist())
        self._begin = 0
        depths = np.repeat([shape.depth_m - camera.s for shape in shapes], lengths)
        haze = light.fade(depths)[:, None]
        colours = mesh.colours * (1 - haze) + np.asarray(light.haze) * haze
        self._colours = np.clip(colours, 0, 255).tolist()
        self._labels = mesh.labels.tolist()
        self._outlines: list[NDArray[np.int32] | None] = [None] * mesh.length
        self._faces(camera, mesh)
        self._tubes(camera, mesh)

    def next(self, canvas: Canvas) -> None:
        """Paint the next item's shapes."""
        end = next(self._ends)
        for i in range(self._begin, end):
            outline = self._outlines[i]
            if outline is not None:
                canvas.convex(outline, self._colours[i], self._labels[i])
        self._begin = end

    def _faces(self, camera: Camera, mesh: Mesh) -> None:
        if not len(mesh.counts):
            return
        viewed = camera.view(mesh.vertices)
        starts = np.concatenate([[0], np.cumsum(mesh.counts)[:-1]])
        nearest = np.minimum.reduceat(viewed[:, 2], starts)
        farthest = np.maximum.reduceat(viewed[:, 2], starts)
        pixels = camera.pixels(viewed)
        wanted = _in_picture(pixels, starts, camera.centre) & (nearest > NEAR_M)
        wanted &= ~mesh.culled | (_area(pixels, starts, mesh.counts) > 0)
        corners = fixed(pixels)
        where = np.flatnonzero(~mesh.is_tube)
        for face in np.flatnonzero(wanted):
            begin = starts[face]
            self._outlines[where[face]] = corners[begin : begin + mesh.counts[face]]
        for face in np.flatnonzero((nearest <= NEAR_M) & (farthest > NEAR_M)):
            begin = starts[face]
            cut = clipped(viewed[begin : begin + mesh.counts[face]])
            outline = camera.pixels(cut)
            if not mesh.culled[face] or _turns_right(outline):
                self._outlines[where[face]] = fixed(outline)

    def _tubes(self, camera: Camera, mesh: Mesh) -> None:
        if not len(mesh.tubes):
            return
        first, second = camera.view(mesh.tubes[:, 0:3]), camera.view(mesh.tubes[:, 3:6])
        ahead = np.maximum(first[:, 2], second[:, 2]) > NEAR_M
        first, second = _shortened(first, second), _shortened(second, first)
        a, b = camera.pixels(first), camera.pixels(second)
        ra = mesh.tubes[:, 6] * camera.focal_px / np.maximum(first[:, 2], NEAR_M)
        rb = mesh.tubes[:, 7] * camera.focal_px / np.maximum(second[:, 2], NEAR_M)
        outlines = _capsules(a, b, ra, rb)
        flat = outlines.reshape(-1, 2)
        starts = np.arange(0, len(flat), outlines.shape[1])
        corners = fixed(outlines)
        where = np.flatnonzero(mesh.is_tube)
        for tube in np.flatnonzero(ahead & _in_picture(flat, starts, camera.centre)):
            self._outlines[where[tube]] = corners[tube]


def _capsules(a: Floats, b: Floats, ra: Floats, rb: Floats) -> Floats:
    """(T, 12, 2) outlines of limbs between pixel positions `a` and `b` (T, 2)."""
    along = b - a
    length = np.hypot(along[:, 0], along[:, 1])
    still = length < 1e-6
    along[still] = (0.0, 1.0)
    along /= np.where(still, 1.0, length)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    cos, sin = np.cos(_CAP_ANGLES)[:, None], np.sin(_CAP_ANGLES)[:, None]
    tip = cos * along[:, None, :] + sin * across[:, None, :]
    end = b[:, None, :] + rb[:, None, None] * tip
    start = a[:, None, :] - ra[:, None, None] * tip
    return np.concatenate([end, start], axis=1)


def _in_picture(
    pixels: Floats, starts: NDArray[np.int64], centre: tuple[float, float]
) -> NDArray[np.bool_]:
    """Which outlines may show: neither outside the picture nor too small to see."""
    low = np.minimum.reduceat(pixels, starts)
    high = np.maximum.reduceat(pixels, starts)
    limit = 2 * np.asarray(centre)
    inside = ((high > -1) & (low < limit + 1)).all(axis=1)
    return np.asarray(inside & ((high - low).max(axis=1) > _SMALLEST_PX))


def _area(
    pixels: Floats, starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Signed area of each outline; positive where it runs clockwise on the picture."""
    following = np.arange(1, len(pixels) + 1)
    following[starts + counts - 1] = starts
    other = pixels[following]
    return np.asarray(
        np.add.reduceat(pixels[:, 0] * other[:, 1] - other[:, 0] * pixels[:, 1], starts)
    )


def _turns_right(outline: Floats) -> bool:
    return bool(_area(outline, np.array([0]), np.array([len(outline)]))[0] > 0)


def clipped(corners: Floats) -> Floats:
    """The part of a polygon (N, 3) beyond the near plane."""
    out = []
    for here, there in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if here[2] > NEAR_M:
            out.append(here)
        if (here[2] > NEAR_M) != (there[2] > NEAR_M):
            share = (NEAR_M - here[2]) / (there[2] - here[2])
            out.append(here + share * (there - here))
    return np.array(out)


def _shortened(ends: Floats, others: Floats) -> Floats:
    """Tube ends behind the near plane, pulled along the tube onto it."""
    gap = others[:, 2] - ends[:, 2]
    share = np.clip((NEAR_M - ends[:, 2]) / np.where(gap > 1e-9, gap, 1.0), 0.0, 1.0)
    return np.asarray(ends + np.where(gap > 1e-9, share, 0.0)[:, None] * (others - ends))
