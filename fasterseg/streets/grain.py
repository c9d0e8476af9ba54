"""Roughness of asphalt and paving, laid out in perspective."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.camera import Camera
from fasterseg.streets.canvas import Floats


class Grain:
    """Roughness of the ground: a square tile of noise, laid out as far as it can be seen.

    It is laid out beforehand because OpenCV wraps a texture round 25 times as slowly as it
    reads one.

    Args:
        tile: (N, N) noise around 0 that joins at its edges.
        tile_m: side of the tile on the ground, metres.
        strength: change of brightness at noise 1, close to the camera.
        reach_m: distance at which nothing is left of it.
    """

    def __init__(
        self, tile: NDArray[np.float32], tile_m: float, strength: float, reach_m: float
    ) -> None:
        self.strength = strength
        self.reach_m = reach_m
        self._tile_m = tile_m
        self._per_m = len(tile) / tile_m
        self._aside_m = 1.15 * reach_m
        rows = math.ceil(reach_m / tile_m) + 1
        columns = math.ceil(2 * self._aside_m / tile_m) + 1
        self.carpet = np.tile(tile, (rows, columns))

    def homography(self, camera: Camera, top: int) -> Floats:
        """From a pixel, rows counted from `top`, to the carpet on the level ground."""
        f, (cx, cy) = camera.focal_px, camera.centre
        ray = np.array([[1 / f, 0, -cx / f], [0, -1 / f, (cy - top) / f], [0, 0, 1.0]])
        world = camera.rotation.T @ ray
        drop = -world[1]
        right = camera.height_m * world[0] + (camera.origin[0] % self._tile_m) * drop
        ahead = camera.height_m * world[2] + (camera.s % self._tile_m) * drop
        return np.stack([self._per_m * (right + self._aside_m * drop), self._per_m * ahead, drop])
