"""Flat-coloured shapes: faces and tubes in painter's order, lit when they are made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.light import Colour, Light, Vector

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mesh:
    """Shapes that are drawn one after another.

    Attributes:
        vertices: (V, 3) corners of the faces, face after face.
        counts: (F,) corners of each face.
        culled: (F,) true where a face shows its front only.
        tubes: (T, 8) both ends (3 + 3) and their radii (1 + 1), in metres.
        is_tube: (P,) for each shape in painter's order; P = F + T.
        colours: (P, 3) BGR, lit, without haze.
        labels: (P,) class ids.
    """

    vertices: Floats
    counts: NDArray[np.int64]
    culled: NDArray[np.bool_]
    tubes: Floats
    is_tube: NDArray[np.bool_]
    colours: Floats
    labels: NDArray[np.uint8]

    def moved(self, offset: Vector) -> Mesh:
        """The same shapes elsewhere."""
        step = np.asarray(offset)
        tubes = self.tubes
        if len(tubes):
            tubes = tubes.copy()
            tubes[:, 0:3] += step
            tubes[:, 3:6] += step
        return Mesh(
            self.vertices + step, self.counts, self.culled, tubes,
            self.is_tube, self.colours, self.labels,
        )  # fmt: skip

    @cached_property
    def length(self) -> int:
        """Number of shapes."""
        return len(self.labels)

    @staticmethod
    def joined(meshes: Sequence[Mesh]) -> Mesh:
        """All shapes of all meshes, in that order."""
        return Mesh(
            np.concatenate([m.vertices for m in meshes]),
            np.concatenate([m.counts for m in meshes]),
            np.concatenate([m.culled for m in meshes]),
            np.concatenate([m.tubes for m in meshes]),
            np.concatenate([m.is_tube for m in meshes]),
            np.concatenate([m.colours for m in meshes]),
            np.concatenate([m.labels for m in meshes]),
        )


TOWARDS: Final[Vector] = (0.0, 0.0, -1.0)
"""Normal of a face that looks back at the camera."""


class Modeller:
    """Collects shapes under one light; `facing` -1 turns the model round to meet the camera.

    Model coordinates are right, up, forward of the thing itself, in metres.
    """

    def __init__(self, light: Light, facing: int = 1) -> None:
        self._light = light
        self._turn = facing
        self._limb_gain = light.gain((0.0, 0.3, -0.7))
        self._vertices: list[Vector] = []
        self._counts: list[int] = []
        self._culled: list[bool] = []
        self._tubes: list[tuple[float, ...]] = []
        self._is_tube: list[bool] = []
        self._colours: list[Colour] = []
        self._labels: list[int] = []

    def face(
        self,
        corners: Sequence[Vector],
        colour: Colour,
        label: int,
        *,
        culled: bool = False,
        shines: bool = False,
    ) -> None:
        """Add a convex face; corners run clockwise seen from its front.

        Args:
            corners: 3 or more points.
            colour: its colour in white light.
            label: class id.
            culled: not drawn when seen from behind.
            shines: takes no light: `colour` is what one sees.
        """
        turned = [(self._turn * x, y, self._turn * z) for x, y, z in corners]
        self._vertices += turned
        self._counts.append(len(turned))
        self._culled.append(culled)
        self._close(
            colour if shines else colour.times(self._light.gain(_normal(turned))), label, False
        )

    def tube(
        self,
        ends: tuple[Vector, Vector],
        radii: tuple[float, float],
        colour: Colour,
        label: int,
        *,
        shines: bool = False,
    ) -> None:
        """Add a limb with round ends; equal ends make a ball. Radii in metres."""
        (x0, y0, z0), (x1, y1, z1) = ends
        t = self._turn
        self._tubes.append((t * x0, y0, t * z0, t * x1, y1, t * z1, *radii))
        self._close(colour if shines else colour.times(self._limb_gain), label, True)

    def box(self, low: Vector, high: Vector, colour: Colour, label: int) -> None:
        """Add the five visible faces of an upright box."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        for corners in (
            ((x0, y0, z1), (x0, y1, z1), (x0, y1, z0), (x0, y0, z0)),
            ((x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)),
            ((x1, y0, z1), (x1, y1, z1), (x0, y1, z1), (x0, y0, z1)),
            ((x0, y0, z0), (x0, y1, z0), (x1, y1, z0), (x1, y0, z0)),
            ((x0, y1, z0), (x0, y1, z1), (x1, y1, z1), (x1, y1, z0)),
        ):
            self.face(corners, colour, label, culled=True)

    def build(self) -> Mesh:
        """The mesh of everything added so far."""
        return Mesh(
            np.array(self._vertices, np.float64).reshape(-1, 3),
            np.array(self._counts, np.int64),
            np.array(self._culled, np.bool_),
            np.array(self._tubes, np.float64).reshape(-1, 8),
            np.array(self._is_tube, np.bool_),
            np.array(self._colours, np.float64).reshape(-1, 3),
            np.array(self._labels, np.uint8),
        )

    def _close(self, colour: Colour, label: int, is_tube: bool) -> None:
        self._is_tube.append(is_tube)
        self._colours.append(colour)
        self._labels.append(label)


def _normal(corners: Sequence[Vector]) -> Vector:
    """Unit normal on the side from which the corners run clockwise (right-up-forward axes)."""
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = corners[:3]
    ux, uy, uz = bx - ax, by - ay, bz - az
    vx, vy, vz = cx - bx, cy - by, cz - bz
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    size = math.sqrt(nx * nx + ny * ny + nz * nz) or 1.0
    return nx / size, ny / size, nz / size


def disc(centre: Vector, radius: float, corners: int, across: str) -> list[Vector]:
    """Corners of a regular polygon, clockwise seen from the front.

    Args:
        centre: its middle.
        radius: metres.
        corners: how many.
        across: "back" faces -z (the camera), "left" faces -x, "right" faces +x.
    """
    x, y, z = centre
    out: list[Vector] = []
    for step in range(corners):
        angle = math.tau * (step + 0.5) / corners
        along, up = radius * math.sin(angle), radius * math.cos(angle)
        if across == "back":
            out.append((x + along, y + up, z))
        else:
            out.append((x, y + up, z + (along if across == "right" else -along)))
    return out
