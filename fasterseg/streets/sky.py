"""The sky with its clouds, and the town and trees on the horizon."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.camera import Camera
from fasterseg.streets.canvas import Canvas, fixed
from fasterseg.streets.kit import BUILDING, SKY, TREE
from fasterseg.streets.light import Colour, Light
from fasterseg.streets.rng import generator
from fasterseg.streets.style import Style
from fasterseg.streets.texture import Bytes, mottled, rounded

_ROWS: Final = 320
_COLUMNS: Final = 1024
_TOP: Final = 1.35
_BOTTOM: Final = -0.25
"""The panorama spans these tangents of elevation, and all round."""

_SKYLINE: Final = 1440

Field = NDArray[np.float32]


class Sky:
    """Paints what is behind everything else."""

    def __init__(self, style: Style) -> None:
        self._light = style.light
        rng = generator(style.seed, "sky")
        self._panorama = _panorama(rng, style.light)
        town = dict(style.land).get("blocks", 0.0)
        self._roofs = _roofs(rng, 0.035 + 0.09 * town)
        self._crowns = _crowns(rng)

    def paint(self, canvas: Canvas, camera: Camera) -> None:
        """Fill the whole canvas with sky and skyline."""
        height, width = canvas.size
        slope = (camera.horizon_row(width - 1.0) - camera.horizon_row(0.0)) / (width - 1)
        per_px = (_ROWS - 1) / (_TOP - _BOTTOM) / camera.focal_px
        around = _COLUMNS / math.tau / camera.focal_px
        left = camera.yaw * _COLUMNS / math.tau - camera.centre[0] * around
        base = (_ROWS - 1) * _TOP / (_TOP - _BOTTOM) - camera.horizon_row(0.0) * per_px
        matrix = np.array([[around, 0.0, left], [-slope * per_px, per_px, base]])
        cv2.warpAffine(
            self._panorama, matrix, (width, height), dst=canvas.image,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP,
        )  # fmt: skip
        canvas.labels[:] = SKY
        self._skyline(canvas, camera)

    def _skyline(self, canvas: Canvas, camera: Camera) -> None:
        columns = np.arange(-4.0, canvas.size.width + 8.0, 2.0)
        angle = camera.yaw + np.arctan((columns - camera.centre[0]) / camera.focal_px)
        place = (angle / math.tau * _SKYLINE) % _SKYLINE
        feet = np.array([camera.horizon_row(float(column)) for column in columns])
        haze = self._light.haze
        for heights, colour, label, share in (
            (self._roofs, Colour(120, 124, 130), BUILDING, 0.74),
            (self._crowns, Colour(70, 100, 84), TREE, 0.6),
        ):
            steps = heights[place.astype(np.int64)]
            tops = feet - steps * camera.focal_px
            outline = np.concatenate(
                [
                    np.stack([columns, tops], axis=1),
                    np.stack([columns, feet + 3], axis=1)[::-1],
                ]
            )
            seen = colour.times(self._light.gain((0.0, 0.0, -1.0))).mixed(haze, share)
            canvas.regions([fixed(outline)], rounded(seen), label)


def _roofs(rng: np.random.Generator, tallest: float) -> Field:
    """Tangent of elevation of the houses on the horizon, by direction."""
    out = np.zeros(_SKYLINE, np.float32)
    place = 0
    while place < _SKYLINE:
        wide = int(rng.integers(4, 16))
        out[place : place + wide] = rng.uniform(0.006, tallest) if rng.random() < 0.8 else 0.004
        place += wide
    return out


def _crowns(rng: np.random.Generator) -> Field:
    """The same for trees: rounded bumps, with gaps where the houses show."""
    bumps = mottled(rng, 4, _SKYLINE, 4.0)[0] * 0.004 + mottled(rng, 4, _SKYLINE, 40.0)[1] * 0.014
    return np.asarray(np.maximum(0.012 + bumps, 0.001), np.float32)


def _panorama(rng: np.random.Generator, light: Light) -> Bytes:
    tangent = np.linspace(_TOP, _BOTTOM, _ROWS, dtype=np.float32)[:, None]
    azimuth = np.linspace(0, math.tau, _COLUMNS, endpoint=False, dtype=np.float32)[None, :]
    climb = np.clip(tangent / 0.75, 0, 1) ** 0.7
    sky = _blend(light.horizon, light.zenith, np.broadcast_to(climb, (_ROWS, _COLUMNS)))
    sky += _sunshine(light, tangent, azimuth)
    cover = _clouds(rng, light, tangent)
    if light.daytime == "overcast":
        return _bytes(sky * (1 + 0.1 * (cover[..., None] - 0.5)))
    body = 0.5 + 0.5 * mottled(rng, _ROWS, _COLUMNS, 14.0)
    white = Colour(250, 248, 246)
    if light.daytime == "dusk":
        white = light.horizon.mixed(Colour(190, 176, 226), 0.4)
    tone = _blend(white.mixed(light.zenith, 0.35), white, np.clip(body, 0, 1))
    share = (0.92 * cover)[..., None]
    return _bytes(sky * (1 - share) + tone * share)


def _bytes(picture: Field) -> Bytes:
    return np.asarray(np.clip(picture, 0, 255), np.uint8)


def _blend(low: Colour, high: Colour, share: Field) -> Field:
    a, b = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return np.asarray(a + (b - a) * share[..., None], np.float32)


def _sunshine(light: Light, tangent: Field, azimuth: Field) -> Field:
    if light.daytime == "overcast":
        return np.zeros((_ROWS, _COLUMNS, 3), np.float32)
    x, y, z = light.sun
    away = np.angle(np.exp(1j * (azimuth - math.atan2(x, z)))).astype(np.float32)
    up = np.arctan(tangent) - math.asin(y)
    squared = away**2 + up**2
    disc = np.clip(1.6 - squared / 0.0009, 0, 1) * (200 if light.daytime == "day" else 90)
    halo = 90 * np.exp(-squared / 0.03) + 40 * np.exp(-squared / 0.35)
    tint = np.asarray(light.direct, np.float32) / max(light.direct)
    return np.asarray((disc + halo)[..., None] * tint, np.float32)


def _clouds(rng: np.random.Generator, light: Light, tangent: Field) -> Field:
    """Share of cloud, 0 to 1, over the panorama; flat banks towards the horizon."""
    tall = np.zeros((2 * _ROWS, _COLUMNS), np.float32)
    for grain, weight in ((150, 1.0), (64, 0.6), (26, 0.32), (11, 0.17), (5, 0.08)):
        tall += weight * mottled(rng, 2 * _ROWS, _COLUMNS, grain)
    flat = cv2.resize(tall, (_COLUMNS, _ROWS), interpolation=cv2.INTER_AREA)
    edge = 0.75 - 1.5 * light.clouds
    soft = np.clip((flat - edge) / 0.55, 0, 1)
    thin = np.clip(tangent / 0.06, 0.25, 1)
    return np.asarray(soft * soft * (3 - 2 * soft) * thin, np.float32)
