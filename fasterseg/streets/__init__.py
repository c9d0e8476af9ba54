"""Procedural street scenes, each frame with its exact label map.

Street furniture, cars and people are made of simple shapes along an endless road. Every shape is
painted into the picture and into the label map by the same call, far to near, so labels are exact
at every pixel. Classes follow CamVid: grass and hedges are Tree, garden walls Building, traffic
lights SignSymbol, vans and buses Car.
"""

from __future__ import annotations

from typing import Final

from fasterseg.streets.scene import StreetScene, images

DEMO_SEED: Final = 3
"""The street of the demonstration video."""

__all__ = ["DEMO_SEED", "StreetScene", "images"]
