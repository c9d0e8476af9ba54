"""Course of the road, ride of the camera, and the pinhole that maps road to picture.

Road coordinates are metres: `d` to the right of the road's middle line, `h` above its surface,
`s` along it. The road's course is a closed formula of `s`, so any place can be had directly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.rng import generator
from fasterseg.streets.style import Style
from fasterseg.types import Size

NEAR_M: Final = 0.45
"""Nothing closer than this to the camera's plane is drawn."""

START_M: Final = 500.0
"""Where along the road a drive begins."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Course:
    """Lateral and vertical course of the road: sums of sine waves along `s`."""

    bends: tuple[tuple[float, float, float], ...]
    hills: tuple[tuple[float, float, float], ...]

    def offset_m(self, s: Array) -> Array:
        """Lateral position of the middle line, metres, same shape as `s`."""
        return _waves(self.bends, s)

    def height_m(self, s: Array) -> Array:
        """Height of the road's surface, metres, same shape as `s`."""
        return _waves(self.hills, s)

    def heading(self, s: float) -> float:
        """Direction of the road, radians to the right."""
        return math.atan(_slope(self.bends, s))

    def grade(self, s: float) -> float:
        """Rise of the road, radians."""
        return math.atan(_slope(self.hills, s))


def _waves(waves: tuple[tuple[float, float, float], ...], s: Array) -> Array:
    terms = [amplitude * np.sin(frequency * s + phase) for amplitude, frequency, phase in waves]
    return np.asarray(sum(terms[1:], terms[0]))


def _slope(waves: tuple[tuple[float, float, float], ...], s: float) -> float:
    return sum(a * f * math.cos(f * s + phase) for a, f, phase in waves)


@dataclass(frozen=True)
class Camera:
    """A pinhole somewhere on the road.

    Attributes:
        s, d, height_m: place on the road, and height above it.
        yaw, pitch, roll: radians; positive is right, up, clockwise.
        focal_px: focal length.
        centre: column and row of the optical axis.
        course: the road.
    """

    s: float
    d: float
    height_m: float
    yaw: float
    pitch: float
    roll: float
    focal_px: float
    centre: tuple[float, float]
    course: Course

    @cached_property
    def rotation(self) -> Array:
        """(3, 3) from world axes (right, up, along) to camera axes (right, up, forward)."""
        cy, sy = math.cos(self.yaw), math.sin(self.yaw)
        cp, sp = math.cos(self.pitch), math.sin(self.pitch)
        cr, sr = math.cos(self.roll), math.sin(self.roll)
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        bank = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
        return np.asarray(bank @ tilt @ turn)

    @cached_property
    def origin(self) -> Array:
        """(3,) of the camera: right and up of the level world, and along the road."""
        here = np.array([self.s])
        return np.array(
            [
                self.d + self.course.offset_m(here)[0],
                self.height_m + self.course.height_m(here)[0],
                self.s,
            ]
        )

    def view(self, points: Array) -> Array:
        """Camera coordinates of road points.

        Args:
            points: (N, 3) of d, h, s.

        Returns:
            (N, 3): right, up, forward, in metres.
        """
        s = points[:, 2]
        world = points - self.origin
        world[:, 0] += self.course.offset_m(s)
        world[:, 1] += self.course.height_m(s)
        return np.asarray(world @ self.rotation.T)

    def pixels(self, viewed: Array) -> Array:
        """(N, 2) columns and rows of (N, 3) camera coordinates at least `NEAR_M` ahead."""
        scale = np.array([self.focal_px, -self.focal_px]) / np.maximum(viewed[:, 2:], NEAR_M)
        return np.asarray(viewed[:, :2] * scale + self.centre)

    def horizon_row(self, column: float) -> float:
        """Row of the horizon of the level world at that column."""
        r = self.rotation
        x = (column - self.centre[0]) / self.focal_px
        # The horizon is where the ray, turned back to the world, neither rises nor falls.
        return self.centre[1] + self.focal_px * float((x * r[0, 1] + r[2, 1]) / r[1, 1])


class Ride:
    """How the camera moves: forward with a changing speed, swaying and bobbing a little."""

    def __init__(self, style: Style, size: Size) -> None:
        rng = generator(style.seed, "ride")
        self._style = style
        self.course = Course(style.bends, style.hills)
        self._surge = rng.uniform(0.1, 0.3)
        self._phases = rng.uniform(0, math.tau, 8)
        mean_side = math.sqrt(size.height * size.width * 0.85)
        self._focal_px = style.view * 0.72 * mean_side
        self._centre = ((size.width - 1) / 2, (size.height - 1) * 0.5)
        below_middle = (style.horizon - 0.5) * min(size.height, size.width * 1.2)
        self._pitch = math.atan(below_middle / self._focal_px)

    def distance_m(self, time_s: float) -> float:
        """Where along the road the camera is."""
        rate = 0.35
        swing = math.sin(rate * time_s + self._phases[0]) - math.sin(self._phases[0])
        return START_M + self._style.speed * (time_s + self._surge / rate * swing)

    def camera(self, time_s: float) -> Camera:
        """The camera at a time in seconds from the start."""
        s = self.distance_m(time_s)
        sway, phase = self._style.sway, self._phases

        def wave(rate: float, which: int) -> float:
            return math.sin(rate * time_s + phase[which])

        pitch = self._pitch + self.course.grade(s + 8.0)
        pitch += math.radians(sway * (0.14 * wave(7.3, 1) + 0.09 * wave(11.9, 2)))
        yaw = self.course.heading(s + 6.0)
        yaw += math.radians(sway * (0.9 * wave(0.7, 3) + 0.3 * wave(1.9, 4)))
        return Camera(
            s=s,
            d=self._style.layout.own_lane_m + 0.16 * sway * wave(0.43, 5),
            height_m=self._style.camera_height_m + 0.012 * sway * wave(7.3, 6),
            yaw=yaw,
            pitch=pitch,
            roll=math.radians(0.25 * sway * wave(1.3, 7)),
            focal_px=self._focal_px,
            centre=self._centre,
            course=self.course,
        )
