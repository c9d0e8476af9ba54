"""Light and air of a scene: sun, sky light, haze, and what they do to a colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasterseg.streets.rng import pick

Daytime = Literal["day", "overcast", "dusk"]


class Colour(NamedTuple):
    """Blue, green and red; 0 to 255 as a colour, about 0 to 1 as a gain."""

    b: float
    g: float
    r: float

    def scaled(self, gain: float) -> Colour:
        """The colour `gain` times as bright."""
        return Colour(self.b * gain, self.g * gain, self.r * gain)

    def times(self, gain: Colour) -> Colour:
        """Channel by channel product."""
        return Colour(self.b * gain.b, self.g * gain.g, self.r * gain.r)

    def mixed(self, other: Colour, share: float) -> Colour:
        """`share` of `other`, the rest of this colour."""
        keep = 1.0 - share
        return Colour(
            self.b * keep + other.b * share,
            self.g * keep + other.g * share,
            self.r * keep + other.r * share,
        )


Vector = tuple[float, float, float]
UP: Final[Vector] = (0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Light:
    """What falls on things and what lies between them and the camera.

    Attributes:
        daytime: "day", "overcast" or "dusk".
        sun: unit vector towards the sun: right, up, along the road.
        direct: gain of sunlight on a face turned to the sun.
        ambient: gain of sky light.
        haze: colour that far things fade to.
        visibility_m: distance at which about two thirds of a thing's colour is gone.
        zenith: colour of the sky overhead.
        horizon: colour of the sky above the horizon.
        clouds: share of the sky under cloud, 0 to 1.
        exposure: gain of the whole picture.
        gamma: exponent of the camera's tone curve.
        noise: standard deviation of the sensor's noise, in grey levels.
    """

    daytime: Daytime
    sun: Vector
    direct: Colour
    ambient: Colour
    haze: Colour
    visibility_m: float
    zenith: Colour
    horizon: Colour
    clouds: float
    exposure: float
    gamma: float
    noise: float

    @property
    def lamps_on(self) -> bool:
        """Whether street lamps, windows and headlights shine."""
        return self.daytime == "dusk"

    def gain(self, normal: Vector) -> Colour:
        """Gain of a face with that unit normal (right, up, along the road)."""
        towards = sum(n * s for n, s in zip(normal, self.sun, strict=True))
        open_sky = 0.78 + 0.22 * normal[1]
        sunlit = max(0.0, towards)
        return Colour(
            self.ambient.b * open_sky + self.direct.b * sunlit,
            self.ambient.g * open_sky + self.direct.g * sunlit,
            self.ambient.r * open_sky + self.direct.r * sunlit,
        )

    def shade(self) -> Colour:
        """Gain of ground in the shadow relative to ground in the sun."""
        full = self.gain(UP)
        return Colour(
            self.ambient.b / full.b, self.ambient.g / full.g, self.ambient.r / full.r
        )  # fmt: skip

    def fade(self, distance_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of haze in the colour of things at that distance, 0 to 1."""
        return np.asarray(1.0 - np.exp(-np.maximum(distance_m, 0.0) / self.visibility_m))


def draw_light(rng: np.random.Generator) -> Light:
    """Draw the light of a scene: mostly day, often overcast, sometimes dusk."""
    name = pick(rng, {"day": 0.5, "overcast": 0.3, "dusk": 0.2})
    if name == "day":
        return _day(rng)
    return _overcast(rng) if name == "overcast" else _dusk(rng)


def _sun(rng: np.random.Generator, low_deg: float, high_deg: float) -> Vector:
    altitude = math.radians(rng.uniform(low_deg, high_deg))
    azimuth = rng.uniform(-math.pi, math.pi)
    flat = math.cos(altitude)
    return flat * math.sin(azimuth), math.sin(altitude), flat * math.cos(azimuth)


def _day(rng: np.random.Generator) -> Light:
    warmth = rng.uniform(0.0, 1.0)
    hazy = rng.random() < 0.25
    strength = rng.uniform(0.62, 0.8)
    horizon = Colour(238, 222, 200).mixed(Colour(226, 226, 222), rng.random())
    return Light(
        daytime="day",
        sun=_sun(rng, 20, 58),
        direct=Colour(0.98 - 0.22 * warmth, 0.98 - 0.06 * warmth, 1.0).scaled(strength),
        ambient=Colour(1.12, 1.0, 0.93).scaled(rng.uniform(0.46, 0.58)),
        haze=horizon.scaled(0.94),
        visibility_m=rng.uniform(160, 300) if hazy else rng.uniform(400, 1100),
        zenith=Colour(196, 128, 66).mixed(Colour(205, 160, 110), rng.random()),
        horizon=horizon,
        clouds=rng.uniform(0.0, 0.7),
        exposure=rng.uniform(0.92, 1.08),
        gamma=rng.uniform(0.82, 1.02),
        noise=rng.uniform(0.8, 2.2),
    )


def _overcast(rng: np.random.Generator) -> Light:
    grey = rng.uniform(178, 228)
    sky = Colour(grey * 1.02, grey, grey * 0.985)
    return Light(
        daytime="overcast",
        sun=_sun(rng, 40, 70),
        direct=Colour(0.97, 0.99, 1.0).scaled(rng.uniform(0.06, 0.16)),
        ambient=Colour(1.03, 1.0, 0.97).scaled(rng.uniform(0.66, 0.82)),
        haze=sky.scaled(0.96),
        visibility_m=rng.uniform(90, 200) if rng.random() < 0.3 else rng.uniform(220, 600),
        zenith=sky.scaled(rng.uniform(0.82, 0.95)),
        horizon=sky,
        clouds=1.0,
        exposure=rng.uniform(0.9, 1.08),
        gamma=rng.uniform(0.84, 1.05),
        noise=rng.uniform(1.0, 2.8),
    )


def _dusk(rng: np.random.Generator) -> Light:
    glow = Colour(128, 158, 232).mixed(Colour(176, 150, 196), rng.random())
    return Light(
        daytime="dusk",
        sun=_sun(rng, 3, 9),
        direct=Colour(0.4, 0.68, 1.0).scaled(rng.uniform(0.12, 0.3)),
        ambient=Colour(1.16, 1.0, 0.94).scaled(rng.uniform(0.36, 0.5)),
        haze=glow.mixed(Colour(140, 110, 90), 0.55).scaled(0.85),
        visibility_m=rng.uniform(220, 700),
        zenith=Colour(132, 88, 58).scaled(rng.uniform(0.75, 1.1)),
        horizon=glow,
        clouds=rng.uniform(0.1, 0.75),
        exposure=rng.uniform(0.95, 1.12),
        gamma=rng.uniform(0.8, 0.95),
        noise=rng.uniform(1.6, 3.2),
    )
